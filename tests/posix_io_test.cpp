#include "core/io.hpp"
#include "tests/support/child_process.hpp"
#include "tests/support/scratch_directory.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <sched.h>
#include <string>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

using namespace callboard;
using namespace callboard::test;
using namespace std::chrono_literals;

namespace {

struct synced_file {
  ino_t inode = 0;
  bool is_data_only = false;

  bool operator==(const synced_file&) const = default;
};

/// What this thread has asked the kernel to sync last.
thread_local synced_file last_synced;

int sync_by(long call, int descriptor) {
  struct stat info {};
  ::fstat(descriptor, &info);
  last_synced = {info.st_ino, call == SYS_fdatasync};
  return static_cast<int>(::syscall(call, descriptor));
}

} // namespace

// In place of the C library's: no test could tell otherwise, without cutting
// the power, whether syncs are made.

extern "C" int fsync(int descriptor) {
  return sync_by(SYS_fsync, descriptor);
}

extern "C" int fdatasync(int descriptor) {
  return sync_by(SYS_fdatasync, descriptor);
}

namespace {

constexpr std::size_t mebibyte = std::size_t{1} << 20;

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

template <class T>
errc code_of(const result<T>& outcome) {
  REQUIRE_FALSE(outcome.has_value());
  return outcome.error().code;
}

/// An empty directory, gone after the test.
class scratch {
public:
  scratch() { directory_ = need(posix_io().open_directory(path_, false)); }
  directory& operator*() const { return *directory_; }
  directory* operator->() const { return directory_.get(); }
  const std::string& path() const { return path_; }
  std::string path(std::string_view name) const {
    return path_ + '/' + std::string(name);
  }

  std::unique_ptr<file> open(std::string_view name,
                             open_mode mode = open_mode::create) const {
    return need(directory_->open_file(name, mode));
  }

  /// Makes the file `name` with this content.
  std::unique_ptr<file> make(std::string_view name,
                             std::string_view content) const {
    auto made = open(name, open_mode::create_empty);
    need(made->append(0, bytes_of(content)));
    return made;
  }

  std::string content(std::string_view name) const {
    auto opened = open(name, open_mode::read);
    std::string text(need(opened->status()).size_bytes, '\0');
    const auto count =
        need(opened->read_at(0, std::as_writable_bytes(std::span(text))));
    REQUIRE(count == text.size());
    return text;
  }

  std::vector<std::string> names() const {
    auto found = need(directory_->list());
    std::sort(found.begin(), found.end());
    return found;
  }

private:
  scratch_directory place_;
  std::string path_ = place_.path().string();
  std::unique_ptr<directory> directory_;
};

/// Does `work` with no more rights than anybody has. The kernel keeps rights
/// per thread; only the C library makes them the process's.
void without_privileges(const std::function<void()>& work) {
  constexpr long nobody = 65534;
  bool ready = false;
  std::thread([&] {
    ready = ::geteuid() != 0 || ::syscall(SYS_setresuid, -1, nobody, -1) == 0;
    if (ready)
      work();
  }).join();
  REQUIRE(ready);
}

/// The number of the descriptor that has `path` open; -1 if there is none.
int descriptor_of(const std::string& path) {
  for (const auto& entry :
       std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code gone;
    if (std::filesystem::read_symlink(entry.path(), gone) == path)
      return std::stoi(entry.path().filename());
  }
  return -1;
}

} // namespace

TEST_CASE("every error class has its own stable name", "[result]") {
  CHECK(to_string(errc::invalid_argument) == "invalid_argument");
  CHECK(to_string(errc::not_found) == "not_found");
  std::vector<std::string_view> names;
  for (int code = 1; code <= static_cast<int>(errc::not_found); ++code)
    names.push_back(to_string(static_cast<errc>(code)));
  std::sort(names.begin(), names.end());
  CHECK(std::adjacent_find(names.begin(), names.end()) == names.end());
  CHECK(std::find(names.begin(), names.end(), "unknown") == names.end());
}

