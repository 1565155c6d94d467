#include "core/bytes.hpp"
#include "core/file_store.hpp"

#include <spdlog/logger.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>
#include <utility>

/// How a store's base is replaced: checkpoints, drops, and the taking over of
/// pairs that somebody else wrote.
namespace callboard {

namespace {

/// A log is folded when it has this many bytes and is this large a part of
/// the base.
constexpr std::uint64_t log_bytes_min = std::uint64_t{16} << 20;
constexpr std::uint64_t log_share = 2;
/// Compaction is worth its writing from this many holes and this share on.
constexpr std::size_t hole_count_min = 1024;
constexpr std::size_t hole_share = 4;
/// A LightRAG writer replaces its two files one after the other.
constexpr auto other_half_timeout = std::chrono::seconds(5);
constexpr auto other_half_pause = std::chrono::milliseconds(50);
constexpr auto publication_lock_timeout = std::chrono::milliseconds(0);
/// How long opening waits for a writer before it leaves the rest to others.
constexpr auto settling_lock_timeout = std::chrono::milliseconds(500);
constexpr std::size_t replayed_frame_bytes = std::size_t{64} << 20;

} // namespace

class file_store::job final : public checkpoint_job {
public:
  result<void> write() override {
    if (!kind)
      return {};
    auto source = fold(view, *kind, row_floor);
    CALLBOARD_TRY_ASSIGN(written, write_base(*home, store, epoch, dimension,
                                             file_mode, *source));
    done = true;
    return {};
  }

