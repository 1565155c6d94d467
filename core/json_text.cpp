#include "core/json_text.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <system_error>

namespace callboard::json_text {
namespace {

constexpr std::size_t word_bytes = sizeof(std::uint64_t);

constexpr std::uint64_t every_byte(unsigned char byte) {
  return 0x0101010101010101u * byte;
}

std::uint64_t load_word(const char* at) {
  std::uint64_t word = 0;
  std::memcpy(&word, at, word_bytes);
  return word;
}

/// Whether all eight bytes are ASCII, none of them a control character, a
/// quote or a backslash. For a byte x < 0x80, `(x ^ c) - 1` and `x - 0x20`
/// borrow into the top bit exactly if x == c, x < 0x20; a borrow from the byte
/// below can only come with such a byte there, so no word passes wrongly.
bool is_plain_word(std::uint64_t word) {
  const auto quotes = (word ^ every_byte('"')) - every_byte(1);
  const auto backslashes = (word ^ every_byte('\\')) - every_byte(1);
  const auto controls = word - every_byte(0x20);
  return ((word | quotes | backslashes | controls) & every_byte(0x80)) == 0;
}

const char* skip_plain(const char* at, const char* end) {
  while (static_cast<std::size_t>(end - at) >= word_bytes
         && is_plain_word(load_word(at)))
    at += word_bytes;
  while (at != end && static_cast<unsigned char>(*at - 0x20) < 0x60
         && *at != '"' && *at != '\\')
    ++at;
  return at;
}

bool is_continuation(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0) == 0x80;
}

/// Length of the multi-byte UTF-8 sequence at `at`, 0 if it is broken.
std::size_t sequence_bytes(const char* at, const char* end, surrogates lone) {
  const auto left = static_cast<std::size_t>(end - at);
  const auto first = static_cast<unsigned char>(at[0]);
  if (left < 2 || first < 0xC2 || first > 0xF4 || !is_continuation(at[1]))
    return 0;
  if (first < 0xE0)
    return 2;
  const auto second = static_cast<unsigned char>(at[1]);
  if (left < 3 || !is_continuation(at[2]))
    return 0;
  if (first < 0xF0) {
    const bool overlong = first == 0xE0 && second < 0xA0;
    const bool surrogate = first == 0xED && second >= 0xA0;
    return overlong || (surrogate && lone == surrogates::refused) ? 0 : 3;
  }
  const bool overlong = first == 0xF0 && second < 0x90;
  const bool beyond_unicode = first == 0xF4 && second > 0x8F;
  return left < 4 || !is_continuation(at[3]) || overlong || beyond_unicode ? 0
                                                                           : 4;
}

constexpr unsigned char not_hexadecimal = 0xFF;

constexpr auto hexadecimal_values = [] {
  std::array<unsigned char, 256> values{};
  values.fill(not_hexadecimal);
  for (unsigned char i = 0; i < 10; ++i)
    values['0' + i] = i;
  for (unsigned char i = 0; i < 6; ++i)
    values['a' + i] = values['A' + i] = static_cast<unsigned char>(10 + i);
  return values;
}();

bool is_digit(char byte) {
  return byte >= '0' && byte <= '9';
}

bool is_space(char byte) {
  return byte == ' ' || byte == '\n' || byte == '\r' || byte == '\t';
}

bool is_high_surrogate(char32_t unit) {
  return unit >= 0xD800 && unit < 0xDC00;
}

bool is_low_surrogate(char32_t unit) {
  return unit >= 0xDC00 && unit < 0xE000;
}

/// The value of the four digits at `at`; empty if they are not hexadecimal.
std::optional<char32_t> four_digits(const char* at) {
  char32_t unit = 0;
  unsigned char all = 0;
  for (int i = 0; i < 4; ++i) {
    const auto digit = hexadecimal_values[static_cast<unsigned char>(at[i])];
    all = static_cast<unsigned char>(all | digit);
    unit = unit << 4 | (digit & 0xF);
  }
  if (all == not_hexadecimal)
    return std::nullopt;
  return unit;
}

/// Reads tokens and values from `at` on. Each function returns false and sets
/// `reason` if the text is wrong at `at`.
struct reader {
  const char* at;
  const char* end;
  const char* reason = nullptr;

  bool fail(const char* why) {
    reason = why;
    return false;
  }

