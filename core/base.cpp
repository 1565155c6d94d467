#include "core/base.hpp"

#include "core/bytes.hpp"
#include "core/catalog.hpp"
#include "core/index_file.hpp"
#include "core/record.hpp"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>
#include <xxhash.h>

namespace callboard {
namespace {

constexpr std::size_t buffer_bytes = std::size_t{1} << 20;
/// So many zeros in a row are left out of a file, not written.
constexpr std::size_t hole_bytes_min = std::size_t{64} << 10;

std::string base_file_name(std::uint64_t epoch, std::string_view suffix) {
  return "base-" + std::to_string(epoch) + std::string(suffix);
}

std::string path_in(std::string_view home, std::string_view name) {
  return '"' + std::string(home) + '/' + std::string(name) + '"';
}

failure damaged_file(const std::string& path, const std::string& why) {
  return {errc::corrupt,
          path + " is damaged: " + why + "; restore the store from a backup"};
}

// -- Reading ------------------------------------------------------------------

class heap_bytes final : public mapping {
public:
  explicit heap_bytes(std::vector<std::byte> bytes)
      : bytes_(std::move(bytes)) {}
  std::span<const std::byte> bytes() const noexcept override { return bytes_; }

private:
  std::vector<std::byte> bytes_;
};

result<std::unique_ptr<mapping>> map_file(const directory& home,
                                          const std::string& name,
                                          std::uint64_t expected_bytes,
                                          map_mode mode) {
  CALLBOARD_TRY_ASSIGN(const auto opened,
                       home.open_file(name, open_mode::read));
  CALLBOARD_TRY_ASSIGN(const auto found, opened->status());
  if (found.size_bytes != expected_bytes)
    return damaged_file(path_in(home.path(), name),
                        "it has " + std::to_string(found.size_bytes)
                            + " bytes, but MANIFEST says "
                            + std::to_string(expected_bytes));
  return opened->map(expected_bytes, mode);
}

result<std::unique_ptr<const catalog>>
load_catalog(const directory& home, const base_descriptor& descriptor,
             map_mode mode) {
  const auto name = base_catalog_name(descriptor.epoch);
  CALLBOARD_TRY_ASSIGN(const auto opened,
                       home.open_file(name, open_mode::read));
  CALLBOARD_TRY_ASSIGN(const auto found, opened->status());
  CALLBOARD_TRY_ASSIGN(auto bytes, opened->map(found.size_bytes, mode));
  return catalog::parse(std::move(bytes), descriptor);
}

result<void> write_new_file(const directory& home, const std::string& name,
                            std::span<const std::byte> bytes) {
  CALLBOARD_TRY_ASSIGN(const auto created,
                       home.open_file(name, open_mode::create_empty));
  CALLBOARD_TRY(created->write_at(0, bytes));
  return created->sync();
}

/// Readers have the old file mapped, and others may be replacing it as well:
/// hence a new file under a name of its own.
result<void> replace_catalog(io& door, directory& home, std::uint64_t epoch,
                             std::span<const std::byte> bytes) {
  const auto name = base_catalog_name(epoch);
  const auto temporary = name + ".tmp." + std::to_string(door.random_bits());
  auto replaced = write_new_file(home, temporary, bytes);
  if (replaced)
    replaced = home.rename(temporary, name);
  if (!replaced) {
    static_cast<void>(home.remove(temporary));
    return replaced;
  }
  return home.sync();
}

// -- Writing ------------------------------------------------------------------

/// Writes a file from its beginning and sums what it writes.
class summing_writer {
public:
  explicit summing_writer(std::unique_ptr<file> target)
      : target_(std::move(target)), state_(XXH3_createState()) {
    if (!state_)
      throw std::bad_alloc();
    XXH3_64bits_reset(state_.get());
    buffer_.reserve(buffer_bytes);
  }

  result<void> write(std::span<const std::byte> bytes) {
    XXH3_64bits_update(state_.get(), bytes.data(), bytes.size());
    CALLBOARD_TRY(place_zeros());
    return put(bytes);
  }
  result<void> write(std::string_view text) { return write(as_bytes(text)); }

  /// As `write` of `bytes`, all zero; long runs take no room on the disk.
  void write_zeros(std::span<const std::byte> bytes) {
    XXH3_64bits_update(state_.get(), bytes.data(), bytes.size());
    zeros_ += bytes.size();
  }

