#pragma once

#include "core/embedder.hpp"
#include "core/result.hpp"

#include <memory>
#include <semaphore>
#include <string>
#include <vector>

namespace callboard {

/// As many calls of one embedder as its `concurrency()` allows, over all pools
/// of this process: one may still end a call while another one begins.
using call_permits = std::counting_semaphore<>;
std::shared_ptr<call_permits>
permits_of(const std::shared_ptr<embedder>& model);

/// Calls `model` for one batch and waits for its answer, however it comes.
/// Trusts nothing: counts are compared, rows are normalized, and a text whose
/// row cannot be is rejected by name of its index.
///
/// Errors: `embedding_failed` (the model failed, threw, forgot to answer, or
///         answered nonsense); `busy` if the model says so.
result<embedding_batch> embed_checked(embedder& model, call_permits& permits,
                                      std::vector<std::string> texts,
                                      embedding_context context);

} // namespace callboard
