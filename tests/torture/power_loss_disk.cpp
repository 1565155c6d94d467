#include "tests/torture/power_loss_disk.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <string_view>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

namespace callboard::test {

namespace {

/// As linux/fs.h and the file systems have it since Linux 6.0; spelled out for
/// older headers.
constexpr unsigned long shutdown_request = _IOR('X', 125, std::uint32_t);
constexpr std::uint32_t shutdown_without_log_flush = 2;

constexpr int attach_attempts_max = 100;
constexpr int unmount_attempts_max = 500;

failure system_failure(const std::string& what) {
  return {errc::io_failure, what + ": " + std::strerror(errno)};
}

const char* name_of(file_system kind) {
  return kind == file_system::xfs ? "xfs" : "ext4";
}

/// XFS refuses less than 300 MB. The image is sparse.
off_t image_bytes(file_system kind) {
  return off_t{kind == file_system::xfs ? 320 : 64} << 20;
}

class descriptor {
public:
  explicit descriptor(int number) : number_(number) {}
  descriptor(const descriptor&) = delete;
  descriptor& operator=(const descriptor&) = delete;
  ~descriptor() {
    if (valid())
      ::close(number_);
  }
  bool valid() const noexcept { return number_ >= 0; }
  int get() const noexcept { return number_; }

private:
  int number_;
};

} // namespace

virtual_disk::virtual_disk(const std::string& directory, file_system kind)
    : kind_(kind),
      image_(directory + "/disk.image"),
      mount_point_(directory + "/mounted") {}

result<std::unique_ptr<virtual_disk>>
virtual_disk::make(const std::string& directory, file_system kind) {
  if (::geteuid() != 0)
    return failure{errc::permission_denied, "mounting takes root"};
  // Mounts of this process are its own from here on.
  if (::unshare(CLONE_NEWNS) != 0
      || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return system_failure("cannot have mounts of its own");
  std::unique_ptr<virtual_disk> out(new virtual_disk(directory, kind));
  if (::mkdir(out->mount_point_.c_str(), 0700) != 0)
    return system_failure("cannot make " + out->mount_point_);
  CALLBOARD_TRY(out->make_file_system());
  CALLBOARD_TRY(out->mount());
  return out;
}

virtual_disk::~virtual_disk() {
  (void)unmount();
}

result<void> virtual_disk::make_file_system() const {
  descriptor image(
      ::open(image_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!image.valid() || ::ftruncate(image.get(), image_bytes(kind_)) != 0)
    return system_failure("cannot make " + image_);
  auto program = std::string("mkfs.") + name_of(kind_);
  auto child = ::fork();
  if (child == 0) {
    // Where systems keep it that leave it out of the PATH of users.
    ::setenv("PATH", "/usr/sbin:/sbin:/usr/bin:/bin", 1);
    ::execlp(program.c_str(), program.c_str(), "-q", image_.c_str(), nullptr);
    ::_exit(127);
  }
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) != child)
    return system_failure("cannot start " + program);
  if (status != 0)
    return failure{errc::not_found, program + " is missing or failed"};
  return {};
}

result<void> virtual_disk::mount() {
  descriptor control(::open("/dev/loop-control", O_RDWR | O_CLOEXEC));
  if (!control.valid())
    return system_failure("cannot open /dev/loop-control");
  descriptor image(::open(image_.c_str(), O_RDWR | O_CLOEXEC));
  if (!image.valid())
    return system_failure("cannot open " + image_);
  // Another process may take the free device first.
  for (int attempt = 0; attempt < attach_attempts_max; ++attempt) {
    auto number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (number < 0)
      return system_failure("there is no free loop device");
    auto name = "/dev/loop" + std::to_string(number);
    descriptor device(::open(name.c_str(), O_RDWR | O_CLOEXEC));
    if (!device.valid())
      return system_failure("cannot open " + name);
    loop_config configuration{};
    configuration.fd = static_cast<std::uint32_t>(image.get());
    configuration.info.lo_flags = LO_FLAGS_AUTOCLEAR; // goes with the mount
    if (::ioctl(device.get(), LOOP_CONFIGURE, &configuration) == 0)
      return mount_device(name);
    if (errno != EBUSY)
      break;
  }
  return system_failure("cannot attach the image to a loop device");
}

result<void> virtual_disk::mount_device(const std::string& name) {
  if (::mount(name.c_str(), mount_point_.c_str(), name_of(kind_), 0, nullptr)
      != 0)
    return system_failure("cannot mount " + image_ + " as " + name_of(kind_));
  mounted_ = true;
  return {};
}

result<void> virtual_disk::unmount() {
  if (!mounted_)
    return {};
  // The kernel lets go of a dead process's files a little after its end.
  for (int attempt = 0; attempt < unmount_attempts_max; ++attempt) {
    if (::umount2(mount_point_.c_str(), 0) == 0) {
      mounted_ = false;
      return {};
    }
    if (errno != EBUSY)
      break;
    ::usleep(10'000);
  }
  return system_failure("cannot unmount " + mount_point_);
}

result<void> virtual_disk::cut_power(std::atomic<bool>& power_is_off) {
  descriptor root(
      ::open(mount_point_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root.valid())
    return system_failure("cannot open " + mount_point_);
  auto flag = shutdown_without_log_flush;
  power_is_off.store(true);
  if (::ioctl(root.get(), shutdown_request, &flag) != 0)
    return system_failure(std::string("cannot shut down ") + name_of(kind_));
  return {};
}

} // namespace callboard::test
