#pragma once

#include <cstdint>
#include <limits>
#include <vector>

namespace callboard::simulation {

/// Draws of a `random_source`, numbered from 0: sorted ranges with something
/// between them.
class draw_ranges {
public:
  static constexpr auto no_end = std::numeric_limits<std::uint64_t>::max();

  struct range {
    std::uint64_t begin = 0;
    /// The first draw that is behind it.
    std::uint64_t end = no_end;
  };

  /// Ranges that it meets become one with it. An empty one changes nothing.
  void add(range added);

  bool contains(std::uint64_t draw) const noexcept;

  /// How many of the draws of `which` are in the ranges.
  std::uint64_t count_in(range which) const noexcept;

  const std::vector<range>& all() const noexcept { return ranges_; }

private:
  std::vector<range> ranges_;
};

} // namespace callboard::simulation
