#include "core/index_file.hpp"

#include "core/bytes.hpp"
#include "core/liveness.hpp"
#include "core/record.hpp"

#include <algorithm>
#include <string>

namespace callboard {
namespace {

constexpr std::string_view flat_inner_product = "IxFI";

/// faiss writes this where older versions had fields; readers skip it.
constexpr std::int64_t unused_field = 1 << 20;

constexpr std::size_t dimension_offset = 4;
constexpr std::size_t row_count_offset = 8;
constexpr std::size_t unused_offset = 16;
constexpr std::size_t trained_offset = 32;
constexpr std::size_t metric_offset = 33;
constexpr std::size_t float_count_offset = 37;

struct index_type {
  std::string_view code;
  std::string_view name;
};

constexpr index_type foreign_types[] = {
    {"IxF2", "IndexFlatL2"},
    {"IxFl", "IndexFlat"},
    {"IHNf", "IndexHNSWFlat"},
    {"IHNp", "IndexHNSWPQ"},
    {"IHNs", "IndexHNSWSQ"},
    {"IHN2", "IndexHNSW2Level"},
    {"INSf", "IndexNSGFlat"},
    {"IwFl", "IndexIVFFlat"},
    {"IwPQ", "IndexIVFPQ"},
    {"IwSq", "IndexIVFScalarQuantizer"},
    {"IxSQ", "IndexScalarQuantizer"},
    {"IxPq", "IndexPQ"},
    {"IxHe", "IndexLSH"},
    {"IxMp", "IndexIDMap"},
    {"IxM2", "IndexIDMap2"},
    {"IxPT", "IndexPreTransform"},
    {"IxRF", "IndexRefineFlat"},
};

bool is_letter_or_digit(char byte) {
  return (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z')
         || (byte >= 'a' && byte <= 'z');
}

failure damaged(std::string_view where, const std::string& why) {
  return {errc::corrupt, std::string(where) + ": " + why
                             + "; the file is damaged: restore it from a "
                               "backup"};
}

failure unsupported(std::string_view where, const std::string& what) {
  return {errc::unsupported_format,
          std::string(where) + " holds " + what
              + ", but this library stores IndexFlatIP only (inner product of "
                "normalized vectors): rebuild it as that, or use another "
                "namespace"};
}

failure wrong_type(std::string_view where, std::string_view code) {
  const auto known =
      std::find_if(std::begin(foreign_types), std::end(foreign_types),
                   [&](const index_type& type) { return type.code == code; });
  if (known != std::end(foreign_types))
    return unsupported(where, "a faiss " + std::string(known->name));
  const bool looks_like_faiss =
      code[0] == 'I'
      && std::all_of(code.begin(), code.end(), is_letter_or_digit);
  if (looks_like_faiss)
    return unsupported(where, "a faiss index of type " + printable(code));
  return damaged(where, "it begins with " + printable(code)
                            + ", which is no faiss index");
}

/// Requires: both are within their limits, so that nothing overflows.
std::uint64_t file_bytes_of(const index_header& header) {
  return index_header_bytes
         + header.row_count * header.dimension * sizeof(float);
}

result<void> check_counts(std::span<const std::byte> bytes,
                          std::uint64_t file_bytes, std::string_view where) {
  const auto dimension = load<std::int32_t>(bytes, dimension_offset);
  const auto row_count = load<std::int64_t>(bytes, row_count_offset);
  if (dimension < 1 || dimension > std::int32_t{dimension_max})
    return damaged(where, "its header says " + std::to_string(dimension)
                              + " components per vector");
  if (row_count < 0 || row_count > std::int64_t{row_count_max})
    return damaged(where,
                   "its header says " + std::to_string(row_count) + " vectors");
  const index_header header{static_cast<std::uint32_t>(dimension),
                            static_cast<std::uint64_t>(row_count)};
  const auto float_count = load<std::uint64_t>(bytes, float_count_offset);
  if (float_count != header.row_count * header.dimension)
    return damaged(where, "its header says " + std::to_string(float_count)
                              + " floats, but also " + std::to_string(row_count)
                              + " vectors of " + std::to_string(dimension));
  if (file_bytes != file_bytes_of(header))
    return damaged(where, "it has " + std::to_string(file_bytes)
                              + " bytes, but its header says "
                              + std::to_string(file_bytes_of(header)));
  return {};
}

} // namespace

std::array<std::byte, index_header_bytes>
encode_index_header(const index_header& header) {
  std::array<std::byte, index_header_bytes> bytes{};
  std::copy_n(as_bytes(flat_inner_product).begin(), flat_inner_product.size(),
              bytes.begin());
  store_at(bytes, dimension_offset,
           static_cast<std::int32_t>(header.dimension));
  store_at(bytes, row_count_offset,
           static_cast<std::int64_t>(header.row_count));
  store_at(bytes, unused_offset, unused_field);
  store_at(bytes, unused_offset + sizeof unused_field, unused_field);
  store_at(bytes, trained_offset, std::uint8_t{1});
  store_at(bytes, metric_offset, std::int32_t{0});
  store_at(bytes, float_count_offset, header.row_count * header.dimension);
  return bytes;
}

result<index_header> decode_index_header(std::span<const std::byte> bytes,
                                         std::uint64_t file_bytes,
                                         std::string_view where) {
  const auto type =
      as_text(bytes.first(std::min(bytes.size(), flat_inner_product.size())));
  if (type.size() == flat_inner_product.size() && type != flat_inner_product)
    return wrong_type(where, type);
  if (bytes.size() < index_header_bytes || file_bytes < index_header_bytes)
    return damaged(where, "it ends inside its header of "
                              + std::to_string(index_header_bytes) + " bytes");
  if (const auto metric = load<std::int32_t>(bytes, metric_offset); metric != 0)
    return unsupported(where,
                       "an IndexFlatIP with metric " + std::to_string(metric));
  if (load<std::uint8_t>(bytes, trained_offset) != 1)
    return damaged(where, "its header says that it is not trained");
  CALLBOARD_TRY(check_counts(bytes, file_bytes, where));
  return index_header{load<std::uint32_t>(bytes, dimension_offset),
                      load<std::uint64_t>(bytes, row_count_offset)};
}

} // namespace callboard
