#include "actors/checked_embedder.hpp"

#include "core/search.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <future>
#include <map>
#include <mutex>
#include <span>
#include <utility>

namespace callboard {

namespace {

failure nonsense(std::string message) {
  return {errc::embedding_failed, std::move(message)};
}

/// A model's way to answer. Shared with its completions, so that texts live as
/// long as it may read them; the last one gone, there will be no answer.
class pending_answer {
public:
  explicit pending_answer(std::vector<std::string> texts)
      : texts_(std::move(texts)) {}
  pending_answer(const pending_answer&) = delete;
  pending_answer& operator=(const pending_answer&) = delete;

  ~pending_answer() {
    give(nonsense("the embedder never answered: it dropped its completion"));
  }

  std::span<const std::string> texts() const noexcept { return texts_; }

  std::future<result<embedding_batch>> receipt() {
    return promise_.get_future();
  }

  /// The first answer counts.
  void give(result<embedding_batch> value) {
    if (!given_.test_and_set())
      promise_.set_value(std::move(value));
  }

private:
  std::vector<std::string> texts_;
  std::promise<result<embedding_batch>> promise_;
  std::atomic_flag given_ = ATOMIC_FLAG_INIT;
};

result<embedding_batch> call(embedder& model, call_permits& permits,
                             std::vector<std::string> texts,
                             embedding_context context) {
  permits.acquire();
  auto pending = std::make_shared<pending_answer>(std::move(texts));
  auto receipt = pending->receipt();
  try {
    model.embed_async(pending->texts(), context,
                      [pending](result<embedding_batch> value) {
                        pending->give(std::move(value));
                      });
  } catch (const std::exception& reason) {
    pending->give(
        nonsense(std::string("the embedder threw: ") + reason.what()));
  } catch (...) {
    pending->give(nonsense("the embedder threw something unknown"));
  }
  pending.reset();
  auto answered = receipt.get();
  permits.release();
  return answered;
}

result<void> check_shape(const embedding_batch& batch, std::size_t text_count,
                         std::size_t dimension) {
  auto floats = batch.vectors.size();
  if (floats % dimension != 0)
    return nonsense("Embedding dimension mismatch detected: "
                    + std::to_string(floats) + " numbers for "
                    + std::to_string(text_count) + " texts of dimension "
                    + std::to_string(dimension));
  if (floats != text_count * dimension)
    return nonsense("Vector count mismatch: expected "
                    + std::to_string(text_count) + " vectors but got "
                    + std::to_string(floats / dimension));
  for (const auto& each : batch.rejected)
    if (each.index >= text_count)
      return nonsense("the embedder rejected text " + std::to_string(each.index)
                      + " of " + std::to_string(text_count));
  return {};
}

/// Normalizes all rows; rejects what cannot be.
void normalize_rows(embedding_batch& batch, std::size_t text_count,
                    std::size_t dimension) {
  std::vector<bool> is_rejected(text_count);
  for (const auto& each : batch.rejected)
    is_rejected[each.index] = true;
  std::span vectors(batch.vectors);
  for (std::size_t i = 0; i < text_count; ++i) {
    if (is_rejected[i])
      continue;
    auto row = vectors.subspan(i * dimension, dimension);
    if (auto done = normalize(row, "the embedder's vector"); !done)
      batch.rejected.push_back({i, done.error().message});
  }
}

} // namespace

std::shared_ptr<call_permits>
permits_of(const std::shared_ptr<embedder>& model) {
  static std::mutex mutex;
  // An embedder lives as long as a pool has its permits, so that no other one
  // can have its address meanwhile.
  static std::map<const embedder*, std::weak_ptr<call_permits>> known;
  std::lock_guard lock(mutex);
  std::erase_if(known, [](const auto& each) { return each.second.expired(); });
  auto permits = known[model.get()].lock();
  if (!permits) {
    auto count = std::max<std::size_t>(1, model->concurrency());
    permits =
        std::make_shared<call_permits>(static_cast<std::ptrdiff_t>(count));
    known[model.get()] = permits;
  }
  return permits;
}

result<embedding_batch> embed_checked(embedder& model, call_permits& permits,
                                      std::vector<std::string> texts,
                                      embedding_context context) {
  auto text_count = texts.size();
  auto answered = call(model, permits, std::move(texts), context);
  if (!answered) {
    // Other codes would be mistaken for the store's.
    auto& reason = answered.error();
    if (reason.code != errc::busy)
      reason.code = errc::embedding_failed;
    return answered;
  }
  auto dimension = model.dimension();
  CALLBOARD_TRY(check_shape(*answered, text_count, dimension));
  normalize_rows(*answered, text_count, dimension);
  return answered;
}

} // namespace callboard
