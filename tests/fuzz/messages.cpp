/// What a client writes to `callboard messages`: lines, each a request. The
/// input: longest line (1), then what is read.
#include "cli/line_reader.hpp"
#include "cli/message_request.hpp"
#include "core/record.hpp"
#include "tests/fuzz/support.hpp"

#include <sys/mman.h>
#include <unistd.h>

namespace callboard::fuzz {
namespace {

/// What the protocol has, of each kind.
constexpr std::string_view names[] = {"op", "id",     "ids", "record", "text",
                                      "k",  "vector", "a",   ""};

/// A file in memory that can be opened by its path.
class memory_file {
public:
  explicit memory_file(std::span<const std::byte> content)
      : descriptor_(::memfd_create("fuzz", MFD_CLOEXEC)) {
    require(descriptor_ >= 0
                && ::write(descriptor_, content.data(), content.size())
                       == static_cast<ssize_t>(content.size()),
            "there is memory for the input");
  }
  memory_file(const memory_file&) = delete;
  memory_file& operator=(const memory_file&) = delete;
  ~memory_file() { ::close(descriptor_); }

  std::string path() const {
    return "/proc/self/fd/" + std::to_string(descriptor_);
  }

private:
  int descriptor_;
};

bool is_inside(std::string_view part, std::string_view whole) {
  return part.data() >= whole.data()
         && part.data() + part.size() <= whole.data() + whole.size();
}

void check_request(std::string_view line) {
  const auto request = cli::message_request::parse(line);
  const auto valid = json_text::validate(line, cli::request_rules);
  require(!request || valid, "a request is JSON");
  if (!request)
    return;
  for (const auto name : names) {
    const auto raw = request->raw(name);
    require(!raw || is_inside(*raw, line), "a value is a part of its line");
    require(raw == member(line, name) || (!raw && member(line, name) == "null"),
            "of a repeated member the last one counts");
    const auto text = request->string(name);
    require(!text
                || json_text::valid_utf8(*text, json_text::surrogates::allowed),
            "texts are well-formed");
    require(!request->integer_or(name, -5, 0)
                || need(request->integer_or(name, -5, 0)) >= -5,
            "limits are kept");
    static_cast<void>(request->string_or(name, "else"));
    static_cast<void>(request->strings(name));
    static_cast<void>(request->number(name));
    static_cast<void>(request->boolean_or(name, true));
  }
}

/// What is left of `text` behind its first line.
std::string_view take_line(std::string_view& text) {
  const auto line = text.substr(0, text.find('\n'));
  text.remove_prefix(std::min(text.size(), line.size() + 1));
  return line;
}

void check_lines(std::span<const std::byte> input) {
  byte_source source(input);
  const std::size_t bytes_max = source.take<std::uint8_t>();
  const auto content = source.rest();
  const memory_file opened(content);
  auto reader = need(cli::line_reader::open(opened.path(), bytes_max));
  auto rest = as_text(content);
  for (std::uint64_t number = 1;; ++number) {
    const auto line = need(reader.next());
    require(line.has_value() == !rest.empty(), "each line is read, once");
    if (!line)
      break;
    const auto expected = take_line(rest);
    const bool is_too_long = expected.size() > bytes_max;
    require(line->number == number && line->is_too_long == is_too_long
                && line->text == (is_too_long ? "" : expected),
            "a line is read as it was written, or refused as a whole");
  }
  for (rest = as_text(content); !rest.empty();)
    check_request(take_line(rest));
}

} // namespace
} // namespace callboard::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  callboard::fuzz::check_lines(callboard::fuzz::as_input(data, size));
  return 0;
}
