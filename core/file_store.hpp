#pragma once

#include "core/applied_state.hpp"
#include "core/commit_log.hpp"
#include "core/event_recorder.hpp"
#include "core/fold.hpp"
#include "core/manifest.hpp"
#include "core/published_pair.hpp"
#include "core/store.hpp"

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace callboard {

/// Locks on bytes of LOCK; part of the protocol between processes.
enum class store_lock : std::uint64_t {
  writer = 0,
  checkpoint = 1,
  create = 2,
  /// Held while waiting for `writer`: so nobody who has just released that
  /// can take it again before the one who waits.
  next_writer = 3,
};

/// A lock held on one byte of LOCK, through an open of its own: released when
/// this object goes, on any thread.
class held_lock {
public:
  static result<held_lock> acquire(io& door, const directory& home,
                                   store_lock which, lock_mode mode,
                                   std::chrono::milliseconds timeout);

private:
  explicit held_lock(std::unique_ptr<file> opened) : file_(std::move(opened)) {}
  std::unique_ptr<file> file_;
};

/// What the last look at the files showed; written by the store, compared by
/// the probe.
struct seen_files {
  std::atomic<std::uint64_t> manifest_inode = 0;
  std::atomic<std::int64_t> manifest_modified_ns = 0;
  std::atomic<std::uint64_t> log_epoch = 0;
  std::atomic<std::uint64_t> log_bytes = 0;
  /// A look at the files has shown something else since.
  std::atomic<bool> outdated = false;
};

/// `store` over files. Where the protocol's steps are implemented; their names
/// (W1, K4, ...) are those of docs/design.md.
class file_store final : public store {
public:
  static result<std::unique_ptr<store>> open(io& door, notice_board& board,
                                             store_options options);

  const open_report& report() const override { return report_; }
  std::vector<record_to_embed> take_records_to_embed() override;
  snapshot_ptr view() const override { return view_; }
  std::shared_ptr<const change_probe> probe() const override { return probe_; }
  result<snapshot_ptr> refresh() override;
  void keep_events(std::uint64_t after) override;
  void keep_no_events() override { events_.stop(); }
  std::vector<commit_event> take_events() override;
  result<commit_outcome>
  commit(std::span<const commit_operation> operations,
         std::optional<std::uint64_t> expected_generation) override;
  bool checkpoint_due() const override;
  bool published() const override;
  result<std::unique_ptr<checkpoint_job>>
  begin_checkpoint(compaction how, patience wait) override;
  result<snapshot_ptr>
  finish_checkpoint(std::unique_ptr<checkpoint_job> job) override;
  result<snapshot_ptr> checkpoint(compaction how) override;
  result<snapshot_ptr> drop() override;
  store_stats stats() const override;
  result<void> verify() override;

private:
  class job;
  class files_probe;

  file_store(io& door, notice_board& board, store_options options);

  /// How far frames are believed: readers stop at what is known to be durable;
  /// who holds the writer lock reads all (and syncs it).
  enum class reach : std::uint8_t { durable, everything };

  // Opening.
  result<void> open_directories();
  result<void> check_file_system() const;
  result<void> create();
  result<std::uint64_t> epoch_after_debris() const;
  result<void> recover();
  result<void> check_identity(const manifest& root) const;
  result<void> settle_publication();
  result<void>
  keep_records_to_embed(std::span<const record_to_embed> records) const;
  result<void> load_records_to_embed();
  std::optional<file_identity> waiting_file() const;
  result<std::vector<record_to_embed>> waiting_records() const;
  result<void>
  write_waiting_records(std::span<const record_to_embed> records) const;
  result<std::set<const commit_operation*>>
  settled_by_others(std::span<const commit_operation> operations) const;
  result<void> strike_out(std::span<const commit_operation> operations,
                          const std::set<const commit_operation*>& overtaken);

  // The root.
  std::string path_of(std::string_view name) const;
  result<manifest> read_manifest(std::unique_ptr<file>& opened) const;
  result<void> write_manifest(manifest next);
  bool manifest_replaced() const;

  // Following others.
  result<void> load(reach how_far);
  result<void> load_once(reach how_far);
  result<void> replay(applied_state& state, const manifest& root,
                      std::uint64_t last);
  result<void> replay_log(applied_state& state, log_cursor& log,
                          std::uint64_t limit);
  result<void> follow(reach how_far);
  result<void> settle_root(reach how_far);
  result<void> step_through_logs(reach how_far);
  result<void> drain(reach how_far);
  result<void> expose_unannounced();
  result<void> drain_followed();
  std::uint64_t limit(reach how_far) const;
  void update_view();
  result<void> verify_once();

  // Writing. The caller holds the writer lock for these.
  result<void> catch_up();
  result<void> heal_tail();
  result<void> sync_log();
  bool needs_rewrite() const;
  result<void> append_frame(frame_type type, std::uint32_t operation_count,
                            std::vector<std::byte> payload);
  result<void> write_frame(frame_type type, std::uint32_t operation_count,
                           std::span<const std::byte> payload);
  result<void> salvage_tail(const log_cursor& log);

  /// Takes the writer lock and catches up; finishes first what a dead process
  /// left half done.
  result<held_lock> enter_writer();
  result<held_lock> lock(store_lock which) const;

  // Replacing the base. The caller holds the checkpoint lock for these, and
  // for all but `settle_on_new_base` the writer lock, too.
  result<std::uint64_t> rotate();
  manifest root_after(const base_descriptor& written, const snapshot& view,
                      fold_kind kind, std::uint64_t epoch) const;
  void leave_old_log();
  result<void> settle_on_new_base();
  result<void> rewrite();
  result<void> write_fresh_files(published_pair::state published);
  bool is_dropped() const;
  std::uint64_t last_used_sequence() const;
  result<published_pair::state> look_at_publication();
  result<void> bring_publication_up_to_date();
  result<void> adopt_foreign_pair();
  result<published_pair::state> wait_for_other_half();
  result<std::vector<commit_operation>> operations_since_base();
  result<std::uint64_t>
  append_operations(std::uint64_t epoch,
                    std::span<const commit_operation> operations);
  result<void> remove_kept();
  result<void> remove_waiting_temporary();
  result<void> collect_garbage();
  std::optional<fold_kind> plan_fold(compaction how) const;
  bool relocation_ready() const;
  std::uint64_t row_floor() const;
  std::uint64_t raised_row_floor() const;
  result<void> restart_grace();

  result<void> check_writable() const;

  io& door_;
  notice_board& board_;
  store_options options_;
  open_report report_;
  std::vector<record_to_embed> to_embed_;
  /// The file of records that wait, when it was last known to be durable.
  std::optional<file_identity> seen_waiting_file_;

  std::unique_ptr<directory> outside_;
  std::unique_ptr<directory> home_;
  std::optional<published_pair> pair_;

  manifest root_;
  /// The MANIFEST that the state follows; null if the state is behind `root_`.
  /// Kept open so that its inode number is not used again.
  std::unique_ptr<file> root_file_;
  /// The directory was synced since: no power cut brings an older one back.
  bool is_root_durable_ = false;
  std::optional<log_cursor> log_;
  /// Bytes of the logs before the last one.
  std::uint64_t sealed_log_bytes_ = 0;
  std::optional<applied_state> state_;
  snapshot_ptr view_;
  event_recorder events_;

  std::shared_ptr<store_notices> notices_;
  std::shared_ptr<seen_files> seen_ = std::make_shared<seen_files>();
  std::shared_ptr<const change_probe> probe_;

  /// The highest sequence that is known to be durable.
  std::uint64_t durable_ = 0;
  std::uint64_t fence_ = 0;
  /// A sync failed: this handle writes no more.
  bool broken_ = false;
  /// A log was cut short by `store_options::salvage`: the state must go to
  /// fresh files.
  bool salvaged_ = false;
  bool published_ = false;
};

} // namespace callboard
