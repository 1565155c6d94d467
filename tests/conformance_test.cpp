/// What a client sees of the behaviour that docs/conformance.md numbers, as
/// far as the tests of single parts do not show it.

#include "actors/client.hpp"
#include "core/bytes.hpp"
#include "core/file_store.hpp"
#include "core/index_file.hpp"
#include "core/record.hpp"
#include "tests/support/scripted_embedder.hpp"
#include "tests/support/store_fixture.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <spdlog/logger.h>
#include <spdlog/sinks/null_sink.h>

#include <algorithm>
#include <cmath>
#include <future>
#include <set>
#include <thread>

using namespace callboard;
using namespace callboard::test;

namespace fs = std::filesystem;

namespace {

using id_list = std::vector<std::string>;
using numbers = std::vector<float>;

constexpr std::int64_t start_time = 1'700'000'000;

/// A process with a clock and an embedder that the test controls.
class peer {
public:
  explicit peer(fs::path place) : place_(std::move(place)) {
    disk.set_wall_clock(start_time);
    runtime_options options;
    options.door = &disk;
    options.board = &board_;
    options.log = std::make_shared<spdlog::logger>(
        "test", std::make_shared<spdlog::sinks::null_sink_mt>());
    runtime_ = need(runtime::start(std::move(options)));
  }

  open_options options(std::string workspace = "") const {
    open_options out;
    out.working_directory = place_.string();
    out.workspace = std::move(workspace);
    out.namespace_name = std::string(store_namespace);
    out.model = model;
    out.reader_grace = std::chrono::seconds(0);
    return out;
  }
  result<client> try_open(open_options wanted) {
    return runtime_->open(std::move(wanted));
  }
  client open(open_options wanted) { return need(try_open(std::move(wanted))); }
  client open() { return open(options()); }

