#include "actors/board_watcher.hpp"
#include "actors/client.hpp"
#include "actors/runtime_actors.hpp"
#include "ipc/shared_board.hpp"
#include "tests/support/machine_handle.hpp"
#include "tests/support/stage.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <future>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

using namespace callboard;
using namespace callboard::test;
using namespace std::chrono_literals;

namespace {

using event_kind = commit_event::kind;
using strings = std::vector<std::string>;
using generations = std::vector<std::uint64_t>;

/// The next event, if there is one now.
optional_event poll(test_handle& from, std::uint64_t number) {
  return from.settle(from.next(number, 0ms));
}

/// All events that there are now.
std::vector<commit_event> poll_all(test_handle& from, std::uint64_t number) {
  std::vector<commit_event> out;
  while (auto event = poll(from, number))
    out.push_back(std::move(*event));
  return out;
}

generations generations_of(const std::vector<commit_event>& events) {
  generations out;
  for (const auto& each : events)
    out.push_back(each.generation);
  return out;
}

std::uint64_t start_watch(test_handle& on, watch_options options = {}) {
  return on.settle(on.watch(options)).number;
}

/// Room for a few events with short ids.
constexpr watch_options small{.buffer_bytes_max = 1000};

} // namespace

// -- events, by the machine ---------------------------------------------------

TEST_CASE("a watch tells what each commit has put there and removed",
          "[watch]") {
  scratch_directory where;
  test_handle mine(where);
  mine.put("before", "zero");
  auto started = mine.settle(mine.watch());
  CHECK(started.generation == 1);
  mine.settle(mine.upsert("a", "one"));
  mine.settle(mine.upsert("b", "two"));
  mine.settle(mine.commit());
  mine.settle(mine.remove({"before"}));
  mine.settle(mine.commit());
  mine.settle(mine.drop());

  auto events = poll_all(mine, started.number);
  REQUIRE(generations_of(events) == generations{2, 3, 4});
  CHECK(events[0].what == event_kind::commit);
  CHECK(events[0].changed == strings{"a", "b"});
  CHECK(events[0].removed.empty());
  CHECK(events[1].changed.empty());
  CHECK(events[1].removed == strings{"before"});
  CHECK(events[2].what == event_kind::drop);
}

TEST_CASE("a watch begins at what has been committed by then, by anybody",
          "[watch]") {
  scratch_directory where;
  test_handle mine(where);
  test_handle other(where);
  other.put("a", "one");
  auto started = mine.settle(mine.watch());
  CHECK(started.generation == 1);
  CHECK_FALSE(poll(mine, started.number));
  other.put("b", "two");
  auto event = poll(mine, started.number);
  REQUIRE(event);
  CHECK(event->generation == 2);
  CHECK(event->changed == strings{"b"});
  CHECK(mine.visible().size() == 2);
}

TEST_CASE("who waits for an event gets it when the store has been looked at",
          "[watch]") {
  scratch_directory where;
  test_handle mine(where);
  test_handle other(where);
  auto number = start_watch(mine);
  auto next = mine.next(number);
  mine.services.settle();
  CHECK_FALSE(next.is_answered());
  other.put("a", "one");
  mine.machine->look();
  auto event = mine.settle(next);
  REQUIRE(event);
  CHECK(event->changed == strings{"a"});
  // The event was there before its wait: no timer can take the next one.
  auto second = mine.next(number);
  mine.services.ring();
  mine.services.settle();
  CHECK_FALSE(second.is_answered());
}

TEST_CASE("what was committed before the wait is found without a look",
          "[watch]") {
  scratch_directory where;
  test_handle mine(where);
  test_handle other(where);
  auto number = start_watch(mine);
  other.put("a", "one");
  CHECK(mine.settle(mine.next(number))->generation == 1);
}

TEST_CASE("own commits reach those who wait at once", "[watch]") {
  scratch_directory where;
  test_handle mine(where);
  auto number = start_watch(mine);
  auto next = mine.next(number);
  auto awaited = mine.await(1);
  mine.settle(mine.upsert("a", "one"));
  mine.settle(mine.commit());
  CHECK(need(next.get())->generation == 1);
  CHECK(need(awaited.get()) == 1);
  CHECK(mine.services.jobs.empty());
}

