#include "core/record.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <string>
#include <string_view>
#include <vector>

using namespace callboard;
using nlohmann::json;

namespace {

const std::vector<std::string> entity_fields = default_meta_fields("entities");

std::string record_of(std::string_view input,
                      std::vector<std::string> fields = entity_fields) {
  return make_record("x", 1700000000, input, fields).value();
}

failure refusal(std::string_view input) {
  const auto made = make_record("x", 1700000000, input, entity_fields);
  REQUIRE_FALSE(made);
  return made.error();
}

bool good_workspace(std::string_view name) {
  return check_store_name(name_kind::workspace, name).has_value();
}

bool good_namespace(std::string_view name) {
  return check_store_name(name_kind::namespace_name, name).has_value();
}

} // namespace

TEST_CASE("ids are a prefix and the MD5 of the text", "[record][B1]") {
  CHECK(compute_mdhash_id("Alice", "ent-")
        == "ent-64489c85dc2fe0787b85cd87214b3810");
  CHECK(compute_mdhash_id("") == "d41d8cd98f00b204e9800998ecf8427e");
  CHECK(compute_mdhash_id({}) == "d41d8cd98f00b204e9800998ecf8427e");
  CHECK(entity_id("Zo\xC3\xAB") == "ent-fb44af73417cf03c023d098e7f07c114");
  CHECK(chunk_id("Alice") == "chunk-64489c85dc2fe0787b85cd87214b3810");
}

TEST_CASE("lone surrogates hash like question marks", "[record][B2]") {
  CHECK(compute_mdhash_id("a\xED\xA0\x80z") == compute_mdhash_id("a?z"));
  CHECK(compute_mdhash_id("\xED\xBF\xBF\xED\xA0\x80")
        == compute_mdhash_id("??"));
  // Hangul has the same first byte, but is text.
  CHECK(compute_mdhash_id("\xED\x95\x9C") != compute_mdhash_id("?"));
  CHECK(compute_mdhash_id("\xED\x95\x9C\xED\xA0\x80")
        == compute_mdhash_id("\xED\x95\x9C?"));
}

TEST_CASE("a relation has one id, whichever end comes first", "[record][B3]") {
  const auto ids = relation_ids("Bob", "Alice");
  CHECK(ids.id == compute_mdhash_id("AliceBob", "rel-"));
  CHECK(ids.reverse_id == compute_mdhash_id("BobAlice", "rel-"));
  CHECK(relation_ids("Alice", "Bob").id == ids.id);
  CHECK(relation_ids("Alice", "Bob").reverse_id == ids.reverse_id);
  const auto self = relation_ids("Alice", "Alice");
  CHECK(self.id == self.reverse_id);
}

TEST_CASE("the ends of a relation are ordered by code point", "[record][B3]") {
  // UTF-16 units would order these the other way round.
  const std::string last_of_plane = "\xEF\xBF\xBF";
  const std::string beyond = "\xF0\x90\x80\x80";
  CHECK(relation_ids(beyond, last_of_plane).id
        == compute_mdhash_id(last_of_plane + beyond, "rel-"));
  CHECK(relation_ids("a", "Z").id == compute_mdhash_id("Za", "rel-"));
  CHECK(relation_ids("\xC3\xA9", "z").id
        == compute_mdhash_id("z\xC3\xA9", "rel-"));
}

TEST_CASE("surrogates at the seam of a relation stay two", "[record][B2][B3]") {
  CHECK(relation_ids("a\xED\xA0\xBD", "\xED\xB8\x80").id
        == compute_mdhash_id("a??", "rel-"));
}

TEST_CASE("each of LightRAG's stores has its meta fields", "[record][B6]") {
  using fields = std::vector<std::string>;
  CHECK(default_meta_fields("entities")
        == fields{"entity_name", "source_id", "content", "file_path"});
  CHECK(default_meta_fields("relationships")
        == fields{"src_id", "tgt_id", "source_id", "content", "file_path"});
  CHECK(default_meta_fields("chunks")
        == fields{"full_doc_id", "content", "file_path"});
  CHECK(default_meta_fields("other") == fields{"content"});
}

