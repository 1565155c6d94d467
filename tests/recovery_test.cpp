#include "tests/support/store_fixture.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <functional>
#include <sys/wait.h>
#include <unistd.h>

using namespace callboard;
using namespace callboard::test;

namespace fs = std::filesystem;

namespace {

std::unique_ptr<store> open_later(process& later, const fs::path& place) {
  later.disk.stop_steady_clock();
  return later.open(options_for(place));
}

fs::path last_log(const fs::path& place) {
  std::uint64_t last = 0;
  for (const auto& name : private_files(place))
    if (name.starts_with("log-"))
      last = std::max<std::uint64_t>(last, std::stoull(name.substr(4)));
  return private_path(place, "log-" + std::to_string(last));
}

/// A store with a base and a log of several commits, and what it held after
/// each of them.
struct some_history {
  explicit some_history(const fs::path& place) {
    process here;
    auto handle = here.open(options_for(place));
    put(*handle, {{"base", 1}, {"b", 1}});
    need(handle->checkpoint(compaction::none));
    auto note = [&] {
      states.push_back(contents(*handle));
      log_bytes.push_back(fs::file_size(last_log(place)));
    };
    note();
    put(*handle, {{"b", 2}, {"c", 1}});
    note();
    take_out(*handle, {"base"});
    note();
    put(*handle, {{"d", 1}});
    note();
    log = last_log(place).filename();
  }

  std::vector<versions> states;
  std::vector<std::uint64_t> log_bytes;
  std::string log;
};

} // namespace

TEST_CASE("A log that ends anywhere gives the commits that are whole") {
  quick_directory place;
  const auto origin = place / "origin";
  const auto copy = place / "copy";
  const some_history history(origin);
  const auto frames = history.log_bytes.size();
  for (auto size = history.log_bytes[frames - 3];
       size <= history.log_bytes.back(); ++size) {
    CAPTURE(size);
    copy_tree(origin, copy);
    fs::resize_file(private_path(copy, history.log), size);
    std::size_t whole = frames - 3;
    while (whole + 1 < frames && history.log_bytes[whole + 1] <= size)
      ++whole;
    process later;
    auto handle = open_later(later, copy);
    REQUIRE(contents(*handle) == history.states[whole]);
    REQUIRE(handle->report().cut_bytes == size - history.log_bytes[whole]);
    put(*handle, {{"more", 1}});
    process after;
    REQUIRE(contents(*open_later(after, copy))
            == changed(history.states[whole], {{"more", 1}}));
  }
}

TEST_CASE("No flipped bit of a log makes a state that never was") {
  quick_directory place;
  const auto origin = place / "origin";
  const auto copy = place / "copy";
  const some_history history(origin);
  const auto whole = read_file(private_path(origin, history.log));
  const auto untouched = all_files(origin);
  const auto last_frame = history.log_bytes[history.log_bytes.size() - 2];
  copy_tree(origin, copy);
  for (std::size_t bit = 0; bit < whole.size() * 8; ++bit) {
    CAPTURE(bit / 8, bit % 8);
    const auto path = private_path(copy, history.log);
    write_file(path, with_flipped_bit(whole, bit));
    process later;
    later.disk.stop_steady_clock();
    auto opened = later.try_open(options_for(copy));
    if (opened) {
      const auto found = contents(**opened);
      const bool is_last = bit / 8 >= last_frame;
      REQUIRE((found == history.states.back()
               || (is_last && found == *(history.states.end() - 2))));
      opened->reset();
      copy_tree(origin, copy);
      continue;
    }
    REQUIRE(opened.error().code == errc::corrupt);
    REQUIRE(contains(opened.error().message, path.string()));
    write_file(path, whole);
    if (bit % 64 == 0)
      REQUIRE(all_files(copy) == untouched);
  }
}

