#pragma once

#include "core/commit_log.hpp"
#include "core/store.hpp"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace callboard {

/// The memory that an event in a queue takes, about.
std::size_t memory_bytes(const commit_event& event);

/// The event that stands for all up to `generation`.
commit_event overflow_at(std::uint64_t generation);

/// Makes events of the frames that a handle applies, without a gap that it
/// does not tell of.
///
/// Threads: not thread-safe.
class event_recorder {
public:
  /// Events from now on are of commits after generation `after`.
  void start(std::uint64_t after);
  void stop();
  bool is_recording() const noexcept { return is_recording_; }

  /// A frame was applied. Those that were recorded before are ignored.
  void record(const frame& transaction, std::uint32_t dimension);

  /// The state has come to `sequence`; what was not recorded until there never
  /// will be.
  void skip_to(std::uint64_t sequence);

  /// The events up to generation `last`.
  std::vector<commit_event> take(std::uint64_t last);

private:
  void add(commit_event event);

  bool is_recording_ = false;
  std::uint64_t last_ = 0;
  std::vector<commit_event> events_;
  std::size_t bytes_ = 0;
};

} // namespace callboard