TEST_CASE("a look during a commit costs no refresh when that has shown all",
          "[watch]") {
  scratch_directory where;
  test_handle mine(where);
  auto number = start_watch(mine);
  int refreshes = 0;
  mine.script->on_refresh = [&]() -> std::optional<failure> {
    ++refreshes;
    return std::nullopt;
  };
  need(mine.upsert("a", "one").get());
  auto commit = mine.commit();
  mine.services.embed_texts();
  mine.services.jobs.front().work->run(); // announced, not answered
  mine.machine->look();
  CHECK(mine.services.jobs.size() == 1);
  auto done = mine.services.jobs.front().done;
  mine.services.jobs.pop_front();
  done({});
  mine.settle(commit);
  CHECK(refreshes == 0);
  CHECK(poll(mine, number)->generation == 1);
}

TEST_CASE("a look during a job is made up for when the job is done",
          "[watch]") {
  scratch_directory where;
  test_handle mine(where);
  test_handle other(where);
  auto number = start_watch(mine);
  auto next = mine.next(number);
  auto stats = mine.stats();
  mine.services.jobs.front().work->run();
  other.put("a", "one");
  mine.machine->look();
  auto done = mine.services.jobs.front().done;
  mine.services.jobs.pop_front();
  done({});
  mine.services.settle();
  CHECK(need(next.get())->generation == 1);
}

// -- overflow -----------------------------------------------------------------

TEST_CASE("events that do not fit the buffer become one overflow, and go on"
          " after it",
          "[watch]") {
  scratch_directory where;
  test_handle mine(where);
  auto number = start_watch(mine, small);
  for (int i = 0; i < 50; ++i)
    mine.put("a", std::to_string(i));
  auto lost = poll(mine, number);
  REQUIRE(lost);
  CHECK(lost->what == event_kind::overflow);
  CHECK(lost->generation == 50);
  CHECK_FALSE(poll(mine, number));
  mine.put("b", "later");
  auto later = poll(mine, number);
  REQUIRE(later);
  CHECK(later->what == event_kind::commit);
  CHECK(later->generation == 51);
}

TEST_CASE("a slow watcher does not slow down or confuse a fast one",
          "[watch]") {
  scratch_directory where;
  test_handle mine(where);
  auto slow = start_watch(mine, small);
  auto fast = start_watch(mine, small);
  auto roomy = start_watch(mine);
  for (std::uint64_t i = 1; i <= 20; ++i) {
    mine.put("a", std::to_string(i));
    CHECK(poll(mine, fast)->generation == i);
  }
  CHECK(generations_of(poll_all(mine, slow)) == generations{20});
  CHECK(poll_all(mine, roomy).size() == 20);
}

TEST_CASE("an event larger than the buffer reaches only who waits for it",
          "[watch]") {
  scratch_directory where;
  test_handle mine(where);
  auto number = start_watch(mine, {.buffer_bytes_max = 0});
  auto next = mine.next(number);
  mine.put("a", "one");
  CHECK(need(next.get())->what == event_kind::commit);
  mine.put("b", "two");
  CHECK(poll(mine, number)->what == event_kind::overflow);
  CHECK_FALSE(poll(mine, number));
}

TEST_CASE("an overflow of the store takes the place of what is buffered",
          "[watch]") {
  scratch_directory where;
  test_handle mine(where);
  auto number = start_watch(mine);
  mine.put("a", "one");
  mine.script->more_events.push_back({.what = event_kind::overflow,
                                      .generation = 7,
                                      .changed = {},
                                      .removed = {}});
  mine.settle(mine.stats());
  auto events = poll_all(mine, number);
  REQUIRE(generations_of(events) == generations{7});
  CHECK(events.front().what == event_kind::overflow);
}

// -- time ---------------------------------------------------------------------

TEST_CASE("a wait for an event ends with nothing when its time is over",
          "[watch]") {
  scratch_directory where;
  test_handle mine(where);
  auto number = start_watch(mine);
  auto next = mine.next(number, 5ms);
  CHECK_FALSE(next.is_answered());
  mine.services.ring();
  CHECK_FALSE(need(next.get()));
  mine.put("a", "one"); // not lost
  CHECK(poll(mine, number)->generation == 1);
}