  bool done() const { return at == end; }

  void skip_space() {
    while (at != end && is_space(*at))
      ++at;
  }

  bool accept(char byte) {
    if (at == end || *at != byte)
      return false;
    ++at;
    return true;
  }

  bool escape();
  bool string();
  std::size_t digits();
  bool number();
  bool literal(std::string_view word);
  bool scalar();
  bool key();
  bool colon();
  bool value(std::size_t depth_max);
};

bool reader::escape() {
  const auto left = end - at;
  if (left < 2)
    return fail("the text ends inside a string");
  if (at[1] == 'u') {
    if (left < 6 || !four_digits(at + 2))
      return fail("\\u without four hexadecimal digits");
    at += 6;
    return true;
  }
  if (at[1] == '\0' || std::strchr("\"\\/bfnrt", at[1]) == nullptr)
    return fail("unknown escape in a string");
  at += 2;
  return true;
}

bool reader::string() {
  if (!accept('"'))
    return fail("expected a string");
  for (;;) {
    at = skip_plain(at, end);
    if (done())
      return fail("the text ends inside a string");
    if (*at == '"') {
      ++at;
      return true;
    }
    if (*at == '\\') {
      if (!escape())
        return false;
      continue;
    }
    if (static_cast<unsigned char>(*at) < 0x20)
      return fail("control character in a string: write it as an escape");
    do {
      const auto bytes = sequence_bytes(at, end, surrogates::refused);
      if (bytes == 0)
        return fail("a string is not valid UTF-8");
      at += bytes;
    } while (at != end && static_cast<unsigned char>(*at) >= 0x80);
  }
}

std::size_t reader::digits() {
  const char* begin = at;
  while (at != end && is_digit(*at))
    ++at;
  return static_cast<std::size_t>(at - begin);
}

bool reader::number() {
  accept('-');
  if (!done() && *at == 'I')
    return literal("Infinity");
  const bool leading_zero = !done() && *at == '0';
  const auto integer_digits = digits();
  if (integer_digits == 0)
    return fail("expected a value");
  if (leading_zero && integer_digits > 1)
    return fail("a number begins with 0");
  bool is_integer = true;
  if (accept('.')) {
    is_integer = false;
    if (digits() == 0)
      return fail("expected a digit after the decimal point");
  }
  if (accept('e') || accept('E')) {
    is_integer = false;
    if (!accept('+'))
      accept('-');
    if (digits() == 0)
      return fail("expected a digit in the exponent");
  }
  if (is_integer && integer_digits > integer_digits_max)
    return fail("an integer has more than 4300 digits");
  return true;
}

bool reader::literal(std::string_view word) {
  if (!std::string_view(at, static_cast<std::size_t>(end - at))
           .starts_with(word))
    return fail("expected a value");
  at += word.size();
  return true;
}

bool reader::scalar() {
  switch (*at) {
  case '"':
    return string();
  case 't':
    return literal("true");
  case 'f':
    return literal("false");
  case 'n':
    return literal("null");
  case 'N':
    return literal("NaN");
  default:
    return number();
  }
}

bool reader::key() {
  if (done() || *at != '"')
    return fail("expected a key");
  return string();
}

/// The colon behind a key and the space around it.
bool reader::colon() {
  skip_space();
  if (!accept(':'))
    return fail("expected ':' after a key");
  skip_space();
  return true;
}

/// Which containers are open, one bit each: the whole stack of `value`.
struct container_stack {
  static_assert(open_containers_max <= 64);
  std::uint64_t are_objects = 0;
  std::size_t depth = 0;

