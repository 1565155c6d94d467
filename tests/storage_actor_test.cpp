#include "actors/client.hpp"
#include "core/record.hpp"
#include "tests/support/stage.hpp"

#include <catch2/catch.hpp>

#include <atomic>
#include <cmath>
#include <filesystem>
#include <future>
#include <limits>
#include <thread>

using namespace callboard;
using namespace callboard::test;

namespace {

std::vector<std::string> ids_of(const std::vector<hit>& hits) {
  std::vector<std::string> out;
  for (const auto& each : hits)
    out.push_back(each.id);
  return out;
}

query_options best(std::size_t top_k, double threshold = -2) {
  return {.top_k = top_k, .threshold = threshold};
}

using strings = std::vector<std::string>;
using floats = std::vector<float>;

} // namespace

TEST_CASE("what is upserted and committed is found by its text",
          "[client][B38][B40][B68]") {
  stage stage;
  auto store = stage.open();
  put(store, "a", "alpha");
  put(store, "b", "beta");
  CHECK(need(store.query("alpha")).empty());
  auto done = need(store.commit());
  CHECK(done.committed == 2);
  CHECK(done.generation == 1);
  CHECK(done.failed.empty());

  auto hits = need(store.query("alpha", best(1)));
  REQUIRE(ids_of(hits) == strings{"a"});
  CHECK(hits.front().distance == Approx(1));
  CHECK(string_member(hits.front().record, "content") == "alpha");
  CHECK(need(store.query(vector_of("beta"), best(1))).front().id == "b");
}

TEST_CASE("queries take the best rows first and leave out the bad ones",
          "[client][B40][B41][B42]") {
  stage stage;
  auto store = stage.open();
  for (int i = 0; i < 20; ++i)
    put(store, std::to_string(i), "text " + std::to_string(i));
  need(store.commit());
  auto all = need(store.query("text 7", best(100)));
  REQUIRE(all.size() == 20);
  CHECK(all.front().id == "7");
  for (std::size_t i = 1; i < all.size(); ++i)
    CHECK(all[i - 1].distance >= all[i].distance);
  CHECK(need(store.query("text 7", best(5))).size() == 5);
  for (const auto& each : need(store.query("text 7")))
    CHECK(each.distance >= 0.2F);
}

TEST_CASE("several vectors are searched in one call", "[client]") {
  stage stage;
  auto store = stage.open();
  put(store, "a", "alpha");
  put(store, "b", "beta");
  need(store.commit());
  auto vectors = vector_of("beta");
  for (float each : vector_of("alpha"))
    vectors.push_back(each);
  auto lists = need(store.query_batch(vectors, best(1)));
  REQUIRE(lists.size() == 2);
  CHECK(ids_of(lists[0]) == strings{"b"});
  CHECK(ids_of(lists[1]) == strings{"a"});
  CHECK(need(store.query_batch({}, best(1))).empty());
}

TEST_CASE("bad queries are errors even on an empty store",
          "[client][B44][B45][B47]") {
  stage stage;
  auto store = stage.open();
  auto code = [](const auto& outcome) { return failure_of(outcome).code; };
  auto nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(need(store.query("anything")).empty());
  CHECK(code(store.query("x", best(0))) == errc::invalid_argument);
  CHECK(code(store.query(floats{})) == errc::dimension_mismatch);
  CHECK(code(store.query(floats{1, 2, 3})) == errc::dimension_mismatch);
  CHECK(code(store.query(floats{0, 0, 0, 0})) == errc::invalid_argument);
  CHECK(code(store.query(floats{1, nan, 0, 0})) == errc::invalid_argument);
  CHECK(code(store.query_batch({1, 2, 3})) == errc::dimension_mismatch);
}

