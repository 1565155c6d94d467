#include "core/bytes.hpp"
#include "ipc/board_page.hpp"
#include "ipc/shared_board.hpp"
#include "ipc/wake_word.hpp"
#include "tests/support/faulty_io.hpp"
#include "tests/support/scratch_directory.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <functional>
#include <limits>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <memory>
#include <optional>
#include <random>
#include <sched.h>
#include <string>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

using namespace callboard;
using namespace callboard::test;

namespace fs = std::filesystem;

namespace {

constexpr auto very_long = std::chrono::hours(1);
constexpr auto no_time = std::chrono::milliseconds(0);
constexpr unsigned patience_seconds = 60;
constexpr int skipped = 77;

/// Ends the program if something waits for ever.
class watchdog {
public:
  watchdog() { ::alarm(patience_seconds); }
  watchdog(const watchdog&) = delete;
  watchdog& operator=(const watchdog&) = delete;
  ~watchdog() { ::alarm(0); }
};

store_address store_in(const fs::path& place, std::uint8_t id = 1,
                       const std::string& name = "chunks") {
  store_address out;
  out.id.fill(std::byte{id});
  out.working_directory = place.string();
  out.workspace = "space";
  out.namespace_name = name;
  return out;
}

fs::path board_path(const fs::path& place) {
  return place / std::string(board_file_name);
}

/// What /proc says that a process or thread does: 'S' is to sleep.
char state_of(pid_t id) {
  const auto text = read_file("/proc/" + std::to_string(id) + "/stat");
  return text.at(text.rfind(')') + 2);
}

/// A process of one thread, made by fork.
class child {
public:
  explicit child(const std::function<int()>& body) : pid_(::fork()) {
    REQUIRE(pid_ >= 0);
    if (pid_ != 0)
      return;
    ::alarm(patience_seconds);
    ::_exit(body());
  }
  child(const child&) = delete;
  child& operator=(const child&) = delete;
  ~child() {
    if (!ended_)
      kill();
  }

  /// Its exit status; 128 and the signal if it was killed.
  int status() {
    int status = 0;
    REQUIRE(::waitpid(pid_, &status, 0) == pid_);
    ended_ = true;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

  int kill() {
    ::kill(pid_, SIGKILL);
    return status();
  }

  char state() const { return state_of(pid_); }

private:
  pid_t pid_;
  bool ended_ = false;
};

/// Memory that a child shares.
template <class T>
class shared_value {
public:
  shared_value() {
    void* memory = ::mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    value_ = new (memory) T{};
  }
  shared_value(const shared_value&) = delete;
  shared_value& operator=(const shared_value&) = delete;
  ~shared_value() { ::munmap(value_, sizeof(T)); }
  T& operator*() const { return *value_; }
  T* operator->() const { return value_; }

private:
  T* value_;
};

void put_bytes(const fs::path& path, std::size_t offset,
               std::string_view bytes) {
  std::fstream out(path, std::ios::in | std::ios::out | std::ios::binary);
  out.seekp(static_cast<std::streamoff>(offset));
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  out.close();
  REQUIRE(out);
}

void put_word(const fs::path& path, std::size_t offset, std::uint64_t word) {
  put_bytes(path, offset, as_text(std::as_bytes(std::span{&word, 1})));
}

std::uint64_t word_at(const std::string& bytes, std::size_t offset) {
  return load<std::uint64_t>(as_bytes(bytes), offset);
}

constexpr std::size_t slots_offset = 4096;
constexpr std::size_t names_offset = 266240;
constexpr std::size_t board_bytes = 2101248;

/// Where in the file the slots are that are taken.
std::vector<std::size_t> taken_slots(const fs::path& path) {
  const auto bytes = read_file(path);
  std::vector<std::size_t> out;
  for (auto at = slots_offset; at < names_offset; at += 64)
    if (word_at(bytes, at) != 0)
      out.push_back(at);
  return out;
}

std::size_t only_slot(const fs::path& path) {
  const auto slots = taken_slots(path);
  REQUIRE(slots.size() == 1);
  return slots.front();
}

std::string random_bytes(std::mt19937_64& random, std::size_t count) {
  std::string out(count, '\0');
  for (std::size_t at = 0; at + 8 <= count; at += 8) {
    const auto word = random();
    std::memcpy(out.data() + at, &word, 8);
  }
  return out;
}

/// Another boot of the same machine.
class other_boot : public faulty_io {
public:
  std::string boot_id() override { return "another boot"; }
};

bool covers(notice_board& board, const store_address& address) {
  return board.attach(address)->covers_all_processes();
}

/// Whether two boards, as of two processes, hear each other in `place`.
bool is_shared(const fs::path& place, io& door = posix_io(),
               board_backing backing = board_backing::file) {
  shared_board first(door, backing);
  shared_board second(door, backing);
  const auto address = store_in(place, 99, "probe");
  const auto writer = first.attach(address);
  const auto reader = second.attach(address);
  const auto next = reader->durable_sequence() + 1;
  writer->announce(next);
  return writer->covers_all_processes() && reader->covers_all_processes()
         && reader->durable_sequence() == next;
}

/// Attaching works, as for a process that is alone.
void check_does_without(const fs::path& place, io& door = posix_io(),
                        board_backing backing = board_backing::file) {
  shared_board board(door, backing);
  const auto notices = board.attach(store_in(place, 98, "lonely"));
  REQUIRE(notices);
  CHECK_FALSE(notices->covers_all_processes());
  const auto seen = board.announcements();
  notices->announce(notices->durable_sequence() + 1);
  CHECK(board.announcements() != seen);
  board.wait(seen, very_long); // returns at once
}

void remove_object(const fs::path& place) {
  struct stat status {};
  REQUIRE(::stat(board_path(place).c_str(), &status) == 0);
  const auto name = "/callboard." + std::to_string(::geteuid()) + '.'
                    + std::to_string(status.st_dev) + '.'
                    + std::to_string(status.st_ino);
  CHECK(::shm_unlink(name.c_str()) == 0);
}

} // namespace

// -- What it is for -----------------------------------------------------------

TEST_CASE("two processes see each other's announcements", "[shared_board]") {
  const scratch_directory place;
  const auto backing =
      GENERATE(board_backing::file, board_backing::shared_memory_object);
  shared_board board(posix_io(), backing);
  const auto notices = board.attach(store_in(place.path()));
  notices->announce(7);
  child other([&] {
    shared_board own(posix_io(), backing);
    const auto theirs = own.attach(store_in(place.path()));
    if (!theirs->covers_all_processes() || theirs->durable_sequence() != 7)
      return 1;
    theirs->announce(9);
    theirs->poison(12);
    return 0;
  });
  CHECK(other.status() == 0);
  CHECK(notices->covers_all_processes());
  CHECK(notices->durable_sequence() == 9);
  CHECK(notices->poisoned_from() == 12U);
  if (backing == board_backing::shared_memory_object)
    remove_object(place.path());
}

namespace {

/// From now on this process is told that there is no futex_waitv.
bool forbid_futex_waitv(std::uint32_t error) {
  std::array filter{
      sock_filter BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                           offsetof(seccomp_data, nr)),
      sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_futex_waitv, 0, 1),
      sock_filter BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
      sock_filter BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  sock_fprog program{static_cast<unsigned short>(filter.size()), filter.data()};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
         && ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0
         && ::syscall(SYS_futex_waitv, nullptr, 0, 0, nullptr, 0) == -1
         && errno == static_cast<int>(error);
}

} // namespace