  /// Makes the file durable. Must be the last call.
  result<void> finish(std::uint32_t mode) {
    const auto ends_in_hole = zeros_ >= hole_bytes_min;
    CALLBOARD_TRY(place_zeros());
    CALLBOARD_TRY(flush());
    if (ends_in_hole)
      CALLBOARD_TRY(target_->truncate(flushed_));
    CALLBOARD_TRY(target_->set_mode(mode));
    return target_->sync();
  }

  std::uint64_t size() const noexcept {
    return flushed_ + buffer_.size() + zeros_;
  }
  std::uint64_t sum() const noexcept {
    return XXH3_64bits_digest(state_.get());
  }

private:
  struct freed {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };

  result<void> put(std::span<const std::byte> bytes) {
    if (buffer_.size() + bytes.size() > buffer_bytes)
      CALLBOARD_TRY(flush());
    if (bytes.size() > buffer_bytes)
      return write_through(bytes);
    append_bytes(buffer_, bytes);
    return {};
  }

  result<void> place_zeros() {
    if (zeros_ == 0)
      return {};
    const auto count = std::exchange(zeros_, 0);
    if (count < hole_bytes_min)
      return put(std::vector<std::byte>(count));
    CALLBOARD_TRY(flush());
    flushed_ += count;
    return {};
  }

  result<void> write_through(std::span<const std::byte> bytes) {
    CALLBOARD_TRY(target_->write_at(flushed_, bytes));
    flushed_ += bytes.size();
    return {};
  }

  result<void> flush() {
    CALLBOARD_TRY(write_through(buffer_));
    buffer_.clear();
    return {};
  }

