#pragma once

#include "core/base.hpp"
#include "core/io.hpp"
#include "core/liveness.hpp"
#include "core/result.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

/// Internal to `base`: the file `base-<E>.catalog`, which answers what would
/// else need the whole meta file to be parsed. It holds nothing that cannot be
/// made again from the pair (but for planned moves, which are optional).
///
/// Little-endian; each section begins at a multiple of 8:
///
///     header     192 bytes, `catalog_header`
///     bitmap     u64 words: which rows are no holes
///     rows       one `catalog_row` each
///     ids        the rows' ids, without separators; padded with zeros
///     slots      2^slot_bits `catalog_slot`s: a hash table of the ids
///     postings   `catalog_posting`s, by (key, field, row)
///     moves      `catalog_move`s, by `from`, falling
namespace callboard {

struct catalog_header {
  std::array<char, 8> magic{};
  std::uint32_t version = 0;
  std::uint32_t header_bytes = 0;
  store_id store{};
  std::uint64_t epoch = 0;
  std::uint64_t row_count = 0;
  std::uint64_t live_count = 0;
  std::uint32_t dimension = 0;
  std::uint32_t slot_bits = 0;
  /// Of the pair: see `base_descriptor`.
  std::uint64_t index_checksum = 0;
  std::uint64_t meta_checksum = 0;
  std::uint64_t index_bytes = 0;
  std::uint64_t meta_bytes = 0;
  std::uint64_t posting_count = 0;
  std::uint64_t move_count = 0;
  std::uint64_t bitmap_offset = 0;
  std::uint64_t rows_offset = 0;
  std::uint64_t ids_offset = 0;
  std::uint64_t slots_offset = 0;
  std::uint64_t postings_offset = 0;
  std::uint64_t moves_offset = 0;
  /// The size of the file.
  std::uint64_t end_offset = 0;
  /// XXH3_64 of everything behind the header.
  std::uint64_t body_checksum = 0;
  std::uint64_t reserved = 0;
  /// XXH3_64 of the header before this field.
  std::uint64_t header_checksum = 0;
};
static_assert(sizeof(catalog_header) == 192);

/// Checksums are the low 32 bits of XXH3_64.
struct catalog_row {
  /// Where the record's text begins in the meta file; 0: the row is a hole.
  std::uint64_t record_offset = 0;
  std::uint32_t record_bytes = 0;
  std::uint32_t record_checksum = 0;
  std::uint32_t vector_checksum = 0; // holes have one, too
  std::uint32_t id_bytes = 0;
  std::uint64_t id_offset = 0; // in the section of ids
};
static_assert(sizeof(catalog_row) == 32);

/// A slot of the table of ids: open addressing, linear probing from the low
/// bits of the id's XXH3_64, at most 66 % full.
struct catalog_slot {
  std::uint32_t fingerprint = 0; // the high 32 bits of the id's XXH3_64
  std::uint32_t row_plus_1 = 0;  // 0: free
};
static_assert(sizeof(catalog_slot) == 8);

struct catalog_posting {
  std::uint64_t key = 0;
  std::uint32_t row = 0;
  std::uint32_t field = 0;
  auto tie() const noexcept { return std::tuple(key, field, row); }
};
static_assert(sizeof(catalog_posting) == 16);

struct catalog_move {
  std::uint32_t from = 0;
  std::uint32_t to = 0;
};
static_assert(sizeof(catalog_move) == 8);

/// What a row's `record_checksum` and `vector_checksum` are.
std::uint32_t short_checksum(std::span<const std::byte> bytes) noexcept;

/// The row that a key of a meta file names. Empty if it is none: Python writes
/// "0" or digits that do not begin with 0.
std::optional<std::uint64_t> parse_row_key(std::string_view key) noexcept;

/// An `__id__` as text: strings are decoded, integers stay as they are
/// written. Empty if it is of another kind. `raw` must be valid JSON.
std::optional<std::string> parse_id(std::string_view raw);

/// Whether none of the floats in `bytes` is NaN or infinite.
bool all_finite(std::span<const std::byte> bytes) noexcept;

/// A catalog that has been checked once, so that lookups need no checks.
///
/// Ownership: owns its bytes. Threads: immutable, any number of readers.
class catalog {
public:
  /// Checks all of `bytes`: checksums, that it belongs to `descriptor`, and
  /// every offset, row number and order that lookups rely on.
  /// Errors: `corrupt`; the message says why, not which file.
  static result<std::unique_ptr<const catalog>>
  parse(std::unique_ptr<mapping> bytes, const base_descriptor& descriptor);

  std::span<const std::byte> bytes() const noexcept { return bytes_; }

  liveness initial_liveness() const;
  bool is_alive(row_number row) const noexcept;
  catalog_row row(row_number row) const noexcept;
  std::string_view id(row_number row) const noexcept;
  std::optional<row_number> find(std::string_view id) const noexcept;
  void for_each_posting(indexed_field field, std::string_view value,
                        const std::function<void(row_number)>& visit) const;
  std::vector<std::pair<row_number, row_number>> moves() const;

private:
  catalog() = default;

  template <class T>
  T entry(std::uint64_t section, std::uint64_t index) const noexcept;
  result<void> check_header(const base_descriptor& descriptor) const;
  result<void> check_layout() const;
  result<void> check_rows() const;
  result<void> check_slots() const;
  result<void> check_postings() const;
  result<void> check_moves() const;
  std::string_view id_of(const catalog_row& row) const noexcept;
  bool is_row(std::uint64_t number) const noexcept;

  std::unique_ptr<mapping> owner_;
  std::span<const std::byte> bytes_;
  catalog_header header_;
};

/// Makes a catalog of rows that are added in any order, each once.
class catalog_builder {
public:
  explicit catalog_builder(std::size_t row_count);

  std::size_t live_count() const noexcept { return live_count_; }

  /// Every row's vector, holes' too.
  void add_vector(row_number row, std::span<const std::byte> vector);

  /// `record_offset`: where `record` begins in the meta file.
  /// Errors: `invalid_argument`, `too_large`; the caller says which file.
  result<void> add_record(row_number row, std::string_view record,
                          std::uint64_t record_offset);

  /// The `__id__` of what `add_record` added last.
  std::string_view last_id() const noexcept { return last_id_; }

  /// Rows that cannot be moved so, and ids that two rows have, are errors:
  /// `invalid_argument`. Must be the last call.
  result<std::vector<std::byte>>
  finish(const base_descriptor& descriptor,
         std::span<const std::pair<row_number, row_number>> moves);

private:
  catalog_row row(row_number row) const noexcept;
  void set_row(row_number row, const catalog_row& entry) noexcept;
  bool is_alive(row_number row) const noexcept;
  std::string_view id_of(row_number row) const noexcept;
  result<void> append_slots(std::uint32_t slot_bits);
  result<void>
  append_moves(std::span<const std::pair<row_number, row_number>> moves);
  void seal(catalog_header header);

  std::size_t row_count_;
  std::size_t live_count_ = 0;
  std::size_t rows_offset_;
  std::size_t ids_offset_;
  /// The file as far as it is known: header, bitmap, rows, ids.
  std::vector<std::byte> bytes_;
  std::vector<catalog_posting> postings_;
  std::string last_id_;
};

/// The catalog of a pair, made by reading all of it.
/// Errors: `corrupt`; the message names no file.
result<std::vector<std::byte>>
build_catalog(const base_descriptor& descriptor,
              std::span<const std::byte> vectors, std::string_view meta,
              std::span<const std::pair<row_number, row_number>> moves);

} // namespace callboard
