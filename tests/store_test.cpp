#include "core/bytes.hpp"
#include "core/file_store.hpp"
#include "core/index_file.hpp"
#include "core/record.hpp"
#include "tests/support/child_process.hpp"
#include "tests/support/store_fixture.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <atomic>
#include <cstring>
#include <fstream>
#include <random>
#include <sys/wait.h>
#include <unistd.h>

using namespace callboard;
using namespace callboard::test;

namespace fs = std::filesystem;

namespace {

/// A store in a directory of its own, opened once.
struct one_store {
  one_store() : handle(here.open(options())) {}

  store_options options() const { return options_for(place.path()); }

  quick_directory place;
  process here;
  std::unique_ptr<store> handle;
};

/// What a new process finds.
versions reopened(const fs::path& place) {
  process fresh;
  fresh.disk.stop_steady_clock();
  return contents(*fresh.open(options_for(place)));
}

/// What the files of foreign pairs have that are kept for their owners.
std::set<std::string> kept_contents(const fs::path& place) {
  std::set<std::string> out;
  for (const auto& name : private_files(place))
    if (name.starts_with("foreign-"))
      out.insert(read_file(private_path(place, name)));
  return out;
}

/// Fails operations of `kind` on files whose path ends with `suffix`.
faulty_io::hook failing(operation_kind kind, std::string suffix, fault what) {
  return [=](const operation& each) {
    const bool hit = each.kind == kind && each.path.ends_with(suffix);
    return hit ? what : fault::none();
  };
}

} // namespace

// -- Commits and handles ------------------------------------------------------

TEST_CASE("A new store is empty, and its published pair is, too") {
  one_store s;
  CHECK(s.handle->report().created);
  CHECK_FALSE(s.handle->report().imported);
  CHECK(contents(*s.handle).empty());
  CHECK(s.handle->published());
  REQUIRE(fs::exists(index_path(s.place.path())));
  CHECK(read_published(s.place.path()).total == 0);
  s.handle.reset();
  auto again = s.here.open(s.options());
  CHECK_FALSE(again->report().created);
  CHECK(contents(*again).empty());
}

TEST_CASE("A commit is there after the store is opened again") {
  one_store s;
  const auto done = put(*s.handle, many("a", 5));
  CHECK(done.committed == 5);
  CHECK(done.generation == 1);
  CHECK(contents(*done.view) == many("a", 5));
  s.handle.reset();
  CHECK(reopened(s.place.path()) == many("a", 5));
}

TEST_CASE("What one handle commits the others see after a refresh") {
  const bool same_process = GENERATE(true, false);
  one_store s;
  process elsewhere;
  auto other = (same_process ? s.here : elsewhere).open(s.options());
  const auto probe = other->probe();
  CHECK_FALSE(probe->changed(other->view()->generation()));
  put(*s.handle, many("a", 3));
  CHECK(probe->changed(other->view()->generation()));
  CHECK(contents(*other).empty());
  CHECK(contents(*need(other->refresh())) == many("a", 3));
  CHECK_FALSE(probe->changed(other->view()->generation()));
  put(*other, {{"a1", 2}});
  CHECK(s.handle->probe()->changed(s.handle->view()->generation()));
  CHECK(contents(*need(s.handle->refresh()))
        == changed(many("a", 3), {{"a1", 2}}));
}

TEST_CASE("Handles that commit in turns lose nothing of each other") {
  one_store s;
  process elsewhere;
  auto other = elsewhere.open(s.options());
  versions expected;
  for (int i = 0; i < 20; ++i) {
    const versions change = {{"both", i}, {"row" + std::to_string(i), i}};
    put(i % 2 == 0 ? *s.handle : *other, change);
    expected = changed(expected, change);
    if (i % 7 == 0)
      need(other->checkpoint(compaction::none));
  }
  CHECK(contents(*need(s.handle->refresh())) == expected);
  CHECK(contents(*need(other->refresh())) == expected);
  CHECK(s.handle->view()->generation() == 20);
  need(s.handle->verify());
  CHECK(reopened(s.place.path()) == expected);
}

TEST_CASE("A probe that outlives its store goes on telling") {
  one_store s;
  const auto probe = s.handle->probe();
  const auto seen = s.handle->view()->generation();
  s.handle.reset();
  CHECK_FALSE(probe->changed(seen));
  put(*s.here.open(s.options()), {{"a", 1}});
  CHECK(probe->changed(seen));
}

TEST_CASE("A commit that could not be read yet keeps the probe asking") {
  one_store s;
  process elsewhere;
  auto other = elsewhere.open(s.options());
  put(*s.handle, {{"a", 1}});
  {
    // Whose commit is under way holds the lock: its frame may not be durable.
    auto home = need(posix_io().open_directory(
        private_path(s.place.path()).string(), false));
    auto writer = need(held_lock::acquire(posix_io(), *home, store_lock::writer,
                                          lock_mode::exclusive,
                                          std::chrono::milliseconds(0)));
    CHECK(contents(*need(other->refresh())).empty());
  }
  CHECK(other->probe()->changed(other->view()->generation()));
  CHECK(contents(*need(other->refresh())) == versions{{"a", 1}});
}

TEST_CASE("A board that covers all processes spares looking at the files") {
  quick_directory place;
  process here(true);
  auto first = here.open(options_for(place.path()));
  auto second = here.open(options_for(place.path()));
  const auto before = here.disk.operation_count();
  CHECK_FALSE(second->probe()->changed(second->view()->generation()));
  CHECK(here.disk.operation_count() == before);
  put(*first, {{"a", 1}});
  CHECK(second->probe()->changed(second->view()->generation()));
  CHECK(contents(*need(second->refresh())) == versions{{"a", 1}});
}

TEST_CASE("Of several changes of an id in one commit the last one counts") {
  one_store s;
  const std::vector<commit_operation> operations = {
      upsert("a", 1), upsert("b", 1), upsert("a", 2), removal("b"),
      removal("c"),   upsert("c", 1), removal("d"),   upsert("e", 1),
      removal("e"),   upsert("e", 7)};
  need(s.handle->commit(operations));
  const versions expected = {{"a", 2}, {"c", 1}, {"e", 7}};
  CHECK(contents(*s.handle) == expected);
  CHECK(reopened(s.place.path()) == expected);
}

TEST_CASE("Rows of the base and later ones can be replaced and removed") {
  one_store s;
  put(*s.handle, many("base", 10));
  need(s.handle->checkpoint(compaction::none));
  put(*s.handle, many("later", 10));
  put(*s.handle, {{"base1", 2}, {"later1", 2}, {"new", 1}});
  take_out(*s.handle, {"base2", "later2", "base1", "unknown"});
  put(*s.handle, {{"base2", 3}});
  const auto expected =
      without(changed(changed(many("base", 10), many("later", 10)),
                      {{"later1", 2}, {"new", 1}, {"base2", 3}}),
              {"base1", "later2"});
  CHECK(contents(*s.handle) == expected);
  CHECK(reopened(s.place.path()) == expected);
  need(s.handle->checkpoint(compaction::none));
  CHECK(contents(*s.handle) == expected);
  CHECK(read_published(s.place.path()).rows == expected);
  CHECK(reopened(s.place.path()) == expected);
}

TEST_CASE("A commit of nothing changes nothing") {
  one_store s;
  put(*s.handle, {{"a", 1}});
  const auto before = all_files(s.place.path());
  const auto done = need(s.handle->commit({}));
  CHECK(done.generation == 1);
  CHECK(done.committed == 0);
  CHECK(contents(*done.view) == versions{{"a", 1}});
  CHECK(all_files(s.place.path()) == before);
}

TEST_CASE("A commit that expects another generation is refused") {
  one_store s;
  process elsewhere;
  auto other = elsewhere.open(s.options());
  const auto seen = put(*s.handle, {{"a", 1}}).generation;
  put(*other, {{"a", 2}});
  const std::vector<commit_operation> mine = {upsert("a", 3)};
  CHECK(failure_of(s.handle->commit(mine, seen)).code == errc::conflict);
  CHECK(contents(*need(s.handle->refresh())) == versions{{"a", 2}});
  need(s.handle->commit(mine, s.handle->view()->generation()));
  CHECK(contents(*need(other->refresh())) == versions{{"a", 3}});
}

TEST_CASE("Ids of up to 1024 bytes come back whole") {
  one_store s;
  const std::string longest(id_bytes_max, 'x');
  const versions rows = {{longest, 1}, {"\xC3\xA9\xE2\x82\xAC", 2}};
  put(*s.handle, rows);
  CHECK(reopened(s.place.path()) == rows);
  need(s.handle->checkpoint(compaction::none));
  CHECK(read_published(s.place.path()).rows == rows);
  CHECK(reopened(s.place.path()) == rows);
}

TEST_CASE("A commit that is unusable or too large is refused whole") {
  one_store s;
  put(*s.handle, {{"a", 1}});
  const auto before = all_files(s.place.path());
  std::vector<commit_operation> bad = {upsert("a", 2)};
  auto expected = errc::invalid_argument;
  SECTION("for too many changes") {
    bad.resize(commit_operations_max + 1, removal("a"));
    expected = errc::too_large;
  }
  SECTION("for too many bytes") {
    auto large = upsert("large", 1);
    large.record.resize(record_bytes_max - 100, ' ');
    bad.resize(commit_bytes_max / large.record.size() + 2, large);
    expected = errc::too_large;
  }
  SECTION("for a vector of another dimension") {
    bad.push_back(upsert("b", 1));
    bad.back().vector.push_back(0);
    expected = errc::dimension_mismatch;
  }
  SECTION("for an empty id") {
    bad.push_back(removal(""));
  }
  SECTION("for a long id") {
    bad.push_back(removal(std::string(id_bytes_max + 1, 'x')));
    expected = errc::too_large;
  }
  SECTION("for a removal with a vector") {
    bad.push_back(removal("b"));
    bad.back().vector = upsert("b", 1).vector;
  }
  SECTION("for a removal with a record") {
    bad.push_back(removal("b"));
    bad.back().record = upsert("b", 1).record;
  }
  SECTION("for an empty record") {
    bad.push_back(upsert("b", 1));
    bad.back().record.clear();
  }
  SECTION("for a large record") {
    bad.push_back(upsert("b", 1));
    bad.back().record.resize(record_bytes_max + 1, ' ');
    expected = errc::too_large;
  }
  CHECK(failure_of(s.handle->commit(bad)).code == expected);
  CHECK(contents(*s.handle) == versions{{"a", 1}});
  CHECK(all_files(s.place.path()) == before);
  put(*s.handle, {{"a", 3}});
  CHECK(reopened(s.place.path()) == versions{{"a", 3}});
}

TEST_CASE("Who cannot get the lock in time is told so, and nothing changes") {
  one_store s;
  put(*s.handle, {{"a", 1}});
  auto home = need(
      posix_io().open_directory(private_path(s.place.path()).string(), false));
  auto writer = need(held_lock::acquire(posix_io(), *home, store_lock::writer,
                                        lock_mode::exclusive,
                                        std::chrono::milliseconds(0)));
  CHECK(failure_of(try_put(*s.handle, {{"a", 2}})).code == errc::busy);
  CHECK(failure_of(s.handle->checkpoint(compaction::none)).code == errc::busy);
  CHECK(failure_of(s.handle->drop()).code == errc::busy);
  CHECK(contents(*need(s.handle->refresh())) == versions{{"a", 1}});
}

TEST_CASE("A store whose writer is at work can be opened and read") {
  one_store s;
  put(*s.handle, {{"a", 1}});
  need(s.handle->checkpoint(compaction::none));
  auto home = need(
      posix_io().open_directory(private_path(s.place.path()).string(), false));
  auto writer = std::optional(need(
      held_lock::acquire(posix_io(), *home, store_lock::writer,
                         lock_mode::exclusive, std::chrono::milliseconds(0))));
  process elsewhere;
  auto other = elsewhere.open(s.options());
  CHECK(contents(*other) == versions{{"a", 1}});
  writer.reset();
  put(*other, {{"b", 1}});
  CHECK(contents(*need(s.handle->refresh())) == versions{{"a", 1}, {"b", 1}});
}

