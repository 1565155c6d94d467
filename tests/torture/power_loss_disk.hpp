#pragma once

#include "core/result.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

namespace callboard::test {

enum class file_system : std::uint8_t { ext4, xfs };

/// A file system in an image file, mounted through a loop device, whose power
/// can be cut: what was not synced is gone after the next mount.
///
/// The mount is visible in this process and its children only, and goes with
/// the last of them, as the loop device does: nothing is left behind by a test
/// that is killed, but for the image.
///
/// Threads: not thread-safe. Only for a process without further threads.
class virtual_disk {
public:
  /// Makes the image and a file system in it, in the existing `directory`, and
  /// mounts it. Any error means: not on this machine, or not by this user.
  static result<std::unique_ptr<virtual_disk>>
  make(const std::string& directory, file_system kind);

  /// Unmounts, if need be.
  ~virtual_disk();
  virtual_disk(const virtual_disk&) = delete;
  virtual_disk& operator=(const virtual_disk&) = delete;

  const std::string& mount_point() const noexcept { return mount_point_; }

  /// Mounts, and with it repairs what a power cut left: replays the journal.
  /// Each time through a new loop device: the kernel's cache of the old one
  /// would outlive the power cut, as no memory does.
  result<void> mount();
  /// Requires: no process has a file of it open.
  result<void> unmount();

  /// Raises `power_is_off`, then stops the file system at once, without
  /// writing its journal: from then on nothing reaches the device. A sync that
  /// was under way may still succeed: only what was answered while
  /// `power_is_off` was down was promised.
  result<void> cut_power(std::atomic<bool>& power_is_off);

private:
  virtual_disk(const std::string& directory, file_system kind);
  result<void> make_file_system() const;
  result<void> mount_device(const std::string& name);

  file_system kind_;
  std::string image_;
  std::string mount_point_;
  bool mounted_ = false;
};

} // namespace callboard::test
