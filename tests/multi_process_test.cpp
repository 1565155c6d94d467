#include "ipc/shared_board.hpp"
#include "tests/support/child_process.hpp"
#include "tests/support/store_fixture.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <functional>
#include <future>
#include <list>
#include <numeric>
#include <optional>
#include <random>
#include <unistd.h>
#include <utility>

/// Stores that several processes have open at once. Deaths that nobody else
/// watches are those of recovery_test.cpp.
using namespace callboard;
using namespace callboard::test;

namespace fs = std::filesystem;

namespace {

/// Whether processes tell one another of commits, or find them by the files.
enum class boards { shared, own };

std::ostream& operator<<(std::ostream& out, boards which) {
  return out << (which == boards::shared ? "shared board"
                                         : "boards of their own");
}

boards any_boards() {
  return GENERATE(boards::shared, boards::own);
}

/// One of several processes, in itself.
struct participant {
  explicit participant(boards which) {
    if (which == boards::shared)
      board = std::make_unique<shared_board>(disk);
    else
      board = std::make_unique<test_board>();
  }

  std::unique_ptr<store> open(const store_options& options) {
    return need(store::open(disk, *board, options));
  }

  faulty_io disk;
  std::unique_ptr<notice_board> board;
};

/// For processes that are expected to get their turn.
store_options patient_options_for(const fs::path& place) {
  auto out = options_for(place);
  out.lock_timeout = std::chrono::minutes(4);
  return out;
}

std::string text_of(const versions& rows) {
  std::string out;
  for (const auto& [id, version] : rows)
    out += id + '=' + std::to_string(version) + ' ';
  return out;
}

/// Lets a process that ends at once do `work`.
void in_a_child(const std::function<void()>& work) {
  child_process child([&](const pipe_end&) {
    work();
    return true;
  });
  REQUIRE(child.wait() == child_process::succeeded);
}

/// What a process finds that has not had the store open before.
versions seen_by_a_fresh_process(const fs::path& place, boards which) {
  child_process child([&](const pipe_end& parent) {
    participant here(which);
    return parent.say(
        text_of(contents(*here.open(patient_options_for(place)))));
  });
  const auto text = child.hear();
  REQUIRE(text);
  REQUIRE(child.wait() == child_process::succeeded);
  versions out;
  for (std::size_t begin = 0; begin < text->size();) {
    const auto middle = text->find('=', begin);
    const auto end = text->find(' ', middle);
    out[text->substr(begin, middle - begin)] =
        std::stoi(text->substr(middle + 1, end - middle - 1));
    begin = end + 1;
  }
  return out;
}

} // namespace

// -- A process that stands still ----------------------------------------------

TEST_CASE("A writer that is stopped holds up writers, not readers, and loses "
          "nothing") {
  const auto stops_at =
      GENERATE(operation_kind::append, operation_kind::sync_data);
  const auto which = any_boards();
  CAPTURE(to_string(stops_at), which);
  const quick_directory place;
  participant here(which);
  auto ours = here.open(options_for(place.path()));
  put(*ours, {{"a", 1}, {"b", 1}});
  child_process sleeper([&](const pipe_end& parent) {
    participant there(which);
    auto theirs = there.open(options_for(place.path()));
    bool has_stopped = false;
    there.disk.set_hook([&](const operation& each) {
      if (each.kind == stops_at && !std::exchange(has_stopped, true))
        ::raise(SIGSTOP);
      return fault::none();
    });
    const auto generation = put(*theirs, {{"a", 2}, {"theirs", 1}}).generation;
    return parent.say(std::to_string(generation));
  });
  REQUIRE(sleeper.wait_until_stopped());

  const versions before = {{"a", 1}, {"b", 1}};
  const auto refused = failure_of(try_put(*ours, {{"b", 2}}));
  CHECK(refused.code == errc::busy);
  CHECK(contains(refused.message, private_path(place.path(), "LOCK").string()));
  CHECK(failure_of(ours->checkpoint(compaction::none)).code == errc::busy);
  CHECK(failure_of(ours->drop()).code == errc::busy);
  CHECK(contents(*need(ours->refresh())) == before);
  // Who has just come and has only the files cannot tell what of the log is
  // durable, as long as a writer is at work.
  if (which == boards::shared)
    CHECK(seen_by_a_fresh_process(place.path(), which) == before);

  sleeper.resume();
  CHECK(sleeper.hears("2"));
  REQUIRE(sleeper.wait() == child_process::succeeded);
  CHECK(put(*ours, {{"b", 2}}).generation == 3);
  const versions after = {{"a", 2}, {"b", 2}, {"theirs", 1}};
  CHECK(contents(*ours) == after);
  CHECK(seen_by_a_fresh_process(place.path(), which) == after);
}