  faulty_io disk;
  std::shared_ptr<scripted_embedder> model =
      std::make_shared<scripted_embedder>();

private:
  fs::path place_;
  test_board board_;
  std::unique_ptr<runtime> runtime_;
};

/// A directory and one process on it.
struct fixture {
  quick_directory home;
  peer first{home.path()};
};

std::string with_content(const std::string& content) {
  return nlohmann::json{{"content", content}}.dump();
}

upsert_item item(const std::string& id, numbers vector) {
  return {id, with_content("text of " + id), std::move(vector)};
}

nlohmann::json parse(const std::string& record) {
  return nlohmann::json::parse(record);
}

std::string content_of(const std::string& record) {
  return parse(record).at("content").get<std::string>();
}

/// The content of `id` as `handle` sees it; empty if it is not there.
std::string content_of(client& handle, const std::string& id) {
  auto found = need(handle.get_by_id(id));
  return found ? content_of(found->record) : "";
}

void upsert_contents(client& handle, const id_list& ids) {
  for (const auto& id : ids)
    need(handle.upsert(id, with_content("text of " + id)));
}

void commit_contents(client& handle, const id_list& ids) {
  upsert_contents(handle, ids);
  need(handle.commit());
}

template <class List>
id_list ids_of(const List& list) {
  id_list out;
  for (const auto& each : list)
    out.push_back(each.id);
  return out;
}

/// The ids of all rows that queries can find.
std::set<std::string> found_by_queries(client& handle) {
  auto hits =
      need(handle.query(numbers{1, 0, 0, 0}, {.top_k = 1000, .threshold = -2}));
  auto ids = ids_of(hits);
  return {ids.begin(), ids.end()};
}

std::set<std::string> ids_in(const snapshot& view) {
  std::set<std::string> out;
  view.for_each_row([&](row_number row) {
    out.emplace(view.id(row));
    return true;
  });
  return out;
}

std::vector<double> normalized(const numbers& vector) {
  double squares = 0;
  for (auto each : vector)
    squares += double{each} * each;
  std::vector<double> out;
  for (auto each : vector)
    out.push_back(each / std::sqrt(squares));
  return out;
}

double cosine(const numbers& left, const numbers& right) {
  auto a = normalized(left);
  auto b = normalized(right);
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    sum += a[i] * b[i];
  return sum;
}

/// A pair in LightRAG's format.
void write_pair(const fs::path& place, const std::vector<numbers>& vectors,
                std::string_view meta) {
  auto dimension = static_cast<std::uint32_t>(vectors.front().size());
  std::string index(as_text(encode_index_header({dimension, vectors.size()})));
  for (const auto& each : vectors)
    index += as_text(std::as_bytes(std::span(each)));
  write_file(index_path(place), index);
  write_file(meta_path(place), meta);
}

const std::vector<numbers> three_vectors = {
    {1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}};

std::size_t rows_in_index(const fs::path& place) {
  return (fs::file_size(index_path(place)) - 45) / sizeof(float)
         / test_dimension;
}

nlohmann::json published_records(const fs::path& place) {
  return nlohmann::json::parse(read_file(meta_path(place)));
}

std::size_t open_files() {
  fs::directory_iterator entries("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(entries), end(entries)));
}

/// Waits until `holds`, as long as tests wait for what must happen.
template <class Condition>
bool eventually(Condition holds) {
  auto give_up = std::chrono::steady_clock::now() + long_wait;
  while (!holds()) {
    if (std::chrono::steady_clock::now() > give_up)
      return false;
    std::this_thread::yield();
  }
  return true;
}

/// Holds an embedder's calls as long as it lives.
class held_calls {
public:
  explicit held_calls(scripted_embedder& model) : model_(model) {
    model_.hold();
  }
  held_calls(const held_calls&) = delete;
  held_calls& operator=(const held_calls&) = delete;
  ~held_calls() { model_.release(); }

private:
  scripted_embedder& model_;
};

held_lock hold_writer_lock(const fs::path& place) {
  auto home =
      need(posix_io().open_directory(private_path(place).string(), false));
  return need(held_lock::acquire(posix_io(), *home, store_lock::writer,
                                 lock_mode::exclusive, long_wait));
}

std::ptrdiff_t locks_asked_for(const faulty_io& disk) {
  auto done = disk.operations();
  return std::count_if(done.begin(), done.end(), [](const operation& each) {
    return each.kind == operation_kind::lock;
  });
}

/// Rows whose score for `query_of_scores` is in their name.
const numbers query_of_scores = {1, 0, 0, 0};

void commit_scores(client& handle) {
  need(handle.upsert(
      {item("one", {1, 0, 0, 0}), item("half", {0.5F, std::sqrt(0.75F), 0, 0}),
       item("tenth", {0.1F, std::sqrt(0.99F), 0, 0}),
       item("zero", {0, 0, 1, 0}), item("minus", {-1, 0, 0, 0})}));
  need(handle.commit());
}

} // namespace

// -- opening ------------------------------------------------------------------

TEST_CASE("a store without an embedder or a directory is not opened, and "
          "nothing is made",
          "[conformance][B14][B16]") {
  fixture test;
  auto wanted = test.first.options("w");
  SECTION("no embedder") {
    wanted.model = nullptr;
  }
  SECTION("no working directory") {
    wanted.working_directory.clear();
  }
  auto reason = failure_of(test.first.try_open(wanted));
  CHECK(reason.code == errc::invalid_argument);
  CHECK(contains(reason.message, "required"));
  CHECK(fs::is_empty(test.home.path()));
}

TEST_CASE("without a threshold a handle has 0.2, and 0 is a threshold",
          "[conformance][B15][B43]") {
  fixture test;
  auto handle = test.first.open();
  commit_scores(handle);
  auto hits = need(handle.query(query_of_scores));
  CHECK(ids_of(hits) == id_list{"one", "half"});

  auto wanted = test.first.options();
  wanted.threshold = 0;
  auto lenient = test.first.open(wanted);
  hits = need(lenient.query(query_of_scores));
  CHECK(ids_of(hits) == id_list{"one", "half", "tenth", "zero"});
}

TEST_CASE("a store's files are in its workspace's directory, which is made "
          "with its parents",
          "[conformance][B4][B5]") {
  quick_directory home;
  auto place = home / "data" / "deep";
  peer first(place);
  std::string workspace = GENERATE("", "plain", "Größe 1, グループ");
  auto wanted = first.options(workspace);
  wanted.namespace_name = "entities";
  auto handle = first.open(wanted);
  auto directory = workspace.empty() ? place : place / workspace;
  CHECK(fs::exists(directory / "faiss_index_entities.index"));
  CHECK(fs::exists(directory / "faiss_index_entities.index.meta.json"));
}

TEST_CASE("a name that would lead out of its directory opens nothing",
          "[conformance][B5]") {
  fixture test;
  std::string name = GENERATE("../x", "..", ".", "a/b", "a\\b", "/x");
  auto wanted = test.first.options();
  SECTION("workspace") {
    wanted.workspace = name;
  }
  SECTION("namespace") {
    wanted.namespace_name = name;
  }
  CHECK(failure_of(test.first.try_open(wanted)).code == errc::invalid_argument);
  CHECK(fs::is_empty(test.home.path()));
}

TEST_CASE("opening a store removes what dead writers left behind an hour ago",
          "[conformance][B17]") {
  fixture test;
  auto modified = fs::file_time_type::clock::now();
  test.first.disk.set_wall_clock(
      std::chrono::duration_cast<std::chrono::seconds>(
          std::chrono::system_clock::now().time_since_epoch())
          .count());
  auto old_debris = index_path(test.home.path()).string() + ".tmp.7.8.9";
  auto new_debris = meta_path(test.home.path()).string() + ".tmp.7.8.9";
  write_file(old_debris, "x");
  write_file(new_debris, "x");
  fs::last_write_time(old_debris, modified - std::chrono::hours(2));
  auto handle = test.first.open();
  CHECK_FALSE(fs::exists(old_debris));
  CHECK(fs::exists(new_debris));
  CHECK(need(handle.stats()).opened.removed_temporaries == 1);
}

TEST_CASE("a meta file without an index is taken over by embedding its records",
          "[conformance][B19]") {
  fixture test;
  write_file(meta_path(test.home.path()),
             R"({"0": {"__id__": "a", "__created_at__": 7, "content": "x"}})");
  auto handle = test.first.open();
  CHECK(content_of(handle, "a") == "x");
  CHECK(need(handle.commit()).committed == 1);
  auto hits = need(handle.query(vector_of("x")));
  REQUIRE(ids_of(hits) == id_list{"a"});
  CHECK(parse(hits[0].record).at("__created_at__") == 7);
}

TEST_CASE("a pair that cannot be read is an error and is not overwritten",
          "[conformance][B21][B25]") {
  fixture test;
  std::string good_meta =
      R"({"0": {"__id__": "a"}, "1": {"__id__": "b"}, "2": {"__id__": "c"}})";
  write_pair(test.home.path(), three_vectors, good_meta);
  auto good_index = read_file(index_path(test.home.path()));
  auto expected = errc::corrupt;
  std::optional<std::string> meta = good_meta;
  auto index = good_index;
  SECTION("index without its end") {
    index.resize(index.size() - 1);
  }
  SECTION("empty index") {
    index.clear();
  }
  SECTION("index of another type") {
    index[3] = '2';
    expected = errc::unsupported_format;
  }
  SECTION("no meta file") {
    meta.reset();
  }
  SECTION("empty meta file") {
    meta = "";
  }
  SECTION("meta file without its end") {
    meta->pop_back();
  }
  SECTION("no JSON") {
    meta = "records";
  }
  SECTION("a list") {
    meta = "[]";
  }
  SECTION("a key that is no number") {
    meta = R"({"x": {"__id__": "a"}})";
  }
  SECTION("a key below 0") {
    meta = R"({"-1": {"__id__": "a"}})";
  }
  SECTION("a row that is no object") {
    meta = R"({"0": []})";
  }
  SECTION("a byte order mark") {
    meta = "\xef\xbb\xbf" + good_meta;
  }

  write_file(index_path(test.home.path()), index);
  fs::remove(meta_path(test.home.path()));
  if (meta)
    write_file(meta_path(test.home.path()), *meta);
  for (int attempt = 0; attempt < 2; ++attempt) {
    auto reason = failure_of(test.first.try_open(test.first.options()));
    INFO(reason.message);
    CHECK(reason.code == expected);
    CHECK(contains(reason.message, "faiss_index_"));
  }
  CHECK(read_file(index_path(test.home.path())) == index);
  CHECK(fs::exists(meta_path(test.home.path())) == meta.has_value());
  if (meta)
    CHECK(read_file(meta_path(test.home.path())) == *meta);
}

TEST_CASE("vectors without a record are never found, take no row's place and "
          "can be removed",
          "[conformance][B24][B48][B67]") {
  fixture test;
  write_pair(test.home.path(), three_vectors,
             R"({"0": {"__id__": "a"}, "2": {"__id__": "c"}})");
  auto handle = test.first.open();
  CHECK(need(handle.stats()).opened.import.orphan_vectors == 1);
  auto hits = need(
      handle.query(numbers{0.1F, 2, 0.2F, 0}, {.top_k = 1, .threshold = -1}));
  CHECK(ids_of(hits) == id_list{"c"});
  need(handle.checkpoint(compaction::forced));
  CHECK(rows_in_index(test.home.path()) == 2);
  CHECK(published_records(test.home.path()).size() == 2);
}

TEST_CASE("of rows with one id one is taken over, and a delete leaves none",
          "[conformance][B27]") {
  fixture test;
  write_pair(test.home.path(), three_vectors,
             R"({"0": {"__id__": "a", "content": "old"},
                 "1": {"__id__": "b"},
                 "2": {"__id__": "a", "content": "new"}})");
  auto handle = test.first.open();
  CHECK(need(handle.stats()).opened.import.duplicate_ids == 1);
  CHECK(content_of(handle, "a") == "new");
  need(handle.remove({"a"}));
  need(handle.finalize());
  CHECK_FALSE(need(handle.get_by_id("a")));
  CHECK(found_by_queries(handle) == std::set<std::string>{"b"});
  CHECK(published_records(test.home.path()).size() == 1);
}