TEST_CASE("a record has the reserved fields and the meta fields given",
          "[record][B6][B9][B11]") {
  CHECK(record_of(R"({"content": "c", "entity_type": "t", )"
                  R"("entity_name": "Alice", "weight": 2})")
        == R"({"__id__": "x", "__created_at__": 1700000000, )"
           R"("entity_name": "Alice", "content": "c"})");
  CHECK(record_of("{}") == R"({"__id__": "x", "__created_at__": 1700000000})");
}

TEST_CASE("values are kept byte for byte", "[record][B10]") {
  const auto value = GENERATE(values<std::string>({
      "null",
      "true",
      "1180591620717411303424",
      "1e+16",
      "-0.0",
      "1.500",
      "NaN",
      "-Infinity",
      R"("\ud800\u0000")",
      "\"Zo\xC3\xAB\"",
      R"("\/")",
      R"([1,2 , {"a":1, "a":2}])",
      "[]",
  }));
  INFO(value);
  const auto record = record_of("{ \"content\" : " + value + " }");
  CHECK(member(record, "content") == value);
  CHECK(json_text::validate(record));
}

TEST_CASE("of a repeated key the last value counts", "[record][B10]") {
  const auto record =
      record_of(R"({"content": 1, "file_path": "f", "cont\u0065nt": 2})");
  CHECK(member(record, "content") == "2");
  CHECK(record.find("content") == record.rfind("content"));
}

TEST_CASE("the input cannot replace the reserved fields", "[record][B13]") {
  const auto record = record_of(
      R"({"__id__": "y", "__created_at__": 5, "__vector__": [1], "a": 1})",
      {"__id__", "a", "__created_at__", "__vector__", "a"});
  CHECK(record == R"({"__id__": "x", "__created_at__": 1700000000, "a": 1})");
}

TEST_CASE("a record is one line whatever its input looks like",
          "[record][B8]") {
  const auto record =
      record_of("{\n \"content\": [\r\n  1,\n  \"a  b\\n\"\n ]\n}\n");
  CHECK(record.find_first_of("\n\r") == std::string::npos);
  CHECK(member(record, "content") == R"([1, "a  b\n"])");
}

TEST_CASE("an id and a field name may be any text", "[record][B8]") {
  const std::string id = "Zo\xC3\xAB \"\n\xED\xA0\x80\xF0\x9F\x98\x80";
  const std::string field = "f\xC3\xA9\"";
  const std::vector<std::string> fields{field};
  const auto record =
      make_record(id, -1, R"({"f\u00e9\"": 1})", fields).value();
  CHECK(record
        == R"({"__id__": "Zo\u00eb \"\n\ud800\ud83d\ude00", )"
           R"("__created_at__": -1, "f\u00e9\"": 1})");
  CHECK(string_member(record, "__id__") == id);
  CHECK(member(record, field) == "1");
}

TEST_CASE("input that is no JSON object makes no record", "[record]") {
  const auto input = GENERATE(values<std::string>(
      {"", "[]", "1", "{", R"({"content": })", R"({"a": 1} x)",
       "{\"a\": \"\xFF\"}", "{\"a\": \"\n\"}", "{\"a\": 1,}"}));
  INFO(input);
  const auto refused = refusal(input);
  CHECK(refused.code == errc::invalid_argument);
  CHECK(refused.message.find("the record \"x\": JSON text, byte ") == 0);
}

TEST_CASE("every truncation of an input is refused", "[record]") {
  const std::string input =
      R"({"content": "a\u00eb", "file_path": [1.5, {"b": null}], "z": NaN})";
  CHECK(make_record("x", 0, input, entity_fields));
  for (std::size_t size = 0; size < input.size(); ++size)
    CHECK_FALSE(make_record("x", 0, input.substr(0, size), entity_fields));
}

