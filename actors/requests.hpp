#pragma once

#include "core/embedder.hpp"
#include "core/io.hpp"
#include "core/result.hpp"
#include "core/snapshot.hpp"
#include "core/store.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

/// What is asked of a store and what it answers, for actors and for other code
/// alike. Values only; no CAF.
namespace callboard {

/// How a handle on a store behaves.
struct open_options {
  std::string working_directory = {};
  std::string workspace = {};
  std::string namespace_name = {};

  /// Makes the vectors. Required; its dimension and name are the store's.
  std::shared_ptr<embedder> model = nullptr;

  /// Fields kept of each record. Empty: `default_meta_fields(namespace_name)`.
  std::vector<std::string> meta_fields = {};

  /// Queries leave out rows with a lower score.
  double threshold = 0.2;

  /// Texts of one embedding batch, at most (and at most what the model takes).
  std::size_t embedding_batch = 32;

  map_mode base_map = map_mode::shared;
  std::chrono::milliseconds lock_timeout = std::chrono::seconds(30);
  std::chrono::seconds reader_grace = std::chrono::seconds(60);
  bool salvage = false;
  bool network_files = false;

  /// Fold the log into a new base in the background when it has outgrown it.
  bool automatic_checkpoints = true;

  /// Uncommitted changes that one handle holds at most; beyond: `busy`. At
  /// least 1, at most what one commit takes.
  std::size_t pending_operations_max = commit_operations_max;
  std::size_t pending_bytes_max = std::size_t{128} << 20;
};

/// One record to store.
struct upsert_item {
  std::string id = {};
  /// A JSON object. Its string member `content` is embedded at commit.
  std::string record = {};
  /// The vector, if the caller has it already; then nothing is embedded.
  std::vector<float> vector = {};
};

struct query_options {
  /// At most this many rows; at least 1.
  std::size_t top_k = 10;
  /// Overrides `open_options::threshold`.
  std::optional<double> threshold = std::nullopt;
};

struct row {
  std::string id;
  /// The stored JSON object, with `__id__` and `__created_at__`.
  std::string record;
};

struct hit {
  std::string id;
  std::string record;
  /// Cosine similarity: -1 to 1, up to rounding.
  float distance = 0;
};

struct id_vector {
  std::string id;
  std::vector<float> vector;
};

/// A record that a commit could not take, and why. It stays pending until it
/// is replaced or deleted.
struct record_failure {
  std::string id;
  failure reason;
};

struct commit_result {
  /// Grows with every commit by anybody; the latest one if nothing was pending.
  std::uint64_t generation = 0;
  std::size_t committed = 0;
  /// Changes discarded because somebody dropped the store meanwhile, or because
  /// they came from an imported pair and somebody changed the record meanwhile.
  std::size_t discarded = 0;
  /// Records that were left out. The others are committed.
  std::vector<record_failure> failed;
};

struct watch_options {
  /// Memory for events that the watcher has not asked for yet; beyond, they
  /// become one `overflow`.
  std::size_t buffer_bytes_max = std::size_t{4} << 20;
};

struct watch_start {
  /// Names the watch in later requests.
  std::uint64_t number = 0;
  /// Events follow for every commit after this generation.
  std::uint64_t generation = 0;
};

struct handle_stats {
  store_stats store;
  open_report opened;
  std::size_t pending_upserts = 0;
  std::size_t pending_deletes = 0;
  std::size_t pending_bytes = 0;
};

} // namespace callboard