TEST_CASE("what was written is read back", "[posix_io]") {
  const scratch place;
  auto opened = place.open("a");
  need(opened->append(0, bytes_of("hello ")));
  need(opened->append(6, bytes_of("world")));
  need(opened->write_at(0, bytes_of("J")));
  need(opened->append(11, {}));
  need(opened->sync_data());
  need(opened->sync());
  CHECK(place.content("a") == "Jello world");

  need(opened->truncate(5));
  std::array<std::byte, 16> buffer{};
  CHECK(need(opened->read_at(1, buffer)) == 4);
  CHECK(need(opened->read_at(5, buffer)) == 0);
  CHECK(need(opened->read_at(500, buffer)) == 0);
  CHECK(need(opened->read_at(0, {})) == 0);
}

TEST_CASE("the open modes make, keep and empty files as they promise",
          "[posix_io]") {
  const scratch place;
  CHECK(code_of(place->open_file("a", open_mode::read)) == errc::not_found);
  CHECK(code_of(place->open_file("a", open_mode::read_write))
        == errc::not_found);
  place.make("a", "text");
  place.open("a", open_mode::create);
  place.open("a", open_mode::read_write);
  CHECK(place.content("a") == "text");
  place.open("a", open_mode::create_empty);
  CHECK(place.content("a").empty());

  auto reader = place.open("a", open_mode::read);
  CHECK(code_of(reader->write_at(0, bytes_of("x"))) == errc::io_failure);
}

TEST_CASE("files are made with mode 0600 and directories with mode 0700",
          "[posix_io]") {
  const scratch place;
  auto made = place.open("a");
  need(place->open_directory("b", true));
  CHECK(need(made->status()).mode == 0600);
  const auto inner = need(place->status("b"));
  CHECK(inner.mode == 0700);
  CHECK(inner.is_directory);
  CHECK_FALSE(inner.is_regular);

  need(made->set_mode(0644));
  const auto status = need(place->status("a"));
  CHECK(status.mode == 0644);
  CHECK(status.is_regular);
  CHECK(status.link_count == 1);
  CHECK(status.identity == need(made->status()).identity);
  CHECK(status.modified_ns > 0);
}

TEST_CASE("a name that is not one path component is refused", "[posix_io]") {
  using namespace std::string_view_literals;
  const scratch place;
  place.make("a", "text");
  const auto name =
      GENERATE(""sv, "."sv, ".."sv, "a/b"sv, "/"sv, "/etc"sv, "a\0b"sv);
  CAPTURE(name);
  constexpr auto refused = errc::invalid_argument;
  CHECK(code_of(place->open_file(name, open_mode::create)) == refused);
  CHECK(code_of(place->open_directory(name, true)) == refused);
  CHECK(code_of(place->status(name)) == refused);
  CHECK(code_of(place->rename(name, "x")) == refused);
  CHECK(code_of(place->rename("a", name)) == refused);
  CHECK(code_of(place->link(name, *place, "x")) == refused);
  CHECK(code_of(place->link("a", *place, name)) == refused);
  CHECK(code_of(place->remove(name)) == refused);
  CHECK(place.names() == std::vector<std::string>{"a"});
}

TEST_CASE("files of this machine are known as such", "[posix_io]") {
  const scratch place;
  CHECK(need(place->kept_by()) == file_system::local);
}

TEST_CASE("a symbolic link is never followed", "[posix_io]") {
  const scratch place;
  place.make("file", "text");
  need(place->open_directory("inner", true));
  REQUIRE(::symlink("file", place.path("to_file").c_str()) == 0);
  REQUIRE(::symlink("missing", place.path("to_nothing").c_str()) == 0);
  REQUIRE(::symlink("inner", place.path("to_inner").c_str()) == 0);

  for (const auto mode : {open_mode::read, open_mode::read_write,
                          open_mode::create, open_mode::create_empty}) {
    for (const auto* name : {"to_file", "to_nothing"}) {
      const auto refused = place->open_file(name, mode);
      CHECK(code_of(refused) == errc::io_failure);
      CHECK(contains(refused.error().message, "symbolic link"));
    }
  }
  CHECK(place.content("file") == "text");
  for (const bool create : {false, true}) {
    const auto refused = place->open_directory("to_inner", create);
    CHECK(code_of(refused) == errc::io_failure);
    CHECK(contains(refused.error().message, "symbolic link"));
  }
  CHECK_FALSE(need(place->status("to_file")).is_regular);
}

