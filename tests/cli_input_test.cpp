#include "cli/event_text.hpp"
#include "cli/exit_code.hpp"
#include "cli/input.hpp"
#include "cli/input_files.hpp"
#include "cli/line_reader.hpp"
#include "cli/message_request.hpp"
#include "cli/output.hpp"
#include "cli/progress.hpp"
#include "core/record.hpp"
#include "tests/support/scratch_directory.hpp"

#include <catch2/catch.hpp>

#include <string>
#include <string_view>
#include <vector>

using namespace callboard;
using namespace callboard::cli;
using namespace callboard::test;

namespace {

std::vector<parsed_record> parse_with(input_parser& parser,
                                      std::string_view text) {
  std::vector<parsed_record> found;
  while (!text.empty()) {
    const auto end = text.find('\n');
    if (auto record = parser.add_line(text.substr(0, end)))
      found.push_back(std::move(*record));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  if (auto record = parser.finish())
    found.push_back(std::move(*record));
  return found;
}

std::vector<parsed_record> parse(input_format format, std::string_view text,
                                 std::vector<std::string> fields = {}) {
  const auto parser = make_parser(format, "notes/file.txt", std::move(fields));
  return parse_with(*parser, text);
}

std::string content_of(const parsed_record& parsed) {
  REQUIRE(parsed.record);
  return string_member(parsed.record->record, "content").value_or("(none)");
}

std::string reason_of(const parsed_record& parsed) {
  REQUIRE_FALSE(parsed.record);
  return parsed.record.error().message;
}

/// Makes the file `name` in `place`; its path.
std::string make_file(const scratch_directory& place, std::string_view name,
                      std::string_view text) {
  write_file(place / name, text);
  return (place / name).string();
}

/// "text" or "(too long)" of each line.
std::vector<std::string> lines_of(const std::string& path,
                                  std::size_t bytes_max) {
  auto reader = line_reader::open(path, bytes_max);
  REQUIRE(reader);
  std::vector<std::string> lines;
  for (;;) {
    const auto line = reader->next();
    REQUIRE(line);
    if (!*line)
      return lines;
    CHECK((*line)->number == lines.size() + 1);
    lines.push_back((*line)->is_too_long ? "(too long)"
                                         : std::string((*line)->text));
  }
}

} // namespace

TEST_CASE("a JSON line keeps its id and its bytes", "[cli]") {
  const std::string line =
      R"({"id": "a", "content": "one", "n": NaN, "big": 1e400})";
  const auto found = parse(input_format::jsonl, line + "\n");
  REQUIRE(found.size() == 1);
  REQUIRE(found[0].record);
  CHECK(found[0].record->id == "a");
  CHECK(found[0].record->record == line);
}

TEST_CASE("a JSON line without an id gets that of its content", "[cli]") {
  const auto found = parse(input_format::jsonl, R"({"content": "one"})");
  REQUIRE(found.size() == 1);
  REQUIRE(found[0].record);
  CHECK(found[0].record->id == chunk_id("one"));
}

TEST_CASE("a JSON line that cannot be stored is an error of that line only",
          "[cli]") {
  const auto found = parse(input_format::jsonl, "{\"content\": \"one\"}\n"
                                                "\n"
                                                "[1]\n"
                                                "{\"content\": \"two\"\n"
                                                "{\"content\": 3}\n"
                                                "{\"id\": 4, \"content\": "
                                                "\"four\"}\n"
                                                "{\"content\": \" \"}\n"
                                                "{\"text\": \"six\"}\n"
                                                "{\"content\": \"\xff\"}\n"
                                                "{\"id\": \"\", \"content\": "
                                                "\"x\"}\n"
                                                "{\"content\": \"last\"}");
  REQUIRE(found.size() == 10);
  CHECK(content_of(found[0]) == "one");
  for (std::size_t i = 1; i < 9; ++i) {
    INFO(i);
    CHECK(found[i].line == i + 2);
    CHECK_FALSE(found[i].record);
  }
  CHECK(reason_of(found[3]) == "\"content\" is not a string");
  CHECK(reason_of(found[4]) == "\"id\" is not a string");
  CHECK(reason_of(found[5]) == "the \"content\" is empty");
  CHECK(reason_of(found[6]) == "the object has no \"content\"");
  CHECK(found[9].line == 11);
  CHECK(content_of(found[9]) == "last");
}

TEST_CASE("of a repeated member of a JSON line the last one counts", "[cli]") {
  const auto found = parse(input_format::jsonl,
                           R"({"content": "a", "id": "1", "content": "b"})");
  CHECK(content_of(found.at(0)) == "b");
}

TEST_CASE("a byte order mark and carriage returns are ignored", "[cli]") {
  const auto found = parse(input_format::text, "\xEF\xBB\xBFone\r\n\r\ntwo\r");
  REQUIRE(found.size() == 2);
  CHECK(content_of(found[0]) == "one");
  CHECK(content_of(found[1]) == "two");
}

TEST_CASE("a text is cut into paragraphs at blank lines", "[cli]") {
  const auto found =
      parse(input_format::text, "\n\none\ntwo\n \t\nthree \"3\"\n\n\n");
  REQUIRE(found.size() == 2);
  CHECK(found[0].line == 3);
  CHECK(content_of(found[0]) == "one\ntwo");
  CHECK(found[0].record->id == chunk_id("one\ntwo"));
  CHECK(string_member(found[0].record->record, "full_doc_id") == "file.txt");
  CHECK(string_member(found[0].record->record, "file_path")
        == "notes/file.txt");
  CHECK(found[1].line == 6);
  CHECK(content_of(found[1]) == "three \"3\"");
}

TEST_CASE("a paragraph that is not UTF-8 is an error of that paragraph only",
          "[cli]") {
  const auto found = parse(input_format::text, "a\n\nb\xC3\n\nc");
  REQUIRE(found.size() == 3);
  CHECK(reason_of(found[1]) == "the paragraph is not UTF-8");
  CHECK(content_of(found[2]) == "c");
}

TEST_CASE("a paragraph that is too long is an error of that paragraph only",
          "[cli]") {
  const auto parser = make_parser(input_format::text, "f");
  const std::string half(record_bytes_max / 2 + 1, 'x');
  CHECK_FALSE(parser->add_line(half));
  CHECK_FALSE(parser->add_line(half));
  CHECK_FALSE(parser->add_line("more"));
  const auto first = parser->add_line("");
  REQUIRE(first);
  CHECK(first->line == 1);
  CHECK(reason_of(*first) == "the paragraph is too long");

  CHECK_FALSE(parser->add_unreadable_line());
  const auto second = parser->add_line("");
  REQUIRE(second);
  CHECK(second->line == 5);
  CHECK_FALSE(second->record);

  CHECK_FALSE(parser->add_line("good"));
  CHECK(content_of(parser->finish().value()) == "good");
}

TEST_CASE("a package paragraph becomes a record about the package", "[cli]") {
  const auto found = parse(input_format::deb822,
                           "# a comment\n"
                           "\n"
                           "Package: chess\n"
                           "Section:  games \n"
                           "description-en: plays chess\n"
                           " Against you.\n"
                           " .\n"
                           "  * indented\n"
                           "# another\n"
                           "Tag: a,\n"
                           " b\n"
                           "\n"
                           "Package: go\n"
                           "Description: plays go",
                           {"Section", "tag", "Homepage"});
  REQUIRE(found.size() == 2);
  CHECK(found[0].line == 3);
  CHECK(content_of(found[0])
        == "chess: plays chess\nAgainst you.\n\n * indented");
  const auto& record = *found[0].record;
  CHECK(record.id == "chess");
  CHECK(string_member(record.record, "file_path") == "chess");
  CHECK(string_member(record.record, "Section") == "games");
  CHECK(string_member(record.record, "tag") == "a,\nb");
  CHECK_FALSE(string_member(record.record, "Homepage"));
  CHECK(content_of(found[1]) == "go: plays go");
}

TEST_CASE("the longer of two descriptions of a package is taken", "[cli]") {
  const auto found = parse(input_format::deb822, "Package: p\n"
                                                 "Description: short\n"
                                                 "Description-en: short\n"
                                                 " and long\n");
  CHECK(content_of(found.at(0)) == "p: short\nand long");
}

TEST_CASE("package paragraphs that cannot be stored say why", "[cli]") {
  const auto found = parse(input_format::deb822, " continued\n"
                                                 "\n"
                                                 "Package: p\n"
                                                 "no colon here\n"
                                                 "\n"
                                                 "Description: d\n"
                                                 "\n"
                                                 "Package: p\n"
                                                 "\n"
                                                 "Package: q\n"
                                                 "Description: good\n");
  REQUIRE(found.size() == 5);
  CHECK(reason_of(found[0]) == "the paragraph begins with a continuation line");
  CHECK(reason_of(found[1])
        == "not a \"Field: value\" line: \"no colon here\"");
  CHECK(reason_of(found[2]) == "the paragraph has no \"Package\"");
  CHECK(reason_of(found[3]) == "the package \"p\" has no \"Description\"");
  CHECK(content_of(found[4]) == "q: good");
}

TEST_CASE("the format is guessed by extension, then by the first line",
          "[cli]") {
  CHECK(guess_format("x.jsonl", "Package: p") == input_format::jsonl);
  CHECK(guess_format("x.md", "{}") == input_format::text);
  CHECK(guess_format("x.control", "Source: p") == input_format::deb822);
  CHECK(guess_format("status", "Package: p") == input_format::deb822);
  CHECK(guess_format("x", "  {\"content\": 1}") == input_format::jsonl);
  CHECK(guess_format("x", "\xEF\xBB\xBF{}") == input_format::jsonl);
  CHECK(guess_format("x", "Call me Ishmael.") == input_format::text);
}

TEST_CASE("records of several files come with file and line", "[cli]") {
  const scratch_directory scratch;
  const auto first =
      make_file(scratch, "a", "\n\n{\"content\": \"one\"}\n{}\n");
  const auto second = make_file(scratch, "b.txt", "two\n\nthree");
  const auto empty = make_file(scratch, "c", "");
  input_files input({first, empty, second}, std::nullopt);
  CHECK(input.bytes_total() == 34);

  std::vector<std::string> places;
  std::size_t errors = 0;
  for (;;) {
    const auto found = input.next();
    REQUIRE(found);
    if (!*found)
      break;
    places.push_back((*found)->where);
    errors += (*found)->record ? 0 : 1;
  }
  CHECK(
      places
      == std::vector{first + ":3", first + ":4", second + ":1", second + ":3"});
  CHECK(errors == 1);
  CHECK(input.bytes_read() == 34);
}

TEST_CASE("a file that cannot be read is an error that names it", "[cli]") {
  input_files input({"no/such/file"}, std::nullopt);
  const auto found = input.next();
  REQUIRE_FALSE(found);
  CHECK(found.error().code == errc::not_found);
  CHECK(found.error().message
        == "no/such/file cannot be read: No such file or directory");
}

TEST_CASE("lines are read whole, wherever buffers end", "[cli]") {
  const scratch_directory scratch;
  std::string text;
  std::vector<std::string> want;
  for (std::size_t i = 0; i < 400; ++i) {
    want.emplace_back((i * 7919) % 5000, static_cast<char>('a' + i % 26));
    text += want.back() + "\n";
  }
  want.emplace_back("last, without a line break");
  text += want.back();
  CHECK(lines_of(make_file(scratch, "lines", text), 10'000) == want);
}

TEST_CASE("a line that is too long is skipped and the next one is read",
          "[cli]") {
  const scratch_directory scratch;
  const auto bytes = GENERATE(as<std::size_t>(), 11, 100, 300'000, 1'000'000);
  const auto path = make_file(scratch, "long",
                              "0123456789\n" + std::string(bytes, 'x')
                                  + "\nshort\n" + std::string(bytes, 'y'));
  CHECK(lines_of(path, 10)
        == std::vector<std::string>{"0123456789", "(too long)", "short",
                                    "(too long)"});
}

TEST_CASE("what is shown on a terminal is cut between characters and harmless",
          "[cli]") {
  CHECK(fit_columns("abcdefgh", 8) == "abcdefgh");
  CHECK(fit_columns("abcdefghi", 8) == "abcde...");
  CHECK(fit_columns("abcdefghi", 0) == "abcdefghi");
  CHECK(fit_columns("äöüäöüäöü", 8) == "äöüäö...");
  CHECK(fit_columns("東京東京東京", 8) == "東京...");
  CHECK(fit_columns("abcdef", 3) == "abc");
  CHECK(fit_columns("a\nb\tc\r", 9) == "a b c");
  CHECK(fit_columns("\x1B[31mred", 0) == "\uFFFD[31mred");
  CHECK(fit_columns("\xFF\xED\xA0\x80", 0) == "\uFFFD\uFFFD");
  CHECK(fit_columns("e\u0301e\u0301", 2) == "e\u0301e\u0301");
  CHECK(harmless("a\n\tb\x07") == "a\n\tb\uFFFD");
}

TEST_CASE("progress shows share, rate and time left as far as they are known",
          "[cli]") {
  progress_state state;
  state.records = 5000;
  state.elapsed = std::chrono::seconds(10);
  CHECK(progress_line(state, 0) == "5,000 records, 500/s, 0:10");
  state.bytes = 25;
  state.bytes_total = 100;
  CHECK(progress_line(state, 0) == "25%, 5,000 records, 500/s, 0:30 left");
  CHECK(progress_line(state, 70)
        == "[#####...............] 25%, 5,000 records, 500/s, 0:30 left");
  state.bytes = 0;
  CHECK(progress_line(state, 0) == "0%, 5,000 records, 500/s");
}

TEST_CASE("members of a request are checked for their types", "[cli]") {
  const std::string line =
      R"({"s": "\ud800x", "n": null, "i": 7, "f": 0.5, "t": true,)"
      R"( "l": ["a", "b"], "bad": ["a", 1], "nan": NaN, "huge": 1e999,)"
      R"( "long": 99999999999999999999, "i": 8})";
  const auto request = message_request::parse(line);
  REQUIRE(request);
  CHECK(request->string("s").value() == "\xED\xA0\x80x");
  CHECK_FALSE(request->string("n"));
  CHECK_FALSE(request->string("i"));
  CHECK(request->string_or("n", "other").value() == "other");
  CHECK(request->integer("i").value() == 8);
  CHECK_FALSE(request->integer("f"));
  CHECK_FALSE(request->integer("t"));
  CHECK_FALSE(request->integer("long"));
  CHECK(request->integer_or("none", 1, 3).value() == 3);
  CHECK_FALSE(request->integer_or("i", 9, 3));
  CHECK(request->number("f").value() == 0.5);
  CHECK_FALSE(request->number("none").value());
  CHECK_FALSE(request->number("nan"));
  CHECK_FALSE(request->number("huge"));
  CHECK_FALSE(request->number("s"));
  CHECK(request->boolean_or("t", false).value());
  CHECK_FALSE(request->boolean_or("i", false));
  CHECK(request->strings("l").value() == std::vector<std::string>{"a", "b"});
  CHECK(request->strings("n").value().empty());
  CHECK_FALSE(request->strings("bad"));
  CHECK_FALSE(request->strings("s"));
  CHECK(request->strings("bad").error().message == "\"bad\" is not a string");
}

TEST_CASE("a request is one JSON object", "[cli]") {
  for (const auto* line :
       {"", " ", "[]", "\"op\"", "{", "{} {}", "{\"a\": }"}) {
    INFO(line);
    const auto request = message_request::parse(line);
    REQUIRE_FALSE(request);
    CHECK(request.error().code == errc::invalid_argument);
  }
}

TEST_CASE("an event is one line for people and one JSON object for programs",
          "[cli]") {
  commit_event event;
  event.generation = 8;
  event.changed = {"a", "\"quoted\"\n"};
  event.removed = {"c"};
  CHECK(event_line(event) == "generation 8: changed 2, removed 1");
  CHECK(event_json(event)
        == R"({"event": "commit", "generation": 8, )"
           R"("changed": ["a", "\"quoted\"\n"], "removed": ["c"]})");
  event = {commit_event::kind::drop, 9, {}, {}};
  CHECK(event_line(event) == "generation 9: dropped: all records are removed");
  CHECK(
      event_json(event)
      == R"({"event": "drop", "generation": 9, "changed": [], "removed": []})");
  event.what = commit_event::kind::overflow;
  CHECK(
      event_line(event)
      == "generation 9: overflow: events are lost, anything may have changed");
  CHECK(string_member(event_json(event), "event") == "overflow");
}

TEST_CASE("what did not come in time has a status of its own", "[cli]") {
  CHECK(exit_code_of(errc::timed_out) == exit_code::timed_out);
  CHECK(exit_code_of(errc::busy) == exit_code::busy);
}
