#pragma once

#include "core/base.hpp"
#include "core/io.hpp"
#include "core/result.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace callboard {

/// `faiss_index_<namespace>.index` and
/// `faiss_index_<namespace>.index.meta.json`.
std::string published_index_name(std::string_view namespace_name);
std::string published_meta_name(std::string_view namespace_name);

/// What had to be decided while a foreign pair was read. All zero: the pair
/// was taken whole.
struct import_report {
  /// Vectors that no record names.
  std::uint64_t orphan_vectors = 0;
  /// Records whose id a higher row has, too (the higher row was kept).
  std::uint64_t duplicate_ids = 0;
  /// Records without a usable `__id__`.
  std::uint64_t records_without_id = 0;
  /// Records without a usable vector whose `content` must be embedded again.
  std::uint64_t records_to_embed = 0;
  /// Records without a usable vector and without `content`.
  std::uint64_t records_without_vector = 0;

  bool lossless() const noexcept {
    return orphan_vectors == 0 && duplicate_ids == 0 && records_without_id == 0
           && records_without_vector == 0;
  }
};

/// A record that came without a usable vector.
struct record_to_embed {
  std::string id;
  std::string record;
};

/// A pair written by somebody else, read and validated: rows keep their
/// numbers.
struct imported_pair {
  std::unique_ptr<base_source> source;
  std::uint32_t dimension = 0;
  import_report report;
  std::vector<record_to_embed> to_embed;
};

/// Reads the pair of `namespace_name` in `home`. No index file: an empty pair
/// (of `dimension`) plus, if there is a meta file, its records in `to_embed`.
/// A record's own `__vector__` (in old stores) wins over the index, even for
/// rows that the index lacks, and is taken out of the record. Holes whose
/// vector is not finite get zeros. The result holds copies of both files.
///
/// Errors: `dimension_mismatch` when the index is not of `dimension`;
///         `unsupported_format`, `corrupt` (also: missing meta; broken JSON,
///         with its byte offset; a key that is no row number); `busy` when the
///         files keep changing while they are read. Nothing is ever written.
result<imported_pair> read_lightrag_pair(directory& home,
                                         std::string_view namespace_name,
                                         std::uint32_t dimension);

/// Removes what crashed writers of either file left behind: siblings named
/// `<file>.tmp.*` (and `<meta file>.tmp`) that are at least an hour old. What
/// cannot be examined or removed stays. Returns how many were removed.
std::size_t remove_orphan_temporaries(io& door, directory& home,
                                      std::string_view namespace_name);

} // namespace callboard