TEST_CASE("handles that are gone leave no files open", "[conformance][B28]") {
  fixture test;
  auto kept = test.first.open();
  commit_contents(kept, {"a"});
  need(kept.checkpoint());
  auto before = open_files();
  for (int i = 0; i < 8; ++i) {
    auto handle = test.first.open();
    CHECK(content_of(handle, "a") == "text of a");
  }
  CHECK(eventually([&] { return open_files() <= before; }));
}

// -- upsert -------------------------------------------------------------------

TEST_CASE("an upsert of nothing does nothing", "[conformance][B30]") {
  fixture test;
  auto handle = test.first.open();
  need(handle.upsert(std::vector<upsert_item>{}));
  CHECK(need(handle.pending_ids()).empty());
}

TEST_CASE("a pending id upserted again is replaced whole in its old place, "
          "with a new time",
          "[conformance][B9][B32]") {
  fixture test;
  auto handle = test.first.open();
  need(handle.upsert({{"a", R"({"content": "old", "file_path": "p"})", {}},
                      {"b", R"({"content": "b"})", {}}}));
  test.first.disk.set_wall_clock(start_time + 5);
  need(handle.upsert("a", R"({"content": "new", "full_doc_id": "d"})"));
  CHECK(need(handle.pending_ids()) == id_list{"a", "b"});
  nlohmann::json expected = {{"__id__", "a"},
                             {"__created_at__", start_time + 5},
                             {"full_doc_id", "d"},
                             {"content", "new"}};
  CHECK(parse(need(handle.get_by_id("a"))->record) == expected);
  need(handle.commit());
  REQUIRE(test.first.model->calls().size() == 1);
  CHECK(test.first.model->calls()[0].texts == id_list{"new", "b"});
}

