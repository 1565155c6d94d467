#include "core/delta.hpp"
#include "core/index_file.hpp"
#include "core/io.hpp"
#include "core/scan.hpp"
#include "core/search.hpp"
#include "tests/support/scratch_directory.hpp"

#include <catch2/catch.hpp>
#include <faiss/utils/distances.h>
#include <hwy/highway.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

using namespace callboard;
using namespace callboard::test;

namespace {

using floats = std::vector<float>;
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();
constexpr float infinite = std::numeric_limits<float>::infinity();
constexpr search_parameters everything{1'000'000, -2};

template <class T>
errc code_of(const result<T>& outcome) {
  REQUIRE_FALSE(outcome.has_value());
  return outcome.error().code;
}

std::span<const std::byte> bytes_of(const floats& values) {
  return std::as_bytes(std::span(values));
}

floats unit(floats values) {
  REQUIRE(normalize(values, "a test's vector"));
  return values;
}

/// Unit vectors around a few centres, so that scores are close and far.
class cluster_source {
public:
  cluster_source(std::size_t dimension, unsigned seed)
      : dimension_(dimension), random_(seed) {
    for (int i = 0; i < 7; ++i)
      centres_.push_back(noise());
  }

  floats next() {
    auto value = noise();
    const auto& centre = centres_[random_() % centres_.size()];
    for (std::size_t i = 0; i < dimension_; ++i)
      value[i] = centre[i] + 0.3F * value[i];
    return unit(value);
  }

  std::mt19937& random() { return random_; }

private:
  floats noise() {
    std::normal_distribution<float> normal;
    floats value(dimension_);
    for (auto& component : value)
      component = normal(random_);
    return value;
  }

  std::size_t dimension_;
  std::mt19937 random_;
  std::vector<floats> centres_;
};

/// Rows for `write_base`. A row without an id is a hole.
class test_rows : public base_source {
public:
  std::vector<std::pair<std::string, floats>> rows;

  std::size_t row_count() const override { return rows.size(); }
  std::size_t live_count() const override {
    return static_cast<std::size_t>(
        std::count_if(rows.begin(), rows.end(),
                      [](const auto& row) { return !row.first.empty(); }));
  }
  result<std::span<const std::byte>> vector(row_number row) override {
    return bytes_of(rows[row].second);
  }
  result<std::optional<base_row>> record(row_number row) override {
    if (rows[row].first.empty())
      return std::optional<base_row>{};
    text_ = R"({"__id__":")" + rows[row].first + R"(","__created_at__":1})";
    return std::optional(base_row{rows[row].first, text_});
  }
  std::vector<std::pair<row_number, row_number>> planned_moves() override {
    return {};
  }

private:
  std::string text_;
};

/// A base in a directory of its own, rows after it, and a view of both.
class test_store {
public:
  test_store(std::size_t dimension, test_rows rows)
      : rows_after_(std::make_shared<delta>(dimension)) {
    home_ = place_.open();
    descriptor_ =
        need(write_base(*home_, store_id{}, 1,
                        static_cast<std::uint32_t>(dimension), 0600, rows));
    open();
  }

  void append(const std::string& id, const floats& vector) {
    if (auto old = view()->find(id))
      alive_.clear(*old);
    const auto row = rows_after_->append(id, "{}", bytes_of(vector));
    alive_.set(static_cast<row_number>(base_->row_count() + row));
  }
  void remove(const std::string& id) { alive_.clear(*view()->find(id)); }

  /// Flips a bit of the vector of base row `row` on the disk.
  void damage(row_number row) {
    auto index =
        need(home_->open_file(base_index_name(1), open_mode::read_write));
    const auto place =
        index_header_bytes + row * base_->dimension() * sizeof(float);
    std::byte byte[1];
    REQUIRE(need(index->read_at(place, byte)) == 1);
    byte[0] ^= std::byte{1};
    REQUIRE(index->write_at(place, byte));
    open();
  }

  snapshot_ptr view() const {
    return std::make_shared<const snapshot>(
        base_, rows_after_, rows_after_->row_count(), alive_, 1, 0);
  }

private:
  void open() {
    base_ = need(base::open(posix_io(), *home_, descriptor_, map_mode::shared));
    alive_ = base_->initial_liveness();
  }