TEST_CASE("rows are got by id, in order, pending before committed",
          "[client][B52][B53]") {
  stage stage;
  auto store = stage.open();
  put(store, "a", "old");
  put(store, "b", "beta");
  need(store.commit());
  put(store, "a", "new");
  auto rows = need(store.get_by_ids({"b", "missing", "a", "b"}));
  REQUIRE(rows.size() == 4);
  CHECK(string_member(rows[0]->record, "content") == "beta");
  CHECK_FALSE(rows[1]);
  CHECK(string_member(rows[2]->record, "content") == "new");
  CHECK(rows[3]->record == rows[0]->record);
  CHECK(need(store.get_by_ids({})).empty());
  CHECK_FALSE(need(store.get_by_id("missing")));
}

TEST_CASE("records of one call have one time of creation", "[client][B9]") {
  stage stage;
  auto store = stage.open();
  need(store.upsert({{"a", document("x"), {}}, {"b", document("y"), {}}}));
  auto rows = need(store.get_by_ids({"a", "b"}));
  auto time_of = [](const row& each) {
    return std::string(member(each.record, "__created_at__").value());
  };
  CHECK(time_of(*rows[0]) == time_of(*rows[1]));
}

TEST_CASE("vectors of pending records are made once", "[client][B55][B56]") {
  stage stage;
  auto store = stage.open();
  put(store, "a", "alpha");
  auto vectors = need(store.get_vectors_by_ids({"a", "missing", "a"}));
  REQUIRE(vectors.size() == 1);
  double square = 0;
  for (float each : vectors.front().vector)
    square += double{each} * double{each};
  CHECK(square == Approx(1));
  need(store.commit());
  CHECK(stage.model->calls().size() == 1);
  CHECK(need(store.get_vectors_by_ids({"a"})).front().vector
        == vectors.front().vector);
  CHECK(need(store.get_vectors_by_ids({})).empty());
}

TEST_CASE("a record that brings its vector is not embedded", "[client]") {
  stage stage;
  auto store = stage.open();
  need(store.upsert({{"a", "{}", vector_of("alpha")}}));
  CHECK(need(store.commit()).committed == 1);
  CHECK(stage.model->calls().empty());
  CHECK(need(store.query(vector_of("alpha"), best(1))).front().id == "a");
}

TEST_CASE("deletes hide rows at once and reach others with the commit",
          "[client][B59][B60][B64]") {
  stage stage;
  auto store = stage.open();
  auto other = stage.open();
  put(store, "a", "alpha");
  put(store, entity_id("Alice"), "alice");
  need(store.commit());
  need(store.remove({"a", "unknown"}));
  need(store.remove_entity("Alice"));
  need(store.remove({}));
  CHECK(need(store.query("alpha", best(9))).empty());
  CHECK_FALSE(need(store.get_by_id("a")));
  CHECK(need(other.query("alpha", best(9))).size() == 2);
  need(store.commit());
  CHECK(need(other.query("alpha", best(9))).empty());
}

TEST_CASE("two handles behave as two processes do", "[client][B92]") {
  stage stage;
  auto writer = stage.open();
  auto reader = stage.open();
  put(writer, "a", "alpha");
  CHECK_FALSE(need(reader.get_by_id("a")));
  need(writer.commit());
  CHECK(need(reader.get_by_id("a")));
  CHECK(need(reader.query("alpha", best(1))).size() == 1);
}

TEST_CASE("drop removes everything, and the handle goes on", "[client][B81]") {
  stage stage;
  auto store = stage.open();
  put(store, "a", "alpha");
  need(store.commit());
  put(store, "b", "beta");
  auto calls = stage.model->calls().size();
  need(store.drop());
  need(store.drop());
  CHECK(stage.model->calls().size() == calls); // embeds nothing
  CHECK(need(store.pending_ids()).empty());
  CHECK_FALSE(need(store.get_by_id("a")));
  put(store, "c", "gamma");
  CHECK(need(store.commit()).committed == 1);
  CHECK(need(store.snapshot())->live_count() == 1);
}

TEST_CASE("finalize publishes a pair that another runtime opens",
          "[client][B86]") {
  stage stage;
  {
    auto store = stage.open();
    put(store, "a", "alpha");
    need(store.finalize());
    need(store.verify());
    auto stats = need(store.stats());
    CHECK(stats.store.live_rows == 1);
    CHECK(stats.store.base_generation == stats.store.generation);
    CHECK(stats.pending_upserts == 0);
  }
  stage.actors = need(runtime::start());
  CHECK(need(stage.open().get_by_id("a")));
}

