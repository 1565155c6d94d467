#pragma once

#include "core/embedder.hpp"
#include "core/result.hpp"

#include <memory>
#include <string>
#include <vector>

namespace callboard {

/// Calls `model` for one batch and waits for its answer, however it comes.
/// Trusts nothing: counts are compared, rows are normalized, and a text whose
/// row cannot be is rejected by name of its index.
///
/// Errors: `embedding_failed` (the model failed, threw, forgot to answer, or
///         answered nonsense); `busy` if the model says so.
result<embedding_batch> embed_checked(embedder& model,
                                      std::vector<std::string> texts,
                                      embedding_context context);

} // namespace callboard