  scratch_directory place_;
  std::unique_ptr<directory> home_;
  base_descriptor descriptor_;
  std::shared_ptr<const base> base_;
  std::shared_ptr<delta> rows_after_;
  liveness alive_;
};

std::vector<scored_row> find(const test_store& store, const floats& query,
                             const search_parameters& parameters) {
  return need(search(*store.view(), query, parameters));
}

std::vector<std::string> ids_found(const test_store& store, const floats& query,
                                   const search_parameters& parameters) {
  const auto view = store.view();
  std::vector<std::string> ids;
  for (const auto& hit : need(search(*view, query, parameters)))
    ids.emplace_back(view->id(hit.row));
  return ids;
}

double product(std::span<const std::byte> vector, const floats& query) {
  double sum = 0;
  for (std::size_t i = 0; i < query.size(); ++i) {
    float component;
    std::memcpy(&component, vector.data() + i * sizeof(float), sizeof(float));
    sum += static_cast<double>(component) * static_cast<double>(query[i]);
  }
  return sum;
}

/// All live rows in the order of answers.
std::vector<scored_row> brute_force(const snapshot& view, const floats& query) {
  std::vector<scored_row> all;
  view.for_each_row([&](row_number row) {
    const auto vector = need(view.vector(row));
    const auto score =
        inner_product(bytes_of(query).data(), vector.data(), view.dimension());
    CHECK(std::abs(static_cast<double>(score) - product(vector, query)) < 1e-6);
    all.push_back({row, score});
    return true;
  });
  std::sort(all.begin(), all.end(),
            [&](const scored_row& a, const scored_row& b) {
              return a.score != b.score ? a.score > b.score
                                        : view.id(a.row) < view.id(b.row);
            });
  return all;
}

bool same_bits(const std::vector<scored_row>& a,
               const std::vector<scored_row>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const scored_row& x, const scored_row& y) {
                      return x.row == y.row
                             && std::bit_cast<std::uint32_t>(x.score)
                                    == std::bit_cast<std::uint32_t>(y.score);
                    });
}

void check_against_brute_force(const test_store& store, const floats& query) {
  const auto view = store.view();
  const auto all = brute_force(*view, query);
  REQUIRE(all.size() == view->live_count());
  for (std::size_t k : {std::size_t{1}, std::size_t{10}, all.size() + 1}) {
    auto expected = all;
    expected.resize(std::min(k, all.size()));
    CAPTURE(k);
    CHECK(same_bits(need(search(*view, query, {k, -2})), expected));
  }
}

/// `base_rows` rows with holes, then rows after them, some of which replace
/// earlier ones, then removals.
std::unique_ptr<test_store> busy_store(std::size_t dimension,
                                       std::size_t base_rows,
                                       cluster_source& source) {
  auto& random = source.random();
  test_rows rows;
  for (std::size_t i = 0; i < base_rows; ++i)
    rows.rows.emplace_back(random() % 4 ? "row-" + std::to_string(i) : "",
                           source.next());
  auto store = std::make_unique<test_store>(dimension, rows);
  for (std::size_t i = 0; i < base_rows; ++i)
    store->append("row-" + std::to_string(random() % (2 * base_rows + 1)),
                  source.next());
  for (std::size_t i = 0; i < base_rows / 4; ++i) {
    const auto id = "row-" + std::to_string(random() % (2 * base_rows));
    if (store->view()->find(id))
      store->remove(id);
  }
  return store;
}

} // namespace

TEST_CASE("search finds what comparing all rows finds", "[search]") {
  const auto seed = std::random_device{}();
  CAPTURE(seed);
  const std::size_t shapes[][2] = {
      {1, 50},   {2, 9},     {3, 3000},   {15, 100},  {16, 1},
      {17, 400}, {31, 65},   {48, 64},    {64, 700},  {384, 90},
      {768, 80}, {1025, 70}, {2, 20'000}, {40'000, 5}};
  for (const auto [dimension, base_rows] : shapes) {
    CAPTURE(dimension, base_rows);
    cluster_source source(dimension, seed);
    const auto store = busy_store(dimension, base_rows, source);
    for (int i = 0; i < 3; ++i)
      check_against_brute_force(*store, source.next());
  }
}

