#include "tests/support/store_fixture.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <random>

using namespace callboard;
using namespace callboard::test;

namespace {

using kind = commit_event::kind;

/// Two processes with the same store open; the first keeps events.
struct two_processes {
  two_processes()
      : watcher(here.open(options())), other(there.open(options())) {
    watcher->keep_events(watcher->view()->generation());
  }

  store_options options() const { return options_for(place.path()); }

  std::vector<commit_event> heard() {
    need(watcher->refresh());
    return watcher->take_events();
  }

  quick_directory place;
  process here;
  process there;
  std::unique_ptr<store> watcher;
  std::unique_ptr<store> other;
};

std::vector<kind> kinds(const std::vector<commit_event>& events) {
  std::vector<kind> out;
  for (const auto& each : events)
    out.push_back(each.what);
  return out;
}

using ids = std::vector<std::string>;

} // namespace

TEST_CASE("Each commit by anybody is one event, with its ids in their order") {
  two_processes s;
  put(*s.other, {{"a", 1}, {"b", 1}});
  put(*s.watcher, {{"c", 1}});
  take_out(*s.other, {"a", "c"});
  const auto events = s.heard();
  REQUIRE(kinds(events)
          == std::vector{kind::commit, kind::commit, kind::commit});
  CHECK(events[0].generation == 1);
  CHECK(events[0].changed == ids{"a", "b"});
  CHECK(events[0].removed.empty());
  CHECK(events[1].generation == 2);
  CHECK(events[1].changed == ids{"c"});
  CHECK(events[2].generation == 3);
  CHECK(events[2].changed.empty());
  CHECK(events[2].removed == ids{"a", "c"});
  CHECK(s.heard().empty());
}

TEST_CASE("Events are those of commits after the generation that was named") {
  two_processes s;
  put(*s.other, {{"a", 1}});
  CHECK(s.heard().size() == 1);
  SECTION("the present one") {
    s.watcher->keep_events(1);
    put(*s.other, {{"b", 1}});
    CHECK(kinds(s.heard()) == std::vector{kind::commit});
  }
  SECTION("one that the handle has left behind: what was between is lost") {
    put(*s.other, {{"b", 1}});
    CHECK(s.heard().size() == 1);
    s.watcher->keep_events(1);
    const auto events = s.heard();
    REQUIRE(kinds(events) == std::vector{kind::overflow});
    CHECK(events[0].generation == 2);
  }
  SECTION("none any more") {
    s.watcher->keep_no_events();
    put(*s.other, {{"b", 1}});
    CHECK(s.heard().empty());
  }
}

TEST_CASE("A drop is an event, and commits go on after it") {
  two_processes s;
  put(*s.other, {{"a", 1}});
  need(s.other->drop());
  put(*s.other, {{"b", 1}});
  const auto events = s.heard();
  REQUIRE(kinds(events) == std::vector{kind::commit, kind::drop, kind::commit});
  CHECK(events[1].generation == 2);
  CHECK(events[2].changed == ids{"b"});
}

TEST_CASE("Checkpoints of others hide no commit from who has the log open") {
  two_processes s;
  put(*s.other, {{"a", 1}});
  SECTION("one") {
    need(s.other->checkpoint(compaction::none));
    put(*s.other, {{"b", 1}});
    CHECK(kinds(s.heard()) == std::vector{kind::commit, kind::commit});
  }
  SECTION("one between whose steps there are commits") {
    auto job = need(
        s.other->begin_checkpoint(compaction::none, patience::lock_timeout));
    put(*s.other, {{"b", 1}});
    CHECK(kinds(s.heard()) == std::vector{kind::commit, kind::commit});
    put(*s.other, {{"c", 1}});
    need(job->write());
    need(s.other->finish_checkpoint(std::move(job)));
    put(*s.other, {{"d", 1}});
    CHECK(kinds(s.heard()) == std::vector{kind::commit, kind::commit});
  }
}

TEST_CASE("Where a log is gone before it was read, the events say so") {
  two_processes s;
  put(*s.other, {{"a", 1}});
  need(s.other->checkpoint(compaction::none));
  put(*s.other, {{"b", 1}});
  need(s.other->checkpoint(compaction::none)); // the log of "b" is gone
  put(*s.other, {{"c", 1}});
  const auto events = s.heard();
  REQUIRE(!events.empty());
  CHECK(std::ranges::count(kinds(events), kind::overflow) == 1);
  CHECK(events.back().generation == 3);
  CHECK(contents(*s.watcher) == versions{{"a", 1}, {"b", 1}, {"c", 1}});
}

