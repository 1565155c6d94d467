#include "core/result.hpp"

namespace callboard {

std::string_view to_string(errc code) noexcept {
  switch (code) {
  case errc::invalid_argument:
    return "invalid_argument";
  case errc::dimension_mismatch:
    return "dimension_mismatch";
  case errc::model_mismatch:
    return "model_mismatch";
  case errc::unsupported_format:
    return "unsupported_format";
  case errc::corrupt:
    return "corrupt";
  case errc::io_failure:
    return "io_failure";
  case errc::no_space:
    return "no_space";
  case errc::permission_denied:
    return "permission_denied";
  case errc::busy:
    return "busy";
  case errc::too_large:
    return "too_large";
  case errc::embedding_failed:
    return "embedding_failed";
  case errc::broken:
    return "broken";
  case errc::conflict:
    return "conflict";
  case errc::closed:
    return "closed";
  case errc::not_found:
    return "not_found";
  case errc::timed_out:
    return "timed_out";
  }
  return "unknown";
}

} // namespace callboard
