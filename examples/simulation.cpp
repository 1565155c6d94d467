#include "simulation/reduce.hpp"
#include "simulation/simulated_embedder.hpp"
#include "simulation/world.hpp"

#include <iostream>
#include <set>

/// An actor of one's own under callboard's simulation. It takes notes, saves
/// them, and has a bug that tests with threads would not show on most days.
using namespace callboard;

struct note {
  std::string id;
};
struct save {};
CALLBOARD_LOCAL_MESSAGE(note)
CALLBOARD_LOCAL_MESSAGE(save)

namespace {

/// What the actor believes to be saved.
using ledger = std::set<std::string>;

class ingest : public caf::event_based_actor {
public:
  ingest(caf::actor_config& config, storage_actor store, ledger& book)
      : caf::event_based_actor(config), store_(std::move(store)), book_(book) {}

  caf::behavior make_behavior() override {
    return {[this](note& taken) {
              unsaved_.insert(taken.id);
              upsert_request request;
              request.items.push_back({taken.id, R"({"content": "text"})", {}});
              ask<void>(this, store_, std::move(request), [](result<void>) {});
            },
            [this](save) {
              ask<commit_result>(this, store_, commit_request{},
                                 [this](result<commit_result> outcome) {
                                   if (outcome)
                                     note_saved();
                                 });
            }};
  }
  void on_exit() override { store_ = nullptr; }

private:
  /// The bug: notes may have come since the commit was asked for.
  void note_saved() {
    book_.merge(unsaved_);
    unsaved_.clear();
  }

  storage_actor store_;
  ledger& book_;
  std::set<std::string> unsaved_;
};

/// Whether all that the actor believes to be saved is there after a power cut.
///
/// What it chooses itself is calm if it is 0: it does not save, and goes on.
bool keeps_its_word(const simulation::schedule& by) {
  ledger book;
  simulation::world world(by);
  auto open = [&](simulation::actor_process& where) {
    open_options options{.working_directory = "/notes",
                         .namespace_name = "notes",
                         .meta_fields = {"content"}};
    options.model = std::make_shared<simulation::simulated_embedder>(
        where.door(), simulation::simulated_embedder_options{});
    return world.open(where, std::move(options)).value();
  };
  auto& first = world.start_process();
  {
    auto actor = first.spawn<ingest>(open(first).actor(), book);
    for (const char* id : {"a", "b", "c", "d"}) {
      caf::anon_send(actor, note{id});
      if (world.random().one_in(2))
        caf::anon_send(actor, save{});
      for (auto steps = world.random().below(20); steps > 0; --steps)
        world.step();
    }
  } // who keeps the handle keeps the actor
  world.lose_power(simulation::loss_model::weakest);

  auto store = open(world.start_process());
  for (const auto& id : book)
    if (!world.ask<optional_rows>(store, get_request{{id}}).value().at(0))
      return false;
  return true;
}

} // namespace

int main() {
  for (std::uint64_t seed = 1; seed <= 1000; ++seed)
    if (!keeps_its_word(seed)) {
      const auto found =
          simulation::reduce(seed, [](const simulation::schedule& tried) {
            return !keeps_its_word(tried);
          });
      std::cout << "seed " << seed << " finds the lost note; it takes "
                << found.lively_draws << " choices: " << found.reduced << '\n';
      return 0;
    }
  std::cout << "no seed finds the lost note\n";
  return 1;
}
