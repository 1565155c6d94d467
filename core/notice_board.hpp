#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace callboard {

/// Identifies a store for ever: made at creation, kept in its MANIFEST.
using store_id = std::array<std::byte, 16>;

/// A store and where it is. The names are checked.
struct store_address {
  store_id id{};
  std::string working_directory;
  std::string workspace;
  std::string namespace_name;
};

/// One store's notices: hints that are fast to read. The files are the
/// authority; a store works without a board, by polling them.
///
/// Threads: every member may be called from any thread at any time.
class store_notices {
public:
  virtual ~store_notices() = default;

  /// The highest commit sequence announced as durable; 0 if none. Costs an
  /// atomic load or two.
  virtual std::uint64_t durable_sequence() const noexcept = 0;

  /// Raises the durable sequence (never lowers it) and wakes waiters.
  virtual void announce(std::uint64_t sequence) noexcept = 0;

  /// Where a failed sync made the current log untrustworthy: frames with this
  /// or a higher sequence must not be believed. Empty: nothing is poisoned.
  virtual std::optional<std::uint64_t> poisoned_from() const noexcept = 0;
  virtual void poison(std::uint64_t sequence) noexcept = 0;
  virtual void clear_poison() noexcept = 0;

  /// For diagnostics: the newest base.
  virtual void note_base_epoch(std::uint64_t epoch) noexcept = 0;

  /// Whether the processes that write the store announce here: then readers
  /// look at the files only now and then (`change_probe::look_at_files`), for
  /// those that cannot. If not, readers must look at the files each time.
  virtual bool covers_all_processes() const noexcept = 0;
};

/// Where a board that processes share keeps its page.
enum class board_backing : std::uint8_t {
  /// A file beside the stores: it lives, may be read and is mounted as they
  /// are.
  file,
  /// A shared memory object, for file systems that cannot map files shared.
  shared_memory_object,
};

/// Hands out the notices of stores, and waits for new ones. Thread-safe.
class notice_board {
public:
  virtual ~notice_board() = default;

  /// The notices of a store, shared by all handles on it. Never null: where
  /// memory cannot be shared, they cover this process only.
  virtual std::shared_ptr<store_notices>
  attach(const store_address& address) = 0;

  /// A number that is another one after every announcement.
  virtual std::uint64_t announcements() const noexcept = 0;

  /// Waits until `announcements()` differs from `seen`, or `interrupt` is
  /// called, or `timeout` has passed. May return early. One thread at a time.
  virtual void wait(std::uint64_t seen, std::chrono::milliseconds timeout) = 0;

  /// Ends the `wait` under way in this process, or else the next one.
  virtual void interrupt() noexcept = 0;
};

} // namespace callboard