  std::unique_ptr<file> target_;
  std::unique_ptr<XXH3_state_t, freed> state_;
  std::vector<std::byte> buffer_;
  std::uint64_t flushed_ = 0;
  /// Zeros behind the buffer.
  std::uint64_t zeros_ = 0;
};

result<summing_writer> new_writer(const directory& home,
                                  const std::string& name) {
  CALLBOARD_TRY_ASSIGN(auto created,
                       home.open_file(name, open_mode::create_empty));
  return summing_writer(std::move(created));
}

failure unusable_source(std::string why) {
  return {errc::invalid_argument,
          "the new base is not written: " + std::move(why)};
}

bool is_zero(std::span<const std::byte> bytes) {
  return std::ranges::all_of(
      bytes, [](std::byte each) { return each == std::byte{}; });
}

result<void> write_index(directory& home, std::uint32_t file_mode,
                         base_source& source, catalog_builder& builder,
                         base_descriptor& descriptor) {
  CALLBOARD_TRY_ASSIGN(auto out,
                       new_writer(home, base_index_name(descriptor.epoch)));
  const index_header header{descriptor.dimension, descriptor.row_count};
  CALLBOARD_TRY(out.write(encode_index_header(header)));
  for (row_number row = 0; row < descriptor.row_count; ++row) {
    CALLBOARD_TRY_ASSIGN(const auto vector, source.vector(row));
    if (vector.size() != descriptor.dimension * sizeof(float))
      return unusable_source("the vector of row " + std::to_string(row)
                             + " has " + std::to_string(vector.size())
                             + " bytes");
    builder.add_vector(row, vector);
    if (is_zero(vector)) {
      out.write_zeros(vector);
      continue;
    }
    CALLBOARD_TRY(out.write(vector));
  }
  descriptor.index_bytes = out.size();
  descriptor.index_checksum = out.sum();
  return out.finish(file_mode);
}

/// One line that starts and ends as an object does.
bool is_one_line(std::string_view record) {
  return record.starts_with('{') && record.ends_with('}')
         && record.find_first_of("\n\r") == std::string_view::npos;
}

result<void> write_record(summing_writer& out, row_number row,
                          const base_row& from, catalog_builder& builder) {
  CALLBOARD_TRY(out.write(builder.live_count() == 0 ? "\"" : ", \""));
  CALLBOARD_TRY(out.write(std::to_string(row)));
  CALLBOARD_TRY(out.write("\": "));
  if (!is_one_line(from.record))
    return unusable_source("the record of row " + std::to_string(row)
                           + " is not one object on one line");
  auto added = builder.add_record(row, from.record, out.size());
  if (!added)
    return failure{added.error().code,
                   unusable_source(added.error().message).message};
  if (builder.last_id() != from.id)
    return unusable_source("the record of row " + std::to_string(row)
                           + " has another __id__ than its row");
  return out.write(from.record);
}

result<void> write_meta(directory& home, std::uint32_t file_mode,
                        base_source& source, catalog_builder& builder,
                        base_descriptor& descriptor) {
  CALLBOARD_TRY_ASSIGN(auto out,
                       new_writer(home, base_meta_name(descriptor.epoch)));
  CALLBOARD_TRY(out.write("{"));
  for (row_number row = 0; row < descriptor.row_count; ++row) {
    CALLBOARD_TRY_ASSIGN(const auto from, source.record(row));
    if (from)
      CALLBOARD_TRY(write_record(out, row, *from, builder));
  }
  CALLBOARD_TRY(out.write("}"));
  if (builder.live_count() != source.live_count())
    return unusable_source(
        "it should have " + std::to_string(source.live_count())
        + " records, but has " + std::to_string(builder.live_count()));
  descriptor.live_count = builder.live_count();
  descriptor.meta_bytes = out.size();
  descriptor.meta_checksum = out.sum();
  return out.finish(file_mode);
}

} // namespace

std::string base_index_name(std::uint64_t epoch) {
  return base_file_name(epoch, ".index");
}

std::string base_meta_name(std::uint64_t epoch) {
  return base_file_name(epoch, ".meta");
}

std::string base_catalog_name(std::uint64_t epoch) {
  return base_file_name(epoch, ".catalog");
}

base::base() = default;
base::~base() = default;

result<std::shared_ptr<const base>>
base::open(io& door, directory& home, const base_descriptor& descriptor,
           map_mode mode) {
  auto opened = std::shared_ptr<base>(new base);
  opened->descriptor_ = descriptor;
  opened->directory_ = home.path();
  CALLBOARD_TRY_ASSIGN(opened->index_,
                       map_file(home, base_index_name(descriptor.epoch),
                                descriptor.index_bytes, mode));
  CALLBOARD_TRY(opened->check_index());
  CALLBOARD_TRY_ASSIGN(opened->meta_,
                       map_file(home, base_meta_name(descriptor.epoch),
                                descriptor.meta_bytes, mode));
  if (auto loaded = load_catalog(home, descriptor, mode))
    opened->catalog_ = std::move(*loaded);
  else
    CALLBOARD_TRY(opened->rebuild_catalog(door, home, mode));
  return std::shared_ptr<const base>(std::move(opened));
}

/// After this, `descriptor_`'s counts fit the file that is mapped.
result<void> base::check_index() const {
  const auto path = quoted_path(base_index_name(descriptor_.epoch));
  const auto bytes = index_->bytes();
  CALLBOARD_TRY_ASSIGN(const auto header,
                       decode_index_header(bytes, bytes.size(), path));
  if (header.dimension != descriptor_.dimension
      || header.row_count != descriptor_.row_count)
    return damaged_file(path, "its header and MANIFEST differ");
  return {};
}

result<void> base::check_pair() const {
  if (checksum(index_->bytes()) != descriptor_.index_checksum)
    return damaged_file(quoted_path(base_index_name(descriptor_.epoch)),
                        "its checksum is wrong");
  if (checksum(meta_->bytes()) != descriptor_.meta_checksum)
    return damaged_file(quoted_path(base_meta_name(descriptor_.epoch)),
                        "its checksum is wrong");
  return {};
}

result<std::vector<std::byte>> base::catalog_of_pair() const {
  const auto vectors = index_->bytes().subspan(index_header_bytes);
  auto built = build_catalog(descriptor_, vectors, as_text(meta_->bytes()),
                             planned_moves());
  if (!built)
    return damaged_file(quoted_path(base_meta_name(descriptor_.epoch)),
                        built.error().message);
  return built;
}

result<void> base::rebuild_catalog(io& door, directory& home, map_mode mode) {
  CALLBOARD_TRY(check_pair());
  CALLBOARD_TRY_ASSIGN(auto bytes, catalog_of_pair());
  if (replace_catalog(door, home, descriptor_.epoch, bytes)) {
    if (auto loaded = load_catalog(home, descriptor_, mode)) {
      catalog_ = std::move(*loaded);
      return {};
    }
  }
  CALLBOARD_TRY_ASSIGN(
      catalog_, catalog::parse(std::make_unique<heap_bytes>(std::move(bytes)),
                               descriptor_));
  return {};
}

liveness base::initial_liveness() const {
  return catalog_->initial_liveness();
}

std::optional<row_number> base::find(std::string_view id) const noexcept {
  return catalog_->find(id);
}

std::string_view base::id(row_number row) const noexcept {
  return catalog_->id(row);
}

result<std::string_view> base::record(row_number row) const {
  const auto entry = catalog_->row(row);
  const auto record =
      meta_->bytes().subspan(entry.record_offset, entry.record_bytes);
  if (short_checksum(record) != entry.record_checksum)
    return damaged_row("record", base_meta_name(descriptor_.epoch), row);
  return as_text(record);
}

result<std::span<const std::byte>> base::vector(row_number row) const {
  const auto vector = stored_vector(row);
  if (short_checksum(vector) != catalog_->row(row).vector_checksum)
    return damaged_row("vector", base_index_name(descriptor_.epoch), row);
  return vector;
}

const std::byte* base::vectors() const noexcept {
  return index_->bytes().data() + index_header_bytes;
}

void base::for_each_posting(
    indexed_field field, std::string_view value,
    const std::function<void(row_number)>& visit) const {
  catalog_->for_each_posting(field, value, visit);
}

std::vector<std::pair<row_number, row_number>> base::planned_moves() const {
  if (!catalog_)
    return {};
  return catalog_->moves();
}

result<void> base::verify() const {
  CALLBOARD_TRY(check_pair());
  CALLBOARD_TRY(check_vectors());
  // Same input, same bytes: this compares every id, record and posting.
  CALLBOARD_TRY_ASSIGN(const auto expected, catalog_of_pair());
  const auto found = catalog_->bytes();
  if (expected.size() != found.size()
      || std::memcmp(expected.data(), found.data(), found.size()) != 0)
    return failure{errc::corrupt,
                   quoted_path(base_catalog_name(descriptor_.epoch))
                       + " does not describe its pair; close the store and "
                         "delete the file: it is made again"};
  return {};
}

result<void> base::check_vectors() const {
  const auto name = base_index_name(descriptor_.epoch);
  for (row_number row = 0; row < descriptor_.row_count; ++row) {
    if (catalog_->is_alive(row) && !all_finite(stored_vector(row)))
      return damaged_file(quoted_path(name), "the vector of row "
                                                 + std::to_string(row)
                                                 + " is not finite");
  }
  for (const auto& [from, to] : planned_moves()) {
    const auto source = stored_vector(from);
    const auto copy = stored_vector(to);
    if (std::memcmp(source.data(), copy.data(), source.size()) != 0)
      return damaged_file(quoted_path(name),
                          "the hole " + std::to_string(to)
                              + " does not hold the vector of row "
                              + std::to_string(from) + " as planned");
  }
  return {};
}

std::span<const std::byte> base::stored_vector(row_number row) const noexcept {
  const auto vector_bytes = dimension() * sizeof(float);
  return index_->bytes().subspan(index_header_bytes + row * vector_bytes,
                                 vector_bytes);
}

std::string base::quoted_path(std::string_view name) const {
  return path_in(directory_, name);
}

failure base::damaged_row(std::string_view what, std::string_view file_name,
                          row_number row) const {
  return damaged_file(
      quoted_path(file_name),
      "the " + std::string(what) + " of row " + std::to_string(row) + " (id "
          + printable(id(row))
          + ") does not match its checksum: run `callboard verify` "
            "to see what else is");
}

result<base_descriptor> write_base(directory& home, const store_id& store,
                                   std::uint64_t epoch, std::uint32_t dimension,
                                   std::uint32_t file_mode,
                                   base_source& source) {
  if (dimension < 1 || dimension > dimension_max)
    return unusable_source("vectors cannot have " + std::to_string(dimension)
                           + " components");
  if (source.row_count() > row_count_max)
    return failure{errc::too_large,
                   "a base cannot have " + std::to_string(source.row_count())
                       + " rows: split the data over several namespaces"};
  base_descriptor descriptor;
  descriptor.store = store;
  descriptor.epoch = epoch;
  descriptor.dimension = dimension;
  descriptor.row_count = source.row_count();
  catalog_builder builder(source.row_count());
  CALLBOARD_TRY(write_index(home, file_mode, source, builder, descriptor));
  CALLBOARD_TRY(write_meta(home, file_mode, source, builder, descriptor));
  auto catalog = builder.finish(descriptor, source.planned_moves());
  if (!catalog)
    return unusable_source(catalog.error().message);
  CALLBOARD_TRY(write_new_file(home, base_catalog_name(epoch), *catalog));
  CALLBOARD_TRY(home.sync());
  return descriptor;
}

} // namespace callboard