  void push(bool is_object) {
    are_objects = are_objects << 1 | static_cast<std::uint64_t>(is_object);
    ++depth;
  }
  void pop() {
    are_objects >>= 1;
    --depth;
  }
  bool in_object() const { return (are_objects & 1) != 0; }
};

/// Reads one value of any kind. `at` must be behind the space before it.
bool reader::value(std::size_t depth_max) {
  depth_max = std::min(depth_max, open_containers_max);
  container_stack stack;
  for (;;) {
    if (done())
      return fail("the text ends where a value should be");
    bool is_complete = true;
    if (*at == '{' || *at == '[') {
      if (stack.depth == depth_max)
        return fail("arrays and objects are nested too deeply");
      stack.push(*at == '{');
      ++at;
      skip_space();
      is_complete = !done() && *at == (stack.in_object() ? '}' : ']');
      if (!is_complete && stack.in_object() && !(key() && colon()))
        return false;
    } else if (!scalar()) {
      return false;
    }
    while (is_complete) {
      if (stack.depth == 0)
        return true;
      skip_space();
      if (accept(stack.in_object() ? '}' : ']')) {
        stack.pop();
      } else if (accept(',')) {
        skip_space();
        is_complete = false;
        if (stack.in_object() && !(key() && colon()))
          return false;
      } else {
        return fail(stack.in_object() ? "expected ',' or '}'"
                                      : "expected ',' or ']'");
      }
    }
  }
}

failure error_of(errc code, std::size_t offset, std::string_view reason) {
  return {code, "JSON text, byte " + std::to_string(offset) + ": "
                    + std::string(reason)};
}

reader reader_of(std::string_view text) {
  return {text.data(), text.data() + text.size()};
}

result<void> check_number(std::string_view raw, std::string_view expected) {
  reader input = reader_of(raw);
  if (!raw.empty() && (raw[0] == 'N' ? input.literal("NaN") : input.number())
      && input.done())
    return {};
  return failure{errc::invalid_argument,
                 "a JSON value is not " + std::string(expected)};
}

void append_utf8(std::string& out, char32_t character) {
  const auto tail = [&](int shift) {
    return static_cast<char>(0x80 | (character >> shift & 0x3F));
  };
  if (character < 0x80) {
    out += static_cast<char>(character);
  } else if (character < 0x800) {
    out += {static_cast<char>(0xC0 | character >> 6), tail(0)};
  } else if (character < 0x10000) {
    out += {static_cast<char>(0xE0 | character >> 12), tail(6), tail(0)};
  } else {
    out +=
        {static_cast<char>(0xF0 | character >> 18), tail(12), tail(6), tail(0)};
  }
}

char unescaped(char letter) {
  switch (letter) {
  case 'b':
    return '\b';
  case 'f':
    return '\f';
  case 'n':
    return '\n';
  case 'r':
    return '\r';
  case 't':
    return '\t';
  default:
    return letter; // '"', '\\', '/'
  }
}

/// Decodes the escape at the front of `text`, part of a valid string, and
/// removes it there.
void decode_escape(std::string& out, std::string_view& text) {
  if (text[1] != 'u') {
    out += unescaped(text[1]);
    text.remove_prefix(2);
    return;
  }
  char32_t character = *four_digits(text.data() + 2);
  text.remove_prefix(6);
  if (is_high_surrogate(character) && text.starts_with("\\u")) {
    const char32_t low = *four_digits(text.data() + 2);
    if (is_low_surrogate(low)) {
      character = 0x10000 + ((character - 0xD800) << 10) + (low - 0xDC00);
      text.remove_prefix(6);
    }
  }
  append_utf8(out, character);
}

void append_unit(std::string& out, char32_t unit) {
  constexpr std::string_view digits = "0123456789abcdef";
  out += "\\u";
  for (int shift = 12; shift >= 0; shift -= 4)
    out += digits[unit >> shift & 0xF];
}

void append_escaped(std::string& out, char32_t character) {
  constexpr std::string_view specials = "\"\\\n\r\t\b\f";
  constexpr std::string_view letters = "\"\\nrtbf";
  const auto special = character < 0x80
                           ? specials.find(static_cast<char>(character))
                           : std::string_view::npos;
  if (special != std::string_view::npos) {
    out += {'\\', letters[special]};
  } else if (character < 0x10000) {
    append_unit(out, character);
  } else {
    append_unit(out, 0xD800 + ((character - 0x10000) >> 10));
    append_unit(out, 0xDC00 + ((character - 0x10000) & 0x3FF));
  }
}

/// As `static_cast<float>`, but defined for values beyond its range: what
/// rounds to a power of two above the largest `float` becomes an infinity.
float narrowed(double value) {
  constexpr double overflow = 0x1.ffffffp127;
  if (std::abs(value) >= overflow)
    return std::copysign(std::numeric_limits<float>::infinity(),
                         value < 0 ? -1.0f : 1.0f);
  return static_cast<float>(value);
}

} // namespace

