#pragma once

#include <cstdint>

namespace callboard::simulation {

/// Reproducible random numbers: equal seeds give equal numbers, on every
/// machine and with every standard library.
class random_source {
public:
  explicit random_source(std::uint64_t seed) noexcept : state_(seed) {}

  std::uint64_t bits() noexcept {
    auto mixed = state_ += 0x9e3779b97f4a7c15ULL;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9ULL;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebULL;
    return mixed ^ (mixed >> 31);
  }

  /// A number from 0 to `count - 1`. Requires: `count` > 0.
  std::uint64_t below(std::uint64_t count) noexcept { return bits() % count; }

  bool one_in(std::uint64_t count) noexcept { return below(count) == 0; }

private:
  std::uint64_t state_;
};

} // namespace callboard::simulation
