#include "core/json_text.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

using namespace callboard;
using json_text::value_kind;

namespace {

/// What Python's `json.dumps` makes of a dictionary of awkward values.
const std::string from_python =
    R"({"e": "\u0000\u001f \"q\" \\ / \n\r\t\b\f \u007f \u00eb \u6797 )"
    R"(\uffff \ud83d\ude00 \ud800 \udfff", "big": 1180591620717411303424, )"
    R"("f": [0.1, 1e+16, NaN, Infinity, -Infinity, -0.0, 1e-07], )"
    R"("n": null, "t": true, "x": {"y": [[], {}, false]}})";

bool valid(std::string_view text, std::size_t depth_max = 32) {
  return json_text::validate(text, {.depth_max = depth_max}).has_value();
}

std::string message(std::string_view text) {
  const auto checked = json_text::validate(text);
  return checked ? "" : checked.error().message;
}

std::vector<std::string> elements(std::string_view text) {
  std::vector<std::string> found;
  const auto take = [&](std::string_view value) -> result<void> {
    found.emplace_back(value);
    return {};
  };
  REQUIRE(json_text::for_each_element(text, take));
  return found;
}

std::string repeated(std::string_view part, std::size_t count) {
  std::string out;
  out.reserve(part.size() * count);
  for (std::size_t i = 0; i < count; ++i)
    out += part;
  return out;
}

/// Random JSON that nlohmann accepts too: no tokens of Python's own.
class random_json {
public:
  explicit random_json(unsigned seed) : generator_(seed) {}

  std::size_t below(std::size_t limit) {
    return std::uniform_int_distribution<std::size_t>(0, limit - 1)(generator_);
  }

  std::string value(std::size_t depth_left) {
    switch (below(depth_left == 0 ? 5 : 8)) {
    case 0:
      return pick({"null", "true", "false"});
    case 1:
      return number();
    case 2:
    case 3:
    case 4:
      return string();
    case 5:
    case 6:
      return container('{', '}', depth_left);
    default:
      return container('[', ']', depth_left);
    }
  }

  std::string string() {
    std::string out = "\"";
    for (auto left = below(12); left > 0; --left)
      out += pick({"a", "plain text of some length", " ", "\xC3\xAB", "\x7F",
                   "\xE6\x9E\x97\xE9\xBB\x9B", "\xF0\x9F\x98\x80", "\\n",
                   "\\\"", "\\\\", "\\/", "\\u00eb", "\\uD83D\\uDE00",
                   "\\u0000", "{", "]", ",", ":"});
    return out + '"';
  }

private:
  std::string pick(const std::vector<std::string>& choices) {
    return choices[below(choices.size())];
  }

  std::string space() { return pick({"", "", " ", "\n\t", "\r\n  "}); }

  std::string number() {
    std::string out = below(2) ? "-" : "";
    out += below(4) ? std::to_string(below(1u << 20)) : "0";
    if (below(2))
      out += '.' + std::to_string(below(1u << 20));
    if (below(3) == 0)
      out +=
          pick({"e", "E"}) + pick({"", "+", "-"}) + std::to_string(below(200));
    return out;
  }

  std::string container(char open, char close, std::size_t depth_left) {
    std::string out = open + space();
    const auto count = below(5);
    for (std::size_t i = 0; i < count; ++i) {
      out += i ? space() + "," + space() : "";
      out += open == '{' ? string() + space() + ":" + space() : "";
      out += value(depth_left - 1);
    }
    return out + space() + close;
  }

  std::mt19937 generator_;
};

/// A tree of what the scanners see, to compare with nlohmann's own parse.
nlohmann::json tree_of(std::string_view raw) {
  switch (json_text::kind_of(raw)) {
  case value_kind::null:
    return nullptr;
  case value_kind::boolean:
    return raw == "true";
  case value_kind::integer:
    return json_text::to_integer(raw).value();
  case value_kind::number:
    return json_text::to_double(raw).value();
  case value_kind::string:
    return json_text::decode_string(raw).value();
  case value_kind::array: {
    auto array = nlohmann::json::array();
    for (const auto& element : elements(raw))
      array.push_back(tree_of(element));
    return array;
  }
  case value_kind::object: {
    auto object = nlohmann::json::object();
    json_text::object_scanner members(raw);
    while (members.next().value())
      object[std::string(members.key())] = tree_of(members.value());
    return object;
  }
  default:
    throw std::logic_error("no JSON value of nlohmann's");
  }
}

