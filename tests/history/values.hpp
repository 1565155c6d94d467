#pragma once

#include "core/result.hpp"
#include "core/snapshot.hpp"
#include "tests/history/journal.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace callboard::history {

/// How a value says who wrote it: "<process>.<number>".
std::string transaction_name(unsigned process, std::uint64_t number);

/// What `transaction` has to write to a row if `before` (empty: no row) is to
/// be updated and not overwritten: a counter is counted up, a list has the
/// transaction appended and sheds its elements when there are many. Empty for
/// rows of other kinds.
std::optional<std::string> next_value(std::string_view id,
                                      std::string_view before,
                                      std::string_view transaction);

/// A row with this value. Its vector follows from its content, and its content
/// from its id and value.
std::string content_of(std::string_view id, std::string_view value);
/// A JSON object with that content.
std::string record_of(std::string_view id, std::string_view value);
std::vector<float> vector_of(std::string_view id, std::string_view value);

/// The value of a row; empty if there is none. Errors: `corrupt`, if id,
/// content and vector do not belong together; those of the snapshot.
result<std::string> value_in(const snapshot& view, const std::string& id);

/// All values of `view`. Errors: as `value_in`.
result<rows> contents(const snapshot& view);

} // namespace callboard::history
