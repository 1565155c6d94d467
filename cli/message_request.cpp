#include "cli/message_request.hpp"

#include "core/record.hpp"

#include <cmath>
#include <functional>
#include <utility>

namespace callboard::cli {
namespace {

using json_text::value_kind;

failure wrong(std::string_view name, std::string_view what) {
  return {errc::invalid_argument, printable(name) + " " + std::string(what)};
}

} // namespace

result<std::string> decode_named_string(std::string_view name,
                                        std::string_view raw) {
  if (json_text::kind_of(raw) != value_kind::string)
    return wrong(name, "is not a string");
  return json_text::decode_string(raw);
}

result<message_request> message_request::parse(std::string_view line) {
  message_request request;
  const auto keep = [&](std::string_view key, std::string_view value,
                        std::string_view) -> result<void> {
    request.members_.insert_or_assign(std::string(key), value);
    return {};
  };
  CALLBOARD_TRY(json_text::for_each_member(line, keep, request_rules));
  return request;
}

std::optional<std::string_view>
message_request::raw(std::string_view name) const {
  const auto found = members_.find(name);
  if (found == members_.end()
      || json_text::kind_of(found->second) == value_kind::null)
    return std::nullopt;
  return found->second;
}

result<std::string_view>
message_request::required_raw(std::string_view name) const {
  const auto value = raw(name);
  if (!value)
    return wrong(name, "is missing");
  return *value;
}

result<std::string> message_request::string(std::string_view name) const {
  CALLBOARD_TRY_ASSIGN(const auto value, required_raw(name));
  return decode_named_string(name, value);
}

result<std::string> message_request::string_or(std::string_view name,
                                               std::string fallback) const {
  const auto value = raw(name);
  if (!value)
    return fallback;
  return decode_named_string(name, *value);
}

result<std::vector<std::string>>
message_request::strings(std::string_view name) const {
  std::vector<std::string> texts;
  const auto value = raw(name);
  if (!value)
    return texts;
  if (json_text::kind_of(*value) != value_kind::array)
    return wrong(name, "is not an array of strings");
  const auto take = [&](std::string_view element) -> result<void> {
    CALLBOARD_TRY_ASSIGN(auto text, decode_named_string(name, element));
    texts.push_back(std::move(text));
    return {};
  };
  CALLBOARD_TRY(json_text::for_each_element(*value, take, request_rules));
  return texts;
}

result<std::int64_t> message_request::integer(std::string_view name) const {
  CALLBOARD_TRY_ASSIGN(const auto value, required_raw(name));
  if (json_text::kind_of(value) != value_kind::integer)
    return wrong(name, "is not an integer");
  auto number = json_text::to_integer(value);
  if (!number)
    return wrong(name, "is out of range");
  return number;
}

result<std::int64_t> message_request::integer_or(std::string_view name,
                                                 std::int64_t least,
                                                 std::int64_t fallback) const {
  if (!raw(name))
    return fallback;
  CALLBOARD_TRY_ASSIGN(const auto value, integer(name));
  if (value < least)
    return wrong(name, "is less than " + std::to_string(least));
  return value;
}

result<std::optional<double>>
message_request::number(std::string_view name) const {
  const auto value = raw(name);
  if (!value)
    return std::optional<double>();
  const auto kind = json_text::kind_of(*value);
  if (kind != value_kind::integer && kind != value_kind::number)
    return wrong(name, "is not a number");
  auto parsed = json_text::to_double(*value);
  if (!parsed || !std::isfinite(*parsed))
    return wrong(name, "is out of range");
  return std::optional(*parsed);
}

result<bool> message_request::boolean_or(std::string_view name,
                                         bool fallback) const {
  const auto value = raw(name);
  if (!value)
    return fallback;
  if (json_text::kind_of(*value) != value_kind::boolean)
    return wrong(name, "is neither true nor false");
  return *value == "true";
}

} // namespace callboard::cli
