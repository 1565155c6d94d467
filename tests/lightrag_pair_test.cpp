#include "core/bytes.hpp"
#include "core/index_file.hpp"
#include "core/lightrag_pair.hpp"
#include "core/record.hpp"
#include "tests/support/faulty_io.hpp"
#include "tests/support/scratch_directory.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <cmath>
#include <cstring>
#include <fcntl.h>
#include <limits>
#include <sys/stat.h>

using namespace callboard;
using namespace callboard::test;

namespace {

constexpr float nan_float = std::numeric_limits<float>::quiet_NaN();
constexpr float infinite_float = std::numeric_limits<float>::infinity();

const std::filesystem::path golden_stores =
    std::filesystem::path(CALLBOARD_GOLDEN_DIR) / "stores";

std::string index_of(const std::vector<std::vector<float>>& rows,
                     std::uint32_t dimension = 2) {
  std::string out(as_text(encode_index_header({dimension, rows.size()})));
  for (const auto& row : rows)
    out += as_text(std::as_bytes(std::span(row)));
  return out;
}

const std::vector<std::vector<float>> three_vectors = {
    {1, 0}, {0, 1}, {0.6f, 0.8f}};

/// A directory with the pair of the namespace "x".
class pair_fixture {
public:
  pair_fixture() : home_(scratch_.open()) {}
  pair_fixture(std::string_view index, std::string_view meta) : pair_fixture() {
    write_file(index_path(), index);
    write_file(meta_path(), meta);
  }
  explicit pair_fixture(std::string_view meta)
      : pair_fixture(index_of(three_vectors), meta) {}

  const scratch_directory& scratch() const { return scratch_; }
  directory& home() const { return *home_; }
  std::filesystem::path index_path() const {
    return scratch_ / published_index_name("x");
  }
  std::filesystem::path meta_path() const {
    return scratch_ / published_meta_name("x");
  }

  result<imported_pair> try_read(std::uint32_t dimension = 2) const {
    return read_lightrag_pair(*home_, "x", dimension);
  }
  imported_pair read() const { return need(try_read()); }
  failure error() const { return failure_of(try_read()); }

private:
  scratch_directory scratch_;
  std::unique_ptr<directory> home_;
};

/// The id of a row; empty: a hole.
std::string id_of(const imported_pair& pair, row_number row) {
  const auto found = need(pair.source->record(row));
  return found ? std::string(found->id) : std::string();
}

std::vector<std::string> ids_of(const imported_pair& pair) {
  std::vector<std::string> ids;
  for (row_number row = 0; row < pair.source->row_count(); ++row)
    ids.push_back(id_of(pair, row));
  return ids;
}

std::string record_of(const imported_pair& pair, row_number row) {
  const auto found = need(pair.source->record(row));
  REQUIRE(found.has_value());
  return std::string(found->record);
}

std::vector<float> vector_of(const imported_pair& pair, row_number row) {
  const auto bytes = need(pair.source->vector(row));
  std::vector<float> vector(pair.dimension);
  REQUIRE(bytes.size() == vector.size() * sizeof(float));
  std::memcpy(vector.data(), bytes.data(), bytes.size());
  return vector;
}

void check_report(const import_report& found, const import_report& expected) {
  CHECK(found.orphan_vectors == expected.orphan_vectors);
  CHECK(found.duplicate_ids == expected.duplicate_ids);
  CHECK(found.records_without_id == expected.records_without_id);
  CHECK(found.records_to_embed == expected.records_to_embed);
  CHECK(found.records_without_vector == expected.records_without_vector);
}

/// `pair` as a base, read back and verified.
std::shared_ptr<const base> as_base(directory& home,
                                    const imported_pair& pair) {
  const auto descriptor =
      need(write_base(home, store_id{}, 1, pair.dimension, 0600, *pair.source));
  auto rows = need(base::open(posix_io(), home, descriptor, map_mode::shared));
  need(rows->verify());
  return rows;
}

nlohmann::json manifest_of(const std::filesystem::path& path) {
  return nlohmann::json::parse(read_file(path));
}

constexpr std::string_view three_records =
    R"({"0": {"__id__": "a"}, "1": {"__id__": "b"}, "2": {"__id__": "c"}})";

std::string nested(std::size_t depth) {
  return std::string(depth, '[') + std::string(depth, ']');
}

void set_age(const std::filesystem::path& path, std::int64_t modified_seconds,
             long nanoseconds = 0) {
  const timespec times[2] = {{modified_seconds, nanoseconds},
                             {modified_seconds, nanoseconds}};
  REQUIRE(::utimensat(AT_FDCWD, path.c_str(), times, 0) == 0);
}

} // namespace