/// Whether nlohmann reads `text`; empty if it stops early, at a number that no
/// double can hold, which says nothing about the grammar.
std::optional<bool> nlohmann_accepts(const std::string& text) {
  try {
    return !nlohmann::json::parse(text).is_discarded();
  } catch (const nlohmann::json::out_of_range&) {
    return std::nullopt;
  } catch (const nlohmann::json::parse_error&) {
    return false;
  }
}

} // namespace

TEST_CASE("what Python's json.dump writes is valid", "[json_text][B8][B10]") {
  CHECK(valid(from_python));
  CHECK(valid("{}"));
  CHECK(valid(" \t\r\n[ ] \n"));
  CHECK(valid("NaN"));
  CHECK(valid("-Infinity"));
  CHECK(valid(R"("\ud800")"));
  CHECK(valid(R"("\udc00\ud800")"));
}

TEST_CASE("raw UTF-8 is as valid as escapes", "[json_text][B8]") {
  CHECK(valid("\"Zo\xC3\xAB \xE6\x9E\x97 \xF0\x9F\x98\x80 \x7F\""));
}

TEST_CASE("every truncation of a JSON object is an error", "[json_text]") {
  for (std::size_t size = 0; size < from_python.size(); ++size) {
    INFO("first " << size << " bytes");
    CHECK_FALSE(valid(std::string_view(from_python).substr(0, size)));
  }
}

TEST_CASE("text outside the grammar is refused", "[json_text]") {
  const auto text = GENERATE(values<std::string>({
      "",
      " ",
      "{",
      "}",
      "[",
      "]",
      "[1",
      "[1,",
      "[1,]",
      "[,1]",
      "[1 2]",
      "[1}",
      "{1:2}",
      "{\"a\"}",
      "{\"a\":}",
      "{\"a\" 1}",
      "{\"a\":1,}",
      "{\"a\":1 \"b\":2}",
      "{,}",
      "{\"a\":1]",
      "nul",
      "nulll",
      "True",
      "tru",
      "nan",
      "-NaN",
      "Inf",
      "infinity",
      "+1",
      "-",
      "01",
      "-01",
      "1.",
      ".5",
      "1.e5",
      "1e",
      "1e+",
      "0x10",
      "1_0",
      "--1",
      "'a'",
      "\"a",
      "\"\\x\"",
      "\"\\u12\"",
      "\"\\u123g\"",
      "\"\\",
      "\"\\u",
      "// c\n1",
      "1 1",
      "{} {}",
      "\xEF\xBB\xBF{}",
      "\"a\nb\"",
      "\"\t\"",
      "\f1",
      "\xC2\xA0"
      "1",
  }));
  INFO(text);
  CHECK_FALSE(valid(text));
}

TEST_CASE("a NUL byte is no end and no space", "[json_text]") {
  CHECK_FALSE(valid(std::string_view("1\0", 2)));
  CHECK_FALSE(valid(std::string_view("\"\0\"", 3)));
  CHECK_FALSE(valid(std::string_view("\"\\\0\"", 4)));
}

TEST_CASE("strings with broken UTF-8 are refused", "[json_text]") {
  const auto bytes = GENERATE(values<std::string>({
      "\x80",
      "\xBF",
      "\xC0\x80",
      "\xC1\xBF",
      "\xC3",
      "\xC3(",
      "\xE0\x80\x80",
      "\xE0\x9F\xBF",
      "\xE6\x9E",
      "\xE6\x9E(",
      "\xED\xA0\x80",
      "\xED\xBF\xBF",
      "\xF0\x80\x80\x80",
      "\xF0\x8F\xBF\xBF",
      "\xF0\x9F\x98",
      "\xF0\x9F\x98(",
      "\xF4\x90\x80\x80",
      "\xF5\x80\x80\x80",
      "\xFE",
      "\xFF",
  }));
  const auto before = GENERATE(range<std::size_t>(0, 9));
  const std::string content = std::string(before, 'a') + bytes;
  CHECK_FALSE(valid('"' + content + '"'));
  CHECK_FALSE(valid('"' + content + "        \""));
  CHECK_FALSE(valid('"' + content));
}