TEST_CASE("an announcement wakes a process that waits", "[shared_board]") {
  const scratch_directory first;
  const scratch_directory second;
  const auto forbidden = GENERATE(0, ENOSYS, EPERM);
  const shared_value<std::atomic<bool>> ready;
  shared_board board(posix_io());
  const auto notices = board.attach(store_in(second.path()));
  child waiter([&] {
    if (forbidden != 0
        && !forbid_futex_waitv(static_cast<std::uint32_t>(forbidden)))
      return skipped;
    shared_board own(posix_io());
    const auto one = own.attach(store_in(first.path()));
    const auto other = own.attach(store_in(second.path()));
    const auto seen = own.announcements();
    ready->store(true);
    while (own.announcements() == seen)
      own.wait(seen, very_long);
    return other->durable_sequence() == 1 ? 0 : 1;
  });
  while (!ready->load() || waiter.state() != 'S')
    ::sched_yield();
  notices->announce(1);
  const auto status = waiter.status();
  if (status == skipped)
    WARN("no seccomp here");
  else
    CHECK(status == 0);
}

TEST_CASE("the handles of a process share the notices of a store",
          "[shared_board]") {
  const scratch_directory place;
  shared_board board(posix_io());
  const auto notices = board.attach(store_in(place.path()));
  CHECK(board.attach(store_in(place.path())) == notices);
  CHECK(board.attach(store_in(place.path(), 1, "entities")) != notices);
  CHECK(board.attach(store_in(place.path(), 2)) != notices);
}

TEST_CASE("two paths of one directory are one board", "[shared_board]") {
  const scratch_directory place;
  const scratch_directory links;
  fs::create_directory_symlink(place.path(), links / "alias");
  shared_board board(posix_io());
  const auto one = board.attach(store_in(place.path()));
  const auto other = board.attach(store_in(links / "alias"));
  one->announce(3);
  CHECK(other->durable_sequence() == 3);
  CHECK(other->covers_all_processes());
}

TEST_CASE("shared notices only rise, and the worst poison counts",
          "[shared_board]") {
  const scratch_directory place;
  shared_board board(posix_io());
  const auto notices = board.attach(store_in(place.path()));
  CHECK(notices->durable_sequence() == 0);
  CHECK_FALSE(notices->poisoned_from());
  notices->announce(5);
  notices->announce(3);
  CHECK(notices->durable_sequence() == 5);
  notices->poison(std::numeric_limits<std::uint64_t>::max());
  CHECK(notices->poisoned_from() == board_sequence_max);
  notices->poison(9);
  notices->poison(11);
  CHECK(notices->poisoned_from() == 9U);
  notices->poison(0);
  CHECK(notices->poisoned_from() == 1U);
  notices->clear_poison();
  CHECK_FALSE(notices->poisoned_from());
  notices->announce(std::numeric_limits<std::uint64_t>::max());
  CHECK(notices->durable_sequence() == board_sequence_max);
}