TEST_CASE("a batch gets the bits that each of its queries gets alone",
          "[search]") {
  const auto seed = std::random_device{}();
  CAPTURE(seed);
  for (std::size_t dimension : {1, 3, 20, 33, 384}) {
    cluster_source source(dimension, seed);
    const auto store = busy_store(dimension, 300, source);
    const auto view = store->view();
    for (std::size_t count : {0, 1, 3, 4, 5, 8, 31}) {
      CAPTURE(dimension, count);
      floats queries;
      for (std::size_t i = 0; i < count; ++i) {
        const auto query = source.next();
        queries.insert(queries.end(), query.begin(), query.end());
      }
      const auto answers = need(search_batch(*view, queries, {7, -2}));
      REQUIRE(answers.size() == count);
      for (std::size_t i = 0; i < count; ++i) {
        const std::span query(queries.data() + i * dimension, dimension);
        CHECK(same_bits(answers[i], need(search(*view, query, {7, -2}))));
      }
    }
  }
}

TEST_CASE("equal scores come by ascending id, however they were stored",
          "[search][B46]") {
  const auto seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  std::vector<std::string> ids;
  for (int i = 0; i < 200; ++i)
    ids.push_back("id-" + std::to_string(i));
  const floats best{1, 0};
  const floats second{0.6F, 0.8F};
  auto vector_of = [&](const std::string& id) {
    return id.size() == 4 ? best : second; // ten of one digit
  };
  std::vector<std::string> expected(ids);
  std::sort(expected.begin(), expected.end(), [](const auto& a, const auto& b) {
    const bool a_best = a.size() == 4;
    const bool b_best = b.size() == 4;
    return a_best != b_best ? a_best : a < b;
  });

  for (int history = 0; history < 5; ++history) {
    std::shuffle(ids.begin(), ids.end(), random);
    test_rows rows;
    for (std::size_t i = 0; i < 120; ++i)
      rows.rows.emplace_back(ids[i], i < 20 ? second : vector_of(ids[i]));
    test_store store(2, rows);
    for (std::size_t i = 120; i < 200; ++i)
      store.append(ids[i], vector_of(ids[i]));
    for (std::size_t i = 0; i < 20; ++i) // replaced: now in another row
      store.append(ids[i], vector_of(ids[i]));

    for (std::size_t k : {1, 9, 10, 11, 100, 199, 200, 300}) {
      auto found = expected;
      found.resize(std::min(k, found.size()));
      CAPTURE(history, k);
      CHECK(ids_found(store, best, {k, -2}) == found);
    }
    floats queries;
    for (int i = 0; i < 9; ++i)
      queries.insert(queries.end(), best.begin(), best.end());
    const auto view = store.view();
    for (const auto& answer : need(search_batch(*view, queries, {11, -2})))
      CHECK(same_bits(answer, find(store, best, {11, -2})));
  }
}

TEST_CASE("rows that were removed or replaced, and holes, are never found",
          "[search]") {
  test_rows rows;
  rows.rows = {{"a", {1, 0}}, {"", {1, 0}}, {"b", {0, 1}}, {"c", {1, 0}}};
  test_store store(2, rows);
  store.append("a", {0.8F, 0.6F});
  store.append("d", {1, 0});
  store.append("d", {0, -1});
  store.remove("c");
  CHECK(ids_found(store, {1, 0}, everything)
        == std::vector<std::string>{"a", "b", "d"});
  const auto without_a =
      store.view()->without(std::vector<std::string>{"a", "d"});
  const auto left = need(search(*without_a, floats{1, 0}, everything));
  REQUIRE(left.size() == 1);
  CHECK(without_a->id(left[0].row) == "b");
}

TEST_CASE("a view does not find rows that came after it", "[search]") {
  test_store store(2, {});
  store.append("a", {1, 0});
  const auto before = store.view();
  store.append("b", {1, 0});
  CHECK(need(search(*before, floats{1, 0}, everything)).size() == 1);
  CHECK(find(store, {1, 0}, everything).size() == 2);
}

TEST_CASE("the threshold is compared in double precision, equal is kept",
          "[search][B41]") {
  test_rows rows;
  rows.rows = {{"a", {0.7F, std::sqrt(1 - 0.7F * 0.7F)}}};
  test_store store(2, rows);
  const floats query{1, 0};
  const auto score = static_cast<double>(0.7F); // 0.699999988
  CHECK(find(store, query, {1, 0.7}).empty());
  CHECK(find(store, query, {1, score}).size() == 1);
  CHECK(find(store, query, {1, std::nextafter(score, 1)}).empty());
  CHECK(find(store, query, {1, 0.6999}).size() == 1);
}