TEST_CASE("errors name the byte offset and what is wrong", "[json_text]") {
  CHECK(message("[1, x]") == "JSON text, byte 4: expected a value");
  CHECK(message("{\"a\": \"b\n\"}")
        == "JSON text, byte 8: control character in a string: write it as an "
           "escape");
  CHECK(message("{} x")
        == "JSON text, byte 3: text after the end of the value");
  const auto refused = json_text::validate(
      "[", {.depth_max = 32, .error = errc::invalid_argument});
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == errc::invalid_argument);
  CHECK(json_text::validate("[").error().code == errc::corrupt);
}

TEST_CASE("the depth limit is exact", "[json_text]") {
  const auto depth = GENERATE(range<std::size_t>(1, 66));
  const auto arrays = repeated("[", depth) + repeated("]", depth);
  const auto objects = repeated("{\"a\":", depth) + "1" + repeated("}", depth);
  INFO("depth " << depth);
  CHECK(valid(arrays, depth) == (depth <= 64));
  CHECK(valid(objects, depth) == (depth <= 64));
  CHECK_FALSE(valid(arrays, depth - 1));
  CHECK_FALSE(valid(objects, depth - 1));
  json_text::array_scanner exact(arrays, {.depth_max = depth});
  json_text::array_scanner tight(arrays, {.depth_max = depth - 1});
  CHECK(exact.next().has_value() == (depth <= 64));
  CHECK_FALSE(tight.next());
}

TEST_CASE("a million open brackets are an error, not a crash", "[json_text]") {
  const auto bracket =
      GENERATE(values<std::string>({"[", "{\"a\":", "[{\"\":"}));
  const auto bomb = repeated(bracket, 1'000'000);
  CHECK_FALSE(valid(bomb));
  CHECK_FALSE(valid(bomb, 1'000'000));
  json_text::array_scanner scanner(bomb);
  CHECK_FALSE(scanner.next());
}

TEST_CASE("ten megabytes of empty arrays are one pass", "[json_text]") {
  const auto open = "[" + repeated("[],", 3'500'000);
  CHECK_FALSE(valid(open));
  const auto text = open + "[]]";
  CHECK(valid(text));
  json_text::array_scanner scanner(text);
  std::size_t count = 0;
  while (scanner.next().value())
    ++count;
  CHECK(count == 3'500'001);
}

TEST_CASE("a long string without an end is an error", "[json_text]") {
  CHECK_FALSE(valid('"' + std::string(10'000'000, 'a')));
  CHECK_FALSE(valid('"' + repeated("\\\"", 1'000'000)));
  CHECK_FALSE(valid('"' + repeated("\xE6\x9E\x97", 1'000'000)));
}

TEST_CASE("a string is scanned alike at every length and position",
          "[json_text]") {
  const auto size = GENERATE(range<std::size_t>(0, 20));
  for (std::size_t at = 0; at < size; ++at) {
    for (const char bad : {'\x00', '\x1F', '"', '\\', '\x80', '\xFF'}) {
      std::string text(size, '~');
      text[at] = bad;
      INFO("size " << size << ", byte " << int(bad) << " at " << at);
      CHECK_FALSE(valid('"' + text + "~\""));
    }
    for (const char good : {' ', '!', '#', '[', ']', '\x7F'}) {
      std::string text(size, 'a');
      text[at] = good;
      CHECK(valid('"' + text + '"'));
    }
  }
}

TEST_CASE("integers may be large, but not longer than Python reads",
          "[json_text][B10]") {
  CHECK(valid("[1180591620717411303424]"));
  CHECK(valid("-" + std::string(4300, '9')));
  CHECK_FALSE(valid(std::string(4301, '9')));
  CHECK(valid(std::string(4301, '9') + ".5"));
}

TEST_CASE("members come in order, as they stand in the text", "[json_text]") {
  const std::string text = R"( { "a" : 1.50 ,"b":[ 1,2 ], "\u0061": "x\n" } )";
  json_text::object_scanner members(text);
  REQUIRE(members.next().value());
  CHECK(members.key() == "a");
  CHECK(members.value() == "1.50");
  CHECK(members.value().data() == text.data() + text.find("1.50"));
  REQUIRE(members.next().value());
  CHECK(members.value() == "[ 1,2 ]");
  REQUIRE(members.next().value());
  CHECK(members.key() == "a");
  CHECK(members.raw_key() == R"("\u0061")");
  CHECK(members.value() == R"("x\n")");
  CHECK_FALSE(members.next().value());
  CHECK_FALSE(members.next().value());
}

