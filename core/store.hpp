#pragma once

#include "core/io.hpp"
#include "core/lightrag_pair.hpp"
#include "core/notice_board.hpp"
#include "core/result.hpp"
#include "core/snapshot.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace spdlog {
class logger;
}

namespace callboard {

/// Which store, and how to treat it.
struct store_options {
  /// Created with its parents if missing.
  std::string working_directory = {};
  /// A subdirectory of it; empty: none.
  std::string workspace = {};
  std::string namespace_name = {};

  /// Components per vector.
  std::uint32_t dimension = 0;
  /// The embedding model's identity; empty: not checked, not recorded.
  std::string model = {};

  map_mode base_map = map_mode::shared;
  /// How long to wait for another process's lock before `busy`.
  std::chrono::milliseconds lock_timeout = std::chrono::seconds(30);
  /// How long old files of the pair may be in a reader's hands: compaction
  /// moves rows only this long after it has copied them.
  std::chrono::seconds reader_grace = std::chrono::seconds(60);
  /// Cut a log at its first damaged frame instead of refusing to open; what
  /// is cut is kept beside it.
  bool salvage = false;
  /// Open a store that other machines may have open, too. Only one of them may
  /// use it.
  bool network_files = false;
  /// Null: silent.
  std::shared_ptr<spdlog::logger> log = nullptr;
};

/// One change of a commit.
struct commit_operation {
  enum class kind : std::uint8_t { upsert = 1, remove = 2 };
  kind what = kind::upsert;
  std::string id;
  /// For upserts: the record as `make_record` builds it, and its normalized
  /// vector.
  std::string record;
  std::vector<float> vector;
  /// The view's `drop_epoch` when the change was asked for: changes from
  /// before a drop are discarded.
  std::uint64_t drop_epoch = 0;
  /// The record is one of `take_records_to_embed`: discarded if somebody has
  /// committed, removed or replaced it since.
  bool was_waiting = false;
};

/// Limits of one commit.
inline constexpr std::size_t commit_operations_max = 65'536;
inline constexpr std::size_t commit_bytes_max = std::size_t{256} << 20;

struct commit_outcome {
  /// The newest view; holds this commit and all before it.
  snapshot_ptr view;
  /// The commit's sequence; the latest one if there was nothing to commit.
  std::uint64_t generation = 0;
  std::size_t committed = 0;
  /// Changes that somebody else had overtaken: by a drop or, if the record was
  /// one of `take_records_to_embed`, by any change of it.
  std::size_t discarded = 0;
};

/// What `open` had to do.
struct open_report {
  bool created = false;
  /// A pair written by somebody else was taken over; see `import`.
  bool imported = false;
  import_report import;
  /// Bytes of an interrupted, never acknowledged commit that were cut.
  std::uint64_t cut_bytes = 0;
  std::size_t removed_temporaries = 0;
};

struct store_stats {
  std::uint64_t generation = 0;
  std::uint64_t base_epoch = 0;
  std::uint64_t base_generation = 0;
  std::uint64_t drop_epoch = 0;
  std::uint32_t dimension = 0;
  std::string model;
  std::uint64_t live_rows = 0;
  std::uint64_t hole_rows = 0;
  std::uint64_t base_bytes = 0;
  std::uint64_t log_bytes = 0;
  /// Heap held by rows committed since the base.
  std::uint64_t delta_bytes = 0;
};

enum class compaction : std::uint8_t {
  /// Rows keep their numbers.
  none,
  /// When enough rows are holes, and only as far as `reader_grace` allows.
  automatic,
  /// As `automatic`, however few holes there are.
  forced,
};

/// Whether to wait for somebody else's checkpoint (for
/// `store_options::lock_timeout` at most), or to leave it to him: `busy`.
enum class patience : std::uint8_t { none, lock_timeout };

/// Tells cheaply whether a store has moved on. Thread-safe; may outlive the
/// store.
class change_probe {
public:
  virtual ~change_probe() = default;
  /// Whether somebody committed, checkpointed or dropped since the store last
  /// looked. A few atomic loads where a board covers all processes, else also
  /// two `stat` calls. False positives are possible.
  virtual bool changed(std::uint64_t generation) const = 0;