TEST_CASE("uncommitted changes go with the last copy of a handle", "[client]") {
  stage stage;
  {
    auto store = stage.open();
    auto copy = store;
    put(copy, "a", "alpha");
    CHECK(need(store.pending_ids()) == strings{"a"});
  }
  CHECK(need(stage.open().pending_ids()).empty());
}

TEST_CASE("stores are isolated by workspace and namespace", "[client]") {
  stage stage;
  auto one = stage.open();
  auto elsewhere = stage.options();
  elsewhere.workspace = "w";
  auto two = need(stage.actors->open(elsewhere));
  put(one, "a", "alpha");
  need(one.commit());
  need(two.commit());
  CHECK_FALSE(need(two.get_by_id("a")));
}

TEST_CASE("a store that cannot be opened is refused with the reason",
          "[client][B14][B20]") {
  stage stage;
  need(stage.open().commit());
  auto refused = [&](auto change) {
    auto options = stage.options();
    change(options);
    return failure_of(stage.actors->open(options)).code;
  };
  CHECK(refused([](auto& options) { options.model = nullptr; })
        == errc::invalid_argument);
  CHECK(refused([](auto& options) { options.namespace_name = "../x"; })
        == errc::invalid_argument);
  CHECK(refused([](auto& options) { options.working_directory = ""; })
        == errc::invalid_argument);

  struct wide : scripted_embedder {
    std::size_t dimension() const override { return 8; }
  };
  CHECK(refused([](auto& options) { options.model = std::make_shared<wide>(); })
        == errc::dimension_mismatch);
  struct throwing : scripted_embedder {
    std::size_t dimension() const override {
      throw std::runtime_error("no model");
    }
  };
  CHECK(refused(
            [](auto& options) { options.model = std::make_shared<throwing>(); })
        == errc::embedding_failed);
}

// -- embedders ----------------------------------------------------------------

TEST_CASE("a commit embeds in batches of what handle and model allow",
          "[client][B69]") {
  stage stage;
  stage.model->texts_max = 3;
  auto options = stage.options();
  options.embedding_batch = 4;
  auto store = need(stage.actors->open(options));
  for (int i = 0; i < 7; ++i)
    put(store, std::to_string(i), "text " + std::to_string(i));
  CHECK(need(store.commit()).committed == 7);
  std::size_t texts = 0;
  for (const auto& each : stage.model->calls()) {
    CHECK(each.texts.size() <= 3);
    CHECK(each.context == embedding_context::document);
    texts += each.texts.size();
  }
  CHECK(texts == 7);
  for (int i = 0; i < 7; ++i)
    CHECK(need(store.query("text " + std::to_string(i), best(1))).front().id
          == std::to_string(i));
}

TEST_CASE("an embedder that answers nonsense fails the commit and no record",
          "[client][B72]") {
  stage stage;
  auto store = stage.open();
  put(store, "a", "alpha");
  put(store, "b", "beta");
  auto failed = [&](scripted_embedder::script script) {
    stage.model->follow(std::move(script));
    auto reason = failure_of(store.commit());
    CHECK(reason.code == errc::embedding_failed);
    CHECK(need(store.pending_ids()) == strings{"a", "b"});
    CHECK(need(store.snapshot())->live_count() == 0);
    return reason.message;
  };
  using texts = std::span<const std::string>;
  CHECK(contains(failed([](texts, auto) {
                   return embedding_batch{std::vector<float>(4, 1.0F), {}};
                 }),
                 "expected 2 vectors but got 1"));
  CHECK(contains(failed([](texts, auto) {
                   return embedding_batch{std::vector<float>(12, 1.0F), {}};
                 }),
                 "expected 2 vectors but got 3"));
  CHECK(contains(failed([](texts, auto) {
                   return embedding_batch{std::vector<float>(7, 1.0F), {}};
                 }),
                 "dimension mismatch"));
  CHECK(contains(failed([](texts given, auto) {
                   auto out = batch_of(given);
                   out.rejected.push_back({2, "which?"});
                   return out;
                 }),
                 "rejected text 2"));
  CHECK(contains(failed([](texts, auto) -> result<embedding_batch> {
                   throw std::runtime_error("out of tokens");
                 }),
                 "out of tokens"));
  CHECK(
      contains(failed([](texts, auto) -> result<embedding_batch> { throw 7; }),
               "unknown"));
  CHECK(contains(failed([](texts, auto) -> result<embedding_batch> {
                   return failure{errc::conflict, "no service"};
                 }),
                 "no service"));
  stage.model->follow(nullptr);
  CHECK(need(store.commit()).committed == 2);
}