TEST_CASE("the names of a published pair are LightRAG's", "[pair][B5]") {
  CHECK(published_index_name("chunks") == "faiss_index_chunks.index");
  CHECK(published_meta_name("chunks") == "faiss_index_chunks.index.meta.json");
}

TEST_CASE("stores that the Python class wrote are taken whole",
          "[pair][golden][B7][B8][B9]") {
  const std::string name =
      GENERATE("small/demo.chunks", "small/demo.entities",
               "small/demo.relationships", "empty/e.chunks", "nows/_.entities");
  INFO(name);
  const auto manifest = manifest_of(golden_stores / (name + ".manifest.json"));
  const auto store = golden_stores / name.substr(0, name.find('/'));
  const std::string index_file = manifest["index_file"];
  const std::string meta_file = manifest["meta_file"];
  const auto home = need(posix_io().open_directory(
      (store / index_file).parent_path().string(), false));
  const std::string name_space = manifest["args"]["namespace"];
  const std::uint32_t dimension = manifest["args"]["dim"];

  const auto pair = need(read_lightrag_pair(*home, name_space, dimension));
  CHECK(pair.report.lossless());
  CHECK(pair.to_embed.empty());
  CHECK(ids_of(pair)
        == manifest["ids_in_fid_order"].get<std::vector<std::string>>());

  const scratch_directory scratch;
  const auto target = scratch.open();
  const auto rows = as_base(*target, pair);
  CHECK(rows->row_count() == manifest["ntotal"]);
  CHECK(read_file(scratch / base_index_name(1))
        == read_file(store / index_file));
  CHECK(read_file(scratch / base_meta_name(1)) == read_file(store / meta_file));
}

TEST_CASE("records may stand in any order", "[pair][B8]") {
  const pair_fixture files(
      R"({"2": {"__id__": "c"}, "0": {"__id__": "a"}, "1": {"__id__": "b"}})");
  const auto pair = files.read();
  CHECK(pair.report.lossless());
  CHECK(ids_of(pair) == std::vector<std::string>{"a", "b", "c"});
  CHECK(vector_of(pair, 2) == std::vector<float>{0.6f, 0.8f});
}

TEST_CASE("what only Python writes survives byte for byte", "[pair][B10]") {
  const std::string record =
      R"({"__id__": "a\ud800", "n": NaN, "i": [Infinity, -Infinity], )"
      R"("big": 1180591620717411303424, "f": 1e+16, "s": "\udc00\u0000\u00eb", )"
      R"("twice": 1, "twice": {"a": null}})";
  const pair_fixture files(index_of({{1, 0}}), R"({"0": )" + record + "}");
  const auto pair = files.read();
  CHECK(pair.report.lossless());
  CHECK(record_of(pair, 0) == record);
  const auto rows = as_base(files.home(), pair);
  CHECK(need(rows->record(0)) == record);
  CHECK(rows->find("a\xED\xA0\x80") == row_number{0});
}

TEST_CASE("a record that stands on several lines is put on one", "[pair][B8]") {
  const pair_fixture files(index_of({{1, 0}}), "{\n \"0\": {\r\n"
                                               "  \"__id__\": \"a\",\n"
                                               "  \"t\": \"x\\ny\"\n }\n}\n");
  const auto pair = files.read();
  CHECK(record_of(pair, 0) == R"({"__id__": "a", "t": "x\ny"})");
  as_base(files.home(), pair);
}

