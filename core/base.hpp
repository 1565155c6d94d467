#pragma once

#include "core/io.hpp"
#include "core/liveness.hpp"
#include "core/notice_board.hpp"
#include "core/result.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace callboard {

class catalog;

/// Fields whose values a store can look rows up by. The order is part of the
/// catalog's format: do not change.
enum class indexed_field : std::uint32_t { src_id = 0, tgt_id = 1 };
inline constexpr std::string_view indexed_field_names[] = {"src_id", "tgt_id"};

/// What postings are keyed by: XXH3_64 of the decoded string value, seeded
/// with the field's number.
std::uint64_t posting_key(indexed_field field, std::string_view value);

/// What MANIFEST says about a base; enough to know the right files.
struct base_descriptor {
  store_id store{};
  std::uint64_t epoch = 0;
  std::uint32_t dimension = 0;
  std::uint64_t index_bytes = 0;
  std::uint64_t meta_bytes = 0;
  /// XXH3_64 over the whole file.
  std::uint64_t index_checksum = 0;
  std::uint64_t meta_checksum = 0;
  std::uint64_t row_count = 0;
  std::uint64_t live_count = 0;
};

std::string base_index_name(std::uint64_t epoch);
std::string base_meta_name(std::uint64_t epoch);
std::string base_catalog_name(std::uint64_t epoch);

/// The vectors and records of one checkpoint: `base-<E>.index` and
/// `base-<E>.meta` in LightRAG's format and `base-<E>.catalog`, mapped.
///
/// Format:    docs/design.md, "Base" and "Catalog".
/// Ownership: owns its maps; views it returns live as long as it does.
/// Threads:   immutable, any number of readers.
/// Errors:    `corrupt` when bytes do not match their checksums.
class base {
public:
  /// Maps the files in `home` that `descriptor` describes. Checks sizes, the
  /// index header and the whole catalog; records and vectors are checked when
  /// they are read. A missing or stale catalog is rebuilt from the pair (which
  /// is then checked whole) and written; where it cannot be written it is
  /// kept in memory. Fails with `not_found` if a file of the pair is missing.
  static result<std::shared_ptr<const base>>
  open(io& door, directory& home, const base_descriptor& descriptor,
       map_mode mode);

  ~base();
  base(const base&) = delete;
  base& operator=(const base&) = delete;

  const base_descriptor& descriptor() const noexcept { return descriptor_; }
  std::size_t dimension() const noexcept { return descriptor_.dimension; }
  std::size_t row_count() const noexcept { return descriptor_.row_count; }

  /// Which rows the base itself has; the others are holes.
  liveness initial_liveness() const;

  /// The row of `id`, if the base has it.
  std::optional<row_number> find(std::string_view id) const noexcept;

  /// Requires, for the following: `row` is a row of this base, not a hole.
  std::string_view id(row_number row) const noexcept;
  result<std::string_view> record(row_number row) const;
  /// `dimension()` floats, at any alignment.
  result<std::span<const std::byte>> vector(row_number row) const;

  /// All rows' vectors (holes included), row-major, at any alignment,
  /// unchecked.
  const std::byte* vectors() const noexcept;

  /// Calls `visit` with each row that may have `value` in `field` (hashes are
  /// compared: the caller compares the record).
  void for_each_posting(indexed_field field, std::string_view value,
                        const std::function<void(row_number)>& visit) const;

  /// Moves that compaction has planned and prepared: the vector of row
  /// `first` is also stored in the hole `second`. Ordered by `first`, falling.
  std::vector<std::pair<row_number, row_number>> planned_moves() const;

  /// Compares every byte with its checksum and the catalog with the pair.
  result<void> verify() const;

private:
  base();
  result<void> check_index() const;
  result<void> check_pair() const;
  result<std::vector<std::byte>> catalog_of_pair() const;
  result<void> rebuild_catalog(io& door, directory& home, map_mode mode);
  result<void> check_vectors() const;
  std::span<const std::byte> stored_vector(row_number row) const noexcept;
  std::string quoted_path(std::string_view name) const;
  failure damaged_row(std::string_view what, std::string_view file_name,
                      row_number row) const;

  base_descriptor descriptor_;
  /// For messages.
  std::string directory_;
  std::unique_ptr<mapping> index_;
  std::unique_ptr<mapping> meta_;
  std::unique_ptr<const catalog> catalog_;
};

/// One row of a base to be written.
struct base_row {
  std::string_view id;
  /// One JSON object on one line, with `__id__`, without `__vector__`.
  std::string_view record;
};

/// What a base is written from. `row_count` rows; a hole has no record but
/// does have (stale, unspecified or copied) vector bytes.
class base_source {
public:
  virtual ~base_source() = default;
  virtual std::size_t row_count() const = 0;
  virtual std::size_t live_count() const = 0;
  /// Called once per row, in order, first for all vectors, then for records.
  virtual result<std::span<const std::byte>> vector(row_number row) = 0;
  /// Empty optional: a hole.
  virtual result<std::optional<base_row>> record(row_number row) = 0;
  virtual std::vector<std::pair<row_number, row_number>> planned_moves() = 0;
};

/// Writes and syncs the three files of base `epoch` into `home` (replacing
/// debris of the same name), and syncs `home`. O(rows); needs no lock; may run
/// on any thread. On failure the files are debris.
result<base_descriptor> write_base(directory& home, const store_id& store,
                                   std::uint64_t epoch, std::uint32_t dimension,
                                   std::uint32_t file_mode,
                                   base_source& source);

} // namespace callboard
