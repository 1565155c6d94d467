#include "simulation/machine.hpp"
#include "tests/support/store_script.hpp"

#include <catch2/catch.hpp>
#include <spdlog/logger.h>
#include <spdlog/sinks/ostream_sink.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// Each occurrence of each operation of the reference script fails, once or
/// from then on: whatever fails, it is an answer, and nothing that was
/// acknowledged is lost.

using namespace callboard;
using namespace callboard::test;
using simulation::loss_model;
using simulation::machine;
using kind = simulation::operation_kind;

namespace {

enum class persistence : std::uint8_t { once, for_good };

/// What befalls operations of one kind.
struct affliction {
  kind what;
  /// If it is cut short, half of the bytes are written.
  bool is_cut_short;
  errc code;
  persistence how;
};

simulation::fault fault_of(const affliction& ill,
                           const simulation::operation& what) {
  return ill.is_cut_short ? simulation::fault::cut_short(what.size_bytes / 2)
                          : simulation::fault::fail(ill.code);
}

script_options short_script() {
  script_options out;
  out.is_short = true;
  out.reader_rate = 0;
  return out;
}

/// With the fault gone, the same handle works, or says `broken` and a new one
/// works; and another process sees the same.
void check_afterwards(machine& computer, store_script& script) {
  computer.on_fault({});
  auto& user = script.first();
  bool is_back = user.commit({{"after", 1}}, {});
  if (!is_back) {
    REQUIRE(user.problem().code == errc::broken);
    is_back = user.commit({{"after", 1}}, {});
  }
  CAPTURE(user.problem());
  REQUIRE(is_back);
  REQUIRE(computer.lock_count() == 0);
  const auto& known = script.known();
  const auto shown = read_published(computer, strictness::between_steps).rows;
  REQUIRE(known.allows_published(shown));
  {
    auto other = computer.start_process();
    const auto handle =
        need(store::open(other->door(), other->board(), simulated_options()));
    REQUIRE(contents(*handle) == known.acknowledged);
    need(handle->verify());
  }
  const bool is_published = user.checkpoint(compaction::none);
  CAPTURE(user.problem());
  REQUIRE(is_published);
  REQUIRE(read_published(computer, strictness::complete).rows
          == known.acknowledged);
}

/// False: there is no such operation.
bool check(const affliction& ill, std::size_t nth) {
  machine computer(1);
  store_script script(computer, short_script());
  std::size_t seen = 0;
  bool has_failed = false;
  std::string first_failed;
  computer.on_fault([&](const simulation::operation& what) {
    if (what.kind != ill.what)
      return simulation::fault::none();
    const auto number = seen++;
    if (number < nth || (number > nth && ill.how == persistence::once))
      return simulation::fault::none();
    if (!has_failed)
      first_failed = to_string(what);
    has_failed = true;
    return fault_of(ill, what);
  });
  INFO("the failed operation is number "
       << nth << " of its kind, code " << to_string(ill.code)
       << (ill.is_cut_short ? ", cut short" : "")
       << (ill.how == persistence::once ? ", once" : ", for good"));
  script.run();
  INFO("which is " << first_failed);
  if (has_failed)
    check_afterwards(computer, script);
  return has_failed;
}

std::size_t check_all(kind what, errc code, bool is_cut_short = false) {
  std::size_t checked = 0;
  for (const auto how : {persistence::once, persistence::for_good})
    for (std::size_t nth = 0; check({what, is_cut_short, code, how}, nth);
         ++nth)
      ++checked;
  return checked;
}

} // namespace

TEST_CASE("The script meets no failure on a disk that works", "[failures]") {
  machine computer(1);
  store_script script(computer, short_script());
  script.run();
  CHECK(script.failure_count() == 0);
  check_afterwards(computer, script);
}

TEST_CASE("Whichever write fails or is cut short, nothing acknowledged is lost",
          "[failures]") {
  const auto what = GENERATE(kind::append, kind::write_at);
  CAPTURE(to_string(what));
  CHECK(check_all(what, errc::io_failure) > 20);
  CHECK(check_all(what, errc::no_space) > 20);
  CHECK(check_all(what, errc::no_space, true) > 20);
}