TEST_CASE("the threshold is applied after the best rows were chosen",
          "[search][B42]") {
  test_rows rows;
  rows.rows = {{"a", {1, 0}}, {"b", {0.6F, 0.8F}}, {"c", {0, 1}}};
  test_store store(2, rows);
  CHECK(ids_found(store, {1, 0}, {2, 0.2})
        == std::vector<std::string>{"a", "b"});
  CHECK(ids_found(store, {1, 0}, {2, 0.7}) == std::vector<std::string>{"a"});
  CHECK(ids_found(store, {-1, 0}, {2, 0.2}).empty());
}

TEST_CASE("a threshold of NaN leaves out nothing, one of 1 only lower scores",
          "[search][B43]") {
  test_rows rows;
  rows.rows = {
      {"a", {1, 0}}, {"b", {std::nextafter(1.0F, 0.0F), 0}}, {"c", {-1, 0}}};
  test_store store(2, rows);
  const auto nothing = std::numeric_limits<double>::quiet_NaN();
  CHECK(find(store, {1, 0}, {10, nothing}).size() == 3);
  CHECK(ids_found(store, {1, 0}, {10, 1}) == std::vector<std::string>{"a"});
}

TEST_CASE("any top_k but 0 is taken", "[search][B44]") {
  cluster_source source(8, 1);
  const auto store = busy_store(8, 40, source);
  const auto view = store->view();
  const auto query = source.next();
  for (auto k : {view->live_count(), view->live_count() + 1,
                 std::numeric_limits<std::size_t>::max()})
    CHECK(need(search(*view, query, {k, -2})).size() == view->live_count());
  CHECK(code_of(search(*view, query, {0, -2})) == errc::invalid_argument);
  CHECK(code_of(search_batch(*view, query, {0, -2})) == errc::invalid_argument);
}

TEST_CASE("an empty store answers with no rows", "[search][B45]") {
  test_store store(3, {});
  CHECK(find(store, {1, 0, 0}, everything).empty());
  const auto answers =
      need(search_batch(*store.view(), floats{1, 0, 0, 0, 1, 0}, everything));
  CHECK(answers == std::vector<std::vector<scored_row>>(2));
}

TEST_CASE("queries of another dimension or without numbers are refused",
          "[search][B45]") {
  test_rows rows;
  rows.rows = {{"a", {1, 0}}};
  test_store store(2, rows);
  const auto view = store.view();
  for (const auto& query : {floats{}, floats{1}, floats{1, 0, 0, 0}})
    CHECK(code_of(search(*view, query, {})) == errc::dimension_mismatch);
  CHECK(code_of(search_batch(*view, floats{1, 0, 1}, {}))
        == errc::dimension_mismatch);
  for (auto value : {not_a_number, infinite, -infinite}) {
    CHECK(code_of(search(*view, floats{1, value}, {}))
          == errc::invalid_argument);
    CHECK(code_of(search_batch(*view, floats{1, 0, value, 0}, {}))
          == errc::invalid_argument);
  }
}

TEST_CASE("a row whose score is not a number is never found", "[search]") {
  test_rows rows;
  rows.rows = {{"a", {not_a_number, 0}}, {"b", {0, 1}}};
  test_store store(2, rows);
  CHECK(ids_found(store, {1, 0}, everything) == std::vector<std::string>{"b"});
}

TEST_CASE("a damaged vector is reported by the searches that find it",
          "[search]") {
  test_rows rows;
  rows.rows = {{"a", {0, 1}}, {"b", {1, 0}}, {"c", {0.6F, 0.8F}}};
  test_store store(2, rows);
  store.damage(1);
  const auto view = store.view();
  CHECK(code_of(search(*view, floats{1, 0}, {1, 0.2})) == errc::corrupt);
  CHECK(code_of(search_batch(*view, floats{0, 1, 1, 0}, {1, 0.2}))
        == errc::corrupt);
  CHECK(ids_found(store, {0, 1}, {2, 0.2})
        == std::vector<std::string>{"a", "c"});
}