TEST_CASE("A lock counts only on the file that is called LOCK") {
  one_store s;
  process elsewhere;
  auto other = elsewhere.open(s.options());
  // Somebody puts another file in its place while we are about to lock it.
  bool replaced = false;
  s.here.disk.set_hook([&](const operation& each) {
    if (each.kind == operation_kind::lock && !std::exchange(replaced, true)) {
      fs::remove(each.path);
      write_file(each.path, "");
    }
    return fault::none();
  });
  put(*s.handle, {{"a", 1}});
  REQUIRE(replaced);
  replaced = false;
  auto job = need(
      s.handle->begin_checkpoint(compaction::none, patience::lock_timeout));
  REQUIRE(replaced);
  CHECK(failure_of(
            other->begin_checkpoint(compaction::none, patience::lock_timeout))
            .code
        == errc::busy);
}

TEST_CASE("Bad names and dimensions are refused before anything is made") {
  quick_directory place;
  auto options = options_for(place.path());
  SECTION("workspace") {
    options.workspace =
        GENERATE(values<std::string>({"..", ".", "a/b", "/", "a\nb"}));
  }
  SECTION("namespace") {
    options.namespace_name =
        GENERATE(values<std::string>({"", "..", "a/b", "/a", "a\nb"}));
  }
  SECTION("dimension") {
    options.dimension = GENERATE(0U, 65'537U);
  }
  SECTION("model") {
    options.model = std::string(1025, 'm');
  }
  process here;
  const auto reason = failure_of(here.try_open(options));
  CHECK((reason.code == errc::invalid_argument
         || reason.code == errc::too_large));
  CHECK(fs::is_empty(place.path()));
}

TEST_CASE("Stores of several workspaces and namespaces do not mix") {
  quick_directory place;
  process here;
  std::vector<std::unique_ptr<store>> stores;
  const std::vector<std::string> names = {"chunks", "entities", "a.b-c_d", "ё"};
  for (const auto* workspace : {"", "one", "two words"})
    for (const auto& name : names) {
      auto options = options_for(place.path());
      options.workspace = workspace;
      options.namespace_name = name;
      stores.push_back(here.open(options));
      put(*stores.back(), {{std::string(workspace) + "/" + name, 1}});
    }
  for (auto& each : stores) {
    need(each->refresh());
    CHECK(contents(*each).size() == 1);
  }
}

TEST_CASE("A store made with another dimension or model stays untouched") {
  quick_directory place;
  process here;
  auto options = options_for(place.path());
  options.model = "first";
  auto handle = here.open(options);
  put(*handle, many("a", 3));
  CHECK(handle->stats().model == "first");
  handle.reset();
  const auto before = all_files(place.path());
  auto expected = errc::dimension_mismatch;
  SECTION("dimension") {
    options.dimension = 8;
  }
  SECTION("model") {
    options.model = "second";
    expected = errc::model_mismatch;
  }
  const auto reason = failure_of(here.try_open(options));
  CHECK(reason.code == expected);
  CHECK(contains(reason.message, private_path(place.path()).string()));
  CHECK(all_files(place.path()) == before);
}

TEST_CASE("A store remembers the first model that it is told") {
  one_store s;
  auto options = s.options();
  options.model = "late";
  auto named = s.here.open(options);
  put(*named, {{"a", 1}});
  need(named->checkpoint(compaction::none));
  CHECK(named->stats().model == "late");
  options.model = "other";
  CHECK(failure_of(s.here.try_open(options)).code == errc::model_mismatch);
  CHECK(reopened(s.place.path()) == versions{{"a", 1}});
}

TEST_CASE("An unwritable directory is refused with the reason") {
  const bool exists = GENERATE(true, false);
  scratch_directory place;
  const auto inner = place / "store";
  fs::create_directory(inner);
  if (exists) {
    process here;
    put(*here.open(options_for(inner)), {{"a", 1}});
  }
  fs::permissions(place.path(), fs::perms(0755));
  fs::permissions(inner, fs::perms(0555));
  if (exists)
    for (const auto& each : fs::directory_iterator(private_path(inner)))
      fs::permissions(each.path(), fs::perms(0444));
  if (exists)
    fs::permissions(private_path(inner), fs::perms(0555));
  const auto before = all_files(inner);
  const auto child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    if (::geteuid() == 0 && (::setgid(65534) != 0 || ::setuid(65534) != 0))
      ::_exit(1);
    process here;
    const auto opened = here.try_open(options_for(inner));
    const bool refused = !opened
                         && opened.error().code == errc::permission_denied
                         && contains(opened.error().message, inner.string());
    ::_exit(refused ? 0 : 2);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(all_files(inner) == before);
  fs::permissions(inner, fs::perms(0755));
}

// -- Checkpoints --------------------------------------------------------------

TEST_CASE("A checkpoint publishes the store and keeps the published numbers") {
  one_store s;
  put(*s.handle, many("a", 10));
  CHECK_FALSE(s.handle->published());
  CHECK(read_published(s.place.path()).rows.empty());
  need(s.handle->checkpoint(compaction::none));
  CHECK(s.handle->published());
  const auto first = read_published(s.place.path());
  CHECK(first.rows == many("a", 10));
  put(*s.handle, {{"a3", 2}, {"b", 1}});
  take_out(*s.handle, {"a5"});
  need(s.handle->checkpoint(compaction::none));
  const auto second = read_published(s.place.path());
  const auto expected =
      without(changed(many("a", 10), {{"a3", 2}, {"b", 1}}), {"a5"});
  CHECK(second.rows == expected);
  for (const auto& [id, number] : second.numbers) {
    CAPTURE(id);
    if (expected.at(id) == 1 && id != "b")
      CHECK(number == first.numbers.at(id));
    else
      CHECK(number >= first.total);
  }
  CHECK(second.total == 12);
  CHECK(s.handle->stats().hole_rows == 2);
}

TEST_CASE("A checkpoint of what is published already writes nothing") {
  one_store s;
  put(*s.handle, many("a", 4));
  need(s.handle->checkpoint(compaction::none));
  const auto before = all_files(s.place.path());
  need(s.handle->checkpoint(compaction::automatic));
  CHECK(all_files(s.place.path()) == before);
}

TEST_CASE("Forced compaction without a grace period leaves no holes") {
  one_store s;
  put(*s.handle, many("a", 40));
  need(s.handle->checkpoint(compaction::none));
  take_out(*s.handle, {"a1", "a4", "a7", "a30", "a39"});
  put(*s.handle, {{"a2", 2}, {"a35", 2}, {"b", 1}});
  const auto expected = contents(*s.handle);
  need(s.handle->checkpoint(compaction::forced));
  CHECK(contents(*s.handle) == expected);
  const auto published = read_published(s.place.path());
  CHECK(published.rows == expected);
  CHECK(published.total == expected.size());
  CHECK(s.handle->stats().hole_rows == 0);
  need(s.handle->verify());
  CHECK(reopened(s.place.path()) == expected);
}

TEST_CASE("Compaction moves rows only after the grace period") {
  one_store s;
  auto options = s.options();
  options.reader_grace = std::chrono::seconds(60);
  s.here.disk.set_wall_clock(1'000'000);
  auto handle = s.here.open(options);
  put(*handle, many("a", 20));
  need(handle->checkpoint(compaction::none));
  take_out(*handle, {"a0", "a1", "a2"});
  need(handle->checkpoint(compaction::none));
  const auto expected = without(many("a", 20), {"a0", "a1", "a2"});
  const auto numbers = read_published(s.place.path()).numbers;

  need(handle->checkpoint(compaction::forced)); // copies
  CHECK(read_published(s.place.path()).numbers == numbers);
  CHECK(read_published(s.place.path()).total == 20);
  s.here.disk.set_wall_clock(1'000'059);
  CHECK_FALSE(handle->checkpoint_due());
  need(handle->checkpoint(compaction::forced));
  CHECK(read_published(s.place.path()).numbers == numbers);

  s.here.disk.set_wall_clock(1'000'060);
  CHECK(handle->checkpoint_due());
  need(handle->checkpoint(compaction::automatic)); // moves
  CHECK_FALSE(handle->checkpoint_due());
  CHECK(read_published(s.place.path()).total == 17);
  CHECK(read_published(s.place.path()).rows == expected);
  need(handle->verify());
  CHECK(reopened(s.place.path()) == expected);
}

TEST_CASE("Planned moves outlast checkpoints and changes of their rows") {
  one_store s;
  auto options = s.options();
  options.reader_grace = std::chrono::seconds(60);
  s.here.disk.set_wall_clock(1'000'000);
  auto handle = s.here.open(options);
  put(*handle, many("a", 20));
  need(handle->checkpoint(compaction::none));
  take_out(*handle, {"a0", "a1", "a10", "a11"});
  need(handle->checkpoint(compaction::none));
  need(handle->checkpoint(compaction::forced));
  put(*handle, {{"a9", 2}, {"b", 1}}); // a9 is one of the last rows
  take_out(*handle, {"a8"});
  const auto expected = contents(*handle);
  need(handle->checkpoint(compaction::none));
  CHECK(read_published(s.place.path()).rows == expected);
  s.here.disk.set_wall_clock(1'000'100);
  need(handle->checkpoint(compaction::automatic));
  CHECK(read_published(s.place.path()).rows == expected);
  CHECK(contents(*handle) == expected);
  need(handle->verify());
  s.here.disk.set_wall_clock(1'001'000);
  options.reader_grace = std::chrono::seconds(0);
  need(s.here.open(options)->checkpoint(compaction::forced));
  CHECK(read_published(s.place.path()).rows == expected);
  CHECK(read_published(s.place.path()).total == expected.size());
}

TEST_CASE("Commits may come between the steps of a checkpoint") {
  one_store s;
  process elsewhere;
  auto other = elsewhere.open(s.options());
  put(*s.handle, many("a", 5));
  auto job = need(
      s.handle->begin_checkpoint(compaction::none, patience::lock_timeout));
  put(*s.handle, {{"a1", 2}});
  put(*other, {{"b", 1}});
  need(job->write());
  put(*other, {{"c", 1}});
  take_out(*s.handle, {"a2"});
  need(s.handle->finish_checkpoint(std::move(job)));
  const auto expected =
      without(changed(many("a", 5), {{"a1", 2}, {"b", 1}, {"c", 1}}), {"a2"});
  CHECK(contents(*need(s.handle->refresh())) == expected);
  CHECK(contents(*need(other->refresh())) == expected);
  CHECK(read_published(s.place.path()).rows == many("a", 5));
  CHECK_FALSE(s.handle->published());
  put(*other, {{"d", 1}});
  CHECK(reopened(s.place.path()) == changed(expected, {{"d", 1}}));
  need(other->checkpoint(compaction::none));
  CHECK(read_published(s.place.path()).rows == changed(expected, {{"d", 1}}));
}

TEST_CASE("A second checkpoint at the same time is refused") {
  one_store s;
  process elsewhere;
  auto other = elsewhere.open(s.options());
  put(*s.handle, many("a", 5));
  auto job = need(
      s.handle->begin_checkpoint(compaction::none, patience::lock_timeout));
  CHECK(failure_of(
            other->begin_checkpoint(compaction::none, patience::lock_timeout))
            .code
        == errc::busy);
  CHECK(failure_of(s.handle->begin_checkpoint(compaction::none,
                                              patience::lock_timeout))
            .code
        == errc::busy);
  CHECK(failure_of(other->drop()).code == errc::busy);
  CHECK(failure_of(s.handle->finish_checkpoint(std::move(job))).code
        == errc::invalid_argument); // not written
  need(other->checkpoint(compaction::none));
  CHECK(read_published(s.place.path()).rows == many("a", 5));
}

TEST_CASE("Checkpoints that are given up lose nothing and leave no debris") {
  one_store s;
  versions expected;
  for (int i = 0; i < 70; ++i) { // more than a MANIFEST has room for logs
    const versions change = {{"row" + std::to_string(i % 10), i}};
    put(*s.handle, change);
    expected = changed(expected, change);
    auto job = need(
        s.handle->begin_checkpoint(compaction::none, patience::lock_timeout));
    if (i % 3 == 0)
      need(job->write());
  }
  CHECK(contents(*s.handle) == expected);
  CHECK(reopened(s.place.path()) == expected);
  need(s.handle->checkpoint(compaction::none));
  CHECK(read_published(s.place.path()).rows == expected);
  const auto epoch = std::to_string(s.handle->stats().base_epoch);
  const std::set<std::string> names = {
      "LOCK", "MANIFEST", "base-" + epoch + ".index", "base-" + epoch + ".meta",
      "base-" + epoch + ".catalog"};
  auto found = private_files(s.place.path());
  std::erase_if(found,
                [](const auto& name) { return name.starts_with("log-"); });
  CHECK(found == names);
}

TEST_CASE("Who has no patience leaves a checkpoint to who is at it") {
  one_store s;
  process elsewhere;
  auto options = s.options();
  options.lock_timeout = std::chrono::hours(1);
  auto other = elsewhere.open(options);
  put(*s.handle, many("a", 5));
  auto job = need(
      s.handle->begin_checkpoint(compaction::none, patience::lock_timeout));
  CHECK(
      failure_of(other->begin_checkpoint(compaction::none, patience::none)).code
      == errc::busy);
  need(job->write());
  need(s.handle->finish_checkpoint(std::move(job)));
  put(*other, {{"b", 1}});
  job = need(other->begin_checkpoint(compaction::none, patience::none));
  need(job->write());
  need(other->finish_checkpoint(std::move(job)));
  CHECK(read_published(s.place.path()).rows
        == changed(many("a", 5), {{"b", 1}}));
}

namespace {

/// Hands out notices that keep the newest base.
class base_noting_board final : public test_board {
public:
  std::shared_ptr<store_notices> attach(const store_address& address) override {
    return std::make_shared<notices>(test_board::attach(address), epoch);
  }

  std::atomic<std::uint64_t> epoch = 0;

private:
  class notices final : public store_notices {
  public:
    notices(std::shared_ptr<store_notices> inner,
            std::atomic<std::uint64_t>& epoch)
        : inner_(std::move(inner)), epoch_(epoch) {}
    std::uint64_t durable_sequence() const noexcept override {
      return inner_->durable_sequence();
    }
    void announce(std::uint64_t sequence) noexcept override {
      inner_->announce(sequence);
    }
    std::optional<std::uint64_t> poisoned_from() const noexcept override {
      return inner_->poisoned_from();
    }
    void poison(std::uint64_t sequence) noexcept override {
      inner_->poison(sequence);
    }
    void clear_poison() noexcept override { inner_->clear_poison(); }
    void note_base_epoch(std::uint64_t noted) noexcept override {
      epoch_ = noted;
    }
    bool covers_all_processes() const noexcept override {
      return inner_->covers_all_processes();
    }

  private:
    std::shared_ptr<store_notices> inner_;
    std::atomic<std::uint64_t>& epoch_;
  };
};

} // namespace

TEST_CASE("The board is told of each new base") {
  quick_directory place;
  base_noting_board board;
  faulty_io disk;
  auto handle = need(store::open(disk, board, options_for(place.path())));
  put(*handle, many("a", 3));
  need(handle->checkpoint(compaction::none));
  const auto first = handle->stats().base_epoch;
  CHECK(board.epoch == first);
  need(handle->drop());
  CHECK(board.epoch == handle->stats().base_epoch);
  CHECK(handle->stats().base_epoch > first);
}

TEST_CASE("The name of a file of ours has one form") {
  CHECK(epoch_in("base-7.index", "base-", ".index") == 7);
  CHECK(epoch_in("log-0", "log-", "") == 0);
  CHECK(epoch_in("log-18446744073709551615", "log-", "") == ~std::uint64_t{0});
  for (const std::string_view name :
       {"base-07.index", "base-+7.index", "base--7.index", "base- 7.index",
        "base-.index", "base-7.index ", "base-7.indexes", "base-7x.index",
        "xbase-7.index", "base-7.meta", "base-7", "base-.index7",
        "base-18446744073709551616.index", ""}) {
    CAPTURE(name);
    CHECK_FALSE(epoch_in(name, "base-", ".index").has_value());
  }
  CHECK_FALSE(epoch_in("ab", "ab", "b").has_value());
}

TEST_CASE("What others put into the private directory stays there") {
  one_store s;
  const std::set<std::string> theirs = {"base-1.index.bak",
                                        "base-01.index",
                                        "base-1",
                                        "base-1.index.tmp",
                                        "base-x.meta",
                                        "base-1.catalog.tmp.x",
                                        "log-1.txt",
                                        "log-01",
                                        "log-1.salvaged-x",
                                        "log-x.salvaged-1",
                                        "log-",
                                        "foreign-notes",
                                        "foreign-1.txt",
                                        "foreign-1.index~",
                                        "MANIFEST.tmp.old",
                                        "notes.tmp",
                                        "unembedded.bak",
                                        "base-1.catalog.tmp.",
                                        "base-01.catalog.tmp.1"};
  const std::set<std::string> debris = {
      "base-999.index", "base-999.meta",  "base-999.catalog",     "log-999",
      "MANIFEST.tmp",   "unembedded.tmp", "base-1.catalog.tmp.77"};
  const std::set<std::string> kept = {"foreign-1.index", "foreign-1.meta",
                                      "log-1.salvaged-64", "unembedded"};
  for (const auto* names : {&theirs, &debris, &kept})
    for (const auto& name : *names)
      write_file(private_path(s.place.path(), name), "");
  const auto there = [&](const std::set<std::string>& names) {
    const auto all = private_files(s.place.path());
    return std::count_if(names.begin(), names.end(),
                         [&](const auto& name) { return all.contains(name); });
  };
  put(*s.handle, {{"a", 1}});
  CHECK(there({"unembedded"}) == 0); // nothing is waiting in it
  write_file(private_path(s.place.path(), "unembedded"), "");
  need(s.handle->checkpoint(compaction::none));
  CHECK(there(theirs) == std::ssize(theirs));
  CHECK(there(debris) == 0);
  CHECK(there(kept) == std::ssize(kept));
  need(s.handle->drop());
  CHECK(there(theirs) == std::ssize(theirs));
  CHECK(there(kept) == 0);
}

TEST_CASE("A MANIFEST of another version is refused, and nothing is touched") {
  one_store s;
  put(*s.handle, {{"a", 1}});
  s.handle.reset();
  const auto path = private_path(s.place.path(), "MANIFEST");
  auto text = read_file(path);
  const bool is_old = GENERATE(true, false);
  text[8] = is_old ? 1 : 4;
  if (is_old)
    text.resize(160); // the least that version 1 had
  const auto body = std::string_view(text).substr(0, text.size() - 8);
  const auto sum = checksum(as_bytes(body));
  std::memcpy(text.data() + body.size(), &sum, sizeof(sum));
  write_file(path, text);
  const auto before = all_files(s.place.path());
  const auto reason = failure_of(s.here.try_open(s.options()));
  CHECK(reason.code == errc::unsupported_format);
  CHECK(contains(reason.message, path.string()));
  CHECK(contains(reason.message, is_old ? "version 1" : "version 4"));
  CHECK(all_files(s.place.path()) == before);
}

TEST_CASE("Verifying goes on with what another process's checkpoint leaves") {
  one_store s;
  process elsewhere;
  auto other = elsewhere.open(s.options());
  put(*other, many("a", 3));
  need(s.handle->refresh());
  const std::string reached = GENERATE("log-1", "faiss_index_chunks.index");
  bool is_done = false;
  s.here.disk.set_hook([&](const operation& each) {
    const bool is_read = each.kind == operation_kind::open_file
                         || each.kind == operation_kind::status;
    if (is_read && !is_done && each.path.ends_with("/" + reached)) {
      is_done = true;
      need(other->checkpoint(compaction::none));
      put(*other, {{"b", 1}});
    }
    return fault::none();
  });
  need(s.handle->verify());
  CHECK(is_done);
  s.here.disk.set_hook({});
  CHECK(contents(*need(s.handle->refresh())).size() == 4);
}

TEST_CASE(
    "Who opens while a writer is at work misses its last commit at most") {
  one_store s;
  put(*s.handle, {{"a", 1}});
  put(*s.handle, {{"b", 1}});
  put(*s.handle, {{"c", 1}});
  auto home = need(
      posix_io().open_directory(private_path(s.place.path()).string(), false));
  auto writing = need(held_lock::acquire(posix_io(), *home, store_lock::writer,
                                         lock_mode::exclusive,
                                         std::chrono::milliseconds(0)));
  process elsewhere; // with a board that tells nothing
  CHECK(contents(*elsewhere.open(s.options())) == versions{{"a", 1}, {"b", 1}});
}

TEST_CASE("A log is due for folding when it has outgrown the base") {
  one_store s;
  CHECK_FALSE(s.handle->checkpoint_due());
  auto large = upsert("large", 1);
  large.record.pop_back();
  large.record += ", \"more\": \"" + std::string(9u << 20, 'x') + "\"}";
  need(s.handle->commit(std::span(&large, 1)));
  CHECK_FALSE(s.handle->checkpoint_due());
  need(s.handle->commit(std::span(&large, 1)));
  CHECK(s.handle->checkpoint_due());
  need(s.handle->checkpoint(compaction::automatic));
  CHECK_FALSE(s.handle->checkpoint_due());
}

TEST_CASE("Views stay as they were whatever becomes of the store") {
  one_store s;
  std::vector<std::pair<snapshot_ptr, versions>> views;
  auto keep = [&] {
    views.emplace_back(s.handle->view(), contents(*s.handle));
  };
  put(*s.handle, many("a", 30));
  keep();
  put(*s.handle, {{"a1", 2}, {"b", 1}});
  keep();
  take_out(*s.handle, {"a2", "b"});
  keep();
  need(s.handle->checkpoint(compaction::none));
  keep();
  take_out(*s.handle, {"a3", "a4"});
  keep();
  put(*s.handle, {{"a3", 5}});
  need(s.handle->checkpoint(compaction::forced));
  keep();
  put(*s.handle, many("c", 100));
  keep();
  need(s.handle->drop());
  keep();
  put(*s.handle, many("a", 30, 9));
  need(s.handle->checkpoint(compaction::forced));
  s.handle.reset();
  for (const auto& [view, expected] : views)
    CHECK(contents(*view) == expected);
}

// -- Readers of the published pair --------------------------------------------

namespace {

/// Keeps every state that the published files go through.
class publication_watch {
public:
  publication_watch(process& watched, fs::path place)
      : watched_(watched), place_(std::move(place)) {
    look();
    watched_.disk.set_hook([this](const operation&) {
      look();
      return fault::none();
    });
  }
  ~publication_watch() { watched_.disk.set_hook({}); }

  /// Checks that a reader would have seen `before` or `after` at each moment.
  void check_moments(const versions& before, const versions& after) {
    look();
    for (const auto& [index, meta] : states_) {
      const auto seen = read_published(index, meta, strictness::between_steps);
      CHECK((seen.rows == before || seen.rows == after));
    }
    CHECK(read_published(place_).rows == after);
  }

  /// The same, and that one who was slow, so that its files are of different
  /// moments, saw no wrong row.
  void check(const versions& before, const versions& after) {
    check_moments(before, after);
    for (std::size_t i = 0; i < states_.size(); ++i)
      for (std::size_t j = i; j < states_.size(); ++j)
        check_slow_reader(states_[i].first, states_[j].second, before, after);
  }

private:
  static void check_slow_reader(const std::string& index,
                                const std::string& meta, const versions& before,
                                const versions& after) {
    const auto seen = read_published(index, meta, strictness::between_steps);
    for (const auto& row : seen.rows) {
      const bool is_known =
          before.contains(row.first) && before.at(row.first) == row.second;
      const bool is_new =
          after.contains(row.first) && after.at(row.first) == row.second;
      CHECK((is_known || is_new));
    }
  }

  void look() {
    if (!fs::exists(index_path(place_)) || !fs::exists(meta_path(place_)))
      return;
    std::pair state = {read_file(index_path(place_)),
                       read_file(meta_path(place_))};
    if (states_.empty() || states_.back() != state)
      states_.push_back(std::move(state));
  }

  process& watched_;
  fs::path place_;
  std::vector<std::pair<std::string, std::string>> states_;
};

/// Does all steps of a checkpoint; each is watched.
void watched_checkpoint(process& owner, const fs::path& place, store& handle,
                        compaction how, const versions& before,
                        const versions& after) {
  for (int step = 0; step < 4; ++step) {
    publication_watch watch(owner, place);
    auto job = need(handle.begin_checkpoint(how, patience::lock_timeout));
    need(job->write());
    need(handle.finish_checkpoint(std::move(job)));
    watch.check(step == 0 ? before : after, after);
  }
}

} // namespace

TEST_CASE("A reader of the published pair always sees one checkpoint") {
  one_store s;
  put(*s.handle, many("a", 12));
  watched_checkpoint(s.here, s.place.path(), *s.handle, compaction::none, {},
                     many("a", 12));
  take_out(*s.handle, {"a1", "a11"});
  put(*s.handle, {{"a2", 2}, {"b", 1}});
  const auto second = contents(*s.handle);
  watched_checkpoint(s.here, s.place.path(), *s.handle, compaction::none,
                     many("a", 12), second);
  put(*s.handle, {{"a3", 2}, {"c", 1}});
  take_out(*s.handle, {"a4"});
  const auto third = contents(*s.handle);
  SECTION("while rows are folded, copied and moved") {
    watched_checkpoint(s.here, s.place.path(), *s.handle, compaction::forced,
                       second, third);
    CHECK(read_published(s.place.path()).total == third.size());
  }
  SECTION("while rows are moved after others were removed") {
    auto options = s.options();
    options.reader_grace = std::chrono::seconds(60);
    s.here.disk.set_wall_clock(1'000);
    auto handle = s.here.open(options);
    need(handle->checkpoint(compaction::forced));
    take_out(*handle, {"a5", "c"});
    s.here.disk.set_wall_clock(1'060);
    watched_checkpoint(s.here, s.place.path(), *handle, compaction::forced,
                       third, without(third, {"a5", "c"}));
  }
  SECTION("while rows are moved after others were added") {
    auto options = s.options();
    options.reader_grace = std::chrono::seconds(60);
    s.here.disk.set_wall_clock(1'000);
    auto handle = s.here.open(options);
    need(handle->checkpoint(compaction::forced));
    put(*handle, {{"a5", 2}, {"d", 1}});
    s.here.disk.set_wall_clock(1'060);
    watched_checkpoint(s.here, s.place.path(), *handle, compaction::forced,
                       third, changed(third, {{"a5", 2}, {"d", 1}}));
  }
  SECTION("while the store is dropped") {
    need(s.handle->checkpoint(compaction::none));
    publication_watch watch(s.here, s.place.path());
    need(s.handle->drop());
    watch.check(third, {});
  }
}

TEST_CASE("A copy that does not match its row is never moved to") {
  one_store s;
  auto options = s.options();
  options.reader_grace = std::chrono::seconds(60);
  s.here.disk.set_wall_clock(1'000'000);
  auto handle = s.here.open(options);
  put(*handle, many("a", 8));
  need(handle->checkpoint(compaction::none));
  take_out(*handle, {"a0"});
  need(handle->checkpoint(compaction::none));
  need(handle->checkpoint(compaction::forced));
  const auto epoch = handle->stats().base_epoch;
  // Row 0 is the hole that holds the copy.
  const auto path =
      private_path(s.place.path(), "base-" + std::to_string(epoch) + ".index");
  auto bytes = read_file(path);
  bytes[45 + 2] = static_cast<char>(bytes[45 + 2] ^ 1);
  {
    std::fstream out(path, std::ios::in | std::ios::out | std::ios::binary);
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }
  CHECK(failure_of(handle->verify()).code == errc::corrupt);
  s.here.disk.set_wall_clock(1'000'100);
  const auto expected = without(many("a", 8), {"a0"});
  watched_checkpoint(s.here, s.place.path(), *handle, compaction::automatic,
                     expected, expected);
  CHECK(contents(*handle) == expected);
}

TEST_CASE("Random histories keep readers and handles right") {
  const auto seed = static_cast<unsigned>(std::random_device()());
  INFO("seed " << seed);
  std::mt19937 random(seed);
  auto below = [&](int n) { return static_cast<int>(random() % unsigned(n)); };
  one_store s;
  process elsewhere;
  elsewhere.disk.stop_steady_clock();
  auto options = s.options();
  options.reader_grace = std::chrono::seconds(below(2) * 60);
  s.handle = s.here.open(options);
  auto other = elsewhere.open(options);
  std::int64_t clock = 1'000'000;
  versions expected;
  versions published;
  for (int step = 0; step < 150; ++step) {
    auto& handle = below(3) == 0 ? *other : *s.handle;
    auto& owner = &handle == other.get() ? elsewhere : s.here;
    const auto what = below(10);
    if (what < 5) {
      const versions change = {{"row" + std::to_string(below(30)), step},
                               {"row" + std::to_string(below(30)), step}};
      put(handle, change);
      expected = changed(expected, change);
    } else if (what < 7) {
      const std::vector<std::string> ids = {"row" + std::to_string(below(30)),
                                            "row" + std::to_string(below(30))};
      take_out(handle, ids);
      expected = without(expected, ids);
    } else if (step % 50 == 49) {
      need(handle.drop());
      expected.clear();
      published.clear();
    } else {
      clock += below(3) * 30;
      owner.disk.set_wall_clock(clock);
      watched_checkpoint(owner, s.place.path(), handle,
                         std::vector{compaction::none, compaction::automatic,
                                     compaction::forced}[unsigned(below(3))],
                         published, expected);
      published = expected;
    }
    REQUIRE(contents(*need(s.handle->refresh())) == expected);
    REQUIRE(contents(*need(other->refresh())) == expected);
  }
  need(s.handle->verify());
  CHECK(reopened(s.place.path()) == expected);
}

// -- Slow readers of the published pair ---------------------------------------

namespace {

constexpr std::int64_t reader_grace = 60;

/// A store that takes readers to need up to a minute between their two reads,
/// at a time of the test's choice, and all that was ever published of it.
struct watched_store {
  watched_store() {
    set_clock(1'000'000);
    handle = here.open(options());
    watch(here);
  }

  store_options options() const {
    auto out = options_for(place.path());
    out.reader_grace = std::chrono::seconds(reader_grace);
    return out;
  }

  void set_clock(std::int64_t seconds) {
    look();
    clock = seconds;
    here.disk.set_wall_clock(seconds);
    look();
  }

  /// From now on nothing that `owner` publishes is missed. Its renames fail
  /// after `renames` more.
  void watch(process& owner, int renames = 1'000'000) {
    owner.disk.set_hook([this, renames](const operation& each) mutable {
      look();
      if (each.kind == operation_kind::rename && --renames < 0)
        return fault::fail(errc::no_space);
      return fault::none();
    });
  }

  void look() {
    if (!fs::exists(index_path(place.path()))
        || !fs::exists(meta_path(place.path())))
      return;
    auto index = read_file(index_path(place.path()));
    auto meta = read_file(meta_path(place.path()));
    if (states.empty() || states.back().index != index
        || states.back().meta != meta)
      states.push_back({std::move(index), std::move(meta), clock, clock});
    states.back().last = clock;
  }

  /// That nobody who loaded the index at any moment and the meta file less
  /// than the grace period later saw a text with another row's vector.
  void check_slow_readers() {
    look();
    for (std::size_t i = 0; i < states.size(); ++i)
      for (std::size_t j = i; j < states.size(); ++j)
        if (i == j || states[j].first - states[i].last < reader_grace)
          read_published(states[i].index, states[j].meta,
                         strictness::between_steps);
  }

  published_rows published() const { return read_published(place.path()); }

  struct state {
    std::string index;
    std::string meta;
    std::int64_t first;
    std::int64_t last;
  };

  quick_directory place;
  process here;
  std::int64_t clock = 0;
  std::vector<state> states;
  std::unique_ptr<store> handle;
};

/// Ten rows; then the first three are gone, and copies fill their places.
void publish_copies(watched_store& s) {
  put(*s.handle, many("a", 10));
  need(s.handle->checkpoint(compaction::none));
  take_out(*s.handle, {"a0", "a1", "a2"});
  need(s.handle->checkpoint(compaction::none));
  need(s.handle->checkpoint(compaction::forced));
}

} // namespace

TEST_CASE("No reader within the grace period sees another row's vector") {
  const auto seed = static_cast<unsigned>(std::random_device()());
  INFO("seed " << seed);
  std::mt19937 random(seed);
  auto below = [&](int n) { return static_cast<int>(random() % unsigned(n)); };
  watched_store s;
  process elsewhere;
  versions expected;
  const auto some_rows = [&] {
    return std::vector<std::string>{"row" + std::to_string(below(16)),
                                    "row" + std::to_string(below(16))};
  };
  for (int step = 0; step < 250; ++step) {
    s.set_clock(s.clock + below(3) * below(45));
    elsewhere.disk.set_wall_clock(s.clock);
    if (below(20) == 0)
      s.handle = (below(2) == 0 ? s.here : elsewhere).open(s.options());
    const auto what = below(20);
    if (what < 5) {
      for (const auto& id : some_rows())
        expected[id] = step;
      put(*s.handle, expected);
    } else if (what < 8) {
      const auto ids = some_rows();
      take_out(*s.handle, ids);
      expected = without(expected, ids);
    } else {
      // One of four dies on the way.
      const auto renames = below(4) == 0 ? below(4) : 1'000'000;
      s.watch(s.here, renames);
      s.watch(elsewhere, renames);
      const auto done = what == 8 ? s.handle->drop()
                                  : s.handle->checkpoint(compaction::forced);
      s.watch(s.here);
      s.watch(elsewhere);
      const auto found = contents(*need(s.handle->refresh()));
      if (what == 8 && (done || found.empty()))
        expected.clear();
    }
    REQUIRE(contents(*need(s.handle->refresh())) == expected);
  }
  s.check_slow_readers();
  need(s.handle->checkpoint(compaction::none));
  CHECK(s.published().rows == expected);
  need(s.handle->verify());
  CHECK(reopened(s.place.path()) == expected);
}

TEST_CASE("Numbers that a relocation frees rest for the grace period") {
  watched_store s;
  publish_copies(s);
  s.set_clock(s.clock + reader_grace);
  need(s.handle->checkpoint(compaction::automatic)); // moves
  REQUIRE(s.published().total == 7);
  SECTION("and are passed over until then") {
    s.set_clock(s.clock + reader_grace - 1);
    put(*s.handle, {{"new", 1}});
    need(s.handle->checkpoint(compaction::none));
    CHECK(s.published().numbers.at("new") == 10);
    CHECK(s.published().total == 11);
    CHECK(s.handle->stats().hole_rows == 3);
    CHECK(contents(*s.handle)
          == changed(without(many("a", 10), {"a0", "a1", "a2"}), {{"new", 1}}));
    need(s.handle->verify());
    // The holes are filled as all others are.
    for (int step = 0; step < 3; ++step) {
      need(s.handle->checkpoint(compaction::forced));
      s.set_clock(s.clock + reader_grace);
    }
    CHECK(s.published().total == 8);
    CHECK(s.handle->stats().hole_rows == 0);
  }
  SECTION("and are used again after it") {
    s.set_clock(s.clock + reader_grace);
    put(*s.handle, {{"new", 1}});
    need(s.handle->checkpoint(compaction::none));
    CHECK(s.published().numbers.at("new") == 7);
    CHECK(s.published().total == 8);
  }
  SECTION("and longer if there is another one") {
    put(*s.handle, {{"b", 1}, {"c", 1}});
    need(s.handle->checkpoint(compaction::none));
    need(s.handle->checkpoint(compaction::forced)); // copies
    s.set_clock(s.clock + reader_grace);
    need(s.handle->checkpoint(compaction::automatic)); // moves
    REQUIRE(s.published().total == 9);
    put(*s.handle, {{"new", 1}});
    need(s.handle->checkpoint(compaction::none));
    CHECK(s.published().numbers.at("new") == 12);
  }
  s.check_slow_readers();
}

TEST_CASE("Planned moves do not wait for a clock that went backwards") {
  watched_store s;
  publish_copies(s);
  s.set_clock(s.clock - 500'000);
  put(*s.handle, {{"b", 1}});
  need(s.handle->checkpoint(compaction::automatic));
  s.set_clock(s.clock + reader_grace - 1);
  need(s.handle->checkpoint(compaction::automatic));
  CHECK(s.published().numbers.at("a9") == 9);
  s.set_clock(s.clock + 1);
  need(s.handle->checkpoint(compaction::automatic));
  CHECK(s.published().numbers.at("a9") == 0);
}

TEST_CASE("Numbers of before a drop rest for the grace period") {
  watched_store s;
  put(*s.handle, many("a", 10));
  need(s.handle->checkpoint(compaction::none));
  need(s.handle->drop());
  CHECK(s.published().total == 0);
  SECTION("and are passed over until then") {
    s.set_clock(s.clock + reader_grace - 1);
    put(*s.handle, {{"new", 1}});
    need(s.handle->checkpoint(compaction::none));
    CHECK(s.published().numbers.at("new") == 10);
    need(s.handle->drop());
    put(*s.handle, {{"newer", 1}});
    need(s.handle->checkpoint(compaction::none));
    CHECK(s.published().numbers.at("newer") == 11);
    s.check_slow_readers();
  }
  SECTION("and are used again after it") {
    s.set_clock(s.clock + reader_grace);
    put(*s.handle, {{"new", 1}});
    need(s.handle->checkpoint(compaction::none));
    CHECK(s.published().numbers.at("new") == 0);
    s.check_slow_readers();
  }
  SECTION("and for one more where the clock went backwards") {
    s.set_clock(s.clock - 500'000);
    put(*s.handle, {{"short-lived", 1}});
    take_out(*s.handle, {"short-lived"});
    need(s.handle->checkpoint(compaction::none));
    SECTION("but not yet over") {
      s.set_clock(s.clock + reader_grace - 1);
      put(*s.handle, {{"new", 1}});
      need(s.handle->checkpoint(compaction::none));
      CHECK(s.published().numbers.at("new") == 10);
    }
    SECTION("and over") {
      s.set_clock(s.clock + reader_grace);
      put(*s.handle, {{"new", 1}});
      need(s.handle->checkpoint(compaction::none));
      CHECK(s.published().numbers.at("new") == 0);
    }
  }
  SECTION("also when a foreign pair was dropped") {
    write_foreign_pair(s.place.path(), many("theirs", 15));
    need(s.handle->drop());
    put(*s.handle, {{"new", 1}});
    need(s.handle->checkpoint(compaction::none));
    CHECK(s.published().numbers.at("new") == 15);
  }
}

TEST_CASE("The grace period begins when a base is published, however late") {
  watched_store s;
  put(*s.handle, many("a", 10));
  need(s.handle->checkpoint(compaction::none));
  take_out(*s.handle, {"a0", "a1", "a2"});
  need(s.handle->checkpoint(compaction::none));
  // Renames: MANIFEST twice, then the published files.
  s.watch(s.here, 2);
  CHECK(failure_of(s.handle->checkpoint(compaction::forced)).code
        == errc::no_space);
  s.watch(s.here);
  s.set_clock(s.clock + 2 * reader_grace);
  need(s.handle->checkpoint(compaction::forced)); // publishes the copies
  CHECK(s.published().total == 10);

  s.set_clock(s.clock + reader_grace);
  s.watch(s.here, 2);
  CHECK(failure_of(s.handle->checkpoint(compaction::forced)).code
        == errc::no_space);
  s.watch(s.here);
  CHECK(s.published().total == 10);
  s.set_clock(s.clock + 2 * reader_grace);
  put(*s.handle, {{"new", 1}});
  SECTION("by the same handle") {
    need(s.handle->checkpoint(compaction::none)); // publishes the moves first
    CHECK(s.published().numbers.at("new") == 10);
  }
  SECTION("by another process") {
    s.handle = s.here.open(s.options());
    CHECK(s.published().total == 7);
    need(s.handle->checkpoint(compaction::none));
    CHECK(s.published().numbers.at("new") == 10);
  }
  SECTION("because of a failed sync") {
    s.here.disk.fail_from(operation_kind::sync_data, errc::io_failure);
    CHECK(failure_of(try_put(*s.handle, {{"lost", 1}})).code == errc::broken);
    s.watch(s.here);
    s.handle = s.here.open(s.options());
    CHECK(s.published().numbers.at("new") == 10);
  }
  SECTION("because of a drop") {
    need(s.handle->drop());
    put(*s.handle, {{"new", 1}});
    need(s.handle->checkpoint(compaction::none));
    CHECK(s.published().numbers.at("new") == 10);
  }
  s.check_slow_readers();
}

TEST_CASE("Rows added to another writer's pair have numbers of their own") {
  watched_store s;
  put(*s.handle, many("a", 10));
  need(s.handle->checkpoint(compaction::none));
  put(*s.handle, {{"mine", 1}});
  write_foreign_pair(s.place.path(), many("theirs", 3));
  need(s.handle->checkpoint(compaction::none));
  CHECK(s.published().rows == changed(many("theirs", 3), {{"mine", 1}}));
  CHECK(s.published().numbers.at("theirs2") == 2);
  CHECK(s.published().numbers.at("mine") == 10);
  need(s.handle->verify());
}

// -- Drops --------------------------------------------------------------------

TEST_CASE("A drop removes all rows for all, and the files that held them") {
  one_store s;
  process elsewhere;
  auto other = elsewhere.open(s.options());
  put(*s.handle, many("a", 5));
  need(s.handle->checkpoint(compaction::none));
  put(*s.handle, many("b", 5));
  write_file(private_path(s.place.path(), "foreign-1.index"), "kept");
  const auto old_files = private_files(s.place.path());
  CHECK(contents(*need(other->drop())).empty());
  CHECK(read_published(s.place.path()).total == 0);
  CHECK(contents(*need(s.handle->refresh())).empty());
  for (const auto& name : private_files(s.place.path()))
    if (name != "LOCK" && name != "MANIFEST")
      CHECK_FALSE(old_files.contains(name));
  CHECK(s.handle->stats().drop_epoch == 1);
  CHECK(s.handle->stats().hole_rows == 0);
  CHECK(reopened(s.place.path()).empty());
  put(*s.handle, {{"a1", 7}});
  CHECK(reopened(s.place.path()) == versions{{"a1", 7}});
}

TEST_CASE("A drop overtakes the changes that were asked for before it") {
  one_store s;
  process elsewhere;
  auto other = elsewhere.open(s.options());
  put(*s.handle, many("a", 5));
  const auto seen = s.handle->view()->drop_epoch();
  need(other->drop());
  const std::vector<commit_operation> late = {
      upsert("old", 1, seen), upsert("new", 1, seen + 1), removal("x", seen)};
  const auto done = need(s.handle->commit(late));
  CHECK(done.discarded == 2);
  CHECK(done.committed == 1);
  CHECK(contents(*done.view) == versions{{"new", 1}});
  const auto nothing = need(s.handle->commit(std::span(late).first(1)));
  CHECK(nothing.discarded == 1);
  CHECK(nothing.generation == done.generation);
  need(s.handle->checkpoint(compaction::none));
  need(s.handle->drop());
  CHECK(need(s.handle->commit(late)).discarded == 3);
  CHECK(reopened(s.place.path()).empty());
}

TEST_CASE("A drop that was interrupted is finished by the next process") {
  one_store s;
  put(*s.handle, many("a", 5));
  need(s.handle->checkpoint(compaction::none));
  put(*s.handle, {{"b", 1}});
  const auto old_files = private_files(s.place.path());
  s.here.disk.set_hook(failing(operation_kind::create_file, ".index",
                               fault::fail(errc::no_space)));
  CHECK(failure_of(s.handle->drop()).code == errc::no_space);
  s.here.disk.set_hook({});
  s.handle.reset();
  CHECK(read_published(s.place.path()).rows == many("a", 5));
  CHECK(reopened(s.place.path()).empty());
  CHECK(read_published(s.place.path()).total == 0);
  for (const auto& name : private_files(s.place.path()))
    if (name != "LOCK" && name != "MANIFEST")
      CHECK_FALSE(old_files.contains(name));
}

// -- Failures of the disk -----------------------------------------------------

TEST_CASE("After a failed sync a handle only reads, and another goes on") {
  one_store s;
  put(*s.handle, many("a", 3));
  need(s.handle->checkpoint(compaction::none));
  put(*s.handle, {{"a1", 2}});
  s.here.disk.fail_from(operation_kind::sync_data, errc::io_failure);
  CHECK(failure_of(try_put(*s.handle, {{"lost", 1}})).code == errc::broken);
  s.here.disk.set_hook({});
  CHECK(failure_of(try_put(*s.handle, {{"x", 1}})).code == errc::broken);
  CHECK(failure_of(s.handle->checkpoint(compaction::none)).code
        == errc::broken);
  CHECK(failure_of(s.handle->drop()).code == errc::broken);
  CHECK_FALSE(s.handle->checkpoint_due());
  const auto acknowledged = changed(many("a", 3), {{"a1", 2}});
  CHECK(contents(*need(s.handle->refresh())) == acknowledged);
  auto expected = acknowledged;
  process elsewhere;
  SECTION("in another process") {
    auto other = elsewhere.open(s.options());
    CHECK(contents(*other) == acknowledged);
    put(*other, {{"theirs", 1}});
    expected["theirs"] = 1;
    CHECK(reopened(s.place.path()) == expected);
  }
  SECTION("in the same process") {}
  auto next = s.here.open(s.options());
  CHECK(contents(*next) == expected);
  put(*next, {{"b", 1}});
  expected["b"] = 1;
  CHECK(contents(*need(s.handle->refresh())) == expected);
  CHECK(reopened(s.place.path()) == expected);
  need(next->verify());
}

TEST_CASE("After a failed sync the store goes on with fresh files") {
  one_store s;
  auto other = s.here.open(s.options());
  put(*s.handle, many("a", 3));
  s.here.disk.fail_from(operation_kind::sync_data, errc::io_failure);
  CHECK(failure_of(try_put(*s.handle, {{"lost", 1}})).code == errc::broken);
  s.here.disk.set_hook({});
  const auto old_files = private_files(s.place.path());
  put(*other, {{"b", 1}});
  for (const auto& name : private_files(s.place.path()))
    if (name != "LOCK" && name != "MANIFEST")
      CHECK_FALSE(old_files.contains(name));
  CHECK(contents(*other) == changed(many("a", 3), {{"b", 1}}));
  CHECK(read_published(s.place.path()).rows == many("a", 3));
}

TEST_CASE("A failed commit does not come back, even if its frame stays") {
  one_store s;
  auto other = s.here.open(s.options());
  put(*s.handle, many("a", 3));
  // Neither can the frame be made durable nor can it be cut off again.
  s.here.disk.set_hook([](const operation& each) {
    const bool hit = each.kind == operation_kind::sync_data
                     || each.kind == operation_kind::truncate;
    return hit ? fault::fail(errc::io_failure) : fault::none();
  });
  CHECK(failure_of(try_put(*s.handle, {{"lost", 1}})).code == errc::broken);
  s.here.disk.set_hook({});
  CHECK(contents(*need(other->refresh())) == many("a", 3));
  put(*other, {{"b", 1}});
  CHECK(contents(*other) == changed(many("a", 3), {{"b", 1}}));
  CHECK(reopened(s.place.path()) == changed(many("a", 3), {{"b", 1}}));
}

TEST_CASE("A failed commit is not shown by who has its log open while another "
          "handle writes fresh files") {
  one_store s;
  process elsewhere;
  auto reader = need(store::open(elsewhere.disk, s.here.board, s.options()));
  put(*s.handle, many("a", 3));
  need(reader->refresh());
  need(s.handle->checkpoint(compaction::none));
  s.here.disk.set_hook([](const operation& each) {
    const bool hit = each.kind == operation_kind::sync_data
                     || each.kind == operation_kind::truncate;
    return hit ? fault::fail(errc::io_failure) : fault::none();
  });
  CHECK(failure_of(try_put(*s.handle, {{"lost", 1}})).code == errc::broken);
  s.here.disk.set_hook({});
  bool has_healed = false;
  elsewhere.disk.set_hook([&](const operation& each) {
    if (each.kind == operation_kind::read_at && each.path.ends_with("log-2")
        && !std::exchange(has_healed, true))
      put(*s.here.open(s.options()), {{"b", 1}});
    return fault::none();
  });
  const auto seen = contents(*need(reader->refresh()));
  REQUIRE(has_healed);
  CHECK_FALSE(seen.contains("lost"));
}

TEST_CASE("A sync that fails while opening loses no commit") {
  one_store s;
  put(*s.handle, many("a", 3));
  put(*s.handle, {{"a1", 2}});
  s.handle.reset();
  process later;
  later.disk.fail_from(operation_kind::sync_data, errc::io_failure);
  CHECK(failure_of(later.try_open(s.options())).code == errc::broken);
  later.disk.set_hook({});
  const auto expected = changed(many("a", 3), {{"a1", 2}});
  auto handle = later.open(s.options());
  CHECK(contents(*handle) == expected);
  put(*handle, {{"b", 1}});
  CHECK(reopened(s.place.path()) == changed(expected, {{"b", 1}}));
}

TEST_CASE("A sync that fails while reading loses no commit") {
  one_store s;
  process elsewhere;
  auto reader = elsewhere.open(s.options());
  put(*s.handle, many("a", 3));
  put(*s.handle, {{"a1", 2}});
  elsewhere.disk.fail_from(operation_kind::sync_data, errc::io_failure);
  CHECK(failure_of(reader->refresh()).code == errc::broken);
  elsewhere.disk.set_hook({});
  CHECK(contents(*reader).empty());
  const auto expected = changed(many("a", 3), {{"a1", 2}});
  auto again = elsewhere.open(s.options());
  CHECK(contents(*again) == expected);
  put(*again, {{"b", 1}});
  CHECK(reopened(s.place.path()) == changed(expected, {{"b", 1}}));
  CHECK(contents(*need(reader->refresh())) == changed(expected, {{"b", 1}}));
}

TEST_CASE("A full disk fails the commit, and later ones work") {
  one_store s;
  put(*s.handle, many("a", 3));
  const auto bytes = GENERATE(0U, 1U, 63U, 64U, 65U, 200U);
  s.here.disk.set_hook(
      failing(operation_kind::append, "log-1", fault::cut_short(bytes)));
  CHECK(failure_of(try_put(*s.handle, {{"b", 1}})).code == errc::no_space);
  CHECK(contents(*s.handle) == many("a", 3));
  s.here.disk.set_hook({});
  CHECK(reopened(s.place.path()) == many("a", 3));
  put(*s.handle, {{"c", 1}});
  const auto expected = changed(many("a", 3), {{"c", 1}});
  CHECK(contents(*s.handle) == expected);
  CHECK(reopened(s.place.path()) == expected);
}

TEST_CASE("A full disk fails the checkpoint, and later ones work") {
  one_store s;
  put(*s.handle, many("a", 3));
  const auto suffix = GENERATE(
      values<std::string>({"base-2.index", "base-2.meta", "base-2.catalog",
                           "MANIFEST.tmp", "log-2"}));
  CAPTURE(suffix);
  s.here.disk.set_hook([=](const operation& each) {
    const bool writes = each.kind == operation_kind::append
                        || each.kind == operation_kind::write_at;
    return writes && each.path.ends_with(suffix) ? fault::cut_short(10)
                                                 : fault::none();
  });
  CHECK(failure_of(s.handle->checkpoint(compaction::none)).code
        == errc::no_space);
  CHECK(s.here.disk.fault_count() > 0);
  CHECK(contents(*s.handle) == many("a", 3));
  CHECK(read_published(s.place.path()).rows.empty());
  s.here.disk.set_hook({});
  put(*s.handle, {{"b", 1}});
  const auto expected = changed(many("a", 3), {{"b", 1}});
  CHECK(reopened(s.place.path()) == expected);
  need(s.handle->checkpoint(compaction::none));
  CHECK(read_published(s.place.path()).rows == expected);
}

TEST_CASE("A checkpoint that cannot be published is durable all the same") {
  one_store s;
  put(*s.handle, many("a", 5));
  need(s.handle->checkpoint(compaction::none));
  take_out(*s.handle, {"a0"});
  put(*s.handle, {{"a1", 2}});
  const auto expected = contents(*s.handle);
  s.here.disk.set_hook([](const operation& each) {
    const bool hit = each.kind == operation_kind::rename
                     && contains(each.target, "faiss_index_chunks.index");
    return hit ? fault::fail(errc::no_space) : fault::none();
  });
  SECTION("after a checkpoint") {
    CHECK(failure_of(s.handle->checkpoint(compaction::none)).code
          == errc::no_space);
  }
  SECTION("after a drop") {
    CHECK(failure_of(s.handle->drop()).code == errc::no_space);
    s.here.disk.set_hook({});
    CHECK(contents(*s.handle).empty());
    put(*s.handle, {{"x", 1}});
    CHECK(reopened(s.place.path()) == versions{{"x", 1}});
    return;
  }
  CHECK_FALSE(s.handle->published());
  CHECK(read_published(s.place.path()).rows == many("a", 5));
  CHECK(contents(*s.handle) == expected);
  s.here.disk.set_hook({});
  put(*s.handle, {{"b", 1}});
  const auto now = changed(expected, {{"b", 1}});
  CHECK(contents(*s.handle) == now);
  publication_watch watch(s.here, s.place.path());
  need(s.handle->checkpoint(compaction::none));
  CHECK(read_published(s.place.path()).rows == now);
  CHECK(reopened(s.place.path()) == now);
}

TEST_CASE("What dead processes did not make durable is made so before use") {
  one_store s;
  put(*s.handle, {{"a", 1}});
  s.handle.reset();
  process later;
  auto handle = later.open(s.options());
  put(*handle, {{"b", 1}});
  // The log, the directory of MANIFEST and the one that holds the store.
  bool log = false;
  bool home = false;
  bool outside = false;
  for (const auto& each : later.disk.operations()) {
    log |= each.kind == operation_kind::sync_data
           && each.path == private_path(s.place.path(), "log-1").string();
    const bool directory = each.kind == operation_kind::sync_directory;
    home |= directory && each.path.ends_with(".callboard");
    outside |= directory && each.path == s.place.path().string();
    if (each.kind == operation_kind::append)
      break;
  }
  CHECK(log);
  CHECK(home);
  CHECK(outside);
}

// -- Pairs by other writers ---------------------------------------------------

TEST_CASE("A pair that LightRAG wrote becomes the store") {
  quick_directory place;
  write_foreign_pair(place.path(), many("a", 6));
  process here;
  auto handle = here.open(options_for(place.path()));
  CHECK(handle->report().imported);
  CHECK_FALSE(handle->report().created);
  CHECK(handle->report().import.lossless());
  CHECK(handle->take_records_to_embed().empty());
  CHECK(contents(*handle) == many("a", 6));
  put(*handle, {{"a1", 2}});
  CHECK(reopened(place.path()) == changed(many("a", 6), {{"a1", 2}}));
}

TEST_CASE("A store of Python LightRAG is taken over row by row") {
  const fs::path golden = CALLBOARD_GOLDEN_DIR "/stores/small/demo";
  quick_directory place;
  fs::copy(golden, place / "demo");
  process here;
  auto options = options_for(place.path());
  options.workspace = "demo";
  options.dimension = 32;
  auto handle = here.open(options);
  CHECK(handle->report().imported);
  const auto& view = *handle->view();
  const auto published = place / "demo";
  const auto golden_index = read_file(index_path(golden));
  const auto golden_meta = read_file(meta_path(golden));
  const auto records = nlohmann::ordered_json::parse(golden_meta);
  REQUIRE(view.live_count() == records.size());
  for (const auto& [key, record] : records.items()) {
    const auto row = view.find(record.at("__id__").get<std::string>());
    REQUIRE(row.has_value());
    CHECK(std::to_string(*row) == key);
    CHECK(nlohmann::ordered_json::parse(need(view.record(*row))) == record);
    const auto vector = need(view.vector(*row));
    REQUIRE(vector.size() == 128);
    CHECK(golden_index.compare(45 + *row * 128, 128,
                               reinterpret_cast<const char*>(vector.data()),
                               128)
          == 0);
  }
  CHECK(read_file(index_path(published)) == golden_index);
  CHECK(read_file(meta_path(published)) == golden_meta);
  need(handle->verify());
}

TEST_CASE("A pair by another writer is taken over while the store is closed") {
  one_store s;
  put(*s.handle, many("a", 6));
  need(s.handle->checkpoint(compaction::none));
  versions ours;
  SECTION("with nothing of ours since") {}
  SECTION("with our changes on top") {
    put(*s.handle, {{"a1", 5}, {"mine", 1}});
    take_out(*s.handle, {"a2"});
    put(*s.handle, {{"mine", 2}, {"gone", 1}});
    take_out(*s.handle, {"gone"});
    ours = {{"a1", 5}, {"mine", 2}};
  }
  s.handle.reset();
  const auto theirs = changed(many("a", 6, 3), {{"theirs", 1}});
  write_foreign_pair(s.place.path(), theirs);
  process later;
  auto handle = later.open(s.options());
  auto expected = changed(theirs, ours);
  if (!ours.empty())
    expected = without(expected, {"a2"});
  CHECK(handle->report().imported);
  CHECK(contents(*handle) == expected);
  CHECK(read_published(s.place.path()).rows == theirs);
  CHECK(reopened(s.place.path()) == expected);
  put(*handle, {{"more", 1}});
  need(handle->checkpoint(compaction::none));
  CHECK(read_published(s.place.path()).rows
        == changed(expected, {{"more", 1}}));
}

TEST_CASE("A pair by another writer is taken over by a running store") {
  one_store s;
  process elsewhere;
  auto other = elsewhere.open(s.options());
  put(*s.handle, many("a", 6));
  need(s.handle->checkpoint(compaction::none));
  put(*s.handle, {{"mine", 1}});
  write_foreign_pair(s.place.path(), many("theirs", 3));
  CHECK(failure_of(s.handle->verify()).code == errc::conflict);
  need(s.handle->checkpoint(compaction::none));
  const auto expected = changed(many("theirs", 3), {{"mine", 1}});
  CHECK(contents(*s.handle) == expected);
  CHECK(read_published(s.place.path()).rows == expected);
  CHECK(contents(*need(other->refresh())) == expected);
  need(s.handle->verify());
}

TEST_CASE("A foreign pair that is taken over is never shown without what was "
          "committed here") {
  one_store s;
  put(*s.handle, many("a", 6));
  need(s.handle->checkpoint(compaction::none));
  process elsewhere;
  auto reader = elsewhere.open(s.options());
  put(*s.handle, {{"mine", 1}});
  CHECK(contents(*need(reader->refresh())).contains("mine"));
  write_foreign_pair(s.place.path(), many("theirs", 3));
  std::size_t looks = 0;
  s.here.disk.set_hook([&](const operation&) {
    ++looks;
    const auto shown = contents(*need(reader->refresh()));
    CHECK(shown.contains("mine"));
    return fault::none();
  });
  need(s.handle->checkpoint(compaction::none));
  s.here.disk.set_hook({});
  CHECK(looks > 20);
  CHECK(contents(*need(reader->refresh()))
        == changed(many("theirs", 3), {{"mine", 1}}));
}

TEST_CASE("A pair that another program writes during a checkpoint is taken "
          "over, under what was committed here") {
  one_store s;
  put(*s.handle, many("a", 6));
  need(s.handle->checkpoint(compaction::none));
  put(*s.handle, {{"mine", 1}});
  auto job = need(
      s.handle->begin_checkpoint(compaction::none, patience::lock_timeout));
  need(job->write());
  write_foreign_pair(s.place.path(), many("theirs", 3));
  CHECK(failure_of(s.handle->finish_checkpoint(std::move(job))).code
        == errc::busy);
  CHECK(contents(*s.handle) == changed(many("a", 6), {{"mine", 1}}));
  need(s.handle->checkpoint(compaction::none));
  const auto all = changed(many("theirs", 3), {{"mine", 1}});
  CHECK(contents(*s.handle) == all);
  CHECK(reopened(s.place.path()) == all);
}

TEST_CASE("One foreign file of the pair is set aside, and ours is published") {
  one_store s;
  put(*s.handle, many("a", 6));
  need(s.handle->checkpoint(compaction::none));
  put(*s.handle, {{"mine", 1}});
  s.handle.reset();
  quick_directory theirs;
  write_foreign_pair(theirs.path(), many("theirs", 3));
  const bool index = GENERATE(true, false);
  const auto path =
      index ? index_path(s.place.path()) : meta_path(s.place.path());
  const auto source =
      index ? index_path(theirs.path()) : meta_path(theirs.path());
  fs::remove(path);
  fs::copy_file(source, path);
  process later;
  later.disk.stop_steady_clock();
  const auto start = later.disk.steady_clock();
  auto handle = later.open(s.options());
  CHECK(later.disk.steady_clock() - start >= std::chrono::seconds(5));
  CHECK(contents(*handle) == changed(many("a", 6), {{"mine", 1}}));
  CHECK(read_published(s.place.path()).rows == many("a", 6));
  bool kept = false;
  for (const auto& name : private_files(s.place.path()))
    kept |=
        name.starts_with("foreign-")
        && read_file(private_path(s.place.path(), name)) == read_file(source);
  CHECK(kept);
}

TEST_CASE("A pair by another writer is not lost by finishing a drop") {
  one_store s;
  put(*s.handle, many("a", 6));
  need(s.handle->checkpoint(compaction::none));
  write_file(private_path(s.place.path(), "foreign-1.index"), "of before");
  s.here.disk.set_hook(failing(operation_kind::create_file, ".index",
                               fault::fail(errc::no_space)));
  CHECK(failure_of(s.handle->drop()).code == errc::no_space);
  s.here.disk.set_hook({});
  const auto ours = read_file(meta_path(s.place.path()));
  write_foreign_pair(s.place.path(), many("theirs", 3));
  SECTION("when the store is opened") {
    s.handle = s.here.open(s.options());
    CHECK(s.handle->report().imported);
    CHECK(contents(*s.handle) == many("theirs", 3));
    CHECK(read_published(s.place.path()).rows == many("theirs", 3));
  }
  SECTION("when something is committed") {
    put(*s.handle, {{"mine", 1}});
    CHECK(contents(*s.handle) == changed(many("theirs", 3), {{"mine", 1}}));
  }
  SECTION("but kept if it is half of one") {
    const auto half = read_file(index_path(s.place.path()));
    fs::remove(meta_path(s.place.path()));
    fs::create_hard_link(private_path(s.place.path(), "base-2.meta"),
                         meta_path(s.place.path()));
    REQUIRE(read_file(meta_path(s.place.path())) == ours);
    s.here.disk.stop_steady_clock();
    s.handle = s.here.open(s.options());
    CHECK(contents(*s.handle).empty());
    CHECK(read_published(s.place.path()).total == 0);
    CHECK(kept_contents(s.place.path()).contains(half));
  }
  CHECK_FALSE(kept_contents(s.place.path()).contains("of before"));
  CHECK(s.handle->stats().drop_epoch == 1);
  CHECK(reopened(s.place.path()) == contents(*s.handle));
  need(s.handle->verify());
}

TEST_CASE(
    "A pair by another writer is taken over when a log is given up, under "
    "what was committed here") {
  one_store s;
  put(*s.handle, many("a", 6));
  need(s.handle->checkpoint(compaction::none));
  put(*s.handle, {{"mine", 1}});
  auto options = s.options();
  SECTION("because of a failed sync") {
    s.here.disk.fail_from(operation_kind::sync_data, errc::io_failure);
    CHECK(failure_of(try_put(*s.handle, {{"lost", 1}})).code == errc::broken);
    s.here.disk.set_hook({});
    s.handle.reset();
  }
  SECTION("because it is damaged") {
    const auto log = private_path(s.place.path(), "log-2");
    const auto whole = fs::file_size(log);
    put(*s.handle, {{"lost", 1}});
    put(*s.handle, {{"lost too", 1}});
    s.handle.reset();
    auto bytes = read_file(log);
    bytes[whole] ^= 1;
    write_file(log, bytes);
    options.salvage = true;
  }
  write_foreign_pair(s.place.path(), many("theirs", 3));
  const auto all = changed(many("theirs", 3), {{"mine", 1}});
  s.handle = s.here.open(options);
  CHECK(s.handle->report().imported);
  CHECK(contents(*s.handle) == all);
  CHECK(read_published(s.place.path()).rows == many("theirs", 3));
  put(*s.handle, {{"more", 1}});
  CHECK(reopened(s.place.path()) == changed(all, {{"more", 1}}));
}

TEST_CASE("Each half of a foreign pair is kept, however many there are") {
  one_store s;
  const bool linked = GENERATE(true, false);
  if (!linked)
    s.here.disk.fail_from(operation_kind::link, errc::io_failure,
                          faulty_io::persistence::persistent);
  put(*s.handle, many("a", 6));
  need(s.handle->checkpoint(compaction::none));
  s.here.disk.stop_steady_clock();
  std::set<std::string> theirs;
  for (int version = 1; version < 4; ++version) {
    const auto ours = read_file(meta_path(s.place.path()));
    write_foreign_pair(s.place.path(), many("theirs", 3, version));
    theirs.insert(read_file(index_path(s.place.path())));
    write_file(meta_path(s.place.path()), ours);
    s.handle = s.here.open(s.options());
    CHECK(contents(*s.handle) == many("a", 6));
  }
  const auto kept = kept_contents(s.place.path());
  for (const auto& index : theirs)
    CHECK(kept.contains(index));
}

TEST_CASE("What is kept already is not kept again") {
  one_store s;
  put(*s.handle, many("a", 6));
  need(s.handle->checkpoint(compaction::none));
  const bool linked = GENERATE(true, false);
  write_foreign_pair(s.place.path(), many("theirs", 3));
  auto meta =
      nlohmann::ordered_json::parse(read_file(meta_path(s.place.path())));
  meta.erase("1");
  write_file(meta_path(s.place.path()), meta.dump());
  s.handle.reset();
  for (int attempt = 0; attempt < 3; ++attempt) {
    s.here.disk.set_hook([&](const operation& each) {
      const bool hit = (each.kind == operation_kind::link && !linked)
                       || (each.kind == operation_kind::rename
                           && each.target.ends_with("/MANIFEST"));
      return hit ? fault::fail(errc::no_space) : fault::none();
    });
    CHECK(failure_of(s.here.try_open(s.options())).code == errc::no_space);
  }
  std::size_t kept = 0;
  for (const auto& name : private_files(s.place.path()))
    kept += name.starts_with("foreign-");
  CHECK(kept == 2);
}

TEST_CASE("A program that cuts its file while it is looked at kills nobody") {
  one_store s;
  put(*s.handle, many("a", 6));
  need(s.handle->checkpoint(compaction::none));
  s.handle.reset();
  const auto index = index_path(s.place.path());
  write_foreign_pair(s.place.path(), many("b", 6)); // as many bytes as ours
  child_process looks([&](const pipe_end&) {
    process here;
    bool has_begun = false;
    here.disk.set_hook([&](const operation& each) {
      using kind = operation_kind;
      if (each.kind == kind::map || each.kind == kind::read_at) {
        if (has_begun)
          fs::resize_file(index, 0);
        has_begun |= each.path == index;
      }
      return fault::none();
    });
    return !here.try_open(s.options());
  });
  CHECK(looks.wait() == child_process::succeeded);
}

TEST_CASE("What could not be taken over whole is kept for its owner") {
  quick_directory place;
  write_foreign_pair(place.path(), many("a", 3));
  auto meta = nlohmann::ordered_json::parse(read_file(meta_path(place.path())));
  SECTION("for a row without a record") {
    meta.erase("1");
  }
  SECTION("for a record that must be embedded") {
    meta["7"] = {{"__id__", "seven"}, {"content", "no vector"}};
  }
  write_file(meta_path(place.path()), meta.dump());
  const auto text = read_file(meta_path(place.path()));
  process here;
  auto handle = here.open(options_for(place.path()));
  const bool kept = [&] {
    for (const auto& name : private_files(place.path()))
      if (name.starts_with("foreign-") && name.ends_with(".meta"))
        return read_file(private_path(place.path(), name)) == text;
    return false;
  }();
  CHECK(kept);
  CHECK(handle->take_records_to_embed().size()
        == handle->report().import.records_to_embed);
  CHECK(handle->take_records_to_embed().empty());
}

TEST_CASE("A store without MANIFEST is never begun anew over its commits") {
  one_store s;
  put(*s.handle, many("a", 3));
  s.handle.reset();
  fs::remove(private_path(s.place.path(), "MANIFEST"));
  const auto before = all_files(s.place.path());
  const auto reason = failure_of(s.here.try_open(s.options()));
  CHECK(reason.code == errc::corrupt);
  CHECK(contains(reason.message, "MANIFEST"));
  CHECK(all_files(s.place.path()) == before);
}

TEST_CASE("A store that lost MANIFEST begins with what is published") {
  quick_directory place;
  write_foreign_pair(place.path(), many("a", 3));
  process here;
  here.open(options_for(place.path()));
  fs::remove(private_path(place.path(), "MANIFEST"));
  // What is published is links to files of the private directory.
  here.disk.fail_from(operation_kind::write_at, errc::no_space);
  CHECK(failure_of(here.try_open(options_for(place.path()))).code
        == errc::no_space);
  here.disk.set_hook({});
  CHECK(read_published(place.path()).rows == many("a", 3));
  auto handle = here.open(options_for(place.path()));
  CHECK(contents(*handle) == many("a", 3));
  CHECK(read_published(place.path()).rows == many("a", 3));
  need(handle->verify());
}

TEST_CASE("Fresh files after a failed sync continue what is published") {
  one_store s;
  put(*s.handle, many("a", 8));
  need(s.handle->checkpoint(compaction::none));
  take_out(*s.handle, {"a0", "a1"});
  need(s.handle->checkpoint(compaction::none));
  auto options = s.options();
  options.reader_grace = std::chrono::seconds(60);
  s.here.disk.set_wall_clock(1'000);
  auto handle = s.here.open(options);
  need(handle->checkpoint(compaction::forced)); // copies
  s.here.disk.set_wall_clock(1'060);
  // The rows are moved, but not published: old numbers are still read.
  s.here.disk.fail_from(operation_kind::rename, errc::no_space,
                        faulty_io::persistence::persistent, 2);
  CHECK(failure_of(handle->checkpoint(compaction::forced)).code
        == errc::no_space);
  s.here.disk.set_hook({});
  const auto before = without(many("a", 8), {"a0", "a1"});
  CHECK(read_published(s.place.path()).rows == before);
  put(*handle, many("b", 4));
  s.here.disk.fail_from(operation_kind::sync_data, errc::io_failure);
  CHECK(failure_of(try_put(*handle, {{"lost", 1}})).code == errc::broken);
  const auto after = changed(before, many("b", 4));
  publication_watch watch(s.here, s.place.path());
  auto next = s.here.open(options);
  watch.check_moments(before, after);
  CHECK(contents(*next) == after);
}

TEST_CASE("A reader syncs what nobody announced before it shows it") {
  one_store s;
  process elsewhere;
  auto other = elsewhere.open(s.options());
  put(*s.handle, {{"a", 1}});
  const auto before = elsewhere.disk.operation_count();
  CHECK(contents(*need(other->refresh())) == versions{{"a", 1}});
  bool synced = false;
  const auto operations = elsewhere.disk.operations();
  for (auto i = before; i < operations.size(); ++i)
    synced |= operations[i].kind == operation_kind::sync_data;
  CHECK(synced);
}

TEST_CASE("Where files cannot be linked they are copied") {
  quick_directory place;
  process here;
  here.disk.fail_from(operation_kind::link, errc::io_failure,
                      faulty_io::persistence::persistent);
  const auto options = options_for(place.path());
  auto handle = here.open(options);
  put(*handle, many("a", 6));
  need(handle->checkpoint(compaction::none));
  CHECK(read_published(place.path()).rows == many("a", 6));
  take_out(*handle, {"a0", "a1"});
  need(handle->checkpoint(compaction::forced));
  const auto expected = without(many("a", 6), {"a0", "a1"});
  CHECK(read_published(place.path()).rows == expected);
  need(handle->verify());
  handle = here.open(options);
  CHECK(handle->published());
  CHECK_FALSE(handle->report().imported);
  put(*handle, {{"mine", 1}});
  write_foreign_pair(place.path(), many("theirs", 2));
  handle = here.open(options);
  CHECK(contents(*handle) == changed(many("theirs", 2), {{"mine", 1}}));
}

TEST_CASE("The published files keep their permissions, others are private") {
  one_store s;
  const auto mode_of = [](const fs::path& path) {
    return static_cast<unsigned>(fs::status(path).permissions());
  };
  CHECK(mode_of(index_path(s.place.path())) == 0600);
  CHECK(mode_of(meta_path(s.place.path())) == 0600);
  fs::permissions(index_path(s.place.path()), fs::perms(0640));
  put(*s.handle, {{"a", 1}});
  need(s.handle->checkpoint(compaction::none));
  CHECK(mode_of(index_path(s.place.path())) == 0640);
  CHECK(mode_of(meta_path(s.place.path())) == 0640);
  CHECK(mode_of(private_path(s.place.path())) == 0700);
  for (const auto& name : private_files(s.place.path()))
    if (!name.ends_with(".index") && !name.ends_with(".meta"))
      CHECK(mode_of(private_path(s.place.path(), name)) == 0600);
}

namespace {

/// What LightRAG leaves that died before it wrote the index: of all records
/// only the first, "Whole", has a vector.
void write_pair_without_vectors(const fs::path& place, versions rows,
                                int whole_version = 1) {
  rows["Whole"] = whole_version;
  write_foreign_pair(place, rows);
  const auto header = encode_index_header({store_dimension, 1});
  const auto index = read_file(index_path(place));
  const auto vector_bytes = store_dimension * sizeof(float);
  fs::remove(index_path(place));
  write_file(
      index_path(place),
      std::string(reinterpret_cast<const char*>(header.data()), header.size())
          + index.substr(index_header_bytes, vector_bytes));
}

std::vector<std::string> taken_to_embed(store& handle) {
  std::vector<std::string> ids;
  for (const auto& each : handle.take_records_to_embed())
    ids.push_back(each.id);
  return ids;
}

using names = std::vector<std::string>;

} // namespace

TEST_CASE("Records without a vector wait until they were committed") {
  quick_directory place;
  write_pair_without_vectors(place.path(), many("a", 4));
  const auto waiting = private_path(place.path(), unembedded_name);
  {
    process dies_early;
    auto handle = dies_early.open(options_for(place.path()));
    CHECK(handle->report().import.records_to_embed == 4);
    CHECK(taken_to_embed(*handle) == names{"a0", "a1", "a2", "a3"});
    CHECK(taken_to_embed(*handle).empty());
  }
  {
    process embeds_one_elsewhere;
    auto handle = embeds_one_elsewhere.open(options_for(place.path()));
    put(*handle, {{"a1", 1}});
  }
  {
    process fails_to_embed_some;
    auto handle = fails_to_embed_some.open(options_for(place.path()));
    CHECK(taken_to_embed(*handle) == names{"a0", "a2", "a3"});
    put(*handle, {{"a0", 1}});
    put(*handle, {{"other", 1}});
    CHECK(fs::exists(waiting));
  }
  {
    process removes_one;
    auto handle = removes_one.open(options_for(place.path()));
    take_out(*handle, {"a0", "a3", "other"});
  }
  {
    process embeds_the_rest;
    auto handle = embeds_the_rest.open(options_for(place.path()));
    CHECK(taken_to_embed(*handle) == names{"a2"});
    const auto lines = read_file(waiting);
    put(*handle, {{"a2", 1}});
    CHECK_FALSE(fs::exists(waiting));
    // As if it had died before the file was gone.
    write_file(waiting, lines);
    put(*handle, {{"a1", 1}});
    CHECK_FALSE(fs::exists(waiting));
  }
  CHECK(reopened(place.path()) == versions{{"Whole", 1}, {"a1", 1}, {"a2", 1}});
}

TEST_CASE("A commit that a drop overtook does not end the waiting of records") {
  quick_directory place;
  process here;
  auto handle = here.open(options_for(place.path()));
  need(handle->drop());
  write_pair_without_vectors(place.path(), many("a", 2));
  handle = here.open(options_for(place.path()));
  const std::vector<commit_operation> late = {upsert("a0", 1, 0),
                                              upsert("b", 1, 1)};
  CHECK(need(handle->commit(late)).discarded == 1);
  handle = here.open(options_for(place.path()));
  CHECK(taken_to_embed(*handle) == names{"a0", "a1"});
}

TEST_CASE("Records go on waiting while another pair is taken over") {
  quick_directory place;
  process here;
  write_pair_without_vectors(place.path(), many("a", 2));
  auto handle = here.open(options_for(place.path()));
  CHECK(taken_to_embed(*handle) == names{"a0", "a1"});
  write_pair_without_vectors(place.path(), {{"a1", 2}, {"b", 1}}, 2);
  need(handle->checkpoint(compaction::none));
  CHECK(taken_to_embed(*handle) == names{"a1", "b"});
  handle = here.open(options_for(place.path()));
  const auto waiting = handle->take_records_to_embed();
  REQUIRE(waiting.size() == 3);
  CHECK(waiting[0].id == "a0");
  CHECK(waiting[1].id == "a1");
  CHECK(contains(waiting[1].record, "version 2"));
  CHECK(waiting[2].id == "b");
}

TEST_CASE("Records without a vector undo nothing that was committed here") {
  one_store s;
  put(*s.handle, many("a", 3));
  need(s.handle->checkpoint(compaction::none));
  put(*s.handle, {{"a0", 2}});
  take_out(*s.handle, {"a1"});
  write_pair_without_vectors(s.place.path(), many("a", 3), 1);
  const auto expected = versions{{"Whole", 1}, {"a0", 2}};
  const bool is_opened = GENERATE(false, true);
  if (is_opened) {
    s.handle.reset();
    s.handle = s.here.open(s.options());
  } else {
    need(s.handle->checkpoint(compaction::none));
  }
  CHECK(contents(*s.handle) == expected);
  CHECK(taken_to_embed(*s.handle) == names{"a2"});
  process later;
  CHECK(taken_to_embed(*later.open(s.options())) == names{"a2"});
}

TEST_CASE("A record that waited is committed only if it still waits") {
  quick_directory place;
  write_pair_without_vectors(place.path(), many("a", 4));
  process here;
  auto handle = here.open(options_for(place.path()));
  std::vector<commit_operation> late;
  for (auto& each : handle->take_records_to_embed()) {
    late.push_back(upsert(each.id, 1));
    late.back().record = each.record;
    late.back().was_waiting = true;
  }
  process there;
  auto other = there.open(options_for(place.path()));
  put(*other, {{"a0", 2}});
  take_out(*other, {"a1"});
  write_pair_without_vectors(place.path(), {{"a2", 2}}, 2);
  need(other->checkpoint(compaction::none));
  const auto done = need(handle->commit(late));
  CHECK(done.discarded == 3);
  CHECK(done.committed == 1);
  CHECK(handle->view()->find("a3"));
  CHECK_FALSE(handle->view()->find("a1"));
  handle = here.open(options_for(place.path()));
  CHECK(taken_to_embed(*handle) == names{"a2"});
}

TEST_CASE("Records that wait are gone with a drop, even an interrupted one") {
  quick_directory place;
  write_pair_without_vectors(place.path(), many("a", 2));
  process here;
  auto handle = here.open(options_for(place.path()));
  const bool interrupted = GENERATE(true, false);
  if (interrupted) {
    here.disk.set_hook(failing(operation_kind::create_file, ".index",
                               fault::fail(errc::no_space)));
    CHECK(failure_of(handle->drop()).code == errc::no_space);
    here.disk.set_hook({});
    handle = here.open(options_for(place.path()));
  } else {
    need(handle->drop());
  }
  CHECK(taken_to_embed(*handle).empty());
  CHECK_FALSE(fs::exists(private_path(place.path(), unembedded_name)));
  for (const auto& name : private_files(place.path()))
    CHECK_FALSE(name.starts_with("foreign-"));
}

TEST_CASE("Records that wait are gone with a drop that nobody published") {
  quick_directory place;
  write_pair_without_vectors(place.path(), many("a", 2));
  process here;
  auto handle = here.open(options_for(place.path()));
  here.disk.set_hook([](const operation& each) {
    const bool hit = each.kind == operation_kind::rename
                     && contains(each.target, "faiss_index_chunks.index");
    return hit ? fault::fail(errc::no_space) : fault::none();
  });
  CHECK(failure_of(handle->drop()).code == errc::no_space);
  here.disk.set_hook({});
  handle = here.open(options_for(place.path()));
  CHECK(handle->stats().drop_epoch == 1);
  CHECK(taken_to_embed(*handle).empty());
}

TEST_CASE("Records do not come back that a dead process has struck out") {
  quick_directory place;
  write_pair_without_vectors(place.path(), many("a", 2));
  process here;
  auto handle = here.open(options_for(place.path()));
  process dies_early;
  auto other = dies_early.open(options_for(place.path()));
  const auto struck = GENERATE(as<names>{}, names{"a0"}, names{"a0", "a1"});
  bool is_dead = false;
  dies_early.disk.set_hook([&](const operation& each) {
    is_dead |= each.kind == operation_kind::sync_directory;
    return is_dead ? fault::fail(errc::io_failure) : fault::none();
  });
  take_out(*other, struck);
  REQUIRE(is_dead);
  const auto before = here.disk.operation_count();
  take_out(*handle, {"a0"});
  const auto operations = here.disk.operations();
  CHECK(std::any_of(operations.begin() + std::ptrdiff_t(before),
                    operations.end(), [](const operation& each) {
                      return each.kind == operation_kind::sync_directory;
                    }));
}

TEST_CASE("A checkpoint that ends does not disturb who strikes out records") {
  quick_directory place;
  write_pair_without_vectors(place.path(), many("a", 3));
  process here;
  auto handle = here.open(options_for(place.path()));
  put(*handle, {{"b", 1}});
  process elsewhere;
  auto other = elsewhere.open(options_for(place.path()));
  auto job =
      need(other->begin_checkpoint(compaction::none, patience::lock_timeout));
  need(job->write());
  here.disk.set_hook([&](const operation& each) {
    if (job && each.kind == operation_kind::rename
        && each.path.ends_with(unembedded_temporary_name))
      need(other->finish_checkpoint(std::move(job)));
    return fault::none();
  });
  take_out(*handle, {"a1"});
  here.disk.set_hook({});
  CHECK_FALSE(job);
  handle = here.open(options_for(place.path()));
  CHECK(taken_to_embed(*handle) == names{"a0", "a2"});
}
