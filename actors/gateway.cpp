#include "actors/runtime_actors.hpp"

#include <utility>

namespace callboard {

std::uint64_t gateway::admit(storage_actor target) {
  std::lock_guard lock(mutex_);
  auto number = next_number_++;
  if (!is_closed_)
    targets_.emplace(number, std::move(target));
  return number;
}

void gateway::release(std::uint64_t number) {
  std::lock_guard lock(mutex_);
  auto found = targets_.find(number);
  if (found == targets_.end())
    return;
  stop(found->second);
  targets_.erase(found);
}

std::unique_ptr<gateway::connection> gateway::enter(std::uint64_t number) {
  std::lock_guard lock(mutex_);
  auto found = targets_.find(number);
  if (found == targets_.end())
    return nullptr;
  if (waiters_.empty()) {
    thread_detacher detacher;
    waiters_.push_back(std::make_unique<caf::scoped_actor>(system_));
  }
  auto line = std::make_unique<connection>(*this);
  ++calls_;
  line->target = found->second;
  line->waiter = std::move(waiters_.back());
  waiters_.pop_back();
  return line;
}

void gateway::leave(connection& line) {
  line.target = nullptr;
  std::lock_guard lock(mutex_);
  waiters_.push_back(std::move(line.waiter));
  if (--calls_ == 0)
    is_idle_.notify_all();
}

void gateway::close() {
  std::lock_guard lock(mutex_);
  is_closed_ = true;
  targets_.clear();
}

void gateway::drain() {
  std::unique_lock lock(mutex_);
  is_idle_.wait(lock, [this] { return calls_ == 0; });
  waiters_.clear();
}

} // namespace callboard