TEST_CASE("the longest of timeouts is for ever", "[watch]") {
  scratch_directory where;
  test_handle mine(where);
  auto number = start_watch(mine);
  auto longest = std::chrono::milliseconds::max();
  auto next = mine.next(number, longest);
  auto awaited = mine.await(1, longest);
  for (int i = 0; i < 100; ++i)
    mine.services.ring();
  CHECK_FALSE(next.is_answered());
  CHECK_FALSE(awaited.is_answered());
  mine.put("a", "one");
  CHECK(need(next.get()));
  CHECK(need(awaited.get()) == 1);
  CHECK_FALSE(mine.settle(mine.next(number, std::chrono::milliseconds::min())));
}

TEST_CASE("waits that end early leave few timers", "[watch]") {
  scratch_directory where;
  test_handle mine(where);
  auto number = start_watch(mine);
  for (int i = 0; i < 50; ++i) {
    auto next = mine.next(number, 60s);
    mine.put("a", std::to_string(i));
    CHECK(need(next.get()));
  }
  CHECK(mine.services.timers.size() < 3);
  auto shorter = mine.next(number, 10ms);
  auto awaited = mine.await(1000, 30s);
  mine.services.ring();
  CHECK_FALSE(need(shorter.get()));
  CHECK_FALSE(awaited.is_answered());
  while (!awaited.is_answered())
    mine.services.ring();
  CHECK(failure_of(awaited.get()).code == errc::timed_out);
}

TEST_CASE("a timeout that was called off does nothing", "[watch]") {
  manual_services services;
  deadlines times(posix_io(), [&](auto time, auto then) {
    services.after(time, std::move(then));
  });
  std::vector<int> over;
  times.set(1, 1h, [&] { over.push_back(1); });
  times.set(2, 2h, [&] { over.push_back(2); });
  times.set(3, 1ms, [&] { over.push_back(3); });
  times.cancel(1);
  while (!services.timers.empty())
    services.ring();
  times.cancel(2);
  CHECK(over == std::vector{3, 2});
}

TEST_CASE("a second wait on one watch is refused, and so is a watch that is"
          " not there",
          "[watch]") {
  scratch_directory where;
  test_handle mine(where);
  auto number = start_watch(mine);
  auto first = mine.next(number);
  CHECK(failure_of(mine.next(number).get()).code == errc::busy);
  CHECK(failure_of(mine.next(number + 1).get()).code == errc::invalid_argument);
  mine.put("a", "one");
  CHECK(need(first.get()));
}

TEST_CASE("who only looks gets the latest, even while a job is under way",
          "[watch]") {
  scratch_directory where;
  test_handle mine(where);
  test_handle other(where);
  auto number = start_watch(mine);
  auto stats = mine.stats(); // a job under way
  other.put("a", "one");
  auto event = mine.next(number, 0ms);
  auto reached = mine.await(1, 0ms);
  auto early = mine.await(2, -1ms);
  CHECK_FALSE(event.is_answered());
  mine.services.settle();
  CHECK(need(event.get())->generation == 1);
  CHECK(need(reached.get()) == 1);
  CHECK(failure_of(early.get()).code == errc::timed_out);
  CHECK(mine.services.timers.empty());
}

// -- generations --------------------------------------------------------------

TEST_CASE("a generation is awaited until the view has it", "[watch]") {
  scratch_directory where;
  test_handle mine(where);
  test_handle other(where);
  CHECK(mine.settle(mine.await(0)) == 0);
  auto second = mine.await(2);
  auto first = mine.await(1);
  CHECK(mine.services.somebody_waits);
  other.put("a", "one");
  mine.machine->look();
  mine.services.settle();
  CHECK(need(first.get()) == 1);
  CHECK_FALSE(second.is_answered());
  CHECK(mine.services.noted_generation == 1);
  other.put("b", "two");
  other.put("c", "three");
  mine.machine->look();
  CHECK(mine.settle(second) == 3);
  CHECK_FALSE(mine.services.somebody_waits);
  CHECK(mine.settle(mine.await(1)) == 3);
}

TEST_CASE("a generation that does not come times out and says where the store"
          " is",
          "[watch]") {
  scratch_directory where;
  test_handle mine(where);
  mine.put("a", "one");
  auto awaited = mine.await(9, 5ms);
  mine.services.ring();
  auto reason = failure_of(awaited.get());
  CHECK(reason.code == errc::timed_out);
  CHECK(contains(reason.message, "generation 9"));
  CHECK(contains(reason.message, "generation 1"));
  CHECK_FALSE(mine.services.somebody_waits);
}

