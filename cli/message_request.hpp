#pragma once

#include "core/json_text.hpp"
#include "core/result.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace callboard::cli {

/// Arrays and objects that may be open at once in a request: a record's, and
/// those that it is in.
inline constexpr json_text::rules request_rules = {
    .depth_max = 40, .error = errc::invalid_argument};

/// One line of a `messages` session: a JSON object. Values stay text.
///
/// Ownership: borrows the line.
/// Errors:    `invalid_argument`; the message names the member.
class message_request {
public:
  /// Of a repeated member the last one counts.
  static result<message_request> parse(std::string_view line);

  /// The value as it stands in the line; empty if it is absent or null.
  std::optional<std::string_view> raw(std::string_view name) const;
  result<std::string_view> required_raw(std::string_view name) const;

  result<std::string> string(std::string_view name) const;
  result<std::string> string_or(std::string_view name,
                                std::string fallback) const;
  /// Absent: none.
  result<std::vector<std::string>> strings(std::string_view name) const;
  /// An integer from `least` on; absent: `fallback`.
  result<std::int64_t> integer_or(std::string_view name, std::int64_t least,
                                  std::int64_t fallback) const;
  result<std::int64_t> integer(std::string_view name) const;
  /// Finite.
  result<std::optional<double>> number(std::string_view name) const;
  result<bool> boolean_or(std::string_view name, bool fallback) const;

private:
  std::map<std::string, std::string_view, std::less<>> members_;
};

/// The text of the string `raw`, or an error that says that `name` is none.
result<std::string> decode_named_string(std::string_view name,
                                        std::string_view raw);

} // namespace callboard::cli