TEST_CASE("a scanner that met an error stays there", "[json_text]") {
  json_text::object_scanner members(R"({"a": 1, "b": })");
  REQUIRE(members.next().value());
  const auto first = members.next();
  const auto second = members.next();
  REQUIRE_FALSE(first);
  REQUIRE_FALSE(second);
  CHECK(first.error().message == second.error().message);
}

TEST_CASE("a scanner refuses another kind of value and text behind its own",
          "[json_text]") {
  CHECK_FALSE(json_text::object_scanner("[]").next());
  CHECK_FALSE(json_text::array_scanner("{}").next());
  CHECK_FALSE(json_text::array_scanner("").next());
  CHECK_FALSE(json_text::array_scanner({}).next());
  CHECK_FALSE(json_text::array_scanner("[] x").next());
  CHECK_FALSE(json_text::object_scanner("{,}").next());
  CHECK_FALSE(json_text::array_scanner("[", {.depth_max = 0}).next());
}

TEST_CASE("an error of the visitor ends the walk", "[json_text]") {
  int calls = 0;
  const auto refuse = [&](std::string_view, std::string_view,
                          std::string_view) -> result<void> {
    ++calls;
    return failure{errc::closed, "enough"};
  };
  const auto walked = json_text::for_each_member(R"({"a":1,"b":2})", refuse);
  REQUIRE_FALSE(walked);
  CHECK(walked.error().message == "enough");
  CHECK(calls == 1);
}

TEST_CASE("scanners read what nlohmann reads", "[json_text][random]") {
  const auto seed = GENERATE(range(1u, 301u));
  INFO("seed " << seed);
  random_json random(seed);
  const auto text = random.value(8);
  INFO(text);
  REQUIRE(valid(text));
  CHECK(tree_of(std::string_view(text)) == nlohmann::json::parse(text));
  CHECK(json_text::compact(json_text::compact(text))
        == json_text::compact(text));
  CHECK(nlohmann::json::parse(json_text::compact(text))
        == nlohmann::json::parse(text));
}

TEST_CASE("scanners refuse what nlohmann refuses", "[json_text][random]") {
  const auto seed = GENERATE(range(1u, 301u));
  random_json random(seed);
  const auto original = random.value(8);
  const std::string_view bytes = "{}[]\",:\\eE+-.0 \ntfnu19\xC3\x80\xF0\x1F";
  for (int i = 0; i < 20; ++i) {
    auto text = original;
    for (auto left = 1 + random.below(2); left > 0; --left) {
      const auto at = random.below(text.size());
      if (random.below(3) != 0)
        text[at] = bytes[random.below(bytes.size())];
      else if (random.below(2))
        text.erase(at, 1);
      else
        text.insert(at, 1, bytes[random.below(bytes.size())]);
      if (text.empty())
        break;
    }
    INFO("seed " << seed << ", text " << text);
    // Half of a pair is an error to nlohmann.
    const bool has_half_pair = text.find("\\uD8") != std::string::npos
                               || text.find("\\uDE") != std::string::npos;
    const auto expected = nlohmann_accepts(text);
    const bool found = valid(text);
    CHECK((has_half_pair || found == expected.value_or(found)));
  }
}

TEST_CASE("kinds are told from the text", "[json_text]") {
  const auto kind = json_text::kind_of;
  CHECK(kind("null") == value_kind::null);
  CHECK(kind("true") == value_kind::boolean);
  CHECK(kind("false") == value_kind::boolean);
  CHECK(kind("-12") == value_kind::integer);
  CHECK(kind("1180591620717411303424") == value_kind::integer);
  CHECK(kind("1.0") == value_kind::number);
  CHECK(kind("1e5") == value_kind::number);
  CHECK(kind("-1E5") == value_kind::number);
  CHECK(kind("NaN") == value_kind::not_finite);
  CHECK(kind("Infinity") == value_kind::not_finite);
  CHECK(kind("-Infinity") == value_kind::not_finite);
  CHECK(kind("\"1\"") == value_kind::string);
  CHECK(kind("[1]") == value_kind::array);
  CHECK(kind("{}") == value_kind::object);
}

TEST_CASE("compacting removes no space inside strings", "[json_text]") {
  CHECK(json_text::compact("{ \"a  b\" :\n [ 1 ,\r\n\t2 ] , \"\\\" ,\" : 3 }")
        == R"({"a  b": [1, 2], "\" ,": 3})");
  CHECK(json_text::compact(from_python) == from_python);
}

