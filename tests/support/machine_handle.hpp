#pragma once

#include "actors/storage_machine.hpp"
#include "core/record.hpp"
#include "core/search.hpp"
#include "ipc/process_board.hpp"
#include "tests/support/scratch_directory.hpp"
#include "tests/support/scripted_embedder.hpp"
#include "tests/support/store_wrapper.hpp"

#include <catch2/catch.hpp>
#include <spdlog/logger.h>
#include <spdlog/sinks/null_sink.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

/// A storage machine in the hands of a test.
namespace callboard::test {

/// Does nothing until it is told to: a test decides what happens when.
class manual_services : public storage_services {
public:
  struct waiting_job {
    std::shared_ptr<job> work;
    answer<void> done;
  };
  struct waiting_texts {
    embed_request request;
    answer<embedding_batch> done;
  };

  void run(std::shared_ptr<job> work, job_pace, answer<void> done) override {
    jobs.push_back({std::move(work), std::move(done)});
  }

  void embed(embed_request request, answer<embedding_batch> done) override {
    ++batches_sent;
    texts.push_back({std::move(request), std::move(done)});
  }

  void after(std::chrono::milliseconds time,
             std::function<void()> then) override {
    timers.emplace(time, std::move(then));
  }

  void note_view(const std::shared_ptr<const change_probe>&,
                 std::uint64_t generation, bool is_awaited) override {
    noted_generation = generation;
    somebody_waits = is_awaited;
  }

  /// Ends the shortest timer now. What it was for may need another one, if that
  /// was longer.
  void ring() {
    REQUIRE_FALSE(timers.empty());
    auto next = timers.extract(timers.begin());
    next.mapped()();
  }

  void finish_job() {
    auto next = std::move(jobs.front());
    jobs.pop_front();
    next.work->run();
    next.done({});
  }

  void answer_texts(result<embedding_batch> value) {
    auto next = std::move(texts.front());
    texts.pop_front();
    next.done(std::move(value));
  }

  /// As a pool does: normalized.
  void embed_texts() {
    auto batch = batch_of(texts.front().request.texts);
    for (std::size_t i = 0; i < batch.vectors.size(); i += test_dimension)
      need(normalize(std::span(batch.vectors).subspan(i, test_dimension), ""));
    answer_texts(std::move(batch));
  }

  bool is_idle() const { return jobs.empty() && texts.empty(); }

  /// Does all that is asked for, until nothing is.
  void settle() {
    while (!is_idle()) {
      if (!texts.empty())
        embed_texts();
      else
        finish_job();
    }
  }

  std::deque<waiting_job> jobs;
  std::deque<waiting_texts> texts;
  int batches_sent = 0;
  std::multimap<std::chrono::milliseconds, std::function<void()>> timers;
  std::uint64_t noted_generation = 0;
  bool somebody_waits = false;
};

/// The answer to a request, when there is one.
template <class T>
class receipt {
public:
  answer<T> way() {
    return [kept = kept_](result<T> value) {
      REQUIRE_FALSE(kept->has_value()); // answered once
      kept->emplace(std::move(value));
    };
  }
  bool is_answered() const { return kept_->has_value(); }
  result<T>& get() const {
    REQUIRE(kept_->has_value());
    return **kept_;
  }

private:
  std::shared_ptr<std::optional<result<T>>> kept_ =
      std::make_shared<std::optional<result<T>>>();
};

/// One handle on the store in `where`, and a way to ask it.
class test_handle {
public:
  explicit test_handle(const scratch_directory& where,
                       open_options options = {}, batch_limits embedding = {}) {
    store_options chosen;
    chosen.working_directory = where.path().string();
    chosen.namespace_name = "relationships";
    chosen.dimension = test_dimension;
    auto opener = [chosen,
                   script = script]() -> result<std::unique_ptr<store>> {
      CALLBOARD_TRY_ASSIGN(auto inner,
                           store::open(posix_io(), process_board(), chosen));
      return std::unique_ptr<store>(
          std::make_unique<store_wrapper>(std::move(inner), script));
    };
    options.namespace_name = "relationships";
    options.meta_fields = default_meta_fields(options.namespace_name);
    machine.emplace(
        storage_setup{
            .session = need(store_session::open(opener)),
            .options = std::move(options),
            .dimension = test_dimension,
            .embedding = embedding,
            .door = &posix_io(),
            .log = std::make_shared<spdlog::logger>(
                "test", std::make_shared<spdlog::sinks::null_sink_st>())},
        services);
  }