TEST_CASE("a committed id upserted again has the new fields and time only",
          "[conformance][B33][B70]") {
  fixture test;
  auto handle = test.first.open();
  need(handle.upsert("a", R"({"content": "old", "file_path": "p"})"));
  need(handle.commit());
  test.first.disk.set_wall_clock(start_time + 9);
  need(handle.upsert("a", R"({"content": "new"})"));
  need(handle.commit());
  nlohmann::json expected = {
      {"__id__", "a"}, {"__created_at__", start_time + 9}, {"content", "new"}};
  CHECK(parse(need(handle.get_by_id("a"))->record) == expected);
  auto hits = need(handle.query(vector_of("new"), {.threshold = -2}));
  REQUIRE(ids_of(hits) == id_list{"a"});
  CHECK(hits[0].distance == Approx(1));
  need(handle.finalize());
  CHECK(published_records(test.home.path()).size() == 1);
}

TEST_CASE("a record that is no JSON object is refused with all of its upsert, "
          "and later commits are good",
          "[conformance][B36][B77]") {
  fixture test;
  auto handle = test.first.open();
  std::string bad = GENERATE("", "null", "[]", R"("text")", R"({"content": })",
                             R"({"content": "x"} y)", "{\"content\": \"\xff\"}",
                             "{'content': 'x'}");
  auto reason = failure_of(handle.upsert(
      {{"good", R"({"content": "x"})", {}}, {"bad one", bad, {}}}));
  CHECK(reason.code == errc::invalid_argument);
  CHECK(contains(reason.message, "bad one"));
  CHECK(need(handle.pending_ids()).empty());
  commit_contents(handle, {"a"});
  CHECK(content_of(handle, "a") == "text of a");
}

// -- query --------------------------------------------------------------------

TEST_CASE("a vector of any length is a query without an embedder, a text is "
          "embedded as a query",
          "[conformance][B38]") {
  fixture test;
  auto handle = test.first.open();
  commit_contents(handle, {"a", "b", "c"});
  auto embedded_before = test.first.model->calls().size();
  auto vector = vector_of("text of b");
  auto hits = need(handle.query(vector, {.threshold = -2}));
  for (auto& each : vector)
    each *= 1e-4F;
  auto scaled = need(handle.query(vector, {.threshold = -2}));
  CHECK(test.first.model->calls().size() == embedded_before);
  REQUIRE(hits.size() == 3);
  CHECK(ids_of(scaled) == ids_of(hits));
  for (std::size_t i = 0; i < hits.size(); ++i)
    CHECK(scaled[i].distance == Approx(hits[i].distance).margin(1e-6));

  CHECK(ids_of(need(handle.query("text of b", {.threshold = -2})))
        == ids_of(hits));
  REQUIRE(test.first.model->calls().size() == embedded_before + 1);
  CHECK(test.first.model->calls().back().texts == id_list{"text of b"});
  CHECK(test.first.model->calls().back().context == embedding_context::query);
}

TEST_CASE("hits come by falling cosine, with the stored record",
          "[conformance][B40][B103]") {
  fixture test;
  auto wanted = test.first.options();
  wanted.namespace_name = "relationships";
  auto handle = test.first.open(wanted);
  for (std::string name : {"a", "b", "c", "d"}) {
    nlohmann::json record = {{"src_id", name},     {"tgt_id", "z"},
                             {"source_id", "s"},   {"content", "to " + name},
                             {"file_path", "f"},   {"weight", 1.5},
                             {"keywords", "k, l"}, {"__vector__", {1}}};
    need(handle.upsert(name, record.dump()));
  }
  need(handle.commit());
  auto hits = need(handle.query("to c", {.top_k = 3, .threshold = -2}));
  REQUIRE(hits.size() == 3);
  CHECK(hits[0].id == "c");
  CHECK(std::is_sorted(hits.begin(), hits.end(),
                       [](const hit& left, const hit& right) {
                         return left.distance > right.distance;
                       }));
  for (const auto& each : hits) {
    nlohmann::json expected = {
        {"__id__", each.id},         {"__created_at__", start_time},
        {"src_id", each.id},         {"tgt_id", "z"},
        {"source_id", "s"},          {"content", "to " + each.id},
        {"file_path", "f"},          {"id", each.id},
        {"distance", each.distance}, {"created_at", start_time}};
    auto shown = parse(result_row(each.record, each.distance));
    CHECK(shown.at("distance").get<float>() == each.distance);
    shown["distance"] = expected["distance"];
    CHECK(shown == expected);
    CHECK(double{each.distance}
          == Approx(cosine(vector_of("to c"), vector_of("to " + each.id)))
                 .margin(1e-6));
  }
}

TEST_CASE("a query whose text cannot be embedded is an error, and the store "
          "goes on",
          "[conformance][B49]") {
  fixture test;
  auto handle = test.first.open();
  commit_contents(handle, {"a"});
  test.first.model->follow([](auto, auto) {
    return failure{errc::io_failure, "the model is out for lunch"};
  });
  auto reason = failure_of(handle.query("text of a"));
  CHECK(reason.code == errc::embedding_failed);
  CHECK(contains(reason.message, "out for lunch"));
  test.first.model->follow({});
  CHECK(ids_of(need(handle.query("text of a"))) == id_list{"a"});
}

