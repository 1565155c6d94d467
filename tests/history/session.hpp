#pragma once

#include "core/store.hpp"
#include "tests/history/journal.hpp"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace callboard::history {

/// What one transaction changes.
struct change {
  rows written;
  id_set removed;
  /// The view's `drop_epoch` when it was thought of.
  std::uint64_t drop_epoch = 0;
};

struct commit_answer {
  std::uint64_t generation = 0;
  std::size_t committed = 0;
  std::size_t discarded = 0;
};

/// A store as one process has it open: through the engine, or through the
/// actors as users have it.
///
/// Threads: one.
class session {
public:
  virtual ~session() = default;
  virtual result<snapshot_ptr> refresh() = 0;
  /// If there was a conflict, the next call must write the same rows, or
  /// `forget` come first.
  virtual result<commit_answer>
  commit(const change& what,
         std::optional<std::uint64_t> expected_generation) = 0;
  /// Leaves no change pending.
  virtual result<void> forget() = 0;
  virtual result<void> checkpoint() = 0;
  /// Answers the generation that it has made.
  virtual result<std::uint64_t> drop() = 0;
  /// Answers the generation after which events come.
  virtual result<std::uint64_t> watch() = 0;
  /// The events up to `generation`, which was seen.
  virtual result<std::vector<commit_event>>
  events(std::uint64_t generation) = 0;
  /// Returns when there is something after `generation`, or soon.
  virtual result<void> wait(std::uint64_t generation) = 0;
  virtual result<void> verify() = 0;
};

/// How a process has its stores open. Everything that its sessions need.
class connection {
public:
  virtual ~connection() = default;
  virtual result<std::unique_ptr<session>> open(unsigned store) = 0;
};

enum class access : std::uint8_t { engine, client };

/// The stores in `directory`, which several processes use. A process must not
/// fork afterwards.
result<std::unique_ptr<connection>>
connect(const std::filesystem::path& directory, access how);

} // namespace callboard::history