TEST_CASE("a board tells people what it says of each store", "[shared_board]") {
  const scratch_directory place;
  CHECK(failure_of(read_board(posix_io(), place.path().string())).code
        == errc::not_found);
  shared_board board(posix_io());
  const auto notices = board.attach(store_in(place.path()));
  notices->announce(4);
  notices->announce(5);
  notices->poison(8);
  notices->note_base_epoch(3);
  const auto entries = need(read_board(posix_io(), place.path().string()));
  REQUIRE(entries.size() == 1);
  CHECK(entries[0].workspace == "space");
  CHECK(entries[0].namespace_name == "chunks");
  CHECK(entries[0].durable_sequence == 5);
  CHECK(entries[0].poisoned_from == 8U);
  CHECK(entries[0].base_epoch == 3);
  CHECK(entries[0].writer_pid == static_cast<std::uint64_t>(::getpid()));
  CHECK(entries[0].announcements == 2);
  write_file(board_path(place.path()), "no board");
  CHECK(failure_of(read_board(posix_io(), place.path().string())).code
        == errc::unsupported_format);
}

// -- Waiting ------------------------------------------------------------------

TEST_CASE("an interruption ends the wait under way, or the next one",
          "[shared_board]") {
  const watchdog guard;
  const scratch_directory place;
  shared_board board(posix_io());
  const auto notices = board.attach(store_in(place.path()));
  const auto seen = board.announcements();
  board.interrupt();
  board.wait(seen, very_long);
  std::thread waiter([&] { board.wait(seen, very_long); });
  board.interrupt();
  waiter.join();
  CHECK(board.announcements() == seen);
}

TEST_CASE("an interruption ends no more than one wait", "[shared_board]") {
  const scratch_directory place;
  const shared_value<std::atomic<bool>> ready;
  child waiter([&] {
    shared_board board(posix_io());
    const auto notices = board.attach(store_in(place.path()));
    board.interrupt();
    board.wait(board.announcements(), very_long);
    ready->store(true);
    board.wait(board.announcements(), very_long);
    return 0;
  });
  while (!ready->load() || waiter.state() == 'R')
    ::sched_yield();
  CHECK(waiter.state() == 'S');
  waiter.kill();
}

TEST_CASE("notices of this process only wake its waiters, too",
          "[shared_board]") {
  const watchdog guard;
  const scratch_directory place;
  shared_board board(posix_io());
  const auto lonely = board.attach(store_in(place / "missing"));
  const auto seen = board.announcements();
  std::atomic<pid_t> thread_id{0};
  std::thread waiter([&] {
    thread_id = ::gettid();
    while (board.announcements() == seen)
      board.wait(seen, very_long);
  });
  while (thread_id == 0 || state_of(thread_id) != 'S')
    ::sched_yield();
  lonely->announce(lonely->durable_sequence() + 1);
  waiter.join();
  SUCCEED();
}

TEST_CASE("who waits is woken by a board that is attached meanwhile, too",
          "[shared_board]") {
  const watchdog guard;
  const scratch_directory place;
  shared_board board(posix_io());
  const auto seen = board.announcements();
  std::atomic<pid_t> thread_id{0};
  std::thread waiter([&] {
    thread_id = ::gettid();
    while (board.announcements() == seen)
      board.wait(seen, very_long);
  });
  while (thread_id == 0 || state_of(thread_id) != 'S')
    ::sched_yield();
  board.attach(store_in(place.path()))->announce(1);
  waiter.join();
  SUCCEED();
}

TEST_CASE("the number of announcements changes when a counter wraps around",
          "[shared_board]") {
  const scratch_directory first;
  const scratch_directory second;
  shared_board board(posix_io());
  const auto one = board.attach(store_in(first.path()));
  const auto other = board.attach(store_in(second.path()));
  put_word(board_path(first.path()), 64,
           std::numeric_limits<std::uint32_t>::max());
  for (std::uint64_t i = 1; i <= 3; ++i) {
    const auto seen = board.announcements();
    one->announce(i);
    CHECK(board.announcements() != seen);
    const auto next = board.announcements();
    other->announce(i);
    CHECK(board.announcements() != next);
  }
}

TEST_CASE("more words than the kernel can watch are watched all the same",
          "[shared_board]") {
  const watchdog guard;
  std::array<wake_word, 200> words{};
  std::vector<watched_word> watched;
  for (const auto& each : words)
    watched.push_back({&each, 0});
  const auto changed = GENERATE(std::size_t{0}, std::size_t{199});
  std::thread waker([&] { wake(words[changed]); });
  while (words[changed].load() == 0)
    wait_for_change(watched, very_long);
  waker.join();
  SUCCEED();
}

TEST_CASE("a wait without time does not wait", "[shared_board]") {
  const watchdog guard;
  const wake_word word{0};
  const watched_word watched{&word, 0};
  const std::int64_t timeout = GENERATE(
      as<std::int64_t>{}, 0, -5, std::numeric_limits<std::int64_t>::min(), 1);
  wait_for_change(std::span{&watched, 1}, std::chrono::milliseconds(timeout));
  SUCCEED();
}

