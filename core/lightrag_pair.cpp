#include "core/lightrag_pair.hpp"

#include "core/bytes.hpp"
#include "core/catalog.hpp"
#include "core/index_file.hpp"
#include "core/json_text.hpp"
#include "core/record.hpp"

#include <algorithm>
#include <cmath>
#include <deque>
#include <optional>
#include <unordered_set>

namespace callboard {
namespace {

constexpr int read_attempts_max = 5;
constexpr std::int64_t orphan_age_seconds = 3600;

/// Vectors whose norm differs more from 1 are normalized.
constexpr double norm_tolerance = 1e-3;

// -- Reading two files that others may replace meanwhile ----------------------

struct pair_files {
  index_header header;
  /// Null: there is no such file.
  std::unique_ptr<mapping> index;
  std::unique_ptr<mapping> meta;
};

std::string path_in(const directory& home, std::string_view name) {
  return '"' + home.path() + '/' + std::string(name) + '"';
}

/// What a name stands for; empty: nothing.
using stamp = std::optional<file_status>;

bool same(const stamp& a, const stamp& b) {
  if (!a || !b)
    return !a && !b;
  return a->identity == b->identity && a->size_bytes == b->size_bytes
         && a->modified_ns == b->modified_ns;
}

/// Reads the pair. What has the same inodes, sizes and times before and after
/// was one state all the time.
class pair_reader {
public:
  pair_reader(const directory& home, std::string_view namespace_name,
              std::uint32_t dimension)
      : home_(home),
        index_name_(published_index_name(namespace_name)),
        meta_name_(published_meta_name(namespace_name)),
        dimension_(dimension) {}

  result<pair_files> read() const {
    for (int attempt = 0; attempt < read_attempts_max; ++attempt) {
      CALLBOARD_TRY_ASSIGN(const auto index_before, look(index_name_));
      CALLBOARD_TRY_ASSIGN(const auto meta_before, look(meta_name_));
      auto files = read_once(index_before, meta_before);
      CALLBOARD_TRY_ASSIGN(const auto index_after, look(index_name_));
      CALLBOARD_TRY_ASSIGN(const auto meta_after, look(meta_name_));
      const bool is_stable =
          same(index_before, index_after) && same(meta_before, meta_after);
      if (is_stable)
        return files;
    }
    return changing();
  }

private:
  result<stamp> look(const std::string& name) const {
    const auto found = home_.status(name);
    if (found)
      return stamp(*found);
    if (found.error().code == errc::not_found)
      return stamp();
    return found.error();
  }

  /// Fails with `busy` if the name already stands for another file.
  result<std::unique_ptr<file>> open(const std::string& name,
                                     const stamp& expected) const {
    CALLBOARD_TRY_ASSIGN(auto opened, home_.open_file(name, open_mode::read));
    CALLBOARD_TRY_ASSIGN(const auto found, opened->status());
    if (!same(stamp(found), expected))
      return changing();
    return opened;
  }

  result<pair_files> read_once(const stamp& index, const stamp& meta) const {
    pair_files files;
    if (index) {
      CALLBOARD_TRY_ASSIGN(const auto opened, open(index_name_, index));
      CALLBOARD_TRY_ASSIGN(files.header, read_header(*opened, *index));
      CALLBOARD_TRY_ASSIGN(files.index, copy(*opened, *index));
    }
    if (meta) {
      CALLBOARD_TRY_ASSIGN(const auto opened, open(meta_name_, meta));
      CALLBOARD_TRY_ASSIGN(files.meta, copy(*opened, *meta));
    }
    return files;
  }

  /// Before anything is allocated for what the header claims.
  result<index_header> read_header(const file& from,
                                   const file_status& found) const {
    std::array<std::byte, index_header_bytes> bytes{};
    CALLBOARD_TRY_ASSIGN(const auto count, from.read_at(0, bytes));
    const auto path = path_in(home_, index_name_);
    CALLBOARD_TRY_ASSIGN(const auto header,
                         decode_index_header(std::span(bytes).first(count),
                                             found.size_bytes, path));
    if (header.dimension == dimension_)
      return header;
    return failure{errc::dimension_mismatch,
                   path + " has vectors of dimension "
                       + std::to_string(header.dimension)
                       + ", but the embedding model makes vectors of dimension "
                       + std::to_string(dimension_)
                       + ": use the model that the store was made with, or "
                         "another namespace"};
  }