TEST_CASE("waits fail when what others have committed cannot be read",
          "[watch]") {
  scratch_directory where;
  test_handle mine(where);
  test_handle other(where);
  auto number = start_watch(mine);
  auto second = start_watch(mine);
  auto code = errc::corrupt;
  mine.script->on_refresh = [&] {
    return std::optional(failure{code, "cannot read"});
  };
  auto next = mine.next(number);
  auto awaited = mine.await(1);
  other.put("a", "one");
  mine.machine->look();
  mine.services.settle();
  CHECK(failure_of(next.get()).code == errc::corrupt);
  CHECK(failure_of(awaited.get()).code == errc::corrupt);

  code = errc::busy; // for who waits, another look follows
  auto patient = mine.next(number);
  mine.services.settle();
  CHECK_FALSE(patient.is_answered());
  auto hasty = mine.next(second, 0ms);
  mine.services.settle();
  CHECK(failure_of(hasty.get()).code == errc::busy);
  mine.script->on_refresh = nullptr;
  mine.machine->look();
  CHECK(mine.settle(patient)->generation == 1);
}

// -- keeping ------------------------------------------------------------------

TEST_CASE("a store that is opened anew goes on with its events where it was",
          "[watch]") {
  scratch_directory where;
  test_handle mine(where);
  test_handle other(where);
  mine.put("a", "one");
  auto number = start_watch(mine);
  mine.put("b", "two");
  CHECK(poll(mine, number)->generation == 2);
  need(mine.upsert("c", "three").get());
  mine.script->on_commit = [] {
    return std::optional(failure{errc::broken, "sync failed"});
  };
  auto failed = mine.commit();
  mine.services.settle();
  CHECK(failure_of(failed.get()).code == errc::broken);
  other.put("d", "foreign"); // the new store has it from the start
  mine.script->on_commit = nullptr;
  mine.settle(mine.commit());
  CHECK(mine.script->opened == 2);
  CHECK(mine.script->kept_after == generations{1, 2});

  auto events = poll_all(mine, number);
  REQUIRE_FALSE(events.empty());
  CHECK(events.back().generation == 4);
  auto tells_of_d =
      std::any_of(events.begin(), events.end(), [](const commit_event& each) {
        return each.what == event_kind::overflow
               || each.changed == strings{"d"};
      });
  CHECK(tells_of_d);
}

TEST_CASE("a store keeps events as long as somebody watches", "[watch]") {
  scratch_directory where;
  test_handle mine(where);
  CHECK_FALSE(mine.script->keeps_events);
  auto one = start_watch(mine);
  auto two = start_watch(mine);
  CHECK(mine.script->keeps_events);
  CHECK(mine.services.somebody_waits);
  auto next = mine.next(one);
  mine.machine->unwatch(one);
  CHECK(failure_of(next.get()).code == errc::closed);
  mine.put("a", "one");
  CHECK(mine.script->keeps_events);
  CHECK(poll(mine, two)->generation == 1);
  mine.machine->unwatch(two);
  mine.machine->unwatch(two);
  CHECK_FALSE(mine.services.somebody_waits);
  mine.put("a", "two");
  CHECK_FALSE(mine.script->keeps_events);
  CHECK(failure_of(mine.next(two).get()).code == errc::invalid_argument);
}

TEST_CASE("a thousand watches that have ended leave nothing", "[watch]") {
  scratch_directory where;
  test_handle mine(where);
  std::vector<std::uint64_t> numbers;
  for (int i = 0; i < 1000; ++i)
    numbers.push_back(start_watch(mine));
  mine.put("a", "one");
  for (auto each : numbers)
    mine.machine->unwatch(each);
  CHECK_FALSE(mine.services.somebody_waits);
  mine.put("a", "two");
  CHECK_FALSE(mine.script->keeps_events);
}

TEST_CASE("a watch that cannot begin leaves nothing", "[watch]") {
  scratch_directory where;
  test_handle mine(where);
  test_handle other(where);
  other.put("a", "one");
  mine.script->on_refresh = [] {
    return std::optional(failure{errc::corrupt, "damaged"});
  };
  auto failed = mine.watch();
  mine.services.settle();
  CHECK(failure_of(failed.get()).code == errc::corrupt);
  CHECK_FALSE(mine.services.somebody_waits);
}

