#include "ipc/process_board.hpp"

#include <catch2/catch.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

using namespace callboard;

namespace {

/// A store that no other test case knows.
store_address new_store() {
  static std::uint8_t made = 0;
  store_address address;
  address.id[0] = std::byte{++made};
  address.working_directory = "/somewhere";
  address.namespace_name = "chunks";
  return address;
}

constexpr auto very_long = std::chrono::hours(1);

} // namespace

TEST_CASE("all handles on a store share its notices", "[process_board]") {
  auto address = new_store();
  auto writer = process_board().attach(address);
  writer->announce(7);
  CHECK(process_board().attach(address)->durable_sequence() == 7);
  CHECK(process_board().attach(new_store())->durable_sequence() == 0);
}

TEST_CASE("notices outlive the handles on a store", "[process_board]") {
  auto address = new_store();
  process_board().attach(address)->poison(3);
  CHECK(process_board().attach(address)->poisoned_from() == 3U);
}

TEST_CASE("an announcement never lowers the durable sequence",
          "[process_board]") {
  auto notices = process_board().attach(new_store());
  notices->announce(5);
  notices->announce(3);
  CHECK(notices->durable_sequence() == 5);
}

TEST_CASE("of several poisoned sequences the lowest counts",
          "[process_board]") {
  auto notices = process_board().attach(new_store());
  CHECK_FALSE(notices->poisoned_from());
  notices->poison(9);
  notices->poison(4);
  notices->poison(6);
  CHECK(notices->poisoned_from() == 4U);
  notices->clear_poison();
  CHECK_FALSE(notices->poisoned_from());
}

TEST_CASE("this board does not speak for other processes", "[process_board]") {
  CHECK_FALSE(process_board().attach(new_store())->covers_all_processes());
}

TEST_CASE("the highest announcement of many threads stays", "[process_board]") {
  constexpr std::uint64_t thread_count = 4;
  constexpr std::uint64_t announcements = 10'000;
  auto address = new_store();
  std::vector<std::thread> threads;
  for (std::uint64_t i = 0; i < thread_count; ++i)
    threads.emplace_back([address, i] {
      auto notices = process_board().attach(address);
      for (std::uint64_t k = 0; k < announcements; ++k)
        notices->announce(k * thread_count + i);
    });
  for (auto& each : threads)
    each.join();
  CHECK(process_board().attach(address)->durable_sequence()
        == announcements * thread_count - 1);
}

TEST_CASE("a copied store has notices of its own", "[process_board]") {
  auto address = new_store();
  process_board().attach(address)->announce(7);
  address.working_directory = "/elsewhere";
  CHECK(process_board().attach(address)->durable_sequence() == 0);
}

TEST_CASE("an announcement changes the number of announcements",
          "[process_board]") {
  auto notices = process_board().attach(new_store());
  auto before = process_board().announcements();
  notices->announce(1);
  CHECK(process_board().announcements() != before);
  process_board().wait(before, very_long); // returns at once
}

TEST_CASE("an announcement ends a wait of another thread", "[process_board]") {
  auto notices = process_board().attach(new_store());
  auto seen = process_board().announcements();
  std::thread waiter([seen] {
    while (process_board().announcements() == seen)
      process_board().wait(seen, very_long);
  });
  notices->announce(1);
  waiter.join();
  CHECK(process_board().announcements() != seen);
}

TEST_CASE("an interruption that comes before the wait ends it",
          "[process_board]") {
  process_board().interrupt();
  process_board().wait(process_board().announcements(), very_long);
  SUCCEED();
}
