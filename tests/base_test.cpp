#include "core/base.hpp"
#include "core/bytes.hpp"
#include "core/catalog.hpp"
#include "core/index_file.hpp"
#include "core/json_text.hpp"
#include "tests/support/faulty_io.hpp"
#include "tests/support/scratch_directory.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <random>
#include <sys/stat.h>

using namespace callboard;
using namespace callboard::test;

namespace {

constexpr store_id some_store = {std::byte{1}, std::byte{2}, std::byte{3}};
constexpr std::uint64_t epoch = 3;
constexpr std::uint32_t file_mode = 0640;

using moves = std::vector<std::pair<row_number, row_number>>;

struct row_data {
  std::string id; // empty: a hole
  std::string record;
  std::vector<float> vector;
};

row_data hole(std::vector<float> vector) {
  return {"", "", std::move(vector)};
}

row_data simple_row(const std::string& id, std::vector<float> vector,
                    const std::string& more = "") {
  return {id,
          R"({"__id__": )" + json_text::encode_string(id)
              + R"(, "__created_at__": 1700000000)" + more + "}",
          std::move(vector)};
}

class rows_in_memory final : public base_source {
public:
  explicit rows_in_memory(std::vector<row_data> rows, moves planned = {})
      : rows_(std::move(rows)), planned_(std::move(planned)) {}

  std::size_t row_count() const override { return rows_.size(); }
  std::size_t live_count() const override {
    return static_cast<std::size_t>(
        std::count_if(rows_.begin(), rows_.end(),
                      [](const row_data& row) { return !row.id.empty(); }));
  }
  result<std::span<const std::byte>> vector(row_number row) override {
    return std::as_bytes(std::span(rows_[row].vector));
  }
  result<std::optional<base_row>> record(row_number row) override {
    if (rows_[row].id.empty())
      return std::optional<base_row>();
    return std::optional(base_row{rows_[row].id, rows_[row].record});
  }
  moves planned_moves() override { return planned_; }

private:
  std::vector<row_data> rows_;
  moves planned_;
};

/// Four rows of two floats, one a hole that holds a copy of row 3's vector.
std::vector<row_data> few_rows() {
  return {
      simple_row("a", {1, 0}, R"(, "src_id": "Rome", "tgt_id": "Oslo")"),
      hole({0.6f, 0.8f}),
      simple_row("b", {0, 1}, R"(, "src_id": "Oslo", "tgt_id": "Rome")"),
      simple_row("Zo\xC3\xAB", {0.6f, 0.8f}, R"(, "src_id": "Rome")"),
  };
}

class base_fixture {
public:
  explicit base_fixture(std::vector<row_data> rows = few_rows(),
                        moves planned = {}, std::uint32_t dimension = 2)
      : home_(scratch_.open()) {
    rows_in_memory source(std::move(rows), std::move(planned));
    descriptor_ = need(
        write_base(*home_, some_store, epoch, dimension, file_mode, source));
  }

  std::filesystem::path index_path() const {
    return scratch_ / base_index_name(epoch);
  }
  std::filesystem::path meta_path() const {
    return scratch_ / base_meta_name(epoch);
  }
  std::filesystem::path catalog_path() const {
    return scratch_ / base_catalog_name(epoch);
  }
  const scratch_directory& scratch() const { return scratch_; }
  directory& home() const { return *home_; }
  const base_descriptor& descriptor() const { return descriptor_; }

