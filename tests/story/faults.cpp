#include "tests/story/faults.hpp"

#include "core/store.hpp"
#include "ipc/board_page.hpp"
#include "tests/story/model.hpp"

#include <iterator>
#include <utility>

namespace callboard::test {

using namespace simulation;

namespace {

constexpr std::uint64_t board_fault_rate = 30;

/// What a board does, apart from notices, and nothing else does.
bool is_for_board(const operation& what) {
  return what.name == board_file_name
         || (what.kind == operation_kind::open_directory
             && what.path() == working_directory);
}

} // namespace

plot::plot(random_source& random) {
  const std::uint64_t rates[] = {0, 0, 600, 150};
  const std::uint64_t death_rates[] = {0, 0, 1500, 400};
  io_fault_rate = rates[random.below(4)];
  kill_rate = death_rates[random.below(4)];
  power_rate = death_rates[random.below(4)] * 2;
  embedding_fault_rate = random.below(3) == 1 ? 8 : 0;
  may_reject_texts = random.below(4) == 1;
  is_board_lossy = random.below(8) == 1;
  has_deaf_processes = is_board_lossy && random.below(2) == 1;
  has_automatic_checkpoints = random.below(3) == 1;
  has_foreign_program = random.below(6) == 1;
  has_damage = random.below(12) == 1;
  stores = random.below(5) == 1 ? 2 : 1;
  processes = 2 + random.below(2);
  turns = 30 + random.below(60);
  top_k = 2 + random.below(8);
  patience = 1 + random.below(40);
  const std::size_t limits[] = {commit_operations_max, 6, 2};
  pending_max = limits[random.below(8) == 1 ? 1 + random.below(2) : 0];
}

// -- Files, processes, power --------------------------------------------------

fault fault_maker::fault_for(const operation& what) {
  if (are_over_ || spared_.count(what.process) > 0)
    return fault::none();
  if (what.index >= safe_until_) {
    const auto out = death();
    if (out.what != fault::action::none)
      return out;
  }
  if (is_for_board(what))
    return plot_.is_board_lossy && random_.one_in(board_fault_rate)
               ? count(fault::fail(errc::io_failure))
               : fault::none();
  return once_in(plot_.io_fault_rate) ? io_fault(what) : fault::none();
}

fault fault_maker::death() {
  if (once_in(plot_.kill_rate)) {
    ++totals_.kills;
    return fault::kill(static_cast<moment>(random_.below(3)));
  }
  if (once_in(plot_.power_rate)) {
    const auto when = static_cast<moment>(random_.below(3));
    return fault::lose_power(when, lose_power());
  }
  return fault::none();
}

fault fault_maker::io_fault(const operation& what) {
  using kind = operation_kind;
  switch (what.kind) {
  case kind::announce:
    return plot_.is_board_lossy ? count(fault::fail(errc::io_failure))
                                : fault::none();
  case kind::poison:
  case kind::clear_poison:
  case kind::pause:
  case kind::unlock:
  case kind::close:
  case kind::status:
  case kind::list:
    return fault::none();
  case kind::append:
  case kind::write_at:
    return count(random_.one_in(2) ? fault::fail(errc::no_space)
                                   : fault::cut_short(static_cast<std::size_t>(
                                       random_.below(what.size_bytes + 1))));
  case kind::sync:
  case kind::sync_data:
    // Who does not share the board does not hear that the log is poisoned, and
    // goes on with it: see docs/design.md, "Board".
    if (may_be_deaf())
      return fault::none();
    // A process that dies between a failed sync and the poison leaves what
    // the engine cannot know of: see docs/design.md, "Commit".
    safe_until_ = what.index + 50;
    ++totals_.failed_syncs;
    return count(fault::fail(errc::io_failure));
  case kind::lock:
    return count(fault::fail(errc::busy));
  default:
    return count(fault::fail(errc::io_failure));
  }
}

fault fault_maker::count(fault out) {
  ++totals_.io_faults;
  return out;
}

bool fault_maker::may_lose_power(std::uint64_t operation_count) const {
  return !are_over_ && plot_.power_rate > 0 && operation_count >= safe_until_;
}

loss_model fault_maker::lose_power() {
  ++totals_.power_losses;
  power_failed_ = true;
  return random_.one_in(2) ? loss_model::weakest : loss_model::ordered;
}

bool fault_maker::take_power_loss() {
  return std::exchange(power_failed_, false);
}

bool fault_maker::may_be_deaf() const {
  return plot_.is_board_lossy || computer_.unshared_attachments() > 0;
}

bool fault_maker::keeps_commits_whole() const {
  return !plot_.may_reject_texts && !may_be_deaf();
}

// -- The model ----------------------------------------------------------------

embedding_fault fault_maker::embedding_fault_now() {
  if (are_over_ || !once_in(plot_.embedding_fault_rate))
    return embedding_fault::none;
  ++totals_.embedding_faults;
  const embedding_fault kinds[] = {
      embedding_fault::failure, embedding_fault::rate_limit,
      embedding_fault::wrong_count, embedding_fault::wrong_dimension,
      embedding_fault::throws};
  // A text whose vector cannot be is rejected, too.
  if (plot_.may_reject_texts && random_.one_in(2))
    return random_.one_in(2) ? embedding_fault::rejected_text
                             : embedding_fault::not_a_number;
  return kinds[random_.below(std::size(kinds))];
}

} // namespace callboard::test
