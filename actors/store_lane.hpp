#pragma once

#include "actors/store_session.hpp"
#include "actors/work.hpp"

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

namespace callboard {

/// Whether a job may take long: writing a base, reading a whole store. Slow
/// ones have threads of their own, so that commits need not wait for them.
enum class job_pace : std::uint8_t { quick, slow };

/// What a storage machine has others do. Calls return at once; answers come
/// later, on the machine's thread, never before the call has returned.
class storage_services {
public:
  virtual void run(std::shared_ptr<job> work, job_pace pace,
                   answer<void> done) = 0;
  virtual void embed(embed_request request, answer<embedding_batch> done) = 0;

  /// Calls `then` when the time has passed. It cannot be called off.
  virtual void after(std::chrono::milliseconds time,
                     std::function<void()> then) = 0;

  /// Where the handle is, whenever that changes, and whether somebody waits
  /// for the store to move on: then, or from time to time, `look` is called.
  virtual void note_view(const std::shared_ptr<const change_probe>& probe,
                         std::uint64_t generation, bool is_awaited) = 0;

protected:
  ~storage_services() = default;
};

/// Jobs on one session, one after the other, in order of arrival.
///
/// Threads: belongs to one actor; jobs run wherever `storage_services` has
///          them run.
class store_lane {
public:
  /// `adopt` gets the state that each job leaves, before the job's own answer;
  /// `rest` is called when there is nothing left to run.
  store_lane(std::shared_ptr<store_session> session, storage_services& services,
             std::function<void(store_state)> adopt, std::function<void()> rest)
      : session_(std::move(session)),
        services_(services),
        adopt_(std::move(adopt)),
        rest_(std::move(rest)) {}
  store_lane(const store_lane&) = delete;
  store_lane& operator=(const store_lane&) = delete;

  /// A job is under way.
  bool is_busy() const noexcept { return is_busy_; }

  /// Whether the states that jobs leave have events in them, from the next job
  /// on. All that comes into the view comes by jobs.
  void keep_events(bool wanted) noexcept { keeps_events_ = wanted; }

  /// Calls `begin` when it is this job's turn, `work` on another thread, and
  /// `done` when the lane is free again.
  template <class T>
  void run(
      std::function<result<T>(store_session&)> work, answer<T> done,
      job_pace pace = job_pace::quick, std::function<void()> begin = [] {}) {
    waiting_.push_back([this, pace, work = std::move(work),
                        done = std::move(done), begin = std::move(begin)] {
      begin();
      start<T>(work, pace, done);
    });
    advance();
  }

  template <class T>
  void run_on_store(store_access how, std::function<result<T>(store&)> work,
                    answer<T> done, job_pace pace = job_pace::quick) {
    run<T>([how, work = std::move(work)](
               store_session& session) { return session.use(how, work); },
           std::move(done), pace);
  }

private:
  /// Keeps what its work yields and the state that it leaves.
  template <class T>
  class session_job : public job {
  public:
    session_job(std::shared_ptr<store_session> session, bool keeps_events,
                std::function<result<T>(store_session&)> work)
        : session_(std::move(session)),
          keeps_events_(keeps_events),
          work_(std::move(work)) {}

    void run() override {
      session_->keep_events(keeps_events_);
      outcome.emplace(work_(*session_));
      state = session_->state();
    }

    std::optional<result<T>> outcome;
    store_state state;

  private:
    std::shared_ptr<store_session> session_;
    bool keeps_events_;
    std::function<result<T>(store_session&)> work_;
  };

  template <class T>
  void start(std::function<result<T>(store_session&)> work, job_pace pace,
             answer<T> done) {
    auto running = std::make_shared<session_job<T>>(session_, keeps_events_,
                                                    std::move(work));
    services_.run(running, pace,
                  [this, running, done = std::move(done)](result<void> ran) {
                    is_busy_ = false;
                    if (ran) {
                      adopt_(std::move(running->state));
                      done(std::move(*running->outcome));
                    } else {
                      done(std::move(ran).error());
                    }
                    advance();
                    if (!is_busy_)
                      rest_();
                  });
  }

  void advance() {
    if (is_busy_ || waiting_.empty())
      return;
    is_busy_ = true;
    auto next = std::move(waiting_.front());
    waiting_.pop_front();
    next();
  }

  std::shared_ptr<store_session> session_;
  storage_services& services_;
  std::function<void(store_state)> adopt_;
  std::function<void()> rest_;
  std::deque<std::function<void()>> waiting_;
  bool is_busy_ = false;
  bool keeps_events_ = false;
};

} // namespace callboard
