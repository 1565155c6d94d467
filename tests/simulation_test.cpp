#include "tests/story/story.hpp"

#include <catch2/catch.hpp>

#include <cstdint>

using namespace callboard::test;

TEST_CASE("One seed gives one story, step by step") {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    story_totals totals;
    const auto first = tell_story(seed, totals);
    const auto second = tell_story(seed, totals);
    CAPTURE(seed);
    REQUIRE(first.event_hash == second.event_hash);
  }
}

TEST_CASE("A schedule that was written and read again gives the same story") {
  callboard::simulation::schedule by(7);
  by.calm("events", {100, 200});
  by.calm("faults", {50});
  story_totals totals;
  const auto first = tell_story(by, totals);
  const auto read =
      callboard::simulation::schedule::parse(to_string(by)).value();
  REQUIRE(tell_story(read, totals).event_hash == first.event_hash);
  REQUIRE(tell_story(7, totals).event_hash != first.event_hash);
}
