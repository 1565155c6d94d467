/// JSON text, compared with another reader of it. The input is the text.
#include "core/json_text.hpp"
#include "tests/fuzz/support.hpp"

#include <nlohmann/json.hpp>

#include <cmath>

namespace callboard::fuzz {
namespace {

/// Deeper than any input that is compared.
constexpr std::size_t depth_max = json_text::open_containers_max;
constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";

bool has_any(std::string_view text, std::string_view characters) {
  return text.find_first_of(characters) != std::string_view::npos;
}

/// Whether an exponent, if there is one, is too small to matter.
bool has_small_numbers(std::string_view text) {
  if (!has_any(text, "eE"))
    return true;
  std::size_t run = 0;
  return std::ranges::none_of(text, [&](char each) {
    run = each >= '0' && each <= '9' ? run + 1 : 0;
    return run > 2;
  });
}

/// What only one of the two readers does by its documentation: tokens of
/// Python, lone surrogates, numbers beyond a double, depth; and that the other
/// one takes a zero for the end.
bool is_comparable(std::string_view text) {
  return !has_any(text, std::string_view("NI\0", 3))
         && text.find("\\u") == std::string_view::npos
         && !text.starts_with(byte_order_mark) && text.size() < 300
         && has_small_numbers(text);
}

bool is_shallow(std::string_view text) {
  return static_cast<std::size_t>(std::ranges::count_if(
             text, [](char each) { return each == '[' || each == '{'; }))
         <= depth_max;
}

void check_scalar(std::string_view raw) {
  using json_text::value_kind;
  switch (json_text::kind_of(raw)) {
  case value_kind::string: {
    const auto text = need(json_text::decode_string(raw));
    require(json_text::valid_utf8(text, json_text::surrogates::allowed),
            "a string is decoded to well-formed text");
    const auto encoded = json_text::encode_string(text);
    require(need(json_text::decode_string(encoded)) == text,
            "a string is decoded as it was encoded");
    break;
  }
  case value_kind::integer:
  case value_kind::number:
  case value_kind::not_finite: {
    const auto number = json_text::to_double(raw);
    const auto integer = json_text::to_integer(raw);
    require(!number || !integer || static_cast<double>(*integer) == *number,
            "an integer is the same as a double");
    const auto narrow = number ? static_cast<float>(*number) : INFINITY;
    if (std::isfinite(narrow))
      require(static_cast<float>(
                  need(json_text::to_double(json_text::from_float(narrow))))
                  == narrow,
              "a float is read as it was written");
    break;
  }
  default:
    break;
  }
}

void check_members(std::string_view text, json_text::rules how) {
  std::size_t count = 0;
  if (json_text::kind_of(text) == json_text::value_kind::object) {
    const auto visit = [&](std::string_view key, std::string_view value,
                           std::string_view raw_key) -> result<void> {
      require(need(json_text::decode_string(raw_key)) == key,
              "a key is its raw text, decoded");
      need(json_text::validate(value, how));
      check_scalar(value);
      ++count;
      return {};
    };
    need(json_text::for_each_member(text, visit, how));
  } else if (json_text::kind_of(text) == json_text::value_kind::array) {
    const auto visit = [&](std::string_view value) -> result<void> {
      need(json_text::validate(value, how));
      check_scalar(value);
      ++count;
      return {};
    };
    need(json_text::for_each_element(text, visit, how));
    const auto floats = json_text::to_floats(text);
    require(!floats || floats->size() == count, "a float for each element");
  }
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view white_space = " \t\r\n";
  const auto first = text.find_first_not_of(white_space);
  return text.substr(first, text.find_last_not_of(white_space) + 1 - first);
}

void check_text(std::string_view text) {
  const json_text::rules how{.depth_max = depth_max};
  const allocation_meter memory;
  const auto valid = json_text::validate(text, how);
  memory.require_at_most(0, 0, 1024);
  if (is_comparable(text) && (valid || is_shallow(text)))
    require(nlohmann::json::accept(text) == valid.has_value(),
            "what is JSON does not depend on the reader");
  if (!valid) {
    // They check for themselves.
    static_cast<void>(json_text::decode_string(text));
    static_cast<void>(json_text::to_double(text));
    static_cast<void>(json_text::to_integer(text));
    static_cast<void>(json_text::to_floats(text));
    return;
  }
  const auto value = trimmed(text);
  const auto compact = json_text::compact(value);
  need(json_text::validate(compact, how));
  require(json_text::compact(compact) == compact
              && json_text::kind_of(compact) == json_text::kind_of(value),
          "what is compact stays as it is");
  check_scalar(value);
  check_members(value, how);
}

} // namespace
} // namespace callboard::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  const auto input = callboard::fuzz::as_input(data, size);
  callboard::fuzz::check_text(callboard::as_text(input));
  return 0;
}
