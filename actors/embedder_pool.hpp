#pragma once

#include "actors/messages.hpp"
#include "core/embedder.hpp"

#include <cstddef>
#include <memory>

namespace callboard {

/// The name of the actors that call the model.
inline constexpr const char* embedding_worker_name =
    "callboard.embedding_worker";

struct embedder_pool_options {
  /// Requests that may wait in each of the two lanes; more are answered
  /// `busy`.
  std::size_t queue_max = 4096;
  spawn_mode mode = spawn_mode::own_thread;
};

/// Embeds texts with `model`, for any number of stores. Queries come before
/// all documents that wait; within its lane each request is served in order of
/// arrival. Requests that wait together share batches.
///
/// Threads: one worker for each batch that the model takes at once; it waits
///          for the model's answer.
/// Errors:  `embedding_failed` when the model fails, throws, or answers
///          nonsense: for the requests in that batch and no others. `busy`
///          when a lane is full, `closed` once stopped.
embedder_pool_actor spawn_embedder_pool(caf::actor_system& system,
                                        std::shared_ptr<embedder> model,
                                        embedder_pool_options options);

} // namespace callboard