TEST_CASE("an integer id is found as text and stays an integer",
          "[pair][B12]") {
  const pair_fixture files(index_of({{1, 0}}),
                           R"({"0": {"__id__": -70, "content": "x"}})");
  const auto pair = files.read();
  CHECK(id_of(pair, 0) == "-70");
  CHECK(record_of(pair, 0) == R"({"__id__": -70, "content": "x"})");
  CHECK(as_base(files.home(), pair)->find("-70") == row_number{0});
}

// -- Left-overs of crashed writers --------------------------------------------

TEST_CASE("temporary files are removed once they are an hour old, no others",
          "[pair][B17]") {
  constexpr std::int64_t now = 1'700'000'000;
  struct sibling {
    const char* name;
    std::int64_t age;
    bool is_removed;
  };
  const sibling siblings[] = {
      {"faiss_index_x.index.tmp.1.2", 3601, true},
      {"faiss_index_x.index.tmp.exact", 3600, true},
      {"faiss_index_x.index.tmp.young", 3599, false},
      {"faiss_index_x.index.tmp.future", -3600, false},
      {"faiss_index_x.index.tmp", 9999, false},
      {"faiss_index_x.index.meta.json.tmp.1", 9999, true},
      {"faiss_index_x.index.meta.json.tmp", 9999, true},
      {"faiss_index_x.index", 9999, false},
      {"faiss_index_x.index.meta.json", 9999, false},
      {"faiss_index_xy.index.tmp.1", 9999, false},
      {"faiss_index_y.index.tmp.1", 9999, false},
      {"a.faiss_index_x.index.tmp.1", 9999, false},
  };
  const pair_fixture files;
  for (const auto& each : siblings) {
    write_file(files.scratch() / each.name, "");
    set_age(files.scratch() / each.name, now - each.age);
  }
  faulty_io door;
  door.set_wall_clock(now);
  CHECK(remove_orphan_temporaries(door, files.home(), "x") == 4);
  for (const auto& each : siblings) {
    INFO(each.name);
    CHECK(std::filesystem::exists(files.scratch() / each.name)
          != each.is_removed);
  }
}

TEST_CASE("a temporary file that is younger by less than a second stays",
          "[pair][B17]") {
  constexpr std::int64_t now = 1'700'000'000;
  const pair_fixture files;
  const auto path = files.scratch() / "faiss_index_x.index.tmp.1";
  write_file(path, "");
  set_age(path, now - 3600, 1);
  faulty_io door;
  door.set_wall_clock(now);
  CHECK(remove_orphan_temporaries(door, files.home(), "x") == 0);
  CHECK(std::filesystem::exists(path));
}

TEST_CASE("signs with a meaning in patterns have none in namespaces",
          "[pair][B17]") {
  const pair_fixture files;
  for (const char* name :
       {"faiss_index_[x]*.index.tmp.1", "faiss_index_x.index.tmp.1"}) {
    write_file(files.scratch() / name, "");
    set_age(files.scratch() / name, 1000);
  }
  CHECK(remove_orphan_temporaries(posix_io(), files.home(), "[x]*") == 1);
  CHECK(std::filesystem::exists(files.scratch() / "faiss_index_x.index.tmp.1"));
}

TEST_CASE("temporaries that cannot be examined or removed stay",
          "[pair][B18]") {
  const pair_fixture files;
  const auto path = files.scratch() / "faiss_index_x.index.tmp.1";
  const auto other = files.scratch() / "faiss_index_x.index.tmp.dir";
  write_file(path, "");
  set_age(path, 1000);
  std::filesystem::create_directory(other);
  set_age(other, 1000);
  faulty_io door;
  const auto home = files.scratch().open(door);
  for (const auto kind :
       {operation_kind::list, operation_kind::status, operation_kind::remove}) {
    door.fail_from(kind, errc::permission_denied,
                   faulty_io::persistence::persistent);
    CHECK(remove_orphan_temporaries(door, *home, "x") == 0);
    CHECK(std::filesystem::exists(path));
  }
  door.set_hook({});
  CHECK(remove_orphan_temporaries(door, *home, "x") == 1);
  CHECK(std::filesystem::exists(other));
}

