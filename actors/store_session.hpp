#pragma once

#include "core/lightrag_pair.hpp"
#include "core/store.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace callboard {

/// What an actor must know of a store between two jobs on it.
struct store_state {
  snapshot_ptr view;
  std::shared_ptr<const change_probe> probe;
  bool checkpoint_due = false;
  bool published = false;
  /// These two are handed out once.
  std::vector<record_to_embed> to_embed;
  std::vector<commit_event> events;
};

/// A checkpoint between its steps. Holds its store, which a session may have
/// replaced meanwhile.
struct checkpoint_run {
  std::shared_ptr<store> owner;
  std::unique_ptr<checkpoint_job> job;
  std::uint64_t base_epoch = 0;
};

enum class store_access : std::uint8_t { read, write };

/// One handle on a store, for the jobs of one storage actor. After a failed
/// sync the next write opens the store anew; until then it can be read. After
/// an exception whatever comes next opens it anew.
///
/// Threads: one job at a time; it blocks.
/// Errors:  those of `store`. An exception of the engine counts as `broken`.
class store_session {
public:
  using opener = std::function<result<std::unique_ptr<store>>()>;

  static result<std::shared_ptr<store_session>> open(opener open_store);
  store_session(const store_session&) = delete;
  store_session& operator=(const store_session&) = delete;

  /// Calls `work`, a function of `store&` that returns a `result`.
  template <class Work>
  auto use(store_access how, Work&& work)
      -> decltype(work(std::declval<store&>())) {
    if (is_torn_ || (how == store_access::write && is_broken_))
      CALLBOARD_TRY(open_again());
    is_torn_ = true;
    auto out = guarded([&] {
      auto done = work(*store_);
      is_torn_ = false;
      return done;
    });
    if (!out && out.error().code == errc::broken)
      is_broken_ = true;
    return out;
  }

  /// Whether `state` gets the events of what comes into the view. A store that
  /// was opened anew goes on where the last `state` was.
  void keep_events(bool wanted);

  result<std::shared_ptr<checkpoint_run>> begin_checkpoint(compaction how,
                                                           patience wait);
  /// The slow step; may run while other jobs use the session.
  static result<void> write_checkpoint(checkpoint_run& run);
  /// Whether the store has a new base.
  result<bool> finish_checkpoint(checkpoint_run& run);

  store_state state();
  const open_report& report() const { return report_; }

private:
  store_session(opener open_store, std::unique_ptr<store> opened);

  template <class Work>
  static auto guarded(Work&& work) -> decltype(work()) {
    try {
      return work();
    } catch (const std::exception& reason) {
      return failure{errc::broken,
                     std::string("the storage engine threw an exception: ")
                         + reason.what()};
    }
  }

  result<void> open_again();

  opener open_;
  std::shared_ptr<store> store_;
  open_report report_;
  bool is_broken_ = false;
  /// An exception has left work half done.
  bool is_torn_ = false;
  bool keeps_events_ = false;
  /// The generation that `state` has shown last.
  std::uint64_t shown_ = 0;
};

} // namespace callboard