  result<std::shared_ptr<const base>>
  try_open(map_mode mode = map_mode::shared) const {
    return base::open(posix_io(), *home_, descriptor_, mode);
  }
  std::shared_ptr<const base> open(map_mode mode = map_mode::shared) const {
    return need(try_open(mode));
  }

private:
  scratch_directory scratch_;
  std::unique_ptr<directory> home_;
  base_descriptor descriptor_;
};

std::vector<row_number> rows_with(const base& rows, indexed_field field,
                                  std::string_view value) {
  std::vector<row_number> found;
  rows.for_each_posting(field, value,
                        [&](row_number row) { found.push_back(row); });
  return found;
}

std::vector<float> vector_of(const base& rows, row_number row) {
  const auto bytes = need(rows.vector(row));
  std::vector<float> vector(rows.dimension());
  REQUIRE(bytes.size() == vector.size() * sizeof(float));
  std::memcpy(vector.data(), bytes.data(), bytes.size());
  return vector;
}

/// That `rows` answers for all of `expected`, and for nothing else.
void check_rows(const base& rows, const std::vector<row_data>& expected) {
  REQUIRE(rows.row_count() == expected.size());
  const auto alive = rows.initial_liveness();
  std::size_t live_count = 0;
  for (row_number row = 0; row < expected.size(); ++row) {
    const auto& each = expected[row];
    CHECK(alive.test(row) == !each.id.empty());
    if (each.id.empty())
      continue;
    ++live_count;
    CHECK(rows.find(each.id) == row);
    CHECK(rows.id(row) == each.id);
    CHECK(need(rows.record(row)) == each.record);
    CHECK(vector_of(rows, row) == each.vector);
  }
  CHECK(alive.count() == live_count);
  CHECK_FALSE(rows.find("no such id"));
  CHECK_FALSE(rows.find(""));
}

void check_few_rows(const base& rows) {
  check_rows(rows, few_rows());
  using rows_found = std::vector<row_number>;
  const auto src = indexed_field::src_id;
  const auto tgt = indexed_field::tgt_id;
  CHECK(rows_with(rows, src, "Rome") == rows_found{0, 3});
  CHECK(rows_with(rows, src, "Oslo") == rows_found{2});
  CHECK(rows_with(rows, tgt, "Rome") == rows_found{2});
  CHECK(rows_with(rows, tgt, "Oslo") == rows_found{0});
  CHECK(rows_with(rows, tgt, "Bonn").empty());
}

class bytes_in_memory final : public mapping {
public:
  explicit bytes_in_memory(std::string_view content)
      : bytes_(as_bytes(content).begin(), as_bytes(content).end()) {}
  std::span<const std::byte> bytes() const noexcept override { return bytes_; }

private:
  std::vector<std::byte> bytes_;
};

result<std::unique_ptr<const catalog>>
parse(std::string_view content, const base_descriptor& descriptor) {
  return catalog::parse(std::make_unique<bytes_in_memory>(content), descriptor);
}

/// `content` with the checksums that it should have.
std::string resealed(std::string content) {
  auto bytes = std::as_writable_bytes(std::span(content));
  store_at(bytes, offsetof(catalog_header, body_checksum),
           checksum(bytes.subspan(sizeof(catalog_header))));
  const auto header_offset = offsetof(catalog_header, header_checksum);
  store_at(bytes, header_offset, checksum(bytes.first(header_offset)));
  return content;
}

/// Changes a catalog's bytes; `content` has right checksums.
class catalog_editor {
public:
  explicit catalog_editor(std::string content) : content_(std::move(content)) {}

  std::string content() const { return resealed(content_); }
  catalog_header header() const {
    return load<catalog_header>(as_bytes(content_), 0);
  }

  template <class T>
  void set(std::size_t offset, const T& value) {
    store_at(std::as_writable_bytes(std::span(content_)), offset, value);
  }
  template <class T, class Change>
  void each(std::size_t begin, std::size_t end, Change change) {
    for (auto offset = begin; offset < end; offset += sizeof(T)) {
      auto value = load<T>(as_bytes(content_), offset);
      change(value);
      set(offset, value);
    }
  }
  /// Exchanges the two values at `offset`.
  template <class T>
  void swap(std::size_t offset) {
    const auto first = load<T>(as_bytes(content_), offset);
    const auto second = load<T>(as_bytes(content_), offset + sizeof(T));
    set(offset, second);
    set(offset + sizeof(T), first);
  }

private:
  std::string content_;
};

failure failure_of_writing(std::vector<row_data> rows, moves planned = {}) {
  scratch_directory scratch;
  rows_in_memory source(std::move(rows), std::move(planned));
  return failure_of(
      write_base(*scratch.open(), some_store, epoch, 2, file_mode, source));
}

std::uint32_t mode_of(const directory& home, const std::string& name) {
  return need(home.status(name)).mode;
}

std::mt19937_64 generator_with_seed(std::uint64_t seed) {
  return std::mt19937_64(seed);
}

} // namespace

TEST_CASE("a base answers with what it was written from", "[base]") {
  const auto mode = GENERATE(map_mode::shared, map_mode::copied);
  const base_fixture files;
  const auto rows = files.open(mode);
  check_few_rows(*rows);
  need(rows->verify());
  CHECK(rows->dimension() == 2);
  CHECK(files.descriptor().live_count == 3);
}

TEST_CASE("a base's files are what Python's json and faiss write",
          "[base][B7][B8]") {
  const base_fixture files(
      {simple_row("a", {1, 0}), hole({0, 0}), simple_row("b", {0, 1})});
  CHECK(read_file(files.meta_path())
        == R"({"0": {"__id__": "a", "__created_at__": 1700000000}, )"
           R"("2": {"__id__": "b", "__created_at__": 1700000000}})");
  std::string index(as_text(encode_index_header({2, 3})));
  for (const float component : {1.0f, 0.0f, 0.0f, 0.0f, 0.0f, 1.0f})
    index += as_text(std::as_bytes(std::span(&component, 1)));
  CHECK(read_file(files.index_path()) == index);
}

