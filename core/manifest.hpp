#pragma once

#include "core/base.hpp"
#include "core/result.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace callboard {

inline constexpr std::size_t manifest_bytes_max = 4096;
inline constexpr std::size_t manifest_logs_max = 64;
inline constexpr std::size_t model_bytes_max = 1024;

/// The root of a store. Format: docs/design.md, "MANIFEST".
struct manifest {
  base_descriptor base;
  /// Grows by one with each replacement.
  std::uint64_t number = 0;
  std::uint64_t base_sequence = 0;
  std::uint64_t drop_epoch = 0;
  /// Which file of the base is published first.
  bool meta_first = false;
  /// When the base's planned moves were made; 0 if it has none.
  std::int64_t moves_planned_at = 0;
  /// Rows committed since the base get numbers from here on, for as long as
  /// readers may hold an index file that has rows below with other vectors:
  /// `store_options::reader_grace` from `row_floor_since` on. 0: no floor.
  std::uint64_t row_floor = 0;
  /// Wall clock, seconds.
  std::int64_t row_floor_since = 0;
  /// Frames of its logs up to this sequence were durable before it was written:
  /// who shows its base shows them, too.
  std::uint64_t durable_sequence = 0;
  std::string model;
  /// Rising; the last one is written to.
  std::vector<std::uint64_t> logs;

  /// The next unused epoch.
  std::uint64_t next_epoch() const noexcept {
    return (logs.back() > base.epoch ? logs.back() : base.epoch) + 1;
  }
};

std::vector<std::byte> encode_manifest(const manifest& root);

/// Errors: `corrupt`; `unsupported_format` for another version. `where` names
/// the file in messages.
result<manifest> decode_manifest(std::span<const std::byte> bytes,
                                 std::string_view where);

} // namespace callboard
