#include "core/applied_state.hpp"

#include <utility>

namespace callboard {

applied_state::applied_state(std::shared_ptr<const base> base_rows,
                             std::uint64_t sequence, std::uint64_t drop_epoch)
    : base_(std::move(base_rows)),
      delta_(std::make_shared<delta>(base_->dimension())),
      alive_(base_->initial_liveness()),
      sequence_(sequence),
      drop_epoch_(drop_epoch) {}

result<void> applied_state::apply(const frame& transaction) {
  // Memory may have run out in the middle of the one before.
  if (transaction.sequence != sequence_ + 1)
    return failure{errc::broken,
                   "commit " + std::to_string(transaction.sequence)
                       + " was to be applied to generation "
                       + std::to_string(sequence_) + ": open the store again"};
  if (transaction.type == frame_type::drop) {
    delta_ = std::make_shared<delta>(base_->dimension());
    alive_.clear_all();
    ++drop_epoch_;
  } else {
    auto dimension = static_cast<std::uint32_t>(base_->dimension());
    auto check = [](const operation_view&) {};
    CALLBOARD_TRY(for_each_operation(transaction, dimension, check));
    auto apply = [this](const operation_view& operation) {
      apply_operation(operation);
    };
    CALLBOARD_TRY(for_each_operation(transaction, dimension, apply));
  }
  sequence_ = transaction.sequence;
  return {};
}

void applied_state::apply_operation(const operation_view& operation) {
  hide(operation.id);
  if (operation.what == commit_operation::kind::remove)
    return;
  auto row = delta_->append(std::string{operation.id},
                            std::string{operation.record}, operation.vector);
  alive_.set(static_cast<row_number>(base_->row_count() + row));
}

void applied_state::hide(std::string_view id) {
  if (auto row = delta_->find(id, delta_->row_count()))
    alive_.clear(static_cast<row_number>(base_->row_count() + *row));
  else if (auto base_row = base_->find(id))
    alive_.clear(*base_row);
}

snapshot_ptr applied_state::snapshot() {
  return std::make_shared<const callboard::snapshot>(
      base_, delta_, delta_->row_count(), alive_.share(), sequence_,
      drop_epoch_);
}

} // namespace callboard
