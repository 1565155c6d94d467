#pragma once

#include "actors/board_watcher.hpp"
#include "actors/messages.hpp"
#include "actors/storage_machine.hpp"

namespace callboard {

/// Whom a storage actor asks.
struct storage_helpers {
  io_pool_actor io;
  io_pool_actor slow_io;
  search_pool_actor search;
  embedder_pool_actor embedder;
  /// Outlives the actor. Null: who waits for commits of others learns of them
  /// only when something else has the store looked at.
  board_watcher* watcher = nullptr;
};

/// Spawns the owner of one handle. Searches are answered by the search pool
/// directly. A watch ends with the actor that has asked for it.
///
/// Stopping: kept requests are answered `closed`; what is not committed is
///           gone; a job under way ends, and the store is closed on the thread
///           that has it last.
storage_actor spawn_storage(caf::actor_system& system, storage_setup setup,
                            storage_helpers helpers);

} // namespace callboard