TEST_CASE("a base without rows is an empty pair", "[base][B8]") {
  const base_fixture files(std::vector<row_data>{});
  CHECK(read_file(files.meta_path()) == "{}");
  CHECK(read_file(files.index_path()).size() == index_header_bytes);
  const auto rows = files.open();
  check_rows(*rows, {});
  need(rows->verify());
}

TEST_CASE("a base may consist of holes", "[base]") {
  const base_fixture files({hole({0, 1}), hole({1, 0})});
  CHECK(read_file(files.meta_path()) == "{}");
  const auto rows = files.open();
  check_rows(*rows, {hole({0, 1}), hole({1, 0})});
  need(rows->verify());
}

TEST_CASE("a base of random rows finds the same as a map does", "[base]") {
  const auto seed = GENERATE(range<std::uint64_t>(1, 4));
  INFO("seed " << seed);
  auto random = generator_with_seed(seed);
  const auto below = [&](std::uint64_t limit) { return random() % limit; };
  std::vector<row_data> expected;
  std::map<std::string, row_number> by_id;
  std::map<std::string, std::vector<row_number>> by_source;
  while (by_id.size() < 2000) {
    const auto row = static_cast<row_number>(expected.size());
    const std::vector<float> vector = {static_cast<float>(below(100)), 1, 2};
    const auto id =
        "id-" + std::string(below(20), 'x') + std::to_string(below(1'000'000));
    if (below(5) == 0 || by_id.contains(id)) {
      expected.push_back(hole(vector));
      continue;
    }
    const auto source = std::to_string(below(300));
    expected.push_back(
        simple_row(id, vector, R"(, "src_id": ")" + source + R"(")"));
    by_id[id] = row;
    by_source[source].push_back(row);
  }
  const base_fixture files(expected, {}, 3);
  const auto rows = files.open();
  check_rows(*rows, expected);
  for (const auto& [source, found] : by_source)
    CHECK(rows_with(*rows, indexed_field::src_id, source) == found);
  for (int i = 0; i < 2000; ++i) {
    const auto id = "id-" + std::to_string(below(1'000'000));
    CHECK(rows->find(id).has_value() == by_id.contains(id));
  }
  need(rows->verify());
}

TEST_CASE("ids are found whatever bytes they have", "[base][B10]") {
  const std::vector<row_data> expected = {
      simple_row(std::string(1024, 'x'), {1, 0}),
      simple_row(std::string("nul\0id", 6), {1, 0}),
      simple_row("\xF0\x9F\x9A\x80", {0, 1}),
      simple_row("\xED\xA0\x80", {0, 1}), // a lone surrogate
      {"70", R"({"__id__": 70})", {0, 1}},
      {"last", R"({"__id__": "first", "__id__": "last"})", {0, 1}},
  };
  const base_fixture files(expected);
  const auto rows = files.open();
  check_rows(*rows, expected);
  need(rows->verify());
}

TEST_CASE("postings hold the last of repeated fields, and strings only",
          "[base]") {
  const base_fixture files({
      simple_row("a", {1, 0}, R"(, "src_id": "x", "src_id": "\u00eb")"),
      simple_row("b", {1, 0}, R"(, "src_id": "x", "src_id": 7)"),
      simple_row("c", {1, 0}, R"(, "src_id": "")"),
  });
  const auto rows = files.open();
  using rows_found = std::vector<row_number>;
  const auto field = indexed_field::src_id;
  CHECK(rows_with(*rows, field, "x").empty());
  CHECK(rows_with(*rows, field, "\xC3\xAB") == rows_found{0});
  CHECK(rows_with(*rows, field, "") == rows_found{2});
  CHECK(rows_with(*rows, indexed_field::tgt_id, "").empty());
}

TEST_CASE("planned moves are read back as they were written", "[base]") {
  const moves planned = {{3, 1}};
  const base_fixture files(few_rows(), planned);
  const auto rows = files.open();
  CHECK(rows->planned_moves() == planned);
  need(rows->verify());
}

TEST_CASE("verification notices a planned move whose copy is missing",
          "[base]") {
  auto changed = few_rows();
  changed[1] = hole({1, 0});
  const base_fixture files(changed, {{3, 1}});
  const auto why = failure_of(files.open()->verify());
  CHECK(why.code == errc::corrupt);
  CHECK(contains(why.message, "row 3"));
}

