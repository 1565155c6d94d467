#pragma once

#include "simulation/schedule.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>

namespace callboard::simulation {

/// Whether a test fails when it is run by this schedule. It must take all that
/// is random from streams of that very schedule, and, if the test can fail in
/// several ways, be true only of the one that is looked for.
using failing_test = std::function<bool(const schedule&)>;

struct reduction {
  /// It fails, too. Everything but what the failure takes is calm, as far as
  /// was found.
  schedule reduced;
  /// How many of its draws choose something else than the calmest.
  std::uint64_t lively_draws = 0;
  /// How often the test was run.
  std::size_t trials = 0;
  /// Whether the schedule that was given failed. If not, the test depends on
  /// something else, and `reduced` is what was given.
  bool is_reproduced = false;
};

/// Makes draws of a failing schedule calm as long as it still fails: first
/// whole streams, then smaller and smaller parts, until no single lively draw
/// can be or `trials_max` runs were made. The same for the same test, each
/// time.
///
/// Errors: none; what `fails` throws comes through.
reduction reduce(const schedule& failing, const failing_test& fails,
                 std::size_t trials_max = 2'000);

} // namespace callboard::simulation
