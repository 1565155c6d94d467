#pragma once

#include "core/result.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// The one door to the operating system. Everything in `core` and `ipc` that
/// touches files, locks, maps or clocks goes through these interfaces;
/// `posix_io()` is the real implementation, tests put others behind it.
///
/// All names are single path components, relative to an open directory: no
/// call ever follows a symbolic link or leaves the directory.
namespace callboard {

/// Which file is meant, whatever its names are.
struct file_identity {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  bool operator==(const file_identity&) const = default;
};

struct file_status {
  file_identity identity;
  std::uint64_t size_bytes = 0;
  std::int64_t modified_ns = 0;
  std::uint32_t mode = 0; // permission bits only, e.g. 0644
  std::uint32_t link_count = 0;
  bool is_directory = false;
  bool is_regular = false;
};

/// The bytes of a file, mapped read-only or copied to memory.
/// Threads: immutable, any number of readers.
class mapping {
public:
  virtual ~mapping() = default;
  virtual std::span<const std::byte> bytes() const noexcept = 0;
};

enum class map_mode : std::uint8_t {
  /// Share the page cache. A foreign truncation of the file is SIGBUS.
  shared,
  /// Copy to private memory: immune to foreign truncation.
  copied,
};

enum class lock_mode : std::uint8_t { shared, exclusive };

/// One open file. Not thread-safe, but for `status`. Closing releases locks.
class file {
public:
  virtual ~file() = default;

  virtual result<file_status> status() const = 0;

  /// Reads up to `buffer.size()` bytes at `offset`; fewer only at the end of
  /// the file. Interruptions and short reads are handled inside.
  virtual result<std::size_t> read_at(std::uint64_t offset,
                                      std::span<std::byte> buffer) const = 0;

  /// Writes all of `data` at `offset`. After an error the file's bytes from
  /// `offset` on are unspecified.
  virtual result<void> write_at(std::uint64_t offset,
                                std::span<const std::byte> data) = 0;

  /// Writes all of `data` at the end, which must be at `expected_offset`
  /// before and at `expected_offset + data.size()` after: otherwise `broken`
  /// (somebody else wrote to the file).
  virtual result<void> append(std::uint64_t expected_offset,
                              std::span<const std::byte> data) = 0;

  virtual result<void> truncate(std::uint64_t size_bytes) = 0;

  /// fdatasync: content and size are durable. Never retry after an error:
  /// the kernel may have dropped the pages that it could not write.
  virtual result<void> sync_data() = 0;

  /// fsync: `sync_data` and the file's other attributes.
  virtual result<void> sync() = 0;

  virtual result<void> set_mode(std::uint32_t mode) = 0;

  /// The file's first `size_bytes` bytes. Stays valid after the file is
  /// closed or unlinked.
  virtual result<std::unique_ptr<mapping>> map(std::uint64_t size_bytes,
                                               map_mode mode) const = 0;

  /// Locks the byte at `offset` for this open file (an open-file-description
  /// lock: excludes other opens in this process too; gone when this object or
  /// its process is gone, whatever became of the process's children). Waits up
  /// to `timeout`, then fails with `busy`; at least one attempt is made.
  /// Waiting is polling, first every few microseconds, after 100 ms about
  /// every 10 ms, and gives no turn to who waited longest: locks that many
  /// want need a second one in front. An `exclusive` lock needs a file opened
  /// for writing.
  virtual result<void> lock(std::uint64_t offset, lock_mode mode,
                            std::chrono::milliseconds timeout) = 0;
  virtual void unlock(std::uint64_t offset) = 0;
};

enum class open_mode : std::uint8_t {
  /// Existing file, reading only.
  read,
  /// Existing file, reading and writing.
  read_write,
  /// Reading and writing; created with mode 0600 if missing.
  create,
  /// As `create`, but emptied first.
  create_empty,
};

/// What keeps the files of a directory.
enum class file_system : std::uint8_t {
  /// The kernel of this machine.
  local,
  /// Other machines, perhaps several (NFS, SMB, 9P, Ceph and the like): no lock
  /// and no shared memory can be relied on.
  network,
  /// A program (FUSE): what it makes of locks and syncs is not known.
  program,
};

/// An open directory.
/// Threads: not thread-safe, but for `open_file` and `status`.
class directory {
public:
  virtual ~directory() = default;

  /// Where it is, for messages only.
  virtual const std::string& path() const noexcept = 0;

  /// Fails with `not_found` if missing, `permission_denied` if refused,
  /// `io_failure` if the name is a symbolic link or no regular file.
  virtual result<std::unique_ptr<file>> open_file(std::string_view name,
                                                  open_mode mode) const = 0;

  /// Opens a subdirectory; with `create`, makes it (mode 0700) if missing.
  virtual result<std::unique_ptr<directory>>
  open_directory(std::string_view name, bool create) const = 0;

  virtual result<file_status> status(std::string_view name) const = 0;
  virtual result<std::vector<std::string>> list() const = 0;

  /// Atomically replaces `to`, in this directory.
  virtual result<void> rename(std::string_view from, std::string_view to) = 0;

  /// Gives `from` of this directory a further name `to` in `target`, which
  /// must not exist there.
  virtual result<void> link(std::string_view from, directory& target,
                            std::string_view to) = 0;

  virtual result<void> remove(std::string_view name) = 0;

  /// Makes creations, renames, links and removals in it durable.
  virtual result<void> sync() = 0;

  virtual result<file_system> kept_by() const = 0;
};

/// The operating system, as far as this library uses it.
///
/// Threads: thread-safe.
/// Forks:   any thread may fork at any time, and no child ever holds a lock
///          of its parent. To that end, in a child of `fork` every inherited
///          `file` fails with `io_failure`, and so does all that is built on
///          one: a child closes or forgets what it inherited and opens anew.
///          `vfork`, `posix_spawn` and `exec` are safe, too: exec closes all
///          that was opened here.
class io {
public:
  virtual ~io() = default;

  /// Opens the directory at `path`; with `create`, makes it and its parents.
  virtual result<std::unique_ptr<directory>>
  open_directory(std::string_view path, bool create) = 0;

  /// Wall clock, whole seconds since 1970.
  virtual std::int64_t wall_clock_seconds() = 0;

  /// A clock that never goes back; for measuring waits.
  virtual std::chrono::nanoseconds steady_clock() = 0;

  /// Waits; on a thread that may block.
  virtual void pause(std::chrono::milliseconds duration) = 0;

  /// Unpredictable bits, for salts and store ids.
  virtual std::uint64_t random_bits() = 0;

  /// Identifies this boot of the machine; constant until it restarts.
  virtual std::string boot_id() = 0;
};

/// The real operating system. Lives as long as the process.
io& posix_io();

} // namespace callboard