TEST_CASE("a text without a usable vector fails by name, the others commit",
          "[client][B47]") {
  stage stage;
  auto store = stage.open();
  for (const char* id : {"nan", "good", "zero", "refused"})
    put(store, id, id);
  stage.model->follow([](std::span<const std::string> texts, auto) {
    auto out = batch_of(texts);
    for (std::size_t i = 0; i < texts.size(); ++i) {
      auto* row = out.vectors.data() + i * test_dimension;
      if (texts[i] == "nan")
        row[1] = std::numeric_limits<float>::quiet_NaN();
      if (texts[i] == "zero")
        std::fill_n(row, test_dimension, 0.0F);
      if (texts[i] == "refused")
        out.rejected.push_back({i, "too long"});
    }
    return out;
  });
  auto done = need(store.commit());
  CHECK(done.committed == 1);
  REQUIRE(done.failed.size() == 3);
  CHECK(done.failed[0].id == "nan");
  CHECK(done.failed[1].id == "zero");
  CHECK(done.failed[2].id == "refused");
  CHECK(contains(done.failed[2].reason.message, "too long"));
  CHECK(need(store.pending_ids()) == strings{"nan", "zero", "refused"});
  CHECK(failure_of(store.query("nan")).code == errc::embedding_failed);
}

namespace {

/// Answers later, from a thread of its own; or not at all.
class late_embedder : public scripted_embedder {
public:
  ~late_embedder() override {
    for (auto& each : threads_)
      each.join();
  }

  void embed_async(std::span<const std::string> texts, embedding_context,
                   completion done) override {
    if (forgets)
      return;
    threads_.emplace_back([texts, done = std::move(done)] {
      done(batch_of(texts));
      done(failure{errc::embedding_failed, "a second answer is ignored"});
    });
  }

  bool forgets = false;

private:
  std::vector<std::thread> threads_;
};

} // namespace

TEST_CASE("an embedder may answer later, from any thread", "[client]") {
  stage stage;
  stage.model = std::make_shared<late_embedder>();
  auto store = stage.open();
  put(store, "a", "alpha");
  CHECK(need(store.commit()).committed == 1);
  CHECK(need(store.query("alpha", best(1))).size() == 1);
}

TEST_CASE("an embedder that forgets to answer fails the batch", "[client]") {
  stage stage;
  auto model = std::make_shared<late_embedder>();
  stage.model = model;
  auto store = stage.open();
  put(store, "a", "alpha");
  model->forgets = true;
  auto reason = failure_of(store.commit());
  CHECK(reason.code == errc::embedding_failed);
  CHECK(contains(reason.message, "never answered"));
}

TEST_CASE("stores that share an embedder share its batches", "[client]") {
  stage stage;
  auto one = stage.open();
  auto elsewhere = stage.options();
  elsewhere.workspace = "w";
  auto two = need(stage.actors->open(elsewhere));
  auto three = stage.open();
  put(one, "a", "first");
  put(two, "b", "second");
  put(three, "c", "third");
  stage.model->hold();
  auto blocking = in_background([&] { return one.commit(); });
  stage.model->wait_for_calls(1);
  // Both wait behind the first batch; when it is done they are one.
  auto second = in_background([&] { return two.get_vectors_by_ids({"b"}); });
  auto third = in_background([&] { return three.get_vectors_by_ids({"c"}); });
  stage.model->release();
  need(outcome_of(blocking));
  CHECK(need(outcome_of(second)).size() == 1);
  CHECK(need(outcome_of(third)).size() == 1);
  CHECK(stage.model->calls().size() <= 3);
}

