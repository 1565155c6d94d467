#include "ipc/wake_word.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <ctime>
#include <limits>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace callboard {

namespace {

using std::chrono::nanoseconds;
using std::chrono::steady_clock;

constexpr auto no_wait = std::chrono::milliseconds(0);
constexpr auto longest_wait = std::chrono::hours(1);
constexpr nanoseconds slice = std::chrono::milliseconds(20);

timespec timespec_of(nanoseconds time) {
  timespec out{};
  out.tv_sec = time.count() / 1'000'000'000;
  out.tv_nsec = time.count() % 1'000'000'000;
  return out;
}

bool has_changed(const watched_word& each) {
  return each.word->load(std::memory_order_acquire) != each.seen;
}

/// Whether the kernel was able to watch all of `words`.
bool sleep_on_all(std::span<const watched_word> words,
                  steady_clock::time_point deadline) {
  std::array<futex_waitv, FUTEX_WAITV_MAX> waiters{};
  if (words.size() > waiters.size())
    return false;
  for (std::size_t i = 0; i < words.size(); ++i) {
    waiters[i].val = words[i].seen;
    waiters[i].uaddr = reinterpret_cast<std::uintptr_t>(words[i].word);
    waiters[i].flags = FUTEX_32; // not private: other processes wake us
  }
  const auto until = timespec_of(deadline.time_since_epoch());
  const auto returned = ::syscall(SYS_futex_waitv, waiters.data(), words.size(),
                                  0, &until, CLOCK_MONOTONIC);
  return returned >= 0 || errno == EAGAIN || errno == EINTR
         || errno == ETIMEDOUT;
}

void sleep_on_one(const watched_word& each, nanoseconds duration) {
  const auto relative = timespec_of(duration);
  ::syscall(SYS_futex, each.word, FUTEX_WAIT, each.seen, &relative, nullptr, 0);
}

} // namespace

void wake(wake_word& word) noexcept {
  // Release: who sees the new number sees what was changed before.
  word.fetch_add(1, std::memory_order_release);
  ::syscall(SYS_futex, &word, FUTEX_WAKE, std::numeric_limits<int>::max(),
            nullptr, nullptr, 0);
}

void wait_for_change(std::span<const watched_word> words,
                     std::chrono::milliseconds timeout) {
  const auto deadline =
      steady_clock::now()
      + std::clamp<std::chrono::milliseconds>(timeout, no_wait, longest_wait);
  while (std::none_of(words.begin(), words.end(), has_changed)) {
    const nanoseconds left = deadline - steady_clock::now();
    if (left <= nanoseconds::zero())
      return;
    if (sleep_on_all(words, deadline))
      continue;
    sleep_on_one(words.front(),
                 words.size() == 1 ? left : std::min(left, slice));
  }
}

} // namespace callboard