TEST_CASE("Whichever sync fails, nothing acknowledged is lost", "[failures]") {
  const auto what = GENERATE(kind::sync_data, kind::sync, kind::sync_directory);
  CAPTURE(to_string(what));
  CHECK(check_all(what, errc::io_failure) > 20);
  CHECK(check_all(what, errc::no_space) > 20);
}

TEST_CASE("Whichever change of a directory fails, nothing acknowledged is lost",
          "[failures]") {
  const auto what = GENERATE(kind::create_file, kind::rename, kind::link,
                             kind::remove, kind::create_directory);
  CAPTURE(to_string(what));
  CHECK(check_all(what, errc::io_failure) > 4);
  CHECK(check_all(what, errc::no_space) > 4);
  CHECK(check_all(what, errc::permission_denied) > 4);
}

TEST_CASE("Whichever look at the files fails, nothing acknowledged is lost",
          "[failures]") {
  const auto what = GENERATE(kind::open_file, kind::open_directory, kind::map,
                             kind::status, kind::read_at, kind::list);
  CAPTURE(to_string(what));
  CHECK(check_all(what, errc::io_failure) > 4);
  CHECK(check_all(what, errc::permission_denied) > 4);
}

TEST_CASE("Whichever cut, lock or change of mode fails, nothing acknowledged "
          "is lost",
          "[failures]") {
  const auto what = GENERATE(kind::lock, kind::set_mode);
  CAPTURE(to_string(what));
  CHECK(check_all(what, errc::io_failure) > 4);
}

namespace {

std::unique_ptr<store> open_in(simulation::process& by) {
  auto opened = store::open(by.door(), by.board(), simulated_options());
  REQUIRE(opened);
  return std::move(*opened);
}

} // namespace

TEST_CASE("Who opens a store while another one writes misses no commit",
          "[failures]") {
  machine computer(1);
  {
    const auto writer = computer.start_process();
    const auto handle = open_in(*writer);
    put(*handle, {{"a", 1}});
    put(*handle, {{"b", 1}});
  }
  computer.lose_power(loss_model::ordered); // the board knows nothing now
  bool is_writing = true;
  computer.on_fault([&](const simulation::operation& what) {
    const auto is_refused = what.kind == kind::lock && what.name == "LOCK"
                            && std::exchange(is_writing, false);
    return is_refused ? simulation::fault::fail(errc::busy)
                      : simulation::fault::none();
  });
  const auto reader = computer.start_process();
  CHECK(contents(*open_in(*reader)) == versions{{"a", 1}, {"b", 1}});
  CHECK_FALSE(is_writing);
}

TEST_CASE("A read that fails while a reader catches up does no lasting harm",
          "[failures]") {
  std::size_t nth = 0;
  for (bool has_failed = true; has_failed; ++nth) {
    CAPTURE(nth);
    machine computer(1);
    const auto writer = computer.start_process();
    const auto reader = computer.start_process({.has_board = false});
    const auto handle = open_in(*writer);
    const auto seen = open_in(*reader);
    put(*handle, {{"a", 1}});
    auto job = handle->begin_checkpoint(compaction::none, patience::none);
    REQUIRE(job);
    put(*handle, {{"b", 1}});
    std::size_t reads = 0;
    has_failed = false;
    computer.on_fault([&](const simulation::operation& what) {
      const auto fails = what.process == reader->number()
                         && what.kind == kind::read_at && reads++ == nth;
      has_failed = has_failed || fails;
      return fails ? simulation::fault::fail(errc::io_failure)
                   : simulation::fault::none();
    });
    const auto refreshed = seen->refresh();
    CHECK(bool(refreshed) != has_failed);
    computer.on_fault({});
    // The new base has less than what the reader has applied.
    REQUIRE((*job)->write());
    REQUIRE(handle->finish_checkpoint(std::move(*job)));
    REQUIRE(seen->refresh());
    CHECK(contents(*seen) == contents(*handle));
  }
  CHECK(nth > 3);
}