TEST_CASE("Every flipped bit of MANIFEST is noticed") {
  quick_directory place;
  const some_history history(place.path());
  const auto path = private_path(place.path(), "MANIFEST");
  const auto whole = read_file(path);
  const auto untouched = all_files(place.path());
  for (std::size_t bit = 0; bit < whole.size() * 8; ++bit) {
    CAPTURE(bit / 8, bit % 8);
    write_file(path, with_flipped_bit(whole, bit));
    process later;
    const auto reason = failure_of(later.try_open(options_for(place.path())));
    REQUIRE(reason.code == errc::corrupt);
    REQUIRE(contains(reason.message, path.string()));
  }
  write_file(path, whole);
  CHECK(all_files(place.path()) == untouched);
  process later;
  CHECK(contents(*open_later(later, place.path())) == history.states.back());
}

// -- Processes that die -------------------------------------------------------

namespace {

/// Something that a process does until it dies, and what may be found then.
struct scenario {
  /// Makes the files that it starts from. Runs once.
  std::function<void(const fs::path&)> prepare;
  std::function<void(process&, const fs::path&)> act;
  /// What may be found in the store, and in the published pair.
  std::vector<versions> states;
  std::vector<versions> published;
  bool salvage = false;
};

store_options options_of(const scenario& what, const fs::path& place) {
  auto options = options_for(place);
  options.salvage = what.salvage;
  return options;
}

bool is_one_of(const versions& found, const std::vector<versions>& allowed) {
  return std::find(allowed.begin(), allowed.end(), found) != allowed.end();
}

/// A moment at which a process can die so that the files differ from those of
/// the moment before: ahead of each change, and halfway through a write.
struct moment_of_death {
  operation ahead_of;
  faulty_io::moment when;
};

std::vector<moment_of_death>
moments_of_death(const std::vector<operation>& operations) {
  using kind = operation_kind;
  std::vector<moment_of_death> out;
  for (const auto& each : operations) {
    if (!is_mutation(each.kind) || each.kind == kind::lock)
      continue;
    out.push_back({each, faulty_io::moment::before});
    if (each.kind == kind::append || each.kind == kind::write_at)
      out.push_back({each, faulty_io::moment::half});
  }
  if (!out.empty())
    out.push_back({out.back().ahead_of, faulty_io::moment::after});
  return out;
}

using action = std::function<void(process&, const fs::path&)>;

/// All that `act` does to a copy of `origin`, made in `copy`.
std::vector<operation> rehearse(const fs::path& origin, const fs::path& copy,
                                const action& act) {
  copy_tree(origin, copy);
  process here;
  here.disk.stop_steady_clock();
  act(here, copy);
  return here.disk.operations();
}

/// Lets a child process do it to `place`, until it dies.
void die_in(const fs::path& place, const action& act,
            const moment_of_death& death) {
  const auto child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    try {
      process mortal;
      mortal.disk.stop_steady_clock();
      mortal.disk.exit_at(death.ahead_of.index, death.when);
      act(mortal, place);
    } catch (...) {
      ::_exit(2);
    }
    ::_exit(1);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  REQUIRE(WEXITSTATUS(status) == faulty_io::exit_status);
}

/// Does it to `place` with a disk that at some moment goes away: what is left
/// is what a death leaves, at a fraction of the cost.
void lose_disk_in(const fs::path& place, const action& act,
                  const moment_of_death& death) {
  process here;
  here.disk.stop_steady_clock();
  here.disk.set_hook([&](const operation& each) {
    if (each.index < death.ahead_of.index)
      return fault::none();
    if (each.index > death.ahead_of.index)
      return fault::fail(errc::io_failure);
    if (death.when == faulty_io::moment::after)
      return fault::none();
    return death.when == faulty_io::moment::half
               ? fault::cut_short(each.size_bytes / 2)
               : fault::fail(errc::io_failure);
  });
  act(here, place);
}

void check_what_is_left(const scenario& what, const fs::path& place) {
  const auto seen = read_published(place, strictness::between_steps).rows;
  REQUIRE(is_one_of(seen, what.published));
  process later;
  later.disk.stop_steady_clock();
  auto handle = later.open(options_of(what, place));
  const auto found = contents(*handle);
  REQUIRE(is_one_of(found, what.states));
  REQUIRE(is_one_of(read_published(place).rows, what.published));
  need(handle->verify());
  put(*handle, {{"more", 1}});
  handle.reset();
  process after;
  auto again = open_later(after, place);
  REQUIRE(contents(*again) == changed(found, {{"more", 1}}));
  need(again->checkpoint(compaction::none));
  REQUIRE(read_published(place).rows == changed(found, {{"more", 1}}));
}

/// Lets a process die at every moment of `what`, and the recovery from every
/// `recovery_step`-th of these deaths at every moment, too.
void check_every_death(const scenario& what, std::size_t recovery_step) {
  quick_directory place;
  const auto origin = place / "origin";
  const auto copy = place / "copy";
  const auto wreck = place / "wreck";
  fs::create_directory(origin);
  what.prepare(origin);
  const action recover = [&](process& later, const fs::path& where) {
    (void)later.try_open(options_of(what, where));
  };
  const auto deaths = moments_of_death(rehearse(origin, copy, what.act));
  REQUIRE_FALSE(deaths.empty());
  for (std::size_t i = 0; i < deaths.size(); ++i) {
    CAPTURE(deaths[i].ahead_of, static_cast<int>(deaths[i].when));
    copy_tree(origin, copy);
    die_in(copy, what.act, deaths[i]);
    if (i % recovery_step == 0) {
      copy_tree(copy, wreck);
      const auto again = moments_of_death(rehearse(wreck, copy, recover));
      for (const auto& death : again) {
        CAPTURE(death.ahead_of, static_cast<int>(death.when));
        copy_tree(wreck, copy);
        lose_disk_in(copy, recover, death);
        check_what_is_left(what, copy);
      }
      copy_tree(wreck, copy);
    }
    check_what_is_left(what, copy);
  }
}

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

/// The same, with holes in the published base.
void make_store_with_holes(const fs::path& place) {
  make_store(place);
  process here;
  need(here.open(options_for(place))->checkpoint(compaction::none));
}

} // namespace