TEST_CASE("what is no regular file is not opened as one, and never hangs",
          "[posix_io]") {
  const scratch place;
  REQUIRE(::mkfifo(place.path("fifo").c_str(), 0600) == 0);
  need(place->open_directory("inner", true));
  for (const auto mode :
       {open_mode::read, open_mode::read_write, open_mode::create}) {
    CHECK(code_of(place->open_file("fifo", mode)) == errc::io_failure);
    CHECK(code_of(place->open_file("inner", mode)) == errc::io_failure);
  }
  place.make("file", "");
  CHECK(code_of(place->open_directory("file", false)) == errc::io_failure);
}

TEST_CASE("a failure names the operation, the path and the errno",
          "[posix_io]") {
  const scratch place;
  const auto refused = place->open_file("gone", open_mode::read);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().message
        == "cannot open \"" + place.path("gone")
               + "\": No such file or directory (ENOENT, errno 2)");
}

TEST_CASE("an append to a file that somebody else changed is refused",
          "[posix_io]") {
  const scratch place;
  auto ours = place.make("log", "12345");
  need(place.open("log")->write_at(5, bytes_of("foreign")));
  const auto refused = ours->append(5, bytes_of("6"));
  CHECK(code_of(refused) == errc::broken);
  CHECK(contains(refused.error().message, place.path("log")));
  CHECK(place.content("log") == "12345foreign");

  need(place.open("log")->truncate(3));
  CHECK(code_of(ours->append(5, bytes_of("6"))) == errc::broken);
  CHECK(place.content("log") == "123");
}

TEST_CASE("a mapping has the file's first bytes and outlives the file",
          "[posix_io]") {
  const scratch place;
  const auto mode = GENERATE(map_mode::shared, map_mode::copied);
  auto opened = place.make("base", "0123456789");
  const auto none = need(opened->map(0, mode));
  const auto some = need(opened->map(4, mode));
  const auto all = need(opened->map(10, mode));
  opened.reset();
  need(place->remove("base"));
  CHECK(none->bytes().empty());
  CHECK(text_of(some->bytes()) == "0123");
  CHECK(text_of(all->bytes()) == "0123456789");
}

TEST_CASE("mapping more than a file has is refused", "[posix_io]") {
  const scratch place;
  const auto mode = GENERATE(map_mode::shared, map_mode::copied);
  auto opened = place.make("base", "0123456789");
  CHECK(code_of(opened->map(11, mode)) == errc::corrupt);
  CHECK(code_of(opened->map(std::numeric_limits<std::uint64_t>::max(), mode))
        == errc::corrupt);
}

TEST_CASE("a copied mapping does not see later changes of the file",
          "[posix_io]") {
  const scratch place;
  std::string content(5 * mebibyte + 3, 'a');
  content.back() = 'z';
  auto opened = place.make("base", content);
  const auto copied = need(opened->map(content.size(), map_mode::copied));
  need(opened->truncate(0));
  CHECK((text_of(copied->bytes()) == content));
}

TEST_CASE("a lock excludes other opens of the file in this process",
          "[posix_io][lock]") {
  const scratch place;
  auto first = place.open("LOCK");
  auto second = place.open("LOCK");
  need(first->lock(0, lock_mode::exclusive, 0ms));
  const auto refused = second->lock(0, lock_mode::shared, 20ms);
  CHECK(code_of(refused) == errc::busy);
  CHECK(contains(refused.error().message, place.path("LOCK")));
  CHECK(contains(refused.error().message, " ms"));
  CHECK(code_of(second->lock(0, lock_mode::exclusive, -1ms)) == errc::busy);
  need(second->lock(1, lock_mode::exclusive, 0ms));

  first->unlock(0);
  need(second->lock(0, lock_mode::exclusive, 0ms));
}

TEST_CASE("a lock is kept when another open of its file is closed",
          "[posix_io][lock]") {
  const scratch place;
  auto holder = place.open("LOCK");
  need(holder->lock(0, lock_mode::exclusive, 0ms));
  place.open("LOCK");
  std::ifstream(place.path("LOCK")).get();
  auto other = place.open("LOCK");
  CHECK(code_of(other->lock(0, lock_mode::exclusive, 0ms)) == errc::busy);
  holder.reset();
  need(other->lock(0, lock_mode::exclusive, 0ms));
}

