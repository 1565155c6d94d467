#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <span>

namespace callboard {

/// A word of memory, shared by threads or by processes, that tells of changes:
/// who has changed something adds one, and who waits for it wakes.
using wake_word = std::atomic<std::uint32_t>;
static_assert(wake_word::is_always_lock_free);
static_assert(sizeof(wake_word) == sizeof(std::uint32_t));

/// Adds one, and wakes all who wait, in this process and in others.
void wake(wake_word& word) noexcept;

/// A word to wait for, and what was seen in it.
struct watched_word {
  const wake_word* word = nullptr;
  std::uint32_t seen = 0;
};

/// Waits until one of `words` is no longer what was seen, or until `timeout`
/// has passed, or an hour. Where the kernel cannot watch them all (more than
/// 128, Linux before 5.16, a sandbox), it watches the first and looks at the
/// others every 20 ms.
///
/// Requires: at least one word; the first is in memory of this process alone.
void wait_for_change(std::span<const watched_word> words,
                     std::chrono::milliseconds timeout);

/// Ends one wait of one thread: the one under way, or else the next.
class interruption {
public:
  void raise() noexcept { wake(raised_); }

  /// Differs from what it says was seen if the next wait must not wait.
  watched_word watched() const noexcept {
    return {&raised_, served_.load(std::memory_order_relaxed)};
  }

  /// At the end of a wait: whoever raised it until now is served by it.
  void serve() noexcept {
    served_.store(raised_.load(std::memory_order_acquire),
                  std::memory_order_relaxed);
  }

private:
  wake_word raised_{0};
  std::atomic<std::uint32_t> served_{0};
};

} // namespace callboard
