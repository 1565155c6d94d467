#include "core/published_pair.hpp"

#include "core/bytes.hpp"
#include "core/index_file.hpp"
#include "core/lightrag_pair.hpp"

#include <array>
#include <charconv>
#include <optional>
#include <utility>
#include <vector>

namespace callboard {

namespace {

constexpr std::uint32_t private_mode = 0600;
constexpr std::size_t part_bytes = std::size_t{1} << 20;
/// How often another process's checkpoints may get in the way of one look.
constexpr int replacements_max = 50;

// Files of others are read piece by piece, never mapped: their owner may cut
// them at any moment.

result<bool> have_same_bytes(const file& left, const file& right) {
  std::vector<std::byte> left_part(part_bytes);
  std::vector<std::byte> right_part(part_bytes);
  for (std::uint64_t offset = 0;; offset += part_bytes) {
    CALLBOARD_TRY_ASSIGN(auto left_count, left.read_at(offset, left_part));
    CALLBOARD_TRY_ASSIGN(auto right_count, right.read_at(offset, right_part));
    if (as_text(std::span{left_part}.first(left_count))
        != as_text(std::span{right_part}.first(right_count)))
      return false;
    if (left_count < part_bytes)
      return true;
  }
}

result<void> copy_file(const directory& from, std::string_view from_name,
                       directory& to, std::string_view to_name) {
  CALLBOARD_TRY_ASSIGN(auto source, from.open_file(from_name, open_mode::read));
  CALLBOARD_TRY_ASSIGN(auto copy,
                       to.open_file(to_name, open_mode::create_empty));
  std::vector<std::byte> part(part_bytes);
  for (std::uint64_t offset = 0;;) {
    CALLBOARD_TRY_ASSIGN(auto count, source->read_at(offset, part));
    if (count == 0)
      break;
    CALLBOARD_TRY(copy->append(offset, std::span{part}.first(count)));
    offset += count;
  }
  CALLBOARD_TRY_ASSIGN(auto status, source->status());
  CALLBOARD_TRY(copy->set_mode(status.mode));
  return copy->sync();
}

/// Links, or where the file system has no links, copies.
result<void> link_or_copy(directory& from, std::string_view from_name,
                          directory& to, std::string_view to_name) {
  if (from.link(from_name, to, to_name))
    return {};
  auto copied = copy_file(from, from_name, to, to_name);
  if (!copied)
    (void)to.remove(to_name); // half of a file is no copy
  return copied;
}

/// A number as `std::to_string` writes it, and nothing else.
std::optional<std::uint64_t> parse_number(std::string_view digits) {
  if (digits.empty() || (digits.size() > 1 && digits.front() == '0'))
    return std::nullopt;
  std::uint64_t number = 0;
  auto end = digits.data() + digits.size();
  auto parsed = std::from_chars(digits.data(), end, number);
  if (parsed.ec != std::errc{} || parsed.ptr != end)
    return std::nullopt;
  return number;
}

/// Of a name such as `<stem><infix><number>`: the stem. Empty for others.
std::optional<std::string_view> without_number(std::string_view name,
                                               std::string_view infix) {
  auto place = name.rfind(infix);
  if (place == std::string_view::npos
      || !parse_number(name.substr(place + infix.size())))
    return std::nullopt;
  return name.substr(0, place);
}

constexpr std::string_view base_prefix = "base-";
constexpr std::string_view log_prefix = "log-";
constexpr std::string_view foreign_prefix = "foreign-";
constexpr std::string_view catalog_suffix = ".catalog";

} // namespace

std::optional<std::uint64_t> epoch_in(std::string_view name,
                                      std::string_view prefix,
                                      std::string_view suffix) {
  if (name.size() < prefix.size() + suffix.size() || !name.starts_with(prefix)
      || !name.ends_with(suffix))
    return std::nullopt;
  name.remove_prefix(prefix.size());
  name.remove_suffix(suffix.size());
  return parse_number(name);
}

private_file classify(std::string_view name) {
  using kind = private_file::kind;
  if (auto epoch = epoch_in(name, log_prefix, ""))
    return {kind::log, *epoch};
  if (auto epoch = epoch_in(name, base_prefix, catalog_suffix))
    return {kind::base, *epoch};
  for (std::string_view suffix : {".index", ".meta"}) {
    if (auto epoch = epoch_in(name, base_prefix, suffix))
      return {kind::base, *epoch};
    if (auto epoch = epoch_in(name, foreign_prefix, suffix))
      return {kind::kept, *epoch};
  }
  if (auto log = without_number(name, ".salvaged-"))
    if (auto epoch = epoch_in(*log, log_prefix, ""))
      return {kind::kept, *epoch};
  if (name == unembedded_name)
    return {kind::kept};
  auto catalog = without_number(name, ".tmp.");
  if (name == "MANIFEST.tmp" || name == unembedded_temporary_name
      || (catalog && epoch_in(*catalog, base_prefix, catalog_suffix)))
    return {kind::temporary};
  return {};
}

std::string private_directory_name(std::string_view namespace_name) {
  return "faiss_index_" + std::string{namespace_name} + ".callboard";
}

published_pair::published_pair(io& door, directory& outside, directory& home,
                               std::string_view namespace_name)
    : door_(door),
      outside_(outside),
      home_(home),
      index_name_(published_index_name(namespace_name)),
      meta_name_(published_meta_name(namespace_name)) {}

result<published_pair::state> published_pair::examine(const manifest& root) {
  CALLBOARD_TRY_ASSIGN(auto index, owner_of(index_name_, ".index", root));
  CALLBOARD_TRY_ASSIGN(auto meta, owner_of(meta_name_, ".meta", root));
  if (index == owner::foreign && meta == owner::foreign)
    return state::foreign;
  // Also if the index has the very bytes of ours but is no link to it: where
  // there are no links, it may be ours, and the rows of theirs are others.
  if (index == owner::foreign || meta == owner::foreign)
    return state::half_foreign;
  if (index == owner::current && meta == owner::current)
    return state::current;
  return state::outdated;
}

/// Without the checkpoint lock, another process may publish a newer base and
/// remove the older one while this looks: then what was seen is looked at
/// again.
result<published_pair::owner>
published_pair::owner_of(const std::string& published, std::string_view suffix,
                         const manifest& root) {
  for (int attempt = 0;; ++attempt) {
    auto there = outside_.status(published);
    if (!there) {
      if (there.error().code == errc::not_found)
        return owner::outdated;
      return std::move(there).error();
    }
    CALLBOARD_TRY_ASSIGN(auto found,
                         owner_of_file(published, *there, suffix, root));
    if (found != owner::foreign || attempt == replacements_max)
      return found;
    auto now = outside_.status(published);
    if (now && now->identity == there->identity)
      return found;
  }
}

/// Ours are links to a base in the private directory, or, where the file
/// system has no links, copies of one. Bases that no MANIFEST has named yet do
/// not count: a dead process may have copied a foreign pair to one.
result<published_pair::owner>
published_pair::owner_of_file(const std::string& published,
                              const file_status& there, std::string_view suffix,
                              const manifest& root) {
  CALLBOARD_TRY_ASSIGN(auto names, home_.list());
  for (auto by_content : {false, true})
    for (const auto& name : names) {
      auto epoch = epoch_in(name, base_prefix, suffix);
      if (!epoch || *epoch > root.base.epoch)
        continue;
      auto ours = home_.status(name);
      if (!ours)
        continue;
      auto same = ours->identity == there.identity;
      if (by_content && ours->size_bytes == there.size_bytes) {
        CALLBOARD_TRY_ASSIGN(same, is_copy_of(published, name));
      }
      if (same)
        return *epoch == root.base.epoch ? owner::current : owner::outdated;
    }
  return owner::foreign;
}

/// False if one of them has gone meanwhile.
result<bool> published_pair::is_copy_of(const std::string& published,
                                        const std::string& private_name) {
  auto left = outside_.open_file(published, open_mode::read);
  auto right = home_.open_file(private_name, open_mode::read);
  for (auto* each : {&left, &right})
    if (!*each)
      return each->error().code == errc::not_found
                 ? result<bool>{false}
                 : result<bool>{std::move(*each).error()};
  return have_same_bytes(**left, **right);
}

std::uint64_t published_pair::index_row_count() const {
  auto opened = outside_.open_file(index_name_, open_mode::read);
  if (!opened)
    return 0;
  auto status = (*opened)->status();
  std::array<std::byte, index_header_bytes> head;
  auto read = (*opened)->read_at(0, head);
  if (!status || !read)
    return 0;
  auto header = decode_index_header(std::span{head}.first(*read),
                                    status->size_bytes, index_name_);
  return header ? header->row_count : 0;
}

std::uint32_t published_pair::file_mode() const {
  auto status = outside_.status(index_name_);
  return status ? status->mode : private_mode;
}

result<void> published_pair::publish(const manifest& root) {
  auto index = std::pair{index_name_, base_index_name(root.base.epoch)};
  auto meta = std::pair{meta_name_, base_meta_name(root.base.epoch)};
  // A LightRAG reader that finds an index without a meta file starts empty,
  // so the very first publication begins with the meta file.
  auto first_publication = !outside_.status(index_name_).has_value();
  if (root.meta_first || first_publication)
    std::swap(index, meta);
  CALLBOARD_TRY(replace(index.first, index.second));
  return replace(meta.first, meta.second);
}

result<void> published_pair::replace(const std::string& published,
                                     const std::string& private_name) {
  CALLBOARD_TRY_ASSIGN(auto ours, home_.status(private_name));
  auto there = outside_.status(published);
  if (there && there->identity == ours.identity)
    return outside_.sync(); // who renamed it may have failed to
  auto temporary = published + ".tmp." + std::to_string(door_.random_bits());
  CALLBOARD_TRY(link_or_copy(home_, private_name, outside_, temporary));
  if (auto renamed = outside_.rename(temporary, published); !renamed) {
    (void)outside_.remove(temporary);
    return renamed;
  }
  return outside_.sync();
}

result<void> published_pair::set_aside(std::uint64_t epoch) {
  for (;; ++epoch) {
    auto prefix = std::string{foreign_prefix} + std::to_string(epoch);
    auto index = prefix + ".index";
    auto meta = prefix + ".meta";
    CALLBOARD_TRY_ASSIGN(auto index_fits, can_keep(index_name_, index));
    CALLBOARD_TRY_ASSIGN(auto meta_fits, can_keep(meta_name_, meta));
    if (!index_fits || !meta_fits)
      continue; // kept for the owner of an earlier pair
    CALLBOARD_TRY(keep(index_name_, index));
    CALLBOARD_TRY(keep(meta_name_, meta));
    return home_.sync();
  }
}

/// Whether `target` is free, or already what would be kept there.
result<bool> published_pair::can_keep(const std::string& published,
                                      const std::string& target) {
  auto kept = home_.status(target);
  if (!kept && kept.error().code == errc::not_found)
    return true;
  if (!kept)
    return std::move(kept).error();
  auto there = outside_.status(published);
  if (!there || there->identity == kept->identity)
    return true;
  if (there->size_bytes != kept->size_bytes)
    return false;
  return is_copy_of(published, target);
}

result<void> published_pair::keep(const std::string& published,
                                  const std::string& target) {
  if (!outside_.status(published) || home_.status(target))
    return {};
  return link_or_copy(outside_, published, home_, target);
}

} // namespace callboard
