#include "actors/deadlines.hpp"

#include <algorithm>

namespace callboard {

namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;

/// For ever, and far from where sums of times overflow.
constexpr auto timeout_max = std::chrono::hours(24 * 365);

/// An actor that has ended is remembered until its timers have.
constexpr nanoseconds timer_max = std::chrono::minutes(1);

/// The part of a time that a timeout may be late for the sake of fewer timers.
constexpr int lateness_part = 64;

} // namespace

void deadlines::set(std::uint64_t number, milliseconds timeout,
                    std::function<void()> expired) {
  auto at = now() + std::clamp<milliseconds>(timeout, {}, timeout_max);
  waiting_.emplace(number, entry{at, std::move(expired)});
  order_.emplace(at, number);
  arm();
}

void deadlines::cancel(std::uint64_t number) {
  auto found = waiting_.find(number);
  if (found == waiting_.end())
    return;
  order_.erase({found->second.at, number});
  waiting_.erase(found);
}

deadlines::time deadlines::now() const {
  return std::max(door_.steady_clock(), latest_);
}

/// Starts a timer, unless one under way ends about when it is needed.
void deadlines::arm() {
  if (order_.empty())
    return;
  auto current = now();
  auto left = std::clamp(order_.begin()->first - current, time{}, timer_max);
  auto at = current + left;
  if (!timers_.empty() && *timers_.begin() <= at + left / lateness_part)
    return;
  timers_.insert(at);
  start_(std::chrono::ceil<milliseconds>(left), [this, at] { ring(at); });
}

void deadlines::ring(time at) {
  timers_.erase(at);
  latest_ = std::max(latest_, at);
  auto current = now();
  while (!order_.empty() && order_.begin()->first <= current) {
    auto number = order_.begin()->second;
    order_.erase(order_.begin());
    auto node = waiting_.extract(number);
    node.mapped().expired();
  }
  arm();
}

} // namespace callboard
