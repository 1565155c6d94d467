#pragma once

#include "core/result.hpp"
#include "simulation/draw_ranges.hpp"
#include "simulation/random_source.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <ostream>
#include <string>
#include <string_view>

namespace callboard::simulation {

/// All that a simulated test depends on: a seed, and which draws are calm in
/// each stream of random numbers (see `random_source`).
///
/// A stream has a name, of small letters, digits and '_'. Its numbers follow
/// from the seed and the name, so that draws of one do not move those of
/// another. A `world` has "events" (what happens next), "machine" (what a
/// power loss leaves, how much of a half write is done, `io::random_bits`) and
/// "choices" (the test's own); a test may have more.
///
/// Copies count their draws together. Threads: not thread-safe.
class schedule {
public:
  using draw_counts = std::map<std::string, std::uint64_t>;

  /// Nothing is calm. Not explicit: a seed is the most ordinary schedule.
  schedule(std::uint64_t seed);

  /// Reads what `to_string` writes. Error: `invalid_argument`.
  static result<schedule> parse(std::string_view text);

  std::uint64_t seed() const noexcept { return seed_; }

  /// The stream of that name, from its first draw on.
  random_source stream(std::string_view name) const;

  /// Makes draws of a stream calm, for sources made from now on by this copy;
  /// its draws are counted from 0 again.
  void calm(std::string_view stream, draw_ranges::range which);
  const std::map<std::string, draw_ranges, std::less<>>&
  calm_draws() const noexcept {
    return calm_;
  }

  /// The same, with draws that are counted from 0, for one more run.
  schedule again() const;

  /// How many draws each stream has made in the longest run so far.
  draw_counts draws() const;
  /// The draws of a stream so far that have chosen something else than the
  /// calmest. Valid as long as this object, or until it is changed.
  const draw_ranges& lively(std::string_view stream) const;
  /// How many those are, in all streams.
  std::uint64_t lively_draws() const;

private:
  using records =
      std::map<std::string, std::shared_ptr<draw_record>, std::less<>>;

  std::uint64_t seed_;
  std::map<std::string, draw_ranges, std::less<>> calm_;
  std::shared_ptr<records> records_;
};

/// The seed, then for each stream with calm draws a colon, its name, '=', and
/// ranges from the first calm draw to the last, that one included:
/// "17", "17:choices=20-40:events=7,100-350,900-".
std::string to_string(const schedule& which);
std::ostream& operator<<(std::ostream& out, const schedule& which);

} // namespace callboard::simulation
