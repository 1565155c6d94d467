#include "cli/input_files.hpp"

#include "cli/interrupt.hpp"

#include <sys/stat.h>
#include <utility>

namespace callboard::cli {
namespace {

std::uint64_t total_bytes(const std::vector<std::string>& paths) {
  std::uint64_t total = 0;
  for (const auto& path : paths) {
    struct stat status {};
    const int failed =
        path == "-" ? ::fstat(0, &status) : ::stat(path.c_str(), &status);
    if (failed != 0 || !S_ISREG(status.st_mode))
      return 0;
    total += static_cast<std::uint64_t>(status.st_size);
  }
  return total;
}

} // namespace

input_files::input_files(std::vector<std::string> paths,
                         std::optional<input_format> format,
                         std::vector<std::string> fields)
    : paths_(std::move(paths)), format_(format), fields_(std::move(fields)) {
  if (paths_.empty())
    paths_.emplace_back("-");
  bytes_total_ = total_bytes(paths_);
}

std::uint64_t input_files::bytes_read() const noexcept {
  return bytes_before_ + (reader_ ? reader_->bytes_read() : 0);
}

result<void> input_files::open_next() {
  CALLBOARD_TRY_ASSIGN(auto reader, line_reader::open(paths_[path_index_]));
  reader_.emplace(std::move(reader));
  parser_.reset();
  blank_lines_ = 0;
  return {};
}

void input_files::start_parser(const line_reader::line& first) {
  const auto format =
      format_ ? *format_ : guess_format(reader_->name(), first.text);
  parser_ = make_parser(format, reader_->name(), fields_);
  // The parser counts lines.
  for (; blank_lines_ > 0; --blank_lines_)
    static_cast<void>(parser_->add_line(""));
}

std::optional<parsed_record> input_files::parse(const line_reader::line& line) {
  if (parser_ == nullptr) {
    const bool is_blank =
        !line.is_too_long
        && line.text.find_first_not_of(" \t\r") == std::string_view::npos;
    if (is_blank) {
      ++blank_lines_;
      return std::nullopt;
    }
    start_parser(line);
  }
  return line.is_too_long ? parser_->add_unreadable_line()
                          : parser_->add_line(line.text);
}

std::optional<located_record>
input_files::located(std::optional<parsed_record> parsed) {
  if (!parsed)
    return std::nullopt;
  return located_record{reader_->name() + ":" + std::to_string(parsed->line),
                        std::move(parsed->record)};
}

result<std::optional<located_record>> input_files::next() {
  while (reader_ || path_index_ < paths_.size()) {
    if (!reader_)
      CALLBOARD_TRY(open_next());
    for (;;) {
      CALLBOARD_TRY_ASSIGN(const auto line, reader_->next());
      if (!line)
        break;
      if (auto found = located(parse(*line)))
        return found;
    }
    if (is_interrupted())
      break;
    auto last = located(parser_ ? parser_->finish() : std::nullopt);
    bytes_before_ += reader_->bytes_read();
    reader_.reset();
    ++path_index_;
    if (last)
      return last;
  }
  return std::optional<located_record>();
}

} // namespace callboard::cli
