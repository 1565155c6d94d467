#include "actors/embedder_pool.hpp"
#include "actors/worker_pool.hpp"
#include "tests/support/scratch_directory.hpp"
#include "tests/support/scripted_embedder.hpp"

#include <caf/scoped_actor.hpp>
#include <catch2/catch.hpp>

#include <condition_variable>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

using namespace callboard;
using namespace callboard::test;

namespace {

/// An actor system, and the tester's own place in it.
struct world {
  world() {
    configure_scheduler(config, 2);
    system.emplace(config);
    self.emplace(*system);
  }

  /// Sends `request` and does not wait; see `receive`.
  template <class Handle, class Request>
  auto send(const Handle& to, Request request) {
    return (*self)->request(to, caf::infinite, std::move(request));
  }

  template <class T, class Waiting>
  result<T> receive(Waiting waiting) {
    result<T> out = closed_failure();
    waiting.receive(
        [&](reply<T>& answered) { out = std::move(answered.value); },
        [](caf::error&) {});
    return out;
  }

  caf::actor_system_config config;
  std::optional<caf::actor_system> system;
  std::optional<caf::scoped_actor> self;
};

embed_request
texts_of(std::vector<std::string> texts,
         embedding_context context = embedding_context::document) {
  return {std::move(texts), context, 32};
}

/// An embedder pool whose model answers nothing until it is released.
struct embedding_world : world {
  explicit embedding_world(std::size_t queue_max = 4096,
                           std::size_t texts_max = 32) {
    model->texts_max = texts_max;
    model->hold();
    pool = spawn_embedder_pool(*system, model, {.queue_max = queue_max});
  }
  ~embedding_world() {
    model->release();
    if (pool)
      stop(pool);
  }

  /// Returns when the pool has taken all that was sent before.
  void wait_for_pool() {
    need(receive<embedding_batch>(send(pool, texts_of({}))));
  }

  /// Sends one document and waits until the model has it.
  auto occupy_model() {
    auto waiting = send(pool, texts_of({"first"}));
    model->wait_for_calls(1);
    return waiting;
  }

  std::shared_ptr<scripted_embedder> model =
      std::make_shared<scripted_embedder>();
  embedder_pool_actor pool;
};

class noted_job : public job {
public:
  noted_job(std::vector<int>& notes, int number)
      : notes_(notes), number_(number) {}
  void run() override {
    if (number_ < 0)
      throw std::runtime_error("broken job");
    notes_.push_back(number_);
  }

private:
  std::vector<int>& notes_;
  int number_;
};

/// Runs until it is released.
class gate : public job {
public:
  void run() override {
    std::unique_lock lock(mutex_);
    is_running_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return is_open_; });
  }
  void wait_until_running() {
    std::unique_lock lock(mutex_);
    REQUIRE(changed_.wait_for(lock, long_wait, [this] { return is_running_; }));
  }
  void open() {
    std::lock_guard lock(mutex_);
    is_open_ = true;
    changed_.notify_all();
  }

private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_running_ = false;
  bool is_open_ = false;
};

} // namespace

TEST_CASE("a query overtakes queued documents: behind 400 it is next",
          "[embedder_pool]") {
  embedding_world world(4096, 8);
  auto first = world.occupy_model();
  std::vector<decltype(first)> documents;
  for (int i = 0; i < 400; ++i)
    documents.push_back(
        world.send(world.pool, texts_of({"text " + std::to_string(i)})));
  auto query =
      world.send(world.pool, texts_of({"query"}, embedding_context::query));
  world.wait_for_pool();
  world.model->release();
  CHECK(need(world.receive<embedding_batch>(query)).vectors.size()
        == test_dimension);
  for (auto& each : documents)
    need(world.receive<embedding_batch>(each));
  need(world.receive<embedding_batch>(first));
  auto calls = world.model->calls();
  CHECK(calls.size() == 2 + 400 / 8);
  CHECK(calls[1].context == embedding_context::query);
  CHECK(calls[2].texts.front() == "text 0");
}

TEST_CASE("requests that wait together share a batch, and get their own part",
          "[embedder_pool]") {
  embedding_world world;
  auto first = world.occupy_model();
  auto one = world.send(world.pool, texts_of({"a", "b"}));
  auto two = world.send(world.pool, texts_of({"c"}));
  world.wait_for_pool();
  world.model->follow([](std::span<const std::string> texts, auto) {
    auto out = batch_of(texts);
    if (texts.size() == 3)
      out.rejected.push_back({2, "no"});
    return out;
  });
  world.model->release();
  need(world.receive<embedding_batch>(first));
  auto both = need(world.receive<embedding_batch>(one));
  auto last = need(world.receive<embedding_batch>(two));
  CHECK(world.model->calls().size() == 2);
  CHECK(both.vectors.size() == 2 * test_dimension);
  CHECK(both.rejected.empty());
  REQUIRE(last.rejected.size() == 1);
  CHECK(last.rejected.front().index == 0);
}

