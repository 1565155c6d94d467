#include "actors/worker_pool.hpp"

#include "actors/crew.hpp"
#include "core/search.hpp"

#include <deque>
#include <omp.h>
#include <span>
#include <string>
#include <utility>

namespace callboard {

namespace {

template <class T, class Request>
class worker_pool : public typed<reply<T>(Request)>::base {
public:
  using super = typename typed<reply<T>(Request)>::base;

  worker_pool(caf::actor_config& config, const char* name, pool_options options,
              service<T, Request> serve)
      : super(config),
        name_(name),
        queue_max_(options.queue_max),
        workers_(this, "callboard.worker", options.workers, options.mode,
                 std::move(serve)) {}

  const char* name() const override { return name_; }

  typename super::behavior_type make_behavior() override {
    return {[this](Request& request) {
      auto promised = this->template make_response_promise<reply<T>>();
      accept(std::move(request), promised);
      return promised;
    }};
  }

  void on_exit() override {
    workers_.dismiss();
    promises_.close();
    queue_.clear();
  }

private:
  void accept(Request request, promise<T> promised) {
    if (queue_.size() >= queue_max_) {
      promised.deliver(reply<T>{full()});
      return;
    }
    queue_.push_back({std::move(request), promises_.keep(promised)});
    feed();
  }

  void feed() {
    while (workers_.has_idle() && !queue_.empty()) {
      auto next = std::move(queue_.front());
      queue_.pop_front();
      workers_.give(std::move(next.request),
                    [this, done = std::move(next.done)](result<T> value) {
                      done(std::move(value));
                      feed();
                    });
    }
  }

  failure full() const {
    return {errc::busy, std::string(name_) + ": " + std::to_string(queue_max_)
                            + " requests wait already: try again later, or "
                              "ask for more threads"};
  }

  struct waiting {
    Request request;
    answer<T> done;
  };

  const char* name_;
  std::size_t queue_max_;
  std::deque<waiting> queue_;
  kept_promises promises_;
  crew<worker_pool, T, Request> workers_;
};

result<void> run_job(run_request& request) {
  request.work->run();
  return {};
}

result<std::vector<hit>> read_hits(const snapshot& view,
                                   std::span<const scored_row> found) {
  std::vector<hit> out;
  out.reserve(found.size());
  for (const auto& each : found) {
    CALLBOARD_TRY_ASSIGN(auto record, view.record(each.row));
    out.push_back({.id = std::string(view.id(each.row)),
                   .record = std::string(record),
                   .distance = each.score});
  }
  return out;
}

result<hit_lists> run_search(search_request& request) {
  const auto& view = *request.view;
  std::span vectors(request.vectors);
  for (std::size_t first = 0; first < vectors.size(); first += view.dimension())
    CALLBOARD_TRY(normalize(vectors.subspan(first, view.dimension()),
                            "the query vector"));
  CALLBOARD_TRY_ASSIGN(auto lists,
                       search_batch(view, vectors, request.parameters));
  hit_lists out;
  out.reserve(lists.size());
  for (const auto& found : lists) {
    CALLBOARD_TRY_ASSIGN(auto hits, read_hits(view, found));
    out.push_back(std::move(hits));
  }
  return out;
}

} // namespace

io_pool_actor spawn_io_pool(caf::actor_system& system, pool_options options) {
  return system.spawn<worker_pool<void, run_request>>("callboard.io", options,
                                                      run_job);
}

search_pool_actor spawn_search_pool(caf::actor_system& system,
                                    pool_options options) {
  return system.spawn<worker_pool<hit_lists, search_request>>(
      "callboard.search", options, run_search);
}

} // namespace callboard