TEST_CASE("A death while a store is made leaves none or an empty one") {
  scenario what;
  what.prepare = [](const fs::path&) {};
  what.act = [](process& mortal, const fs::path& place) {
    mortal.open(options_for(place));
  };
  what.states = {{}};
  what.published = {{}};
  check_every_death(what, 6);
}

TEST_CASE("A death during commits leaves a whole number of them") {
  scenario what;
  what.prepare = make_store;
  what.act = [](process& mortal, const fs::path& place) {
    auto handle = mortal.open(options_for(place));
    put(*handle, {{"c", 1}, {"a3", 3}});
    take_out(*handle, {"a4", "b"});
  };
  const auto one = changed(second, {{"c", 1}, {"a3", 3}});
  what.states = {second, one, without(one, {"a4", "b"})};
  what.published = {first};
  check_every_death(what, 1);
}

TEST_CASE("A death during a checkpoint loses nothing") {
  scenario what;
  what.prepare = make_store;
  what.act = [](process& mortal, const fs::path& place) {
    auto handle = mortal.open(options_for(place));
    auto job = need(
        handle->begin_checkpoint(compaction::none, patience::lock_timeout));
    put(*handle, {{"between", 1}});
    need(job->write());
    need(handle->finish_checkpoint(std::move(job)));
  };
  what.states = {second, changed(second, {{"between", 1}})};
  what.published = {first, second};
  check_every_death(what, 4);
}

TEST_CASE("A death during any step of a compaction loses nothing") {
  scenario what;
  what.act = [](process& mortal, const fs::path& place) {
    need(mortal.open(options_for(place))->checkpoint(compaction::forced));
  };
  what.states = {second};
  SECTION("when the log is folded, too") {
    what.prepare = make_store;
    what.published = {first, second};
  }
  SECTION("when the holes are published") {
    what.prepare = make_store_with_holes;
    what.published = {second};
  }
  SECTION("when rows were removed since they were copied") {
    what.prepare = [](const fs::path& place) {
      make_store_with_holes(place);
      process here;
      auto options = options_for(place);
      options.reader_grace = std::chrono::hours(1);
      auto handle = here.open(options);
      need(handle->checkpoint(compaction::forced));
      take_out(*handle, {"a3", "b"});
    };
    what.states = {without(second, {"a3", "b"})};
    what.published = {second, what.states.front()};
  }
  check_every_death(what, 32);
}