TEST_CASE("Taking over a foreign pair is an overflow: anything may differ") {
  two_processes s;
  put(*s.other, {{"a", 1}});
  s.heard();
  write_foreign_pair(s.place.path(), {{"x", 1}});
  need(s.other->checkpoint(compaction::none));
  const auto events = s.heard();
  REQUIRE(!events.empty());
  CHECK(events.front().what == kind::overflow);
  CHECK(contents(*s.watcher).contains("x"));
}

TEST_CASE("Events that nobody takes become one overflow instead of memory") {
  two_processes s;
  const std::string long_tail(1000, 'x');
  std::uint64_t last = 0;
  for (int commit = 0; commit < 6; ++commit) {
    std::vector<commit_operation> removals;
    for (int i = 0; i < 5000; ++i)
      removals.push_back(removal(std::to_string(i) + long_tail));
    last = need(s.other->commit(removals)).generation;
  }
  const auto events = s.heard();
  REQUIRE(!events.empty());
  CHECK(events.front().what == kind::overflow);
  CHECK(events.back().generation == last);
  std::size_t bytes = 0;
  for (const auto& each : events)
    for (const auto& id : each.removed)
      bytes += id.size();
  CHECK(bytes < event_bytes_max);
  put(*s.other, {{"a", 1}});
  CHECK(kinds(s.heard()) == std::vector{kind::commit});
}

TEST_CASE("Events explain every difference between two views") {
  const auto seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  two_processes s;
  versions known;
  std::uint64_t generation = 0;
  for (int step = 0; step < 200; ++step) {
    switch (random() % 8) {
    case 0:
      need(s.other->checkpoint(random() % 2 == 0 ? compaction::none
                                                 : compaction::forced));
      break;
    case 1:
      take_out(*s.other, {std::to_string(random() % 20)});
      break;
    case 2:
      if (random() % 8 == 0)
        need(s.other->drop());
      break;
    default:
      put(random() % 4 == 0 ? *s.watcher : *s.other,
          {{std::to_string(random() % 20), step}});
    }
    if (random() % 3 != 0)
      continue;
    auto explained = [&](const std::string& id, const auto& events) {
      return std::ranges::any_of(events, [&](const commit_event& event) {
        return event.what != kind::commit
               || std::ranges::count(event.changed, id) > 0
               || std::ranges::count(event.removed, id) > 0;
      });
    };
    const auto events = s.heard();
    const auto now = contents(*s.watcher);
    for (const auto& event : events) {
      CHECK(event.generation > generation);
      generation = event.generation;
    }
    CHECK(generation == s.watcher->view()->generation());
    for (int id = 0; id < 20; ++id) {
      const auto name = std::to_string(id);
      const auto before = known.find(name);
      const auto after = now.find(name);
      const bool same = before == known.end()
                            ? after == now.end()
                            : after != now.end() && *after == *before;
      if (!same)
        CHECK(explained(name, events));
    }
    known = now;
  }
}

TEST_CASE("A commit that nobody announced is found by a look at the files") {
  quick_directory place;
  process here(true); // a board that is told of all commits, as it thinks
  process there;      // which tells another board
  auto options = options_for(place.path());
  auto reader = here.open(options);
  auto writer = there.open(options);
  const auto probe = reader->probe();
  CHECK_FALSE(probe->look_at_files());
  put(*writer, {{"a", 1}});
  CHECK_FALSE(probe->changed(reader->view()->generation()));
  CHECK(probe->look_at_files());
  CHECK(probe->changed(reader->view()->generation()));
  CHECK(contents(*need(reader->refresh())) == versions{{"a", 1}});
  CHECK_FALSE(probe->changed(reader->view()->generation()));
  CHECK_FALSE(probe->look_at_files());
}

TEST_CASE("A commit that failed is no event, even if its frame stays") {
  two_processes s;
  auto third = s.here.open(s.options());
  put(*third, {{"a", 1}});
  CHECK(s.heard().size() == 1);
  s.here.disk.set_hook([](const operation& each) {
    const bool hit = each.kind == operation_kind::sync_data
                     || each.kind == operation_kind::truncate;
    return hit ? fault::fail(errc::io_failure) : fault::none();
  });
  CHECK(failure_of(try_put(*third, {{"lost", 1}})).code == errc::broken);
  s.here.disk.set_hook({});
  auto fourth = s.here.open(s.options());
  put(*fourth, {{"b", 1}});
  for (const auto& each : s.heard())
    CHECK(each.changed != ids{"lost"});
  CHECK(contents(*s.watcher) == versions{{"a", 1}, {"b", 1}});
}
