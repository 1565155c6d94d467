#include "actors/storage_machine.hpp"

#include <string>
#include <utility>

/// Who waits for what others commit: watches, and waits for a generation.
namespace callboard {

void storage_machine::note_view() {
  auto is_watched = !watches_.empty() || watches_starting_ > 0;
  lane_.keep_events(is_watched);
  services_.note_view(state_.probe, state_.view->generation(),
                      is_watched || !awaits_.empty());
}

// -- watches ------------------------------------------------------------------

void storage_machine::watch(watch_options options, answer<watch_start> done) {
  ++watches_starting_;
  note_view();
  lane_.run_on_store<void>(
      store_access::read,
      [](store& current) -> result<void> {
        if (current.probe()->changed(current.view()->generation()))
          CALLBOARD_TRY(current.refresh());
        return {};
      },
      [this, options, done = std::move(done)](result<void> fresh) {
        start_watch(std::move(fresh), options, done);
      });
}

/// The job has made the store keep events; those up to the view are published.
void storage_machine::start_watch(result<void> fresh, watch_options options,
                                  const answer<watch_start>& done) {
  --watches_starting_;
  if (fresh)
    done(watches_.add(options, state_.view->generation()));
  else
    done(std::move(fresh).error());
  note_view();
  look();
}

void storage_machine::unwatch(std::uint64_t number) {
  watches_.remove(number);
  note_view();
}

void storage_machine::next_event(std::uint64_t number,
                                 std::chrono::milliseconds timeout,
                                 answer<optional_event> done) {
  auto wait = next_wait_++;
  if (!watches_.next(number, wait, std::move(done)))
    begin_wait(wait, timeout, [this, number, wait](const freshness& fresh) {
      watches_.give_up(number, wait, fresh);
    });
}

// -- generations --------------------------------------------------------------

void storage_machine::await_generation(std::uint64_t generation,
                                       std::chrono::milliseconds timeout,
                                       answer<std::uint64_t> done) {
  if (state_.view->generation() >= generation) {
    done(state_.view->generation());
    return;
  }
  auto wait = next_wait_++;
  awaits_.emplace(wait, generation_wait{generation, std::move(done)});
  note_view();
  begin_wait(wait, timeout, [this, wait](const freshness& fresh) {
    give_up_await(wait, fresh);
  });
}

void storage_machine::answer_awaits() {
  auto reached = state_.view->generation();
  for (auto each = awaits_.begin(); each != awaits_.end();) {
    auto current = each++;
    if (current->second.generation > reached)
      continue;
    auto ended = awaits_.extract(current);
    deadlines_.cancel(ended.key());
    ended.mapped().done(reached);
  }
}

void storage_machine::give_up_await(std::uint64_t wait,
                                    const freshness& fresh) {
  auto ended = awaits_.extract(wait);
  if (ended.empty())
    return;
  deadlines_.cancel(wait);
  note_view();
  if (fresh)
    ended.mapped().done(
        failure{errc::timed_out,
                "generation " + std::to_string(ended.mapped().generation)
                    + " did not come in time: the store is at generation "
                    + std::to_string(state_.view->generation())});
  else
    ended.mapped().done(fresh.error());
}

// -- waits --------------------------------------------------------------------

/// Without a timeout, a wait is given up as soon as the view is the latest.
void storage_machine::begin_wait(std::uint64_t wait,
                                 std::chrono::milliseconds timeout,
                                 fresh_task give_up) {
  if (timeout <= std::chrono::milliseconds::zero()) {
    read_latest(std::move(give_up));
    return;
  }
  deadlines_.set(wait, timeout,
                 [give_up = std::move(give_up)] { give_up({}); });
  look();
}

void storage_machine::fail_waits(const failure& reason) {
  watches_.fail_waits(reason);
  while (!awaits_.empty())
    give_up_await(awaits_.begin()->first, reason);
}

void storage_machine::look() {
  if (lane_.is_busy())
    looks_at_rest_ = true;
  else if (is_stale())
    request_refresh();
}

} // namespace callboard
