#pragma once

#include "core/result.hpp"

namespace callboard::cli {

/// How the command ends. Part of its interface (see `exit_code_help`): do not
/// change.
enum class exit_code : int {
  success = 0,
  incomplete = 1,
  usage = 2,
  bad_input = 3,
  damaged = 4,
  busy = 5,
  input_output = 6,
  embedding_failed = 7,
  timed_out = 8,
  internal = 70,
  interrupted = 130,
};

exit_code exit_code_of(errc code) noexcept;

/// What each status means, for `--help`.
const char* exit_code_help() noexcept;

} // namespace callboard::cli
