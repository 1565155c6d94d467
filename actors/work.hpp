#pragma once

#include "actors/requests.hpp"
#include "core/embedder.hpp"
#include "core/result.hpp"
#include "core/search.hpp"
#include "core/snapshot.hpp"
#include "core/store.hpp"

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <vector>

/// What actors have others do for them, without CAF.
namespace callboard {

/// Takes the one answer to a request. To be called once, by the actor that
/// made it.
template <class T>
using answer = std::function<void(result<T>)>;

/// Blocking work, for a thread that may block. What it yields it keeps: who
/// asked for it reads it there when it is done.
class job {
public:
  virtual ~job() = default;
  virtual void run() = 0;
};

/// Texts to embed, at most `batch_texts_max` and what the model takes. They
/// may share a batch with others' texts. Vectors in the answer are normalized
/// and finite; texts for which that cannot be are rejected.
struct embed_request {
  std::vector<std::string> texts;
  embedding_context context = embedding_context::document;
  std::size_t batch_texts_max = 32;
};

/// Vectors (of any length but zero: normalized there) to look for in `view`.
struct search_request {
  snapshot_ptr view;
  std::vector<float> vectors;
  search_parameters parameters;
};

using hit_lists = std::vector<std::vector<hit>>;
using optional_rows = std::vector<std::optional<row>>;
using optional_event = std::optional<commit_event>;

} // namespace callboard