TEST_CASE("A process that is stopped where it holds no lock holds up nobody") {
  const auto which = any_boards();
  CAPTURE(which);
  const quick_directory place;
  participant here(which);
  auto ours = here.open(options_for(place.path()));
  child_process sleeper([&](const pipe_end& parent) {
    participant there(which);
    auto theirs = there.open(patient_options_for(place.path()));
    parent.say("open");
    REQUIRE(parent.hears("go on"));
    put(*theirs, {{"theirs", 1}});
    return parent.say(text_of(contents(*theirs)));
  });
  REQUIRE(sleeper.hears("open"));
  sleeper.stop();
  put(*ours, {{"a", 1}});
  need(ours->checkpoint(compaction::none));
  need(ours->drop());
  put(*ours, {{"b", 1}});
  sleeper.resume();
  REQUIRE(sleeper.say("go on"));
  const versions all = {{"b", 1}, {"theirs", 1}};
  CHECK(sleeper.hears(text_of(all)));
  REQUIRE(sleeper.wait() == child_process::succeeded);
  CHECK(contents(*need(ours->refresh())) == all);
}

// -- Many writers -------------------------------------------------------------

namespace {

constexpr std::size_t writer_count = 8;

/// Writers that are let go when all of them have opened the store.
class writers {
public:
  using work = std::function<void(std::size_t writer, store& handle,
                                  const pipe_end& parent)>;

  writers(const fs::path& place, boards which, const work& each) {
    in_a_child([&] { participant(which).open(patient_options_for(place)); });
    for (std::size_t writer = 0; writer < writer_count; ++writer)
      all_.emplace_back([&, writer](const pipe_end& parent) {
        participant here(which);
        auto handle = here.open(patient_options_for(place));
        REQUIRE(parent.say("open"));
        REQUIRE(parent.hears("start"));
        each(writer, *handle, parent);
        return true;
      });
    everybody_said("open");
    tell_all("start");
  }