  receipt<void> upsert(std::string id, std::string content) {
    return upsert_record(std::move(id), R"({"content": ")" + content + "\"}");
  }
  receipt<void> upsert_record(std::string id, std::string record) {
    receipt<void> out;
    machine->upsert({{std::move(id), std::move(record), {}}}, out.way());
    return out;
  }
  receipt<void> remove(std::vector<std::string> ids) {
    receipt<void> out;
    machine->remove(std::move(ids), out.way());
    return out;
  }
  receipt<commit_result>
  commit(std::optional<std::uint64_t> expected = std::nullopt) {
    receipt<commit_result> out;
    machine->commit(expected, out.way());
    return out;
  }
  receipt<optional_rows> get(std::vector<std::string> ids) {
    receipt<optional_rows> out;
    machine->get(std::move(ids), out.way());
    return out;
  }
  receipt<std::vector<id_vector>> get_vectors(std::vector<std::string> ids) {
    receipt<std::vector<id_vector>> out;
    machine->get_vectors(std::move(ids), out.way());
    return out;
  }
  receipt<snapshot_ptr> snapshot() {
    receipt<snapshot_ptr> out;
    machine->snapshot(out.way());
    return out;
  }
  receipt<void> drop() {
    receipt<void> out;
    machine->drop(out.way());
    return out;
  }
  receipt<void> checkpoint(compaction how = compaction::automatic) {
    receipt<void> out;
    machine->checkpoint(how, out.way());
    return out;
  }
  receipt<commit_result> finalize() {
    receipt<commit_result> out;
    machine->finalize(out.way());
    return out;
  }
  receipt<handle_stats> stats() {
    receipt<handle_stats> out;
    machine->stats(out.way());
    return out;
  }

  receipt<watch_start> watch(watch_options chosen = {}) {
    receipt<watch_start> out;
    machine->watch(chosen, out.way());
    return out;
  }
  receipt<optional_event>
  next(std::uint64_t number,
       std::chrono::milliseconds timeout = std::chrono::hours(1)) {
    receipt<optional_event> out;
    machine->next_event(number, timeout, out.way());
    return out;
  }
  receipt<std::uint64_t>
  await(std::uint64_t generation,
        std::chrono::milliseconds timeout = std::chrono::hours(1)) {
    receipt<std::uint64_t> out;
    machine->await_generation(generation, timeout, out.way());
    return out;
  }

  /// Does what was asked for, and expects success.
  template <class T>
  T settle(const receipt<T>& asked) {
    services.settle();
    return need(asked.get());
  }
  void settle(const receipt<void>& asked) {
    services.settle();
    need(asked.get());
  }

  void put(const std::string& id, const std::string& content) {
    settle(upsert(id, content));
    settle(commit());
  }

  /// The content that `get` shows; empty if there is no row.
  std::string content_of(const std::string& id) {
    return content_in(settle(get({id})).front());
  }
  static std::string content_in(const std::optional<row>& found) {
    return found ? string_member(found->record, "content").value() : "";
  }

  /// What queries can find, by id.
  std::map<std::string, std::string> visible() {
    auto view = settle(snapshot());
    std::map<std::string, std::string> out;
    view->for_each_row([&](row_number number) {
      out[std::string(view->id(number))] =
          string_member(need(view->record(number)), "content").value_or("");
      return true;
    });
    return out;
  }

  std::shared_ptr<store_script> script = std::make_shared<store_script>();
  manual_services services;
  std::optional<storage_machine> machine;
};

} // namespace callboard::test