// -- Missing, foreign and damaged files ---------------------------------------

TEST_CASE("without files there is an empty pair", "[pair][B19]") {
  const pair_fixture files;
  const auto pair = files.read();
  CHECK(pair.report.lossless());
  CHECK(pair.to_embed.empty());
  CHECK(pair.dimension == 2);
  CHECK(pair.source->row_count() == 0);
  CHECK(as_base(files.home(), pair)->row_count() == 0);
}

TEST_CASE("a meta file without an index gives its records to be embedded",
          "[pair][B19]") {
  const pair_fixture files(R"({"0": {"__id__": "a", "content": "x"}, )"
                           R"("1": {"__id__": "b"}, "2": {}})");
  std::filesystem::remove(files.index_path());
  const auto pair = files.read();
  check_report(pair.report,
               {.records_to_embed = 1, .records_without_vector = 1});
  CHECK(pair.source->row_count() == 0);
  REQUIRE(pair.to_embed.size() == 1);
  CHECK(pair.to_embed[0].id == "a");
  CHECK(pair.to_embed[0].record == R"({"__id__": "a", "content": "x"})");
}

TEST_CASE("an index of another dimension is refused with both numbers",
          "[pair][B20]") {
  const pair_fixture files(three_records);
  const auto why = failure_of(files.try_read(768));
  CHECK(why.code == errc::dimension_mismatch);
  CHECK(contains(why.message, "dimension 2"));
  CHECK(contains(why.message, "dimension 768"));
  CHECK(contains(why.message, files.index_path().string()));
}

TEST_CASE("an index of another type is refused by name", "[pair][B21]") {
  auto index = index_of(three_vectors);
  const auto* code = GENERATE("IxF2", "IHNf");
  index.replace(0, 4, code);
  const auto why = pair_fixture(index, three_records).error();
  CHECK(why.code == errc::unsupported_format);
  CHECK(contains(why.message,
                 code == std::string("IxF2") ? "IndexFlatL2" : "HNSW"));
}

TEST_CASE("a meta file that is no map of records is damaged, and nothing is "
          "touched",
          "[pair][B25]") {
  const std::string meta = GENERATE(
      "", "{", "[]", "null", "\xEF\xBB\xBF{}", R"({"0": {"__id__": "a"})",
      R"({"0": {"__id__": "a"}} x)", R"({"0": [1]})", R"({"0": null})",
      R"({"0": "text"})", R"({"a": {}})", R"({"0": {"__id__": "a",}})",
      "{\"0\": {\"__id__\": \"\xFF\"}}");
  INFO(meta);
  const pair_fixture files(meta);
  const auto why = files.error();
  CHECK(why.code == errc::corrupt);
  CHECK(contains(why.message, files.meta_path().string()));
  CHECK(contains(why.message, "backup"));
  CHECK(contains(why.message, "move both files"));
  CHECK(read_file(files.meta_path()) == meta);
  CHECK(read_file(files.index_path()) == index_of(three_vectors));
}

TEST_CASE("an index without its meta file is no empty store", "[pair][B25]") {
  const pair_fixture files(three_records);
  std::filesystem::remove(files.meta_path());
  const auto why = files.error();
  CHECK(why.code == errc::corrupt);
  CHECK(contains(why.message, files.meta_path().string()));
  CHECK(contains(why.message, "missing"));
}

