#pragma once

#include "actors/deadlines.hpp"
#include "actors/requests.hpp"
#include "actors/store_lane.hpp"
#include "actors/store_session.hpp"
#include "actors/vector_maker.hpp"
#include "actors/watch_list.hpp"
#include "actors/work.hpp"
#include "core/io.hpp"
#include "core/pending_buffer.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace spdlog {
class logger;
}

namespace callboard {

struct storage_setup {
  std::shared_ptr<store_session> session;
  /// `meta_fields` are filled in.
  open_options options;
  std::uint32_t dimension = 0;
  batch_limits embedding;
  io* door = nullptr;
  std::shared_ptr<spdlog::logger> log;
};

/// What a storage actor does, without the actor: one handle's uncommitted
/// changes, its view of the store, and whose turn it is.
///
/// Jobs on the store run one at a time (`store` is not thread-safe); they wait
/// in a lane of their own, so that nothing else does:
/// - reads use the current view. Only when the store has moved on and no job
///   is under way do they wait for a refresh.
/// - changes keep their order. They see a view as new as they are: else a
///   change asked for after a drop could pass for one from before it.
/// - a commit embeds first, then takes the lane; both batch by batch, if more
///   is pending than one commit of the store takes. Commits that come meanwhile
///   share the next one, unless they expect a generation.
/// - a checkpoint writes outside of the lane. A drop waits for commits and
///   checkpoints, and all changes wait for the drop.
/// - events come with the state that each job leaves. Who waits for one, or
///   for a generation, has the store looked at once; after that, `look` is
///   called when it may have moved on.
///
/// Threads: belongs to one actor. Each answer is called once, or never if the
///          machine is destroyed first.
class storage_machine {
public:
  storage_machine(storage_setup setup, storage_services& services);
  storage_machine(const storage_machine&) = delete;
  storage_machine& operator=(const storage_machine&) = delete;

  void upsert(std::vector<upsert_item> items, answer<void> done);

  /// These three answer what is to be searched.
  void query_text(std::string text, query_options options,
                  answer<search_request> done);
  void query_vector(std::vector<float> vector, query_options options,
                    answer<search_request> done);
  void query_batch(std::vector<float> vectors, query_options options,
                   answer<search_request> done);

  void get(std::vector<std::string> ids, answer<optional_rows> done);
  void get_vectors(std::vector<std::string> ids,
                   answer<std::vector<id_vector>> done);

  void remove(std::vector<std::string> ids, answer<void> done);
  void remove_relation(std::string name, answer<void> done);

  void commit(std::optional<std::uint64_t> expected_generation,
              answer<commit_result> done);
  void finalize(answer<commit_result> done);
  void drop(answer<void> done);
  void checkpoint(compaction how, answer<void> done);

  void watch(watch_options options, answer<watch_start> done);
  void next_event(std::uint64_t number, std::chrono::milliseconds timeout,
                  answer<optional_event> done);
  void unwatch(std::uint64_t number);
  void await_generation(std::uint64_t generation,
                        std::chrono::milliseconds timeout,
                        answer<std::uint64_t> done);

  /// Refreshes the view if the store has moved on; when no job is under way,
  /// as jobs do that, too.
  void look();

  std::vector<std::string> pending_ids() const { return pending_.upsert_ids(); }
  void snapshot(answer<snapshot_ptr> done);
  void stats(answer<handle_stats> done);
  void verify(answer<void> done);

private:
  using freshness = result<void>;
  using fresh_task = std::function<void(const freshness&)>;

  // Validation.
  result<pending_change> make_change(upsert_item& item, std::int64_t now) const;
  result<std::vector<pending_change>>
  make_changes(std::vector<upsert_item>& items) const;
  result<search_parameters> parameters_of(const query_options& options) const;

  // The state of the store.
  void adopt(store_state state);
  void rebuild_view();

  // Whose turn it is.
  bool is_stale() const;
  void read_latest(fresh_task run);
  void read(fresh_task run);
  void change(bool needs_fresh_view, fresh_task run);
  void pump_changes();
  void request_refresh();
  void refreshed(const freshness& status);

  void search(std::vector<float> vectors, search_parameters parameters,
              answer<search_request> done);
  result<optional_rows> rows_of(std::span<const std::string> ids) const;
  void read_vectors(std::vector<std::string> ids,
                    answer<std::vector<id_vector>> done);
  result<void> remove_now(std::span<const std::string> ids);
  result<void> remove_relation_now(std::string_view name);

  // Watches and other waits.
  void note_view();
  void start_watch(result<void> fresh, watch_options options,
                   const answer<watch_start>& done);
  void begin_wait(std::uint64_t wait, std::chrono::milliseconds timeout,
                  fresh_task give_up);
  void answer_awaits();
  void give_up_await(std::uint64_t wait, const freshness& fresh);
  void fail_waits(const failure& reason);

  // Commits.
  void start_commit();
  void join_commit();
  void begin_commit();
  void make_batch();
  void write_batch(result<rejections> made);
  void end_commit(result<commit_outcome> outcome);

  // Checkpoints.
  struct checkpoint_wish {
    compaction how = compaction::none;
    int rounds = 1;
    patience wait = patience::lock_timeout;
    std::vector<answer<void>> waiters = {};
  };
  void wish_checkpoint(checkpoint_wish wish);
  void start_checkpoint();
  void begin_checkpoint_round();
  void write_checkpoint(std::shared_ptr<checkpoint_run> run);
  void finish_checkpoint_round(std::shared_ptr<checkpoint_run> run);
  void end_checkpoint(result<void> outcome);

  void start_drop();

  storage_setup setup_;
  storage_services& services_;
  store_lane lane_;
  pending_buffer pending_;
  vector_maker vectors_;

  store_state state_;
  /// `state_.view` without the rows deleted here.
  snapshot_ptr view_;

  enum class refresh_phase : std::uint8_t { none, queued, running };
  refresh_phase refresh_ = refresh_phase::none;
  struct waiting_task {
    bool needs_fresh_view = true;
    /// The refresh under way started after this came.
    bool is_covered = false;
    std::optional<freshness> fresh = std::nullopt;
    fresh_task run;
  };
  std::deque<waiting_task> reads_;
  std::deque<waiting_task> changes_;
  bool looks_at_rest_ = false;

  /// Of waits with a timeout, by their numbers.
  deadlines deadlines_;
  std::uint64_t next_wait_ = 0;
  watch_list watches_;
  std::size_t watches_starting_ = 0;
  struct generation_wait {
    std::uint64_t generation = 0;
    answer<std::uint64_t> done;
  };
  std::map<std::uint64_t, generation_wait> awaits_;

  struct waiting_commit {
    std::optional<std::uint64_t> expected_generation;
    answer<commit_result> done;
  };
  std::deque<waiting_commit> commits_;
  struct running_commit {
    std::optional<std::uint64_t> expected_generation;
    std::vector<answer<commit_result>> group;
    pending_batch batch;
    /// Of the batches that are committed.
    commit_result done;
  };
  std::optional<running_commit> commit_;

  std::optional<checkpoint_wish> next_checkpoint_;
  std::optional<checkpoint_wish> checkpoint_;

  answer<void> drop_;
  bool drop_is_running_ = false;
};

} // namespace callboard
