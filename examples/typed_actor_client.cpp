/// An actor of yours that uses a store by messages, without blocking a thread:
/// it stores two notes, commits, asks a question, and tells the main thread
/// what it has found. Usage: example_typed_actor_client [DIRECTORY]
#include "actors/messages.hpp"
#include "actors/runtime_actors.hpp"
#include "core/words_embedder.hpp"

#include <caf/event_based_actor.hpp>

#include <future>
#include <iostream>

namespace {

using namespace callboard;
using outcome = std::promise<result<hit_lists>>;

class librarian : public caf::event_based_actor {
public:
  librarian(caf::actor_config& config, storage_actor store, outcome found)
      : event_based_actor(config),
        store_(std::move(store)),
        found_(std::move(found)) {}

  caf::behavior make_behavior() override {
    upsert_request notes;
    notes.items = {{"tea", R"({"content": "how to pour tea"})", {}},
                   {"bread", R"({"content": "the rising dough"})", {}}};
    ask<void>(this, store_, std::move(notes), [this](result<void> stored) {
      stored ? commit() : found_.set_value(std::move(stored).error());
    });
    return {};
  }

  // Actors that hold each other never end.
  void on_exit() override { destroy(store_); }

private:
  void commit() {
    auto next = [this](result<commit_result> stored) {
      stored ? search() : found_.set_value(std::move(stored).error());
    };
    ask<commit_result>(this, store_, commit_request{}, next);
  }
  void search() {
    auto next = [this](result<hit_lists> hits) { found_.set_value(hits); };
    ask<hit_lists>(this, store_, query_text_request{"rising dough", {}}, next);
  }

  storage_actor store_;
  outcome found_;
};

result<void> run(const std::string& directory) {
  CALLBOARD_TRY_ASSIGN(const auto started, runtime::start());
  open_options options;
  options.working_directory = directory;
  options.namespace_name = "notes";
  CALLBOARD_TRY_ASSIGN(options.model, words_embedder::create(256));
  auto& actors = started->actors();
  CALLBOARD_TRY_ASSIGN(const auto store, actors.open_storage(options));

  outcome found;
  auto future = found.get_future();
  actors.system().spawn<librarian>(store, std::move(found));
  CALLBOARD_TRY_ASSIGN(const auto lists, future.get());
  for (const auto& best : lists.front())
    std::cout << best.distance << "  " << best.id << '\n';
  return {};
}

} // namespace

int main(int argc, char** argv) {
  const auto done = run(argc > 1 ? argv[1] : "callboard-data");
  if (!done)
    std::cerr << done.error().message << '\n';
  return done ? 0 : 1;
}
