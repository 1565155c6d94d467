#pragma once

#include "core/base.hpp"
#include "core/commit_log.hpp"
#include "core/delta.hpp"
#include "core/liveness.hpp"
#include "core/result.hpp"
#include "core/snapshot.hpp"

#include <cstdint>
#include <memory>

namespace callboard {

/// What a base and the frames applied to it add up to.
///
/// Threads: not thread-safe; the snapshots it makes are.
class applied_state {
public:
  applied_state(std::shared_ptr<const base> base_rows, std::uint64_t sequence,
                std::uint64_t drop_epoch);

  std::uint64_t sequence() const noexcept { return sequence_; }
  std::uint64_t drop_epoch() const noexcept { return drop_epoch_; }
  const std::shared_ptr<const base>& base_rows() const noexcept {
    return base_;
  }
  const delta& delta_rows() const noexcept { return *delta_; }
  std::size_t row_count() const noexcept {
    return base_->row_count() + delta_->row_count();
  }

  /// Applies the next frame: all of it, or on an error nothing.
  result<void> apply(const frame& transaction);

  /// The state as of now. O(rows / 32768).
  snapshot_ptr snapshot();

private:
  void apply_operation(const operation_view& operation);
  void hide(std::string_view id);

  std::shared_ptr<const base> base_;
  std::shared_ptr<delta> delta_;
  liveness alive_;
  std::uint64_t sequence_;
  std::uint64_t drop_epoch_;
};

} // namespace callboard
