#pragma once

#include "core/store.hpp"

#include <string>

namespace callboard::cli {

/// What a commit has changed, as a JSON object on one line:
/// `{"event": KIND, "generation": G, "changed": [ID...], "removed": [ID...]}`.
/// Only events of kind "commit" have ids.
std::string event_json(const commit_event& event);

/// The same for people: one line, with numbers instead of ids.
std::string event_line(const commit_event& event);

} // namespace callboard::cli