// -- the board watcher, without its thread ------------------------------------

namespace {

class scripted_probe : public change_probe {
public:
  bool changed(std::uint64_t generation) const override {
    return generation < newest;
  }
  bool look_at_files() const override {
    ++file_looks;
    return files_changed;
  }

  std::uint64_t newest = 0;
  bool files_changed = false;
  mutable int file_looks = 0;
};

/// A store with a watcher.
struct watched {
  explicit watched(board_watcher& by) : place(by.add([this] { ++asked; })) {
    place->update(probe, 0, false);
  }

  std::shared_ptr<scripted_probe> probe = std::make_shared<scripted_probe>();
  int asked = 0;
  std::unique_ptr<board_watcher::registration> place;
};

} // namespace

TEST_CASE("a store that somebody waits for is looked at when it has moved on,"
          " once until it is",
          "[watch]") {
  board_watcher watcher;
  watched store(watcher);
  watched idle(watcher);
  idle.probe->newest = 1;
  store.place->update(store.probe, 0, true);
  watcher.look(false);
  CHECK(store.asked == 0);
  store.probe->newest = 1;
  watcher.look(false);
  watcher.look(false);
  CHECK(store.asked == 1);
  store.place->begin_look();
  store.place->update(store.probe, 1, true);
  watcher.look(false);
  CHECK(store.asked == 1);
  store.probe->newest = 2;
  watcher.look(false);
  CHECK(store.asked == 2);
  store.place->begin_look();
  store.place->update(store.probe, 1, false);
  watcher.look(false);
  CHECK(store.asked == 2);
  CHECK(idle.asked == 0);
  CHECK(store.probe->file_looks == 0);
}

TEST_CASE("all stores are told what a look at the files finds", "[watch]") {
  board_watcher watcher;
  watched idle(watcher);
  watched quiet(watcher);
  watched gone(watcher);
  for (auto* each : {&idle, &gone})
    each->probe->files_changed = true;
  gone.place.reset();
  watcher.look(true);
  CHECK(idle.asked == 1);
  CHECK(quiet.asked == 0);
  CHECK(quiet.probe->file_looks == 1);
  CHECK(gone.asked == 0);
}

TEST_CASE("after a store was opened anew its new probe is asked", "[watch]") {
  board_watcher watcher;
  watched store(watcher);
  auto old = store.probe;
  store.probe = std::make_shared<scripted_probe>();
  store.place->update(store.probe, 0, true);
  old->newest = 1;
  watcher.look(true);
  CHECK(store.asked == 0);
  CHECK(old->file_looks == 0);
  store.probe->newest = 1;
  watcher.look(false);
  CHECK(store.asked == 1);
}

// -- from outside -------------------------------------------------------------

namespace {

/// The next event of what must not take for ever.
commit_event next_of(subscription& events) {
  auto event = need(events.next(test::long_wait));
  REQUIRE(event);
  return std::move(*event);
}

std::uint64_t commit(client& store, const std::string& id) {
  put(store, id, "text of " + id);
  return need(store.commit()).generation;
}

/// Claims to tell of all commits, and tells of those of its own process only,
/// without a wake-up: as if all announcements were lost.
class silent_board : public notice_board {
public:
  std::shared_ptr<store_notices> attach(const store_address& address) override {
    std::lock_guard lock(mutex_);
    auto& known = notices_[address.id];
    if (!known)
      known = std::make_shared<notices>();
    return known;
  }
  std::uint64_t announcements() const noexcept override { return 0; }
  void wait(std::uint64_t, std::chrono::milliseconds timeout) override {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, timeout, [this] { return is_interrupted_; });
    is_interrupted_ = false;
  }
  void interrupt() noexcept override {
    std::lock_guard lock(mutex_);
    is_interrupted_ = true;
    changed_.notify_all();
  }

private:
  class notices : public store_notices {
  public:
    std::uint64_t durable_sequence() const noexcept override {
      return durable_.load();
    }
    void announce(std::uint64_t sequence) noexcept override {
      auto known = durable_.load();
      while (known < sequence
             && !durable_.compare_exchange_weak(known, sequence)) {
      }
    }
    std::optional<std::uint64_t> poisoned_from() const noexcept override {
      return std::nullopt;
    }
    void poison(std::uint64_t) noexcept override {}
    void clear_poison() noexcept override {}
    void note_base_epoch(std::uint64_t) noexcept override {}
    bool covers_all_processes() const noexcept override { return true; }

