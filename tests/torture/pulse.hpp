#pragma once

#include "core/result.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string_view>

/// How a process shows that it is getting on: counters in a mapped file.
namespace callboard::torture {

/// Processes of the run, and the judge of each round.
inline constexpr unsigned slot_count = 7;

/// What a process is at.
enum class step : std::uint32_t {
  starting,
  opening,
  reading_ledger,
  reading_snapshot,
  reading_rows,
  querying,
  watching,
  awaiting,
  upserting,
  removing,
  committing,
  checkpointing,
  finalizing,
  verifying,
  dropping,
  reading_published_pair,
};
std::string_view to_string(step what) noexcept;

struct pulse {
  std::atomic<std::uint64_t> beats;
  std::atomic<step> at;
  /// Whether it has opened its stores.
  std::atomic<bool> is_ready;
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);
static_assert(std::atomic<step>::is_always_lock_free);

/// The pulses of all slots. The file is made if it is missing.
class pulse_board {
public:
  static result<pulse_board> open(const std::filesystem::path& path);

  pulse& of(unsigned slot) { return (*pulses_)[slot]; }

private:
  using pulses = std::array<pulse, slot_count>;
  explicit pulse_board(std::shared_ptr<pulses> mapped)
      : pulses_(std::move(mapped)) {}

  std::shared_ptr<pulses> pulses_;
};

} // namespace callboard::torture