TEST_CASE("a batch keeps to the smallest limit of its requests",
          "[embedder_pool]") {
  embedding_world world;
  auto first = world.occupy_model();
  auto modest = texts_of({"a"});
  modest.batch_texts_max = 2;
  std::vector<decltype(first)> waiting;
  waiting.push_back(world.send(world.pool, modest));
  for (int i = 0; i < 3; ++i)
    waiting.push_back(world.send(world.pool, texts_of({"b"})));
  world.wait_for_pool();
  world.model->release();
  need(world.receive<embedding_batch>(first));
  for (auto& each : waiting)
    need(world.receive<embedding_batch>(each));
  auto calls = world.model->calls();
  REQUIRE(calls.size() == 3);
  CHECK(calls[1].texts.size() == 2);
  CHECK(calls[2].texts.size() == 2);
}

TEST_CASE("a batch that fails whole fails its requests and no others",
          "[embedder_pool]") {
  embedding_world world(4096, 2);
  auto first = world.occupy_model();
  auto one = world.send(world.pool, texts_of({"bad"}));
  auto two = world.send(world.pool, texts_of({"with bad"}));
  auto three = world.send(world.pool, texts_of({"good"}));
  world.wait_for_pool();
  world.model->follow(
      [](std::span<const std::string> texts, auto) -> result<embedding_batch> {
        if (texts.front() == "bad")
          return failure{errc::embedding_failed, "this batch"};
        return batch_of(texts);
      });
  world.model->release();
  need(world.receive<embedding_batch>(first));
  CHECK(failure_of(world.receive<embedding_batch>(one)).message
        == "this batch");
  CHECK(failure_of(world.receive<embedding_batch>(two)).message
        == "this batch");
  need(world.receive<embedding_batch>(three));
}

TEST_CASE("a full lane answers busy, and documents leave room for queries",
          "[embedder_pool]") {
  embedding_world world(1);
  auto first = world.occupy_model();
  auto queued = world.send(world.pool, texts_of({"a"}));
  auto refused = world.send(world.pool, texts_of({"b"}));
  CHECK(failure_of(world.receive<embedding_batch>(refused)).code == errc::busy);
  auto query =
      world.send(world.pool, texts_of({"q"}, embedding_context::query));
  world.wait_for_pool();
  world.model->release();
  need(world.receive<embedding_batch>(query));
  need(world.receive<embedding_batch>(queued));
  need(world.receive<embedding_batch>(first));
}

TEST_CASE("more texts than the model takes are refused", "[embedder_pool]") {
  embedding_world world(4096, 2);
  auto refused = world.send(world.pool, texts_of({"a", "b", "c"}));
  CHECK(failure_of(world.receive<embedding_batch>(refused)).code
        == errc::invalid_argument);
}

TEST_CASE("an embedder pool that stops answers all that waits",
          "[embedder_pool]") {
  embedding_world world;
  auto first = world.occupy_model();
  auto document = world.send(world.pool, texts_of({"a"}));
  auto query =
      world.send(world.pool, texts_of({"q"}, embedding_context::query));
  world.wait_for_pool();
  stop(world.pool);
  CHECK(failure_of(world.receive<embedding_batch>(document)).code
        == errc::closed);
  CHECK(failure_of(world.receive<embedding_batch>(query)).code == errc::closed);
  CHECK(failure_of(world.receive<embedding_batch>(first)).code == errc::closed);
  auto late = world.send(world.pool, texts_of({"b"}));
  CHECK(failure_of(world.receive<embedding_batch>(late)).code == errc::closed);
}

TEST_CASE("jobs run in order of arrival, and one that throws harms none",
          "[worker_pool]") {
  world world;
  std::vector<int> notes;
  auto pool = spawn_io_pool(*world.system, {.workers = 1, .queue_max = 100});
  std::vector<int> expected;
  std::vector<decltype(world.send(pool, run_request{}))> waiting;
  for (int i = 0; i < 50; ++i) {
    auto number = i == 20 ? -1 : i;
    waiting.push_back(world.send(
        pool, run_request{std::make_shared<noted_job>(notes, number)}));
    if (number >= 0)
      expected.push_back(number);
  }
  for (int i = 0; i < 50; ++i) {
    auto outcome = world.receive<void>(waiting[std::size_t(i)]);
    CHECK(outcome.has_value() == (i != 20));
    if (i == 20)
      CHECK(contains(outcome.error().message, "broken job"));
  }
  CHECK(notes == expected);
  stop(pool);
}

TEST_CASE("a full pool answers busy, a stopped one closed", "[worker_pool]") {
  world world;
  auto pool = spawn_io_pool(*world.system, {.workers = 1, .queue_max = 1});
  auto blocking = std::make_shared<gate>();
  std::vector<int> notes;
  auto running = world.send(pool, run_request{blocking});
  blocking->wait_until_running();
  auto queued =
      world.send(pool, run_request{std::make_shared<noted_job>(notes, 1)});
  auto refused =
      world.send(pool, run_request{std::make_shared<noted_job>(notes, 2)});
  CHECK(failure_of(world.receive<void>(refused)).code == errc::busy);
  stop(pool);
  CHECK(failure_of(world.receive<void>(queued)).code == errc::closed);
  CHECK(failure_of(world.receive<void>(running)).code == errc::closed);
  blocking->open();
  CHECK(notes.empty());
}
