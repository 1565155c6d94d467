#pragma once

#include "core/result.hpp"

#include <cstdint>
#include <filesystem>

namespace callboard::history {

struct run_options {
  unsigned writers = 4;
  unsigned readers = 2;
  /// Goes on until so many were acknowledged.
  std::uint64_t transactions = 0;
  /// How many times a writer is killed and started anew; evenly spread over
  /// the transactions.
  std::uint64_t kills = 0;
  std::uint64_t seed = 0;
  /// Gets the stores and the journals.
  std::filesystem::path directory;
};

/// Starts the processes, kills some, and waits for their end. The second
/// writer and the second reader use the client, the others the engine. Must
/// have no threads. Answers the number of kills.
///
/// What a process has found wrong is in its journal: then the run ends early.
/// Errors: `timed_out` if nothing was acknowledged for a minute, or processes
/// take longer to end; `io_failure` if one cannot be started or ends by itself.
result<std::uint64_t> conduct(const run_options& options);

} // namespace callboard::history
