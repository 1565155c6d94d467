/// A foreign meta file beside a small index. The input: dimension (1), rows of
/// the index (1), then the meta file. Rows whose number is 3 modulo 4 have a
/// vector that is not finite.
#include "core/index_file.hpp"
#include "core/lightrag_pair.hpp"
#include "tests/fuzz/support.hpp"

#include <limits>

namespace callboard::fuzz {
namespace {

constexpr std::string_view name = "fuzz";
constexpr std::uint64_t epoch = 1;

std::vector<std::byte> make_index(std::uint32_t dimension,
                                  std::uint32_t row_count) {
  std::vector<std::byte> out;
  append_bytes(out, encode_index_header({dimension, row_count}));
  for (std::uint32_t row = 0; row < row_count; ++row)
    for (std::uint32_t i = 0; i < dimension; ++i)
      append_value(out, row % 4 == 3 ? std::numeric_limits<float>::quiet_NaN()
                                     : static_cast<float>(row) + 0.25f);
  return out;
}

/// That `opened` has the rows of `source`, and no others.
void require_same_rows(const base& opened, base_source& source) {
  require(opened.row_count() == source.row_count(), "as many rows");
  const auto alive = opened.initial_liveness();
  for (row_number row = 0; row < source.row_count(); ++row) {
    const auto expected = need(source.record(row));
    require(expected.has_value() == alive.test(row), "the same holes");
    if (!expected)
      continue;
    require(opened.id(row) == expected->id
                && need(opened.record(row)) == expected->record
                && std::ranges::equal(need(opened.vector(row)),
                                      need(source.vector(row))),
            "a record, its id and its vector are read as they were written");
    require(opened.find(expected->id) == row, "and found by its id");
  }
}

/// What was imported, and written as a base, is imported again as it is.
void check_again(desk& place, imported_pair& first, std::uint32_t dimension) {
  place.write(published_index_name(name),
              as_bytes(place.read(base_index_name(epoch))));
  place.write(published_meta_name(name),
              as_bytes(place.read(base_meta_name(epoch))));
  const auto second = need(read_lightrag_pair(place.home(), name, dimension));
  const auto& report = second.report;
  require(report.records_without_id == 0 && report.duplicate_ids == 0
              && report.records_without_vector == 0
              && report.records_to_embed == 0,
          "nothing is lost of what this library writes");
  require(second.source->row_count() == first.source->row_count(),
          "nor of its rows");
  for (row_number row = 0; row < first.source->row_count(); ++row) {
    const auto before = need(first.source->record(row));
    const auto after = need(second.source->record(row));
    require(before.has_value() == after.has_value(), "holes stay holes");
    if (!before)
      continue;
    require(before->id == after->id && before->record == after->record
                && std::ranges::equal(need(first.source->vector(row)),
                                      need(second.source->vector(row))),
            "records and vectors stay byte for byte");
  }
}

void check_pair(std::span<const std::byte> input) {
  byte_source source(input);
  const std::uint32_t dimension = 1 + source.take<std::uint8_t>() % 4u;
  const std::uint32_t row_count = source.take<std::uint8_t>() % 16u;
  const auto meta = source.rest();
  const auto index = make_index(dimension, row_count);
  desk place;
  place.write(published_index_name(name), index);
  place.write(published_meta_name(name), meta);

  const allocation_meter memory;
  auto imported = read_lightrag_pair(place.home(), name, dimension);
  memory.require_at_most(32, meta.size() + index.size(), 16u << 10);
  if (!imported)
    return;
  auto& rows = *imported->source;
  const auto objects = std::ranges::count(as_text(meta), '{');
  require(rows.row_count() <= row_count + static_cast<std::size_t>(objects),
          "no more rows than the files can have");
  for (const auto& each : imported->to_embed)
    require(!each.id.empty() && each.record.find('\n') == std::string::npos,
            "what is to be embedded is a record with an id, on one line");

  const auto descriptor =
      need(write_base(place.home(), {}, epoch, dimension, 0600, rows));
  const auto opened = need(
      base::open(place.door(), place.home(), descriptor, map_mode::copied));
  need(opened->verify());
  require_same_rows(*opened, rows);
  check_again(place, *imported, dimension);
}

} // namespace
} // namespace callboard::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  callboard::fuzz::check_pair(callboard::fuzz::as_input(data, size));
  return 0;
}