TEST_CASE("every hit has the score of its own record while rows are replaced "
          "and deleted",
          "[conformance][B50]") {
  fixture test;
  auto handle = test.first.open();
  peer second(test.home.path());
  auto writer = second.open();
  auto write = std::async(std::launch::async, [&]() -> result<void> {
    for (int turn = 0; turn < 120; ++turn) {
      auto id = "row " + std::to_string(turn % 7);
      CALLBOARD_TRY(writer.upsert(
          id, with_content(id + ", turn " + std::to_string(turn))));
      CALLBOARD_TRY(writer.remove({"row " + std::to_string(turn * 3 % 7)}));
      CALLBOARD_TRY(writer.commit());
      if (turn % 40 == 39)
        CALLBOARD_TRY(writer.checkpoint(compaction::forced));
    }
    return {};
  });
  auto query = vector_of("row 1, turn 1");
  std::size_t compared = 0;
  bool is_over = false;
  while (!is_over) {
    is_over =
        write.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
    auto hits = need(handle.query(query, {.top_k = 4, .threshold = -2}));
    compared += hits.size();
    for (const auto& each : hits) {
      auto content = content_of(each.record);
      REQUIRE(content.rfind(each.id + ", ", 0) == 0);
      REQUIRE(double{each.distance}
              == Approx(cosine(query, vector_of(content))).margin(1e-5));
    }
  }
  need(write.get());
  CHECK(compared > 0);
}

// -- reads --------------------------------------------------------------------

TEST_CASE("a snapshot has what is committed, less what its handle deleted",
          "[conformance][B51]") {
  fixture test;
  auto handle = test.first.open();
  commit_contents(handle, {"a", "b"});
  upsert_contents(handle, {"c"});
  need(handle.remove({"a"}));
  auto view = need(handle.snapshot());
  CHECK(ids_in(*view) == std::set<std::string>{"b"});
  auto row = view->find("b");
  REQUIRE(row.has_value());
  CHECK(content_of(std::string(need(view->record(*row)))) == "text of b");
  CHECK(need(view->vector(*row)).size() == test_dimension * sizeof(float));

  need(handle.remove({"b"}));
  need(handle.commit());
  CHECK(ids_in(*view) == std::set<std::string>{"b"});
}

TEST_CASE("vectors have length 1, missing ids none, and changing an answer "
          "changes nothing else",
          "[conformance][B55][B58]") {
  fixture test;
  auto handle = test.first.open();
  CHECK(need(handle.get_vectors_by_ids({})).empty());
  commit_contents(handle, {"a"});
  upsert_contents(handle, {"b"});
  auto found = need(handle.get_vectors_by_ids({"x", "b", "a", "b"}));
  REQUIRE(ids_of(found) == id_list{"b", "a"});
  for (auto& each : found) {
    auto expected = normalized(vector_of("text of " + each.id));
    REQUIRE(each.vector.size() == expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i)
      CHECK(double{each.vector[i]} == Approx(expected[i]).margin(1e-6));
    std::fill(each.vector.begin(), each.vector.end(), 99.0F);
  }
  need(handle.finalize());
  for (const auto& each : need(handle.get_vectors_by_ids({"a", "b"})))
    CHECK(cosine(each.vector, vector_of("text of " + each.id)) == Approx(1));
}

TEST_CASE("a wrong number of vectors fails the commit or the read and changes "
          "nothing",
          "[conformance][B57][B72]") {
  fixture test;
  auto handle = test.first.open();
  commit_contents(handle, {"a"});
  upsert_contents(handle, {"b", "c"});
  std::size_t floats = GENERATE(0, 1, 4, 7, 9, 12);
  test.first.model->follow([floats](auto, auto) {
    return embedding_batch{.vectors = numbers(floats, 1), .rejected = {}};
  });
  auto files = all_files(test.home.path());
  auto reason = failure_of(handle.commit());
  CHECK(reason.code == errc::embedding_failed);
  CHECK(contains(reason.message, "mismatch"));
  CHECK(failure_of(handle.get_vectors_by_ids({"b", "c"})).code
        == errc::embedding_failed);
  CHECK(all_files(test.home.path()) == files);
  CHECK(need(handle.pending_ids()) == id_list{"b", "c"});
  test.first.model->follow({});
  CHECK(need(handle.commit()).committed == 2);
}

// -- delete -------------------------------------------------------------------

TEST_CASE("deleting what is not there changes nothing", "[conformance][B61]") {
  fixture test;
  auto handle = test.first.open();
  commit_contents(handle, {"a"});
  auto files = all_files(test.home.path());
  need(handle.remove({}));
  need(handle.remove({"x", "x"}));
  auto stats = need(handle.stats());
  CHECK(stats.pending_deletes == 0);
  CHECK(need(handle.commit()).generation == stats.store.generation);
  CHECK(all_files(test.home.path()) == files);
}

TEST_CASE("a delete that fails says so and deletes nothing",
          "[conformance][B62]") {
  fixture test;
  auto wanted = test.first.options();
  wanted.pending_operations_max = 2;
  auto handle = test.first.open(wanted);
  commit_contents(handle, {"a", "b"});
  commit_contents(handle, {"c"});
  CHECK(failure_of(handle.remove({"a", "b", "c"})).code == errc::too_large);
  CHECK(found_by_queries(handle) == std::set<std::string>{"a", "b", "c"});
  CHECK(need(handle.stats()).pending_deletes == 0);
}