TEST_CASE("a pair that is cut anywhere is damaged", "[pair][B25]") {
  const auto index = index_of(three_vectors);
  const std::string meta(three_records);
  for (std::size_t size = 0; size < index.size(); ++size)
    CHECK(pair_fixture(index.substr(0, size), meta).error().code
          == errc::corrupt);
  for (std::size_t size = 0; size < meta.size(); ++size)
    CHECK(pair_fixture(index, meta.substr(0, size)).error().code
          == errc::corrupt);
}

TEST_CASE("a flipped bit of a pair is refused or changes what was written, "
          "and does no other harm",
          "[pair][B25]") {
  const auto index = index_of(three_vectors);
  const std::string meta =
      R"({"0": {"__id__": "a", "__vector__": [0.6, 0.8], "content": "x"}, )"
      R"("2": {"__id__": "\u00eb", "src_id": "b"}})";
  const pair_fixture files(index, meta);
  const auto check = [&] {
    if (const auto pair = files.try_read())
      as_base(files.home(), *pair);
    else
      CHECK_FALSE(pair.error().message.empty());
  };
  for (std::size_t bit = 0; bit < 8 * index_header_bytes; ++bit) {
    write_file(files.index_path(), with_flipped_bit(index, bit));
    check();
  }
  write_file(files.index_path(), index);
  for (std::size_t bit = 0; bit < 8 * meta.size(); ++bit) {
    write_file(files.meta_path(), with_flipped_bit(meta, bit));
    check();
  }
}

