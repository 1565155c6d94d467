#pragma once

#include "core/io.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

namespace callboard::cli {

/// The real operating system with a wall clock that is set by hand.
///
/// Ownership: borrows the other door, which must outlive it.
/// Threads:   thread-safe.
class manual_clock : public io {
public:
  static constexpr std::int64_t start_seconds = 1'700'000'000;

  explicit manual_clock(io& door) : door_(door) {}

  void set(std::int64_t seconds) noexcept { seconds_ = seconds; }

  result<std::unique_ptr<directory>> open_directory(std::string_view path,
                                                    bool create) override {
    return door_.open_directory(path, create);
  }
  std::int64_t wall_clock_seconds() override { return seconds_; }
  std::chrono::nanoseconds steady_clock() override {
    return door_.steady_clock();
  }
  void pause(std::chrono::milliseconds duration) override {
    door_.pause(duration);
  }
  std::uint64_t random_bits() override { return door_.random_bits(); }
  std::string boot_id() override { return door_.boot_id(); }

private:
  io& door_;
  std::atomic<std::int64_t> seconds_ = start_seconds;
};

} // namespace callboard::cli
