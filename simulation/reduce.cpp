#include "simulation/reduce.hpp"

#include <algorithm>
#include <bit>
#include <optional>
#include <string>
#include <utility>

namespace callboard::simulation {

namespace {

/// Delta debugging: what cannot be calmed whole is tried by halves.
class reducer {
public:
  reducer(const schedule& failing, const failing_test& fails,
          std::size_t trials_max)
      : fails_(fails), trials_max_(trials_max), best_(failing.again()) {}

  reduction run() {
    const bool is_reproduced = holds(best_);
    if (is_reproduced)
      while (pass()) {
      }
    const auto lively = best_.lively_draws();
    return {std::move(best_), lively, trials_, is_reproduced};
  }

private:
  bool is_spent() const noexcept { return trials_ >= trials_max_; }

  bool holds(const schedule& tried) {
    ++trials_;
    return fails_(tried);
  }

  /// All sizes of parts once; whether there may be more to find.
  bool pass() {
    auto size = std::bit_ceil(longest_stream());
    bool found = false;
    for (; size > 0 && !is_spent(); size /= 2)
      for (const auto& [name, draws] : best_.draws())
        found = calm_parts(name, size) || found;
    return found && !is_spent();
  }

  std::uint64_t longest_stream() const {
    std::uint64_t out = 0;
    for (const auto& [name, draws] : best_.draws())
      out = std::max(out, draws);
    return out;
  }

  /// From the end, since what happens late is the least likely to matter.
  bool calm_parts(const std::string& stream, std::uint64_t size) {
    bool found = false;
    auto end = draw_ranges::no_end;
    while (!is_spent()) {
      const auto last = last_lively(stream, end);
      if (!last)
        break;
      const auto begin = *last / size * size;
      found = try_calm(stream, {begin, begin + size}) || found;
      end = begin;
    }
    return found;
  }

  /// The last lively draw before `end`.
  std::optional<std::uint64_t> last_lively(const std::string& stream,
                                           std::uint64_t end) const {
    std::optional<std::uint64_t> out;
    for (const auto& each : best_.lively(stream).all())
      if (each.begin < end)
        out = std::min(each.end, end) - 1;
    return out;
  }

  /// A part at the end has no end, so that what a longer run draws is calm,
  /// too.
  bool try_calm(const std::string& stream, draw_ranges::range part) {
    if (part.end >= best_.draws().at(stream))
      part.end = draw_ranges::no_end;
    auto tried = best_;
    tried.calm(stream, part);
    if (!holds(tried))
      return false;
    best_ = std::move(tried);
    return true;
  }

  const failing_test& fails_;
  std::size_t trials_max_;
  std::size_t trials_ = 0;
  schedule best_;
};

} // namespace

reduction reduce(const schedule& failing, const failing_test& fails,
                 std::size_t trials_max) {
  return reducer(failing, fails, trials_max).run();
}

} // namespace callboard::simulation
