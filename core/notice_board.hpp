#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

namespace callboard {

/// Identifies a store for ever: made at creation, kept in its MANIFEST.
using store_id = std::array<std::byte, 16>;

/// One store's notices: hints that are fast to read. The files are the
/// authority; a store works without a board, by polling them.
///
/// Threads: every member may be called from any thread at any time.
class store_notices {
public:
  virtual ~store_notices() = default;

  /// The highest commit sequence announced as durable; 0 if none.
  virtual std::uint64_t durable_sequence() const noexcept = 0;

  /// Raises the durable sequence (never lowers it) and wakes waiters.
  virtual void announce(std::uint64_t sequence) noexcept = 0;

  /// Where a failed sync made the current log untrustworthy: frames with this
  /// or a higher sequence must not be believed. Empty: nothing is poisoned.
  virtual std::optional<std::uint64_t> poisoned_from() const noexcept = 0;
  virtual void poison(std::uint64_t sequence) noexcept = 0;
  virtual void clear_poison() noexcept = 0;

  /// Whether every process that writes the store announces here. If not,
  /// readers must also look at the files.
  virtual bool covers_all_processes() const noexcept = 0;
};

/// Hands out the notices of stores. Thread-safe.
class notice_board {
public:
  virtual ~notice_board() = default;

  /// The notices of the store `id`, shared by all handles on it. Never null.
  virtual std::shared_ptr<store_notices> attach(const store_id& id) = 0;
};

} // namespace callboard