TEST_CASE("shared locks exclude only exclusive ones", "[posix_io][lock]") {
  const scratch place;
  place.open("LOCK");
  auto first = place.open("LOCK", open_mode::read);
  auto second = place.open("LOCK", open_mode::read);
  auto writer = place.open("LOCK");
  need(first->lock(0, lock_mode::shared, 0ms));
  need(second->lock(0, lock_mode::shared, 0ms));
  CHECK(code_of(writer->lock(0, lock_mode::exclusive, 0ms)) == errc::busy);
  first->unlock(0);
  CHECK(code_of(writer->lock(0, lock_mode::exclusive, 0ms)) == errc::busy);
  second->unlock(0);
  need(writer->lock(0, lock_mode::exclusive, 0ms));
  CHECK(code_of(first->lock(0, lock_mode::exclusive, 0ms)) == errc::io_failure);
}

TEST_CASE("who waits for a lock gets it when it is released",
          "[posix_io][lock]") {
  const scratch place;
  auto holder = place.open("LOCK");
  auto waiter = place.open("LOCK");
  need(holder->lock(0, lock_mode::exclusive, 0ms));
  result<void> outcome;
  std::thread waiting([&] {
    outcome =
        waiter->lock(0, lock_mode::exclusive, std::chrono::milliseconds::max());
  });
  holder->unlock(0);
  waiting.join();
  need(outcome);
}

TEST_CASE("a lock excludes other processes until its holder is killed",
          "[posix_io][lock]") {
  const scratch place;
  child_process holder([&](const pipe_end& parent) {
    auto held = place.open("LOCK");
    need(held->lock(0, lock_mode::exclusive, 0ms));
    return parent.say("locked") && parent.hears("end");
  });
  REQUIRE(holder.hears("locked"));
  auto ours = place.open("LOCK");
  CHECK(code_of(ours->lock(0, lock_mode::exclusive, 0ms)) == errc::busy);
  holder.kill();
  need(ours->lock(0, lock_mode::exclusive, 0ms));
}

TEST_CASE("a lock is got by a process that waits for another one to release it",
          "[posix_io][lock]") {
  const scratch place;
  auto ours = place.open("LOCK");
  need(ours->lock(0, lock_mode::exclusive, 0ms));
  child_process waiter([&](const pipe_end& parent) {
    auto wanted = place.open("LOCK");
    REQUIRE(code_of(wanted->lock(0, lock_mode::exclusive, 1ms)) == errc::busy);
    return parent.say("waiting")
           && wanted->lock(0, lock_mode::exclusive, 1h).has_value();
  });
  REQUIRE(waiter.hears("waiting"));
  ours->unlock(0);
  CHECK(waiter.wait() == child_process::succeeded);
}

TEST_CASE("all who want a lock again and again get it as often as they want",
          "[posix_io][lock]") {
  const scratch place;
  std::array<std::thread, 4> many;
  std::array<int, many.size()> taken{};
  std::atomic<int> inside = 0;
  std::atomic<bool> alone = true;
  for (std::size_t i = 0; i < many.size(); ++i)
    many[i] = std::thread([&, i, mine = place.open("LOCK")] {
      while (taken[i] < 200 && mine->lock(0, lock_mode::exclusive, 1h)) {
        if (++inside != 1)
          alone = false;
        --inside;
        ++taken[i];
        mine->unlock(0);
      }
    });
  for (auto& each : many)
    each.join();
  CHECK(alone);
  CHECK(std::count(taken.begin(), taken.end(), 200) == int{many.size()});
}

// -- Forks --------------------------------------------------------------------

namespace {

/// Makes a child that holds byte 0 of LOCK, and a child of that one which is
/// forked when `fork_now` returns; kills the first. The second, an heir to
/// all that the first had open, lives until `heir` is gone.
void leave_to_an_heir(const scratch& place, child_process& heir) {
  REQUIRE(heir.hears("locked"));
  auto other = place.open("LOCK");
  CHECK(code_of(other->lock(0, lock_mode::exclusive, 0ms)) == errc::busy);
  heir.kill();
  REQUIRE(heir.say("are you there?"));
  REQUIRE(heir.hears("here is the heir"));
  need(other->lock(0, lock_mode::exclusive, 0ms));
}

/// What the heir does, in a child of the child.
void fork_heir(const pipe_end& parent) {
  const auto id = ::fork();
  if (id != 0) {
    REQUIRE(id > 0);
    return;
  }
  static_cast<void>(parent.hears("are you there?")
                    && parent.say("here is the heir") && parent.hear());
  ::_exit(0);
}

} // namespace

