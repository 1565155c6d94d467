// A test outside the project: whatever the seed, a commit that was answered is
// still there after a power loss.
#include "simulation/simulated_embedder.hpp"
#include "simulation/world.hpp"

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <utility>

namespace {

namespace simulation = callboard::simulation;

callboard::result<simulation::remote_store> open(simulation::world& world) {
  auto& process = world.start_process();
  callboard::open_options options;
  options.working_directory = "/notes";
  options.namespace_name = "chunks";
  options.model = std::make_shared<simulation::simulated_embedder>(
      process.door(), simulation::simulated_embedder_options{});
  return world.open(process, std::move(options));
}

callboard::result<bool> keeps_a_commit(const simulation::schedule& by) {
  simulation::world world(by);
  CALLBOARD_TRY_ASSIGN(auto store, open(world));
  callboard::upsert_request note;
  note.items.push_back({"island", R"({"content": "aeiou"})", {}});
  CALLBOARD_TRY(world.ask<void>(store, std::move(note)));
  CALLBOARD_TRY(
      world.ask<callboard::commit_result>(store, callboard::commit_request{}));
  world.lose_power(simulation::loss_model::weakest);
  CALLBOARD_TRY_ASSIGN(auto again, open(world));
  CALLBOARD_TRY_ASSIGN(auto found,
                       world.ask<callboard::optional_rows>(
                           again, callboard::get_request{{"island"}}));
  return found.at(0).has_value();
}

} // namespace

int main() {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    const auto kept = keeps_a_commit(seed);
    if (kept && *kept)
      continue;
    std::cerr << "seed " << seed << ": "
              << (kept ? "the commit is lost" : kept.error().message) << '\n';
    return EXIT_FAILURE;
  }
  std::cout << "20 commits survived 20 power losses\n";
}
