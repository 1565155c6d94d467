#include "ipc/process_board.hpp"

#include <atomic>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

namespace callboard {

namespace {

class process_notices : public store_notices {
public:
  std::uint64_t durable_sequence() const noexcept override {
    // Pairs with the release in `announce`: who sees the sequence sees what
    // the announcing thread wrote before.
    return durable_.load(std::memory_order_acquire);
  }

  void announce(std::uint64_t sequence) noexcept override {
    auto known = durable_.load(std::memory_order_relaxed);
    while (known < sequence
           && !durable_.compare_exchange_weak(known, sequence,
                                              std::memory_order_release,
                                              std::memory_order_relaxed)) {
    }
  }

  std::optional<std::uint64_t> poisoned_from() const noexcept override {
    auto sequence = poisoned_.load(std::memory_order_acquire);
    if (sequence == nothing_poisoned)
      return std::nullopt;
    return sequence;
  }

  /// Of several failures the one that condemns most counts.
  void poison(std::uint64_t sequence) noexcept override {
    auto known = poisoned_.load(std::memory_order_relaxed);
    while (sequence < known
           && !poisoned_.compare_exchange_weak(known, sequence,
                                               std::memory_order_release,
                                               std::memory_order_relaxed)) {
    }
  }

  void clear_poison() noexcept override {
    poisoned_.store(nothing_poisoned, std::memory_order_release);
  }

  bool covers_all_processes() const noexcept override { return false; }

private:
  static constexpr auto nothing_poisoned =
      std::numeric_limits<std::uint64_t>::max();

  std::atomic<std::uint64_t> durable_{0};
  std::atomic<std::uint64_t> poisoned_{nothing_poisoned};
};

class process_notice_board : public notice_board {
public:
  std::shared_ptr<store_notices> attach(const store_id& id) override {
    std::lock_guard lock(mutex_);
    auto& notices = notices_[id];
    if (!notices)
      notices = std::make_shared<process_notices>();
    return notices;
  }

private:
  std::mutex mutex_;
  std::map<store_id, std::shared_ptr<process_notices>> notices_;
};

} // namespace

notice_board& process_board() {
  // Never destroyed: handles in static objects may outlive any order of
  // destruction.
  static auto* board = new process_notice_board;
  return *board;
}

} // namespace callboard
