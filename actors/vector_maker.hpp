#pragma once

#include "actors/work.hpp"
#include "core/pending_buffer.hpp"

#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

namespace callboard {

/// Why some changes could not get a vector.
using rejections = std::unordered_map<const commit_operation*, failure>;

/// How texts are handed to an embedder pool.
struct batch_limits {
  std::size_t batch_texts_max = 32;
  std::size_t batches_at_once = 4;
};

/// Gives pending upserts the vectors of their `content`, in batches of which a
/// few are under way at a time. A content that several requests need at once
/// is embedded once; vectors made before a failure are kept.
///
/// Threads: not thread-safe; answers come on the owner's thread.
class vector_maker {
public:
  using embed_function =
      std::function<void(embed_request, answer<embedding_batch>)>;

  vector_maker(std::size_t dimension, batch_limits limits, embed_function embed)
      : dimension_(dimension), limits_(limits), embed_(std::move(embed)) {}
  vector_maker(const vector_maker&) = delete;
  vector_maker& operator=(const vector_maker&) = delete;

  /// Answers when all of `changes` (upserts) have a vector or are rejected: a
  /// record without string `content`, a text that the embedder refuses. Fails
  /// when a batch with one of them failed whole; what is under way then is
  /// awaited, what is not is left.
  void make(const std::vector<pending_change>& changes,
            answer<rejections> done);

private:
  /// One call of `make`.
  struct need {
    std::size_t open = 0;
    std::optional<failure> failed;
    rejections rejected;
    answer<rejections> done;
  };
  using need_list = std::vector<std::shared_ptr<need>>;
  using batch = std::vector<pending_change>;

  void register_need(const pending_change& change,
                     const std::shared_ptr<need>& asked);
  void send_batches();
  bool send_batch();
  pending_change next_wanted();
  void settle_batch(const batch& sent, result<embedding_batch> answered);
  void settle(const pending_change& change,
              const std::optional<failure>& rejection);
  static void close_one(const std::shared_ptr<need>& asked);

  std::size_t dimension_;
  batch_limits limits_;
  embed_function embed_;
  std::deque<pending_change> queue_;
  /// Who waits for what is in `queue_` or under way.
  std::unordered_map<const commit_operation*, need_list> wanted_;
  std::size_t batches_under_way_ = 0;
};

} // namespace callboard