  /// Empty: there is nothing to write.
  std::optional<fold_kind> kind;
  std::optional<held_lock> checkpointer;
  std::unique_ptr<directory> home;
  snapshot_ptr view;
  store_id store{};
  std::uint64_t epoch = 0;
  std::uint64_t row_floor = 0;
  std::uint32_t dimension = 0;
  std::uint32_t file_mode = 0;
  base_descriptor written;
  bool done = false;
};

bool file_store::relocation_ready() const {
  return root_.moves_planned_at != 0
         && door_.wall_clock_seconds() - root_.moves_planned_at
                >= options_.reader_grace.count();
}

/// What new rows must keep clear of; 0: nothing. Where the clock went backwards
/// nobody knows how much time has passed: the floor stays.
std::uint64_t file_store::row_floor() const {
  auto passed = door_.wall_clock_seconds() - root_.row_floor_since;
  return passed < options_.reader_grace.count() ? root_.row_floor : 0;
}

/// The floor for a base that takes rows away from what is published: numbers
/// that any reader's index file may have stay out of use.
std::uint64_t file_store::raised_row_floor() const {
  return std::min<std::uint64_t>(
      std::max({row_floor(), root_.base.row_count, pair_->index_row_count()}),
      row_count_max);
}

/// Before a base is published late: what counts from its publication begins
/// now. The state has to follow the new MANIFEST.
result<void> file_store::restart_grace() {
  if (root_.row_floor == 0 && root_.moves_planned_at == 0)
    return {};
  auto next = root_;
  auto now = door_.wall_clock_seconds();
  if (next.row_floor != 0)
    next.row_floor_since = now;
  if (next.moves_planned_at != 0)
    next.moves_planned_at = now;
  return write_manifest(std::move(next));
}

bool file_store::checkpoint_due() const {
  if (broken_)
    return false;
  auto log_bytes = sealed_log_bytes_ + log_->offset();
  auto base_bytes = root_.base.index_bytes + root_.base.meta_bytes;
  if (log_bytes > std::max(log_bytes_min, base_bytes / log_share))
    return true;
  return relocation_ready() && !look_ahead(*view_).rows_since_base;
}

bool file_store::published() const {
  return published_ && root_.base_sequence == state_->sequence();
}

/// What a checkpoint would do now; empty: nothing.
std::optional<fold_kind> file_store::plan_fold(compaction how) const {
  auto ahead = look_ahead(*view_);
  if (how != compaction::none) {
    if (relocation_ready() && !ahead.rows_since_base)
      return fold_kind::relocate;
    auto worth_it = ahead.hole_count >= hole_count_min
                    && ahead.hole_count * hole_share >= ahead.row_count;
    if (root_.moves_planned_at == 0 && ahead.hole_count > 0
        && (worth_it || how == compaction::forced))
      return fold_kind::extend_and_copy;
  }
  if (state_->sequence() != root_.base_sequence)
    return fold_kind::extend;
  return std::nullopt;
}

result<std::unique_ptr<checkpoint_job>>
file_store::begin_checkpoint(compaction how, patience wait) {
  CALLBOARD_TRY(check_writable());
  auto out = std::make_unique<job>();
  CALLBOARD_TRY_ASSIGN(out->checkpointer,
                       held_lock::acquire(door_, *home_, store_lock::checkpoint,
                                          lock_mode::exclusive,
                                          wait == patience::none
                                              ? std::chrono::milliseconds(0)
                                              : options_.lock_timeout));
  CALLBOARD_TRY_ASSIGN(auto writer, lock(store_lock::writer)); // K1
  CALLBOARD_TRY(catch_up());
  if (needs_rewrite()) {
    CALLBOARD_TRY(rewrite());
  }
  CALLBOARD_TRY(bring_publication_up_to_date());
  out->kind = plan_fold(how);
  if (!out->kind)
    return std::unique_ptr<checkpoint_job>{std::move(out)};
  if (root_.logs.size() == manifest_logs_max) {
    // So many interrupted checkpoints leave no room for one more log.
    CALLBOARD_TRY(rewrite());
    out->kind.reset();
    return std::unique_ptr<checkpoint_job>{std::move(out)};
  }
  CALLBOARD_TRY_ASSIGN(out->epoch, rotate()); // K2
  CALLBOARD_TRY_ASSIGN(
      out->home, outside_->open_directory(
                     private_directory_name(options_.namespace_name), false));
  out->view = view_;
  out->row_floor = row_floor();
  out->store = root_.base.store;
  out->dimension = root_.base.dimension;
  out->file_mode = pair_->file_mode();
  return std::unique_ptr<checkpoint_job>{std::move(out)};
}

/// K1, K2: commits from now on go to a log of their own.
result<std::uint64_t> file_store::rotate() {
  auto epoch = root_.next_epoch();
  if (root_.logs.size() > 1 && log_->base_sequence() == state_->sequence())
    return log_->epoch(); // an interrupted checkpoint has rotated already
  CALLBOARD_TRY(remove_waiting_temporary());
  CALLBOARD_TRY(log_cursor::create(*home_, epoch, state_->sequence(),
                                   door_.random_bits(), root_.base.dimension));
  CALLBOARD_TRY(home_->sync());
  auto next = root_;
  next.logs.push_back(epoch);
  CALLBOARD_TRY(write_manifest(std::move(next)));
  CALLBOARD_TRY(follow(reach::everything));
  update_view();
  return epoch;
}

/// The root once the base `written` has been made of `view`.
manifest file_store::root_after(const base_descriptor& written,
                                const snapshot& view, fold_kind kind,
                                std::uint64_t epoch) const {
  auto next = root_;
  next.base = written;
  next.base_sequence = view.generation();
  next.drop_epoch = view.drop_epoch();
  next.meta_first = kind == fold_kind::relocate;
  auto rows_go = kind == fold_kind::relocate || kind == fold_kind::clear;
  auto now = door_.wall_clock_seconds();
  next.row_floor = rows_go ? raised_row_floor() : row_floor();
  // A time to come is that of a clock that went backwards since: it must not
  // last for ever.
  next.row_floor_since = rows_go ? now : std::min(root_.row_floor_since, now);
  if (kind == fold_kind::extend_and_copy)
    next.moves_planned_at = now;
  else if (kind == fold_kind::extend)
    next.moves_planned_at = std::min(root_.moves_planned_at, now);
  else
    next.moves_planned_at = 0;
  std::erase_if(next.logs, [&](auto log) { return log < epoch; });
  return next;
}

/// The switch of this handle to the new base, and K5 to K9. The switch comes
/// first: whatever fails after it, this handle writes to the right log.
result<void> file_store::settle_on_new_base() {
  published_ = false;
  CALLBOARD_TRY(load(reach::durable));
  notices_->note_base_epoch(root_.base.epoch);
  CALLBOARD_TRY(pair_->publish(root_)); // K5 to K8
  published_ = true;
  if (auto collected = collect_garbage(); !collected) // K9
    options_.log->warn("{}", collected.error().message);
  return {};
}

result<snapshot_ptr>
file_store::finish_checkpoint(std::unique_ptr<checkpoint_job> written) {
  auto& finished = static_cast<job&>(*written);
  if (!finished.kind)
    return view_;
  if (!finished.done)
    return failure{errc::invalid_argument, "the checkpoint was not written"};
  CALLBOARD_TRY(check_writable());
  CALLBOARD_TRY_ASSIGN(auto published, pair_->examine(root_));
  if (published == published_pair::state::foreign
      || published == published_pair::state::half_foreign)
    return failure{
        errc::busy,
        outside_->path()
            + ": another program wrote the published files while a "
              "checkpoint was written: the next one takes them over"};
  // K4, the checkpoint point
  CALLBOARD_TRY(write_manifest(root_after(finished.written, *finished.view,
                                          *finished.kind, finished.epoch)));
  CALLBOARD_TRY(settle_on_new_base());
  return view_;
}

result<snapshot_ptr> file_store::checkpoint(compaction how) {
  // A compaction takes up to three steps: fold, copy, relocate.
  for (int step = 0; step < 4; ++step) {
    CALLBOARD_TRY_ASSIGN(auto next,
                         begin_checkpoint(how, patience::lock_timeout));
    auto nothing_left = !static_cast<job&>(*next).kind;
    CALLBOARD_TRY(next->write());
    CALLBOARD_TRY(finish_checkpoint(std::move(next)));
    if (nothing_left)
      break;
  }
  return view_;
}

/// Whether MANIFEST has yet to follow a drop.
bool file_store::is_dropped() const {
  return state_->drop_epoch() != root_.drop_epoch && view_->live_count() == 0;
}

/// Finishes a drop, a poisoned log, or a salvage, under both locks: what there
/// is goes to fresh files. A pair that somebody else has published is not part
/// of that: it is taken over.
result<void> file_store::rewrite() {
  if (is_dropped()) {
    CALLBOARD_TRY(remove_kept());
  }
  CALLBOARD_TRY_ASSIGN(auto published, look_at_publication());
  if (published == published_pair::state::foreign)
    return adopt_foreign_pair();
  return write_fresh_files(published);
}

/// Sequences that were announced are not used again, even if a salvage lost
/// the commits that had them.
std::uint64_t file_store::last_used_sequence() const {
  auto sequence = state_->sequence();
  return salvaged_ ? std::max(sequence, notices_->durable_sequence())
                   : sequence;
}

/// Makes the whole state the new base and publishes it, over whatever is
/// `published`.
result<void> file_store::write_fresh_files(published_pair::state published) {
  auto dropped = is_dropped();
  auto kind = dropped ? fold_kind::clear : fold_kind::extend;
  auto epoch = root_.next_epoch();
  if (published == published_pair::state::outdated) {
    // The new base continues the numbers of this one, not of an older one.
    CALLBOARD_TRY(restart_grace());
    CALLBOARD_TRY(pair_->publish(root_));
  }
  auto sequence = last_used_sequence();
  auto source = fold(view_, kind, row_floor());
  CALLBOARD_TRY_ASSIGN(auto written, write_base(*home_, root_.base.store, epoch,
                                                root_.base.dimension,
                                                pair_->file_mode(), *source));
  CALLBOARD_TRY(log_cursor::create(*home_, epoch, sequence, door_.random_bits(),
                                   root_.base.dimension));
  CALLBOARD_TRY(home_->sync());
  auto next = root_after(written, *view_, kind, epoch);
  next.base_sequence = sequence;
  next.logs = {epoch};
  CALLBOARD_TRY(write_manifest(std::move(next)));
  leave_old_log();
  CALLBOARD_TRY(settle_on_new_base());
  return dropped ? collect_garbage() : result<void>{};
}

result<snapshot_ptr> file_store::drop() {
  CALLBOARD_TRY(check_writable());
  CALLBOARD_TRY_ASSIGN(auto checkpointer, lock(store_lock::checkpoint));
  CALLBOARD_TRY_ASSIGN(auto writer, lock(store_lock::writer));
  CALLBOARD_TRY(catch_up());
  if (needs_rewrite()) {
    CALLBOARD_TRY(rewrite());
  }
  CALLBOARD_TRY(append_frame(frame_type::drop, 0, {}));
  CALLBOARD_TRY(remove_kept());
  CALLBOARD_TRY_ASSIGN(auto published, pair_->examine(root_));
  CALLBOARD_TRY(write_fresh_files(published));
  return view_;
}

/// Nothing of it is read any more.
void file_store::leave_old_log() {
  salvaged_ = false;
  notices_->clear_poison();
}

/// For a drop: removes what was kept for its owner, durably. That must be gone
/// before MANIFEST says that the drop is done: what waits would be taken for
/// records of after the drop.
result<void> file_store::remove_kept() {
  to_embed_.clear();
  CALLBOARD_TRY_ASSIGN(auto names, home_->list());
  for (const auto& name : names)
    if (classify(name).what == private_file::kind::kept) {
      CALLBOARD_TRY(home_->remove(name));
    }
  CALLBOARD_TRY(remove_waiting_temporary());
  return home_->sync();
}

/// The caller holds the writer lock, as does who writes this file: K9 leaves it
/// alone.
result<void> file_store::remove_waiting_temporary() {
  if (!home_->status(unembedded_temporary_name))
    return {};
  return home_->remove(unembedded_temporary_name);
}

/// Removes what no MANIFEST names: old bases and logs, debris.
result<void> file_store::collect_garbage() {
  CALLBOARD_TRY_ASSIGN(auto names, home_->list());
  auto keep = [&](const std::string& name) {
    auto found = classify(name);
    switch (found.what) {
    case private_file::kind::base:
      return found.epoch == root_.base.epoch;
    case private_file::kind::log:
      return std::ranges::find(root_.logs, found.epoch) != root_.logs.end();
    case private_file::kind::kept:
      return true;
    case private_file::kind::temporary:
      return name == unembedded_temporary_name;
    case private_file::kind::other:
      break;
    }
    return true;
  };
  for (const auto& name : names)
    if (!keep(name)) {
      CALLBOARD_TRY(home_->remove(name));
    }
  return {};
}

// -- pairs that somebody else wrote -------------------------------------------

/// Publishes what a dead process left unpublished, and takes over what a
/// LightRAG process wrote. Somebody else's checkpoint does both: then there is
/// nothing to do here.
result<void> file_store::settle_publication() {
  CALLBOARD_TRY_ASSIGN(auto published, pair_->examine(root_));
  if (published == published_pair::state::current && !needs_rewrite()) {
    published_ = true;
    return {};
  }
  auto checkpointer =
      held_lock::acquire(door_, *home_, store_lock::checkpoint,
                         lock_mode::exclusive, publication_lock_timeout);
  if (!checkpointer)
    return checkpointer.error().code == errc::busy
               ? result<void>{}
               : result<void>{std::move(checkpointer).error()};
  auto writer = held_lock::acquire(door_, *home_, store_lock::writer,
                                   lock_mode::exclusive, settling_lock_timeout);
  if (!writer)
    return writer.error().code == errc::busy
               ? result<void>{}
               : result<void>{std::move(writer).error()};
  CALLBOARD_TRY(catch_up());
  if (needs_rewrite()) {
    CALLBOARD_TRY(rewrite());
  }
  return bring_publication_up_to_date();
}

/// Half of a foreign pair is given time to become a whole one, and is kept if
/// it stays alone.
result<published_pair::state> file_store::look_at_publication() {
  CALLBOARD_TRY_ASSIGN(auto published, pair_->examine(root_));
  if (published == published_pair::state::half_foreign) {
    CALLBOARD_TRY_ASSIGN(published, wait_for_other_half());
  }
  if (published == published_pair::state::half_foreign) {
    options_.log->warn("{}: only one file of the pair was written by somebody "
                       "else; it is kept in {}",
                       outside_->path(), home_->path());
    CALLBOARD_TRY(pair_->set_aside(root_.next_epoch()));
  }
  return published;
}

result<void> file_store::bring_publication_up_to_date() {
  CALLBOARD_TRY_ASSIGN(auto published, look_at_publication());
  if (published == published_pair::state::foreign)
    return adopt_foreign_pair();
  if (published == published_pair::state::current) {
    CALLBOARD_TRY(outside_->sync()); // who published it may have failed to
  } else {
    CALLBOARD_TRY(restart_grace());
    CALLBOARD_TRY(follow(reach::everything));
    update_view();
    CALLBOARD_TRY(pair_->publish(root_));
  }
  published_ = true;
  return {};
}

result<published_pair::state> file_store::wait_for_other_half() {
  auto give_up = door_.steady_clock() + other_half_timeout;
  for (;;) {
    CALLBOARD_TRY_ASSIGN(auto published, pair_->examine(root_));
    if (published != published_pair::state::half_foreign
        || door_.steady_clock() >= give_up)
      return published;
    door_.pause(other_half_pause);
  }
}

/// A foreign pair becomes the new base; what was committed here since the old
/// base goes on top of it, in a log that is complete before MANIFEST names it.
result<void> file_store::adopt_foreign_pair() {
  CALLBOARD_TRY_ASSIGN(auto imported,
                       read_lightrag_pair(*outside_, options_.namespace_name,
                                          root_.base.dimension));
  auto epoch = root_.next_epoch();
  CALLBOARD_TRY_ASSIGN(auto on_top, operations_since_base());
  std::unordered_set<std::string_view> ours;
  for (const auto& each : on_top)
    ours.insert(each.id);
  std::erase_if(imported.to_embed,
                [&](const auto& each) { return ours.contains(each.id); });
  imported.report.records_to_embed = imported.to_embed.size();
  CALLBOARD_TRY(keep_records_to_embed(imported.to_embed));
  if (!imported.report.lossless() || !imported.to_embed.empty()) {
    CALLBOARD_TRY(pair_->set_aside(epoch));
  }
  std::ranges::move(imported.to_embed, std::back_inserter(to_embed_));
  CALLBOARD_TRY_ASSIGN(auto written,
                       write_base(*home_, root_.base.store, epoch,
                                  root_.base.dimension, pair_->file_mode(),
                                  *imported.source));
  auto base_sequence = last_used_sequence() + 1;
  CALLBOARD_TRY(log_cursor::create(*home_, epoch, base_sequence,
                                   door_.random_bits(), root_.base.dimension));
  CALLBOARD_TRY_ASSIGN(auto last_sequence, append_operations(epoch, on_top));
  CALLBOARD_TRY(home_->sync());
  auto next = root_;
  next.base = written;
  next.base_sequence = base_sequence;
  next.drop_epoch = state_->drop_epoch();
  next.meta_first = false;
  next.moves_planned_at = 0;
  next.row_floor = raised_row_floor();
  next.row_floor_since = door_.wall_clock_seconds();
  next.durable_sequence = last_sequence;
  next.logs = {epoch};
  options_.log->warn(
      "{}: took over a pair written by somebody else; {} changes "
      "of ours were applied on top",
      outside_->path(), on_top.size());
  report_.imported = true;
  report_.import = imported.report;
  CALLBOARD_TRY(write_manifest(std::move(next)));
  leave_old_log();
  durable_ = last_sequence;
  notices_->announce(durable_);
  return settle_on_new_base();
}

/// The net changes since the base, in the order of their last occurrence.
result<std::vector<commit_operation>> file_store::operations_since_base() {
  std::vector<std::optional<commit_operation>> ordered;
  std::unordered_map<std::string, std::size_t> last;
  auto add = [&](const operation_view& view) {
    commit_operation operation;
    operation.what = view.what;
    operation.id = view.id;
    operation.record = view.record;
    operation.vector.resize(view.vector.size() / sizeof(float));
    std::ranges::copy(
        view.vector,
        std::as_writable_bytes(std::span{operation.vector}).begin());
    auto [place, added] = last.try_emplace(operation.id, ordered.size());
    if (!added) {
      ordered[place->second].reset();
      place->second = ordered.size();
    }
    ordered.emplace_back(std::move(operation));
  };
  auto reached = root_.base_sequence;
  for (auto epoch : root_.logs) {
    CALLBOARD_TRY_ASSIGN(auto log,
                         log_cursor::open(*home_, epoch, root_.base.dimension));
    while (log.sequence() < state_->sequence()) {
      CALLBOARD_TRY_ASSIGN(auto transaction, log.next());
      if (!transaction)
        break;
      reached = transaction->sequence;
      if (transaction->type == frame_type::drop) {
        ordered.clear();
        last.clear();
        continue;
      }
      CALLBOARD_TRY(
          for_each_operation(*transaction, root_.base.dimension, add));
    }
  }
  if (reached != state_->sequence())
    return failure{errc::corrupt,
                   path_of(log_->name())
                       + ": commits that were read before are not there any "
                         "more; the store was not touched"};
  std::vector<commit_operation> out;
  for (auto& operation : ordered)
    if (operation)
      out.push_back(std::move(*operation));
  return out;
}

/// Writes `operations` to the new, still unnamed log `epoch` and syncs it.
/// Returns the last sequence.
result<std::uint64_t>
file_store::append_operations(std::uint64_t epoch,
                              std::span<const commit_operation> operations) {
  CALLBOARD_TRY_ASSIGN(auto log,
                       log_cursor::open(*home_, epoch, root_.base.dimension));
  std::vector<std::byte> payload;
  std::uint32_t count = 0;
  for (std::size_t i = 0; i < operations.size(); ++i) {
    encode_operation(operations[i], payload);
    ++count;
    if (i + 1 == operations.size() || payload.size() >= replayed_frame_bytes) {
      CALLBOARD_TRY(log.append(frame_type::commit, fence_, count, payload));
      payload.clear();
      count = 0;
    }
  }
  CALLBOARD_TRY(log.sync());
  return log.sequence();
}

} // namespace callboard
