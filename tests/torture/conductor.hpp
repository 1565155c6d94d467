#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>

namespace callboard::torture {

struct run_options {
  /// How long to go on; and longer, until there were so many kills, but never
  /// more than `time_factor_max` times as long.
  unsigned seconds = 0;
  std::size_t kills = 0;
  std::uint64_t seed = 0;
  /// Holds the stores and the ledger.
  std::filesystem::path directory;
};

inline constexpr unsigned time_factor_max = 4;

/// Starts the processes, kills them at random instants and starts them anew,
/// in rounds that end with the death of all and a judgement. Has no threads.
/// Prints what was found, and the counts. Returns the exit status.
int conduct(const run_options& options);

} // namespace callboard::torture
