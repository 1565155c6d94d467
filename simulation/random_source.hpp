#pragma once

#include "simulation/draw_ranges.hpp"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>

namespace callboard::simulation {

/// What the sources of one stream of a `schedule` share.
struct draw_record {
  /// Draws that answer with the calmest choice.
  draw_ranges calm;
  /// Draws that have answered with another one.
  draw_ranges lively;
  /// The most draws that one source has made so far.
  std::uint64_t draws = 0;
};

/// Reproducible random numbers: equal seeds give equal numbers, on every
/// machine and with every standard library.
///
/// A source of a schedule may be told that some of its draws are calm. Those
/// are drawn, too, so that the later ones stay what they are, but answer with
/// the calmest choice: 0 of a number, false of a chance. Whoever asks should
/// see to it that this choice does nothing, or what is most ordinary.
///
/// Threads: not thread-safe, nor are two sources of one stream.
class random_source {
public:
  explicit random_source(std::uint64_t seed) noexcept : state_(seed) {}
  random_source(std::uint64_t seed, std::shared_ptr<draw_record> record)
      : state_(seed), record_(std::move(record)) {}

  /// 64 random bits, for seeds and names: a draw that is never calm.
  std::uint64_t bits() noexcept {
    ++draws_;
    if (record_)
      record_->draws = std::max(record_->draws, draws_);
    auto mixed = state_ += 0x9e3779b97f4a7c15ULL;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9ULL;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebULL;
    return mixed ^ (mixed >> 31);
  }

  /// A number from 0 to `count - 1`; if calm, 0. Requires: `count` > 0.
  std::uint64_t below(std::uint64_t count) {
    const auto drawn = bits() % count;
    return drawn != 0 && is_lively() ? drawn : 0;
  }

  /// True once in `count` times; if calm, false. Requires: `count` > 0.
  bool one_in(std::uint64_t count) {
    return bits() % count == count - 1 && is_lively();
  }

  /// How many draws were made: the number of the next one.
  std::uint64_t draws() const noexcept { return draws_; }

private:
  /// Whether the last draw may answer with another choice than the calmest.
  bool is_lively() {
    if (!record_)
      return true;
    const auto number = draws_ - 1;
    if (record_->calm.contains(number))
      return false;
    record_->lively.add({number, number + 1});
    return true;
  }

  std::uint64_t state_;
  std::uint64_t draws_ = 0;
  /// Null: nothing is calm.
  std::shared_ptr<draw_record> record_;
};

/// `hash` with one more value: a number that follows from many, in order.
inline std::uint64_t mixed(std::uint64_t hash, std::uint64_t value) noexcept {
  return random_source(hash ^ value).bits();
}

/// With each character of `text`; its length is not mixed in.
inline std::uint64_t mixed(std::uint64_t hash, std::string_view text) noexcept {
  for (const auto each : text)
    hash = mixed(hash, static_cast<unsigned char>(each));
  return hash;
}

} // namespace callboard::simulation
