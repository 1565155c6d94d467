#pragma once

#include "core/result.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace callboard::cli {

/// Longer lines are skipped, and never held in memory.
inline constexpr std::size_t line_bytes_max = std::size_t{64} << 20;

/// Reads a file line by line. Hands out a line as soon as it is complete, so
/// that it also serves conversations through pipes.
///
/// Threads: one owner.
/// Errors:  `not_found`, `permission_denied`, `io_failure`.
class line_reader {
public:
  struct line {
    /// Without the line break. Valid until the next call of `next`.
    std::string_view text;
    /// Counted from 1.
    std::uint64_t number = 0;
    /// It was longer than the limit; `text` is empty.
    bool is_too_long = false;
  };

  /// Opens the file at `path`; "-" is standard input.
  static result<line_reader> open(const std::string& path,
                                  std::size_t bytes_max = line_bytes_max);

  line_reader(line_reader&& other) noexcept;
  line_reader& operator=(line_reader&&) = delete;
  ~line_reader();

  /// The next line; empty at the end and when `is_interrupted()`. A last line
  /// without a line break counts.
  result<std::optional<line>> next();

  /// For messages.
  const std::string& name() const noexcept { return name_; }
  std::uint64_t bytes_read() const noexcept { return bytes_read_; }

private:
  line_reader(int descriptor, std::string name, std::size_t bytes_max);

  /// Reads on into the empty buffer; false at the end.
  result<bool> refill();
  /// Adds a piece of a line to what the buffers before held of it.
  void keep(std::string_view piece);
  line finish_line();

  int descriptor_;
  std::string name_;
  std::size_t bytes_max_;
  std::vector<char> buffer_;
  /// What of the buffer has not been handed out.
  std::string_view unread_;
  std::string kept_;
  bool is_kept_returned_ = false;
  bool is_too_long_ = false;
  std::uint64_t line_number_ = 0;
  std::uint64_t bytes_read_ = 0;
};

} // namespace callboard::cli