  /// Never shared pages: a writer that truncates the file in place would end
  /// this process.
  static result<std::unique_ptr<mapping>> copy(const file& from,
                                               const file_status& found) {
    return from.map(found.size_bytes, map_mode::copied);
  }

  failure changing() const {
    return {errc::busy,
            path_in(home_, index_name_)
                + " and its meta file kept changing while they were read: try "
                  "again when no other program writes them"};
  }

  const directory& home_;
  std::string index_name_;
  std::string meta_name_;
  std::uint32_t dimension_;
};

// -- The meta file ------------------------------------------------------------

struct meta_row {
  std::uint64_t number = 0;
  /// A part of the meta file: an object, not empty.
  std::string_view text;
};

bool is_empty_object(std::string_view object) {
  const auto first = object.find_first_not_of(" \t\r\n", 1);
  return first != std::string_view::npos && object[first] == '}';
}

class meta_parser {
public:
  meta_parser(std::string_view text, std::string path)
      : text_(text), path_(std::move(path)) {}

  /// The records by row, rising. Of a repeated row the last one counts; `{}`
  /// stands for no record.
  result<std::vector<meta_row>> parse() const {
    std::vector<meta_row> rows;
    const json_text::rules how{.depth_max = record_depth_max + 1};
    json_text::object_scanner members(text_, how);
    for (;;) {
      const auto more = members.next();
      if (!more)
        return damaged(more.error().message, members);
      if (!*more)
        break;
      const auto number = parse_row_key(members.key());
      if (!number)
        return damaged("the key is no row number", members);
      if (json_text::kind_of(members.value()) != json_text::value_kind::object)
        return damaged("the record is no object", members);
      rows.push_back({*number, members.value()});
    }
    keep_last_of_each(rows);
    std::erase_if(
        rows, [](const meta_row& row) { return is_empty_object(row.text); });
    return rows;
  }

private:
  static void keep_last_of_each(std::vector<meta_row>& rows) {
    const auto by_number = [](const meta_row& a, const meta_row& b) {
      return a.number < b.number;
    };
    if (!std::is_sorted(rows.begin(), rows.end(), by_number))
      std::stable_sort(rows.begin(), rows.end(), by_number);
    const auto same_number = [](const meta_row& a, const meta_row& b) {
      return a.number == b.number;
    };
    const auto first_kept =
        std::unique(rows.rbegin(), rows.rend(), same_number).base();
    rows.erase(rows.begin(), first_kept);
  }

  failure damaged(std::string_view why,
                  json_text::object_scanner& members) const {
    auto message = path_ + " is damaged: " + std::string(why);
    if (!members.raw_key().empty())
      message += " (at or behind the key " + printable(members.key()) + ')';
    return {errc::corrupt,
            message
                + "; restore it from a backup, or move both files of the pair "
                  "away to start an empty store"};
  }