TEST_CASE("strings are escaped as Python escapes them", "[json_text][B8]") {
  const std::string text =
      '\0'
      + std::string("\x1F \"q\" \\ / \n\r\t\b\f \x7F \xC3\xAB \xE6\x9E\x97 "
                    "\xEF\xBF\xBF \xF0\x9F\x98\x80 \xED\xA0\x80 \xED\xBF\xBF");
  const std::string raw =
      R"("\u0000\u001f \"q\" \\ / \n\r\t\b\f \u007f \u00eb \u6797 )"
      R"(\uffff \ud83d\ude00 \ud800 \udfff")";
  CHECK(json_text::encode_string(text) == raw);
  CHECK(json_text::decode_string(raw).value() == text);
}

TEST_CASE("every character survives encoding and decoding",
          "[json_text][B10]") {
  std::string text;
  for (char32_t unit = 0; unit < 0x10000; ++unit) {
    const std::string digits = [&] {
      char buffer[8];
      std::snprintf(buffer, sizeof buffer, "\\u%04x", unsigned(unit));
      return std::string(buffer);
    }();
    const auto decoded = json_text::decode_string('"' + digits + '"').value();
    const auto character = json_text::first_code_point(decoded);
    if (character.value != unit || character.bytes != decoded.size())
      FAIL("code point " << unsigned(unit));
    // In this order no high surrogate comes directly before a low one but
    // for DBFF and DC00, which a space keeps apart.
    text += unit == 0xDC00 ? " " + decoded : decoded;
  }
  text += "\xF0\x90\x80\x80\xF4\x8F\xBF\xBF";
  CHECK(json_text::valid_utf8(text, json_text::surrogates::allowed));
  CHECK_FALSE(json_text::valid_utf8(text, json_text::surrogates::refused));
  const auto raw = json_text::encode_string(text);
  CHECK(valid(raw));
  CHECK(json_text::decode_string(raw).value() == text);
}

TEST_CASE("only a high surrogate before a low one makes a pair",
          "[json_text][B10]") {
  const auto decoded = [](std::string_view raw) {
    return json_text::decode_string(raw).value();
  };
  CHECK(decoded(R"("\ud83d\ude00")") == "\xF0\x9F\x98\x80");
  CHECK(decoded(R"("\uD83D\uDE00")") == "\xF0\x9F\x98\x80");
  CHECK(decoded(R"("\ud800\ud83d\ude00")") == "\xED\xA0\x80\xF0\x9F\x98\x80");
  CHECK(decoded(R"("\ude00\ud83d")") == "\xED\xB8\x80\xED\xA0\xBD");
  CHECK(decoded(R"("\ud83d\n")") == "\xED\xA0\xBD\n");
  CHECK(decoded(R"("\ud83d\u0041")")
        == "\xED\xA0\xBD"
           "A");
}

TEST_CASE("decoding refuses what is not one string", "[json_text]") {
  const auto raw = GENERATE(values<std::string>(
      {"", "\"", "a", "\"a", "\"a\"b", " \"a\"", "\"\\u12\"", "1", "\"\\\""}));
  INFO(raw);
  const auto decoded = json_text::decode_string(raw);
  REQUIRE_FALSE(decoded);
  CHECK(decoded.error().code == errc::invalid_argument);
}

TEST_CASE("broken bytes are encoded as replacement characters", "[json_text]") {
  CHECK(json_text::encode_string("a\xFF\xC3") == R"("a\ufffd\ufffd")");
}

TEST_CASE("lone surrogates are well-formed, a split pair is not",
          "[json_text]") {
  using json_text::surrogates;
  using json_text::valid_utf8;
  CHECK(valid_utf8("", surrogates::refused));
  CHECK(valid_utf8("Zo\xC3\xAB", surrogates::refused));
  CHECK(valid_utf8("a\xED\xA0\x80z", surrogates::allowed));
  CHECK(valid_utf8("\xED\xB0\x80\xED\xA0\x80", surrogates::allowed));
  CHECK_FALSE(valid_utf8("\xED\xA0\x80", surrogates::refused));
  CHECK_FALSE(valid_utf8("\xED\xA0\x80\xED\xB0\x80", surrogates::allowed));
  CHECK_FALSE(valid_utf8("\xED\xA0", surrogates::allowed));
  CHECK(valid_utf8("\xED\x9F\xBF", surrogates::refused));
}

