#include "tests/story/story.hpp"

#include <catch2/catch.hpp>

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <optional>
#include <string>

using namespace callboard::test;

namespace {

/// Half a minute with optimization, and without.
#ifdef NDEBUG
constexpr std::uint64_t default_seeds = 10'000;
#else
constexpr std::uint64_t default_seeds = 1'000;
#endif

/// A variable of the environment, as a number.
std::optional<std::uint64_t> number_from(const char* variable) {
  const auto* text = std::getenv(variable);
  if (text == nullptr)
    return std::nullopt;
  return std::stoull(text);
}

void require_kept(std::uint64_t seed, story_totals& totals) {
  constexpr std::size_t trace_steps = 60;
  const auto outcome = tell_story(seed, totals);
  if (!outcome.violation)
    return;
  story_totals again;
  const auto replayed = tell_story(seed, again, trace_steps);
  FAIL("seed " << seed << ": " << *outcome.violation << "\n"
               << replayed.trace << "(CALLBOARD_SIMULATION_SEED=" << seed
               << " replays it)");
}

} // namespace

TEST_CASE("One seed gives one story, step by step") {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    story_totals totals;
    const auto first = tell_story(seed, totals);
    const auto second = tell_story(seed, totals);
    CAPTURE(seed);
    REQUIRE(first.event_hash == second.event_hash);
  }
}

TEST_CASE("Whatever the order of events and whatever fails, every promise is "
          "kept") {
  story_totals totals;
  if (const auto seed = number_from("CALLBOARD_SIMULATION_SEED")) {
    require_kept(*seed, totals);
  } else {
    const auto seeds =
        number_from("CALLBOARD_SIMULATION_SEEDS").value_or(default_seeds);
    for (std::uint64_t each = 1; each <= seeds; ++each)
      require_kept(each, totals);
  }
  std::cout << totals << "\n";
}
