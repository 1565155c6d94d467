#pragma once

#include "core/base.hpp"
#include "core/result.hpp"
#include "core/snapshot.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>

namespace callboard {

/// How a checkpoint turns a snapshot into the rows of a new base, so that any
/// mix of the old and the new published file shows a LightRAG reader one of
/// the two checkpoints: see docs/design.md, "Why any mix of the published
/// files is harmless".
enum class fold_kind : std::uint8_t {
  /// Base rows keep their numbers, later rows get new ones; rows that are
  /// gone leave holes. Planned moves stay planned.
  extend,
  /// As `extend`; and copies the last rows' vectors into holes, as moves
  /// planned for `relocate`.
  extend_and_copy,
  /// Rows take the places that `extend_and_copy` prepared; the end is cut.
  /// Requires: no live row was committed since the base.
  relocate,
  /// No rows: after a drop.
  clear,
};

/// What a fold would leave behind, holes below a row floor aside.
struct fold_outlook {
  std::size_t row_count = 0;
  std::size_t hole_count = 0;
  bool rows_since_base = false;
};

fold_outlook look_ahead(const snapshot& view);

/// The rows of the new base. Rows committed since the old one get numbers from
/// `row_floor` or the end of the old one on, whichever is higher; what is left
/// out between the two are holes with vectors of zeros. Reads `view` when
/// asked; any one thread.
std::unique_ptr<base_source> fold(snapshot_ptr view, fold_kind kind,
                                  std::uint64_t row_floor);

} // namespace callboard