TEST_CASE("integers are exact or refused", "[json_text]") {
  CHECK(json_text::to_integer("-9223372036854775808").value()
        == std::numeric_limits<std::int64_t>::min());
  CHECK(json_text::to_integer("9223372036854775807").value()
        == std::numeric_limits<std::int64_t>::max());
  CHECK(json_text::to_integer("-0").value() == 0);
  const auto raw = GENERATE(values<std::string>(
      {"9223372036854775808", "1.0", "1e3", "NaN", "-Infinity", "\"1\"", "null",
       "", "01", "1 ", " 1", "+1", "1,"}));
  INFO(raw);
  CHECK_FALSE(json_text::to_integer(raw));
}

TEST_CASE("numbers are rounded as Python rounds them", "[json_text]") {
  const auto read = [](std::string_view raw) {
    return json_text::to_double(raw).value();
  };
  CHECK(read("0.1") == 0.1);
  CHECK(read("1e+16") == 1e16);
  CHECK(read("5e-324") == std::numeric_limits<double>::denorm_min());
  CHECK(read("1180591620717411303424") == 0x1p70);
  CHECK(std::signbit(read("-0.0")));
  CHECK(std::isnan(read("NaN")));
  CHECK(read("Infinity") == std::numeric_limits<double>::infinity());
  CHECK(read("-Infinity") == -std::numeric_limits<double>::infinity());
  const auto raw = GENERATE(values<std::string>(
      {"1e400", "inf", "nan", "-NaN", "1.", "true", "\"1\"", "", "[1]", "1 "}));
  INFO(raw);
  CHECK_FALSE(json_text::to_double(raw));
}

TEST_CASE("an array of numbers becomes floats", "[json_text]") {
  CHECK(json_text::to_floats(R"([1, -0.5, "0.25", 2e1])").value()
        == std::vector<float>{1, -0.5f, 0.25f, 20});
  CHECK(json_text::to_floats("[]").value().empty());
  CHECK(json_text::to_floats("[1, 2]", 2).value().size() == 2);
  const auto odd = json_text::to_floats("[NaN, 1e300, -1e39, 1e-60]").value();
  CHECK(std::isnan(odd[0]));
  CHECK(odd[1] == std::numeric_limits<float>::infinity());
  CHECK(odd[2] == -std::numeric_limits<float>::infinity());
  CHECK(odd[3] == 0.0f);
  // Rounded to double and then to float, as numpy does.
  CHECK(json_text::to_floats("[3.4028235677973366e+38]").value()[0]
        == std::numeric_limits<float>::infinity());
  CHECK(json_text::to_floats("[3.4028235677973362e+38]").value()[0]
        == std::numeric_limits<float>::max());
}

TEST_CASE("what is no array of numbers gives no floats", "[json_text]") {
  const auto raw = GENERATE(values<std::string>(
      {"", "1", "{}", "[1,]", "[[1]]", "[{}]", "[null]", "[true]", "[\"\"]",
       "[\"a\"]", "[\" 1\"]", "[1] 2", "[1, 2", "\"[1]\""}));
  INFO(raw);
  CHECK_FALSE(json_text::to_floats(raw));
  CHECK_FALSE(json_text::to_floats("[1, 2]", 3));
  CHECK_FALSE(json_text::to_floats("[1, 2]", 1));
}

TEST_CASE("an element that is no number is named", "[json_text]") {
  CHECK(json_text::to_floats("[1, null]").error().message
        == "element 1: a JSON value is not a number");
  CHECK(json_text::to_floats("[1, 2]", 3).error().message
        == "expected 3 numbers, found 2");
}

TEST_CASE("floats are written so that they read back", "[json_text][random]") {
  CHECK(json_text::from_float(0.1f) == "0.1");
  CHECK(json_text::from_float(1.0f) == "1.0");
  CHECK(json_text::from_float(-0.0f) == "-0.0");
  CHECK(json_text::from_float(1e16f) == "1e+16");
  const auto seed = GENERATE(range(1u, 11u));
  INFO("seed " << seed);
  std::mt19937 generator(seed);
  for (int i = 0; i < 1000; ++i) {
    const auto bits = static_cast<std::uint32_t>(generator());
    float value = 0;
    std::memcpy(&value, &bits, sizeof value);
    if (!std::isfinite(value))
      continue;
    const auto text = json_text::from_float(value);
    INFO(text);
    CHECK(json_text::kind_of(text) == value_kind::number);
    CHECK(json_text::to_floats("[" + text + "]").value()[0] == value);
  }
}
