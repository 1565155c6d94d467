#pragma once

#include "simulation/schedule.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <ostream>
#include <string>

/// Random histories of several processes, their actors and one store, compared
/// with a model at every step.
namespace callboard::test {

/// What the stories of many seeds have gone through.
struct story_totals {
  std::size_t stories = 0;
  std::size_t steps = 0;
  std::size_t requests = 0;
  std::size_t failed_requests = 0;
  std::size_t lost_requests = 0;
  /// What made no sense.
  std::size_t refusals = 0;
  std::size_t commits = 0;
  std::size_t committed_changes = 0;
  std::size_t drops = 0;
  std::size_t checkpoints = 0;
  std::size_t reads = 0;
  std::size_t queries = 0;
  std::size_t events = 0;
  std::size_t overflows = 0;
  std::size_t kills = 0;
  std::size_t power_losses = 0;
  std::size_t io_faults = 0;
  std::size_t failed_syncs = 0;
  std::size_t embedding_faults = 0;
  std::size_t foreign_pairs = 0;
  std::size_t damages = 0;
  /// Generations that came too fast for the model to see each.
  std::size_t unseen_generations = 0;
};

std::ostream& operator<<(std::ostream& out, const story_totals& totals);

struct story_outcome {
  /// Empty: all promises were kept.
  std::optional<std::string> violation;
  std::uint64_t event_hash = 0;
  /// The last steps, oldest first; empty unless asked for.
  std::string trace;
  /// All requests, answers, generations, faults and deaths; as the trace.
  std::string remarks;
};

/// Tells the story of one schedule, and adds to `totals`. `trace_steps`: how
/// many of the last steps to keep.
story_outcome tell_story(const simulation::schedule& by, story_totals& totals,
                         std::size_t trace_steps = 0);

} // namespace callboard::test
