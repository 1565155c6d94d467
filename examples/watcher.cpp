/// Follows a store: prints what each commit, by any process, has changed.
/// Usage: example_watcher DIRECTORY NAMESPACE [EVENTS]    (0 or none: for ever)
#include "actors/client.hpp"
#include "core/words_embedder.hpp"

#include <cstdlib>
#include <iostream>
#include <string>

namespace {

using namespace callboard;

/// What somebody does who keeps something up to date: a cache, say.
result<void> handle(client& store, const commit_event& event) {
  std::cout << "generation " << event.generation << ": ";
  if (event.what == commit_event::kind::commit) {
    // What an event tells of is there already.
    for (const auto& id : event.changed)
      std::cout << '+' << id << ' ';
    for (const auto& id : event.removed)
      std::cout << '-' << id << ' ';
  } else {
    // After a drop, or if events were lost: begin anew with all that is there.
    CALLBOARD_TRY_ASSIGN(const auto all, store.snapshot());
    std::cout << "read anew: " << all->live_count() << " rows";
  }
  std::cout << std::endl;
  return {};
}

result<void> run(const std::string& directory, const std::string& name,
                 long count) {
  CALLBOARD_TRY_ASSIGN(const auto actors, runtime::start());
  open_options options;
  options.working_directory = directory;
  options.namespace_name = name;
  CALLBOARD_TRY_ASSIGN(options.model, words_embedder::create(256));
  CALLBOARD_TRY_ASSIGN(client store, actors->open(options));
  CALLBOARD_TRY_ASSIGN(auto events, store.watch());
  std::cout << "watching from generation " << events.generation() << std::endl;
  for (;;) {
    CALLBOARD_TRY_ASSIGN(const auto event, events.next(std::chrono::hours(1)));
    if (event)
      CALLBOARD_TRY(handle(store, *event));
    if (event && --count == 0)
      return {};
  }
}

} // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: example_watcher DIRECTORY NAMESPACE [EVENTS]\n";
    return 2;
  }
  const auto done = run(argv[1], argv[2], argc > 3 ? std::atol(argv[3]) : 0);
  if (!done)
    std::cerr << done.error().message << '\n';
  return done ? 0 : 1;
}
