#pragma once

#include "core/base.hpp"
#include "core/liveness.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace callboard {

/// The rows committed since a base, in the order of the log. Rows are only
/// ever added and never move; a reader sees the first n of them and ignores
/// the rest, so that one `delta` serves snapshots of many generations.
///
/// Row numbers here count from 0: the snapshot adds the base's row count.
///
/// Threads: one writer (`append`); any number of readers of rows that were
///          appended before the reader learned their number.
class delta {
public:
  static constexpr row_number no_row = 0xffff'ffff;

  /// `previous` below: the earlier row of the same id.
  struct row {
    std::string id;
    std::string record;
    row_number previous = no_row;
  };

  /// Consecutive rows in one piece of memory.
  struct block {
    block(std::size_t first_row, std::size_t capacity, std::size_t dimension);
    ~block();
    block(const block&) = delete;
    block& operator=(const block&) = delete;

    std::size_t first;
    std::size_t capacity;
    std::unique_ptr<row[]> rows;
    std::byte* vectors;
    std::size_t vector_bytes;
  };
  using block_list = std::vector<std::shared_ptr<const block>>;

  explicit delta(std::size_t dimension);

  std::size_t dimension() const noexcept { return dimension_; }
  std::size_t row_count() const noexcept { return row_count_; }

  /// Bytes of memory held by blocks and records, approximately.
  std::size_t memory_bytes() const noexcept { return memory_bytes_; }

  /// Adds a row; `vector` has `dimension()` floats. Returns its number.
  row_number append(std::string id, std::string record,
                    std::span<const std::byte> vector);

  /// The newest of the first `visible_rows` rows that has `id`.
  std::optional<row_number> find(std::string_view id,
                                 std::size_t visible_rows) const;

  /// Calls `visit` with each of the first `visible_rows` rows that may have
  /// `value` in `field`.
  void for_each_posting(indexed_field field, std::string_view value,
                        std::size_t visible_rows,
                        const std::function<void(row_number)>& visit) const;

  /// The blocks that hold the rows so far; immutable, replaced when a block is
  /// added. A snapshot keeps the list of its generation. For the writer only.
  std::shared_ptr<const block_list> blocks() const noexcept { return blocks_; }

  static const row& row_in(const block_list& blocks, row_number number);
  static const std::byte* vector_in(const block_list& blocks, row_number number,
                                    std::size_t dimension);

private:
  const block& block_for_next_row();

  std::size_t dimension_;
  std::size_t row_count_ = 0;
  std::size_t memory_bytes_ = 0;
  std::vector<std::shared_ptr<block>> owned_;

  /// Guards what follows. Keys view the ids of rows, which never move.
  mutable std::shared_mutex mutex_;
  std::shared_ptr<const block_list> blocks_;
  std::unordered_map<std::string_view, row_number> newest_;
  std::unordered_multimap<std::uint64_t, row_number> postings_;
};

} // namespace callboard
