#pragma once

#include "actors/requests.hpp"

#include <chrono>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace callboard {

class runtime;
class subscription;

/// A handle on one store, for code that is not an actor. Every call sends the
/// store's actor a message and waits for its answer; there is always an
/// answer, if only `closed`.
///
/// What a handle upserts and deletes is its own until `commit`: two handles
/// behave as two processes do.
///
/// Ownership: cheap to copy; copies are the same handle. The last copy gone,
///            uncommitted changes are gone, too.
/// Threads:   thread-safe. Calls of several threads are served in turn. Not
///            for use inside an actor: it blocks.
/// Errors:    those of `store`, and `embedding_failed`, `busy`, `closed`.
class client {
public:
  /// Buffers records; all of them or, on an error, none. Visible to this
  /// handle's `get_*` at once, to queries and others after `commit`.
  result<void> upsert(std::vector<upsert_item> items);
  result<void> upsert(std::string id, std::string record);

  /// The rows most similar to `text`, best first, of what is committed (less
  /// what this handle has deleted).
  result<std::vector<hit>> query(std::string text, query_options options = {});
  /// As above, for a vector (normalized here).
  result<std::vector<hit>> query(std::vector<float> vector,
                                 query_options options = {});
  result<std::vector<hit>> query(std::initializer_list<float> vector,
                                 query_options options = {});
  /// As `query`, for several vectors of the store's dimension, one after the
  /// other; one pass over the rows serves many.
  result<std::vector<std::vector<hit>>> query_batch(std::vector<float> vectors,
                                                    query_options options = {});

  /// Pending first, then committed; an empty optional for what is not there.
  result<std::optional<row>> get_by_id(std::string id);
  result<std::vector<std::optional<row>>>
  get_by_ids(std::vector<std::string> ids);
  /// Normalized vectors of those ids that are there; pending ones are
  /// embedded now (and not again at commit).
  result<std::vector<id_vector>>
  get_vectors_by_ids(std::vector<std::string> ids);

  /// Hides the rows from this handle at once, from others after `commit`.
  result<void> remove(std::vector<std::string> ids);
  /// `remove` of `entity_id(name)`.
  result<void> remove_entity(std::string name);
  /// Removes every row whose `src_id` or `tgt_id` is `name`.
  result<void> remove_entity_relation(std::string name);

  /// Embeds what is pending, makes it durable and visible to all, but for what
  /// cannot be embedded, which `commit_result::failed` lists: in one piece
  /// unless an imported pair has brought more than one commit takes. Such
  /// pieces are all or nothing each; one that expects a generation is
  /// `too_large`.
  result<commit_result>
  commit(std::optional<std::uint64_t> expected_generation = std::nullopt);
  /// `commit`, and publishes the pair if it does not show everything yet.
  result<commit_result> finalize();
  /// Removes everything, pending or committed.
  result<void> drop();
  result<void> checkpoint(compaction how = compaction::automatic);

  /// Follows the commits of everybody, in any process, from now on. Refreshes
  /// the handle first.
  result<subscription> watch(watch_options options = {});

  /// Waits until this handle sees `generation` (of a commit in another
  /// process, say), and answers the one it has reached. A timeout of 0 or less
  /// only looks; one of `milliseconds::max()` is for ever. Errors: `timed_out`,
  /// and those of reading what others have committed.
  result<std::uint64_t> await_generation(std::uint64_t generation,
                                         std::chrono::milliseconds timeout);

  /// Ids of pending upserts, in the order of their first upsert.
  result<std::vector<std::string>> pending_ids();
  /// The committed view, without this handle's deletes.
  result<snapshot_ptr> snapshot();
  result<handle_stats> stats();
  /// Reads every byte of the store and checks it.
  result<void> verify();

private:
  friend class runtime;
  friend class subscription;
  class state;
  explicit client(std::shared_ptr<state> shared);
  std::shared_ptr<state> state_;
};

/// Events of one store: what each commit, by any process, has changed. Made by
/// `client::watch`.
///
/// A watcher that is too slow loses events, and is told: one event of kind
/// `overflow` takes their place. Then read anew what is of interest; what the
/// handle answers is of that generation or newer.
///
/// Ownership: keeps the handle alive. Movable; the events end with it.
/// Threads:   one at a time.
class subscription {
public:
  subscription(subscription&&) noexcept;
  subscription& operator=(subscription&&) noexcept;
  ~subscription();

  /// Events follow for every commit after this generation.
  std::uint64_t generation() const noexcept { return start_.generation; }

  /// The next event; empty if none came in time. What it tells of is visible
  /// to the handle. Timeouts are those of `await_generation`. Errors: `busy`
  /// (another thread waits already), `closed`, and those of reading what others
  /// have committed; the events go on after an error.
  result<std::optional<commit_event>> next(std::chrono::milliseconds timeout);

private:
  friend class client;
  subscription(std::shared_ptr<client::state> shared, watch_start start);
  std::shared_ptr<client::state> state_;
  watch_start start_;
};

/// Limits and threads of a runtime.
struct runtime_options {
  /// Threads that run actors; they never block.
  std::size_t scheduler_threads = 2;
  /// Threads for locks, files and syncs.
  std::size_t io_threads = 4;
  /// Threads for scans; 0: one per processor.
  std::size_t search_threads = 0;
  /// Requests that may wait for a pool before `busy`.
  std::size_t queue_max = 4096;

  /// Null: the real operating system.
  io* door = nullptr;
  /// Null: the runtime has a `shared_board` of its own, by which processes tell
  /// each other of commits. Otherwise it must outlive the runtime, which waits
  /// on it: give each runtime one of its own.
  notice_board* board = nullptr;
  /// Where that keeps its page: the same for all processes of a store.
  board_backing backing = board_backing::file;
  /// Null: warnings and errors to stderr.
  std::shared_ptr<spdlog::logger> log = nullptr;
};

/// Owns the actors of this process: stores, pools, workers. One per process
/// is enough for any number of stores.
///
/// Threads: thread-safe. The destructor waits for work under way, never for
///          queued work: that is answered `closed`.
/// Forking: a process that has a runtime must not fork without exec.
class runtime {
public:
  static result<std::unique_ptr<runtime>> start(runtime_options options = {});
  ~runtime();
  runtime(const runtime&) = delete;
  runtime& operator=(const runtime&) = delete;

  /// Opens a store and gives a new handle on it.
  result<client> open(open_options options);

  /// The actor side; see actors/runtime_actors.hpp.
  class implementation;
  implementation& actors() noexcept { return *implementation_; }

private:
  explicit runtime(std::unique_ptr<implementation> implementation);
  std::unique_ptr<implementation> implementation_;
};

} // namespace callboard