  private:
    std::atomic<std::uint64_t> durable_ = 0;
  };

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<store_id, std::shared_ptr<notices>> notices_;
  bool is_interrupted_ = false;
};

runtime_options on_board(notice_board& board) {
  runtime_options out;
  out.board = &board;
  return out;
}

/// As another process: with actors and a board of its own.
std::unique_ptr<runtime> another_runtime(runtime_options options = {}) {
  options.log = std::make_shared<spdlog::logger>(
      "test", std::make_shared<spdlog::sinks::null_sink_mt>());
  return need(runtime::start(std::move(options)));
}

} // namespace

TEST_CASE("a subscription tells of the commits of all handles", "[watch]") {
  stage stage;
  auto mine = stage.open();
  auto other = stage.open();
  auto events = need(mine.watch());
  CHECK(events.generation() == 0);
  commit(mine, "a");
  commit(other, "b");
  need(other.drop());
  CHECK(next_of(events).changed == strings{"a"});
  auto foreign = next_of(events);
  CHECK(foreign.changed == strings{"b"});
  CHECK(next_of(events).what == event_kind::drop);
  CHECK_FALSE(need(events.next(0ms)));
  CHECK_FALSE(need(events.next(1ms)));
  CHECK(need(mine.snapshot())->generation() >= foreign.generation);
}

TEST_CASE("who waits in one runtime is woken by a commit in another",
          "[watch]") {
  stage stage;
  auto elsewhere = another_runtime();
  auto reader = stage.open();
  auto writer = need(elsewhere->open(stage.options()));
  auto events = need(reader.watch());
  for (int i = 0; i < 20; ++i) {
    auto awaited = in_background(
        [&] { return reader.await_generation(i + 1, test::long_wait); });
    auto event = in_background([&] { return next_of(events); });
    auto generation = commit(writer, "a");
    CHECK(need(outcome_of(awaited)) >= generation);
    CHECK(outcome_of(event).generation == generation);
  }
  CHECK(need(reader.snapshot())->live_count() == 1);
}

TEST_CASE("a generation that nobody commits times out", "[watch]") {
  stage stage;
  auto store = stage.open();
  CHECK(failure_of(store.await_generation(5, 1ms)).code == errc::timed_out);
  CHECK(failure_of(store.await_generation(5, 0ms)).code == errc::timed_out);
  CHECK(need(store.await_generation(0, 0ms)) == 0);
}

TEST_CASE("commits whose announcement is lost are found in the files",
          "[watch]") {
  silent_board one_board;
  silent_board other_board;
  stage stage(on_board(one_board));
  auto elsewhere = another_runtime(on_board(other_board));
  auto reader = stage.open();
  auto idle = stage.open();
  auto writer = need(elsewhere->open(stage.options()));
  auto events = need(reader.watch());
  auto awaited = in_background(
      [&] { return reader.await_generation(1, test::long_wait); });
  commit(writer, "a");
  CHECK(next_of(events).changed == strings{"a"});
  CHECK(need(outcome_of(awaited)) == 1);
  // A handle that nobody waits on learns of it, too.
  auto seen = in_background([&] {
    while (need(idle.snapshot())->generation() < 1)
      std::this_thread::yield();
  });
  outcome_of(seen);
}

TEST_CASE("every commit is told once and in order, however many write",
          "[watch]") {
  constexpr int writer_count = 3;
  constexpr int commit_count = 20;
  stage stage;
  auto elsewhere = another_runtime();
  auto reader = stage.open();
  auto events = need(reader.watch());
  std::vector<std::future<void>> writers;
  for (int i = 0; i < writer_count; ++i)
    writers.push_back(in_background([&, i] {
      auto store =
          need((i == 0 ? stage.actors : elsewhere)->open(stage.options()));
      for (int k = 0; k < commit_count; ++k)
        commit(store, std::to_string(i));
    }));
  generations seen;
  generations expected;
  for (std::uint64_t i = 1; i <= writer_count * commit_count; ++i) {
    expected.push_back(i);
    seen.push_back(next_of(events).generation);
  }
  for (auto& each : writers)
    outcome_of(each);
  CHECK(seen == expected);
}

