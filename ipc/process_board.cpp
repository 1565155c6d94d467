#include "ipc/process_board.hpp"

#include "ipc/wake_word.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>

namespace callboard {

namespace {

/// Of the whole process: waiters watch it.
wake_word announcement_word{0};

class process_notices : public store_notices {
public:
  std::uint64_t durable_sequence() const noexcept override {
    // Pairs with the release in `announce`: who sees the sequence sees what
    // the announcing thread wrote before.
    return durable_.load(std::memory_order_acquire);
  }

  void announce(std::uint64_t sequence) noexcept override {
    auto known = durable_.load(std::memory_order_relaxed);
    while (known < sequence) {
      if (durable_.compare_exchange_weak(known, sequence,
                                         std::memory_order_release,
                                         std::memory_order_relaxed)) {
        wake(announcement_word);
        return;
      }
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

  /// There is nobody to tell it to.
  void note_base_epoch(std::uint64_t) noexcept override {}

  bool covers_all_processes() const noexcept override { return false; }

private:
  static constexpr auto nothing_poisoned =
      std::numeric_limits<std::uint64_t>::max();

  std::atomic<std::uint64_t> durable_{0};
  std::atomic<std::uint64_t> poisoned_{nothing_poisoned};
};

class process_notice_board : public notice_board {
public:
  std::shared_ptr<store_notices> attach(const store_address& address) override {
    std::lock_guard lock(mutex_);
    // Not by the id alone: a copied directory has the same one.
    auto& notices = notices_[{address.working_directory, address.workspace,
                              address.namespace_name, address.id}];
    if (!notices)
      notices = std::make_shared<process_notices>();
    return notices;
  }

  std::uint64_t announcements() const noexcept override {
    return announcement_word.load(std::memory_order_acquire);
  }

  void wait(std::uint64_t seen, std::chrono::milliseconds timeout) override {
    const std::array words{
        interruption_.watched(),
        watched_word{&announcement_word, static_cast<std::uint32_t>(seen)}};
    wait_for_change(words, timeout);
    interruption_.serve();
  }

  void interrupt() noexcept override { interruption_.raise(); }

private:
  using key = std::tuple<std::string, std::string, std::string, store_id>;

  interruption interruption_;
  std::mutex mutex_;
  // Protected by mutex_:
  std::map<key, std::shared_ptr<process_notices>> notices_;
};

} // namespace

notice_board& process_board() {
  // Never destroyed: handles in static objects may outlive any order of
  // destruction.
  static auto* board = new process_notice_board;
  return *board;
}

const std::atomic<std::uint32_t>& process_board_word() noexcept {
  return announcement_word;
}

} // namespace callboard