TEST_CASE("boards of directories without open stores are unmapped",
          "[shared_board]") {
  const scratch_directory first;
  const scratch_directory second;
  const auto is_mapped = [&] {
    std::ifstream maps("/proc/self/maps");
    const std::string text{std::istreambuf_iterator<char>(maps), {}};
    return contains(text, first.path().string());
  };
  shared_board board(posix_io());
  auto notices = board.attach(store_in(first.path()));
  const auto other = board.attach(store_in(second.path()));
  CHECK(is_mapped());
  const auto seen = board.announcements();
  notices->announce(1);
  notices.reset();
  (void)board.attach(store_in(second.path(), 1, "entities"));
  CHECK_FALSE(is_mapped());
  CHECK(board.announcements() != seen);
}

TEST_CASE("threads may attach and announce while one waits", "[shared_board]") {
  const watchdog guard;
  const scratch_directory place;
  shared_board board(posix_io());
  std::atomic<bool> done{false};
  std::thread waiter([&] {
    while (!done)
      board.wait(board.announcements(), very_long);
  });
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (std::uint64_t k = 1; k <= 30; ++k)
        board.attach(store_in(place.path(), 1, "ns" + std::to_string(k % 5)))
            ->announce(k);
    });
  for (auto& each : threads)
    each.join();
  done = true;
  board.interrupt();
  waiter.join();
  CHECK(board.attach(store_in(place.path(), 1, "ns0"))->durable_sequence()
        == 30);
  CHECK(taken_slots(board_path(place.path())).size() == 5);
}

// -- Files that are not a board -----------------------------------------------

TEST_CASE("the board's file has its full size and belongs to its user",
          "[shared_board]") {
  const scratch_directory place;
  CHECK(is_shared(place.path()));
  struct stat status {};
  REQUIRE(::stat(board_path(place.path()).c_str(), &status) == 0);
  CHECK((status.st_mode & 07777) == 0600);
  CHECK(status.st_size == board_bytes);
  CHECK(status.st_blocks >= static_cast<blkcnt_t>(board_bytes / 512));
}

