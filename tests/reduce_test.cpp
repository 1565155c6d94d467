#include "simulation/draw_ranges.hpp"
#include "simulation/machine.hpp"
#include "simulation/random_source.hpp"
#include "simulation/reduce.hpp"
#include "simulation/schedule.hpp"

#include <catch2/catch.hpp>

#include <cstdint>
#include <iterator>
#include <memory>
#include <set>
#include <string>
#include <vector>

using namespace callboard;
using namespace callboard::simulation;

namespace {

constexpr auto no_end = draw_ranges::no_end;

std::vector<std::uint64_t> first_numbers(random_source source,
                                         std::size_t count = 8) {
  std::vector<std::uint64_t> out;
  while (out.size() < count)
    out.push_back(source.below(1'000'000));
  return out;
}

/// Fails if two draws far apart, of two streams, both chose something special.
bool needs_two_draws(const schedule& by) {
  auto left = by.stream("left");
  auto right = by.stream("right");
  bool is_left = false;
  bool is_right = false;
  for (std::size_t i = 0; i < 1000; ++i) {
    is_left = (left.below(1000) != 0 && i == 137) || is_left;
    is_right = (right.below(1000) != 0 && i == 802) || is_right;
  }
  return is_left && is_right;
}

/// Fails after the third thing that happens; each of them, and each time
/// nothing does, makes it draw in another place.
bool needs_three_events(const schedule& by) {
  auto random = by.stream("events");
  std::size_t events = 0;
  for (std::size_t turn = 0; turn < 200 && events < 3; ++turn) {
    if (random.below(4) == 0)
      continue;
    for (auto more = random.below(3); more > 0; --more)
      (void)random.bits();
    events += random.one_in(10) ? 1U : 0U;
  }
  return events == 3;
}

std::uint64_t first_failing(const failing_test& fails) {
  std::uint64_t seed = 1;
  while (!fails(seed))
    ++seed;
  return seed;
}

} // namespace

// -- Ranges -------------------------------------------------------------------

TEST_CASE("Ranges of draws are what a set of draws is") {
  constexpr std::uint64_t draws = 64;
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    CAPTURE(seed);
    random_source random(seed);
    draw_ranges ranges;
    std::set<std::uint64_t> expected;
    for (std::size_t i = 0; i < 12; ++i) {
      const auto begin = random.below(draws);
      const auto end = begin + random.below(8);
      ranges.add({begin, end});
      for (auto each = begin; each < end; ++each)
        expected.insert(each);
    }
    std::uint64_t inside = 0;
    std::uint64_t first_half = 0;
    for (std::uint64_t each = 0; each < draws; ++each) {
      REQUIRE(ranges.contains(each) == (expected.count(each) == 1));
      inside += expected.count(each);
      first_half += each < draws / 2 ? expected.count(each) : 0;
    }
    inside += static_cast<std::size_t>(
        std::distance(expected.lower_bound(draws), expected.end()));
    REQUIRE(ranges.count_in({}) == inside);
    REQUIRE(ranges.count_in({0, draws / 2}) == first_half);
    for (std::size_t i = 1; i < ranges.all().size(); ++i)
      REQUIRE(ranges.all()[i - 1].end < ranges.all()[i].begin);
  }
}

TEST_CASE("A range without an end holds every later draw") {
  draw_ranges ranges;
  ranges.add({100, no_end});
  REQUIRE(ranges.contains(no_end - 1));
  REQUIRE_FALSE(ranges.contains(99));
  ranges.add({50, 100});
  REQUIRE(ranges.all().size() == 1);
}

// -- Sources ------------------------------------------------------------------

TEST_CASE("A calm draw chooses 0, and leaves the later ones as they are") {
  auto record = std::make_shared<draw_record>();
  record->calm.add({2, 4});
  const auto lively = first_numbers(random_source(5));
  const auto calm = first_numbers(random_source(5, record));
  for (std::size_t i = 0; i < lively.size(); ++i) {
    CAPTURE(i);
    REQUIRE(lively[i] > 0);
    REQUIRE(calm[i] == (i == 2 || i == 3 ? 0 : lively[i]));
  }
}

TEST_CASE("A calm chance is missed, a certain one too, but bits are bits") {
  auto record = std::make_shared<draw_record>();
  record->calm.add({});
  random_source calm(5, record);
  random_source lively(5);
  for (std::uint64_t count = 1; count <= 100; ++count) {
    REQUIRE_FALSE(calm.one_in(count));
    (void)lively.one_in(count);
    REQUIRE(calm.bits() == lively.bits());
  }
  REQUIRE(random_source(5).one_in(1));
}