TEST_CASE("a record is at most 32 deep", "[record]") {
  const auto nested = [](std::size_t depth) {
    return "{\"content\": " + std::string(depth - 1, '[')
           + std::string(depth - 1, ']') + "}";
  };
  const auto record = record_of(nested(record_depth_max));
  CHECK(json_text::validate(record, {.depth_max = record_depth_max}));
  CHECK(member(record, "content")->size() == 2 * (record_depth_max - 1));
  CHECK(json::parse(result_row(record)).contains("content"));
  CHECK(refusal(nested(record_depth_max + 1)).code == errc::invalid_argument);
  CHECK(refusal("{\"dropped\": " + std::string(1'000'000, '[')).code
        == errc::invalid_argument);
}

TEST_CASE("a record has at most 16 MiB", "[record]") {
  const std::string empty = record_of(R"({"content": ""})");
  const auto input = [&](std::size_t bytes) {
    return "{\"content\": \"" + std::string(bytes, 'a') + "\"}";
  };
  const auto room = record_bytes_max - empty.size();
  CHECK(record_of(input(room)).size() == record_bytes_max);
  CHECK(refusal(input(room + 1)).code == errc::too_large);
}

TEST_CASE("members are found by their decoded name, the last one", "[record]") {
  const std::string object =
      R"({"a": 1, "b\n": "x\ty", "\u0061": [2], "e": "\ud800"})";
  CHECK(member(object, "a") == "[2]");
  CHECK(member(object, "b\n") == R"("x\ty")");
  CHECK(member(object, "a")->data() == object.data() + object.find("[2]"));
  CHECK_FALSE(member(object, "c"));
  CHECK(string_member(object, "b\n") == "x\ty");
  CHECK(string_member(object, "e") == "\xED\xA0\x80");
  CHECK_FALSE(string_member(object, "a"));
  CHECK_FALSE(string_member(object, "c"));
  CHECK_FALSE(member("[]", "a"));
}

TEST_CASE("a query's row is the record, its id, score and time",
          "[record][B40]") {
  const std::string record =
      R"({"__id__": "x", "__created_at__": 7, "content": "c", )"
      R"("__vector__": [1.0], "big": 1180591620717411303424})";
  CHECK(result_row(record, 0.5f)
        == R"({"__id__": "x", "__created_at__": 7, "content": "c", )"
           R"("big": 1180591620717411303424, "id": "x", "distance": 0.5, )"
           R"("created_at": 7})");
}

TEST_CASE("a row without a score has no distance of its own", "[record][B52]") {
  const auto row = json::parse(
      result_row(R"({"__id__": "x", "__created_at__": 7, "distance": "far"})"));
  CHECK(row == json::parse(R"({"__id__": "x", "__created_at__": 7, "id": "x",
                               "created_at": 7, "distance": "far"})"));
}

TEST_CASE("id, distance and created_at of a row replace the record's",
          "[record][B40]") {
  const auto text = result_row(
      R"({"id": 1, "__id__": "x", "distance": 2, "created_at": 3})", 1.0f);
  CHECK(text
        == R"({"__id__": "x", "id": "x", "distance": 1.0, )"
           R"("created_at": null})");
}

TEST_CASE("a row of a record without id has a null id", "[record][B26]") {
  CHECK(result_row("{}", 0.25f)
        == R"({"id": null, "distance": 0.25, "created_at": null})");
  CHECK(result_row("{}") == R"({"id": null, "created_at": null})");
}

TEST_CASE("ids have 1 to 1024 bytes of valid UTF-8", "[record]") {
  CHECK(check_id("a"));
  CHECK(check_id("\xED\xA0\x80"));
  CHECK(check_id(std::string(id_bytes_max, 'a')));
  CHECK(check_id("").error().code == errc::invalid_argument);
  CHECK(check_id(std::string(id_bytes_max + 1, 'a')).error().code
        == errc::too_large);
  CHECK(check_id("a\xFF").error().code == errc::invalid_argument);
  CHECK(check_id("\xED\xA0\x80\xED\xB0\x80").error().code
        == errc::invalid_argument);
  CHECK(make_record("", 0, "{}", entity_fields).error().code
        == errc::invalid_argument);
}

