#pragma once

#include "core/io.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <utility>

namespace callboard {

/// Any number of timeouts, by few timers: timers cannot be called off, so that
/// one for each timeout would pile up.
///
/// Timeouts end up to 2 % late, and never early.
/// Threads: belongs to one actor.
class deadlines {
public:
  /// Calls back after a time, on the owner's thread.
  using timer =
      std::function<void(std::chrono::milliseconds, std::function<void()>)>;

  deadlines(io& door, timer start) : door_(door), start_(std::move(start)) {}
  deadlines(const deadlines&) = delete;
  deadlines& operator=(const deadlines&) = delete;

  /// Calls `expired` after `timeout`, which may be as long as its type allows.
  /// Requires: `number` is not in use.
  void set(std::uint64_t number, std::chrono::milliseconds timeout,
           std::function<void()> expired);
  /// Calls it off, if it is not over.
  void cancel(std::uint64_t number);

private:
  using time = std::chrono::nanoseconds;
  struct entry {
    time at{};
    std::function<void()> expired;
  };

  time now() const;
  void arm();
  void ring(time at);

  io& door_;
  timer start_;
  std::map<std::uint64_t, entry> waiting_;
  std::set<std::pair<time, std::uint64_t>> order_;
  /// When the timers under way end.
  std::set<time> timers_;
  /// A timer that ends tells the time, too.
  time latest_{};
};

} // namespace callboard