  std::string_view text_;
  std::string path_;
};

/// What an import wants to know of a record.
struct record_fields {
  std::optional<std::string_view> id;
  std::optional<std::string_view> content;
  std::optional<std::string_view> vector;
};

/// Requires: `record` is a valid object.
record_fields fields_of(std::string_view record) {
  record_fields fields;
  const auto take = [&](std::string_view key, std::string_view value,
                        std::string_view) -> result<void> {
    if (key == "__id__")
      fields.id = value;
    else if (key == "content")
      fields.content = value;
    else if (key == "__vector__")
      fields.vector = value;
    return {};
  };
  static_cast<void>(json_text::for_each_member(record, take));
  return fields;
}

std::string without_vector(std::string_view record) {
  std::string out = "{";
  const auto copy = [&](std::string_view key, std::string_view value,
                        std::string_view raw_key) -> result<void> {
    if (key == "__vector__")
      return {};
    if (out.size() > 1)
      out += ", ";
    out.append(raw_key).append(": ").append(value);
    return {};
  };
  static_cast<void>(json_text::for_each_member(record, copy));
  return out += '}';
}

/// Lost are line breaks between tokens and, if there is one, the vector.
/// Empty: `record` can stay as it is.
std::string rewritten(std::string_view record, bool has_vector) {
  std::string out;
  if (has_vector)
    out = without_vector(record);
  const auto text = has_vector ? std::string_view(out) : record;
  if (text.find_first_of("\n\r") != std::string_view::npos)
    out = json_text::compact(text);
  return out;
}

/// A record's own vector, normalized. Empty if it cannot be used.
std::vector<float> parse_vector(std::string_view raw, std::size_t dimension) {
  auto floats = json_text::to_floats(raw, dimension);
  if (!floats || !all_finite(std::as_bytes(std::span(*floats))))
    return {};
  double square = 0;
  for (const double each : *floats)
    square += each * each;
  const double norm = std::sqrt(square);
  if (norm > 0 && std::abs(norm - 1) > norm_tolerance)
    for (auto& each : *floats)
      each = static_cast<float>(each / norm);
  return std::move(*floats);
}

// -- The pair as rows ---------------------------------------------------------

struct imported_row {
  row_number number = 0;
  std::string id;
  std::string_view record;
  /// Empty: the one in the index file.
  std::vector<float> vector;
};

/// Owns the bytes of the files; `rows` are views of them.
class imported_source final : public base_source {
public:
  imported_source(pair_files pair, std::uint32_t dimension)
      : pair_(std::move(pair)), zeros_(dimension * sizeof(float)) {
    row_count_ = pair_.header.row_count;
  }

  std::size_t row_count() const override { return row_count_; }
  std::size_t live_count() const override { return rows_.size(); }

  result<std::span<const std::byte>> vector(row_number row) override {
    const auto found = find(row);
    if (found != rows_.end() && !found->vector.empty())
      return std::as_bytes(std::span(found->vector));
    const auto stored = stored_vector(row);
    // Nobody may meet a hole that is nearest to everything.
    return all_finite(stored) ? stored : std::span<const std::byte>(zeros_);
  }

  result<std::optional<base_row>> record(row_number row) override {
    const auto found = find(row);
    if (found == rows_.end())
      return std::optional<base_row>();
    return std::optional(base_row{found->id, found->record});
  }

  std::vector<std::pair<row_number, row_number>> planned_moves() override {
    return {};
  }

  std::string_view meta() const {
    return pair_.meta ? as_text(pair_.meta->bytes()) : std::string_view();
  }

  /// Zeros for rows that the index file does not have.
  std::span<const std::byte> stored_vector(std::uint64_t row) const {
    if (row >= pair_.header.row_count)
      return zeros_;
    return pair_.index->bytes().subspan(
        index_header_bytes + row * zeros_.size(), zeros_.size());
  }

  std::string_view keep(std::string text) {
    return texts_.emplace_back(std::move(text));
  }

  /// By falling row; `row` may be one that the index file does not have.
  void add_before(imported_row row) {
    row_count_ = std::max(row_count_, std::size_t{row.number} + 1);
    rows_.push_back(std::move(row));
  }
  void all_added() { std::reverse(rows_.begin(), rows_.end()); }

private:
  std::vector<imported_row>::const_iterator find(row_number row) const {
    const auto found = std::lower_bound(
        rows_.begin(), rows_.end(), row,
        [](const imported_row& a, row_number b) { return a.number < b; });
    return found != rows_.end() && found->number == row ? found : rows_.end();
  }

  pair_files pair_;
  std::vector<std::byte> zeros_;
  std::size_t row_count_ = 0;
  std::vector<imported_row> rows_;
  /// Records that differ from the meta file's text; addresses must not change.
  std::deque<std::string> texts_;
};

/// Decides what becomes of each record.
class pair_importer {
public:
  pair_importer(std::unique_ptr<imported_source> source,
                const index_header& header, std::uint32_t dimension)
      : source_(std::move(source)), header_(header), dimension_(dimension) {}