  void everybody_said(std::string_view text) {
    for (auto& each : all_)
      REQUIRE(each.hears(text));
  }
  void tell_all(std::string_view text) {
    for (auto& each : all_)
      REQUIRE(each.say(text));
  }
  void wait() {
    for (auto& each : all_)
      REQUIRE(each.wait() == child_process::succeeded);
  }

private:
  std::list<child_process> all_;
};

constexpr std::size_t commits_of_each = 500;
constexpr std::size_t commits_between_checkpoints = 125;

struct planned_commit {
  std::vector<commit_operation> operations;
  /// What it does to rows.
  std::function<void(versions&)> apply;
  /// Whether it is to fail if others were faster.
  bool is_conditional = false;
};

/// The same for the same arguments, in every process.
planned_commit plan(std::uint32_t seed, std::size_t writer,
                    std::size_t number) {
  const auto serial =
      static_cast<std::uint32_t>(writer * commits_of_each + number);
  std::seed_seq seeds{seed, serial};
  std::mt19937 random(seeds);
  struct change {
    std::string id;
    int version;
  };
  std::vector<change> changes(1 + random() % 4);
  for (auto& each : changes) {
    each.id = "id" + std::to_string(random() % 40);
    each.version = random() % 4 == 0 ? 0 : int(serial) + 1;
  }
  planned_commit out;
  out.is_conditional = random() % 8 == 0;
  for (const auto& each : changes)
    out.operations.push_back(each.version == 0 ? removal(each.id)
                                               : upsert(each.id, each.version));
  out.apply = [changes](versions& rows) {
    for (const auto& each : changes)
      if (each.version == 0)
        rows.erase(each.id);
      else
        rows[each.id] = each.version;
  };
  return out;
}

/// Does one commit as planned; 0 if it came to a conflict.
std::uint64_t carry_out(store& handle, const planned_commit& planned) {
  if (!planned.is_conditional)
    return need(handle.commit(planned.operations)).generation;
  const auto expected = need(handle.refresh())->generation();
  const auto outcome = handle.commit(planned.operations, expected);
  if (outcome) {
    REQUIRE(outcome->generation == expected + 1);
    return outcome->generation;
  }
  REQUIRE(failure_of(outcome).code == errc::conflict);
  return 0;
}

/// The generation that each writer's each commit got; 0: none, a conflict.
struct history {
  std::array<std::array<std::uint64_t, commits_of_each>, writer_count>
      generations;
};

/// What the acknowledged commits, in the order of their generations, make of
/// an empty store. Checks that no generation is missing or there twice.
versions replay(const history& all, std::uint32_t seed) {
  std::map<std::uint64_t, planned_commit> by_generation;
  std::size_t acknowledged = 0;
  for (std::size_t writer = 0; writer < writer_count; ++writer) {
    std::uint64_t last = 0;
    for (std::size_t number = 0; number < commits_of_each; ++number) {
      const auto generation = all.generations[writer][number];
      if (generation == 0)
        continue;
      REQUIRE(generation > last);
      last = generation;
      ++acknowledged;
      by_generation.emplace(generation, plan(seed, writer, number));
    }
  }
  REQUIRE(by_generation.size() == acknowledged);
  REQUIRE(by_generation.begin()->first == 1);
  REQUIRE(by_generation.rbegin()->first == acknowledged);
  versions rows;
  for (const auto& [generation, commit] : by_generation)
    commit.apply(rows);
  return rows;
}

} // namespace

TEST_CASE("No update of eight writers is lost, and all see the same in the "
          "end") {
  const auto seed = std::random_device()();
  const auto which = any_boards();
  CAPTURE(seed, which);
  const quick_directory place;
  const shared_with_children<history> acknowledged;
  writers all(place.path(), which,
              [&](std::size_t writer, store& handle, const pipe_end& parent) {
                for (std::size_t number = 0; number < commits_of_each;
                     ++number) {
                  acknowledged->generations[writer][number] =
                      carry_out(handle, plan(seed, writer, number));
                  if (writer == 0 && number % commits_between_checkpoints == 0)
                    need(handle.checkpoint(compaction::automatic));
                }
                REQUIRE(parent.say("done"));
                REQUIRE(parent.hears("look"));
                REQUIRE(parent.say(text_of(contents(*need(handle.refresh())))));
              });
  all.everybody_said("done");
  const auto expected = replay(*acknowledged, seed);
  all.tell_all("look");
  all.everybody_said(text_of(expected));
  all.wait();
  CHECK(seen_by_a_fresh_process(place.path(), which) == expected);
}

namespace {

struct turn_counts {
  std::array<std::atomic<std::size_t>, writer_count> of;

  std::size_t least() const { return *std::min_element(of.begin(), of.end()); }
  std::size_t all() const {
    return std::accumulate(of.begin(), of.end(), std::size_t{0});
  }
};

} // namespace

TEST_CASE("Each of eight writers in closed loops gets its turn") {
  // Nobody stops before everybody has had his share, however long that takes
  // the slowest; if it takes too many turns of the others, he was kept out.
  constexpr std::size_t share = 100;
  constexpr std::size_t turns_max = 50 * share * writer_count;
  const auto which = any_boards();
  CAPTURE(which);
  const quick_directory place;
  const shared_with_children<turn_counts> turns;
  writers all(place.path(), which,
              [&](std::size_t writer, store& handle, const pipe_end&) {
                const auto id = "of " + std::to_string(writer);
                while (turns->least() < share && turns->all() < turns_max) {
                  put(handle, {{id, 1}});
                  ++turns->of[writer];
                }
              });
  all.wait();
  for (const auto& each : turns->of)
    CHECK(each >= share);
}