TEST_CASE("records nested too deeply are refused by key and offset",
          "[pair][B25]") {
  const auto meta_with = [](std::size_t depth) {
    return R"({"0": {"__id__": "a"}, "17": {"__id__": "b", "x": )"
           + nested(depth) + "}}";
  };
  CHECK(pair_fixture(meta_with(record_depth_max - 1)).try_read());
  for (const std::size_t depth : {record_depth_max, std::size_t{200'000}}) {
    const auto meta = meta_with(depth);
    const auto offset = meta.find("[[") + record_depth_max - 1;
    const auto why = pair_fixture(meta).error();
    CHECK(why.code == errc::corrupt);
    CHECK(contains(why.message, "byte " + std::to_string(offset)));
    CHECK(contains(why.message, "\"17\""));
    CHECK(contains(why.message, "nested"));
  }
}

TEST_CASE("a refused or failing file is reported as what it is", "[pair]") {
  const pair_fixture files(three_records);
  faulty_io door;
  const auto home = files.scratch().open(door);
  for (std::size_t fault = 0;; ++fault) {
    INFO("fault at operation " << fault);
    const auto faults_before = door.fault_count();
    door.fail_at(door.operation_count() + fault, errc::permission_denied);
    const auto pair = read_lightrag_pair(*home, "x", 2);
    if (door.fault_count() == faults_before) {
      CHECK(pair.has_value());
      CHECK(fault >= 10);
      break;
    }
    CHECK(failure_of(pair).code == errc::permission_denied);
  }
}

TEST_CASE("a pair that is replaced while it is read is read again", "[pair]") {
  const pair_fixture files(R"({"0": {"__id__": "old"}})");
  const auto replace = [&](const std::filesystem::path& path,
                           std::string_view content) {
    const auto next = files.scratch() / "next";
    write_file(next, content);
    std::filesystem::rename(next, path);
  };
  faulty_io door;
  const auto home = files.scratch().open(door);
  const auto when = GENERATE(operation_kind::open_file, operation_kind::map);
  const auto* read_file_name = GENERATE(".index", ".meta.json");
  int changes_left = GENERATE(1, 4);
  door.set_hook([&](const operation& what) {
    if (what.kind == when && what.path.ends_with(read_file_name)
        && changes_left-- > 0) {
      replace(files.index_path(), index_of({{0, 1}}));
      replace(files.meta_path(), R"({"0": {"__id__": "new"}})");
    }
    return fault::none();
  });
  const auto pair = need(read_lightrag_pair(*home, "x", 2));
  CHECK(ids_of(pair) == std::vector<std::string>{"new"});
  CHECK(vector_of(pair, 0) == std::vector<float>{0, 1});
}

TEST_CASE("a pair that keeps changing is busy", "[pair]") {
  const pair_fixture files(three_records);
  faulty_io door;
  const auto home = files.scratch().open(door);
  const auto changed_file =
      GENERATE(true, false) ? files.index_path() : files.meta_path();
  const bool in_place = GENERATE(true, false);
  std::int64_t time = 1000;
  door.set_hook([&](const operation& what) {
    if (what.kind == operation_kind::open_file) {
      if (!in_place) {
        const auto next = files.scratch() / "next";
        std::filesystem::copy_file(changed_file, next);
        std::filesystem::rename(next, changed_file);
      }
      set_age(changed_file, ++time);
    }
    return fault::none();
  });
  const auto why = failure_of(read_lightrag_pair(*home, "x", 2));
  CHECK(why.code == errc::busy);
  CHECK(contains(why.message, files.index_path().string()));
}

TEST_CASE("what was read does not change when the files do", "[pair]") {
  const pair_fixture files(three_records);
  const auto pair = files.read();
  write_file(files.index_path(), "");
  write_file(files.meta_path(), "");
  CHECK(ids_of(pair) == std::vector<std::string>{"a", "b", "c"});
  CHECK(vector_of(pair, 1) == std::vector<float>{0, 1});
}

// -- Pairs whose files do not fit ---------------------------------------------

TEST_CASE("records beyond the index are embedded from their content",
          "[pair][B22]") {
  const pair_fixture files(
      R"({"2": {"__id__": "c"}, "3": {"__id__": "d", "content": "x"}, )"
      R"("4": {"__id__": "e", "content": null}, "0": {"__id__": "a"}, )"
      R"("18446744073709551615": {"__id__": "f", "content": ""}, )"
      R"("1": {"__id__": "b"}})");
  const auto pair = files.read();
  check_report(pair.report,
               {.records_to_embed = 2, .records_without_vector = 1});
  CHECK_FALSE(pair.report.lossless());
  CHECK(ids_of(pair) == std::vector<std::string>{"a", "b", "c"});
  REQUIRE(pair.to_embed.size() == 2);
  CHECK(pair.to_embed[0].id == "d");
  CHECK(pair.to_embed[0].record == R"({"__id__": "d", "content": "x"})");
  CHECK(pair.to_embed[1].id == "f");
}

TEST_CASE("rows whose vector is not finite are embedded again", "[pair][B22]") {
  const pair_fixture files(
      index_of({{1, 0}, {nan_float, 0}, {0, infinite_float}}),
      R"({"0": {"__id__": "a"}, "1": {"__id__": "b", "content": "x"}, )"
      R"("2": {"__id__": "c"}})");
  const auto pair = files.read();
  check_report(pair.report,
               {.records_to_embed = 1, .records_without_vector = 1});
  CHECK(ids_of(pair) == std::vector<std::string>{"a", "", ""});
  CHECK(vector_of(pair, 1) == std::vector<float>{0, 0});
  CHECK(vector_of(pair, 2) == std::vector<float>{0, 0});
  CHECK(pair.to_embed.at(0).id == "b");
  as_base(files.home(), pair);
}

TEST_CASE("zero vectors stay as they are", "[pair][B47]") {
  const pair_fixture files(
      index_of({{0, 0}, {1, 0}}),
      R"({"0": {"__id__": "a"}, "1": {"__id__": "b", "__vector__": [0, 0.0]}})");
  const auto pair = files.read();
  CHECK(pair.report.lossless());
  CHECK(vector_of(pair, 0) == std::vector<float>{0, 0});
  CHECK(vector_of(pair, 1) == std::vector<float>{0, 0});
}

TEST_CASE("a vector in a record wins over the index and leaves the record",
          "[pair][B22]") {
  const pair_fixture files(
      R"({"0": {"__vector__": [0.0, 1], "__id__": "a"}, )"
      R"("1": {"__id__": "b", "__vector__": [3, 4], "x":1}, )"
      R"("2": {"__id__": "c", "\u005f_vector__": [0.6, 0.8]}})");
  const auto pair = files.read();
  CHECK(pair.report.lossless());
  CHECK(vector_of(pair, 0) == std::vector<float>{0, 1});
  CHECK(vector_of(pair, 1) == std::vector<float>{0.6f, 0.8f});
  CHECK(vector_of(pair, 2) == std::vector<float>{0.6f, 0.8f});
  CHECK(record_of(pair, 0) == R"({"__id__": "a"})");
  CHECK(record_of(pair, 1) == R"({"__id__": "b", "x": 1})");
  CHECK(record_of(pair, 2) == R"({"__id__": "c"})");
  as_base(files.home(), pair);
}

TEST_CASE("a vector in a record is normalized only if it is clearly not",
          "[pair][B22]") {
  const pair_fixture files(
      R"({"0": {"__id__": "a", "__vector__": [1.0005, 0]}, )"
      R"("1": {"__id__": "b", "__vector__": [1.002, 0]}, )"
      R"("2": {"__id__": "c", "__vector__": [1e-30, 0]}})");
  const auto pair = files.read();
  CHECK(vector_of(pair, 0) == std::vector<float>{1.0005f, 0});
  CHECK(vector_of(pair, 1) == std::vector<float>{1, 0});
  CHECK(vector_of(pair, 2) == std::vector<float>{1, 0});
}

TEST_CASE("an unusable vector in a record is dropped, the index's stays",
          "[pair][B22]") {
  const auto* vector = GENERATE("null", "[]", "[1]", "[1, 0, 0]", "[NaN, 0]",
                                "[Infinity, 0]", "[1e39, 0]", "[[1, 0]]",
                                R"("x")", R"(["x", "y"])", "[1e999, 0]");
  INFO(vector);
  const pair_fixture files(
      index_of({{1, 0}}),
      R"({"0": {"__id__": "a", "__vector__": )" + std::string(vector)
          + R"(}, "1": {"__id__": "b", "content": "x", "__vector__": )" + vector
          + "}}");
  const auto pair = files.read();
  check_report(pair.report, {.records_to_embed = 1});
  CHECK(vector_of(pair, 0) == std::vector<float>{1, 0});
  CHECK(record_of(pair, 0) == R"({"__id__": "a"})");
  CHECK(pair.to_embed.at(0).record == R"({"__id__": "b", "content": "x"})");
}

TEST_CASE("vectors in records make up for rows that the index lacks",
          "[pair][B19][B22]") {
  const pair_fixture files(
      R"({"0": {"__id__": "a", "__vector__": [1, 0]}, )"
      R"("2": {"__id__": "c", "__vector__": [0, 1]}, )"
      R"("3": {"__id__": "d", "content": "x"}, )"
      R"("1000000": {"__id__": "e", "content": "x", "__vector__": [0, 1]}})");
  std::filesystem::remove(files.index_path());
  const auto pair = files.read();
  check_report(pair.report, {.records_to_embed = 2});
  CHECK(ids_of(pair) == std::vector<std::string>{"a", "", "c"});
  CHECK(vector_of(pair, 1) == std::vector<float>{0, 0});
  CHECK(vector_of(pair, 2) == std::vector<float>{0, 1});
  CHECK(pair.to_embed.at(0).id == "d");
  CHECK(pair.to_embed.at(1).id == "e");
  as_base(files.home(), pair);
}

TEST_CASE("a key that is no plain row number is refused by name",
          "[pair][B23]") {
  const std::string key =
      GENERATE("-1", " 0", "0 ", "+1", "01", "00", "1_0", "1.0", "1e0", "",
               "0x1", "\xD9\xA1", "18446744073709551616");
  INFO(key);
  const pair_fixture files(R"({"0": {"__id__": "a"}, ")" + key
                           + R"(": {"__id__": "b"}})");
  const auto why = files.error();
  CHECK(why.code == errc::corrupt);
  CHECK(contains(why.message, '"' + key + '"'));
}

