#pragma once

#include "actors/caf_compat.hpp"

#include <caf/scheduler/test_coordinator.hpp>

/// Actor systems without threads: actors run, one message at a time, when
/// whoever drives the scheduler lets them. For simulations; depends on CAF's
/// version as `caf_compat.hpp` does.
namespace callboard {

inline void configure_manual_scheduler(caf::actor_system_config& config) {
  config.set("scheduler.policy", caf::atom("testing"));
}

/// Requires: the system was configured with `configure_manual_scheduler`.
inline caf::scheduler::test_coordinator&
manual_scheduler(caf::actor_system& system) {
  return dynamic_cast<caf::scheduler::test_coordinator&>(system.scheduler());
}

/// Lets actors run until none has anything to do. Timers do not fire.
inline void run_actors(caf::actor_system& system) {
  auto& scheduler = manual_scheduler(system);
  while (scheduler.try_run_once()) {
  }
}

} // namespace callboard
