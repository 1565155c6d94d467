#pragma once

#include "cli/input.hpp"
#include "cli/line_reader.hpp"
#include "core/result.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace callboard::cli {

/// A record of a file, or why there is none.
struct located_record {
  /// "file:line" of its beginning.
  std::string where;
  result<input_record> record;
};

/// The records of several files, one after the other.
///
/// Threads: one owner.
/// Errors:  those of `line_reader`: a file that cannot be read ends it.
class input_files {
public:
  /// No `paths`, or "-", is standard input. Without a `format` that of each
  /// file is guessed. `fields`: see `make_parser`.
  input_files(std::vector<std::string> paths,
              std::optional<input_format> format,
              std::vector<std::string> fields = {});

  /// The next record; empty at the end and when `is_interrupted()`.
  result<std::optional<located_record>> next();

  std::uint64_t bytes_read() const noexcept;
  /// Size of all files; 0 if not known.
  std::uint64_t bytes_total() const noexcept { return bytes_total_; }

private:
  result<void> open_next();
  std::optional<located_record> located(std::optional<parsed_record> parsed);
  std::optional<parsed_record> parse(const line_reader::line& line);
  void start_parser(const line_reader::line& first);

  std::vector<std::string> paths_;
  std::optional<input_format> format_;
  std::vector<std::string> fields_;
  std::uint64_t bytes_total_ = 0;

  std::size_t path_index_ = 0;
  std::uint64_t bytes_before_ = 0;
  std::optional<line_reader> reader_;
  /// Null before a line that is not blank.
  std::unique_ptr<input_parser> parser_;
  std::size_t blank_lines_ = 0;
};

} // namespace callboard::cli
