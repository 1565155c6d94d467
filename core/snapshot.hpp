#pragma once

#include "core/base.hpp"
#include "core/delta.hpp"
#include "core/liveness.hpp"
#include "core/result.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace callboard {

class snapshot;
using snapshot_ptr = std::shared_ptr<const snapshot>;

/// Rows whose vectors lie one after the other.
struct row_block {
  /// `count * dimension` floats, at any alignment. Rows that are not alive
  /// have unspecified (but readable) vectors.
  const std::byte* vectors = nullptr;
  row_number first = 0;
  std::size_t count = 0;
};

/// An immutable view of a store at one generation. Copies nothing: base rows
/// are read from the mapped files, later rows from shared blocks of memory.
///
/// Ownership: shared; views it returns live as long as it does.
/// Threads:   any number of readers.
class snapshot : public std::enable_shared_from_this<snapshot> {
public:
  /// The first `delta_rows` rows of `rows` are visible. For the thread that
  /// appends to `rows`.
  snapshot(std::shared_ptr<const base> base_rows,
           std::shared_ptr<const delta> rows, std::size_t delta_rows,
           liveness alive, std::uint64_t generation, std::uint64_t drop_epoch);

  /// The sequence of the last commit that is in it.
  std::uint64_t generation() const noexcept { return generation_; }
  /// How many times the store had been dropped.
  std::uint64_t drop_epoch() const noexcept { return drop_epoch_; }
  std::size_t dimension() const noexcept { return base_->dimension(); }

  /// Row numbers are below this; some are holes.
  std::size_t row_count() const noexcept {
    return base_->row_count() + delta_rows_;
  }
  std::size_t live_count() const noexcept { return alive_.count(); }
  const liveness& alive() const noexcept { return alive_; }

  /// The row of `id`, if it is alive.
  std::optional<row_number> find(std::string_view id) const;

  /// Requires, for the following: `row` is alive.
  std::string_view id(row_number row) const noexcept;
  result<std::string_view> record(row_number row) const;
  /// `dimension()` normalized floats, at any alignment.
  result<std::span<const std::byte>> vector(row_number row) const;

  /// All rows' vectors, in row order.
  std::vector<row_block> blocks() const;

  /// Calls `visit` with each live row, in row order, until it returns false.
  void for_each_row(const std::function<bool(row_number)>& visit) const;

  /// The live rows whose string field `field` equals `value`.
  result<std::vector<row_number>> rows_with(indexed_field field,
                                            std::string_view value) const;

  /// This view without the rows of `ids` (those that it has).
  snapshot_ptr without(std::span<const std::string> ids) const;

  const base& base_rows() const noexcept { return *base_; }

private:
  snapshot(const snapshot&) = default;

  bool in_base(row_number row) const noexcept {
    return row < base_->row_count();
  }

  std::shared_ptr<const base> base_;
  std::shared_ptr<const delta> delta_;
  std::shared_ptr<const delta::block_list> delta_blocks_;
  std::size_t delta_rows_;
  liveness alive_;
  std::uint64_t generation_;
  std::uint64_t drop_epoch_;
};

} // namespace callboard