TEST_CASE("an id deleted and upserted again before a commit is the new row",
          "[conformance][B63]") {
  fixture test;
  auto handle = test.first.open();
  commit_contents(handle, {"a", "b"});
  need(handle.remove({"a"}));
  need(handle.upsert("a", with_content("new")));
  CHECK(content_of(handle, "a") == "new");
  CHECK(found_by_queries(handle) == std::set<std::string>{"b"});
  need(handle.commit());
  CHECK(content_of(handle, "a") == "new");
  CHECK(found_by_queries(handle) == std::set<std::string>{"a", "b"});
}

TEST_CASE("an entity is deleted by its name, exactly spelled",
          "[conformance][B64]") {
  fixture test;
  auto handle = test.first.open();
  commit_contents(handle,
                  {entity_id("Alice"), entity_id("alice"), entity_id("Bob")});
  need(handle.remove_entity("Alice"));
  need(handle.remove_entity("BOB"));
  need(handle.commit());
  CHECK(found_by_queries(handle)
        == std::set<std::string>{entity_id("alice"), entity_id("Bob")});
}

TEST_CASE("relations are deleted by either end, and rows without ends never",
          "[conformance][B65][B66]") {
  fixture test;
  auto wanted = test.first.options();
  wanted.namespace_name = "relationships";
  auto handle = test.first.open(wanted);
  auto add = [&](const std::string& id, const nlohmann::json& ends) {
    auto record = ends;
    record["content"] = id;
    need(handle.upsert(id, record.dump()));
  };
  auto add_all = [&](const std::string& prefix) {
    add(prefix + "from", {{"src_id", "Ann"}, {"tgt_id", "Bo"}});
    add(prefix + "to", {{"src_id", "Bo"}, {"tgt_id", "Ann"}});
    add(prefix + "case", {{"src_id", "ann"}, {"tgt_id", "ANN"}});
    add(prefix + "part", {{"src_id", "Anna"}, {"tgt_id", "An"}});
    add(prefix + "empty", {{"src_id", ""}, {"tgt_id", "Bo"}});
    add(prefix + "null", {{"src_id", nullptr}, {"tgt_id", 7}});
    add(prefix + "none", nlohmann::json::object());
  };
  auto kept = [](const id_list& names) {
    std::set<std::string> out;
    for (std::string prefix : {"old ", "new "})
      for (const auto& each : names)
        out.insert(prefix + each);
    return out;
  };
  add_all("old ");
  need(handle.commit());
  add_all("new ");

  need(handle.remove_entity_relation("Ann"));
  need(handle.commit());
  CHECK(found_by_queries(handle)
        == kept({"case", "part", "empty", "null", "none"}));
  need(handle.remove_entity_relation(""));
  need(handle.remove_entity_relation("7"));
  need(handle.remove_entity_relation("null"));
  need(handle.commit());
  CHECK(found_by_queries(handle) == kept({"case", "part", "null", "none"}));
}

// -- commit -------------------------------------------------------------------

TEST_CASE("a commit and a finalize with nothing to do write nothing",
          "[conformance][B76][B85]") {
  fixture test;
  auto handle = test.first.open();
  commit_contents(handle, {"a"});
  auto generation = need(handle.finalize()).generation;
  auto files = all_files(test.home.path());
  CHECK(need(handle.commit()).generation == generation);
  CHECK(need(handle.finalize()).generation == generation);
  CHECK(all_files(test.home.path()) == files);
}

TEST_CASE("what a handle has not committed survives the commits of others, "
          "and theirs survive its own",
          "[conformance][B68][B78][B87][B95]") {
  fixture test;
  peer second(test.home.path());
  auto mine = test.first.open();
  commit_contents(mine, {"a", "b"});
  auto theirs = second.open();
  need(mine.remove({"a"}));
  upsert_contents(mine, {"c"});
  commit_contents(theirs, {"d"});

  CHECK(content_of(mine, "d") == "text of d");
  CHECK(content_of(mine, "a").empty());
  CHECK(need(mine.pending_ids()) == id_list{"c"});
  SECTION("commit") {
    need(mine.commit());
  }
  SECTION("finalize") {
    need(mine.finalize());
  }
  for (auto* handle : {&mine, &theirs})
    CHECK(found_by_queries(*handle) == std::set<std::string>{"b", "c", "d"});
}

TEST_CASE("values survive commit, publication and reopening byte for byte",
          "[conformance][B10][B11]") {
  fixture test;
  auto wanted = test.first.options();
  wanted.meta_fields = {"content", "value", "absent"};
  std::string value =
      R"({"big": 1180591620717411303424, "numbers": [0.1, 1e+16, -0, 1e400],)"
      R"( "names": [NaN, Infinity, -Infinity], "none": null, "yes": true,)"
      R"( "text": "\ud800 \u0000 \ud83d\ude00 Zoë", "list": [[], {}]})";
  auto record = R"({"other": 1, "content": "x", "value": )" + value + "}";
  auto expected = R"({"__id__": "a", "__created_at__": )"
                  + std::to_string(start_time)
                  + R"(, "content": "x", "value": )" + value + "}";
  auto handle = test.first.open(wanted);
  need(handle.upsert("a", record));
  CHECK(need(handle.get_by_id("a"))->record == expected);
  need(handle.commit());
  CHECK(need(handle.get_by_id("a"))->record == expected);
  need(handle.finalize());
  CHECK(read_file(meta_path(test.home.path())) == R"({"0": )" + expected + "}");
  peer second(test.home.path());
  CHECK(need(second.open(wanted).get_by_id("a"))->record == expected);
  fs::remove_all(private_path(test.home.path()));
  peer third(test.home.path());
  CHECK(need(third.open(wanted).get_by_id("a"))->record == expected);
}

