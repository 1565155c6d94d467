#pragma once

#include "actors/client.hpp"
#include "tests/support/scratch_directory.hpp"
#include "tests/support/scripted_embedder.hpp"

#include <catch2/catch.hpp>
#include <spdlog/logger.h>
#include <spdlog/sinks/null_sink.h>

#include <future>
#include <memory>
#include <string>
#include <utility>

/// What tests of the actors, seen from outside, share.
namespace callboard::test {

inline std::string document(const std::string& content) {
  return R"({"content": ")" + content + "\"}";
}

/// A runtime, a directory and an embedder.
struct stage {
  explicit stage(runtime_options options = {}) {
    options.log = std::make_shared<spdlog::logger>(
        "test", std::make_shared<spdlog::sinks::null_sink_mt>());
    actors = need(runtime::start(std::move(options)));
  }

  open_options options() const {
    open_options out;
    out.working_directory = where.path().string();
    out.namespace_name = "chunks";
    out.model = model;
    return out;
  }

  client open() { return need(actors->open(options())); }

  scratch_directory where;
  std::shared_ptr<scripted_embedder> model =
      std::make_shared<scripted_embedder>();
  std::unique_ptr<runtime> actors;
};

inline void put(client& into, const std::string& id,
                const std::string& content) {
  need(into.upsert(id, document(content)));
}

/// Runs `work` on a thread of its own; the test fails if it takes for ever.
template <class Work>
auto in_background(Work work) {
  return std::async(std::launch::async, std::move(work));
}

template <class T>
T outcome_of(std::future<T>& running) {
  REQUIRE(running.wait_for(long_wait) == std::future_status::ready);
  return running.get();
}

} // namespace callboard::test
