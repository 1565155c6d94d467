#include "actors/store_session.hpp"

#include <utility>

namespace callboard {

store_session::store_session(opener open_store, std::unique_ptr<store> opened)
    : open_(std::move(open_store)),
      store_(std::move(opened)),
      report_(store_->report()) {}

result<std::shared_ptr<store_session>> store_session::open(opener open_store) {
  CALLBOARD_TRY_ASSIGN(auto opened, guarded(open_store));
  return std::shared_ptr<store_session>(
      new store_session(std::move(open_store), std::move(opened)));
}

result<void> store_session::open_again() {
  CALLBOARD_TRY_ASSIGN(auto opened, guarded(open_));
  if (keeps_events_)
    CALLBOARD_TRY(guarded([&]() -> result<void> {
      opened->keep_events(shown_);
      return {};
    }));
  store_ = std::move(opened);
  is_broken_ = false;
  is_torn_ = false;
  return {};
}

void store_session::keep_events(bool wanted) {
  if (wanted == keeps_events_)
    return;
  if (wanted)
    store_->keep_events(store_->view()->generation());
  else
    store_->keep_no_events();
  keeps_events_ = wanted;
}

store_state store_session::state() {
  auto view = store_->view();
  shown_ = view->generation();
  return {.view = std::move(view),
          .probe = store_->probe(),
          .checkpoint_due = store_->checkpoint_due(),
          .published = store_->published(),
          .to_embed = store_->take_records_to_embed(),
          .events = keeps_events_ ? store_->take_events()
                                  : std::vector<commit_event>()};
}

result<std::shared_ptr<checkpoint_run>>
store_session::begin_checkpoint(compaction how, patience wait) {
  auto run = std::make_shared<checkpoint_run>();
  CALLBOARD_TRY_ASSIGN(run->job, use(store_access::write, [&](store& current) {
                         run->base_epoch = current.stats().base_epoch;
                         return current.begin_checkpoint(how, wait);
                       }));
  run->owner = store_;
  return run;
}

result<void> store_session::write_checkpoint(checkpoint_run& run) {
  auto written = guarded([&] { return run.job->write(); });
  if (!written)
    run.job.reset(); // lets go of its locks
  return written;
}

result<bool> store_session::finish_checkpoint(checkpoint_run& run) {
  auto job = std::move(run.job);
  auto owner = std::move(run.owner);
  return use(store_access::write, [&](store& current) -> result<bool> {
    if (&current != owner.get())
      return failure{errc::busy, "the store was opened anew while a checkpoint "
                                 "was written: ask for another one"};
    CALLBOARD_TRY(current.finish_checkpoint(std::move(job)));
    return current.stats().base_epoch != run.base_epoch;
  });
}

} // namespace callboard