TEST_CASE("A death during a drop leaves all rows or none") {
  scenario what;
  what.prepare = make_store;
  what.act = [](process& mortal, const fs::path& place) {
    need(mortal.open(options_for(place))->drop());
  };
  what.states = {second, {}};
  what.published = {first, {}};
  check_every_death(what, 4);
}

TEST_CASE("A death while a pair is taken over leaves what it holds") {
  scenario what;
  const auto theirs = changed(many("theirs", 4), {{"a1", 9}});
  SECTION("as a new store") {
    what.prepare = [&](const fs::path& place) {
      write_foreign_pair(place, theirs);
    };
    what.states = {theirs};
    what.published = {theirs};
  }
  SECTION("by a store with changes of its own") {
    what.prepare = [&](const fs::path& place) {
      make_store(place);
      write_foreign_pair(place, theirs);
    };
    what.states = {without(changed(theirs, {{"a1", 2}, {"b", 1}}), {"a2"})};
    what.published = {theirs};
  }
  SECTION("of which only one file is foreign") {
    what.prepare = [&](const fs::path& place) {
      make_store(place);
      const auto ours = read_file(meta_path(place));
      write_foreign_pair(place, first); // the same rows, other files
      fs::remove(meta_path(place));
      write_file(meta_path(place), ours);
    };
    what.states = {second};
    what.published = {first};
  }
  SECTION("by a store whose drop was interrupted") {
    what.prepare = [&](const fs::path& place) {
      make_store(place);
      process here;
      auto handle = here.open(options_for(place));
      here.disk.set_hook([](const operation& each) {
        const bool hit = each.kind == operation_kind::create_file
                         && each.path.ends_with(".index");
        return hit ? fault::fail(errc::no_space) : fault::none();
      });
      CHECK(failure_of(handle->drop()).code == errc::no_space);
      write_foreign_pair(place, theirs);
    };
    what.states = {theirs};
    what.published = {theirs};
  }
  what.act = [](process& mortal, const fs::path& place) {
    mortal.open(options_for(place));
  };
  check_every_death(what, 8);
}

TEST_CASE("A death while a running store takes over a pair loses nothing") {
  const auto theirs = many("theirs", 4);
  const versions ours = {{"a1", 2}, {"b", 1}};
  scenario what;
  what.prepare = make_store;
  what.act = [&](process& mortal, const fs::path& place) {
    auto handle = mortal.open(options_for(place));
    write_foreign_pair(place, theirs);
    need(handle->checkpoint(compaction::none));
  };
  what.states = {second, changed(theirs, ours)};
  what.published = {first, theirs, changed(theirs, ours)};
  check_every_death(what, 16);
}

TEST_CASE("A death during a salvage can be salvaged again") {
  scenario what;
  what.salvage = true;
  what.prepare = [](const fs::path& place) {
    make_store(place);
    const auto log = last_log(place);
    auto bytes = read_file(log);
    write_file(log, with_flipped_bit(bytes, (64 + 70) * 8));
  };
  what.act = [](process& mortal, const fs::path& place) {
    auto options = options_for(place);
    options.salvage = true;
    mortal.open(options);
  };
  what.states = {first};
  what.published = {first};
  check_every_death(what, 24);
}

TEST_CASE("A death while a catalog is made again loses nothing") {
  scenario what;
  what.prepare = [](const fs::path& place) {
    make_store(place);
    for (const auto& name : private_files(place))
      if (name.ends_with(".catalog"))
        fs::remove(private_path(place, name));
  };
  what.act = [](process& mortal, const fs::path& place) {
    mortal.open(options_for(place));
  };
  what.states = {second};
  what.published = {first};
  check_every_death(what, 1);
}

// -- Calls that fail ----------------------------------------------------------

namespace {

/// What a client of a store that sometimes fails knows of it.
struct client {
  process here;
  fs::path place;
  std::unique_ptr<store> handle;
  /// What was acknowledged, and what may have come after.
  versions known;
  std::vector<versions> published = {{}};
  failure problem;

