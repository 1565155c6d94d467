#pragma once

#include "core/result.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

/// JSON as text. Records are kept as the bytes that came in, because what
/// Python's `json.dump` writes (NaN and Infinity tokens, escapes of lone
/// surrogates, integers of any size, duplicate keys) cannot pass through a
/// tree of C++ values without loss. So nothing here builds one: scanners check
/// the text once, in linear time and constant stack, and hand out views of it.
///
/// The grammar is that of RFC 8259 and, as Python has it, the tokens `NaN`,
/// `Infinity` and `-Infinity`. Strings are valid UTF-8 without control
/// characters; `\ud800` to `\udfff` may stand alone. No byte order mark.
///
/// In C++ strings such a lone surrogate is its three-byte generalized UTF-8
/// form (ED A0 80 to ED BF BF; "WTF-8"). A high one directly before a low one
/// is not well-formed: those two are one character, in four bytes.
///
/// Errors:  name the byte offset. Callers add which file or record it was.
/// Threads: free functions are thread-safe, scanners have one owner.
namespace callboard::json_text {

/// The deepest nesting a scanner can follow.
inline constexpr std::size_t open_containers_max = 64;

/// What a scanner enforces, and how it reports.
struct rules {
  /// Arrays and objects that may be open at once, up to `open_containers_max`.
  std::size_t depth_max = 32;
  /// The class of its errors: `corrupt` for files, `invalid_argument` for
  /// what a caller passed in.
  errc error = errc::corrupt;
};

/// Longer integers are refused: Python does not read them, and a file it does
/// not read is an empty store to it.
inline constexpr std::size_t integer_digits_max = 4300;

/// Checks that `text` is one JSON value, with white space around it at most.
result<void> validate(std::string_view text, rules how = {});

/// What object_scanner and array_scanner share.
class container_scanner {
public:
  container_scanner(const container_scanner&) = delete;
  container_scanner& operator=(const container_scanner&) = delete;

  /// Moves to the next member; false at the end of the text. All of the text
  /// is valid only once this has been false. After an error it fails again.
  result<bool> next();

  /// The current value as it stands in the text, without white space around.
  std::string_view value() const noexcept { return value_; }

protected:
  container_scanner(std::string_view text, rules how, bool is_object) noexcept
      : text_(text), rules_(how), is_object_(is_object) {}
  ~container_scanner() = default;

  std::string_view raw_key_;

private:
  std::string_view text_;
  rules rules_;
  bool is_object_;
  bool is_done_ = false;
  std::size_t offset_ = 0; // behind what has been scanned
  std::string_view value_;
};

/// Walks the members of an object, duplicates included, in order:
///
///     object_scanner members(text);
///     for (;;) {
///       CALLBOARD_TRY_ASSIGN(const bool more, members.next());
///       if (!more)
///         break;
///       use(members.key(), members.value());
///     }
///
/// Borrows the text. Views of values and raw keys are parts of it; that of
/// `key` is good until the next call of `next`.
class object_scanner : public container_scanner {
public:
  explicit object_scanner(std::string_view text, rules how = {}) noexcept
      : container_scanner(text, how, true) {}

  /// The current key, decoded.
  std::string_view key();

  /// The current key with quotes and escapes.
  std::string_view raw_key() const noexcept { return raw_key_; }

private:
  std::string decoded_key_;
};

/// Walks the elements of an array.
class array_scanner : public container_scanner {
public:
  explicit array_scanner(std::string_view text, rules how = {}) noexcept
      : container_scanner(text, how, false) {}
};

/// Calls `visit(key, value, raw_key)` for each member of the object `text`.
/// An error of `visit` (a `result<void>`) ends the walk and is returned.
template <class Visitor>
result<void> for_each_member(std::string_view text, Visitor&& visit,
                             rules how = {}) {
  object_scanner members(text, how);
  for (;;) {
    CALLBOARD_TRY_ASSIGN(const bool more, members.next());
    if (!more)
      return {};
    CALLBOARD_TRY(visit(members.key(), members.value(), members.raw_key()));
  }
}

/// Calls `visit(value)` for each element of the array `text`; else the same.
template <class Visitor>
result<void> for_each_element(std::string_view text, Visitor&& visit,
                              rules how = {}) {
  array_scanner elements(text, how);
  for (;;) {
    CALLBOARD_TRY_ASSIGN(const bool more, elements.next());
    if (!more)
      return {};
    CALLBOARD_TRY(visit(elements.value()));
  }
}

enum class value_kind : std::uint8_t {
  null,
  boolean,
  /// A number without fraction and exponent, of any size.
  integer,
  /// A number with a fraction or an exponent.
  number,
  /// `NaN`, `Infinity` or `-Infinity`.
  not_finite,
  string,
  array,
  object,
};

/// The kind of `raw`, which must be what a scanner calls a value.
value_kind kind_of(std::string_view raw) noexcept;

/// `raw`, a valid value, on one line in Python's default layout: one space
/// behind `,` and `:`, no other white space between tokens.
std::string compact(std::string_view raw);

// The functions below check their argument themselves. Their errors are
// `invalid_argument`.

/// The text of a JSON string.
result<std::string> decode_string(std::string_view raw);

/// `text` as a JSON string, byte for byte as Python's `json.dumps` writes it:
/// ASCII, lower-case hexadecimal digits, surrogate pairs.
/// Requires: `valid_utf8(text, surrogates::allowed)`. A byte that breaks this
/// comes out as `\ufffd`.
std::string encode_string(std::string_view text);

/// An integer; out of range is an error.
result<std::int64_t> to_integer(std::string_view raw);

/// Any number, correctly rounded; the tokens give NaN and infinities. Too
/// large or too small for a `double` is an error.
result<double> to_double(std::string_view raw);

/// An array of numbers or of strings that hold a number, as numpy reads them:
/// rounded to `double`, then to `float`. Not checked for being finite.
/// A `count` other than 0 is how many there must be.
result<std::vector<float>> to_floats(std::string_view raw,
                                     std::size_t count = 0);

/// The shortest number that reads back as `value`, which must be finite.
/// Always has a fraction or an exponent: Python reads a float, not an int.
std::string from_float(float value);

enum class surrogates : std::uint8_t {
  refused,
  /// Lone ones, as described above.
  allowed,
};

bool valid_utf8(std::string_view text, surrogates lone);

struct code_point {
  char32_t value = 0;
  std::size_t bytes = 0; // 0: the text does not begin with a character
};

/// The first character of `text`; a lone surrogate counts as one.
code_point first_code_point(std::string_view text) noexcept;

} // namespace callboard::json_text