  /// The same by the files alone, by two `stat` calls: what a process without
  /// the board has written shows only here. What is found stays known to
  /// `changed` until the next `store::refresh`.
  virtual bool look_at_files() const = 0;
};

/// What one commit, by whomever, has changed.
struct commit_event {
  enum class kind : std::uint8_t {
    commit,
    /// All rows were removed.
    drop,
    /// Events were lost: anything may have changed, up to this generation.
    overflow,
  };
  kind what = kind::commit;
  std::uint64_t generation = 0;
  /// Ids of the rows that the commit has put there, in its order.
  std::vector<std::string> changed;
  /// Ids that it has removed. They need not have been there.
  std::vector<std::string> removed;
};

/// Memory for events that nobody has taken, in bytes; beyond, they become one
/// `overflow`.
inline constexpr std::size_t event_bytes_max = std::size_t{16} << 20;

/// A checkpoint under way: see `store::begin_checkpoint`.
class checkpoint_job {
public:
  virtual ~checkpoint_job() = default;
  /// Writes the new base. Slow; needs no lock; any one thread.
  virtual result<void> write() = 0;
};

/// One handle on a store: its files, and the state they add up to.
///
/// Protocol:  docs/design.md, "Commit", "Checkpoint", "Recovery".
/// Ownership: borrows `io` and the board, which must outlive it.
/// Threads:   not thread-safe: one thread at a time. Views are immutable and
///            free. Any number of handles, in any number of processes, may be
///            open on one store.
/// Blocking:  every member may block on the disk or a lock, the latter for
///            `store_options::lock_timeout` at most.
/// Errors:    after `broken` (a failed sync), this handle only reads: open a
///            new one.
class store {
public:
  /// Opens, creates or takes over the store.
  static result<std::unique_ptr<store>> open(io& door, notice_board& board,
                                             store_options options);
  virtual ~store() = default;

  virtual const open_report& report() const = 0;

  /// Records of an imported pair that came without a vector; the caller
  /// embeds and upserts them (see `commit_operation::was_waiting`). Each is
  /// handed out once by a handle.
  virtual std::vector<record_to_embed> take_records_to_embed() = 0;

  /// The state that was applied last. Never null.
  virtual snapshot_ptr view() const = 0;
  virtual std::shared_ptr<const change_probe> probe() const = 0;

  /// Applies what others have committed. O(what is new).
  virtual result<snapshot_ptr> refresh() = 0;

  /// From now on the handle keeps events: one for each commit after generation
  /// `after` that gets into its view. If it is beyond that already, or where
  /// the commits one by one cannot be had any more, there is an `overflow`.
  virtual void keep_events(std::uint64_t after) = 0;
  virtual void keep_no_events() = 0;
  /// The events since the last call, by rising generation; all of them are in
  /// `view()`, and with them everything up to its generation.
  virtual std::vector<commit_event> take_events() = 0;

  /// Makes `operations` durable and visible to all, in one piece: all or, on
  /// an error, none. With `expected_generation`: fails with `conflict` if
  /// another commit came after that one. O(what changed).
  virtual result<commit_outcome>
  commit(std::span<const commit_operation> operations,
         std::optional<std::uint64_t> expected_generation = std::nullopt) = 0;

  /// Whether the log has outgrown the base.
  virtual bool checkpoint_due() const = 0;

  /// Whether the published pair shows everything that is committed.
  virtual bool published() const = 0;

  /// Folds the log into a new base, in three steps: `begin_checkpoint` on this
  /// handle's thread, `job->write()` on any, `finish_checkpoint` on this
  /// handle's again. Commits may come between. One checkpoint of a store at a
  /// time, over all processes: see `patience`. A job that is not finished
  /// leaves debris that the next checkpoint removes; so does one that finds a
  /// pair at its end that somebody else wrote since its beginning: `busy`, and
  /// the next one takes that over.
  virtual result<std::unique_ptr<checkpoint_job>>
  begin_checkpoint(compaction how, patience wait) = 0;
  virtual result<snapshot_ptr>
  finish_checkpoint(std::unique_ptr<checkpoint_job> job) = 0;
  /// The three steps in one.
  virtual result<snapshot_ptr> checkpoint(compaction how) = 0;

  /// Removes all rows, durably and from the published pair.
  virtual result<snapshot_ptr> drop() = 0;

  virtual store_stats stats() const = 0;

  /// Reads everything and compares it with its checksums. Changes nothing.
  virtual result<void> verify() = 0;
};

} // namespace callboard