  result<imported_pair> import(const std::vector<meta_row>& rows) {
    // A row that the index file lacks is kept under its own number if that is
    // no larger than a sound store of as many records could have.
    row_limit_ =
        std::min<std::uint64_t>(header_.row_count + rows.size(), row_count_max);
    out_.report.orphan_vectors = header_.row_count;
    // Of rows with the same id the highest is met first, and stays.
    for (auto row = rows.rbegin(); row != rows.rend(); ++row)
      take(*row);
    source_->all_added();
    std::reverse(out_.to_embed.begin(), out_.to_embed.end());
    out_.report.records_to_embed = out_.to_embed.size();
    out_.dimension = dimension_;
    out_.source = std::move(source_);
    return std::move(out_);
  }

private:
  void take(const meta_row& row) {
    if (row.number < header_.row_count)
      --out_.report.orphan_vectors;
    const auto fields = fields_of(row.text);
    auto id = fields.id ? parse_id(*fields.id) : std::nullopt;
    if (!id || !check_id(*id)) {
      ++out_.report.records_without_id;
      return;
    }
    if (ids_.contains(*id)) {
      ++out_.report.duplicate_ids;
      return;
    }
    std::vector<float> own_vector;
    if (fields.vector && row.number < row_limit_)
      own_vector = parse_vector(*fields.vector, dimension_);
    const bool has_vector =
        !own_vector.empty() || has_stored_vector(row.number);
    if (!has_vector && !is_string(fields.content)) {
      ++out_.report.records_without_vector;
      return;
    }
    ids_.insert(*id);
    auto text = rewritten(row.text, fields.vector.has_value());
    if (has_vector)
      source_->add_before(
          {static_cast<row_number>(row.number), std::move(*id),
           text.empty() ? row.text : source_->keep(std::move(text)),
           std::move(own_vector)});
    else
      out_.to_embed.push_back(
          {std::move(*id), text.empty() ? std::string(row.text) : text});
  }

  bool has_stored_vector(std::uint64_t row) const {
    return row < header_.row_count && all_finite(source_->stored_vector(row));
  }

  static bool is_string(const std::optional<std::string_view>& raw) {
    return raw && json_text::kind_of(*raw) == json_text::value_kind::string;
  }

  std::unique_ptr<imported_source> source_;
  index_header header_;
  std::uint32_t dimension_;
  std::uint64_t row_limit_ = 0;
  std::unordered_set<std::string> ids_;
  imported_pair out_;
};

} // namespace

std::string published_index_name(std::string_view namespace_name) {
  return "faiss_index_" + std::string(namespace_name) + ".index";
}

std::string published_meta_name(std::string_view namespace_name) {
  return published_index_name(namespace_name) + ".meta.json";
}

result<imported_pair> read_lightrag_pair(directory& home,
                                         std::string_view namespace_name,
                                         std::uint32_t dimension) {
  CALLBOARD_TRY_ASSIGN(auto pair,
                       pair_reader(home, namespace_name, dimension).read());
  const auto header = pair.header;
  const auto meta_path = path_in(home, published_meta_name(namespace_name));
  if (pair.index && !pair.meta)
    return failure{errc::corrupt,
                   meta_path
                       + " is missing, but its index file is there; restore it "
                         "from a backup, or move the index file away to start "
                         "an empty store"};
  const bool has_meta = pair.meta != nullptr;
  auto source = std::make_unique<imported_source>(std::move(pair), dimension);
  std::vector<meta_row> rows;
  if (has_meta) {
    CALLBOARD_TRY_ASSIGN(rows, meta_parser(source->meta(), meta_path).parse());
  }
  return pair_importer(std::move(source), header, dimension).import(rows);
}

std::size_t remove_orphan_temporaries(io& door, directory& home,
                                      std::string_view namespace_name) {
  const auto index_prefix = published_index_name(namespace_name) + ".tmp.";
  const auto meta_temporary = published_meta_name(namespace_name) + ".tmp";
  const auto is_temporary = [&](const std::string& name) {
    return name.starts_with(index_prefix) || name == meta_temporary
           || name.starts_with(meta_temporary + '.');
  };
  const auto names = home.list();
  if (!names)
    return 0;
  constexpr std::int64_t second_ns = 1'000'000'000;
  const auto newest_ns =
      (door.wall_clock_seconds() - orphan_age_seconds) * second_ns;
  std::size_t removed = 0;
  for (const auto& name : *names) {
    if (!is_temporary(name))
      continue;
    const auto found = home.status(name);
    const bool is_old = found && found->modified_ns <= newest_ns;
    if (is_old && home.remove(name))
      ++removed;
  }
  return removed;
}

} // namespace callboard
