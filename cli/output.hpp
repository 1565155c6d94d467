#pragma once

#include "core/result.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace callboard::cli {

/// Writes all of `text` to the file descriptor.
/// Errors: `io_failure`, `no_space`; the message begins with `name`.
result<void> write_all(int descriptor, std::string_view text,
                       std::string_view name);

/// Standard output, buffered. After a failed write it takes nothing more, and
/// `flush` tells why. What is not flushed is lost.
class standard_output {
public:
  void line(std::string_view text);
  result<void> flush();

private:
  std::string buffer_;
  result<void> state_;
};

/// One line for people on standard error, "callboard: CODE: MESSAGE", or as
/// JSON.
void report(const failure& reason, bool as_json);

/// One line on standard error that is no error.
void note(std::string_view text);

/// `{"e": {"code": ..., "message": ...}}`, without a line break.
std::string failure_json(const failure& reason);

/// Columns of the terminal that `descriptor` is; 0 if it is none.
std::size_t terminal_columns(int descriptor) noexcept;

/// The beginning of `text` as one harmless line of at most `columns` columns,
/// cut between characters and then ended with "...": line breaks and tabs
/// become spaces, other control characters and invalid bytes U+FFFD.
std::string fit_columns(std::string_view text, std::size_t columns);

/// As `fit_columns` without a limit, but tabs and line breaks stay.
std::string harmless(std::string_view text);

/// `value` with a comma between groups of three digits.
std::string grouped(std::uint64_t value);

} // namespace callboard::cli
