#include "tests/support/faulty_io.hpp"
#include "tests/support/scratch_directory.hpp"

#include <catch2/catch.hpp>

#include <filesystem>
#include <functional>
#include <sstream>
#include <sys/wait.h>
#include <unistd.h>

using namespace callboard;
using namespace callboard::test;

namespace {

using kind = operation_kind;

constexpr std::string_view content = "0123456789";

/// A path for an empty directory, gone after the test.
class scratch {
public:
  const std::string& path() const { return path_; }
  bool has(std::string_view name) const {
    return std::filesystem::exists(std::filesystem::path(path_) / name);
  }
  std::uintmax_t size_of(std::string_view name) const {
    return std::filesystem::file_size(std::filesystem::path(path_) / name);
  }

private:
  scratch_directory place_;
  std::string path_ = place_.path().string();
};

/// Replaces the file "data" in a crash-safe way: seven operations.
result<void> replace_data(io& disk, const std::string& path) {
  CALLBOARD_TRY_ASSIGN(auto place, disk.open_directory(path, false));
  CALLBOARD_TRY_ASSIGN(auto made,
                       place->open_file("data.tmp", open_mode::create_empty));
  CALLBOARD_TRY(made->append(
      0, std::as_bytes(std::span(content.data(), content.size()))));
  CALLBOARD_TRY(made->sync_data());
  CALLBOARD_TRY(place->link("data.tmp", *place, "data.new"));
  CALLBOARD_TRY(place->rename("data.new", "data"));
  return place->sync();
}

constexpr std::size_t append_index = 2;
constexpr std::size_t rename_index = 5;

/// The exit status of a child process that does `work`; 0 if it returned.
int status_of_child(const std::function<void()>& work) {
  const auto id = ::fork();
  if (id == 0) {
    work();
    ::_exit(0);
  }
  int status = -1;
  REQUIRE(::waitpid(id, &status, 0) == id);
  REQUIRE(WIFEXITED(status));
  return WEXITSTATUS(status);
}

int exit_during(const std::string& path, std::size_t index,
                faulty_io::moment when) {
  return status_of_child([&] {
    faulty_io disk;
    disk.exit_at(index, when);
    static_cast<void>(replace_data(disk, path));
  });
}

} // namespace

TEST_CASE("a dry run notes every operation and changes nothing of it",
          "[faulty_io]") {
  const scratch place;
  faulty_io disk;
  REQUIRE(replace_data(disk, place.path()));
  CHECK(place.size_of("data") == content.size());
  CHECK(disk.fault_count() == 0);

  const auto noted = disk.operations();
  std::vector<kind> kinds;
  for (const auto& each : noted) {
    CHECK(each.index == kinds.size());
    kinds.push_back(each.kind);
  }
  CHECK(kinds
        == std::vector<kind>{kind::open_directory, kind::create_file,
                             kind::append, kind::sync_data, kind::link,
                             kind::rename, kind::sync_directory});
  CHECK(noted[append_index].path == place.path() + "/data.tmp");
  CHECK(noted[append_index].size_bytes == content.size());
  std::ostringstream text;
  text << noted[append_index];
  CHECK(text.str() == "#2 append " + place.path() + "/data.tmp, 10 bytes");
  CHECK(noted[rename_index].path == place.path() + "/data.new");
  CHECK(noted[rename_index].target == place.path() + "/data");
}

TEST_CASE("each operation can be made to fail, until none is left",
          "[faulty_io]") {
  std::size_t index = 0;
  for (;; ++index) {
    const scratch place;
    faulty_io disk;
    disk.fail_at(index, errc::io_failure);
    const auto outcome = replace_data(disk, place.path());
    if (disk.fault_count() == 0) {
      CHECK(outcome);
      break;
    }
    REQUIRE_FALSE(outcome);
    CHECK(outcome.error().code == errc::io_failure);
    CHECK(outcome.error().message.find("injected") != std::string::npos);
    CHECK(disk.operation_count() == index + 1);
    CHECK(place.has("data") == (index > rename_index));
  }
  CHECK(index == 7);
}

TEST_CASE("a fault of one kind strikes once or from then on", "[faulty_io]") {
  const scratch place;
  faulty_io disk;
  const auto failures_of_syncs = [&] {
    std::vector<bool> failed;
    failed.reserve(4);
    for (int round = 0; round < 4; ++round)
      failed.push_back(!replace_data(disk, place.path()));
    return failed;
  };
  disk.fail_from(kind::sync_data, errc::io_failure,
                 faulty_io::persistence::once, 1);
  CHECK(failures_of_syncs() == std::vector<bool>{false, true, false, false});
  disk.fail_from(kind::sync_data, errc::io_failure,
                 faulty_io::persistence::persistent, 1);
  CHECK(failures_of_syncs() == std::vector<bool>{false, true, true, true});
  disk.set_hook({});
  CHECK(failures_of_syncs() == std::vector<bool>(4, false));
}

TEST_CASE("a write can be cut short as by a full file system", "[faulty_io]") {
  const scratch place;
  faulty_io disk;
  disk.set_hook([](const operation& what) {
    return what.kind == kind::append ? fault::cut_short(3) : fault::none();
  });
  const auto outcome = replace_data(disk, place.path());
  REQUIRE_FALSE(outcome);
  CHECK(outcome.error().code == errc::no_space);
  CHECK(place.size_of("data.tmp") == 3);
}

TEST_CASE("the process can end before, half through or after an operation",
          "[faulty_io]") {
  using moment = faulty_io::moment;
  const scratch place;
  const auto& path = place.path();
  CHECK(exit_during(path, append_index, moment::before)
        == faulty_io::exit_status);
  CHECK(place.size_of("data.tmp") == 0);
  CHECK(exit_during(path, append_index, moment::half)
        == faulty_io::exit_status);
  CHECK(place.size_of("data.tmp") == content.size() / 2);
  CHECK(exit_during(path, append_index, moment::after)
        == faulty_io::exit_status);
  CHECK(place.size_of("data.tmp") == content.size());
  CHECK(exit_during(path, rename_index, moment::before)
        == faulty_io::exit_status);
  CHECK_FALSE(place.has("data"));
  std::filesystem::remove(path + "/data.new");
  CHECK(exit_during(path, rename_index, moment::after)
        == faulty_io::exit_status);
  CHECK(place.has("data"));
  CHECK(exit_during(path, 100, moment::before) == 0);
}

TEST_CASE("a stopped steady clock moves only by pauses, which do not wait",
          "[faulty_io]") {
  using namespace std::chrono_literals;
  faulty_io disk;
  disk.pause(0ms);
  disk.stop_steady_clock();
  const auto start = disk.steady_clock();
  CHECK(start <= posix_io().steady_clock());
  disk.pause(std::chrono::hours(1000));
  CHECK(disk.steady_clock() - start == std::chrono::hours(1000));
}

TEST_CASE("the wall clock stands where a test sets it", "[faulty_io]") {
  faulty_io disk;
  CHECK(disk.wall_clock_seconds() >= posix_io().wall_clock_seconds() - 60);
  disk.set_wall_clock(12345);
  CHECK(disk.wall_clock_seconds() == 12345);
  disk.set_wall_clock(0);
  CHECK(disk.wall_clock_seconds() == 0);
}