// -- Deaths beside the living -------------------------------------------------

namespace {

/// Something that a process does until it dies, while another one has the
/// store open.
struct deadly_work {
  /// Done after the other one has opened the store, before this one has.
  std::function<void(const fs::path&)> wound = [](const fs::path&) {};
  /// Empty handle: the work is to open the store.
  bool is_opening = false;
  std::function<void(store&)> act = [](store&) {};
  /// What may be found, in the order in which it comes to be.
  std::vector<versions> states;
};

const versions first = many("a", 8);
const versions second =
    without(changed(first, {{"a1", 2}, {"b", 1}}), {"a2", "a7"});

/// A store with a base that is published, and commits since.
void make_store(const fs::path& place) {
  process here;
  auto handle = here.open(options_for(place));
  put(*handle, first);
  need(handle->checkpoint(compaction::none));
  put(*handle, {{"a1", 2}, {"b", 1}});
  take_out(*handle, {"a2", "a7"});
}

struct death {
  operation ahead_of;
  faulty_io::moment when = faulty_io::moment::before;
};

/// Ahead of each operation, whether it changes something or not: what matters
/// is also which locks are held. And halfway through each write.
std::vector<death> deaths_in(const std::vector<operation>& operations) {
  std::vector<death> out;
  for (const auto& each : operations) {
    out.push_back({each});
    if (each.kind == operation_kind::append
        || each.kind == operation_kind::write_at)
      out.push_back({each, faulty_io::moment::half});
  }
  REQUIRE_FALSE(out.empty());
  out.push_back({out.back().ahead_of, faulty_io::moment::after});
  return out;
}

/// Calls `armed` when what comes next is the work itself.
void do_work(const deadly_work& work, participant& here, const fs::path& place,
             const std::function<void()>& armed) {
  here.disk.stop_steady_clock();
  std::unique_ptr<store> handle;
  if (!work.is_opening)
    handle = here.open(options_for(place));
  armed();
  if (work.is_opening)
    here.open(options_for(place));
  else
    work.act(*handle);
}

std::vector<operation> rehearse(const deadly_work& work, const fs::path& place,
                                boards which) {
  participant here(which);
  std::size_t begin = 0;
  do_work(work, here, place, [&] { begin = here.disk.operation_count(); });
  auto out = here.disk.operations();
  out.erase(out.begin(), out.begin() + std::ptrdiff_t(begin));
  return out;
}

void die_in(const deadly_work& work, const fs::path& place, boards which,
            const death& chosen) {
  child_process mortal([&](const pipe_end&) {
    participant here(which);
    do_work(work, here, place,
            [&] { here.disk.exit_at(chosen.ahead_of.index, chosen.when); });
    return true;
  });
  REQUIRE(mortal.wait() == faulty_io::exit_status);
}

/// Dies in a commit: at the first operation of `kind` on a log.
void die_in_commit(const fs::path& place, operation_kind kind,
                   fault::action when) {
  child_process mortal([&](const pipe_end&) {
    process here;
    auto handle = here.open(options_for(place));
    here.disk.set_hook([&](const operation& each) {
      return each.kind == kind ? fault::exit(when) : fault::none();
    });
    put(*handle, {{"c", 1}, {"a3", 3}});
    return true;
  });
  REQUIRE(mortal.wait() == faulty_io::exit_status);
}

/// The handle was open before the death, and is to go on as if nothing had
/// happened.
void check_that_life_goes_on(const deadly_work& work, const fs::path& place,
                             boards which, store& survivor) {
  const auto rank = [&](const versions& found) {
    const auto place_of =
        std::find(work.states.begin(), work.states.end(), found);
    REQUIRE(place_of != work.states.end());
    return place_of - work.states.begin();
  };
  const auto snapshot = survivor.view();
  const auto refreshed = contents(*need(survivor.refresh()));
  const auto found = rank(refreshed);
  const auto outcome = put(survivor, {{"more", 1}});
  auto now = contents(*outcome.view);
  REQUIRE(now.erase("more") == 1);
  // Nothing that was shown goes away again.
  REQUIRE(rank(now) >= found);
  now["more"] = 1;
  need(survivor.checkpoint(compaction::none));
  REQUIRE(contents(survivor) == now);
  REQUIRE(read_published(place).rows == now);
  take_out(survivor, {"more"});
  now.erase("more");
  REQUIRE(contents(survivor) == now);
  need(survivor.verify());
  participant fresh(which);
  REQUIRE(contents(*fresh.open(options_for(place))) == now);
  REQUIRE(contents(*snapshot) == work.states.front());
}

/// A store in `place`, copied from `origin`, that a participant has open.
struct living {
  living(const fs::path& origin, const fs::path& place, boards which,
         const deadly_work& work)
      : self(which) {
    copy_tree(origin, place);
    self.disk.stop_steady_clock();
    handle = self.open(options_for(place));
    work.wound(place);
  }

