#pragma once

#include "core/base.hpp"
#include "core/result.hpp"
#include "core/store.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace callboard {

/// A change that waits for its commit; shared by the buffer and the batch that
/// took it. Only `vector` is ever written again: once, from empty to final,
/// by the owner of the buffer, before any other thread sees the batch.
using pending_change = std::shared_ptr<commit_operation>;

/// What one commit takes.
struct pending_batch {
  /// One change per id, oldest place first. The owner may take out changes
  /// that cannot be committed; they stay in the buffer.
  std::vector<pending_change> changes;
  /// Nothing that was pending at the `take` was left for `take_rest`.
  bool is_last = true;

private:
  friend class pending_buffer;
  std::uint64_t taken_at_ = 0;
  std::uint64_t last_place_ = 0;
  std::uint64_t end_place_ = 0;
};

/// What a buffer holds, but for what was adopted, and what one batch takes.
struct pending_limits {
  std::size_t operations_max = commit_operations_max;
  /// Ids, records and vectors (those still to be made, too).
  std::size_t bytes_max = commit_bytes_max / 2;
};

/// The uncommitted changes of one handle: for each id the last thing that was
/// asked for, in the order of first upserts, and which committed rows are
/// hidden because they have been deleted here.
///
/// A commit works on a batch while changes go on. When it is done, exactly the
/// changes that are still the ones in the batch leave the buffer: an id
/// upserted again meanwhile waits for the next commit, and an id deleted
/// meanwhile stays hidden and is deleted by the next commit.
///
/// Threads: not thread-safe. One batch is under way at a time.
/// Errors:  `busy` when the buffer is full, `too_large` when a call does not
///          even fit an empty one. Then nothing of the call was taken.
class pending_buffer {
public:
  /// What a change counts besides its strings and floats.
  static constexpr std::size_t change_overhead_bytes = 64;

  explicit pending_buffer(std::size_t dimension, pending_limits limits = {})
      : dimension_(dimension), limits_(limits) {}
  pending_buffer(const pending_buffer&) = delete;
  pending_buffer& operator=(const pending_buffer&) = delete;

  /// Puts upserts in, the later of one id replacing the earlier. A pending
  /// upsert of the same id is replaced whole and its place is kept; after a
  /// delete the place is a new one.
  result<void> upsert(std::vector<pending_change> upserts);

  /// Puts upserts in that wait in the store for their first commit, beyond any
  /// limit. They replace only their like: what was asked for here is newer.
  void adopt(std::vector<pending_change> upserts);
  /// Takes out what was adopted and `is_committed` by somebody else.
  void
  forget_adopted(const std::function<bool(std::string_view)>& is_committed);

  /// Cancels the pending upserts of `ids`, and has those deleted and hidden
  /// that `is_committed`, that were adopted, or that are in the batch under
  /// way. Others leave no trace.
  result<void>
  remove(std::span<const std::string> ids, std::uint64_t drop_epoch,
         const std::function<bool(std::string_view)>& is_committed);

  /// Has the committed row of `id` hidden until the pending change of `id`, if
  /// there is one, is committed.
  void hide(std::string_view id);

  /// The pending upsert of `id`, or null.
  pending_change find(std::string_view id) const;
  /// Whether committed rows of `id` must not be seen.
  bool hides(std::string_view id) const;
  std::vector<std::string> hidden_ids() const;
  /// Ids of upserts, in the order of their places.
  std::vector<std::string> upsert_ids() const;
  /// Ids of upserts whose string field `field` equals `value`.
  std::vector<std::string> ids_with(indexed_field field,
                                    std::string_view value) const;

  bool empty() const noexcept { return slots_.empty(); }
  std::size_t upsert_count() const noexcept { return upserts_; }
  std::size_t remove_count() const noexcept { return slots_.size() - upserts_; }
  std::size_t bytes() const noexcept { return bytes_; }

  /// The oldest changes, as many as one commit takes. Ends with `committed` or
  /// `put_back`.
  pending_batch take();
  /// As `take`: the next of what was pending then, after `before`.
  pending_batch take_rest(const pending_batch& before);
  /// The changes in `batch` are durable.
  void committed(const pending_batch& batch);
  /// The commit failed: all of it waits for the next one.
  void put_back();

  /// Forgets everything.
  /// Requires: no batch is under way.
  void clear();

private:
  struct slot {
    pending_change change;
    /// Rises along the list.
    std::uint64_t place = 0;
    /// The store keeps a record of this id until its first commit.
    bool is_adopted = false;
    /// The batch under way has this id (perhaps another change of it).
    bool in_flight = false;
    /// Committed rows are hidden, by a delete at this time.
    bool hides = false;
    std::uint64_t deleted_at = 0;
  };
  using slot_list = std::list<slot>;

  std::size_t cost(const commit_operation& change) const noexcept;
  result<void> check_room(std::size_t added_operations, std::size_t added_bytes,
                          std::size_t freed_bytes, std::string_view what) const;
  result<void> check_upserts(std::span<const pending_change> upserts) const;
  slot& append(pending_change change);
  void put_upsert(pending_change upsert);
  void put_remove(const std::string& id, std::uint64_t drop_epoch);
  void replace(slot& target, pending_change change);
  void erase(slot_list::iterator position);
  pending_batch take_between(std::uint64_t after, std::uint64_t end);

  std::size_t dimension_;
  pending_limits limits_;
  slot_list slots_;
  /// Keys view the ids of entries' changes.
  std::unordered_map<std::string_view, slot_list::iterator> by_id_;
  std::size_t upserts_ = 0;
  std::size_t bytes_ = 0;
  /// Counts deletes, so that those after a `take` are known.
  std::uint64_t time_ = 0;
  std::uint64_t last_place_ = 0;
};

} // namespace callboard
