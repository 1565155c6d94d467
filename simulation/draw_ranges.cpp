#include "simulation/draw_ranges.hpp"

#include <algorithm>

namespace callboard::simulation {

void draw_ranges::add(range added) {
  if (added.begin >= added.end)
    return;
  if (ranges_.empty() || ranges_.back().end < added.begin) {
    ranges_.push_back(added);
    return;
  }
  const auto first = std::lower_bound(
      ranges_.begin(), ranges_.end(), added.begin,
      [](const range& each, std::uint64_t begin) { return each.end < begin; });
  auto last = first;
  for (; last != ranges_.end() && last->begin <= added.end; ++last) {
    added.begin = std::min(added.begin, last->begin);
    added.end = std::max(added.end, last->end);
  }
  ranges_.insert(ranges_.erase(first, last), added);
}

bool draw_ranges::contains(std::uint64_t draw) const noexcept {
  const auto next =
      std::upper_bound(ranges_.begin(), ranges_.end(), draw,
                       [](std::uint64_t number, const range& each) {
                         return number < each.end;
                       });
  return next != ranges_.end() && next->begin <= draw;
}

std::uint64_t draw_ranges::count_in(range which) const noexcept {
  std::uint64_t count = 0;
  auto each = std::upper_bound(
      ranges_.begin(), ranges_.end(), which.begin,
      [](std::uint64_t number, const range& one) { return number < one.end; });
  for (; each != ranges_.end() && each->begin < which.end; ++each)
    count +=
        std::min(each->end, which.end) - std::max(each->begin, which.begin);
  return count;
}

} // namespace callboard::simulation
