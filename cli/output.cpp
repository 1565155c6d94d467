#include "cli/output.hpp"

#include "core/json_text.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <sys/ioctl.h>
#include <system_error>
#include <unistd.h>

namespace callboard::cli {
namespace {

constexpr std::size_t buffer_bytes_max = 64u << 10;
constexpr std::string_view replacement = "\xEF\xBF\xBD"; // U+FFFD

struct code_range {
  char32_t first;
  char32_t last;
};

/// Characters that terminals draw over the one before, and invisible ones.
constexpr std::array zero_width = {
    code_range{0x0300, 0x036F}, code_range{0x0483, 0x0489},
    code_range{0x0591, 0x05BD}, code_range{0x064B, 0x065F},
    code_range{0x0E34, 0x0E3A}, code_range{0x1AB0, 0x1AFF},
    code_range{0x1DC0, 0x1DFF}, code_range{0x200B, 0x200F},
    code_range{0x20D0, 0x20FF}, code_range{0xFE00, 0xFE0F},
    code_range{0xFE20, 0xFE2F}, code_range{0xE0100, 0xE01EF},
};

/// East Asian wide characters and emoji, roughly.
constexpr std::array double_width = {
    code_range{0x1100, 0x115F},   code_range{0x2E80, 0x303E},
    code_range{0x3041, 0xA4CF},   code_range{0xAC00, 0xD7A3},
    code_range{0xF900, 0xFAFF},   code_range{0xFE30, 0xFE6F},
    code_range{0xFF00, 0xFF60},   code_range{0xFFE0, 0xFFE6},
    code_range{0x1F300, 0x1FAFF}, code_range{0x20000, 0x3FFFD},
};

template <class Ranges>
bool is_in(const Ranges& ranges, char32_t value) {
  return std::any_of(ranges.begin(), ranges.end(), [&](code_range range) {
    return range.first <= value && value <= range.last;
  });
}

std::size_t width_of(char32_t value) {
  if (is_in(zero_width, value))
    return 0;
  return is_in(double_width, value) ? 2 : 1;
}

/// Controls (C0, DEL, C1), which terminals obey, marks that turn the writing
/// direction, and surrogates.
bool is_harmful(char32_t value) {
  return value < 0x20 || (value >= 0x7F && value < 0xA0)
         || (value >= 0x202A && value <= 0x202E)
         || (value >= 0x2066 && value <= 0x2069)
         || (value >= 0xD800 && value < 0xE000);
}

struct shown_character {
  std::string_view text;
  std::size_t columns = 1;
};

/// Takes the first character off `text`.
shown_character take_character(std::string_view& text, bool keep_layout) {
  const auto character = json_text::first_code_point(text);
  const auto bytes = std::max<std::size_t>(character.bytes, 1);
  const auto raw = text.substr(0, bytes);
  text.remove_prefix(bytes);
  if (raw == "\n" || raw == "\t")
    return {keep_layout ? raw : " ", 1};
  if (raw == "\r")
    return {"", 0};
  if (character.bytes == 0 || is_harmful(character.value))
    return {replacement, 1};
  return {raw, width_of(character.value)};
}

} // namespace

result<void> write_all(int descriptor, std::string_view text,
                       std::string_view name) {
  while (!text.empty()) {
    const auto written = ::write(descriptor, text.data(), text.size());
    if (written >= 0) {
      text.remove_prefix(static_cast<std::size_t>(written));
      continue;
    }
    if (errno == EINTR)
      continue;
    const bool is_full = errno == ENOSPC || errno == EDQUOT;
    return failure{is_full ? errc::no_space : errc::io_failure,
                   std::string(name) + " cannot be written: "
                       + std::generic_category().message(errno)};
  }
  return {};
}

void standard_output::line(std::string_view text) {
  if (!state_)
    return;
  buffer_ += text;
  buffer_ += '\n';
  if (buffer_.size() >= buffer_bytes_max)
    static_cast<void>(flush());
}

result<void> standard_output::flush() {
  if (state_)
    state_ = write_all(STDOUT_FILENO, buffer_, "standard output");
  buffer_.clear();
  return state_;
}

std::string failure_json(const failure& reason) {
  return R"({"e": {"code": )" + json_text::encode_string(to_string(reason.code))
         + R"(, "message": )" + json_text::encode_string(reason.message) + "}}";
}

void report(const failure& reason, bool as_json) {
  std::string line = as_json
                         ? failure_json(reason)
                         : "callboard: " + std::string(to_string(reason.code))
                               + ": " + fit_columns(reason.message, 0);
  line += '\n';
  static_cast<void>(write_all(STDERR_FILENO, line, "standard error"));
}

void note(std::string_view text) {
  static_cast<void>(write_all(STDERR_FILENO,
                              "callboard: " + fit_columns(text, 0) + "\n",
                              "standard error"));
}

std::size_t terminal_columns(int descriptor) noexcept {
  winsize size{};
  if (::isatty(descriptor) == 0 || ::ioctl(descriptor, TIOCGWINSZ, &size) != 0)
    return 0;
  return size.ws_col == 0 ? 80 : size.ws_col;
}

std::string fit_columns(std::string_view text, std::size_t columns) {
  constexpr std::string_view ellipsis = "...";
  std::string out;
  std::size_t used = 0;
  // Where the text is cut if it turns out to be too long.
  std::size_t cut = 0;
  while (!text.empty()) {
    const auto character = take_character(text, false);
    used += character.columns;
    if (columns != 0 && used > columns) {
      out.resize(cut);
      return columns > ellipsis.size() ? out + std::string(ellipsis) : out;
    }
    out += character.text;
    if (columns <= ellipsis.size() || used + ellipsis.size() <= columns)
      cut = out.size();
  }
  return out;
}

std::string harmless(std::string_view text) {
  std::string out;
  while (!text.empty())
    out += take_character(text, true).text;
  return out;
}

std::string grouped(std::uint64_t value) {
  auto digits = std::to_string(value);
  for (auto i = digits.size(); i > 3; i -= 3)
    digits.insert(i - 3, 1, ',');
  return digits;
}

} // namespace callboard::cli
