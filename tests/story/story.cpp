#include "tests/story/story.hpp"

#include "simulation/world.hpp"
#include "tests/story/faults.hpp"
#include "tests/story/model.hpp"
#include "tests/story/turns.hpp"

namespace callboard::test {

using namespace simulation;

namespace {

class story {
public:
  story(const schedule& by, story_totals& totals, std::size_t trace_steps)
      : totals_(totals),
        world_(by, {.interleaving_interval = by.seed() % 3 == 0 ? 0U : 20U}),
        random_(world_.random()),
        fault_random_(by.stream("faults")),
        plot_(random_) {
    if (trace_steps > 0)
      world_.keep_trace(trace_steps);
    world_.computer().on_fault(
        [this](const operation& what) { return faults_.fault_for(what); });
    world_.after_step([this] {
      turns_.observe();
      turns_.settle();
    });
  }

  story(const story&) = delete;
  story& operator=(const story&) = delete;
  /// Models still ask the story what goes wrong.
  ~story() { world_.lose_power(loss_model::kill); }

  void tell() {
    turns_.start();
    for (std::size_t turn = 0; turn < plot_.turns; ++turn) {
      turns_.take();
      const auto steps = random_.below(plot_.patience + 1);
      for (std::uint64_t i = 0; i < steps; ++i)
        world_.step();
    }
    turns_.finish();
  }

  world& stage() { return world_; }

private:
  story_totals& totals_;
  world world_;
  random_source& random_;
  random_source fault_random_;
  plot plot_;
  fault_maker faults_{plot_, world_.computer(), fault_random_, totals_};
  turns turns_{world_, random_, plot_, faults_, totals_};
};

} // namespace

story_outcome tell_story(const schedule& by, story_totals& totals,
                         std::size_t trace_steps) {
  story_outcome out;
  story told(by, totals, trace_steps);
  try {
    told.tell();
  } catch (const violation& broken) {
    out.violation = broken.what();
  }
  ++totals.stories;
  totals.steps += told.stage().step_count();
  out.event_hash = told.stage().event_hash();
  for (const auto& each : told.stage().trace())
    out.trace += each + "\n";
  for (const auto& each : told.stage().remarks())
    out.remarks += each + "\n";
  return out;
}

std::ostream& operator<<(std::ostream& out, const story_totals& totals) {
  return out << totals.stories << " stories, " << totals.steps << " steps, "
             << totals.requests << " requests (" << totals.failed_requests
             << " failed, " << totals.lost_requests << " died), "
             << totals.refusals << " refusals, " << totals.commits
             << " commits of " << totals.committed_changes << " changes, "
             << totals.drops << " drops, " << totals.checkpoints
             << " checkpoints, " << totals.reads << " reads, " << totals.queries
             << " queries, " << totals.events << " events (" << totals.overflows
             << " overflows), " << totals.kills << " kills, "
             << totals.power_losses << " power losses, " << totals.io_faults
             << " I/O faults (" << totals.failed_syncs << " syncs), "
             << totals.embedding_faults << " embedding faults, "
             << totals.foreign_pairs << " foreign pairs, " << totals.damages
             << " damaged stores, " << totals.unseen_generations
             << " generations unseen";
}

} // namespace callboard::test