  /// Opens the store if it is not open; false if it cannot be.
  bool ready() {
    if (handle)
      return true;
    auto opened = here.try_open(options_for(place));
    if (opened)
      handle = std::move(*opened);
    else
      problem = opened.error();
    return handle != nullptr;
  }

  template <class T>
  bool succeeded(const result<T>& outcome) {
    if (!outcome && outcome.error().code == errc::broken)
      handle.reset();
    return outcome.has_value();
  }

  void change(const versions& rows, const std::vector<std::string>& removed) {
    if (!ready())
      return;
    std::vector<commit_operation> operations;
    for (const auto& [id, version] : rows)
      operations.push_back(upsert(id, version));
    for (const auto& id : removed)
      operations.push_back(removal(id));
    if (succeeded(handle->commit(operations)))
      known = without(changed(known, rows), removed);
  }

  void checkpoint(compaction how) {
    published.push_back(known);
    if (ready())
      (void)succeeded(handle->checkpoint(how));
  }

  void refresh() {
    if (ready() && succeeded(handle->refresh()))
      REQUIRE(contents(*handle) == known);
  }
};

/// A bit of everything but drops, whose failures tell less.
void use_store(client& user) {
  user.change(many("a", 8), {});
  user.checkpoint(compaction::none);
  user.change({{"a1", 2}, {"b", 1}}, {"a2", "a3"});
  user.refresh();
  user.checkpoint(compaction::none);
  user.change({{"c", 1}}, {"a4"});
  user.checkpoint(compaction::forced);
  user.change({{"d", 1}}, {});
  user.handle.reset();
  user.change({{"e", 1}}, {"d"});
  user.checkpoint(compaction::none);
  user.refresh();
}

void check_after_failure(client& user) {
  user.here.disk.set_hook({});
  const auto seen = read_published(user.place, strictness::between_steps).rows;
  REQUIRE(is_one_of(seen, user.published));
  const auto is_back = user.ready();
  CAPTURE(user.problem);
  REQUIRE(is_back);
  need(user.handle->refresh());
  REQUIRE(contents(*user.handle) == user.known);
  user.change({{"more", 1}}, {});
  REQUIRE(user.known.contains("more"));
  process elsewhere;
  auto other = open_later(elsewhere, user.place);
  REQUIRE(contents(*other) == user.known);
  REQUIRE(contents(*need(user.handle->refresh())) == user.known);
  need(user.handle->checkpoint(compaction::none));
  REQUIRE(read_published(user.place).rows == user.known);
  need(user.handle->verify());
}

} // namespace

namespace {

void check_use_with_fault(std::size_t index, const fault& what) {
  CAPTURE(index);
  quick_directory place;
  client user;
  user.place = place.path();
  operation failed;
  user.here.disk.set_hook([&](const operation& each) {
    if (each.index != index)
      return fault::none();
    failed = each;
    return what;
  });
  use_store(user);
  CAPTURE(failed);
  check_after_failure(user);
}

std::vector<operation> operations_of_use() {
  quick_directory place;
  client user;
  user.place = place.path();
  use_store(user);
  auto out = user.here.disk.operations();
  check_after_failure(user);
  return out;
}

} // namespace

TEST_CASE("Whichever file operation fails, nothing acknowledged is lost") {
  const auto operations = operations_of_use();
  REQUIRE(operations.size() > 100);
  for (const auto& each : operations)
    check_use_with_fault(each.index, fault::fail(errc::io_failure));
}

TEST_CASE("Whichever write is cut short, nothing acknowledged is lost") {
  for (const auto& each : operations_of_use())
    if (each.kind == operation_kind::append
        || each.kind == operation_kind::write_at)
      check_use_with_fault(each.index, fault::cut_short(each.size_bytes / 2));
}

