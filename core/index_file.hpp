#pragma once

#include "core/result.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace callboard {

inline constexpr std::size_t index_header_bytes = 45;
inline constexpr std::uint32_t dimension_max = 65'536;

/// What the header of a faiss `IndexFlatIP` file says.
struct index_header {
  std::uint32_t dimension = 0;
  std::uint64_t row_count = 0;
};

/// Little-endian: "IxFI", int32 dimension, int64 rows, int64 1048576 twice,
/// uint8 trained = 1, int32 metric = 0 (inner product), uint64 floats; then
/// the floats.
std::array<std::byte, index_header_bytes>
encode_index_header(const index_header& header);

/// Parses and validates a header against the size of its file: never trusts a
/// count before it fits. `where` names the file in messages.
/// Errors: `unsupported_format` (another index type or metric), `corrupt`.
result<index_header> decode_index_header(std::span<const std::byte> bytes,
                                         std::uint64_t file_bytes,
                                         std::string_view where);

} // namespace callboard
