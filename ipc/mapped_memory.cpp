#include "ipc/board_memory_source.hpp"

#include <boost/interprocess/file_mapping.hpp>
#include <boost/interprocess/mapped_region.hpp>
#include <boost/interprocess/shared_memory_object.hpp>

#include <cerrno>
#include <fcntl.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>
#include <vector>

namespace callboard {

namespace {

namespace interprocess = boost::interprocess;

/// Whether every byte has its place on the disk: to touch one that has not,
/// when the disk is full, would kill us.
bool has_all_blocks(const struct stat& status, std::uint64_t size_bytes) {
  constexpr std::uint64_t block_bytes = 512;
  return static_cast<std::uint64_t>(status.st_size) == size_bytes
         && static_cast<std::uint64_t>(status.st_blocks)
                >= size_bytes / block_bytes;
}

/// If it fails, the disk keeps what was free.
bool allocate(int descriptor, off_t size_before, std::uint64_t size_bytes) {
  const auto wanted = static_cast<off_t>(size_bytes);
  int error = EINTR;
  while (error == EINTR)
    error = ::posix_fallocate(descriptor, 0, wanted);
  // Nobody has mapped a board that has not its size yet.
  if (error != 0 && size_before < wanted)
    (void)::ftruncate(descriptor, size_before);
  return error == 0;
}

/// Keeps the numbers of closed standard streams taken: what is opened meanwhile
/// does not become a stream that somebody writes to.
class standard_streams {
public:
  standard_streams() {
    for (;;) {
      const int opened = ::open("/dev/null", O_RDWR | O_CLOEXEC);
      if (opened < 0)
        return;
      held_.push_back(opened);
      if (opened > STDERR_FILENO)
        return;
    }
  }
  standard_streams(const standard_streams&) = delete;
  standard_streams& operator=(const standard_streams&) = delete;
  ~standard_streams() {
    for (const int each : held_)
      ::close(each);
  }

private:
  std::vector<int> held_;
};

/// One per user and board file; lives until the machine restarts.
std::string object_name(const file_identity& identity) {
  return "callboard." + std::to_string(::geteuid()) + '.'
         + std::to_string(identity.device) + '.'
         + std::to_string(identity.inode);
}

/// `Source`: a file or a shared memory object, open.
template <class Source>
class mapped_area final : public board_area {
public:
  explicit mapped_area(Source source) : source_(std::move(source)) {
    (void)::fcntl(descriptor(), F_SETFD, FD_CLOEXEC); // not for commands we run
  }

  result<void> look();
  const found_memory& found() const noexcept override { return found_; }
  result<void*> map(std::uint64_t size_bytes) override;

private:
  int descriptor() const { return source_.get_mapping_handle().handle; }

  Source source_;
  struct stat status_ {};
  found_memory found_;
  interprocess::mapped_region region_;
};

template <class Source>
result<void> mapped_area<Source>::look() {
  if (::fstat(descriptor(), &status_) != 0)
    return failure{errc::io_failure, std::generic_category().message(errno)};
  auto& status = found_.status;
  status.identity = {status_.st_dev, status_.st_ino};
  status.size_bytes = static_cast<std::uint64_t>(status_.st_size);
  status.mode = status_.st_mode & 07777u;
  status.link_count = static_cast<std::uint32_t>(status_.st_nlink);
  status.is_regular = S_ISREG(status_.st_mode);
  found_.is_own = status_.st_uid == ::geteuid();
  auto& head = found_.head;
  if (::pread(descriptor(), head.data(), head.size(), 0)
      != static_cast<ssize_t>(head.size()))
    head.fill(std::byte{0});
  return {};
}

template <class Source>
result<void*> mapped_area<Source>::map(std::uint64_t size_bytes) try {
  if (!has_all_blocks(status_, size_bytes)
      && !allocate(descriptor(), status_.st_size, size_bytes))
    return failure{errc::no_space, "it cannot get its size"};
  interprocess::mapped_region(source_, interprocess::read_write, 0,
                              static_cast<std::size_t>(size_bytes))
      .swap(region_);
  return region_.get_address();
} catch (const interprocess::interprocess_exception& problem) {
  return failure{errc::io_failure, problem.what()};
}

template <class Source>
result<std::unique_ptr<board_area>> opened(Source source) {
  auto area = std::make_unique<mapped_area<Source>>(std::move(source));
  CALLBOARD_TRY(area->look());
  return std::unique_ptr<board_area>(std::move(area));
}

class operating_system_memory final : public board_memory_source {
public:
  result<std::unique_ptr<board_area>> open(const std::string& path,
                                           const file_identity& identity,
                                           board_backing backing) override try {
    const standard_streams taken;
    if (backing == board_backing::file)
      return opened(
          interprocess::file_mapping(path.c_str(), interprocess::read_write));
    interprocess::permissions owner_only(0600);
    return opened(interprocess::shared_memory_object(
        interprocess::open_or_create, object_name(identity).c_str(),
        interprocess::read_write, owner_only));
  } catch (const interprocess::interprocess_exception& problem) {
    return failure{errc::io_failure, problem.what()};
  }

  std::uint64_t process_number() const noexcept override {
    return static_cast<std::uint64_t>(::getpid());
  }
};

} // namespace

board_memory_source& mapped_memory() {
  // Never destroyed: as `process_board`.
  static auto* source = new operating_system_memory;
  return *source;
}

} // namespace callboard