TEST_CASE("of two records with the same key the later one counts",
          "[pair][B23]") {
  const pair_fixture files(
      R"({"1": {"__id__": "old"}, "2": {"__id__": "c"}, "0": {"__id__": "a"}, )"
      R"("1": {"__id__": "b"}, "2": {}})");
  const auto pair = files.read();
  check_report(pair.report, {.orphan_vectors = 1});
  CHECK(ids_of(pair) == std::vector<std::string>{"a", "b", ""});
}

TEST_CASE("many repeated keys are resolved in the order of the file",
          "[pair][B23]") {
  std::string meta = "{";
  for (const std::string version : {"old", "new"})
    for (int row = 99; row >= 0; --row)
      meta += (meta.size() > 1 ? ", \"" : "\"") + std::to_string(row)
              + R"(": {"__id__": ")" + version + std::to_string(row) + R"("})";
  const pair_fixture files(
      index_of(std::vector<std::vector<float>>(100, {1, 0})), meta + "}");
  const auto pair = files.read();
  CHECK(pair.report.lossless());
  for (row_number row = 0; row < 100; ++row)
    CHECK(id_of(pair, row) == "new" + std::to_string(row));
}

TEST_CASE("vectors that no record names are counted and become holes",
          "[pair][B24][B26]") {
  const pair_fixture files(R"({"1": {"__id__": "b"}, "2": { }})");
  const auto pair = files.read();
  check_report(pair.report, {.orphan_vectors = 2});
  CHECK_FALSE(pair.report.lossless());
  CHECK(ids_of(pair) == std::vector<std::string>{"", "b", ""});
  CHECK(vector_of(pair, 0) == std::vector<float>{1, 0});
  const auto rows = as_base(files.home(), pair);
  CHECK(rows->initial_liveness().count() == 1);
}