TEST_CASE("a board that was cut or holds garbage is made anew",
          "[shared_board]") {
  const scratch_directory place;
  const auto file = board_path(place.path());
  std::mt19937_64 random(Catch::rngSeed());
  CAPTURE(Catch::rngSeed());
  const auto kind = GENERATE(range(0, 7));
  CAPTURE(kind);
  {
    shared_board board(posix_io());
    const auto notices = board.attach(store_in(place.path()));
    notices->announce(5);
    notices->poison(2);
  }
  const auto whole = read_file(file);
  const std::vector<std::string> contents{"",
                                          whole.substr(0, 40),
                                          whole.substr(0, 100'000),
                                          whole.substr(0, board_bytes - 1),
                                          std::string(board_bytes, '\0'),
                                          random_bytes(random, board_bytes),
                                          std::string(board_bytes, '\xff')};
  write_file(file, contents[static_cast<std::size_t>(kind)]);
  shared_board board(posix_io());
  const auto notices = board.attach(store_in(place.path()));
  CHECK(notices->covers_all_processes());
  CHECK(notices->durable_sequence() == 0);
  CHECK_FALSE(notices->poisoned_from());
  CHECK(taken_slots(file).size() == 1);
  CHECK(is_shared(place.path()));
}

TEST_CASE("a board with holes gets its blocks", "[shared_board]") {
  const scratch_directory place;
  const auto file = board_path(place.path());
  write_file(file, "");
  fs::permissions(file, fs::perms::owner_read | fs::perms::owner_write);
  fs::resize_file(file, board_bytes);
  CHECK(is_shared(place.path()));
  struct stat status {};
  REQUIRE(::stat(file.c_str(), &status) == 0);
  CHECK(status.st_blocks >= static_cast<blkcnt_t>(board_bytes / 512));
}

TEST_CASE("a board of another boot is emptied", "[shared_board]") {
  const scratch_directory place;
  shared_board board(posix_io());
  const auto old = board.attach(store_in(place.path()));
  old->announce(5);
  old->poison(3);
  other_boot door;
  shared_board next(door);
  const auto notices = next.attach(store_in(place.path()));
  CHECK(notices->covers_all_processes());
  CHECK(notices->durable_sequence() == 0);
  CHECK_FALSE(notices->poisoned_from());
  CHECK(is_shared(place.path(), door));
}

TEST_CASE("notices stop covering when the board is emptied", "[shared_board]") {
  const scratch_directory place;
  shared_board board(posix_io());
  const auto old = board.attach(store_in(place.path()));
  old->announce(5);
  other_boot door;
  CHECK(is_shared(place.path(), door));
  CHECK_FALSE(old->covers_all_processes());
  CHECK(old->durable_sequence() == 0);
  old->poison(4);
  CHECK(old->poisoned_from() == 4U); // for this process
  old->clear_poison();
  CHECK_FALSE(old->poisoned_from());
  const auto seen = board.announcements();
  old->announce(6);
  CHECK(old->durable_sequence() == 6);
  CHECK(board.announcements() != seen);
}

TEST_CASE("a board of another layout is left alone while it may be in use",
          "[shared_board]") {
  const scratch_directory place;
  const auto file = board_path(place.path());
  CHECK(is_shared(place.path()));
  SECTION("another version") {
    put_bytes(file, 8, "\x02");
  }
  SECTION("another number of slots") {
    put_bytes(file, 12, "\x01");
  }
  SECTION("another size") {
    put_bytes(file, 16, "\x01");
  }
  SECTION("shorter, another version") {
    put_bytes(file, 8, "\x02");
    fs::resize_file(file, 8192);
  }
  SECTION("longer") {
    fs::resize_file(file, board_bytes + 1);
  }
  const auto before = read_file(file);
  check_does_without(place.path());
  CHECK(read_file(file) == before);
}

TEST_CASE("a board of another layout and another boot is made anew",
          "[shared_board]") {
  const scratch_directory place;
  CHECK(is_shared(place.path()));
  put_bytes(board_path(place.path()), 8, "\x02");
  other_boot door;
  CHECK(is_shared(place.path(), door));
}

TEST_CASE("what is not the user's own file is never used as a board",
          "[shared_board]") {
  const scratch_directory place;
  const scratch_directory elsewhere;
  const auto file = board_path(place.path());
  const auto victim = elsewhere / "victim";
  write_file(victim, "precious");
  ::chmod(victim.c_str(), 0600);
  SECTION("a symbolic link") {
    fs::create_symlink(victim, file);
  }
  SECTION("a dangling symbolic link") {
    fs::create_symlink(elsewhere / "nothing", file);
  }
  SECTION("a hard link") {
    fs::create_hard_link(victim, file);
  }
  SECTION("a directory") {
    fs::create_directory(file);
  }
  SECTION("a pipe") {
    REQUIRE(::mkfifo(file.c_str(), 0600) == 0);
  }
  SECTION("a file that others may read") {
    write_file(file, "");
    ::chmod(file.c_str(), 0640);
  }
  SECTION("a file that others may write") {
    write_file(file, "");
    ::chmod(file.c_str(), 0602);
  }
  SECTION("a file of another user") {
    write_file(file, "");
    ::chmod(file.c_str(), 0600);
    if (::chown(file.c_str(), 65534, 65534) != 0) {
      WARN("only root can make a file of another user");
      fs::remove(file);
      fs::create_directory(file);
    }
  }
  check_does_without(place.path());
  CHECK(read_file(victim) == "precious");
  CHECK_FALSE(fs::exists(elsewhere / "nothing"));
  if (fs::is_regular_file(fs::symlink_status(file)))
    CHECK(fs::file_size(file) <= 8);
}

namespace {

/// Opens the directory "real" in the one that it is asked for.
class beside : public faulty_io {
public:
  result<std::unique_ptr<directory>> open_directory(std::string_view path,
                                                    bool create) override {
    return faulty_io::open_directory(std::string(path) + "/real", create);
  }
};

} // namespace

TEST_CASE("what is mapped is the file that was checked", "[shared_board]") {
  const scratch_directory place;
  fs::create_directory(place / "real");
  const auto file = board_path(place.path());
  write_file(file, "precious");
  ::chmod(file.c_str(), 0600);
  beside door;
  check_does_without(place.path(), door);
  CHECK(read_file(file) == "precious");
}

TEST_CASE("a directory that is missing or may not be written has no board",
          "[shared_board]") {
  const scratch_directory place;
  check_does_without(place / "missing");
  REQUIRE(::chmod(place.path().c_str(), 0555) == 0);
  child stranger([&] {
    if (::geteuid() == 0 && ::seteuid(65534) != 0)
      return 2;
    shared_board board(posix_io());
    return covers(board, store_in(place.path())) ? 1 : 0;
  });
  CHECK(stranger.status() == 0);
  REQUIRE(::chmod(place.path().c_str(), 0755) == 0);
  CHECK_FALSE(fs::exists(board_path(place.path())));
}

TEST_CASE("without a boot id there is no board", "[shared_board]") {
  struct : faulty_io {
    std::string boot_id() override { return {}; }
  } door;
  const scratch_directory place;
  check_does_without(place.path(), door);
}

TEST_CASE("names that do not fit do without a board", "[shared_board]") {
  const scratch_directory place;
  shared_board board(posix_io());
  auto address = store_in(place.path());
  address.workspace = std::string(255, 'w');
  address.namespace_name = std::string(174, 'n');
  CHECK(covers(board, address));
  address.namespace_name = std::string(444 - 255, 'n');
  CHECK(covers(board, address));
  address.namespace_name += 'n';
  CHECK_FALSE(covers(board, address));
  address.workspace = std::string(100'000, 'w');
  CHECK_FALSE(covers(board, address));
}

namespace {

/// Mounts a file system of 64 KiB on `place`, for this process only.
bool mount_tiny(const char* place) {
  const int user = ::geteuid() == 0 ? 0 : CLONE_NEWUSER;
  return ::unshare(CLONE_NEWNS | user) == 0
         && ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0
         && ::mount("tiny", place, "tmpfs", 0, "size=64k") == 0;
}

} // namespace

TEST_CASE("a full disk does without a board", "[shared_board]") {
  const scratch_directory place;
  const auto backing =
      GENERATE(board_backing::file, board_backing::shared_memory_object);
  const std::string full = backing == board_backing::file
                               ? place.path().string()
                               : std::string("/dev/shm");
  child process([&] {
    if (!mount_tiny(full.c_str()))
      return skipped;
    shared_board board(posix_io(), backing);
    const auto notices = board.attach(store_in(place.path()));
    notices->announce(1);
    return notices->covers_all_processes() ? 1 : 0;
  });
  const auto status = process.status();
  if (status == skipped)
    WARN("cannot mount a small file system here");
  else
    CHECK(status == 0);
}

TEST_CASE("an object that others could use is not used", "[shared_board]") {
  const scratch_directory place;
  constexpr auto backing = board_backing::shared_memory_object;
  CHECK(is_shared(place.path(), posix_io(), backing));
  struct stat status {};
  REQUIRE(::stat(board_path(place.path()).c_str(), &status) == 0);
  CHECK(status.st_size == 0);
  const auto object = "/dev/shm/callboard." + std::to_string(::geteuid()) + '.'
                      + std::to_string(status.st_dev) + '.'
                      + std::to_string(status.st_ino);
  struct stat made {};
  REQUIRE(::stat(object.c_str(), &made) == 0);
  CHECK((made.st_mode & 07777) == 0600);
  CHECK(made.st_size == board_bytes);
  SECTION("readable") {
    ::chmod(object.c_str(), 0644);
  }
  SECTION("longer") {
    fs::resize_file(object, board_bytes + 1);
  }
  check_does_without(place.path(), posix_io(), backing);
  remove_object(place.path());
}

TEST_CASE("whatever the operating system refuses, there are notices",
          "[shared_board]") {
  const scratch_directory place;
  faulty_io dry;
  CHECK(covers(*std::make_unique<shared_board>(dry), store_in(place.path())));
  const auto count = dry.operation_count();
  REQUIRE(count > 5);
  for (std::size_t i = 0; i < count; ++i) {
    fs::remove(board_path(place.path()));
    faulty_io door;
    door.fail_at(i, errc::io_failure, faulty_io::persistence::persistent);
    CAPTURE(i);
    shared_board board(door);
    const auto notices = board.attach(store_in(place.path(), 97));
    CHECK_FALSE(notices->covers_all_processes());
    door.set_hook({});
    CHECK(covers(board, store_in(place.path(), 97)));
    CHECK(is_shared(place.path()));
  }
}

// -- Slots --------------------------------------------------------------------

TEST_CASE("a store that was made anew takes over the slot of its name",
          "[shared_board]") {
  const scratch_directory place;
  shared_board board(posix_io());
  const auto old = board.attach(store_in(place.path(), 1));
  old->announce(5);
  old->poison(3);
  shared_board other(posix_io());
  const auto fresh = other.attach(store_in(place.path(), 2));
  CHECK(fresh->durable_sequence() == 0);
  CHECK_FALSE(fresh->poisoned_from());
  CHECK(fresh->covers_all_processes());
  CHECK_FALSE(old->covers_all_processes());
  old->announce(9);
  old->poison(7);
  old->note_base_epoch(7);
  CHECK(fresh->durable_sequence() == 0);
  CHECK_FALSE(fresh->poisoned_from());
  fresh->announce(1);
  fresh->poison(2);
  old->clear_poison();
  CHECK(fresh->durable_sequence() == 1);
  CHECK(fresh->poisoned_from() == 2U);
  CHECK(taken_slots(board_path(place.path())).size() == 1);
  CHECK(need(read_board(posix_io(), place.path().string()))[0].base_epoch == 0);
}

TEST_CASE("a word that another store leaves in a slot does not pass",
          "[shared_board]") {
  const scratch_directory place;
  const auto file = board_path(place.path());
  shared_board board(posix_io());
  const auto notices = board.attach(store_in(place.path(), 2));
  notices->announce(4);
  const auto slot = only_slot(file);
  const board_store_keys others(store_in(place.path(), 1).id);
  put_word(file, slot + 16, sequence_word(9, others.check_key));
  put_word(file, slot + 24, sequence_word(9, others.check_key));
  CHECK(notices->durable_sequence() == 0);
  CHECK_FALSE(notices->poisoned_from());
  notices->announce(5);
  notices->poison(11);
  CHECK(notices->durable_sequence() == 5);
  CHECK(notices->poisoned_from() == 11U);
}

TEST_CASE("of random words one in 65536 passes for a sequence",
          "[shared_board]") {
  CAPTURE(Catch::rngSeed());
  std::mt19937_64 random(Catch::rngSeed());
  const auto key = random();
  int passed = 0;
  for (int i = 0; i < 1'000'000; ++i)
    if (sequence_in(random(), key) != 0)
      ++passed;
  CHECK(passed < 100); // 15 are expected
  CHECK(sequence_in(0, key) == 0);
  for (const auto sequence :
       {std::uint64_t{1}, random() >> 16, board_sequence_max})
    CHECK(sequence_in(sequence_word(sequence, key), key) == sequence);
}

TEST_CASE("garbage in a board that is in use is never shown",
          "[shared_board]") {
  const scratch_directory place;
  const auto file = board_path(place.path());
  const auto seed = GENERATE(range(1U, 9U));
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  shared_board board(posix_io());
  const auto notices = board.attach(store_in(place.path()));
  notices->announce(5);
  notices->poison(5);
  put_bytes(file, 0, random_bytes(random, board_bytes));
  CHECK_FALSE(notices->covers_all_processes());
  CHECK(notices->durable_sequence() == 0);
  CHECK_FALSE(notices->poisoned_from());
  notices->note_base_epoch(1);
  notices->announce(6);
  board.wait(board.announcements(), no_time);
  CHECK(is_shared(place.path()));
  CHECK(covers(board, store_in(place.path())));
}

TEST_CASE("garbage in the words of a store is never shown", "[shared_board]") {
  const scratch_directory place;
  const auto file = board_path(place.path());
  std::mt19937_64 random(1); // with this seed, none of 2000 words passes
  shared_board board(posix_io());
  const auto notices = board.attach(store_in(place.path()));
  const auto slot = only_slot(file);
  for (int i = 0; i < 1000; ++i) {
    put_bytes(file, slot + 16, random_bytes(random, 48));
    REQUIRE(notices->durable_sequence() == 0);
    REQUIRE_FALSE(notices->poisoned_from());
  }
}

TEST_CASE("a slot is known by its whole name, not by the hash of it",
          "[shared_board]") {
  const scratch_directory place;
  const auto file = board_path(place.path());
  {
    shared_board board(posix_io());
    board.attach(store_in(place.path()))->announce(5);
  }
  const auto slot = only_slot(file);
  // Now it is of a store with another name and the same hash.
  const auto name = names_offset + (slot - slots_offset) / 64 * 448;
  put_bytes(file, name + 4 + 5, "c");
  put_bytes(file, name + 4 + 6, "k");
  shared_board board(posix_io());
  const auto notices = board.attach(store_in(place.path()));
  CHECK(notices->covers_all_processes());
  CHECK(notices->durable_sequence() == 0);
  CHECK(taken_slots(file).size() == 2);
}

TEST_CASE("a slot whose claim was left half done is free", "[shared_board]") {
  const scratch_directory place;
  const auto file = board_path(place.path());
  std::mt19937_64 random(Catch::rngSeed());
  CAPTURE(Catch::rngSeed());
  {
    shared_board board(posix_io());
    board.attach(store_in(place.path()))->announce(5);
  }
  const auto slot = only_slot(file);
  put_word(file, slot, 0);
  put_bytes(file, slot + 8, random_bytes(random, 56));
  put_bytes(file, names_offset + (slot - slots_offset) / 64 * 448,
            random_bytes(random, 448));
  shared_board board(posix_io());
  const auto notices = board.attach(store_in(place.path()));
  CHECK(notices->covers_all_processes());
  CHECK(notices->durable_sequence() == 0);
  CHECK_FALSE(notices->poisoned_from());
  CHECK(only_slot(file) == slot);
}

TEST_CASE("a full board serves the stores that it knows", "[shared_board]") {
  const scratch_directory place;
  shared_board board(posix_io());
  const auto first = board.attach(store_in(place.path(), 1, "ns0"));
  for (std::uint32_t i = 1; i < board_slot_count; ++i)
    REQUIRE(covers(board, store_in(place.path(), 1, "ns" + std::to_string(i))));
  CHECK_FALSE(covers(board, store_in(place.path(), 1, "one more")));
  first->announce(3);
  shared_board other(posix_io());
  CHECK(other.attach(store_in(place.path(), 1, "ns0"))->durable_sequence()
        == 3);
  CHECK(covers(other, store_in(place.path(), 1, "ns4095")));
}

// -- Replaced boards ----------------------------------------------------------

TEST_CASE("notices stop covering when the board's file is removed",
          "[shared_board]") {
  const scratch_directory place;
  const auto file = board_path(place.path());
  faulty_io door;
  door.stop_steady_clock();
  shared_board board(door);
  const auto old = board.attach(store_in(place.path()));
  old->announce(5);
  const bool is_made_anew = GENERATE(false, true);
  fs::remove(file);
  if (is_made_anew)
    CHECK(is_shared(place.path()));
  door.pause(std::chrono::milliseconds(500));
  board.wait(board.announcements() + 1, no_time);
  CHECK_FALSE(old->covers_all_processes());
  const auto fresh = board.attach(store_in(place.path()));
  CHECK(fresh != old);
  CHECK(fresh->covers_all_processes());
  CHECK_FALSE(old->covers_all_processes());
  fresh->announce(8);
  shared_board other(posix_io());
  CHECK(other.attach(store_in(place.path()))->durable_sequence() == 8);
}

TEST_CASE("to attach a store is to find out that the board was replaced",
          "[shared_board]") {
  const scratch_directory place;
  shared_board board(posix_io());
  const auto old = board.attach(store_in(place.path()));
  fs::remove(board_path(place.path()));
  CHECK(covers(board, store_in(place.path(), 1, "entities")));
  CHECK_FALSE(old->covers_all_processes());
}

TEST_CASE("to attach a store is to find out that the board was damaged",
          "[shared_board]") {
  const scratch_directory place;
  shared_board board(posix_io());
  const auto old = board.attach(store_in(place.path()));
  put_word(board_path(place.path()), 0, 1);
  const auto fresh = board.attach(store_in(place.path(), 1, "entities"));
  CHECK(is_shared(place.path()));
  CHECK(fresh->covers_all_processes());
  CHECK_FALSE(old->covers_all_processes());
}

TEST_CASE("a board that is replaced while its lock is awaited is not used",
          "[shared_board]") {
  const scratch_directory place;
  bool is_replaced = false;
  faulty_io door;
  door.set_hook([&](const operation& next) {
    if (next.kind == operation_kind::lock && !is_replaced) {
      is_replaced = true;
      fs::remove(board_path(place.path()));
      CHECK(is_shared(place.path()));
    }
    return fault::none();
  });
  shared_board board(door);
  const auto notices = board.attach(store_in(place.path()));
  REQUIRE(is_replaced);
  CHECK(notices->covers_all_processes());
  notices->announce(4);
  shared_board other(posix_io());
  CHECK(other.attach(store_in(place.path()))->durable_sequence() == 4);
}

// -- Killed processes ---------------------------------------------------------

namespace {

constexpr std::size_t killed_names = 5;

/// What a child was about to announce, and what it had announced.
struct progress {
  std::atomic<bool> is_running;
  std::array<std::atomic<std::uint64_t>, killed_names> begun;
  std::array<std::atomic<std::uint64_t>, killed_names> done;
};

std::string name_of(std::size_t index) {
  return "ns" + std::to_string(index);
}

/// Attaches and announces until it is killed.
int announce_for_ever(const fs::path& place, progress& shared) {
  for (std::uint64_t i = 0;; ++i) {
    shared_board board(posix_io());
    for (std::size_t k = 0; k < killed_names; ++k) {
      const auto notices = board.attach(store_in(place, 1, name_of(k)));
      shared.is_running = true;
      for (int repeat = 0; repeat < 20; ++repeat) {
        const auto next = shared.done[k] + 1;
        shared.begun[k] = next;
        notices->announce(next);
        shared.done[k] = next;
      }
    }
  }
}

} // namespace

TEST_CASE("a process that is killed at any instant leaves a board that works",
          "[shared_board]") {
  CAPTURE(Catch::rngSeed());
  std::mt19937_64 random(Catch::rngSeed());
  const scratch_directory place;
  const auto file = board_path(place.path());
  const shared_value<progress> shared;
  for (int round = 0; round < 240; ++round) {
    CAPTURE(round);
    // Every third finds no board, or has to empty it, before it announces.
    const auto damage = random() % 6;
    if (damage == 0)
      fs::remove(file);
    else if (damage == 1 && fs::exists(file))
      put_word(file, 0, random());
    shared->is_running = damage < 2; // it may be killed while it makes it
    child announcer([&] { return announce_for_ever(place.path(), *shared); });
    while (!shared->is_running)
      ::sched_yield();
    for (auto looks = random() % 300'000; looks > 0; --looks)
      (void)shared->is_running.load();
    REQUIRE(announcer.kill() == 128 + SIGKILL);
    shared_board board(posix_io());
    for (std::size_t k = 0; k < killed_names; ++k) {
      const auto notices = board.attach(store_in(place.path(), 1, name_of(k)));
      REQUIRE(notices->covers_all_processes());
      REQUIRE(notices->durable_sequence() <= shared->begun[k]);
      if (damage >= 2)
        REQUIRE(notices->durable_sequence() >= shared->done[k]);
      REQUIRE_FALSE(notices->poisoned_from());
      shared->done[k] = shared->begun[k].load();
      notices->announce(shared->done[k]);
      REQUIRE(notices->durable_sequence() == shared->done[k]);
    }
    REQUIRE(is_shared(place.path()));
  }
}

TEST_CASE("a process that ends at any call leaves a board that works",
          "[shared_board]") {
  const scratch_directory place;
  faulty_io dry;
  CHECK(covers(*std::make_unique<shared_board>(dry), store_in(place.path())));
  for (std::size_t i = 0; i < dry.operation_count(); ++i) {
    CAPTURE(i);
    fs::remove(board_path(place.path()));
    child process([&] {
      faulty_io door;
      door.exit_at(i, faulty_io::moment::after);
      shared_board board(door);
      (void)board.attach(store_in(place.path()));
      return 1;
    });
    CHECK(process.status() == faulty_io::exit_status);
    CHECK(is_shared(place.path()));
  }
}

TEST_CASE("a child that was forked under the lock does not keep it",
          "[shared_board]") {
  const scratch_directory place;
  std::optional<child> bystander;
  faulty_io door;
  door.set_hook([&](const operation& next) {
    // The first operation under the lock.
    if (next.kind == operation_kind::status && !bystander)
      bystander.emplace([] { return ::pause(); });
    return fault::none();
  });
  shared_board board(door);
  CHECK(covers(board, store_in(place.path())));
  REQUIRE(bystander);
  CHECK(is_shared(place.path()));
}