TEST_CASE("published files keep the permissions that their owner gave them",
          "[conformance][B80]") {
  fixture test;
  auto handle = test.first.open();
  commit_contents(handle, {"a"});
  need(handle.finalize());
  auto wanted =
      fs::perms::owner_read | fs::perms::owner_write | fs::perms::group_read;
  for (const auto& path :
       {index_path(test.home.path()), meta_path(test.home.path())})
    fs::permissions(path, wanted);
  commit_contents(handle, {"b"});
  need(handle.finalize());
  CHECK(rows_in_index(test.home.path()) == 2);
  for (const auto& path :
       {index_path(test.home.path()), meta_path(test.home.path())})
    CHECK(fs::status(path).permissions() == wanted);
}

// -- drop and finalize --------------------------------------------------------

TEST_CASE("a drop leaves an empty pair, embeds nothing, can be repeated, and "
          "the store goes on",
          "[conformance][B81]") {
  fixture test;
  auto handle = test.first.open();
  auto other = test.first.open();
  commit_contents(handle, {"a"});
  need(handle.finalize());
  upsert_contents(handle, {"b"});
  auto calls = test.first.model->calls().size();
  for (int i = 0; i < 2; ++i) {
    need(handle.drop());
    CHECK(need(handle.pending_ids()).empty());
    CHECK(found_by_queries(handle).empty());
    CHECK(found_by_queries(other).empty());
    CHECK(rows_in_index(test.home.path()) == 0);
    CHECK(read_file(meta_path(test.home.path())) == "{}");
  }
  CHECK(test.first.model->calls().size() == calls);
  commit_contents(handle, {"c"});
  CHECK(found_by_queries(other) == std::set<std::string>{"c"});
}

TEST_CASE("finalize commits and publishes, reports errors, and leaves the "
          "handle usable",
          "[conformance][B86][B88]") {
  fixture test;
  auto handle = test.first.open();
  upsert_contents(handle, {"a"});
  test.first.model->follow([](auto, auto) {
    return failure{errc::embedding_failed, "no model"};
  });
  CHECK(failure_of(handle.finalize()).code == errc::embedding_failed);
  CHECK(need(handle.pending_ids()) == id_list{"a"});
  test.first.model->follow({});
  CHECK(need(handle.finalize()).committed == 1);
  CHECK(published_records(test.home.path()).at("0").at("content")
        == "text of a");
  commit_contents(handle, {"b"});
  CHECK(found_by_queries(handle) == std::set<std::string>{"a", "b"});
}

// -- several stores and processes ---------------------------------------------

TEST_CASE("stores of other workspaces and namespaces are other stores, however "
          "their names join",
          "[conformance][B90][B91]") {
  fixture test;
  auto open = [&](const std::string& workspace, const std::string& name) {
    auto wanted = test.first.options(workspace);
    wanted.namespace_name = name;
    return test.first.open(wanted);
  };
  std::vector<client> stores = {open("a", "b:c"), open("a:b", "c"),
                                open("", "a"), open("", "c")};
  for (std::size_t i = 0; i < stores.size(); ++i)
    commit_contents(stores[i], {"row " + std::to_string(i)});
  need(stores[0].drop());
  CHECK(found_by_queries(stores[0]).empty());
  for (std::size_t i = 1; i < stores.size(); ++i) {
    CHECK(found_by_queries(stores[i])
          == std::set<std::string>{"row " + std::to_string(i)});
    CHECK(need(stores[i].stats()).store.generation == 1);
  }
}

TEST_CASE("processes that share only the directory see each other's commits "
          "and lose none",
          "[conformance][B89][B92][B100]") {
  fixture test;
  peer second(test.home.path());
  auto mine = test.first.open();
  auto theirs = second.open();
  std::set<std::string> all;
  for (int turn = 0; turn < 6; ++turn) {
    auto& writer = turn % 2 == 0 ? mine : theirs;
    auto& reader = turn % 2 == 0 ? theirs : mine;
    auto id = "row " + std::to_string(turn);
    commit_contents(writer, {id});
    all.insert(id);
    CHECK(content_of(reader, id) == "text of " + id);
    CHECK(found_by_queries(reader) == all);
    if (turn == 3)
      need(reader.checkpoint());
  }
  need(mine.finalize());
  CHECK(published_records(test.home.path()).size() == all.size());
}

TEST_CASE("a commit that waits for its vectors keeps nobody from committing",
          "[conformance][B79][B97]") {
  fixture test;
  peer second(test.home.path());
  auto mine = test.first.open();
  auto theirs = second.open();
  upsert_contents(mine, {"a"});
  std::future<result<commit_result>> commit;
  {
    held_calls held(*test.first.model);
    commit = std::async(std::launch::async, [&] { return mine.commit(); });
    test.first.model->wait_for_calls(1);
    commit_contents(theirs, {"b"});
    need(theirs.finalize());
  }
  need(commit.get());
  CHECK(found_by_queries(theirs) == std::set<std::string>{"a", "b"});
}

