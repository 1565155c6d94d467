#pragma once

#include "core/result.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// What `callboard ingest` and `train` read: texts in three formats.
namespace callboard::cli {

enum class input_format : std::uint8_t {
  /// One JSON object a line; its string member `content` is what is embedded.
  jsonl,
  /// Paragraphs, separated by blank lines.
  text,
  /// Debian control data: a paragraph of `Field: value` lines per package.
  deb822,
};

/// The format of the file `name` whose first line that is not blank is
/// `first_line`: by the name's extension, else by the line.
input_format guess_format(std::string_view name, std::string_view first_line);

/// A record to store.
struct input_record {
  std::string id;
  /// A JSON object with a `content` that has text in it.
  std::string record;
};

/// A record, or why there is none, and where it begins.
struct parsed_record {
  std::uint64_t line = 0;
  result<input_record> record;
};

/// Makes records of lines. It is given all lines of one file, without line
/// breaks, in order. Bytes must be UTF-8; a byte order mark in front and
/// carriage returns at line ends are ignored.
///
/// Threads: one owner.
/// Errors:  are those of one record; the next one may be good again.
class input_parser {
public:
  virtual ~input_parser() = default;

  /// The record that `line` completes, if it completes one.
  std::optional<parsed_record> add_line(std::string_view line);
  /// Instead of `add_line` for a line that was too long to be read.
  std::optional<parsed_record> add_unreadable_line();
  /// The last record, if it is not complete yet.
  virtual std::optional<parsed_record> finish() = 0;

protected:
  std::uint64_t line_number() const noexcept { return line_number_; }

private:
  virtual std::optional<parsed_record> take(std::string_view line) = 0;
  virtual std::optional<parsed_record> take_unreadable() = 0;

  std::uint64_t line_number_ = 0;
};

/// Makes the parser of `format` for the file `name`.
///
/// jsonl:   `id` is the id if there is one, else it is made of `content` as
///          LightRAG makes those of chunks.
/// text:    the id is made of the paragraph; `full_doc_id` is the file's name
///          without folders, `file_path` the name.
/// deb822:  id and `file_path` are the package's name; `content` is
///          "package: synopsis" and, on new lines, the long description.
///          `fields` are taken too, under their names as spelled here.
std::unique_ptr<input_parser> make_parser(input_format format, std::string name,
                                          std::vector<std::string> fields = {});

} // namespace callboard::cli