TEST_CASE("a lock ends with its process even if a child of that lives on",
          "[posix_io][lock][fork]") {
  const scratch place;
  const bool forks_first = GENERATE(false, true);
  CAPTURE(forks_first);
  child_process holder([&](const pipe_end& parent) -> bool {
    auto held = place.open("LOCK");
    if (forks_first)
      fork_heir(parent);
    need(held->lock(0, lock_mode::exclusive, 0ms));
    if (!forks_first)
      fork_heir(parent);
    parent.say("locked");
    for (;;)
      ::pause();
  });
  leave_to_an_heir(place, holder);
}

TEST_CASE("a lock that is waited for while a child is forked ends with its "
          "process",
          "[posix_io][lock][fork]") {
  const scratch place;
  child_process holder([&](const pipe_end& parent) {
    auto first = place.open("LOCK");
    need(first->lock(0, lock_mode::exclusive, 0ms));
    std::thread waiting([&] {
      auto held = place.open("LOCK");
      parent.say(held->lock(0, lock_mode::exclusive, 1h) ? "locked" : "failed");
      for (;;)
        ::pause();
    });
    fork_heir(parent);
    first.reset();
    waiting.join();
    return false;
  });
  leave_to_an_heir(place, holder);
}

TEST_CASE("a child can do nothing with the files that it inherits, nor to them",
          "[posix_io][lock][fork]") {
  const scratch place;
  auto ours = place.make("LOCK", "text");
  need(ours->lock(0, lock_mode::exclusive, 0ms));
  child_process child([&](const pipe_end&) {
    std::array<std::byte, 4> buffer{};
    REQUIRE(code_of(ours->read_at(0, buffer)) == errc::io_failure);
    REQUIRE(code_of(ours->write_at(0, buffer)) == errc::io_failure);
    REQUIRE(code_of(ours->truncate(0)) == errc::io_failure);
    REQUIRE(code_of(ours->sync()) == errc::io_failure);
    REQUIRE(code_of(ours->map(4, map_mode::shared)) == errc::io_failure);
    REQUIRE(code_of(ours->lock(1, lock_mode::shared, 0ms)) == errc::io_failure);
    ours->unlock(0);
    // Its number is no other file's before it is closed.
    auto fresh = place.open("LOCK");
    REQUIRE(code_of(fresh->lock(0, lock_mode::exclusive, 0ms)) == errc::busy);
    ours.reset();
    REQUIRE(need(fresh->read_at(0, buffer)) == 4);
    return code_of(fresh->lock(0, lock_mode::exclusive, 0ms)) == errc::busy;
  });
  CHECK(child.wait() == child_process::succeeded);
  auto other = place.open("LOCK");
  CHECK(code_of(other->lock(0, lock_mode::exclusive, 0ms)) == errc::busy);
  CHECK(place.content("LOCK") == "text");
  ours.reset();
  need(other->lock(0, lock_mode::exclusive, 0ms));
}

TEST_CASE("a child does not get the number of an inherited file for another",
          "[posix_io][fork]") {
  const scratch place;
  const auto ours = place.open("a");
  const int number = descriptor_of(std::filesystem::canonical(place.path("a")));
  REQUIRE(number > STDERR_FILENO);
  child_process child([&](const pipe_end&) {
    REQUIRE((::fcntl(number, F_GETFD) & FD_CLOEXEC) != 0);
    place.open("b");
    return descriptor_of(std::filesystem::canonical(place.path("a"))) == -1;
  });
  CHECK(child.wait() == child_process::succeeded);
}

TEST_CASE("a closed file's number means nothing to a later child",
          "[posix_io][fork]") {
  const scratch place;
  int pair[2];
  {
    const auto closed = place.open("a");
    const auto also_closed = place.open("b");
  }
  REQUIRE(::pipe2(pair, O_CLOEXEC) == 0);
  child_process child(
      [&](const pipe_end&) { return ::write(pair[1], "x", 1) == 1; });
  CHECK(child.wait() == child_process::succeeded);
  ::close(pair[0]);
  ::close(pair[1]);
}