  participant self;
  std::unique_ptr<store> handle;
};

void check_every_death_beside(const deadly_work& work, boards which) {
  CAPTURE(which);
  const quick_directory place;
  const auto origin = place / "origin";
  const auto copy = place / "copy";
  make_store(origin);
  std::vector<death> deaths;
  {
    const living other(origin, copy, which, work);
    deaths = deaths_in(rehearse(work, copy, which));
  }
  for (const auto& chosen : deaths) {
    CAPTURE(chosen.ahead_of, static_cast<int>(chosen.when));
    const living survivor(origin, copy, which, work);
    die_in(work, copy, which, chosen);
    check_that_life_goes_on(work, copy, which, *survivor.handle);
  }
}

} // namespace

TEST_CASE("A death at any operation of a commit does not stop who has the "
          "store open") {
  const auto which = any_boards();
  deadly_work work;
  work.act = [](store& handle) { put(handle, {{"c", 1}, {"a3", 3}}); };
  work.states = {second, changed(second, {{"c", 1}, {"a3", 3}})};
  check_every_death_beside(work, which);
}

TEST_CASE("A death at any operation of a checkpoint does not stop who has the "
          "store open") {
  const auto which = any_boards();
  deadly_work work;
  work.act = [](store& handle) {
    auto job =
        need(handle.begin_checkpoint(compaction::none, patience::lock_timeout));
    put(handle, {{"between", 1}});
    need(job->write());
    need(handle.finish_checkpoint(std::move(job)));
  };
  work.states = {second, changed(second, {{"between", 1}})};
  check_every_death_beside(work, which);
}

TEST_CASE("A death at any operation of a drop does not stop who has the store "
          "open") {
  const auto which = any_boards();
  deadly_work work;
  work.act = [](store& handle) { need(handle.drop()); };
  work.states = {second, {}};
  check_every_death_beside(work, which);
}

TEST_CASE("A death at any operation of a recovery does not stop who has the "
          "store open") {
  const auto which = any_boards();
  deadly_work work;
  work.is_opening = true;
  work.states = {second};
  SECTION("when half a commit was written") {
    work.wound = [](const fs::path& place) {
      die_in_commit(place, operation_kind::append, fault::action::exit_half);
    };
  }
  SECTION("when a commit was written, but not synced") {
    work.wound = [](const fs::path& place) {
      die_in_commit(place, operation_kind::sync_data,
                    fault::action::exit_before);
    };
    work.states.push_back(changed(second, {{"c", 1}, {"a3", 3}}));
  }
  check_every_death_beside(work, which);
}

// -- Checkpoints beside a reader ----------------------------------------------

namespace {

constexpr auto long_wait = std::chrono::minutes(1);

/// Stops what is done on `disk`, ahead of one operation, until it may go on.
class halt {
public:
  halt(faulty_io& disk, std::function<bool(const operation&)> is_here) {
    disk.set_hook([shared = shared_, is_here](const operation& each) {
      if (!shared->has_come && is_here(each)) {
        shared->has_come = true;
        shared->arrived.set_value();
        shared->may_go_on.get_future().wait();
      }
      return fault::none();
    });
  }
  halt(const halt&) = delete;
  halt& operator=(const halt&) = delete;
  ~halt() { go_on(); }