TEST_CASE("What a failed sync left behind is not shown after a second one",
          "[failures]") {
  machine computer(1);
  auto writer = computer.start_process();
  const auto other = computer.start_process();
  const auto first = open_in(*writer);
  put(*first, {{"a", 1}});
  const auto handle = open_in(*other);

  computer.on_fault([&](const simulation::operation& what) {
    if (what.kind != kind::sync_data)
      return simulation::fault::none();
    return what.process == writer->number()
               ? simulation::fault::kill(simulation::moment::before)
               : simulation::fault::fail(errc::io_failure);
  });
  CHECK_FALSE(try_put(*first, {{"b", 1}})); // whole, and never synced
  const auto refused = try_put(*handle, {{"c", 1}});
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == errc::broken);

  computer.on_fault({});
  REQUIRE(handle->refresh());
  CHECK(contents(*handle) == versions{{"a", 1}});
  // The next one writes what can be read of it to fresh files.
  const auto later = computer.start_process();
  put(*open_in(*later), {{"d", 1}});
  REQUIRE(handle->refresh());
  CHECK(contents(*handle) == contents(*open_in(*later)));
}

TEST_CASE("A store whose last publication failed opens beside a writer",
          "[failures]") {
  machine computer(1);
  const auto writer = computer.start_process();
  const auto handle = open_in(*writer);
  put(*handle, {{"a", 1}});
  computer.on_fault([&](const simulation::operation& what) {
    return what.kind == kind::rename && what.target_name != "MANIFEST"
               ? simulation::fault::kill(simulation::moment::before)
               : simulation::fault::none();
  });
  CHECK_FALSE(handle->checkpoint(compaction::none));
  computer.on_fault([&](const simulation::operation& what) {
    return what.kind == kind::lock && what.offset == 0
               ? simulation::fault::fail(errc::busy)
               : simulation::fault::none();
  });
  const auto reader = computer.start_process();
  const auto opened = open_in(*reader);
  CHECK(contents(*opened) == versions{{"a", 1}});
  CHECK_FALSE(opened->published());
}

TEST_CASE("A store on a network file system is opened only if asked for",
          "[failures]") {
  machine computer(1);
  const auto writer = computer.start_process();
  std::ostringstream told;
  const store_options local{
      .working_directory = "/store",
      .namespace_name = "chunks",
      .dimension = 4,
      .log = std::make_shared<spdlog::logger>(
          "test", std::make_shared<spdlog::sinks::ostream_sink_mt>(told))};
  const auto open = [&](const store_options& options) {
    return store::open(writer->door(), writer->board(), options);
  };

  computer.set_file_system(file_system::network);
  const auto refused = open(local);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == errc::invalid_argument);
  CHECK_THAT(refused.error().message,
             Catch::Contains("/store") && Catch::Contains("network"));
  CHECK(computer.list("/store").empty());

  auto asked_for = local;
  asked_for.network_files = true;
  CHECK(open(asked_for));
  CHECK(told.str().empty());

  computer.set_file_system(file_system::program);
  CHECK(open(local));
  CHECK_THAT(told.str(), Catch::Contains("FUSE"));
}

TEST_CASE("A cut that fails after a write that failed loses nothing",
          "[failures]") {
  const auto code = GENERATE(errc::io_failure, errc::no_space);
  std::size_t checked = 0;
  for (std::size_t nth = 0;; ++nth) {
    CAPTURE(nth);
    machine computer(1);
    store_script script(computer, short_script());
    std::size_t appends = 0;
    std::size_t cuts = 0;
    computer.on_fault([&](const simulation::operation& what) {
      if (what.kind == kind::append && appends++ == nth)
        return simulation::fault::cut_short(what.size_bytes - 1);
      if (what.kind == kind::truncate && cuts++ == 0)
        return simulation::fault::fail(code);
      return simulation::fault::none();
    });
    script.run();
    if (appends <= nth)
      break;
    checked += cuts;
    check_afterwards(computer, script);
  }
  CHECK(checked > 10);
}
