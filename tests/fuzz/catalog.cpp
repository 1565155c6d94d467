/// A catalog that anybody may have written, beside a sound pair. The input is
/// the file `base-1.catalog`; the pair is that of `small_base.hpp`.
#include "core/catalog.hpp"

#include "tests/fuzz/small_base.hpp"
#include "tests/fuzz/support.hpp"

namespace callboard::fuzz {
namespace {

constexpr std::size_t tied_begin = 16; // what ties a catalog to its base
constexpr std::size_t tied_end = 60;

void check_lookups(const catalog& parsed, const base_descriptor& descriptor) {
  std::size_t live_count = 0;
  const auto alive = parsed.initial_liveness();
  for (row_number row = 0; row < descriptor.row_count; ++row) {
    require(alive.test(row) == parsed.is_alive(row),
            "a row is alive for all or for none");
    const auto entry = parsed.row(row);
    require(parsed.is_alive(row) == (entry.record_offset != 0),
            "a row is alive if and only if it has a record");
    if (!parsed.is_alive(row))
      continue;
    ++live_count;
    require(entry.record_offset + entry.record_bytes <= descriptor.meta_bytes,
            "a record is in the meta file");
    const auto found = parsed.find(parsed.id(row));
    require(!found || parsed.id(*found) == parsed.id(row),
            "what is found has the id that was looked for");
  }
  require(live_count == descriptor.live_count, "as many rows as MANIFEST says");
  require(!parsed.find("no such id"), "an id that no row has is not found");
  for (const auto field : {indexed_field::src_id, indexed_field::tgt_id})
    for (const auto* value : {"", "a", "b", "c", "d"})
      parsed.for_each_posting(field, value, [&](row_number row) {
        require(row < descriptor.row_count && parsed.is_alive(row),
                "a posting names a row");
      });
  auto limit = descriptor.row_count;
  for (const auto& [from, to] : parsed.moves()) {
    require(from < limit && parsed.is_alive(from) && to < descriptor.row_count
                && !parsed.is_alive(to),
            "a move leads from a row to a hole");
    limit = from;
  }
}

void check_parsing(std::span<const std::byte> input,
                   const base_descriptor& descriptor) {
  auto bytes = std::make_unique<heap_mapping>(input);
  const allocation_meter memory;
  const auto parsed = catalog::parse(std::move(bytes), descriptor);
  if (parsed)
    check_lookups(**parsed, descriptor);
  memory.require_at_most(2, input.size(), std::size_t{16} << 10);
}

/// Whatever the catalog says, only bytes that match their checksums are shown.
void check_base(std::span<const std::byte> input) {
  const auto& sound = small_base::get();
  desk place;
  sound.write_to(place);
  place.write(base_catalog_name(small_base::epoch), input);
  const auto opened = need(base::open(place.door(), place.home(),
                                      sound.descriptor, map_mode::copied));
  const auto alive = opened->initial_liveness();
  for (row_number row = 0; row < sound.descriptor.row_count; ++row) {
    if (!alive.test(row))
      continue;
    if (const auto record = opened->record(row))
      require(record->size() <= sound.descriptor.meta_bytes, "in bounds");
    static_cast<void>(opened->vector(row));
  }
  const auto now = place.read(base_catalog_name(small_base::epoch));
  const bool is_made_again = now == as_text(sound.catalog_without_moves);
  require(is_made_again || now == as_text(input),
          "a catalog that is refused is made again");
  const auto is_now = [&](const auto& bytes) { return now == as_text(bytes); };
  const bool is_right =
      is_made_again || is_now(sound.catalog)
      || std::ranges::any_of(sound.catalogs_less_a_move, is_now);
  require(opened->verify().has_value() == is_right,
          "a catalog that does not describe its pair is found");
}

/// Mutated counts, with sections where they belong; returns the new size.
std::size_t lay_out(std::span<std::byte> room, std::size_t size) {
  auto header = load<catalog_header>(room, 0);
  const auto slots = std::uint64_t{8} << header.slot_bits % 64;
  header.postings_offset = header.slots_offset + slots;
  header.moves_offset =
      header.postings_offset + header.posting_count * sizeof(catalog_posting);
  const auto end =
      header.moves_offset + header.move_count * sizeof(catalog_move);
  const bool fits = header.slots_offset < room.size() && slots < room.size()
                    && header.posting_count < room.size()
                    && header.move_count < room.size() && end <= room.size()
                    && end >= sizeof(catalog_header);
  if (!fits)
    return size;
  if (end > size)
    std::ranges::fill(room.subspan(size, end - size), std::byte{});
  store_at(room, 0, header);
  return end;
}

void seal(std::span<std::byte> bytes, bool is_tied) {
  const auto& sound = small_base::get().catalog;
  std::ranges::copy(std::span(sound).first(tied_begin), bytes.begin());
  if (is_tied) {
    std::ranges::copy(
        std::span(sound).subspan(tied_begin, tied_end - tied_begin),
        bytes.begin() + tied_begin);
    std::ranges::copy(std::span(sound).subspan(64, 32), bytes.begin() + 64);
    std::ranges::copy(std::span(sound).subspan(112, 24), bytes.begin() + 112);
  }
  auto header = load<catalog_header>(bytes, 0);
  header.reserved = 0;
  header.end_offset = bytes.size();
  header.body_checksum = checksum(bytes.subspan(sizeof header));
  store_at(bytes, 0, header);
  header.header_checksum =
      checksum(bytes.first(offsetof(catalog_header, header_checksum)));
  store_at(bytes, 0, header);
}

} // namespace
} // namespace callboard::fuzz

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data,
                                               std::size_t size,
                                               std::size_t max_size,
                                               unsigned seed) {
  using namespace callboard::fuzz;
  std::minstd_rand random(seed);
  size = LLVMFuzzerMutate(data, size, max_size);
  if (size < sizeof(callboard::catalog_header) || random() % 16 == 0)
    return size;
  if (random() % 4 != 0)
    size = lay_out(as_output(data, max_size), size);
  seal(as_output(data, size), random() % 16 != 0);
  return size;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  using namespace callboard::fuzz;
  const auto input = as_input(data, size);
  check_parsing(input, small_base::get().descriptor);
  check_base(input);
  return 0;
}