result<void> validate(std::string_view text, rules how) {
  reader input = reader_of(text);
  input.skip_space();
  bool ok = input.value(how.depth_max);
  if (ok) {
    input.skip_space();
    ok = input.done() || input.fail("text after the end of the value");
  }
  if (ok)
    return {};
  return error_of(how.error, static_cast<std::size_t>(input.at - text.data()),
                  input.reason);
}

result<bool> container_scanner::next() {
  if (is_done_)
    return false;
  reader input = reader_of(text_);
  input.at += offset_;
  const auto stop = [&](const char* reason) {
    return error_of(rules_.error,
                    static_cast<std::size_t>(input.at - text_.data()), reason);
  };
  input.skip_space();
  const bool is_first = offset_ == 0;
  if (is_first) {
    if (!input.accept(is_object_ ? '{' : '['))
      return stop(is_object_ ? "expected an object" : "expected an array");
    if (rules_.depth_max == 0)
      return stop("arrays and objects are nested too deeply");
    input.skip_space();
  }
  if (input.accept(is_object_ ? '}' : ']')) {
    input.skip_space();
    if (!input.done())
      return stop("text after the end of the value");
    is_done_ = true;
    return false;
  }
  if (!is_first) {
    if (!input.accept(','))
      return stop(is_object_ ? "expected ',' or '}'" : "expected ',' or ']'");
    input.skip_space();
  }
  if (is_object_) {
    const char* key = input.at;
    if (!input.key())
      return stop(input.reason);
    raw_key_ = {key, static_cast<std::size_t>(input.at - key)};
    if (!input.colon())
      return stop(input.reason);
  }
  const char* begin = input.at;
  if (!input.value(std::min(rules_.depth_max, open_containers_max) - 1))
    return stop(input.reason);
  value_ = {begin, static_cast<std::size_t>(input.at - begin)};
  offset_ = static_cast<std::size_t>(input.at - text_.data());
  return true;
}

std::string_view object_scanner::key() {
  if (raw_key_.find('\\') == std::string_view::npos)
    return raw_key_.size() < 2 ? std::string_view()
                               : raw_key_.substr(1, raw_key_.size() - 2);
  decoded_key_ = decode_string(raw_key_).value();
  return decoded_key_;
}

value_kind kind_of(std::string_view raw) noexcept {
  switch (raw.empty() ? 'n' : raw[0]) {
  case 'n':
    return value_kind::null;
  case 't':
  case 'f':
    return value_kind::boolean;
  case '"':
    return value_kind::string;
  case '[':
    return value_kind::array;
  case '{':
    return value_kind::object;
  case 'N':
  case 'I':
    return value_kind::not_finite;
  default:
    break;
  }
  if (raw.size() > 1 && raw[1] == 'I')
    return value_kind::not_finite;
  return raw.find_first_of(".eE") == std::string_view::npos
             ? value_kind::integer
             : value_kind::number;
}

std::string compact(std::string_view raw) {
  std::string out;
  out.reserve(raw.size());
  reader input = reader_of(raw);
  while (!input.done()) {
    const char* begin = input.at;
    if (*begin == '"' && input.string()) {
      out.append(begin, input.at);
      continue;
    }
    input.at = begin + 1;
    if (is_space(*begin))
      continue;
    out += *begin;
    if (*begin == ',' || *begin == ':')
      out += ' ';
  }
  return out;
}

result<std::string> decode_string(std::string_view raw) {
  reader input = reader_of(raw);
  if (!input.string() || !input.done())
    return error_of(errc::invalid_argument,
                    static_cast<std::size_t>(input.at - raw.data()),
                    input.reason ? input.reason : "text after a string");
  std::string_view rest = raw.substr(1, raw.size() - 2);
  std::string out;
  out.reserve(rest.size());
  while (!rest.empty()) {
    const auto plain = std::min(rest.find('\\'), rest.size());
    out += rest.substr(0, plain);
    rest.remove_prefix(plain);
    if (!rest.empty())
      decode_escape(out, rest);
  }
  return out;
}

std::string encode_string(std::string_view text) {
  constexpr char32_t replacement = 0xFFFD;
  std::string out;
  out.reserve(text.size() + 2);
  out += '"';
  while (!text.empty()) {
    const auto character = first_code_point(text);
    const bool is_plain = character.value >= 0x20 && character.value < 0x7F
                          && character.value != '"' && character.value != '\\';
    if (character.bytes == 0)
      append_unit(out, replacement);
    else if (is_plain)
      out += text[0];
    else
      append_escaped(out, character.value);
    text.remove_prefix(std::max<std::size_t>(character.bytes, 1));
  }
  out += '"';
  return out;
}

