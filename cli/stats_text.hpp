#pragma once

#include "actors/requests.hpp"

#include <string>

namespace callboard::cli {

/// What a handle knows of its store, as a JSON object.
std::string stats_json(const handle_stats& stats);

/// The same for people: a table, several lines.
std::string stats_table(const handle_stats& stats);

} // namespace callboard::cli
