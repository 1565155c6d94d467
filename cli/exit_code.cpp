#include "cli/exit_code.hpp"

namespace callboard::cli {

exit_code exit_code_of(errc code) noexcept {
  switch (code) {
  case errc::not_found:
    return exit_code::incomplete;
  case errc::invalid_argument:
  case errc::dimension_mismatch:
  case errc::model_mismatch:
  case errc::too_large:
    return exit_code::usage;
  case errc::corrupt:
  case errc::unsupported_format:
    return exit_code::damaged;
  case errc::busy:
  case errc::conflict:
  case errc::closed:
    return exit_code::busy;
  case errc::io_failure:
  case errc::no_space:
  case errc::permission_denied:
  case errc::broken:
    return exit_code::input_output;
  case errc::embedding_failed:
    return exit_code::embedding_failed;
  case errc::timed_out:
    return exit_code::timed_out;
  }
  return exit_code::internal;
}

const char* exit_code_help() noexcept {
  return R"(Exit status:
    0  done
    1  not found: the store or an id; ingest, train: some input was skipped
    2  usage: a wrong option, or one that does not fit the store
    3  ingest --strict: unusable input
    4  the store is damaged or of another format
    5  busy: somebody holds the store's lock; try again
    6  input or output failed: no permission, disk full, closed pipe
    7  the embedder failed
    8  what was waited for did not come in time
   70  internal error
  130  interrupted; what was committed stays

Errors are one line on standard error, "callboard: CODE: MESSAGE", or with
--json {"e": {"code": CODE, "message": MESSAGE}}.)";
}

} // namespace callboard::cli