result<std::int64_t> to_integer(std::string_view raw) {
  CALLBOARD_TRY(check_number(raw, "an integer"));
  if (kind_of(raw) != value_kind::integer)
    return failure{errc::invalid_argument, "a JSON value is not an integer"};
  std::int64_t value = 0;
  const auto parsed =
      std::from_chars(raw.data(), raw.data() + raw.size(), value);
  if (parsed.ec != std::errc())
    return failure{errc::invalid_argument, "an integer is outside 64 bits"};
  return value;
}

result<double> to_double(std::string_view raw) {
  CALLBOARD_TRY(check_number(raw, "a number"));
  if (kind_of(raw) == value_kind::not_finite) {
    using limits = std::numeric_limits<double>;
    return raw == "NaN"        ? limits::quiet_NaN()
           : raw == "Infinity" ? limits::infinity()
                               : -limits::infinity();
  }
  double value = 0;
  const auto parsed =
      std::from_chars(raw.data(), raw.data() + raw.size(), value);
  if (parsed.ec != std::errc())
    return failure{errc::invalid_argument,
                   "a number is too large or too small for a double"};
  return value;
}

result<std::vector<float>> to_floats(std::string_view raw, std::size_t count) {
  std::vector<float> floats;
  const auto of_element = [&](const std::string& what) {
    return failure{errc::invalid_argument,
                   "element " + std::to_string(floats.size()) + ": " + what};
  };
  const auto append = [&](std::string_view element) -> result<void> {
    if (floats.size() == count && count != 0)
      return of_element("expected " + std::to_string(count) + " numbers");
    std::string text;
    if (kind_of(element) == value_kind::string) {
      CALLBOARD_TRY_ASSIGN(text, decode_string(element));
      element = text;
    }
    const auto value = to_double(element);
    if (!value)
      return of_element(value.error().message);
    floats.push_back(narrowed(*value));
    return {};
  };
  const rules flat{.depth_max = 1, .error = errc::invalid_argument};
  CALLBOARD_TRY(for_each_element(raw, append, flat));
  if (floats.size() != count && count != 0)
    return failure{errc::invalid_argument, "expected " + std::to_string(count)
                                               + " numbers, found "
                                               + std::to_string(floats.size())};
  return floats;
}

std::string from_float(float value) {
  std::array<char, 32> digits{};
  const auto written =
      std::to_chars(digits.data(), digits.data() + digits.size(), value);
  std::string out(digits.data(), written.ptr);
  if (out.find_first_of(".e") == std::string::npos)
    out += ".0";
  return out;
}

bool valid_utf8(std::string_view text, surrogates lone) {
  const char* at = text.data();
  const char* const end = at + text.size();
  bool after_high_surrogate = false;
  while (at != end) {
    if (static_cast<unsigned char>(*at) < 0x80) {
      after_high_surrogate = false;
      ++at;
      continue;
    }
    const auto bytes = sequence_bytes(at, end, lone);
    if (bytes == 0)
      return false;
    const bool is_surrogate =
        *at == '\xED' && static_cast<unsigned char>(at[1]) >= 0xA0;
    const bool is_low =
        is_surrogate && static_cast<unsigned char>(at[1]) >= 0xB0;
    if (is_low && after_high_surrogate)
      return false;
    after_high_surrogate = is_surrogate && !is_low;
    at += bytes;
  }
  return true;
}

code_point first_code_point(std::string_view text) noexcept {
  if (text.empty())
    return {};
  const auto byte = [&](std::size_t i) {
    return static_cast<char32_t>(static_cast<unsigned char>(text[i]));
  };
  if (byte(0) < 0x80)
    return {byte(0), 1};
  const auto bytes = sequence_bytes(text.data(), text.data() + text.size(),
                                    surrogates::allowed);
  if (bytes == 0)
    return {};
  char32_t value = byte(0) & (0xFFu >> (bytes + 1));
  for (std::size_t i = 1; i < bytes; ++i)
    value = value << 6 | (byte(i) & 0x3F);
  return {value, bytes};
}

} // namespace callboard::json_text
