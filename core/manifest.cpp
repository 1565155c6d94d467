#include "core/manifest.hpp"

#include "core/bytes.hpp"
#include "core/index_file.hpp"

#include <algorithm>

namespace callboard {

namespace {

constexpr std::string_view magic = "CBMANIF1";
constexpr std::uint32_t version = 3;
/// What all versions have in common: magic, version, total bytes.
constexpr std::size_t head_bytes = 16;
constexpr std::size_t fixed_bytes = 168;
constexpr std::size_t checksum_bytes = 8;

failure damaged(std::string_view where, std::string_view what) {
  return {errc::corrupt,
          std::string{where} + ": " + std::string{what}
              + "; the store was not touched: restore the file from a backup"};
}

failure other_version(std::string_view where, std::uint32_t found) {
  return {errc::unsupported_format,
          std::string{where} + ": has format version " + std::to_string(found)
              + ", but this callboard reads version " + std::to_string(version)
              + "; the store was not touched: use the callboard that wrote it"};
}

/// What a checksum cannot tell: that the values make sense together.
bool consistent(const manifest& root) {
  return root.base.dimension >= 1 && root.base.dimension <= dimension_max
         && root.base.live_count <= root.base.row_count
         && root.base.row_count <= row_count_max
         && root.row_floor <= row_count_max
         && root.base.index_bytes
                == index_header_bytes
                       + root.base.row_count * root.base.dimension
                             * sizeof(float)
         && std::is_sorted(root.logs.begin(), root.logs.end(),
                           std::less_equal<>{});
}

} // namespace

std::vector<std::byte> encode_manifest(const manifest& root) {
  std::vector<std::byte> out;
  append_bytes(out, as_bytes(magic));
  append_value(out, version);
  append_value(out, std::uint32_t{0}); // total bytes, below
  append_bytes(out, root.base.store);
  append_value(out, root.number);
  append_value(out, root.base.epoch);
  append_value(out, root.base_sequence);
  append_value(out, root.drop_epoch);
  append_value(out, root.base.dimension);
  append_value(out, std::uint32_t{0}); // metric: inner product
  append_value(out, root.base.index_bytes);
  append_value(out, root.base.meta_bytes);
  append_value(out, root.base.index_checksum);
  append_value(out, root.base.meta_checksum);
  append_value(out, root.base.row_count);
  append_value(out, root.base.live_count);
  append_value(out, std::uint32_t{root.meta_first});
  append_value(out, std::uint32_t{root.moves_planned_at != 0});
  append_value(out, root.moves_planned_at);
  append_value(out, root.row_floor);
  append_value(out, root.row_floor_since);
  append_value(out, root.durable_sequence);
  append_value(out, static_cast<std::uint32_t>(root.model.size()));
  append_value(out, static_cast<std::uint32_t>(root.logs.size()));
  for (auto epoch : root.logs)
    append_value(out, epoch);
  append_bytes(out, as_bytes(root.model));
  pad_to(out, 8);
  store_at(std::span{out}, 12,
           static_cast<std::uint32_t>(out.size() + checksum_bytes));
  append_value(out, checksum(out));
  return out;
}

result<manifest> decode_manifest(std::span<const std::byte> bytes,
                                 std::string_view where) {
  if (bytes.size() < head_bytes + checksum_bytes
      || bytes.size() > manifest_bytes_max)
    return damaged(where, "not the size of a manifest");
  if (as_text(bytes.first(magic.size())) != magic)
    return damaged(where, "not a manifest");
  auto body = bytes.first(bytes.size() - checksum_bytes);
  if (checksum(body) != load<std::uint64_t>(bytes, body.size()))
    return damaged(where, "checksum mismatch");
  if (auto found = load<std::uint32_t>(bytes, 8); found != version)
    return other_version(where, found);
  if (body.size() < fixed_bytes)
    return damaged(where, "inconsistent lengths");
  manifest root;
  auto& base = root.base;
  std::copy_n(bytes.begin() + 16, base.store.size(), base.store.begin());
  root.number = load<std::uint64_t>(bytes, 32);
  base.epoch = load<std::uint64_t>(bytes, 40);
  root.base_sequence = load<std::uint64_t>(bytes, 48);
  root.drop_epoch = load<std::uint64_t>(bytes, 56);
  base.dimension = load<std::uint32_t>(bytes, 64);
  base.index_bytes = load<std::uint64_t>(bytes, 72);
  base.meta_bytes = load<std::uint64_t>(bytes, 80);
  base.index_checksum = load<std::uint64_t>(bytes, 88);
  base.meta_checksum = load<std::uint64_t>(bytes, 96);
  base.row_count = load<std::uint64_t>(bytes, 104);
  base.live_count = load<std::uint64_t>(bytes, 112);
  root.meta_first = load<std::uint32_t>(bytes, 120) != 0;
  root.moves_planned_at = load<std::int64_t>(bytes, 128);
  root.row_floor = load<std::uint64_t>(bytes, 136);
  root.row_floor_since = load<std::int64_t>(bytes, 144);
  root.durable_sequence = load<std::uint64_t>(bytes, 152);
  auto model_bytes = load<std::uint32_t>(bytes, 160);
  std::size_t log_count = load<std::uint32_t>(bytes, 164);
  if (log_count < 1 || log_count > manifest_logs_max
      || model_bytes > model_bytes_max
      || body.size() != round_up(fixed_bytes + 8 * log_count + model_bytes, 8)
      || load<std::uint32_t>(bytes, 12) != bytes.size())
    return damaged(where, "inconsistent lengths");
  for (std::size_t i = 0; i < log_count; ++i)
    root.logs.push_back(load<std::uint64_t>(bytes, fixed_bytes + 8 * i));
  root.model = as_text(bytes.subspan(fixed_bytes + 8 * log_count, model_bytes));
  if (!consistent(root) || !std::ranges::equal(encode_manifest(root), bytes))
    return damaged(where, "inconsistent values");
  return root;
}

} // namespace callboard