TEST_CASE("a subscription that was moved from is inert", "[watch]") {
  stage stage;
  auto store = stage.open();
  auto first = need(store.watch());
  auto second = std::move(first);
  CHECK(failure_of(first.next(0ms)).code == errc::closed);
  commit(store, "a");
  CHECK(next_of(second).generation == 1);
  auto third = need(store.watch());
  third = std::move(second); // its own watch ends, this one goes on
  CHECK(failure_of(second.next(0ms)).code == errc::closed);
  commit(store, "b");
  CHECK(next_of(third).generation == 2);
}

TEST_CASE("a watch ends with its subscription", "[watch]") {
  stage stage;
  auto store = stage.open();
  constexpr std::uint64_t only_handle = 1;
  constexpr std::uint64_t first_watch = 1;
  auto ask_next = [&] {
    return stage.actors->actors().calls()->call<optional_event>(
        only_handle, next_event_request{first_watch, 0ms});
  };
  {
    auto events = need(store.watch());
    CHECK_FALSE(need(ask_next()));
  }
  CHECK(failure_of(ask_next()).code == errc::invalid_argument);
}

TEST_CASE("a subscription keeps its handle alive", "[watch]") {
  stage stage;
  auto writer = stage.open();
  auto events = need(stage.open().watch());
  commit(writer, "a");
  CHECK(next_of(events).generation == 1);
}

TEST_CASE("who waits when the runtime stops is answered, and what is left of a"
          " subscription does nothing",
          "[watch]") {
  stage stage;
  auto store = stage.open();
  std::vector<subscription> open;
  std::vector<std::future<errc>> waiting;
  for (int i = 0; i < 5; ++i)
    open.push_back(need(store.watch()));
  for (auto& each : open)
    waiting.push_back(in_background([&each] {
      return each.next(std::chrono::milliseconds::max()).error().code;
    }));
  waiting.push_back(in_background([&] {
    return store.await_generation(1, std::chrono::hours(1)).error().code;
  }));
  auto stopped = in_background([&] { stage.actors.reset(); });
  for (auto& each : waiting)
    CHECK(outcome_of(each) == errc::closed);
  outcome_of(stopped);
  CHECK(failure_of(open.front().next(1ms)).code == errc::closed);
  CHECK(failure_of(store.watch()).code == errc::closed);
}

TEST_CASE("watches end with the actor that has asked for them", "[watch]") {
  stage stage;
  auto& actors = stage.actors->actors();
  auto store = need(actors.open_storage(stage.options()));
  thread_detacher detacher;
  caf::scoped_actor observer(actors.system());
  auto ask_next = [&](std::uint64_t number) {
    return ask_and_wait<optional_event>(observer, store,
                                        next_event_request{number, 0ms});
  };
  auto kept =
      need(ask_and_wait<watch_start>(observer, store, watch_request{})).number;
  std::vector<std::uint64_t> ended;
  {
    caf::scoped_actor watcher(actors.system());
    for (int i = 0; i < 3; ++i)
      ended.push_back(
          need(ask_and_wait<watch_start>(watcher, store, watch_request{}))
              .number);
    CHECK_FALSE(need(ask_next(ended.front())));
  }
  for (auto each : ended) {
    auto outcome = ask_next(each);
    while (outcome) // the news is under way
      outcome = ask_next(each);
    CHECK(outcome.error().code == errc::invalid_argument);
  }
  CHECK_FALSE(need(ask_next(kept)));
  need(ask_and_wait<void>(observer, store, unwatch_request{kept}));
  CHECK(failure_of(ask_next(kept)).code == errc::invalid_argument);
  store = nullptr;
}

TEST_CASE("a query takes its vector in braces", "[client]") {
  stage stage;
  auto store = stage.open();
  need(store.upsert({{"a", "{}", {1, 2, 3, 4}}}));
  need(store.commit());
  CHECK(need(store.query({1, 2, 3, 4})).size() == 1);
  CHECK(need(store.query({-1, -2, -3, -4})).empty());
  CHECK(need(store.query({1.0F, 2.0F, 3.0F, 4.0F}, {.top_k = 1})).size() == 1);
  CHECK(failure_of(store.query({1, 2, 3})).code == errc::dimension_mismatch);
}
