#include "core/io.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <dirent.h>
#include <exception>
#include <fcntl.h>
#include <linux/magic.h>
#include <mutex>
#include <pthread.h>
#include <random>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <thread>
#include <unistd.h>

namespace callboard {
namespace {

// -- Failures -----------------------------------------------------------------

std::string quoted(std::string_view path) {
  return '"' + std::string(path) + '"';
}

std::string joined(std::string_view directory, std::string_view name) {
  auto path = std::string(directory);
  if (!path.ends_with('/'))
    path += '/';
  return path += name;
}

errc code_of(int error) {
  switch (error) {
  case ENOSPC:
  case EDQUOT:
    return errc::no_space;
  case EACCES:
  case EPERM:
  case EROFS:
    return errc::permission_denied;
  case ENOENT:
    return errc::not_found;
  default:
    return errc::io_failure;
  }
}

std::string_view advice_for(int error) {
  switch (error) {
  case ENOSPC:
  case EDQUOT:
    return "; free some space there, then try again";
  case EACCES:
  case EPERM:
    return "; check its owner and permissions";
  case EROFS:
    return "; it needs a file system that is mounted for writing";
  case EMFILE:
    return "; raise the limit of open files (ulimit -n)";
  default:
    return "";
  }
}

/// "cannot <operation> "<path>": <why> (<errno name>, errno <n>)<advice>"
failure system_failure(std::string_view operation, std::string_view path,
                       int error) {
  const char* why = ::strerrordesc_np(error);
  const char* name = ::strerrorname_np(error);
  auto message = "cannot " + std::string(operation) + ' ' + quoted(path) + ": ";
  message += why != nullptr ? why : "unknown error";
  message += " (";
  message += name != nullptr ? name : "unnamed";
  message += ", errno " + std::to_string(error) + ')';
  message += advice_for(error);
  return {code_of(error), std::move(message)};
}

failure described_failure(errc code, std::string_view operation,
                          std::string_view path, std::string_view why) {
  auto message = "cannot " + std::string(operation) + ' ' + quoted(path) + ": ";
  return {code, message += why};
}

// -- System calls -------------------------------------------------------------

/// Owns a file descriptor. Keeps errno as it is when it closes.
class descriptor {
public:
  explicit descriptor(int number) noexcept : number_(number) {}
  descriptor(descriptor&& other) noexcept
      : number_(std::exchange(other.number_, -1)) {}
  descriptor& operator=(descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~descriptor() {
    // An error of close is no news here: what must be durable was synced.
    const int error = errno;
    if (number_ >= 0)
      ::close(number_);
    errno = error;
  }

  int get() const noexcept { return number_; }
  bool valid() const noexcept { return number_ >= 0; }
  int release() noexcept { return std::exchange(number_, -1); }

private:
  int number_;
};

template <class Call>
auto uninterrupted(Call call) {
  auto returned = call();
  while (returned < 0 && errno == EINTR)
    returned = call();
  return returned;
}

/// openat, but never on the numbers of the standard streams: a stray print
/// must not end in a store's file.
descriptor open_at(int parent, const char* path, int flags, mode_t mode = 0) {
  descriptor opened(uninterrupted(
      [&] { return ::openat(parent, path, flags | O_CLOEXEC, mode); }));
  if (!opened.valid() || opened.get() > STDERR_FILENO)
    return opened;
  return descriptor(::fcntl(opened.get(), F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
}

constexpr int directory_flags = O_RDONLY | O_DIRECTORY;

// -- Forks --------------------------------------------------------------------

/// The descriptors that a forked child must not share.
///
/// An open-file-description lock belongs to everybody who has the description
/// open: a child that outlives its killed parent would keep the lock. So in
/// every child these descriptors are replaced, before `fork` returns there.
/// The numbers stay taken, so that a later close in the child, of what it
/// inherited, hits nothing else.
///
/// Threads: thread-safe. The mutex is held across each fork.
class unshared_descriptors {
public:
  static unshared_descriptors& of_this_process() {
    // Never destroyed: threads may fork until the very end.
    static auto& all = *new unshared_descriptors;
    return all;
  }

  /// How many forks there were.
  std::uint64_t forks() {
    const std::lock_guard guard(mutex_);
    return forks_;
  }

  /// From now on no child gets `number`. False, and nothing was done, if a
  /// child may have it already: there were forks since `forks_before`.
  bool add(int number, std::uint64_t forks_before) {
    const std::lock_guard guard(mutex_);
    if (forks_ != forks_before)
      return false;
    numbers_.push_back(number);
    return true;
  }

  /// To be called before `number` is closed and given out again.
  void remove(int number) {
    const std::lock_guard guard(mutex_);
    const auto found = std::find(numbers_.begin(), numbers_.end(), number);
    if (found == numbers_.end())
      return;
    *found = numbers_.back();
    numbers_.pop_back();
  }

private:
  unshared_descriptors() {
    // Fails only without memory; a store without its locks would be worse.
    if (::pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child)
        != 0)
      std::terminate();
  }

  static void before_fork() {
    auto& all = of_this_process();
    all.mutex_.lock();
    ++all.forks_;
  }

  static void after_fork_in_parent() { of_this_process().mutex_.unlock(); }

  /// Other threads are gone, whatever they held: system calls only.
  static void after_fork_in_child() {
    auto& all = of_this_process();
    // Nothing can be read, written, locked or synced through it.
    const int nothing = ::open("/", O_PATH | O_CLOEXEC);
    for (const int number : all.numbers_)
      if (::dup3(nothing, number, O_CLOEXEC) < 0)
        ::close(number);
    if (nothing >= 0)
      ::close(nothing);
    all.mutex_.unlock();
  }

  std::mutex mutex_;
  // Protected by mutex_:
  std::vector<int> numbers_;
  std::uint64_t forks_ = 0;
};

/// Owns a descriptor that no forked child shares.
class unshared_descriptor {
public:
  /// As `open_at`.
  static unshared_descriptor open(int parent, const char* path, int flags,
                                  mode_t mode) {
    auto& all = unshared_descriptors::of_this_process();
    for (;;) {
      const auto forks = all.forks();
      auto opened = open_at(parent, path, flags, mode);
      if (!opened.valid() || all.add(opened.get(), forks))
        return unshared_descriptor(std::move(opened));
    }
  }
  unshared_descriptor(unshared_descriptor&&) noexcept = default;
  ~unshared_descriptor() {
    if (valid())
      unshared_descriptors::of_this_process().remove(get());
  }

  int get() const noexcept { return descriptor_.get(); }
  bool valid() const noexcept { return descriptor_.valid(); }

private:
  explicit unshared_descriptor(descriptor opened) noexcept
      : descriptor_(std::move(opened)) {}

  descriptor descriptor_;
};

// -- Clocks and status --------------------------------------------------------

std::chrono::nanoseconds now(clockid_t clock) {
  timespec time{};
  ::clock_gettime(clock, &time);
  return std::chrono::seconds(time.tv_sec)
         + std::chrono::nanoseconds(time.tv_nsec);
}

/// Wraps around for years beyond 2262, which any file may claim.
std::int64_t nanoseconds_of(const timespec& time) {
  return static_cast<std::int64_t>(static_cast<std::uint64_t>(time.tv_sec)
                                       * 1'000'000'000u
                                   + static_cast<std::uint64_t>(time.tv_nsec));
}

file_status status_of(const struct stat& info) {
  file_status status;
  status.identity = {info.st_dev, info.st_ino};
  status.size_bytes = static_cast<std::uint64_t>(info.st_size);
  status.modified_ns = nanoseconds_of(info.st_mtim);
  status.mode = info.st_mode & 07777u;
  status.link_count = static_cast<std::uint32_t>(info.st_nlink);
  status.is_directory = S_ISDIR(info.st_mode);
  status.is_regular = S_ISREG(info.st_mode);
  return status;
}

bool is_symbolic_link(int parent, const char* name) {
  struct stat info {};
  return ::fstatat(parent, name, &info, AT_SYMLINK_NOFOLLOW) == 0
         && S_ISLNK(info.st_mode);
}

// -- Mappings -----------------------------------------------------------------

/// Owns pages of memory. Empty if made with no bytes.
class mapped_pages final : public mapping {
public:
  mapped_pages(std::byte* begin, std::size_t size) noexcept
      : begin_(begin), size_(size) {}
  mapped_pages(const mapped_pages&) = delete;
  mapped_pages& operator=(const mapped_pages&) = delete;
  ~mapped_pages() override {
    if (begin_ != nullptr)
      ::munmap(begin_, size_);
  }

  std::span<const std::byte> bytes() const noexcept override {
    return {begin_, size_};
  }
  std::span<std::byte> writable() const noexcept { return {begin_, size_}; }

private:
  std::byte* begin_;
  std::size_t size_;
};

constexpr std::size_t huge_page_bytes = std::size_t{2} << 20;

/// Null if the kernel refuses; errno says why.
std::unique_ptr<mapped_pages> map_pages(std::size_t size, int protection,
                                        int flags, int file) {
  void* begin = ::mmap(nullptr, size, protection, flags, file, 0);
  if (begin == MAP_FAILED)
    return nullptr;
  return std::make_unique<mapped_pages>(static_cast<std::byte*>(begin), size);
}

std::unique_ptr<mapped_pages> map_file(std::size_t size, int file) {
  auto pages = map_pages(size, PROT_READ, MAP_SHARED, file);
  // Advice only: stores read their whole base soon after they mapped it.
  if (pages)
    ::madvise(pages->writable().data(), size, MADV_WILLNEED);
  return pages;
}

std::unique_ptr<mapped_pages> map_memory(std::size_t size) {
  auto pages =
      map_pages(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  // Advice only: scans of big blocks are a quarter faster with huge pages.
  if (pages && size >= huge_page_bytes)
    ::madvise(pages->writable().data(), size, MADV_HUGEPAGE);
  return pages;
}

// -- Files --------------------------------------------------------------------

class posix_file final : public file {
public:
  posix_file(unshared_descriptor opened, std::string path)
      : descriptor_(std::move(opened)), path_(std::move(path)) {}
  posix_file(const posix_file&) = delete;
  posix_file& operator=(const posix_file&) = delete;
  ~posix_file() override {
    // Before children may share the descriptor again, if only until its close.
    if (locked_)
      change_lock(whole_file, F_UNLCK);
  }

  result<file_status> status() const override {
    struct stat info {};
    if (::fstat(descriptor_.get(), &info) != 0)
      return failed("get the status of");
    return status_of(info);
  }

  result<std::size_t> read_at(std::uint64_t offset,
                              std::span<std::byte> buffer) const override;
  result<void> write_at(std::uint64_t offset,
                        std::span<const std::byte> data) override;
  result<void> append(std::uint64_t expected_offset,
                      std::span<const std::byte> data) override;

  result<void> truncate(std::uint64_t size_bytes) override {
    const auto size = static_cast<off_t>(size_bytes);
    return checked(
        uninterrupted([&] { return ::ftruncate(descriptor_.get(), size); }),
        "change the size of");
  }

  // Syncs are not retried, not even after EINTR: see `file::sync_data`.
  result<void> sync_data() override {
    return checked(::fdatasync(descriptor_.get()), "sync");
  }
  result<void> sync() override {
    return checked(::fsync(descriptor_.get()), "sync");
  }

  result<void> set_mode(std::uint32_t mode) override {
    return checked(::fchmod(descriptor_.get(), mode), "set the permissions of");
  }

  result<std::unique_ptr<mapping>> map(std::uint64_t size_bytes,
                                       map_mode mode) const override;

  result<void> lock(std::uint64_t offset, lock_mode mode,
                    std::chrono::milliseconds timeout) override;
  void unlock(std::uint64_t offset) override {
    change_lock(byte_at(offset), F_UNLCK);
  }

private:
  struct byte_range {
    off_t start;
    off_t length;
  };
  static constexpr byte_range whole_file{0, 0};
  static byte_range byte_at(std::uint64_t offset) noexcept {
    return {static_cast<off_t>(offset), 1};
  }

  failure failed(std::string_view operation) const {
    return system_failure(operation, path_, errno);
  }

  result<void> checked(int returned, std::string_view operation) const {
    if (returned != 0)
      return failed(operation);
    return {};
  }

  result<void> expect_size(std::uint64_t expected) const;
  result<std::unique_ptr<mapping>> copy(std::size_t size) const;
  failure shorter_than(std::uint64_t expected, std::uint64_t found) const;

  int change_lock(byte_range where, short type) const {
    struct flock range {};
    range.l_type = type;
    range.l_whence = SEEK_SET;
    range.l_start = where.start;
    range.l_len = where.length;
    return uninterrupted(
        [&] { return ::fcntl(descriptor_.get(), F_OFD_SETLK, &range); });
  }

  unshared_descriptor descriptor_;
  std::string path_;
  bool locked_ = false;
};

result<std::size_t> posix_file::read_at(std::uint64_t offset,
                                        std::span<std::byte> buffer) const {
  std::size_t done = 0;
  while (done < buffer.size()) {
    const auto rest = buffer.subspan(done);
    const auto count = uninterrupted([&] {
      return ::pread(descriptor_.get(), rest.data(), rest.size(),
                     static_cast<off_t>(offset + done));
    });
    if (count < 0)
      return failed("read");
    if (count == 0)
      break;
    done += static_cast<std::size_t>(count);
  }
  return done;
}

result<void> posix_file::write_at(std::uint64_t offset,
                                  std::span<const std::byte> data) {
  while (!data.empty()) {
    const auto count = uninterrupted([&] {
      return ::pwrite(descriptor_.get(), data.data(), data.size(),
                      static_cast<off_t>(offset));
    });
    if (count < 0)
      return failed("write");
    if (count == 0)
      return described_failure(errc::io_failure, "write", path_,
                               "the file system took none of the bytes");
    offset += static_cast<std::uint64_t>(count);
    data = data.subspan(static_cast<std::size_t>(count));
  }
  return {};
}

result<void> posix_file::append(std::uint64_t expected_offset,
                                std::span<const std::byte> data) {
  CALLBOARD_TRY(expect_size(expected_offset));
  CALLBOARD_TRY(write_at(expected_offset, data));
  return expect_size(expected_offset + data.size());
}

result<void> posix_file::expect_size(std::uint64_t expected) const {
  CALLBOARD_TRY_ASSIGN(const auto found, status());
  if (found.size_bytes == expected)
    return {};
  return described_failure(errc::broken, "append to", path_,
                           "it should have " + std::to_string(expected)
                               + " bytes, but has "
                               + std::to_string(found.size_bytes)
                               + ": something else wrote to it; find that "
                                 "program and reopen the store");
}

failure posix_file::shorter_than(std::uint64_t expected,
                                 std::uint64_t found) const {
  return described_failure(errc::corrupt, "map", path_,
                           "it should have at least " + std::to_string(expected)
                               + " bytes, but has " + std::to_string(found)
                               + ": it was cut or replaced");
}

result<std::unique_ptr<mapping>> posix_file::map(std::uint64_t size_bytes,
                                                 map_mode mode) const {
  CALLBOARD_TRY_ASSIGN(const auto found, status());
  if (found.size_bytes < size_bytes)
    return shorter_than(size_bytes, found.size_bytes);
  const auto size = static_cast<std::size_t>(size_bytes);
  if (size == 0)
    return std::unique_ptr<mapping>(
        std::make_unique<mapped_pages>(nullptr, size));
  if (mode == map_mode::copied)
    return copy(size);
  auto pages = map_file(size, descriptor_.get());
  if (!pages)
    return failed("map");
  return std::unique_ptr<mapping>(std::move(pages));
}

result<std::unique_ptr<mapping>> posix_file::copy(std::size_t size) const {
  auto pages = map_memory(size);
  if (!pages)
    return failed("get the memory for a copy of");
  CALLBOARD_TRY_ASSIGN(const auto count, read_at(0, pages->writable()));
  if (count < size)
    return shorter_than(size, count);
  return std::unique_ptr<mapping>(std::move(pages));
}

/// How long to sleep between attempts to get a lock: a small part of what has
/// been waited already, so that a lock which is held for microseconds is handed
/// over in microseconds, and that who comes new is hardly faster than who has
/// waited. Of random length, so that waiters do not march in step.
class lock_pauses {
public:
  explicit lock_pauses(const void* waiter)
      : random_(static_cast<std::uint_fast32_t>(
          static_cast<std::uint64_t>(now(CLOCK_MONOTONIC).count())
          ^ reinterpret_cast<std::uintptr_t>(waiter)
          ^ (static_cast<std::uint64_t>(::getpid()) << 8))) {}

  std::chrono::nanoseconds next(std::chrono::nanoseconds waited) {
    using namespace std::chrono_literals;
    constexpr std::chrono::nanoseconds shortest = 20us;
    const std::chrono::nanoseconds longest = waited < 100ms ? 1ms : 10ms;
    const auto pause = std::clamp(waited / 8, shortest, longest);
    // From half of it to all of it.
    return pause * static_cast<std::int64_t>(50 + random_() % 51) / 100;
  }

private:
  std::minstd_rand random_;
};

result<void> posix_file::lock(std::uint64_t offset, lock_mode mode,
                              std::chrono::milliseconds timeout) {
  using namespace std::chrono;
  const short type = mode == lock_mode::exclusive ? F_WRLCK : F_RDLCK;
  // A limit, so that the longest timeouts do not overflow as nanoseconds.
  const nanoseconds patience = std::min<milliseconds>(timeout, hours(24 * 365));
  const auto start = now(CLOCK_MONOTONIC);
  lock_pauses pauses(this);
  locked_ = true;
  // The kernel can wait for a lock, but not until a deadline.
  while (change_lock(byte_at(offset), type) != 0) {
    if (errno != EAGAIN && errno != EACCES)
      return failed("lock");
    const auto waited = now(CLOCK_MONOTONIC) - start;
    if (waited >= patience)
      return described_failure(
          errc::busy, "lock", path_,
          "byte " + std::to_string(offset)
              + " is held by somebody else; waited "
              + std::to_string(duration_cast<milliseconds>(waited).count())
              + " ms; try again later or end the program that holds it");
    std::this_thread::sleep_for(
        std::min(pauses.next(waited), patience - waited));
  }
  return {};
}

// -- Directories --------------------------------------------------------------

/// By the magic numbers of statfs(2); Linux declares not all of them.
file_system file_system_of(std::uint32_t magic) {
  constexpr std::uint32_t smb = 0x517B;
  constexpr std::uint32_t smb2 = 0xFE534D42;
  constexpr std::uint32_t cifs = 0xFF534D42;
  constexpr std::uint32_t ceph = 0x00C36400;
  constexpr std::uint32_t gfs2 = 0x01161970;
  constexpr std::uint32_t ocfs2 = 0x7461636F;
  constexpr std::uint32_t lustre = 0x0BD00BD0;
  constexpr std::uint32_t fuse = 0x65735546;
  switch (magic) {
  case NFS_SUPER_MAGIC:
  case V9FS_MAGIC:
  case AFS_SUPER_MAGIC:
  case AFS_FS_MAGIC:
  case CODA_SUPER_MAGIC:
  case smb:
  case smb2:
  case cifs:
  case ceph:
  case gfs2:
  case ocfs2:
  case lustre:
    return file_system::network;
  case fuse:
    return file_system::program;
  default:
    return file_system::local;
  }
}

class posix_directory final : public directory {
public:
  posix_directory(descriptor opened, std::string path)
      : descriptor_(std::move(opened)), path_(std::move(path)) {}

  const std::string& path() const noexcept override { return path_; }

  result<std::unique_ptr<file>> open_file(std::string_view name,
                                          open_mode mode) const override;
  result<std::unique_ptr<directory>> open_directory(std::string_view name,
                                                    bool create) const override;
  result<file_status> status(std::string_view name) const override;
  result<std::vector<std::string>> list() const override;
  result<void> rename(std::string_view from, std::string_view to) override;
  result<void> link(std::string_view from, directory& target,
                    std::string_view to) override;
  result<void> remove(std::string_view name) override;

  result<void> sync() override {
    if (::fsync(descriptor_.get()) != 0)
      return system_failure("sync the directory", path_, errno);
    return {};
  }

  result<file_system> kept_by() const override {
    struct statfs info {};
    if (::fstatfs(descriptor_.get(), &info) != 0)
      return system_failure("get the file system of", path_, errno);
    return file_system_of(static_cast<std::uint32_t>(info.f_type));
  }

private:
  /// `name` as the kernel takes it, if it is one component.
  result<std::string> component(std::string_view operation,
                                std::string_view name) const;

  failure failed(std::string_view operation, std::string_view name) const {
    const int error = errno;
    return system_failure(operation, joined(path_, name), error);
  }
  failure open_failed(const std::string& name) const;
  result<void> remove_if_same(const std::string& from, const std::string& to);

  descriptor descriptor_;
  std::string path_;
};

result<std::string> posix_directory::component(std::string_view operation,
                                               std::string_view name) const {
  using namespace std::string_view_literals;
  if (name.empty() || name == "." || name == ".."
      || name.find_first_of("/\0"sv) != std::string_view::npos)
    return described_failure(errc::invalid_argument, operation,
                             joined(path_, name),
                             "a name must be one path component, neither "
                             "empty nor \".\" nor \"..\"");
  return std::string(name);
}

/// Uses errno. A symbolic link shows as ELOOP, but as ENOTDIR where a
/// directory was wanted.
failure posix_directory::open_failed(const std::string& name) const {
  const int error = errno;
  auto reason = system_failure("open", joined(path_, name), error);
  if (error == ELOOP
      || (error == ENOTDIR
          && is_symbolic_link(descriptor_.get(), name.c_str())))
    reason.message += "; it is a symbolic link, which is never followed: "
                      "replace it by what it points to";
  return reason;
}

int flags_of(open_mode mode) {
  switch (mode) {
  case open_mode::read:
    return O_RDONLY;
  case open_mode::read_write:
    return O_RDWR;
  case open_mode::create:
  case open_mode::create_empty:
    return O_RDWR | O_CREAT;
  }
  return O_RDONLY;
}

result<std::unique_ptr<file>> posix_directory::open_file(std::string_view name,
                                                         open_mode mode) const {
  CALLBOARD_TRY_ASSIGN(const auto entry, component("open", name));
  // O_NONBLOCK: a FIFO must not hang us before it is found to be one. On
  // regular files it means nothing.
  auto opened = unshared_descriptor::open(
      descriptor_.get(), entry.c_str(),
      flags_of(mode) | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0600);
  if (!opened.valid())
    return open_failed(entry);
  auto path = joined(path_, name);
  auto made = std::make_unique<posix_file>(std::move(opened), path);
  CALLBOARD_TRY_ASSIGN(const auto status, made->status());
  if (!status.is_regular)
    return described_failure(errc::io_failure, "open", path,
                             "it is no regular file");
  if (mode == open_mode::create_empty && status.size_bytes != 0)
    CALLBOARD_TRY(made->truncate(0));
  return std::unique_ptr<file>(std::move(made));
}

result<std::unique_ptr<directory>>
posix_directory::open_directory(std::string_view name, bool create) const {
  CALLBOARD_TRY_ASSIGN(const auto entry, component("open", name));
  if (create && ::mkdirat(descriptor_.get(), entry.c_str(), 0700) != 0
      && errno != EEXIST)
    return failed("create the directory", name);
  auto opened =
      open_at(descriptor_.get(), entry.c_str(), directory_flags | O_NOFOLLOW);
  if (!opened.valid())
    return open_failed(entry);
  return std::unique_ptr<directory>(std::make_unique<posix_directory>(
      std::move(opened), joined(path_, name)));
}

result<file_status> posix_directory::status(std::string_view name) const {
  CALLBOARD_TRY_ASSIGN(const auto entry, component("get the status of", name));
  struct stat info {};
  if (::fstatat(descriptor_.get(), entry.c_str(), &info, AT_SYMLINK_NOFOLLOW)
      != 0)
    return failed("get the status of", name);
  return status_of(info);
}

struct close_stream {
  void operator()(DIR* stream) const noexcept { ::closedir(stream); }
};

result<std::vector<std::string>> posix_directory::list() const {
  // Opened anew: a duplicate would share its position with `descriptor_`.
  auto opened = open_at(descriptor_.get(), ".", directory_flags);
  if (!opened.valid())
    return system_failure("list", path_, errno);
  std::unique_ptr<DIR, close_stream> stream(::fdopendir(opened.get()));
  if (!stream)
    return system_failure("list", path_, errno);
  opened.release(); // the stream owns it now
  std::vector<std::string> names;
  for (;;) {
    errno = 0; // the only way to tell the end from an error
    const dirent* entry = ::readdir(stream.get());
    if (entry == nullptr && errno != 0)
      return system_failure("list", path_, errno);
    if (entry == nullptr)
      return names;
    const std::string_view name(entry->d_name);
    if (name != "." && name != "..")
      names.emplace_back(name);
  }
}

result<void> posix_directory::rename(std::string_view from,
                                     std::string_view to) {
  CALLBOARD_TRY_ASSIGN(const auto source, component("rename", from));
  CALLBOARD_TRY_ASSIGN(const auto target, component("rename to", to));
  const int parent = descriptor_.get();
  if (::renameat(parent, source.c_str(), parent, target.c_str()) != 0) {
    const int error = errno;
    return system_failure("rename to " + quoted(target) + " the file",
                          joined(path_, from), error);
  }
  return remove_if_same(source, target);
}

/// rename does nothing, and says that it succeeded, if both names are links to
/// one file: then `from` is still there.
result<void> posix_directory::remove_if_same(const std::string& from,
                                             const std::string& to) {
  if (from == to)
    return {};
  const auto source = status(from);
  const auto target = status(to);
  if (source && target && source->identity == target->identity)
    return remove(from);
  return {};
}

result<void> posix_directory::link(std::string_view from, directory& target,
                                   std::string_view to) {
  CALLBOARD_TRY_ASSIGN(const auto source, component("link", from));
  auto* place = dynamic_cast<posix_directory*>(&target);
  if (place == nullptr)
    return described_failure(errc::invalid_argument, "link",
                             joined(path_, from),
                             "the target directory is not of this io");
  CALLBOARD_TRY_ASSIGN(const auto entry, place->component("link to", to));
  if (::linkat(descriptor_.get(), source.c_str(), place->descriptor_.get(),
               entry.c_str(), 0)
      != 0) {
    const int error = errno;
    return system_failure("link to " + quoted(joined(place->path_, to))
                              + " the file",
                          joined(path_, from), error);
  }
  return {};
}

result<void> posix_directory::remove(std::string_view name) {
  CALLBOARD_TRY_ASSIGN(const auto entry, component("remove", name));
  if (::unlinkat(descriptor_.get(), entry.c_str(), 0) != 0)
    return failed("remove", name);
  return {};
}

// -- The operating system -----------------------------------------------------

std::string without_trailing_slashes(std::string_view path) {
  while (path.size() > 1 && path.ends_with('/'))
    path.remove_suffix(1);
  return std::string(path);
}

std::string parent_of(const std::string& path) {
  const auto slash = path.rfind('/');
  if (slash == std::string::npos)
    return ".";
  return without_trailing_slashes(std::string_view(path).substr(0, slash + 1));
}

/// Makes the entry of `path` durable: nobody else can, for the caller gets only
/// `path` itself. A parent that may not be read, or that cannot be synced, is
/// left to the kernel.
result<void> sync_parent(const std::string& path) {
  const auto parent = parent_of(path);
  auto opened = open_at(AT_FDCWD, parent.c_str(), directory_flags);
  if (!opened.valid() && errno == EACCES)
    return {};
  if (opened.valid()
      && (::fsync(opened.get()) == 0 || errno == EINVAL || errno == EROFS))
    return {};
  return system_failure("sync the directory", parent, errno);
}

/// As mkdir -p: the user's working directory has the user's permissions.
result<void> make_directories(const std::string& path) {
  int returned = ::mkdir(path.c_str(), 0777);
  if (returned != 0 && errno == ENOENT && parent_of(path) != path) {
    CALLBOARD_TRY(make_directories(parent_of(path)));
    returned = ::mkdir(path.c_str(), 0777);
  }
  if (returned != 0 && errno != EEXIST)
    return system_failure("create the directory", path, errno);
  // Who made the parent may have died before it had a durable name.
  CALLBOARD_TRY(sync_parent(parent_of(path)));
  return sync_parent(path);
}

class posix_system final : public io {
public:
  result<std::unique_ptr<directory>> open_directory(std::string_view path,
                                                    bool create) override;

  std::int64_t wall_clock_seconds() override {
    return std::chrono::floor<std::chrono::seconds>(now(CLOCK_REALTIME))
        .count();
  }

  std::chrono::nanoseconds steady_clock() override {
    return now(CLOCK_MONOTONIC);
  }

  void pause(std::chrono::milliseconds duration) override {
    std::this_thread::sleep_for(duration);
  }

  std::uint64_t random_bits() override;
  std::string boot_id() override;
};

result<std::unique_ptr<directory>>
posix_system::open_directory(std::string_view path, bool create) {
  if (path.empty() || path.find('\0') != std::string_view::npos)
    return described_failure(errc::invalid_argument, "open", path,
                             "a path must not be empty or contain a NUL");
  auto place = without_trailing_slashes(path);
  const auto open = [&] {
    return open_at(AT_FDCWD, place.c_str(), directory_flags);
  };
  auto opened = open();
  const bool missing = !opened.valid() && errno == ENOENT;
  if (missing && create) {
    CALLBOARD_TRY(make_directories(place));
    opened = open();
  }
  if (!opened.valid())
    return system_failure("open the directory", place, errno);
  if (create && !missing) {
    CALLBOARD_TRY(sync_parent(place)); // who made it may have died before
  }
  return std::unique_ptr<directory>(
      std::make_unique<posix_directory>(std::move(opened), std::move(place)));
}

std::uint64_t posix_system::random_bits() {
  std::uint64_t bits = 0;
  const auto count =
      uninterrupted([&] { return ::getrandom(&bits, sizeof bits, 0); });
  // Every supported kernel has it; predictable ids would be worse than none.
  if (count != sizeof bits)
    std::terminate();
  return bits;
}

std::string posix_system::boot_id() {
  const descriptor opened =
      open_at(AT_FDCWD, "/proc/sys/kernel/random/boot_id", O_RDONLY);
  if (!opened.valid())
    return {};
  char text[64];
  const auto count =
      uninterrupted([&] { return ::read(opened.get(), text, sizeof text); });
  if (count < 0)
    return {};
  const std::string_view id(text, static_cast<std::size_t>(count));
  return std::string(id.substr(0, id.find_first_of("\n ")));
}

} // namespace

io& posix_io() {
  // Never destroyed: threads may use it until the very end.
  static auto& system = *new posix_system;
  return system;
}

} // namespace callboard
