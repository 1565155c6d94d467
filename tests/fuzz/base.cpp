/// The three files of a base that anybody may have written, and what MANIFEST
/// says of them. The input: bytes of the index file and of the meta file (2
/// each), live rows (1), flags (1), then the three files, end to end.
#include "core/base.hpp"

#include "core/catalog.hpp"
#include "core/index_file.hpp"
#include "tests/fuzz/support.hpp"

namespace callboard::fuzz {
namespace {

constexpr std::uint64_t epoch = 1;
constexpr std::uint8_t wrong_checksum = 1;
constexpr std::uint8_t no_catalog = 2;
constexpr std::uint8_t wrong_counts = 4;
constexpr std::size_t head_bytes = 6;
constexpr std::size_t unused_begin = 16; // of the index header: what faiss
constexpr std::size_t unused_end = 32;   // does not read either

struct triple {
  std::span<const std::byte> index;
  std::span<const std::byte> meta;
  std::span<const std::byte> catalog;
  std::uint8_t live_count = 0;
  std::uint8_t flags = 0;
};

triple split(std::span<const std::byte> input) {
  byte_source source(input);
  triple out;
  const auto index_bytes = source.take<std::uint16_t>();
  const auto meta_bytes = source.take<std::uint16_t>();
  out.live_count = source.take<std::uint8_t>();
  out.flags = source.take<std::uint8_t>();
  out.index = source.take_bytes(index_bytes);
  out.meta = source.take_bytes(meta_bytes);
  out.catalog = source.rest();
  return out;
}

/// Empty: no index file.
index_header check_header(std::span<const std::byte> index) {
  const auto header = decode_index_header(index, index.size(), "the file");
  if (!header)
    return {};
  auto read = std::vector(index.begin(), index.begin() + index_header_bytes);
  const auto written = encode_index_header(*header);
  std::ranges::copy(
      std::span(written).subspan(unused_begin, unused_end - unused_begin),
      read.begin() + unused_begin);
  require(std::ranges::equal(read, written),
          "a header that is read is what would be written");
  return *header;
}

base_descriptor descriptor_of(const triple& files, const index_header& header) {
  base_descriptor out;
  out.epoch = epoch;
  out.dimension = header.dimension;
  out.row_count = header.row_count;
  out.live_count = files.live_count;
  out.index_bytes = files.index.size();
  out.meta_bytes = files.meta.size();
  out.index_checksum = checksum(files.index);
  out.meta_checksum = checksum(files.meta);
  if ((files.flags & wrong_checksum) != 0)
    ++out.meta_checksum;
  if ((files.flags & wrong_counts) != 0)
    ++out.row_count;
  return out;
}

void check_rows(const base& opened) {
  const bool is_sound = opened.verify().has_value();
  const auto alive = opened.initial_liveness();
  for (row_number row = 0; row < opened.row_count(); ++row) {
    if (!alive.test(row))
      continue;
    const auto record = opened.record(row);
    const auto vector = opened.vector(row);
    if (!is_sound)
      continue;
    require(record && vector, "what is verified can be read");
    require(opened.find(opened.id(row)) == row, "each row is found by its id");
    require(all_finite(*vector), "vectors are finite");
    require(std::ranges::equal(
                *vector, std::span(opened.vectors() + row * vector->size(),
                                   vector->size())),
            "a vector is at its place");
  }
}

void check_base(std::span<const std::byte> input) {
  const auto files = split(input);
  const auto descriptor = descriptor_of(files, check_header(files.index));
  if (descriptor.dimension == 0)
    return;
  desk place;
  place.write(base_index_name(epoch), files.index);
  place.write(base_meta_name(epoch), files.meta);
  if ((files.flags & no_catalog) == 0)
    place.write(base_catalog_name(epoch), files.catalog);
  const allocation_meter memory;
  const auto opened =
      base::open(place.door(), place.home(), descriptor, map_mode::copied);
  require(!opened || (files.flags & wrong_counts) == 0,
          "a base whose index has other counts than MANIFEST is refused");
  if (opened)
    check_rows(**opened);
  memory.require_at_most(32, input.size(), std::size_t{128} << 10);
}

} // namespace
} // namespace callboard::fuzz

/// Keeps the parts apart that the input's head names: one of them is mutated.
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data,
                                               std::size_t size,
                                               std::size_t max_size,
                                               unsigned seed) {
  using namespace callboard;
  using namespace callboard::fuzz;
  std::minstd_rand random(seed);
  if (size < head_bytes || random() % 16 == 0)
    return LLVMFuzzerMutate(data, size, max_size);
  const auto files = split(as_input(data, size));
  std::vector<std::byte> parts[] = {
      {files.index.begin(), files.index.end()},
      {files.meta.begin(), files.meta.end()},
      {files.catalog.begin(), files.catalog.end()}};
  auto& part = parts[random() % 4 % 3];
  const auto others = head_bytes + files.index.size() + files.meta.size()
                      + files.catalog.size() - part.size();
  const auto room = std::min<std::size_t>(max_size - others, 0xffff);
  const auto old_size = part.size();
  part.resize(std::max(room, old_size));
  part.resize(LLVMFuzzerMutate(reinterpret_cast<std::uint8_t*>(part.data()),
                               old_size, part.size()));
  std::vector<std::byte> out;
  append_value(out, static_cast<std::uint16_t>(parts[0].size()));
  append_value(out, static_cast<std::uint16_t>(parts[1].size()));
  append_value(out, random() % 32 == 0 ? static_cast<std::uint8_t>(random())
                                       : files.live_count);
  append_value(out, random() % 32 == 0 ? static_cast<std::uint8_t>(random())
                                       : files.flags);
  for (const auto& each : parts)
    append_bytes(out, each);
  out.resize(std::min(out.size(), max_size));
  std::ranges::copy(out, as_output(data, out.size()).begin());
  return out.size();
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  callboard::fuzz::check_base(callboard::fuzz::as_input(data, size));
  return 0;
}
