#pragma once

#include "core/io.hpp"
#include "simulation/random_source.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace callboard::simulation {

/// What a crash does to that which was not synced. In all models, what was
/// synced stays, renames are atomic, and a disk writes sectors of 512 bytes.
enum class loss_model : std::uint8_t {
  /// Nothing is lost: the processes die, the kernel lives on.
  kill,
  /// A prefix of all unsynced operations, in their order, is left; a write at
  /// its end may be left in part.
  ordered,
  /// Of each unsynced sector the old, the new, a version between, a mixture or
  /// garbage is left; a file's new size with or without its new bytes; each
  /// operation on a directory or not. All of it independently of each other:
  /// to sync a file does not make its name durable.
  weakest,
};

std::string_view to_string(loss_model model) noexcept;

/// A file system in memory that knows which of its content is durable: files,
/// directories, hard links, permission bits (kept, but not enforced: everybody
/// may do everything). Names are not checked.
///
/// Copies: are cheap, and share all content until one of them changes it.
/// Errors: a `std::errc`, or none if it is `std::errc{}`.
/// Threads: not thread-safe.
class disk {
public:
  using inode_number = std::uint64_t;
  using buffer = std::vector<std::byte>;

  static constexpr std::uint64_t sector_bytes = 512;
  /// Longer files are refused.
  static constexpr std::uint64_t file_bytes_max = std::uint64_t{1} << 32;

  disk();
  disk(const disk&) = default;
  disk(disk&&) = default;
  disk& operator=(const disk&) = default;
  disk& operator=(disk&&) = default;

  static constexpr inode_number root = 2;

  // -- Names ------------------------------------------------------------------

  std::optional<inode_number> find(inode_number directory,
                                   std::string_view name) const;
  std::vector<std::string> names(inode_number directory) const;

  /// Requires: the name is not taken.
  inode_number create_file(inode_number directory, std::string_view name,
                           std::uint32_t mode, std::int64_t now_ns);
  inode_number create_directory(inode_number directory, std::string_view name,
                                std::uint32_t mode, std::int64_t now_ns);

  /// Replaces `to`. Removes `from` even if both are names of one file.
  std::errc rename(inode_number directory, std::string_view from,
                   std::string_view to);
  std::errc link(inode_number from_directory, std::string_view from,
                 inode_number to_directory, std::string_view to);
  std::errc remove(inode_number directory, std::string_view name);

  /// Makes all operations on names in this directory so far durable.
  void sync_directory(inode_number directory);

  // -- Files ------------------------------------------------------------------

  file_status status(inode_number number) const;
  bool is_directory(inode_number number) const;
  /// Whether it has no name: nothing can be made in such a directory.
  bool is_removed(inode_number number) const;

  /// Copies what there is at `offset`; returns how much.
  std::size_t read(inode_number number, std::uint64_t offset,
                   std::span<std::byte> into) const;
  /// The whole content; does not change when the file does.
  std::shared_ptr<const buffer> content(inode_number number) const;

  std::errc write(inode_number number, std::uint64_t offset,
                  std::span<const std::byte> data, std::int64_t now_ns);
  std::errc resize(inode_number number, std::uint64_t size_bytes,
                   std::int64_t now_ns);
  void set_mode(inode_number number, std::uint32_t mode);

  /// Makes content and size durable; `sync`: and the permission bits. But
  /// pages that an earlier sync failed to write look clean and are left out,
  /// as far as they were not written to since.
  void sync_data(inode_number number);
  void sync(inode_number number);

  /// A sync that fails: what it should have written is not on the disk, still
  /// reads as written, and looks clean from now on.
  void fail_sync(inode_number number);

  /// Keeps a file that has no name for whoever has it open.
  void hold(inode_number number);
  void release(inode_number number) noexcept;

  // -- Crashes ----------------------------------------------------------------

  /// Nobody has a file open any more.
  void release_all();

  /// Operations and writes that a power cut could take back.
  std::size_t unsynced_count() const;

  /// What is not durable is lost as `model` says; what is left is durable.
  void lose_power(loss_model model, random_source& random);

  /// All names and contents as one number, to compare disks.
  std::uint64_t fingerprint() const;

private:
  struct file_change;
  struct name_change;
  struct lost_sector;
  struct inode;

  const inode& at(inode_number number) const;
  inode& writable(inode_number number);
  inode_number new_inode(std::uint32_t mode, bool is_directory,
                         std::int64_t now_ns);
  void set_name(inode_number directory, name_change change);
  void forget_unreachable();
  void lose_ordered(random_source& random);
  void lose_weakly(random_source& random);
  void count_links();

  std::map<inode_number, std::shared_ptr<inode>> inodes_;
  /// Of the next change: changes are ordered over the whole disk.
  std::uint64_t next_sequence_ = 1;
};

} // namespace callboard::simulation