TEST_CASE("list names everything once, each time it is asked", "[posix_io]") {
  const scratch place;
  CHECK(place.names().empty());
  place.make("b", "");
  place.make(".hidden", "");
  need(place->open_directory("a", true));
  const std::vector<std::string> expected{".hidden", "a", "b"};
  CHECK(place.names() == expected);
  CHECK(place.names() == expected);
  need(place->remove("b"));
  CHECK(place.names() == std::vector<std::string>{".hidden", "a"});
  CHECK(code_of(place->remove("b")) == errc::not_found);
  CHECK(code_of(place->remove("a")) == errc::io_failure);
}

TEST_CASE("each sync reaches the kernel", "[posix_io]") {
  const scratch place;
  const auto opened = place.make("a", "text");
  const auto inode = need(opened->status()).identity.inode;
  need(opened->sync_data());
  CHECK(last_synced == synced_file{inode, true});
  need(opened->sync());
  CHECK(last_synced == synced_file{inode, false});
  need(place->sync());
  struct stat directory {};
  REQUIRE(::stat(place.path().c_str(), &directory) == 0);
  CHECK(last_synced == synced_file{directory.st_ino, false});

  const auto made = need(posix_io().open_directory(place.path("b"), true));
  CHECK(last_synced == synced_file{directory.st_ino, false});
}

TEST_CASE("a further name for a file can replace an older file", "[posix_io]") {
  const scratch place;
  auto inner = need(place->open_directory("inner", true));
  need(need(inner->open_file("base-2", open_mode::create))
           ->append(0, bytes_of("new")));
  place.make("published", "old");

  need(inner->link("base-2", *place, "published.tmp"));
  CHECK(code_of(inner->link("base-2", *place, "published.tmp"))
        == errc::io_failure);
  CHECK(code_of(inner->link("gone", *place, "x")) == errc::not_found);
  need(place->rename("published.tmp", "published"));
  need(place->sync());
  need(inner->sync());
  CHECK(place.content("published") == "new");
  CHECK(place.names() == std::vector<std::string>{"inner", "published"});
  const auto status = need(place->status("published"));
  CHECK(status.identity == need(inner->status("base-2")).identity);
  CHECK(status.link_count == 2);
}

TEST_CASE("rename removes the old name even if both name one file",
          "[posix_io]") {
  const scratch place;
  place.make("a", "text");
  need(place->link("a", *place, "a.tmp"));
  need(place->rename("a.tmp", "a"));
  CHECK(place.names() == std::vector<std::string>{"a"});
  need(place->rename("a", "a"));
  CHECK(place.content("a") == "text");
  CHECK(code_of(place->rename("gone", "a")) == errc::not_found);
}

TEST_CASE("a directory is made with its parents, with the user's permissions",
          "[posix_io]") {
  const scratch place;
  const auto deep = place.path("x/y//z/");
  CHECK(code_of(posix_io().open_directory(deep, false)) == errc::not_found);
  const auto old_mask = ::umask(027);
  const auto made = posix_io().open_directory(deep, true);
  ::umask(old_mask);
  REQUIRE(made);
  CHECK(made.value()->path() == place.path("x/y//z"));
  CHECK(need(place->status("x")).mode == 0750);
  need(made.value()->open_file("a", open_mode::create));
  CHECK(std::filesystem::exists(place.path("x/y/z/a")));
}

TEST_CASE("an unusable directory path is refused", "[posix_io]") {
  using namespace std::string_view_literals;
  const scratch place;
  place.make("file", "");
  CHECK(code_of(posix_io().open_directory("", true)) == errc::invalid_argument);
  CHECK(code_of(posix_io().open_directory("/tmp\0x"sv, true))
        == errc::invalid_argument);
  CHECK(code_of(posix_io().open_directory(place.path("file"), true))
        == errc::io_failure);
  CHECK(code_of(posix_io().open_directory(place.path("file/x"), true))
        == errc::io_failure);
  need(posix_io().open_directory("/", true));
  need(posix_io().open_directory(".", true));
}

