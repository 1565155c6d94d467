/// Tells the stories of many seeds, and looks for a promise that is broken.
///
/// Usage: callboard_simulation [--seeds N] [--first S] [--seed SCHEDULE]
///                             [--hashes FILE] [--no-reduce] [--false-promise]
///
/// The first broken promise ends it: its schedule is reduced to the draws that
/// it takes, and printed with all that happened and the command that replays
/// it. docs/simulation.md tells how to read that.
///
/// The last line counts: seeds=.. steps=.. commits=.. kills=..
/// power_losses=.. io_faults=..
/// Exit status 0: all promises were kept; 1: one was broken; 2: wrong usage.
#include "simulation/reduce.hpp"
#include "simulation/schedule.hpp"
#include "tests/story/story.hpp"

#include <CLI/CLI.hpp>

#include <cstdint>
#include <fstream>
#include <iostream>
#include <optional>
#include <string>

namespace {

using namespace callboard;
using namespace callboard::test;

constexpr int kept = 0;
constexpr int broken = 1;
constexpr int wrong_usage = 2;

constexpr std::size_t trace_steps = 60;

struct request {
  /// Half a minute with optimization, and without.
#ifdef NDEBUG
  std::uint64_t seeds = 10'000;
#else
  std::uint64_t seeds = 1'000;
#endif
  std::uint64_t first = 1;
  std::string replayed;
  std::string hashes;
  bool is_not_reduced = false;
  bool has_false_promise = false;
};

class teller {
public:
  explicit teller(const request& asked) : asked_(asked) {}

  int tell_all() {
    std::ofstream hashes;
    if (!asked_.hashes.empty()) {
      hashes.open(asked_.hashes);
      if (!hashes)
        return unwritable();
    }
    const auto end = asked_.first + asked_.seeds;
    for (auto seed = asked_.first; seed < end; ++seed) {
      const auto outcome = tell(seed, totals_);
      if (hashes.is_open())
        hashes << seed << ' ' << outcome.event_hash << '\n';
      if (outcome.violation) {
        report(seed, *outcome.violation);
        return finish(broken);
      }
    }
    if (hashes.is_open() && !hashes.flush())
      return unwritable();
    return finish(kept);
  }

  int replay(const simulation::schedule& by) {
    const auto outcome = tell(by, totals_, trace_steps);
    if (outcome.violation) {
      report(by, *outcome.violation);
      return finish(broken);
    }
    std::cout << outcome.remarks << "every promise was kept\n";
    return finish(kept);
  }

private:
  story_outcome tell(const simulation::schedule& by, story_totals& totals,
                     std::size_t steps_kept = 0) const {
    const auto kills_before = totals.kills;
    auto out = tell_story(by, totals, steps_kept);
    if (asked_.has_false_promise && totals.kills > kills_before)
      out.violation = "nobody is killed: there were "
                      + std::to_string(totals.kills - kills_before) + " kills";
    return out;
  }

  /// The promise, without what was seen in its place.
  static std::string promise_of(const std::string& violation) {
    return violation.substr(0, violation.find(':'));
  }

  simulation::schedule reduced(const simulation::schedule& failing,
                               const std::string& violation) const {
    if (asked_.is_not_reduced)
      return failing;
    const auto found =
        simulation::reduce(failing, [&](const simulation::schedule& tried) {
          story_totals unused;
          const auto outcome = tell(tried, unused);
          return outcome.violation
                 && promise_of(*outcome.violation) == promise_of(violation);
        });
    std::cout << "reduced to " << found.lively_draws << " draws in "
              << found.trials << " trials"
              << (found.is_reproduced ? "" : ": it was not broken again")
              << '\n';
    return found.reduced;
  }

  void report(const simulation::schedule& failing,
              const std::string& violation) const {
    std::cout << "broken promise: " << violation << "\nschedule: " << failing
              << std::endl;
    const auto shown = reduced(failing, violation);
    story_totals unused;
    const auto told = tell(shown, unused, trace_steps);
    std::cout << "broken promise: " << told.violation.value_or("none")
              << "\n\nremarks:\n"
              << told.remarks << "\nlast steps:\n"
              << told.trace << "\nreplay: callboard_simulation --seed " << shown
              << (asked_.has_false_promise ? " --false-promise" : "") << '\n';
  }

  int unwritable() const {
    std::cerr << "cannot write " << asked_.hashes << '\n';
    return wrong_usage;
  }

  int finish(int status) const {
    std::cout << totals_ << "\nseeds=" << totals_.stories
              << " steps=" << totals_.steps << " commits=" << totals_.commits
              << " kills=" << totals_.kills
              << " power_losses=" << totals_.power_losses
              << " io_faults=" << totals_.io_faults << '\n';
    return status;
  }

  const request& asked_;
  story_totals totals_;
};

int run(const request& asked) {
  if (asked.replayed.empty())
    return teller(asked).tell_all();
  const auto by = simulation::schedule::parse(asked.replayed);
  if (by)
    return teller(asked).replay(*by);
  std::cerr << by.error().message << '\n';
  return wrong_usage;
}

} // namespace

int main(int argc, char** argv) {
  request asked;
  CLI::App app("Tells the stories of many seeds, and looks for a promise that "
               "is broken");
  app.add_option("--seeds", asked.seeds, "How many")->capture_default_str();
  app.add_option("--first", asked.first, "The first seed")
      ->capture_default_str();
  app.add_option("--seed", asked.replayed,
                 "Replays one schedule, as it was printed, and tells what "
                 "happens");
  app.add_option("--hashes", asked.hashes,
                 "Writes a line for each seed: it, and its event hash");
  app.add_flag("--no-reduce", asked.is_not_reduced,
               "Shows a failure as it was found");
  app.add_flag("--false-promise", asked.has_false_promise,
               "Promises that nobody is killed, to see a broken promise");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& unreadable) {
    return app.exit(unreadable) == 0 ? kept : wrong_usage;
  }
  return run(asked);
}