TEST_CASE("A store whose disk fails for good is whole when it is back") {
  const auto count = operations_of_use().size();
  for (std::size_t first_failure = 0; first_failure < count;
       first_failure += 5) {
    CAPTURE(first_failure);
    quick_directory place;
    client user;
    user.place = place.path();
    user.here.disk.fail_at(first_failure, errc::io_failure,
                           faulty_io::persistence::persistent);
    use_store(user);
    user.handle.reset();
    check_after_failure(user);
  }
}

// -- Power cuts ---------------------------------------------------------------

namespace {

/// Follows what is done to files, and checks that nothing is relied on that a
/// power cut could still take back.
class durability_watch {
public:
  void note(const operation& what) {
    using kind = operation_kind;
    CAPTURE(what);
    if (!is_mutation(what.kind) || what.kind == kind::lock)
      return;
    if (!renamed_in_.empty()) {
      // A rename counts only when its directory has been synced.
      REQUIRE(what.kind == kind::sync_directory);
      REQUIRE(what.path == renamed_in_);
      renamed_in_.clear();
    }
    switch (what.kind) {
    case kind::create_file:
      if (!what.path.ends_with("/LOCK"))
        new_names_.insert(what.path);
      break;
    case kind::append:
      REQUIRE((!is_log(what.path) || !unsynced_.contains(what.path)));
      [[fallthrough]];
    case kind::write_at:
    case kind::truncate:
    case kind::set_mode:
      unsynced_.insert(what.path);
      break;
    case kind::sync:
    case kind::sync_data:
      unsynced_.erase(what.path);
      break;
    case kind::remove:
      unsynced_.erase(what.path);
      new_names_.erase(what.path);
      if (what.path.ends_with("/unembedded"))
        removed_ = what.path;
      break;
    case kind::sync_directory:
      std::erase_if(new_names_, [&](const std::string& name) {
        return fs::path(name).parent_path() == what.path;
      });
      if (fs::path(removed_).parent_path() == what.path)
        removed_.clear();
      break;
    case kind::rename:
      REQUIRE_FALSE(unsynced_.contains(what.path));
      new_names_.erase(what.path);
      // What MANIFEST names must be there before it does.
      REQUIRE(
          (!what.target.ends_with("/MANIFEST")
           || (unsynced_.empty() && new_names_.empty() && removed_.empty())));
      renamed_in_ = fs::path(what.target).parent_path();
      break;
    default:
      break;
    }
  }

  /// An answer is given.
  void answer() const {
    CHECK(unsynced_.empty());
    CHECK(renamed_in_.empty());
    CHECK(removed_.empty());
  }

private:
  static bool is_log(const std::string& path) {
    return contains(path, ".callboard/log-");
  }

  std::set<std::string> unsynced_;
  std::set<std::string> new_names_;
  std::string renamed_in_;
  /// What would come back with a power cut: records that no longer wait.
  std::string removed_;
};

} // namespace

TEST_CASE("Nothing is relied on before it is durable") {
  quick_directory place;
  process here;
  here.disk.stop_steady_clock();
  durability_watch watch;
  std::size_t seen = 0;
  auto answered = [&] {
    const auto operations = here.disk.operations();
    for (; seen < operations.size(); ++seen)
      watch.note(operations[seen]);
    watch.answer();
  };
  SECTION("in a new store") {}
  SECTION("in one of LightRAG") {
    write_foreign_pair(place.path(), many("old", 3));
  }
  SECTION("in one of LightRAG where records wait") {
    write_foreign_pair(place.path(), many("a", 1));
    fs::remove(index_path(place.path()));
  }
  auto handle = here.open(options_for(place.path()));
  answered();
  put(*handle, many("a", 8));
  answered();
  need(handle->checkpoint(compaction::none));
  answered();
  take_out(*handle, {"a0", "a1"});
  answered();
  need(handle->checkpoint(compaction::forced));
  answered();
  put(*handle, {{"b", 1}});
  write_foreign_pair(place.path(), many("theirs", 3));
  need(handle->checkpoint(compaction::none));
  answered();
  need(handle->drop());
  answered();
  put(*handle, {{"c", 1}});
  handle.reset();
  const auto log = last_log(place.path());
  write_file(log, read_file(log) + "torn");
  handle = here.open(options_for(place.path()));
  answered();
}