TEST_CASE("files never take the numbers of the standard streams",
          "[posix_io]") {
  const scratch place;
  const int saved = ::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 10);
  ::close(STDIN_FILENO);
  const auto opened = place->open_file("a", open_mode::create);
  const bool still_free = ::fcntl(STDIN_FILENO, F_GETFD) == -1;
  if (saved >= 0) {
    ::dup2(saved, STDIN_FILENO);
    ::close(saved);
  }
  REQUIRE(opened);
  CHECK(still_free);
}

TEST_CASE("open files and directories are closed by exec", "[posix_io]") {
  const scratch place;
  const auto opened = place.open("a");
  for (const auto& path : {place.path(), place.path("a")}) {
    const int number = descriptor_of(std::filesystem::canonical(path));
    REQUIRE(number > STDERR_FILENO);
    CHECK((::fcntl(number, F_GETFD) & FD_CLOEXEC) != 0);
  }
}

TEST_CASE("what the user may not touch is permission_denied", "[posix_io]") {
  const scratch place;
  REQUIRE(::chmod(place.path().c_str(), 0755) == 0);
  need(place.make("secret", "text")->set_mode(0));
  need(place->open_directory("closed", true));
  REQUIRE(::chmod(place.path("closed").c_str(), 0) == 0);
  REQUIRE(::chmod(place.path().c_str(), 0555) == 0);

  result<std::unique_ptr<file>> secret{failure{}};
  result<std::unique_ptr<file>> fresh{failure{}};
  result<std::unique_ptr<directory>> closed{failure{}};
  result<std::unique_ptr<directory>> below{failure{}};
  without_privileges([&] {
    secret = place->open_file("secret", open_mode::read);
    fresh = place->open_file("fresh", open_mode::create);
    closed = place->open_directory("closed", false);
    below = posix_io().open_directory(place.path("closed/x/y"), true);
  });
  REQUIRE(::chmod(place.path().c_str(), 0755) == 0);
  REQUIRE(::chmod(place.path("closed").c_str(), 0700) == 0);
  CHECK(code_of(secret) == errc::permission_denied);
  CHECK(code_of(fresh) == errc::permission_denied);
  CHECK(code_of(closed) == errc::permission_denied);
  CHECK(code_of(below) == errc::permission_denied);
  CHECK(contains(closed.error().message, "EACCES"));
}

TEST_CASE("a full file system is no_space and keeps what was there",
          "[posix_io]") {
  const scratch place;
  std::string skipped;
  result<void> outcome;
  std::uint64_t kept = 0;
  // A mount that only this thread sees, gone with the thread.
  std::thread([&] {
    if (::unshare(CLONE_NEWNS) != 0
        || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0
        || ::mount("tmpfs", place.path().c_str(), "tmpfs", 0, "size=64k")
               != 0) {
      skipped = std::strerror(errno);
      return;
    }
    auto small = posix_io().open_directory(place.path(), false);
    if (!small)
      return;
    auto opened = small.value()->open_file("log", open_mode::create);
    if (!opened)
      return;
    const std::string frame(48 << 10, 'x');
    outcome = opened.value()->append(0, bytes_of(frame));
    if (!outcome)
      return;
    outcome = opened.value()->append(frame.size(), bytes_of(frame));
    if (opened.value()->truncate(frame.size()))
      kept = opened.value()->status().value().size_bytes;
  }).join();
  if (!skipped.empty()) {
    WARN("skipped: cannot mount a small file system: " << skipped);
    return;
  }
  CHECK(code_of(outcome) == errc::no_space);
  CHECK(contains(outcome.error().message, place.path("log")));
  CHECK(contains(outcome.error().message, "ENOSPC"));
  CHECK(kept == (48 << 10));
}

TEST_CASE("the clocks, the random bits and the boot id are the machine's",
          "[posix_io]") {
  auto& system = posix_io();
  CHECK(system.wall_clock_seconds() > 1'700'000'000);
  const auto before = system.steady_clock();
  CHECK(system.steady_clock() >= before);
  CHECK(system.random_bits() != system.random_bits());
  const auto id = system.boot_id();
  CHECK(id == system.boot_id());
  CHECK(id.find_first_of(" \n") == std::string::npos);
}