TEST_CASE("messages show the offender shortened and printable", "[record]") {
  CHECK(check_id("a\xFF\n").error().message
        == "the id \"a\\xff\\x0a\" is not valid UTF-8: encode it first");
  CHECK(check_id(std::string(5000, 'a')).error().message
        == "the id \"" + std::string(80, 'a')
               + "\"... has 5000 bytes: at most 1024 are allowed");
}

TEST_CASE("printable text has no control and no broken bytes", "[record]") {
  CHECK(printable("Zo\xC3\xAB") == "\"Zo\xC3\xAB\"");
  CHECK(printable(std::string_view("\0\x1B[2J\x7F", 6))
        == "\"\\x00\\x1b[2J\\x7f\"");
  CHECK(printable("\xC2\x9B\xED\xA0\x80\xF0\x9F")
        == "\"\\xc2\\x9b\\xed\\xa0\\x80\\xf0\\x9f\"");
  CHECK(printable("ab\xC3\xAB", 3) == "\"ab\"...");
  CHECK(printable("") == "\"\"");
}

TEST_CASE("names of stores may have spaces, dots and any script",
          "[record][B5]") {
  const auto name = GENERATE(values<std::string>(
      {"entities", "my space", " x ", "\xE6\x9E\x97\xE9\xBB\x9B", "a.b", "..a",
       "...", "a:b", "*?", "x.index", "x.callboard"}));
  INFO(name);
  CHECK(good_workspace(name));
  CHECK(good_namespace(name));
}

TEST_CASE("names that are no path component are refused", "[record][B5]") {
  const auto name = GENERATE(
      values<std::string>({".", "..", "../x", "/x", "a/b", "a\\b", "a\nb",
                           "\x7F", "\xC2\x85", "a\xFF", "\xED\xA0\x80",
                           std::string("a\0b", 3), std::string(256, 'a')}));
  INFO(name);
  CHECK_FALSE(good_workspace(name));
  CHECK_FALSE(good_namespace(name));
}

TEST_CASE("only a workspace may be empty", "[record][B4]") {
  CHECK(good_workspace(""));
  CHECK_FALSE(good_namespace(""));
}

TEST_CASE("the longest name made from a namespace fits the file system",
          "[record][B80]") {
  const std::string longest(namespace_bytes_max, 'n');
  CHECK(good_namespace(longest));
  CHECK(check_store_name(name_kind::namespace_name, longest + 'n').error().code
        == errc::too_large);
  const auto file = "faiss_index_" + longest
                    + ".index.meta.json.tmp."
                      "1234567.12345678901234567890.1234567890123456789";
  CHECK(file.size() == name_bytes_max);
  CHECK(good_workspace(std::string(name_bytes_max, 'w')));
}

TEST_CASE("a workspace cannot be taken for files of a store", "[record][B5]") {
  CHECK_FALSE(good_workspace("faiss_index_x.callboard"));
  CHECK_FALSE(good_workspace("faiss_index_x.index"));
  CHECK_FALSE(good_workspace("faiss_index_x.index.meta.json"));
  CHECK_FALSE(good_workspace("faiss_index_x.index.tmp.1"));
  CHECK(good_workspace("faiss_index_x"));
}

TEST_CASE("a store's files cannot be taken for debris of another's",
          "[record][B17]") {
  // "faiss_index_a.index.tmp.b.index" would be removed after an hour.
  CHECK_FALSE(good_namespace("a.index.tmp.b"));
  CHECK_FALSE(good_namespace("a.index.tmp"));
  CHECK_FALSE(good_namespace("a.index.meta.json.tmp"));
  CHECK(good_namespace("a.index.b"));
  CHECK(good_namespace("a.tmp.b"));
}

TEST_CASE("a refused name is shown with what is allowed", "[record]") {
  CHECK(check_store_name(name_kind::workspace, "../x\n").error().message
        == "the workspace name \"../x\\x0a\" has a path separator: choose a "
           "printable name without '/' and '\\', other than '.' and '..'");
  CHECK(check_store_name(name_kind::namespace_name, "").error().message
        == "the namespace \"\" is empty: choose a printable name without '/' "
           "and '\\', other than '.' and '..'");
}