TEST_CASE("One in ten is one in ten") {
  random_source random(5);
  std::size_t hits = 0;
  for (std::size_t i = 0; i < 10'000; ++i)
    hits += random.one_in(10) ? 1U : 0U;
  REQUIRE(hits > 900);
  REQUIRE(hits < 1100);
}

TEST_CASE("A source counts its draws, a schedule those of the longest run") {
  const schedule by(3);
  auto first = by.stream("events");
  (void)first.bits();
  (void)first.below(7);
  (void)first.one_in(7);
  REQUIRE(first.draws() == 3);
  auto second = by.stream("events");
  (void)second.bits();
  REQUIRE(by.draws() == schedule::draw_counts{{"events", 3}});
  REQUIRE(by.again().draws().empty());
}

TEST_CASE("A calm power loss leaves what was synced and nothing else") {
  schedule by(1);
  by.calm("machine", {});
  for (const auto model : {loss_model::ordered, loss_model::weakest}) {
    machine computer(by.stream("machine"));
    auto writer = computer.start_process();
    auto& door = writer->door();
    auto home = door.open_directory("/home", true).value();
    auto synced = home->open_file("synced", open_mode::create).value();
    const std::string text = "old";
    REQUIRE(synced->append(0, std::as_bytes(std::span(text))));
    REQUIRE(synced->sync());
    REQUIRE(home->sync());
    REQUIRE(synced->append(3, std::as_bytes(std::span(text))));
    auto unsynced = home->open_file("unsynced", open_mode::create).value();
    computer.lose_power(model);
    CAPTURE(to_string(model));
    REQUIRE(computer.read_file("/home/synced") == text);
    REQUIRE(computer.list("/home") == std::vector<std::string>{"synced"});
  }
}

// -- Schedules ----------------------------------------------------------------

TEST_CASE("A schedule is written as it is read") {
  for (const std::string text :
       {"0", "17", "18446744073709551615", "17:events=7",
        "17:choices=20-40:events=7,100-350,900-", "17:a_1=0-"}) {
    const auto read = schedule::parse(text);
    CAPTURE(text);
    REQUIRE(read);
    REQUIRE(to_string(*read) == text);
  }
  REQUIRE(to_string(schedule::parse("1:b=5-7,1-2,3:a=1:b=8").value())
          == "1:a=1:b=1-3,5-8");
}

TEST_CASE("What is no schedule is refused, with the part that is wrong") {
  for (const std::string text :
       {"", "x", "-1", "1:", "1:events", "1:events=", "1:events=a", "1:=1",
        "1:events=1,", "1:events=,1", "1:events=3-2", "1:Events=1", "1 ",
        "1:events=1-2-3", "18446744073709551616",
        "1:events=18446744073709551615"}) {
    const auto read = schedule::parse(text);
    CAPTURE(text);
    REQUIRE_FALSE(read);
    REQUIRE(read.error().code == errc::invalid_argument);
    REQUIRE(read.error().message.find("is no schedule") != std::string::npos);
  }
}

TEST_CASE("Each stream of each seed has numbers of its own") {
  std::set<std::vector<std::uint64_t>> seen;
  for (std::uint64_t seed = 1; seed <= 50; ++seed)
    for (const auto* name : {"events", "choices", "machine", "a", "b"})
      seen.insert(first_numbers(schedule(seed).stream(name)));
  REQUIRE(seen.size() == 250);
  REQUIRE(first_numbers(schedule(3).stream("a"))
          == first_numbers(schedule(3).stream("a")));
}

TEST_CASE("Only the stream that is calmed is calm") {
  schedule by(3);
  by.calm("a", {1, 2});
  REQUIRE(first_numbers(by.stream("a"))[1] == 0);
  REQUIRE(first_numbers(by.stream("b"))
          == first_numbers(schedule(3).stream("b")));
  REQUIRE(by.lively_draws() == 15);
}

// -- Reduction ----------------------------------------------------------------

TEST_CASE("A failure is reduced to the draws that it takes") {
  const auto found = reduce(schedule(1), needs_two_draws);
  REQUIRE(found.is_reproduced);
  REQUIRE(to_string(found.reduced) == "1:left=0-136,138-:right=0-801,803-");
  REQUIRE(found.lively_draws == 2);
  REQUIRE(found.trials < 100);
  REQUIRE(needs_two_draws(found.reduced));
}

TEST_CASE("A failure whose draws move is reduced, too, each time the same") {
  const auto seed = first_failing(needs_three_events);
  CAPTURE(seed);
  const auto found = reduce(seed, needs_three_events);
  REQUIRE(found.is_reproduced);
  REQUIRE(needs_three_events(found.reduced));
  const schedule whole(seed);
  REQUIRE(needs_three_events(whole));
  REQUIRE(found.lively_draws < whole.lively_draws());
  const auto again = reduce(seed, needs_three_events);
  REQUIRE(to_string(again.reduced) == to_string(found.reduced));
  REQUIRE(again.trials == found.trials);
}

TEST_CASE("No single lively draw of a reduced schedule can be calm") {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    const auto found = reduce(seed, needs_three_events, 10'000);
    if (!found.is_reproduced)
      continue;
    const auto by = found.reduced.again();
    REQUIRE(needs_three_events(by));
    REQUIRE(by.lively_draws() == found.lively_draws);
    for (const auto& each : by.lively("events").all())
      for (auto i = each.begin; i < each.end; ++i) {
        auto calmer = by;
        calmer.calm("events", {i, i + 1});
        CAPTURE(seed, i);
        REQUIRE_FALSE(needs_three_events(calmer));
      }
  }
}

TEST_CASE("A reduction ends after so many trials, with what still fails") {
  for (const std::size_t trials_max : {1U, 2U, 7U, 30U}) {
    const auto found = reduce(1, needs_two_draws, trials_max);
    CAPTURE(trials_max);
    REQUIRE(found.trials <= trials_max);
    REQUIRE(needs_two_draws(found.reduced));
  }
}

TEST_CASE("A failure that needs nothing is reduced to nothing") {
  const auto found = reduce(1, [](const schedule& by) {
    (void)by.stream("events").below(9);
    return true;
  });
  REQUIRE(to_string(found.reduced) == "1:events=0-");
  REQUIRE(found.lively_draws == 0);
}

TEST_CASE("What does not fail again is said not to, and left as it is") {
  const auto found = reduce(1, [](const schedule&) { return false; });
  REQUIRE_FALSE(found.is_reproduced);
  REQUIRE(found.trials == 1);
  REQUIRE(to_string(found.reduced) == "1");
}