  void wait() {
    REQUIRE(arrived_.wait_for(long_wait) == std::future_status::ready);
  }
  void go_on() {
    if (!std::exchange(went_on_, true))
      shared_->may_go_on.set_value();
  }

private:
  struct state {
    bool has_come = false;
    std::promise<void> arrived;
    std::promise<void> may_go_on;
  };
  std::shared_ptr<state> shared_ = std::make_shared<state>();
  std::future<void> arrived_ = shared_->arrived.get_future();
  bool went_on_ = false;
};

/// Verifies a store while another process has written MANIFEST and not yet
/// published; that goes on ahead of the verification's operation `ends_at`, or
/// after it. Returns how many operations a verification has.
std::size_t verify_beside_publication(std::optional<std::size_t> ends_at) {
  scratch_directory place;
  process checkpointer;
  process reader;
  auto theirs = checkpointer.open(options_for(place.path()));
  auto ours = reader.open(options_for(place.path()));
  put(*theirs, {{"a", 1}});
  need(theirs->checkpoint(compaction::none));
  need(ours->refresh());
  put(*theirs, {{"b", 1}});

  std::future<result<snapshot_ptr>> published;
  std::future<result<void>> verified;
  halt publication(checkpointer.disk, [](const operation& each) {
    return each.kind == operation_kind::rename
           && each.target.find(".callboard/") == std::string::npos;
  });
  published = std::async(std::launch::async,
                         [&] { return theirs->checkpoint(compaction::none); });
  publication.wait();
  const auto begin = reader.disk.operation_count();
  halt verification(reader.disk, [=](const operation& each) {
    return ends_at && each.index == begin + *ends_at;
  });
  verified = std::async(std::launch::async, [&] { return ours->verify(); });
  if (ends_at)
    verification.wait();
  else
    verified.wait();
  publication.go_on();
  need(published.get());
  verification.go_on();
  need(verified.get());
  return reader.disk.operation_count() - begin;
}

} // namespace

TEST_CASE("A store is sound wherever another process's checkpoint ends while "
          "it is verified") {
  const auto count = verify_beside_publication({});
  REQUIRE(count > 10);
  for (std::size_t at = 0; at < count; ++at) {
    CAPTURE(at);
    verify_beside_publication(at);
  }
}

// -- Drops --------------------------------------------------------------------

TEST_CASE("What was asked for before another process dropped the store is "
          "discarded and counted") {
  const auto which = any_boards();
  CAPTURE(which);
  const quick_directory place;
  participant here(which);
  auto ours = here.open(options_for(place.path()));
  put(*ours, {{"a", 1}, {"b", 1}});
  const auto snapshot = ours->view();
  const auto asked_at = snapshot->drop_epoch();
  const std::vector<commit_operation> pending = {upsert("a", 2, asked_at),
                                                 upsert("c", 1, asked_at),
                                                 removal("b", asked_at)};

  in_a_child([&] {
    participant there(which);
    auto theirs = there.open(options_for(place.path()));
    need(theirs->drop());
    put(*theirs, {{"theirs", 1}});
  });

  const auto outcome = need(ours->commit(pending));
  CHECK(outcome.committed == 0);
  CHECK(outcome.discarded == 3);
  CHECK(contents(*outcome.view) == versions{{"theirs", 1}});
  CHECK(contents(*snapshot) == versions{{"a", 1}, {"b", 1}});

  auto mixed = pending;
  const auto later = outcome.view->drop_epoch();
  CHECK(later > asked_at);
  mixed.push_back(upsert("d", 1, later));
  const auto second_outcome = need(ours->commit(mixed));
  CHECK(second_outcome.committed == 1);
  CHECK(second_outcome.discarded == 3);
  CHECK(second_outcome.generation == outcome.generation + 1);
  CHECK(seen_by_a_fresh_process(place.path(), which)
        == versions{{"d", 1}, {"theirs", 1}});
}