TEST_CASE("normalize gives the bits that faiss gives", "[search]") {
  const auto seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  for (std::size_t dimension : {1, 2, 3, 17, 384, 768, 1025})
    for (float size : {1e-17F, 0.3F, 1.0F, 1e16F}) {
      floats ours(dimension);
      for (auto& value : ours)
        value = size * normal(random);
      auto theirs = ours;
      faiss::fvec_renorm_L2(dimension, 1, theirs.data());
      REQUIRE(normalize(ours, "a vector"));
      CAPTURE(dimension, size);
      CHECK(std::memcmp(ours.data(), theirs.data(), dimension * sizeof(float))
            == 0);
      CHECK(std::abs(product(bytes_of(ours), ours) - 1) < 1e-5);
    }
}

TEST_CASE("normalize refuses what has no direction and leaves it as it is",
          "[search][B47]") {
  for (const auto& bad :
       {floats{}, floats{0, 0, -0.0F}, floats{1, not_a_number},
        floats{infinite, 1}, floats{-infinite}, floats{1e-45F, 1e-45F},
        floats{1e-30F, 1e-30F}, floats{1e30F, 1e30F},
        floats{std::numeric_limits<float>::max()}}) {
    auto values = bad;
    const auto refused = normalize(values, "vector of \"x\"");
    CHECK(code_of(refused) == errc::invalid_argument);
    CHECK(refused.error().message.find("vector of \"x\"") == 0);
    CHECK(std::equal(values.begin(), values.end(), bad.begin(),
                     [](float a, float b) {
                       return a == b || (std::isnan(a) && std::isnan(b));
                     }));
  }
}

TEST_CASE("normalize takes small and large lengths", "[search]") {
  CHECK(unit({3e18F, 0, 4e18F})[2] == Approx(0.8));
  CHECK(unit({-3e-18F, 4e-18F, 1e-45F})[0] == Approx(-0.6));
}

TEST_CASE("a score depends on nothing but the bytes of query and row",
          "[scan]") {
  const auto seed = std::random_device{}();
  CAPTURE(seed);
  for (std::size_t dimension : {1, 5, 16, 47, 96, 130}) {
    cluster_source source(dimension, seed);
    const auto row_bytes = dimension * sizeof(float);
    std::vector<floats> queries;
    for (int i = 0; i < 9; ++i)
      queries.push_back(source.next());
    const auto row = source.next();
    std::vector<std::byte> query_memory(queries.size() * row_bytes + 64);
    std::vector<std::byte> row_memory(11 * row_bytes + 64);
    for (std::size_t offset : {0, 1, 4, 45, 63}) {
      for (std::size_t i = 0; i < queries.size(); ++i)
        std::memcpy(query_memory.data() + offset + i * row_bytes,
                    queries[i].data(), row_bytes);
      for (std::size_t i = 0; i < 11; ++i)
        std::memcpy(row_memory.data() + offset + i * row_bytes, row.data(),
                    row_bytes);
      floats scores(queries.size() * 11);
      inner_products(query_memory.data() + offset, queries.size(),
                     row_memory.data() + offset, 11, dimension, scores.data());
      for (std::size_t i = 0; i < scores.size(); ++i) {
        CAPTURE(dimension, offset, i);
        const auto alone = inner_product(bytes_of(queries[i / 11]).data(),
                                         bytes_of(row).data(), dimension);
        CHECK(std::bit_cast<std::uint32_t>(scores[i])
              == std::bit_cast<std::uint32_t>(alone));
      }
    }
  }
}

TEST_CASE("every processor generation gets the same scores within 1e-6",
          "[scan]") {
  const auto seed = std::random_device{}();
  CAPTURE(seed);
  std::set<std::int64_t> targets{0}; // 0: the fallback without SIMD
  for (auto target : hwy::SupportedAndGeneratedTargets())
    targets.insert(target);
  for (auto target : targets) {
    hwy::GetChosenTarget().Update(target);
    INFO("target " << hwy::TargetName(target));
    for (std::size_t dimension = 1; dimension < 70; ++dimension) {
      cluster_source source(dimension, seed);
      const auto store = busy_store(dimension, 20, source);
      check_against_brute_force(*store, source.next());
    }
    cluster_source source(768, seed);
    const auto store = busy_store(768, 20, source);
    check_against_brute_force(*store, source.next());
    hwy::GetChosenTarget().DeInit();
  }
}
