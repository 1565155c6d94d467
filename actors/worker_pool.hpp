#pragma once

#include "actors/messages.hpp"

#include <cstddef>

namespace callboard {

struct pool_options {
  std::size_t workers = 1;
  /// Requests that may wait for a worker; more are answered `busy`.
  std::size_t queue_max = 4096;
  spawn_mode mode = spawn_mode::own_thread;
};

/// Runs jobs in order of arrival, as many at once as there are workers.
///
/// Errors: `busy` when the queue is full. An actor that is stopped answers
///         `closed` to all, and its workers end the jobs they are at.
io_pool_actor spawn_io_pool(caf::actor_system& system, pool_options options);

/// Searches snapshots. A request of several vectors is one piece of work.
///
/// Errors: as above, and `invalid_argument` for vectors that cannot be
///         normalized.
search_pool_actor spawn_search_pool(caf::actor_system& system,
                                    pool_options options);

} // namespace callboard