TEST_CASE("an embedding queue that is full answers busy", "[client]") {
  runtime_options small;
  small.queue_max = 1;
  stage stage(small);
  auto store = stage.open();
  stage.model->hold();
  auto first = in_background([&] { return store.query("one"); });
  stage.model->wait_for_calls(1);
  auto second = in_background([&] { return store.query("two"); });
  auto third = in_background([&] { return store.query("three"); });
  // One of them finds the only place taken, whichever comes later.
  while (second.wait_for(std::chrono::seconds(0)) != std::future_status::ready
         && third.wait_for(std::chrono::seconds(0))
                != std::future_status::ready)
    std::this_thread::yield();
  stage.model->release();
  need(outcome_of(first));
  auto refused = 0;
  for (auto* each : {&second, &third})
    if (auto outcome = outcome_of(*each); !outcome) {
      CHECK(outcome.error().code == errc::busy);
      ++refused;
    }
  CHECK(refused == 1);
}

TEST_CASE("reads and upserts go on while a commit embeds", "[client]") {
  stage stage;
  auto store = stage.open();
  put(store, "a", "alpha");
  need(store.commit());
  put(store, "b", "beta");
  auto calls = stage.model->calls().size();
  stage.model->hold();
  auto commit = in_background([&] { return store.commit(); });
  stage.model->wait_for_calls(calls + 1);
  CHECK(need(store.query(vector_of("alpha"), best(5))).size() == 1);
  put(store, "b", "newer");
  need(store.remove({"a"}));
  CHECK(need(store.get_by_id("b")));
  stage.model->release();
  CHECK(need(outcome_of(commit)).committed == 1);
  CHECK(need(store.pending_ids()) == strings{"b"});
  CHECK(need(store.query(vector_of("beta"), best(5))).size() == 1);
}

TEST_CASE("an embedder gets no more calls at once than it allows, whoever"
          " makes them",
          "[client]") {
  stage stage;
  std::atomic<int> running = 0;
  std::atomic<int> running_max = 0;
  stage.model->follow([&](std::span<const std::string> texts, auto) {
    auto now = ++running;
    running_max = std::max(running_max.load(), now);
    std::this_thread::yield();
    --running;
    return batch_of(texts);
  });
  auto other = need(runtime::start());
  std::vector<std::future<int>> threads;
  for (auto* each : {stage.actors.get(), other.get()})
    threads.push_back(in_background([&, each] {
      int problems = 0;
      for (int i = 0; i < 20; ++i) // each handle ends before the next begins
        problems += need(each->open(stage.options())).query("x") ? 0 : 1;
      return problems;
    }));
  for (auto& each : threads)
    CHECK(outcome_of(each) == 0);
  CHECK(running_max == 1);
}

// -- the end ------------------------------------------------------------------

TEST_CASE("every request is answered when the runtime stops", "[client]") {
  stage stage;
  auto store = stage.open();
  put(store, "a", "alpha");
  stage.model->hold();
  std::vector<std::future<errc>> asked;
  auto ask = [&](auto request) {
    asked.push_back(in_background([request, store]() mutable {
      auto outcome = request(store);
      return outcome ? errc{} : outcome.error().code;
    }));
  };
  ask([](client& each) { return each.commit(); });
  ask([](client& each) { return each.finalize(); });
  ask([](client& each) { return each.drop(); });
  ask([](client& each) { return each.get_vectors_by_ids({"a"}); });
  for (int i = 0; i < 4; ++i)
    ask([](client& each) { return each.query("x"); });
  stage.model->wait_for_calls(1);

  auto stopped = in_background([&] { stage.actors.reset(); });
  for (auto& each : asked)
    CHECK(outcome_of(each) == errc::closed);
  stage.model->release(); // the destructor waits for the call under way
  outcome_of(stopped);
  CHECK(failure_of(store.commit()).code == errc::closed);
  CHECK(failure_of(store.query("x")).code == errc::closed);
  CHECK(failure_of(store.pending_ids()).code == errc::closed);
}