TEST_CASE("records without a usable id are counted and become holes",
          "[pair][B26]") {
  const std::string id =
      GENERATE(as<std::string>(), R"("content": "x")", R"("__id__": null)",
               R"("__id__": "")", R"("__id__": 1.5)", R"("__id__": true)",
               R"("__id__": ["a", "b"])",
               R"("__id__": ")" + std::string(1025, 'x') + "\"");
  const pair_fixture files(
      R"({"0": {)" + id + R"(}, "1": {"__id__": "b"}, "2": {"__id__": "c"}})");
  const auto pair = files.read();
  check_report(pair.report, {.records_without_id = 1});
  CHECK(ids_of(pair) == std::vector<std::string>{"", "b", "c"});
}

TEST_CASE("of rows with the same id the highest stays", "[pair][B27]") {
  const pair_fixture files(
      R"({"0": {"__id__": "7"}, "2": {"__id__": "\u0037"}, "1": {"__id__": 7}})");
  const auto pair = files.read();
  check_report(pair.report, {.duplicate_ids = 2});
  CHECK(ids_of(pair) == std::vector<std::string>{"", "", "7"});
  as_base(files.home(), pair);
}

TEST_CASE("a record that cannot be kept does not displace an older one",
          "[pair][B27]") {
  const pair_fixture files(index_of({{1, 0}}),
                           R"({"0": {"__id__": "a"}, "1": {"__id__": "a"}, )"
                           R"("2": {"__id__": "b", "content": "old"}, )"
                           R"("3": {"__id__": "b", "content": "new"}})");
  const auto pair = files.read();
  check_report(
      pair.report,
      {.duplicate_ids = 1, .records_to_embed = 1, .records_without_vector = 1});
  CHECK(id_of(pair, 0) == "a");
  REQUIRE(pair.to_embed.size() == 1);
  CHECK(contains(pair.to_embed[0].record, "new"));
}
