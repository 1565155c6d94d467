#include "core/catalog.hpp"

#include "core/bytes.hpp"
#include "core/json_text.hpp"
#include "core/record.hpp"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <limits>
#include <xxhash.h>

namespace callboard {
namespace {

constexpr std::array<char, 8> catalog_magic = {'C', 'B', 'C', 'A',
                                               'T', 'L', 'G', '1'};
constexpr std::uint32_t catalog_version = 1;
constexpr std::size_t section_alignment = 8;
constexpr std::uint32_t slot_bits_max = 32;
constexpr std::uint64_t slot_load_percent_max = 66;
constexpr std::size_t word_bits = 64;

std::uint64_t word_count_of(std::uint64_t row_count) {
  return (row_count + word_bits - 1) / word_bits;
}

bool has_room(std::uint64_t entries, std::uint32_t slot_bits) {
  return entries * 100
         <= (std::uint64_t{1} << slot_bits) * slot_load_percent_max;
}

std::uint32_t slot_bits_for(std::uint64_t entries) {
  std::uint32_t slot_bits = 0;
  while (!has_room(entries, slot_bits))
    ++slot_bits;
  return slot_bits;
}

std::uint64_t checksum_of_header(const catalog_header& header) {
  return checksum(std::as_bytes(std::span{&header, 1})
                      .first(offsetof(catalog_header, header_checksum)));
}

failure damaged(std::string why) {
  return {errc::corrupt, "the catalog is damaged: " + std::move(why)};
}

failure unusable(std::string why) {
  return {errc::invalid_argument, std::move(why)};
}

std::string in_row(row_number row) {
  return "the record of row " + std::to_string(row);
}

/// What a catalog wants to know of a record.
struct record_fields {
  std::optional<std::string_view> id;
  std::array<std::optional<std::string_view>, std::size(indexed_field_names)>
      indexed;
};

result<record_fields> scan_record(std::string_view record) {
  record_fields fields;
  const auto take = [&](std::string_view key, std::string_view value,
                        std::string_view) -> result<void> {
    if (key == "__id__")
      fields.id = value;
    for (std::size_t i = 0; i < fields.indexed.size(); ++i)
      if (key == indexed_field_names[i])
        fields.indexed[i] = value;
    return {};
  };
  const json_text::rules how{.depth_max = record_depth_max,
                             .error = errc::invalid_argument};
  CALLBOARD_TRY(json_text::for_each_member(record, take, how));
  return fields;
}

} // namespace

std::uint64_t posting_key(indexed_field field, std::string_view value) {
  return checksum(as_bytes(value), static_cast<std::uint64_t>(field));
}

std::uint32_t short_checksum(std::span<const std::byte> bytes) noexcept {
  return static_cast<std::uint32_t>(checksum(bytes));
}

std::optional<std::uint64_t> parse_row_key(std::string_view key) noexcept {
  std::uint64_t row = 0;
  const auto* end = key.data() + key.size();
  const auto [stop, error] = std::from_chars(key.data(), end, row);
  const bool has_leading_zero = key.size() > 1 && key[0] == '0';
  if (error != std::errc() || stop != end || has_leading_zero)
    return std::nullopt;
  return row;
}

std::optional<std::string> parse_id(std::string_view raw) {
  switch (json_text::kind_of(raw)) {
  case json_text::value_kind::integer:
    return std::string(raw);
  case json_text::value_kind::string:
    if (auto id = json_text::decode_string(raw))
      return std::move(*id);
    return std::nullopt;
  default:
    return std::nullopt;
  }
}

bool all_finite(std::span<const std::byte> bytes) noexcept {
  constexpr std::uint32_t exponent = 0x7f80'0000;
  bool found = false;
  for (std::size_t i = 0; i + sizeof(float) <= bytes.size(); i += sizeof(float))
    found |= (load<std::uint32_t>(bytes, i) & exponent) == exponent;
  return !found;
}

// -- Reading ------------------------------------------------------------------

result<std::unique_ptr<const catalog>>
catalog::parse(std::unique_ptr<mapping> bytes,
               const base_descriptor& descriptor) {
  auto parsed = std::unique_ptr<catalog>(new catalog);
  parsed->owner_ = std::move(bytes);
  parsed->bytes_ = parsed->owner_->bytes();
  if (parsed->bytes_.size() < sizeof(catalog_header))
    return damaged("it ends inside its header");
  parsed->header_ = load<catalog_header>(parsed->bytes_, 0);
  CALLBOARD_TRY(parsed->check_header(descriptor));
  CALLBOARD_TRY(parsed->check_layout());
  if (checksum(parsed->bytes_.subspan(sizeof(catalog_header)))
      != parsed->header_.body_checksum)
    return damaged("its checksum is wrong");
  CALLBOARD_TRY(parsed->check_rows());
  CALLBOARD_TRY(parsed->check_slots());
  CALLBOARD_TRY(parsed->check_postings());
  CALLBOARD_TRY(parsed->check_moves());
  return std::unique_ptr<const catalog>(std::move(parsed));
}

result<void> catalog::check_header(const base_descriptor& descriptor) const {
  const auto& header = header_;
  if (header.magic != catalog_magic || header.version != catalog_version
      || header.header_bytes != sizeof(catalog_header) || header.reserved != 0)
    return damaged("it has another format");
  if (header.header_checksum != checksum_of_header(header))
    return damaged("the checksum of its header is wrong");
  const bool is_ours = header.store == descriptor.store
                       && header.epoch == descriptor.epoch
                       && header.row_count == descriptor.row_count
                       && header.live_count == descriptor.live_count
                       && header.dimension == descriptor.dimension
                       && header.index_checksum == descriptor.index_checksum
                       && header.meta_checksum == descriptor.meta_checksum
                       && header.index_bytes == descriptor.index_bytes
                       && header.meta_bytes == descriptor.meta_bytes;
  if (!is_ours)
    return failure{errc::corrupt, "the catalog belongs to another base"};
  return {};
}

/// That each section is where the counts say, hence inside the file. The
/// counts are small enough for sums not to overflow: `row_count` by the
/// descriptor, the others by the checks here.
result<void> catalog::check_layout() const {
  const auto& header = header_;
  const std::uint64_t file_bytes = bytes_.size();
  const bool has_small_counts =
      header.row_count <= row_count_max && header.slot_bits <= slot_bits_max
      && header.posting_count <= file_bytes && header.move_count <= file_bytes
      && header.slots_offset <= file_bytes;
  if (!has_small_counts)
    return damaged("its sections do not fit");
  const auto rows = header.bitmap_offset
                    + word_count_of(header.row_count) * sizeof(std::uint64_t);
  const auto ids = rows + header.row_count * sizeof(catalog_row);
  const auto postings =
      header.slots_offset
      + (std::uint64_t{1} << header.slot_bits) * sizeof(catalog_slot);
  const auto moves = postings + header.posting_count * sizeof(catalog_posting);
  const auto end = moves + header.move_count * sizeof(catalog_move);
  const bool is_in_order =
      header.bitmap_offset == sizeof(catalog_header)
      && header.rows_offset == rows && header.ids_offset == ids
      && header.slots_offset >= ids
      && header.slots_offset % section_alignment == 0
      && header.postings_offset == postings && header.moves_offset == moves
      && header.end_offset == end && end == file_bytes;
  if (!is_in_order)
    return damaged("its sections do not fit");
  return {};
}

template <class T>
T catalog::entry(std::uint64_t section, std::uint64_t index) const noexcept {
  return load<T>(bytes_, section + index * sizeof(T));
}

bool catalog::is_row(std::uint64_t number) const noexcept {
  return number < header_.row_count
         && is_alive(static_cast<row_number>(number));
}

result<void> catalog::check_rows() const {
  std::uint64_t live_count = 0;
  const auto word_count = word_count_of(header_.row_count);
  for (std::uint64_t i = 0; i < word_count; ++i)
    live_count += static_cast<std::uint64_t>(
        std::popcount(entry<std::uint64_t>(header_.bitmap_offset, i)));
  const auto ids_bytes = header_.slots_offset - header_.ids_offset;
  const auto fits = [](std::uint64_t offset, std::uint64_t size,
                       std::uint64_t limit) {
    return offset <= limit && size <= limit - offset;
  };
  std::uint64_t found = 0;
  for (row_number i = 0; i < header_.row_count; ++i) {
    const auto each = row(i);
    const bool is_hole = each.record_offset == 0;
    if (is_hole == is_alive(i)
        || !fits(each.record_offset, each.record_bytes, header_.meta_bytes)
        || !fits(each.id_offset, each.id_bytes, ids_bytes))
      return damaged("its row " + std::to_string(i) + " is out of bounds");
    found += is_hole ? 0 : 1;
  }
  // A bit behind the last row would make the bitmap's sum larger.
  if (live_count != header_.live_count || found != live_count)
    return damaged("it has another number of rows than it says");
  return {};
}

result<void> catalog::check_slots() const {
  const auto slot_count = std::uint64_t{1} << header_.slot_bits;
  std::uint64_t used = 0;
  for (std::uint64_t i = 0; i < slot_count; ++i) {
    const auto slot = entry<catalog_slot>(header_.slots_offset, i);
    if (slot.row_plus_1 == 0)
      continue;
    ++used;
    if (!is_row(slot.row_plus_1 - std::uint64_t{1}))
      return damaged("its table of ids names a row that is none");
  }
  // Free slots are what ends an unsuccessful search.
  if (used != header_.live_count || !has_room(used, header_.slot_bits))
    return damaged("its table of ids has a wrong number of rows");
  return {};
}

result<void> catalog::check_postings() const {
  catalog_posting previous;
  for (std::uint64_t i = 0; i < header_.posting_count; ++i) {
    const auto each = entry<catalog_posting>(header_.postings_offset, i);
    if (each.field >= std::size(indexed_field_names) || !is_row(each.row)
        || each.tie() < previous.tie())
      return damaged("its postings are out of order or bounds");
    previous = each;
  }
  return {};
}

result<void> catalog::check_moves() const {
  auto limit = header_.row_count;
  for (std::uint64_t i = 0; i < header_.move_count; ++i) {
    const auto each = entry<catalog_move>(header_.moves_offset, i);
    const bool to_hole = each.to < header_.row_count && !is_row(each.to);
    if (each.from >= limit || !is_row(each.from) || !to_hole)
      return damaged("its planned moves are out of order or bounds");
    limit = each.from;
  }
  return {};
}

liveness catalog::initial_liveness() const {
  std::vector<std::uint64_t> words(word_count_of(header_.row_count));
  for (std::size_t i = 0; i < words.size(); ++i)
    words[i] = entry<std::uint64_t>(header_.bitmap_offset, i);
  return liveness::from_words(words, header_.row_count);
}

bool catalog::is_alive(row_number row) const noexcept {
  const auto word =
      entry<std::uint64_t>(header_.bitmap_offset, row / word_bits);
  return (word >> (row % word_bits) & 1) != 0;
}

catalog_row catalog::row(row_number row) const noexcept {
  return entry<catalog_row>(header_.rows_offset, row);
}

std::string_view catalog::id_of(const catalog_row& row) const noexcept {
  return as_text(
      bytes_.subspan(header_.ids_offset + row.id_offset, row.id_bytes));
}

std::string_view catalog::id(row_number row) const noexcept {
  return id_of(this->row(row));
}

std::optional<row_number> catalog::find(std::string_view id) const noexcept {
  const auto hash = checksum(as_bytes(id));
  const auto fingerprint = static_cast<std::uint32_t>(hash >> 32);
  const auto mask = (std::uint64_t{1} << header_.slot_bits) - 1;
  for (auto i = hash & mask;; i = (i + 1) & mask) {
    const auto slot = entry<catalog_slot>(header_.slots_offset, i);
    if (slot.row_plus_1 == 0)
      return std::nullopt;
    if (slot.fingerprint == fingerprint && this->id(slot.row_plus_1 - 1) == id)
      return slot.row_plus_1 - 1;
  }
}

void catalog::for_each_posting(
    indexed_field field, std::string_view value,
    const std::function<void(row_number)>& visit) const {
  const auto number = static_cast<std::uint32_t>(field);
  const catalog_posting wanted{posting_key(field, value), 0, number};
  const auto before = [](const catalog_posting& a, const catalog_posting& b) {
    return std::tie(a.key, a.field) < std::tie(b.key, b.field);
  };
  std::uint64_t first = 0;
  for (auto count = header_.posting_count; count > 0;) {
    const auto middle = first + count / 2;
    if (before(entry<catalog_posting>(header_.postings_offset, middle),
               wanted)) {
      count -= middle + 1 - first;
      first = middle + 1;
    } else {
      count = middle - first;
    }
  }
  for (; first < header_.posting_count; ++first) {
    const auto each = entry<catalog_posting>(header_.postings_offset, first);
    if (before(wanted, each))
      return;
    visit(each.row);
  }
}

std::vector<std::pair<row_number, row_number>> catalog::moves() const {
  std::vector<std::pair<row_number, row_number>> moves;
  for (std::uint64_t i = 0; i < header_.move_count; ++i) {
    const auto each = entry<catalog_move>(header_.moves_offset, i);
    moves.emplace_back(each.from, each.to);
  }
  return moves;
}

// -- Making -------------------------------------------------------------------

catalog_builder::catalog_builder(std::size_t row_count)
    : row_count_(row_count),
      rows_offset_(sizeof(catalog_header)
                   + word_count_of(row_count) * sizeof(std::uint64_t)),
      ids_offset_(rows_offset_ + row_count * sizeof(catalog_row)),
      bytes_(ids_offset_) {}

catalog_row catalog_builder::row(row_number row) const noexcept {
  return load<catalog_row>(bytes_, rows_offset_ + row * sizeof(catalog_row));
}

void catalog_builder::set_row(row_number row,
                              const catalog_row& entry) noexcept {
  store_at(bytes_, rows_offset_ + row * sizeof(catalog_row), entry);
}

bool catalog_builder::is_alive(row_number row) const noexcept {
  return row < row_count_ && this->row(row).record_offset != 0;
}

std::string_view catalog_builder::id_of(row_number row) const noexcept {
  const auto entry = this->row(row);
  return as_text(
      std::span(bytes_).subspan(ids_offset_ + entry.id_offset, entry.id_bytes));
}

void catalog_builder::add_vector(row_number row,
                                 std::span<const std::byte> vector) {
  auto entry = this->row(row);
  entry.vector_checksum = short_checksum(vector);
  set_row(row, entry);
}

result<void> catalog_builder::add_record(row_number row,
                                         std::string_view record,
                                         std::uint64_t record_offset) {
  if (record.size() > std::numeric_limits<std::uint32_t>::max())
    return failure{errc::too_large, in_row(row) + " has 4 GiB or more"};
  auto fields = scan_record(record);
  if (!fields)
    return unusable(in_row(row) + ": " + fields.error().message);
  auto id = fields->id ? parse_id(*fields->id) : std::nullopt;
  if (!id)
    return unusable(in_row(row) + " has no usable __id__");
  if (auto usable = check_id(*id); !usable)
    return unusable(in_row(row) + ": " + usable.error().message);
  for (std::size_t i = 0; i < fields->indexed.size(); ++i) {
    const auto raw = fields->indexed[i];
    if (!raw || json_text::kind_of(*raw) != json_text::value_kind::string)
      continue;
    CALLBOARD_TRY_ASSIGN(const auto value, json_text::decode_string(*raw));
    postings_.push_back({posting_key(static_cast<indexed_field>(i), value), row,
                         static_cast<std::uint32_t>(i)});
  }
  auto entry = this->row(row);
  entry.record_offset = record_offset;
  entry.record_bytes = static_cast<std::uint32_t>(record.size());
  entry.record_checksum = short_checksum(as_bytes(record));
  entry.id_bytes = static_cast<std::uint32_t>(id->size());
  entry.id_offset = bytes_.size() - ids_offset_;
  set_row(row, entry);
  append_bytes(bytes_, as_bytes(*id));
  const auto word_offset =
      sizeof(catalog_header) + row / word_bits * sizeof(std::uint64_t);
  store_at(bytes_, word_offset,
           load<std::uint64_t>(bytes_, word_offset)
               | std::uint64_t{1} << (row % word_bits));
  ++live_count_;
  last_id_ = std::move(*id);
  return {};
}

result<void> catalog_builder::append_slots(std::uint32_t slot_bits) {
  const auto mask = (std::uint64_t{1} << slot_bits) - 1;
  std::vector<catalog_slot> slots(mask + 1);
  for (row_number row = 0; row < row_count_; ++row) {
    if (!is_alive(row))
      continue;
    const auto id = id_of(row);
    const auto hash = checksum(as_bytes(id));
    const auto fingerprint = static_cast<std::uint32_t>(hash >> 32);
    auto i = hash & mask;
    for (; slots[i].row_plus_1 != 0; i = (i + 1) & mask) {
      const auto other = slots[i].row_plus_1 - 1;
      if (slots[i].fingerprint == fingerprint && id_of(other) == id)
        return unusable("the rows " + std::to_string(other) + " and "
                        + std::to_string(row) + " have the same id "
                        + printable(id));
    }
    slots[i] = {fingerprint, row + 1};
  }
  append_bytes(bytes_, std::as_bytes(std::span(slots)));
  return {};
}

result<void> catalog_builder::append_moves(
    std::span<const std::pair<row_number, row_number>> moves) {
  auto limit = static_cast<std::uint64_t>(row_count_);
  for (const auto& [from, to] : moves) {
    if (from >= limit || !is_alive(from) || to >= row_count_ || is_alive(to))
      return unusable("row " + std::to_string(from) + " cannot move to row "
                      + std::to_string(to));
    append_value(bytes_, catalog_move{from, to});
    limit = from;
  }
  return {};
}

result<std::vector<std::byte>> catalog_builder::finish(
    const base_descriptor& descriptor,
    std::span<const std::pair<row_number, row_number>> moves) {
  std::sort(postings_.begin(), postings_.end(),
            [](const auto& a, const auto& b) { return a.tie() < b.tie(); });
  catalog_header header;
  header.slot_bits = slot_bits_for(live_count_);
  pad_to(bytes_, section_alignment);
  header.slots_offset = bytes_.size();
  CALLBOARD_TRY(append_slots(header.slot_bits));
  header.postings_offset = bytes_.size();
  header.posting_count = postings_.size();
  append_bytes(bytes_, std::as_bytes(std::span(postings_)));
  header.moves_offset = bytes_.size();
  header.move_count = moves.size();
  CALLBOARD_TRY(append_moves(moves));

  header.store = descriptor.store;
  header.epoch = descriptor.epoch;
  header.row_count = descriptor.row_count;
  header.live_count = live_count_;
  header.dimension = descriptor.dimension;
  header.index_checksum = descriptor.index_checksum;
  header.meta_checksum = descriptor.meta_checksum;
  header.index_bytes = descriptor.index_bytes;
  header.meta_bytes = descriptor.meta_bytes;
  seal(header);
  return std::move(bytes_);
}

void catalog_builder::seal(catalog_header header) {
  header.magic = catalog_magic;
  header.version = catalog_version;
  header.header_bytes = sizeof(catalog_header);
  header.bitmap_offset = sizeof(catalog_header);
  header.rows_offset = rows_offset_;
  header.ids_offset = ids_offset_;
  header.end_offset = bytes_.size();
  header.body_checksum =
      checksum(std::span(bytes_).subspan(sizeof(catalog_header)));
  header.header_checksum = checksum_of_header(header);
  store_at(bytes_, 0, header);
}

result<std::vector<std::byte>>
build_catalog(const base_descriptor& descriptor,
              std::span<const std::byte> vectors, std::string_view meta,
              std::span<const std::pair<row_number, row_number>> moves) {
  catalog_builder builder(descriptor.row_count);
  const auto vector_bytes = descriptor.dimension * sizeof(float);
  for (row_number row = 0; row < descriptor.row_count; ++row)
    builder.add_vector(row, vectors.subspan(row * vector_bytes, vector_bytes));
  std::vector<bool> seen(descriptor.row_count);
  const auto add = [&](std::string_view key, std::string_view value,
                       std::string_view) -> result<void> {
    const auto row = parse_row_key(key);
    if (!row || *row >= descriptor.row_count || seen[*row])
      return failure{errc::corrupt, "the key " + printable(key)
                                        + " is no row, or not the first of it"};
    seen[*row] = true;
    const auto offset = static_cast<std::uint64_t>(value.data() - meta.data());
    return builder.add_record(static_cast<row_number>(*row), value, offset);
  };
  const json_text::rules how{.depth_max = record_depth_max + 1};
  auto scanned = json_text::for_each_member(meta, add, how);
  if (!scanned)
    return failure{errc::corrupt, std::move(scanned).error().message};
  if (builder.live_count() != descriptor.live_count)
    return failure{errc::corrupt, "it has "
                                      + std::to_string(builder.live_count())
                                      + " records, but MANIFEST says "
                                      + std::to_string(descriptor.live_count)};
  auto built = builder.finish(descriptor, moves);
  if (!built)
    return failure{errc::corrupt, std::move(built).error().message};
  return built;
}

} // namespace callboard