TEST_CASE("a commit that waits for the lock holds up no other call and no "
          "other store",
          "[conformance][B96][B97]") {
  fixture test;
  auto wanted = test.first.options();
  wanted.lock_timeout = long_wait;
  auto handle = test.first.open(wanted);
  auto other = test.first.open(test.first.options("other"));
  commit_contents(handle, {"a"});
  upsert_contents(handle, {"b"});
  std::future<result<commit_result>> commit;
  {
    auto held = hold_writer_lock(test.home.path());
    auto before = locks_asked_for(test.first.disk);
    commit = std::async(std::launch::async, [&] { return handle.commit(); });
    REQUIRE(
        eventually([&] { return locks_asked_for(test.first.disk) > before; }));
    need(handle.upsert("c", with_content("text of c")));
    CHECK(content_of(handle, "b") == "text of b");
    CHECK(ids_of(need(handle.query("text of a"))).front() == "a");
    CHECK(need(handle.get_vectors_by_ids({"a", "c"})).size() == 2);
    commit_contents(other, {"z"});
  }
  need(commit.get());
  need(handle.commit());
  CHECK(found_by_queries(handle) == std::set<std::string>{"a", "b", "c"});
}

TEST_CASE("a commit that does not get the lock in time is busy and can be "
          "tried again",
          "[conformance][B96][B99]") {
  fixture test;
  auto wanted = test.first.options();
  wanted.lock_timeout = std::chrono::milliseconds(1);
  auto handle = test.first.open(wanted);
  upsert_contents(handle, {"a"});
  {
    auto held = hold_writer_lock(test.home.path());
    CHECK(failure_of(handle.commit()).code == errc::busy);
    CHECK(need(handle.pending_ids()) == id_list{"a"});
  }
  CHECK(need(handle.commit()).committed == 1);
  CHECK(test.first.model->calls().size() == 1);
}

TEST_CASE("a store that is damaged while it is open is an error, never empty",
          "[conformance][B94]") {
  fixture test;
  peer second(test.home.path());
  auto writer = second.open();
  commit_contents(writer, {"a"});
  auto reader = test.first.open();
  auto replace = [&](const std::string& content) {
    auto path = private_path(test.home.path(), "MANIFEST");
    write_file(path.string() + ".new", content);
    fs::rename(path.string() + ".new", path);
  };
  auto good = read_file(private_path(test.home.path(), "MANIFEST"));
  replace(with_flipped_bit(good, 300));
  CHECK(failure_of(reader.get_by_id("a")).code == errc::corrupt);
  CHECK(failure_of(reader.query("text of a")).code == errc::corrupt);
  CHECK(failure_of(test.first.try_open(test.first.options())).code
        == errc::corrupt);
  replace(good);
  CHECK(content_of(reader, "a") == "text of a");
  CHECK(found_by_queries(reader) == std::set<std::string>{"a"});
}

// -- LightRAG's workload ------------------------------------------------------

TEST_CASE("merging a relation twice leaves one row, under the id of either "
          "direction",
          "[conformance][B3][B101]") {
  fixture test;
  auto wanted = test.first.options();
  wanted.namespace_name = "relationships";
  auto handle = test.first.open(wanted);
  auto merge = [&](const std::string& from, const std::string& to,
                   const std::string& content) {
    auto ids = relation_ids(from, to);
    need(handle.remove({ids.id, ids.reverse_id}));
    nlohmann::json record = {
        {"src_id", from}, {"tgt_id", to}, {"content", content}};
    need(handle.upsert(ids.id, record.dump()));
  };
  need(handle.upsert(relation_ids("Ann", "Bo").reverse_id,
                     with_content("from older data")));
  need(handle.commit());
  merge("Bo", "Ann", "first");
  merge("Ann", "Bo", "second");
  need(handle.commit());
  merge("Bo", "Ann", "third");
  need(handle.commit());
  auto id = relation_ids("Ann", "Bo").id;
  CHECK(found_by_queries(handle) == std::set<std::string>{id});
  CHECK(content_of(handle, id) == "third");
}

TEST_CASE("every candidate of a query has a vector, committed or pending",
          "[conformance][B102]") {
  fixture test;
  auto wanted = test.first.options();
  wanted.embedding_batch = 10;
  auto handle = test.first.open(wanted);
  id_list ids;
  for (int i = 0; i < 35; ++i)
    ids.push_back(chunk_id("chunk " + std::to_string(i)));
  commit_contents(handle, {ids.begin(), ids.begin() + 20});
  upsert_contents(handle, {ids.begin() + 20, ids.end()});
  CHECK(ids_of(need(handle.get_vectors_by_ids(ids))) == ids);
  need(handle.commit());
  auto embedded = test.first.model->calls();
  auto hits =
      need(handle.query(vector_of("anything"), {.top_k = 40, .threshold = -2}));
  auto found = ids_of(need(handle.get_vectors_by_ids(ids_of(hits))));
  CHECK(found == ids_of(hits));
  CHECK(hits.size() == ids.size());
  CHECK(test.first.model->calls().size() == embedded.size());
}