TEST_CASE("a runtime that has stopped has no file open", "[client]") {
  stage stage;
  auto store = stage.open();
  put(store, "a", "alpha");
  need(store.commit());
  auto open_files = [&] {
    std::size_t count = 0;
    for (const auto& each :
         std::filesystem::directory_iterator("/proc/self/fd")) {
      std::error_code gone;
      auto target = std::filesystem::read_symlink(each, gone).string();
      count += target.starts_with(stage.where.path().string()) ? 1 : 0;
    }
    return count;
  };
  CHECK(open_files() > 0);
  stage.actors.reset();
  CHECK(open_files() == 0);
}

TEST_CASE("a runtime stops at once however many stores are open", "[client]") {
  stage stage;
  std::vector<client> open;
  for (int i = 0; i < 20; ++i) {
    auto options = stage.options();
    options.workspace = "w" + std::to_string(i);
    open.push_back(need(stage.actors->open(options)));
  }
  open.resize(10, open.front());
  stage.actors.reset();
  CHECK(failure_of(open.front().commit()).code == errc::closed);
}

TEST_CASE("an embedder goes with the last store that uses it", "[client]") {
  stage stage;
  auto model = std::make_shared<scripted_embedder>();
  std::weak_ptr<scripted_embedder> watched = model;
  auto options = stage.options();
  options.model = std::exchange(model, nullptr);
  {
    auto one = need(stage.actors->open(options));
    auto two = need(stage.actors->open(options));
    options.model = nullptr;
    put(one, "a", "alpha");
    need(two.commit());
  }
  auto gone = in_background([&] {
    while (!watched.expired())
      std::this_thread::yield();
  });
  outcome_of(gone);
}

TEST_CASE("many threads may use one handle and one store", "[client]") {
  constexpr int thread_count = 6;
  constexpr int rounds = 15;
  stage stage;
  stage.model->concurrent = 2;
  auto shared = stage.open();
  std::vector<std::future<int>> threads;
  for (int i = 0; i < thread_count; ++i)
    threads.push_back(in_background([&, i]() mutable {
      int problems = 0;
      auto own = stage.open();
      for (int k = 0; k < rounds; ++k) {
        auto id = std::to_string(i) + "-" + std::to_string(k);
        auto& store = k % 2 == 0 ? shared : own;
        problems += store.upsert(id, document("text " + id)) ? 0 : 1;
        problems += store.commit() ? 0 : 1;
        auto hits = store.query("text " + id, best(1));
        problems += hits && hits->size() == 1 && hits->front().id == id ? 0 : 1;
        problems += own.get_by_id(id) ? 0 : 1;
      }
      return problems;
    }));
  for (auto& each : threads)
    CHECK(outcome_of(each) == 0);
  CHECK(need(shared.snapshot())->live_count() == thread_count * rounds);
}

TEST_CASE("a store is not opened to hold more than one commit takes",
          "[client]") {
  stage stage;
  auto wanted = stage.options();
  const auto code = [&] { return failure_of(stage.actors->open(wanted)).code; };
  for (std::size_t wrong : {std::size_t{0}, commit_operations_max + 1}) {
    wanted.pending_operations_max = wrong;
    CHECK(code() == errc::invalid_argument);
  }
  wanted.pending_operations_max = commit_operations_max;
  for (std::size_t wrong : {std::size_t{0}, commit_bytes_max + 1}) {
    wanted.pending_bytes_max = wrong;
    CHECK(code() == errc::invalid_argument);
  }
  wanted.pending_bytes_max = commit_bytes_max;
  need(stage.actors->open(wanted));
}
