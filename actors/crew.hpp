#pragma once

#include "actors/caf_compat.hpp"

#include <cstddef>
#include <functional>
#include <utility>
#include <vector>

namespace callboard {

/// What a worker does with a request. May block and may be called on several
/// threads at once; what it throws becomes a failure.
template <class T, class Request>
using service = std::function<result<T>(Request&)>;

/// Serves one request after the other, by itself.
template <class T, class Request>
class worker : public typed<reply<T>(Request)>::base {
public:
  using super = typename typed<reply<T>(Request)>::base;

  worker(caf::actor_config& config, const char* name, service<T, Request> serve)
      : super(config), name_(name), serve_(std::move(serve)) {}

  const char* name() const override { return name_; }

  typename super::behavior_type make_behavior() override {
    return {[this](Request& request) { return reply<T>{serve(request)}; }};
  }

private:
  result<T> serve(Request& request) {
    try {
      return serve_(request);
    } catch (...) {
      return unexpected_exception("a worker", errc::broken);
    }
  }

  const char* name_;
  service<T, Request> serve_;
};

/// The workers of one actor, which feeds each only when it is idle: so the
/// actor's own queue decides who is next.
///
/// Ownership: belongs to the actor `Owner`; the workers end with `dismiss`,
///            each after the request it is serving.
template <class Owner, class T, class Request>
class crew {
public:
  /// `name` is that of each worker, and is not copied.
  crew(Owner* owner, const char* name, std::size_t count, spawn_mode mode,
       service<T, Request> serve)
      : owner_(owner), name_(name), mode_(mode), serve_(std::move(serve)) {
    for (std::size_t i = 0; i < count; ++i)
      idle_.push_back(hire());
  }

  bool has_idle() const noexcept { return !idle_.empty(); }

  /// Calls `done`, a function of `result<T>`, when the request is served and
  /// the worker idle again.
  /// Requires: `has_idle()`.
  template <class Done>
  void give(Request request, Done done) {
    auto chosen = std::move(idle_.back());
    idle_.pop_back();
    owner_->request(chosen, caf::infinite, std::move(request))
        .then(
            [this, chosen, done](reply<T>& answered) mutable {
              idle_.push_back(chosen);
              done(std::move(answered.value));
            },
            [this, done](caf::error&) mutable {
              // The worker is dead, which no path leads to; its place is not.
              idle_.push_back(hire());
              done(result<T>(closed_failure()));
            });
  }

  void dismiss() {
    for (const auto& each : all_)
      stop(each);
    all_.clear();
    idle_.clear();
  }

private:
  using handle = typed<reply<T>(Request)>;

  handle hire() {
    all_.push_back(
        spawn<worker<T, Request>>(owner_->system(), mode_, name_, serve_));
    return all_.back();
  }

  Owner* owner_;
  const char* name_;
  spawn_mode mode_;
  service<T, Request> serve_;
  std::vector<handle> all_;
  std::vector<handle> idle_;
};

} // namespace callboard
