#include "ipc/process_board.hpp"

#include <array>
#include <atomic>
#include <limits>
#include <optional>
#include <utility>

namespace callboard {

class local_board::notices final : public store_notices {
public:
  explicit notices(std::shared_ptr<wake_word> word) : word_(std::move(word)) {}

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
        wake(*word_);
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

  const std::shared_ptr<wake_word> word_;
  std::atomic<std::uint64_t> durable_{0};
  std::atomic<std::uint64_t> poisoned_{nothing_poisoned};
};

local_board::local_board() : word_(std::make_shared<wake_word>(0)) {}

local_board::~local_board() = default;

std::shared_ptr<store_notices>
local_board::attach(const store_address& address) {
  const std::lock_guard guard(mutex_);
  // Not by the id alone: a copied directory has the same one.
  auto& found = notices_[{address.working_directory, address.workspace,
                          address.namespace_name, address.id}];
  if (!found)
    found = std::make_shared<notices>(word_);
  return found;
}

std::uint64_t local_board::announcements() const noexcept {
  return word_->load(std::memory_order_acquire);
}

void local_board::wait(std::uint64_t seen, std::chrono::milliseconds timeout) {
  const std::array words{
      interruption_.watched(),
      watched_word{word_.get(), static_cast<std::uint32_t>(seen)}};
  wait_for_change(words, timeout);
  interruption_.serve();
}

local_board& process_board() {
  // Never destroyed: handles in static objects may outlive any order of
  // destruction.
  static auto* board = new local_board;
  return *board;
}

} // namespace callboard