TEST_CASE("a base's pair has the mode that was asked for, its catalog is "
          "private",
          "[base]") {
  const base_fixture files;
  CHECK(mode_of(files.home(), base_index_name(epoch)) == file_mode);
  CHECK(mode_of(files.home(), base_meta_name(epoch)) == file_mode);
  CHECK(mode_of(files.home(), base_catalog_name(epoch)) == 0600);
}

TEST_CASE("a new base replaces debris of the same name", "[base]") {
  scratch_directory scratch;
  for (const auto& name : {base_index_name(epoch), base_meta_name(epoch),
                           base_catalog_name(epoch)})
    write_file(scratch / name, std::string(10'000, 'x'));
  const auto home = scratch.open();
  rows_in_memory source(few_rows());
  const auto descriptor =
      need(write_base(*home, some_store, epoch, 2, file_mode, source));
  check_few_rows(
      *need(base::open(posix_io(), *home, descriptor, map_mode::shared)));
}

TEST_CASE("a base stays readable when its files are gone", "[base]") {
  const base_fixture files;
  const auto rows = files.open();
  std::filesystem::remove_all(files.scratch().path());
  check_few_rows(*rows);
}

TEST_CASE("rows that do not fit together are not written", "[base]") {
  CHECK(contains(
      failure_of_writing({simple_row("a", {1, 0}), simple_row("a", {1, 0})})
          .message,
      "same id"));
  auto row = simple_row("a", {1, 0});
  row.id = "b";
  CHECK(contains(failure_of_writing({row}).message, "another __id__"));
  CHECK(failure_of_writing({simple_row("a", {1, 0, 0})}).code
        == errc::invalid_argument);
  CHECK(failure_of_writing({simple_row(std::string(1025, 'x'), {1, 0})}).code
        == errc::invalid_argument);
  for (const auto* record :
       {"", "{", "[]", R"({"__id__": "a"} )", R"({"__id__": null})",
        R"({"content": "x"})", "{\"__id__\":\n\"a\"}", R"({"__id__": "a"}})"}) {
    INFO(record);
    CHECK(failure_of_writing({{"a", record, {1, 0}}}).code
          == errc::invalid_argument);
  }
}

TEST_CASE("moves that are none are not written", "[base]") {
  const moves planned = GENERATE(values<moves>({
      {{1, 3}},         // of a hole
      {{3, 2}},         // to a row
      {{4, 1}},         // of no row
      {{3, 4}},         // to no row
      {{2, 1}, {3, 1}}, // rising
      {{3, 1}, {3, 1}},
  }));
  CHECK(failure_of_writing(few_rows(), planned).code == errc::invalid_argument);
}

TEST_CASE("a source that says another number of rows is not written",
          "[base]") {
  class liar final : public base_source {
  public:
    std::size_t row_count() const override { return rows; }
    std::size_t live_count() const override { return 5; }
    result<std::span<const std::byte>> vector(row_number) override {
      return std::as_bytes(std::span(components));
    }
    result<std::optional<base_row>> record(row_number) override {
      return std::optional<base_row>();
    }
    moves planned_moves() override { return {}; }

    std::size_t rows = 2;
    std::vector<float> components = {0, 0};
  } source;
  scratch_directory scratch;
  const auto home = scratch.open();
  const auto write = [&](std::uint32_t dimension) {
    return write_base(*home, some_store, epoch, dimension, file_mode, source);
  };
  CHECK(failure_of(write(2)).code == errc::invalid_argument);
  CHECK(failure_of(write(0)).code == errc::invalid_argument);
  CHECK(failure_of(write(dimension_max + 1)).code == errc::invalid_argument);
  source.rows = std::size_t{row_count_max} + 1;
  CHECK(failure_of(write(2)).code == errc::too_large);
}

TEST_CASE("a base larger than a write buffer is written whole", "[base]") {
  std::vector<row_data> expected;
  for (int i = 0; i < 3; ++i)
    expected.push_back(
        simple_row("row" + std::to_string(i), std::vector<float>(40'000, 0.5f),
                   R"(, "content": ")"
                       + std::string(i == 1 ? 3'000'000 : 400'000,
                                     static_cast<char>('a' + i))
                       + "\""));
  const base_fixture files(expected, {}, 40'000);
  const auto rows = files.open();
  check_rows(*rows, expected);
  need(rows->verify());
}

TEST_CASE("long runs of zeros in an index take no room", "[base]") {
  constexpr std::uint32_t dimension = 1024;
  const std::vector<float> zeros(dimension);
  std::vector<float> unit(dimension);
  unit[1] = 1;
  std::vector<row_data> expected(1000, hole(zeros));
  const bool ends_in_hole = GENERATE(true, false);
  expected[0] = simple_row("a", unit);
  expected[2] = simple_row("b", unit);
  expected[ends_in_hole ? 700 : 999] = simple_row("c", unit);
  const base_fixture files(expected, {}, dimension);
  const auto rows = files.open();
  check_rows(*rows, expected);
  need(rows->verify());
  struct stat status {};
  REQUIRE(::stat(files.index_path().c_str(), &status) == 0);
  CHECK(std::uint64_t(status.st_size) == files.descriptor().index_bytes);
  CHECK(status.st_blocks * 512 < status.st_size / 10);
}

// -- The catalog --------------------------------------------------------------

TEST_CASE("a missing catalog is made again", "[base][catalog]") {
  const base_fixture files;
  const auto written = read_file(files.catalog_path());
  std::filesystem::remove(files.catalog_path());
  check_few_rows(*files.open());
  CHECK(read_file(files.catalog_path()) == written);
  CHECK(need(files.home().list()).size() == 3);
  CHECK(mode_of(files.home(), base_catalog_name(epoch)) == 0600);
}

TEST_CASE("a catalog that is cut at any length is made again",
          "[base][catalog]") {
  const base_fixture files;
  const auto written = read_file(files.catalog_path());
  for (std::size_t size = 0; size < written.size(); size += 13) {
    INFO("cut to " << size << " bytes");
    write_file(files.catalog_path(), written.substr(0, size));
    check_few_rows(*files.open());
    CHECK(read_file(files.catalog_path()) == written);
  }
  write_file(files.catalog_path(), written + "x");
  check_few_rows(*files.open());
  CHECK(read_file(files.catalog_path()) == written);
}

TEST_CASE("every flipped bit of a catalog is noticed", "[base][catalog]") {
  const base_fixture files(few_rows(), {{3, 1}});
  const auto written = read_file(files.catalog_path());
  REQUIRE(parse(written, files.descriptor()).has_value());
  for (std::size_t bit = 0; bit < 8 * written.size(); ++bit) {
    const auto flipped =
        parse(with_flipped_bit(written, bit), files.descriptor());
    if (flipped || flipped.error().code != errc::corrupt)
      FAIL("bit " << bit << " was not noticed");
  }
}

TEST_CASE("a catalog with a flipped bit is made again", "[base][catalog]") {
  const base_fixture files;
  const auto written = read_file(files.catalog_path());
  for (std::size_t bit = 0; bit < 8 * written.size(); bit += 101) {
    INFO("bit " << bit);
    write_file(files.catalog_path(), with_flipped_bit(written, bit));
    check_few_rows(*files.open());
    CHECK(read_file(files.catalog_path()) == written);
  }
}

TEST_CASE("a catalog of another base is made again", "[base][catalog]") {
  auto rows = few_rows();
  rows[0].vector = {0, 1};
  const base_fixture other(rows);
  const base_fixture files;
  const auto written = read_file(files.catalog_path());
  write_file(files.catalog_path(), read_file(other.catalog_path()));
  check_few_rows(*files.open());
  CHECK(read_file(files.catalog_path()) == written);
}

TEST_CASE("each value that ties a catalog to its base is compared",
          "[base][catalog]") {
  const base_fixture files;
  const auto written = read_file(files.catalog_path());
  const auto check_refused = [&](auto change) {
    auto other = files.descriptor();
    change(other);
    CHECK_FALSE(parse(written, other));
  };
  check_refused([](base_descriptor& of) { of.store[15] = std::byte{9}; });
  check_refused([](base_descriptor& of) { ++of.epoch; });
  check_refused([](base_descriptor& of) { ++of.dimension; });
  check_refused([](base_descriptor& of) { ++of.index_bytes; });
  check_refused([](base_descriptor& of) { ++of.meta_bytes; });
  check_refused([](base_descriptor& of) { ++of.index_checksum; });
  check_refused([](base_descriptor& of) { ++of.meta_checksum; });
  check_refused([](base_descriptor& of) { ++of.row_count; });
  check_refused([](base_descriptor& of) { ++of.live_count; });
}

TEST_CASE("a catalog that lies under right checksums does no harm",
          "[base][catalog]") {
  const base_fixture files(few_rows(), {{3, 1}});
  const auto written = read_file(files.catalog_path());
  const auto seed = GENERATE(range<std::uint64_t>(1, 9));
  INFO("seed " << seed);
  auto random = generator_with_seed(seed);
  const auto use = [](const catalog& rows) {
    const auto alive = rows.initial_liveness();
    for (row_number row = 0; row < 4; ++row) {
      if (alive.test(row))
        static_cast<void>(rows.find(rows.id(row)));
      const auto entry = rows.row(row);
      CHECK(entry.record_offset <= 1000);
    }
    static_cast<void>(rows.find("a"));
    static_cast<void>(rows.find("no such id"));
    const auto check_row = [&](row_number row) { CHECK(alive.test(row)); };
    rows.for_each_posting(indexed_field::src_id, "Rome", check_row);
    for (const auto& [from, to] : rows.moves())
      CHECK((alive.test(from) && !alive.test(to)));
  };
  for (int i = 0; i < 3000; ++i) {
    auto changed = written;
    const auto changes = 1 + random() % 3;
    for (std::uint64_t change = 0; change < changes; ++change) {
      const std::uint32_t values[] = {
          0,           1,
          3,           4,
          0x7fff'ffff, 0x8000'0000,
          0xffff'ffff, static_cast<std::uint32_t>(random())};
      store_at(std::as_writable_bytes(std::span(changed)),
               random() % (written.size() / 4) * 4,
               values[random() % std::size(values)]);
    }
    if (const auto parsed = parse(resealed(changed), files.descriptor()))
      use(**parsed);
  }
}

TEST_CASE("a catalog whose sections contradict each other is refused",
          "[base][catalog]") {
  auto rows = few_rows();
  rows.push_back(simple_row("c", {1, 0}));
  rows.push_back(hole({1, 0}));
  const base_fixture files(rows, {{4, 5}, {3, 1}});
  const catalog_editor written(read_file(files.catalog_path()));
  const auto header = written.header();
  const auto check_refused = [&](const catalog_editor& changed) {
    const auto parsed = parse(changed.content(), files.descriptor());
    CHECK(failure_of(parsed).code == errc::corrupt);
  };
  CHECK(parse(written.content(), files.descriptor()));

  SECTION("a table of ids without a free slot") {
    auto changed = written;
    changed.each<catalog_slot>(header.slots_offset, header.postings_offset,
                               [](catalog_slot& slot) {
                                 if (slot.row_plus_1 == 0)
                                   slot = {1, 1};
                               });
    check_refused(changed);
  }
  SECTION("a table of ids without one of the rows") {
    auto changed = written;
    changed.each<catalog_slot>(header.slots_offset, header.postings_offset,
                               [](catalog_slot& slot) {
                                 if (slot.row_plus_1 == 1)
                                   slot = {};
                               });
    check_refused(changed);
  }
  SECTION("a row less than the header says") {
    auto changed = written;
    changed.set(header.bitmap_offset, std::uint64_t{0b011100});
    changed.set(header.rows_offset, catalog_row{});
    check_refused(changed);
  }
  SECTION("a bit for a row behind the last") {
    auto changed = written;
    changed.set(header.bitmap_offset, std::uint64_t{0b1011101});
    check_refused(changed);
  }
  SECTION("postings that are out of order") {
    auto changed = written;
    changed.swap<catalog_posting>(header.postings_offset);
    check_refused(changed);
  }
  SECTION("moves that are out of order") {
    auto changed = written;
    changed.swap<catalog_move>(header.moves_offset);
    check_refused(changed);
  }
}

TEST_CASE("ids are compared, not only their hashes", "[base][catalog]") {
  const base_fixture files;
  const auto written = read_file(files.catalog_path());
  for (int i = 0; i < 100; ++i) { // some of them begin at a slot in use
    const auto id = "other-" + std::to_string(i);
    const auto hash = checksum(as_bytes(id));
    catalog_editor edited(written);
    const auto header = edited.header();
    edited.each<catalog_slot>(
        header.slots_offset, header.postings_offset, [&](catalog_slot& slot) {
          if (slot.row_plus_1 != 0)
            slot.fingerprint = static_cast<std::uint32_t>(hash >> 32);
        });
    const auto rows = need(parse(edited.content(), files.descriptor()));
    CHECK_FALSE(rows->find(id));
  }
}

TEST_CASE("without room for a catalog it is kept in memory",
          "[base][catalog]") {
  const base_fixture files;
  std::filesystem::remove(files.catalog_path());
  const auto kind =
      GENERATE(operation_kind::create_file, operation_kind::write_at,
               operation_kind::sync, operation_kind::rename);
  INFO("failing: " << to_string(kind));
  faulty_io disk;
  const auto home = files.scratch().open(disk);
  disk.fail_from(kind, errc::no_space, faulty_io::persistence::persistent);
  const auto rows =
      need(base::open(posix_io(), *home, files.descriptor(), map_mode::shared));
  check_few_rows(*rows);
  need(rows->verify());
  CHECK(need(files.home().list()).size() == 2);
}

TEST_CASE("planned moves are forgotten with the catalog that held them",
          "[base][catalog]") {
  const base_fixture files(few_rows(), {{3, 1}});
  std::filesystem::remove(files.catalog_path());
  const auto rows = files.open();
  CHECK(rows->planned_moves().empty());
  check_few_rows(*rows);
  need(rows->verify());
}

// -- Damage -------------------------------------------------------------------

TEST_CASE("a changed byte of a record is reported when it is read",
          "[base][damage]") {
  const base_fixture files;
  auto meta = read_file(files.meta_path());
  const auto offset = meta.find("Rome", meta.find("\"3\""));
  meta[offset] = 'D';
  write_file(files.meta_path(), meta);
  const auto rows = files.open();
  CHECK(rows->record(0).has_value());
  const auto why = failure_of(rows->record(3));
  CHECK(why.code == errc::corrupt);
  CHECK(contains(why.message, files.meta_path().string()));
  CHECK(contains(why.message, "row 3"));
  CHECK(contains(why.message, "\"Zo\xC3\xAB\""));
  CHECK(contains(why.message, "callboard verify"));
  CHECK(failure_of(rows->verify()).code == errc::corrupt);
}

TEST_CASE("a changed byte of a vector is reported when it is read",
          "[base][damage]") {
  const base_fixture files;
  const auto index = read_file(files.index_path());
  const auto bit = 8 * (index_header_bytes + 2 * 2 * sizeof(float) + 1);
  write_file(files.index_path(), with_flipped_bit(index, bit));
  const auto rows = files.open();
  CHECK(rows->vector(0).has_value());
  const auto why = failure_of(rows->vector(2));
  CHECK(why.code == errc::corrupt);
  CHECK(contains(why.message, files.index_path().string()));
  CHECK(contains(why.message, "row 2"));
  CHECK(contains(why.message, "\"b\""));
  CHECK(failure_of(rows->verify()).code == errc::corrupt);
}

TEST_CASE("every flipped bit of a pair is refused at the opening or found by "
          "verification",
          "[base][damage]") {
  const base_fixture files;
  const bool is_index = GENERATE(true, false);
  const auto path = is_index ? files.index_path() : files.meta_path();
  const auto written = read_file(path);
  for (std::size_t bit = 0; bit < 8 * written.size(); ++bit) {
    write_file(path, with_flipped_bit(written, bit));
    const auto rows = files.try_open();
    if (!rows)
      continue;
    const auto found = (*rows)->verify();
    if (found || !contains(found.error().message, path.string()))
      FAIL("bit " << bit << " was not noticed");
  }
}

TEST_CASE("a catalog is not made from a damaged pair", "[base][damage]") {
  const base_fixture files;
  std::filesystem::remove(files.catalog_path());
  const bool is_index = GENERATE(true, false);
  const auto path = is_index ? files.index_path() : files.meta_path();
  const auto written = read_file(path);
  write_file(path, with_flipped_bit(written, 8 * written.size() - 20));
  const auto why = failure_of(files.try_open());
  CHECK(why.code == errc::corrupt);
  CHECK(contains(why.message, path.string()));
  CHECK_FALSE(std::filesystem::exists(files.catalog_path()));
}

TEST_CASE("a pair of another size than MANIFEST says is refused",
          "[base][damage]") {
  const base_fixture files;
  const bool is_index = GENERATE(true, false);
  const auto path = is_index ? files.index_path() : files.meta_path();
  const auto written = read_file(path);
  for (const auto& content :
       {std::string(), written.substr(1), written + "x"}) {
    write_file(path, content);
    const auto why = failure_of(files.try_open());
    CHECK(why.code == errc::corrupt);
    CHECK(contains(why.message, path.string()));
  }
}

TEST_CASE("a missing file of a pair is not found", "[base][damage]") {
  const base_fixture files;
  std::filesystem::remove(GENERATE(true, false) ? files.index_path()
                                                : files.meta_path());
  CHECK(failure_of(files.try_open()).code == errc::not_found);
}

TEST_CASE("a descriptor that its index does not match is refused",
          "[base][damage]") {
  const base_fixture files;
  auto descriptor = files.descriptor();
  descriptor.dimension = 4;
  CHECK(failure_of(
            base::open(posix_io(), files.home(), descriptor, map_mode::shared))
            .code
        == errc::corrupt);
  descriptor = files.descriptor();
  descriptor.row_count = std::numeric_limits<std::uint64_t>::max();
  CHECK(failure_of(
            base::open(posix_io(), files.home(), descriptor, map_mode::shared))
            .code
        == errc::corrupt);
}

TEST_CASE("a right checksum does not make a wrong meta file a base",
          "[base][damage]") {
  const base_fixture files;
  std::filesystem::remove(files.catalog_path());
  const auto* meta = GENERATE(
      R"({"0": {"__id__": "a"}, "0": {"__id__": "b"}, "1": {"__id__": "c"}})",
      R"({"0": {"__id__": "a"}, "1": {"__id__": "a"}, "2": {"__id__": "c"}})",
      R"({"0": {"__id__": "a"}, "4": {"__id__": "b"}, "1": {"__id__": "c"}})",
      R"({"0": {"__id__": "a"}, "01": {"__id__": "b"}, "2": {"__id__": "c"}})",
      R"({"0": {"__id__": "a"}, "1": {"__id__": "b"}})",
      R"({"0": {"__id__": "a"}, "1": {}, "2": {"__id__": "c"}})",
      R"({"0": {"__id__": "a"}, "1": [], "2": {"__id__": "c"}})",
      R"([{"__id__": "a"}, {"__id__": "b"}, {"__id__": "c"}])", "{", "");
  INFO(meta);
  write_file(files.meta_path(), meta);
  auto descriptor = files.descriptor();
  descriptor.meta_bytes = std::string_view(meta).size();
  descriptor.meta_checksum = checksum(as_bytes(meta));
  const auto why = failure_of(
      base::open(posix_io(), files.home(), descriptor, map_mode::shared));
  CHECK(why.code == errc::corrupt);
  CHECK(contains(why.message, files.meta_path().string()));
}

TEST_CASE("verification finds vectors that are not finite", "[base][damage]") {
  auto rows = few_rows();
  rows[1] = hole({std::numeric_limits<float>::infinity(), 0});
  need(base_fixture(rows).open()->verify());
  rows[2].vector = {0, std::numeric_limits<float>::quiet_NaN()};
  const auto why = failure_of(base_fixture(rows).open()->verify());
  CHECK(why.code == errc::corrupt);
  CHECK(contains(why.message, "row 2"));
}

// -- Failing disks ------------------------------------------------------------

TEST_CASE("a base is not there before all of it is durable", "[base][io]") {
  faulty_io disk;
  scratch_directory scratch;
  const auto home = scratch.open(disk);
  const auto first = disk.operation_count();
  rows_in_memory source(few_rows());
  need(write_base(*home, some_store, epoch, 2, file_mode, source));
  std::size_t synced = 0;
  for (const auto& each : disk.operations()) {
    if (each.index < first)
      continue;
    if (each.kind == operation_kind::sync)
      ++synced;
    if (each.kind == operation_kind::sync_directory)
      CHECK(synced == 3);
  }
  CHECK(disk.operations().back().kind == operation_kind::sync_directory);
}

TEST_CASE("each failure while a base is written is reported", "[base][io]") {
  for (std::size_t fault = 0;; ++fault) {
    scratch_directory scratch;
    faulty_io disk;
    const auto home = scratch.open(disk);
    disk.fail_at(disk.operation_count() + fault, errc::no_space);
    rows_in_memory source(few_rows());
    const auto outcome =
        write_base(*home, some_store, epoch, 2, file_mode, source);
    if (disk.fault_count() == 0) {
      CHECK(fault >= 10);
      break;
    }
    INFO("fault at operation " << fault);
    CHECK(failure_of(outcome).code == errc::no_space);
  }
}

TEST_CASE("each failure while a base is opened is reported, or does not "
          "matter",
          "[base][io]") {
  const bool has_catalog = GENERATE(true, false);
  const auto mode = GENERATE(map_mode::shared, map_mode::copied);
  for (std::size_t fault = 0;; ++fault) {
    INFO("fault at operation " << fault);
    const base_fixture files;
    if (!has_catalog)
      std::filesystem::remove(files.catalog_path());
    faulty_io disk;
    const auto home = files.scratch().open(disk);
    disk.fail_at(disk.operation_count() + fault, errc::io_failure);
    const auto rows = base::open(posix_io(), *home, files.descriptor(), mode);
    if (rows)
      check_few_rows(**rows);
    else
      CHECK(rows.error().code == errc::io_failure);
    if (disk.fault_count() == 0)
      break;
  }
}
