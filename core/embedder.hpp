#pragma once

#include "core/result.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace callboard {

/// What a text is embedded for. Some models treat the two differently.
enum class embedding_context : std::uint8_t { document, query };

/// The vectors of one batch of texts.
struct embedding_batch {
  /// Row-major, `texts.size() * dimension` floats, one row per text, in order.
  /// Not necessarily normalized: the store normalizes.
  std::vector<float> vectors;

  /// Texts that cannot be embedded, by index; their rows are ignored.
  /// Everything else in the batch is good.
  struct rejected_text {
    std::size_t index = 0;
    std::string message;
  };
  std::vector<rejected_text> rejected;
};

/// Turns texts into vectors. Implement this to use your own model.
///
/// Threads:   `embed` may be called from several threads at once, at most
///            `concurrency()` at a time.
/// Ownership: shared by every store that uses it (`std::shared_ptr`).
class embedder {
public:
  using completion = std::function<void(result<embedding_batch>)>;

  virtual ~embedder() = default;

  /// Components per vector: 1 to 65,536. Constant.
  virtual std::size_t dimension() const = 0;

  /// The model's identity, stored with each store and checked at open. Two
  /// embedders of one name must give comparable vectors. Empty: not checked.
  virtual std::string name() const { return {}; }

  /// How many batches may be under way at once. Constant, at least 1.
  virtual std::size_t concurrency() const { return 1; }

  /// How many texts one batch may hold. Constant, at least 1.
  virtual std::size_t batch_texts_max() const { return 32; }

  /// Embeds `texts` (valid UTF-8). An error fails the whole batch; the caller
  /// may try again with the same texts.
  virtual result<embedding_batch> embed(std::span<const std::string> texts,
                                        embedding_context context) = 0;

  /// As `embed`, for models that answer later. `done` must be called exactly
  /// once, from any thread; `texts` stay valid until then. The default calls
  /// `embed` and then `done`, on the calling thread (one of the pool's own).
  virtual void embed_async(std::span<const std::string> texts,
                           embedding_context context, completion done) {
    std::exchange(done, {})(embed(texts, context));
  }
};

} // namespace callboard
