#include "simulation/disk.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

namespace callboard::simulation {

namespace {

constexpr std::errc done{};
constexpr std::uint64_t everything = std::numeric_limits<std::uint64_t>::max();

/// Bytes from `begin` to before `end`.
struct byte_range {
  std::uint64_t begin;
  std::uint64_t end;

  bool empty() const noexcept { return begin >= end; }
};

byte_range common(byte_range a, byte_range b) noexcept {
  return {std::max(a.begin, b.begin), std::min(a.end, b.end)};
}

byte_range bytes_of_sector(std::uint64_t sector) noexcept {
  return {sector * disk::sector_bytes, (sector + 1) * disk::sector_bytes};
}

class hasher {
public:
  void add(std::uint64_t value) noexcept { state_ = mixed(state_, value); }
  void add(std::string_view text) noexcept {
    add(std::as_bytes(std::span(text.data(), text.size())));
  }
  void add(std::span<const std::byte> bytes) noexcept {
    add(bytes.size());
    for (; bytes.size() >= 8; bytes = bytes.subspan(8)) {
      std::uint64_t word = 0;
      std::memcpy(&word, bytes.data(), 8);
      add(word);
    }
    for (const auto each : bytes)
      add(std::to_integer<std::uint64_t>(each));
  }
  std::uint64_t value() const noexcept { return state_; }

private:
  std::uint64_t state_ = 0;
};

} // namespace

/// A write or a change of size that is not durable, and how to undo it.
struct disk::file_change {
  std::uint64_t sequence;
  std::uint64_t old_size;
  std::uint64_t new_size;
  byte_range touched;
  /// The bytes at `touched.begin` before, as far as there were any.
  buffer old;

  /// Only what is written can turn out as garbage.
  bool is_write() const noexcept { return new_size >= old_size; }

  /// Puts the bytes in `where` back to what they were before this change.
  /// `image` covers all sizes that the file has had; zeros are beyond them.
  void undo(buffer& image, byte_range where) const {
    const auto part = common(touched, where);
    for (auto at = part.begin; at < part.end; ++at) {
      const auto index = at - touched.begin;
      image[at] = index < old.size() ? old[index] : std::byte{0};
    }
  }
};

/// An operation on names of one directory that is not durable.
struct disk::name_change {
  std::uint64_t sequence;
  /// Gone, if not empty and still a name of `number`.
  std::string removed;
  /// There, if not empty, in place of whatever had this name.
  std::string added;
  inode_number number;
};

/// What the disk has in place of a sector that a sync failed to write.
struct disk::lost_sector {
  /// The sector's bytes; zeros where the file was not that long.
  buffer old;
  /// What should have been written.
  std::vector<byte_range> written;
};

struct disk::inode {
  bool is_directory = false;
  std::uint32_t mode = 0;
  std::uint32_t durable_mode = 0;
  std::int64_t modified_ns = 0;
  std::uint32_t links = 0;
  std::uint32_t holders = 0;

  // Of a file.
  std::shared_ptr<buffer> content;
  std::vector<file_change> changes;
  std::map<std::uint64_t, lost_sector> lost;
  /// The size on the disk, if a sync failed to write a newer one.
  std::optional<std::uint64_t> lost_size;

  // Of a directory.
  std::map<std::string, inode_number, std::less<>> entries;
  std::map<std::string, inode_number, std::less<>> durable_entries;
  std::vector<name_change> name_changes;

  std::uint64_t size() const { return content ? content->size() : 0; }

  /// The content, not shared with anybody.
  buffer& own_content() {
    if (content.use_count() > 1)
      content = std::make_shared<buffer>(*content);
    return *content;
  }

  /// All sectors that `changes` touch, each once, rising.
  std::vector<std::uint64_t> touched_sectors() const {
    std::vector<std::uint64_t> out;
    for (const auto& each : changes)
      for (auto sector = each.touched.begin / sector_bytes;
           sector * sector_bytes < each.touched.end; ++sector)
        out.push_back(sector);
    std::sort(out.begin(), out.end());
    out.erase(std::unique(out.begin(), out.end()), out.end());
    return out;
  }

  /// The size that the disk has if nothing of `changes` gets there.
  std::uint64_t durable_size() const {
    if (lost_size)
      return *lost_size;
    return changes.empty() ? size() : changes.front().old_size;
  }

  /// The content, with zeros up to the largest size that a crash can leave.
  buffer image() const {
    auto longest = std::max(size(), durable_size());
    for (const auto& each : changes)
      longest = std::max({longest, each.old_size, each.new_size});
    auto out = *content;
    out.resize(longest);
    return out;
  }

  /// Undoes the changes from number `kept` on, in `where`.
  void undo(buffer& image, std::size_t kept, byte_range where) const {
    for (auto i = changes.size(); i > kept; --i)
      changes[i - 1].undo(image, where);
  }

  std::uint64_t size_after(std::size_t kept) const {
    return kept == 0 ? durable_size() : changes[kept - 1].new_size;
  }

  /// Where `changes` wrote in this sector.
  std::vector<byte_range> written_in(std::uint64_t sector) const {
    std::vector<byte_range> out;
    for (const auto& each : changes) {
      const auto part = common(each.touched, bytes_of_sector(sector));
      if (each.is_write() && !part.empty())
        out.push_back(part);
    }
    return out;
  }

  bool is_touched(std::uint64_t sector, std::size_t kept) const {
    const auto where = bytes_of_sector(sector);
    return std::any_of(changes.begin(),
                       changes.begin() + static_cast<std::ptrdiff_t>(kept),
                       [&](const file_change& each) {
                         return !common(each.touched, where).empty();
                       });
  }

  bool is_clean() const {
    return changes.empty() && lost.empty() && !lost_size && name_changes.empty()
           && mode == durable_mode;
  }

  void sync_content() {
    for (const auto sector : touched_sectors())
      lost.erase(sector);
    const auto resized = [](const file_change& each) {
      return each.old_size != each.new_size;
    };
    if (std::any_of(changes.begin(), changes.end(), resized))
      lost_size.reset();
    changes.clear();
  }

  void lose_content() {
    auto old = image();
    undo(old, 0, {0, old.size()});
    if (!changes.empty())
      lost_size = durable_size();
    for (const auto sector : touched_sectors()) {
      const auto [place, is_new] = lost.try_emplace(sector);
      auto& kept = place->second;
      for (const auto& each : written_in(sector))
        kept.written.push_back(each);
      if (!is_new)
        continue;
      const auto where = common(bytes_of_sector(sector), {0, old.size()});
      if (!where.empty())
        kept.old.assign(old.begin() + static_cast<std::ptrdiff_t>(where.begin),
                        old.begin() + static_cast<std::ptrdiff_t>(where.end));
      kept.old.resize(sector_bytes);
    }
    changes.clear();
  }

  /// In `ranges`, as far as they are in `limits`.
  static void fill_with_garbage(buffer& image,
                                const std::vector<byte_range>& ranges,
                                byte_range limits, random_source& random) {
    limits = common(limits, {0, image.size()});
    for (const auto& each : ranges) {
      const auto part = common(each, limits);
      for (auto at = part.begin; at < part.end; ++at)
        image[at] = static_cast<std::byte>(random.bits());
    }
  }

  static void put(buffer& image, std::uint64_t sector, const buffer& bytes) {
    const auto begin = sector * sector_bytes;
    if (begin >= image.size())
      return;
    const auto count =
        std::min<std::uint64_t>(bytes.size(), image.size() - begin);
    std::copy_n(bytes.begin(), count,
                image.begin() + static_cast<std::ptrdiff_t>(begin));
  }

  /// The sectors that failed syncs have left as they were before, unless one
  /// of the first `kept` changes has written them again.
  void restore_lost(buffer& image, std::size_t kept) const {
    for (const auto& [sector, before] : lost)
      if (!is_touched(sector, kept))
        put(image, sector, before.old);
  }

  void settle(buffer image, std::uint64_t new_size) {
    image.resize(new_size);
    content = std::make_shared<buffer>(std::move(image));
    changes.clear();
    lost.clear();
    lost_size.reset();
  }

  /// `loss_model::ordered`: the changes before number `kept` are left, and of
  /// that one, if it is a write, the first `torn` bytes.
  void keep_prefix(std::size_t kept, std::uint64_t torn) {
    auto left = image();
    undo(left, kept, {0, left.size()});
    auto new_size = size_after(kept);
    if (kept < changes.size() && torn > 0) {
      const auto& cut = changes[kept];
      auto after = image();
      undo(after, kept + 1, {0, after.size()});
      const byte_range part{cut.touched.begin, cut.touched.begin + torn};
      std::copy(after.begin() + static_cast<std::ptrdiff_t>(part.begin),
                after.begin() + static_cast<std::ptrdiff_t>(part.end),
                left.begin() + static_cast<std::ptrdiff_t>(part.begin));
      new_size = std::max(new_size, part.end);
    }
    restore_lost(left, kept);
    settle(std::move(left), new_size);
  }

  /// What became of one file as a whole, so that nothing and everything are
  /// left often enough.
  enum class mood : std::uint8_t { all_old, all_new, each_on_its_own };

  static mood random_mood(random_source& random) {
    switch (random.below(5)) {
    case 0:
      return mood::all_old;
    case 1:
      return mood::all_new;
    default:
      return mood::each_on_its_own;
    }
  }

  void lose_weakly(random_source& random) {
    if (durable_mode != mode && !random.one_in(2))
      mode = durable_mode;
    durable_mode = mode;
    if (changes.empty() && lost.empty() && !lost_size)
      return;
    const auto how = random_mood(random);
    auto left = image();
    for (const auto& [sector, kept] : lost)
      lose_lost_sector(left, sector, kept, random);
    for (const auto sector : touched_sectors())
      lose_sector(left, sector, how, random);
    const auto kept = kept_of_size(how, random);
    settle(std::move(left), size_after(kept));
  }

  /// How many of the changes of the size are left.
  std::size_t kept_of_size(mood how, random_source& random) const {
    if (how == mood::all_new)
      return changes.size();
    switch (random.below(3)) {
    case 0:
      return 0;
    case 1:
      return changes.size();
    default:
      return random.below(changes.size() + 1);
    }
  }

  void lose_lost_sector(buffer& image, std::uint64_t sector,
                        const lost_sector& kept, random_source& random) const {
    const auto fate = random.below(4);
    if (fate == 3)
      return; // it was on the disk before the sync failed
    put(image, sector, kept.old);
    if (fate == 2)
      fill_with_garbage(image, kept.written, {0, everything}, random);
  }

  void lose_sector(buffer& image, std::uint64_t sector, mood how,
                   random_source& random) const {
    if (how == mood::all_new)
      return;
    const auto where = bytes_of_sector(sector);
    const auto fate = how == mood::all_old ? 0 : random.below(8);
    if (fate <= 2)
      make_old(image, sector, random);
    else if (fate == 3)
      undo(image, random.below(changes.size() + 1), where);
    else if (fate == 4)
      tear(image, sector, random);
    else if (fate == 5)
      fill_with_garbage(image, written_in(sector), where, random);
  }

  /// As before the first change; where the file was not that long, zeros or
  /// what happens to stand there.
  void make_old(buffer& image, std::uint64_t sector,
                random_source& random) const {
    const auto where = bytes_of_sector(sector);
    undo(image, 0, where);
    if (const auto found = lost.find(sector); found != lost.end())
      put(image, sector, found->second.old);
    if (random.one_in(4))
      fill_with_garbage(image, written_in(sector), {durable_size(), where.end},
                        random);
  }

  /// A part new, the rest old.
  void tear(buffer& image, std::uint64_t sector, random_source& random) const {
    const auto where = common(bytes_of_sector(sector), {0, image.size()});
    if (where.empty())
      return;
    const auto middle = where.begin + random.below(where.end - where.begin + 1);
    if (random.one_in(2))
      undo(image, 0, {where.begin, middle});
    else
      undo(image, 0, {middle, where.end});
  }

  void apply_durably(const name_change& change) {
    if (!change.removed.empty()) {
      const auto found = durable_entries.find(change.removed);
      if (found != durable_entries.end() && found->second == change.number)
        durable_entries.erase(found);
    }
    if (!change.added.empty())
      durable_entries[change.added] = change.number;
  }

  void settle_names() {
    entries = durable_entries;
    name_changes.clear();
  }

  bool names(inode_number number) const {
    const auto is_it = [&](const auto& entry) {
      return entry.second == number;
    };
    return std::any_of(entries.begin(), entries.end(), is_it)
           || std::any_of(durable_entries.begin(), durable_entries.end(), is_it)
           || std::any_of(
               name_changes.begin(), name_changes.end(),
               [&](const auto& change) { return change.number == number; });
  }
};

// -- Inodes -------------------------------------------------------------------

disk::disk() {
  auto made = std::make_shared<inode>();
  made->is_directory = true;
  made->mode = made->durable_mode = 0755;
  made->links = 1;
  inodes_.emplace(root, std::move(made));
}

const disk::inode& disk::at(inode_number number) const {
  return *inodes_.at(number);
}

/// Copies an inode that another disk has, too.
disk::inode& disk::writable(inode_number number) {
  auto& found = inodes_.at(number);
  if (found.use_count() > 1)
    found = std::make_shared<inode>(*found);
  return *found;
}

/// The lowest free number: file systems use numbers again, soon.
disk::inode_number disk::new_inode(std::uint32_t mode, bool is_directory,
                                   std::int64_t now_ns) {
  auto number = root;
  for (const auto& [taken, unused] : inodes_) {
    if (taken != number)
      break;
    ++number;
  }
  auto made = std::make_shared<inode>();
  made->is_directory = is_directory;
  made->mode = made->durable_mode = mode;
  made->modified_ns = now_ns;
  if (!is_directory)
    made->content = std::make_shared<buffer>();
  inodes_.emplace(number, std::move(made));
  return number;
}

/// Whatever has no name, neither now nor after any crash, and nobody holds.
void disk::forget_unreachable() {
  std::erase_if(inodes_, [&](const auto& entry) {
    const auto number = entry.first;
    const auto& found = *entry.second;
    if (number == root || found.links > 0 || found.holders > 0)
      return false;
    return std::none_of(inodes_.begin(), inodes_.end(), [&](const auto& each) {
      return each.second->is_directory && each.second->names(number);
    });
  });
}

// -- Names --------------------------------------------------------------------

std::optional<disk::inode_number> disk::find(inode_number directory,
                                             std::string_view name) const {
  const auto& entries = at(directory).entries;
  const auto found = entries.find(name);
  if (found == entries.end())
    return std::nullopt;
  return found->second;
}

std::vector<std::string> disk::names(inode_number directory) const {
  std::vector<std::string> out;
  for (const auto& [name, number] : at(directory).entries)
    out.push_back(name);
  return out;
}

void disk::set_name(inode_number directory, name_change change) {
  auto& place = writable(directory);
  if (!change.removed.empty()) {
    place.entries.erase(change.removed);
    --writable(change.number).links;
  }
  if (!change.added.empty()) {
    const auto found = place.entries.find(change.added);
    if (found != place.entries.end())
      --writable(found->second).links;
    place.entries[change.added] = change.number;
    ++writable(change.number).links;
  }
  change.sequence = next_sequence_++;
  place.name_changes.push_back(std::move(change));
}

disk::inode_number disk::create_file(inode_number directory,
                                     std::string_view name, std::uint32_t mode,
                                     std::int64_t now_ns) {
  const auto number = new_inode(mode, false, now_ns);
  set_name(directory, {0, "", std::string(name), number});
  return number;
}

disk::inode_number disk::create_directory(inode_number directory,
                                          std::string_view name,
                                          std::uint32_t mode,
                                          std::int64_t now_ns) {
  const auto number = new_inode(mode, true, now_ns);
  set_name(directory, {0, "", std::string(name), number});
  return number;
}

std::errc disk::rename(inode_number directory, std::string_view from,
                       std::string_view to) {
  const auto source = find(directory, from);
  if (!source)
    return std::errc::no_such_file_or_directory;
  if (from == to)
    return done;
  if (const auto target = find(directory, to)) {
    if (is_directory(*target) && !is_directory(*source))
      return std::errc::is_a_directory;
    if (!is_directory(*target) && is_directory(*source))
      return std::errc::not_a_directory;
    if (is_directory(*target) && !at(*target).entries.empty())
      return std::errc::directory_not_empty;
  }
  set_name(directory, {0, std::string(from), std::string(to), *source});
  return done;
}

std::errc disk::link(inode_number from_directory, std::string_view from,
                     inode_number to_directory, std::string_view to) {
  const auto source = find(from_directory, from);
  if (!source)
    return std::errc::no_such_file_or_directory;
  if (is_removed(to_directory))
    return std::errc::no_such_file_or_directory;
  if (find(to_directory, to))
    return std::errc::file_exists;
  if (is_directory(*source))
    return std::errc::operation_not_permitted;
  set_name(to_directory, {0, "", std::string(to), *source});
  return done;
}

std::errc disk::remove(inode_number directory, std::string_view name) {
  const auto found = find(directory, name);
  if (!found)
    return std::errc::no_such_file_or_directory;
  if (is_directory(*found))
    return std::errc::is_a_directory;
  set_name(directory, {0, std::string(name), "", *found});
  return done;
}

void disk::sync_directory(inode_number directory) {
  if (at(directory).name_changes.empty())
    return;
  auto& place = writable(directory);
  for (const auto& each : place.name_changes)
    place.apply_durably(each);
  place.name_changes.clear();
  forget_unreachable();
}

// -- Files --------------------------------------------------------------------

file_status disk::status(inode_number number) const {
  const auto& found = at(number);
  file_status out;
  out.identity = {1, number};
  out.size_bytes = found.size();
  out.modified_ns = found.modified_ns;
  out.mode = found.mode;
  out.link_count = found.links;
  out.is_directory = found.is_directory;
  out.is_regular = !found.is_directory;
  return out;
}

bool disk::is_directory(inode_number number) const {
  return at(number).is_directory;
}

bool disk::is_removed(inode_number number) const {
  return at(number).links == 0;
}

std::size_t disk::read(inode_number number, std::uint64_t offset,
                       std::span<std::byte> into) const {
  const auto& content = *at(number).content;
  if (offset >= content.size())
    return 0;
  const auto count =
      std::min<std::uint64_t>(into.size(), content.size() - offset);
  std::copy_n(content.begin() + static_cast<std::ptrdiff_t>(offset), count,
              into.begin());
  return count;
}

std::shared_ptr<const disk::buffer> disk::content(inode_number number) const {
  return at(number).content;
}

std::errc disk::write(inode_number number, std::uint64_t offset,
                      std::span<const std::byte> data, std::int64_t now_ns) {
  if (data.empty())
    return done;
  if (offset > file_bytes_max || data.size() > file_bytes_max - offset)
    return std::errc::file_too_large;
  auto& target = writable(number);
  auto& content = target.own_content();
  const byte_range touched{offset, offset + data.size()};
  const auto overlap = common(touched, {0, content.size()});
  file_change change{next_sequence_++,
                     content.size(),
                     std::max<std::uint64_t>(content.size(), touched.end),
                     touched,
                     {}};
  if (!overlap.empty())
    change.old.assign(
        content.begin() + static_cast<std::ptrdiff_t>(overlap.begin),
        content.begin() + static_cast<std::ptrdiff_t>(overlap.end));
  content.resize(change.new_size);
  std::copy(data.begin(), data.end(),
            content.begin() + static_cast<std::ptrdiff_t>(offset));
  target.modified_ns = now_ns;
  target.changes.push_back(std::move(change));
  return done;
}

std::errc disk::resize(inode_number number, std::uint64_t size_bytes,
                       std::int64_t now_ns) {
  if (size_bytes > file_bytes_max)
    return std::errc::file_too_large;
  auto& target = writable(number);
  auto& content = target.own_content();
  file_change change{
      next_sequence_++,
      content.size(),
      size_bytes,
      {size_bytes, std::max<std::uint64_t>(content.size(), size_bytes)},
      {}};
  if (size_bytes < content.size())
    change.old.assign(content.begin() + static_cast<std::ptrdiff_t>(size_bytes),
                      content.end());
  content.resize(size_bytes);
  target.modified_ns = now_ns;
  if (change.old_size != change.new_size)
    target.changes.push_back(std::move(change));
  return done;
}

void disk::set_mode(inode_number number, std::uint32_t mode) {
  writable(number).mode = mode;
}

void disk::sync_data(inode_number number) {
  if (!at(number).changes.empty())
    writable(number).sync_content();
}

void disk::sync(inode_number number) {
  sync_data(number);
  if (at(number).durable_mode != at(number).mode) {
    auto& target = writable(number);
    target.durable_mode = target.mode;
  }
}

void disk::fail_sync(inode_number number) {
  if (!at(number).changes.empty())
    writable(number).lose_content();
}

void disk::hold(inode_number number) {
  ++writable(number).holders;
}

void disk::release(inode_number number) noexcept {
  --writable(number).holders;
}

// -- Crashes ------------------------------------------------------------------

void disk::release_all() {
  for (const auto& [number, found] : inodes_)
    if (found->holders > 0)
      writable(number).holders = 0;
}

std::size_t disk::unsynced_count() const {
  std::size_t count = 0;
  for (const auto& [number, found] : inodes_)
    count +=
        found->changes.size() + found->lost.size() + found->name_changes.size();
  return count;
}

std::string_view to_string(loss_model model) noexcept {
  switch (model) {
  case loss_model::kill:
    return "kill";
  case loss_model::ordered:
    return "ordered";
  case loss_model::weakest:
    return "weakest";
  }
  return "unknown";
}

void disk::lose_power(loss_model model, random_source& random) {
  release_all();
  if (model == loss_model::kill) {
    forget_unreachable();
    return;
  }
  if (model == loss_model::ordered)
    lose_ordered(random);
  else
    lose_weakly(random);
  count_links();
  forget_unreachable();
}

void disk::lose_weakly(random_source& random) {
  for (const auto& [number, shared] : inodes_) {
    if (shared->is_clean())
      continue;
    auto& found = writable(number);
    if (!found.is_directory) {
      found.lose_weakly(random);
      continue;
    }
    for (const auto& change : found.name_changes)
      if (random.one_in(2))
        found.apply_durably(change);
    found.settle_names();
  }
}

void disk::lose_ordered(random_source& random) {
  std::vector<std::uint64_t> sequences;
  for (const auto& [number, found] : inodes_) {
    for (const auto& each : found->changes)
      sequences.push_back(each.sequence);
    for (const auto& each : found->name_changes)
      sequences.push_back(each.sequence);
  }
  std::sort(sequences.begin(), sequences.end());
  const auto kept = random.below(sequences.size() + 1);
  const auto limit = kept < sequences.size() ? sequences[kept] : everything;
  for (const auto& [number, shared] : inodes_) {
    if (shared->is_clean())
      continue;
    auto& found = writable(number);
    if (found.is_directory) {
      for (const auto& change : found.name_changes)
        if (change.sequence < limit)
          found.apply_durably(change);
      found.settle_names();
      continue;
    }
    const auto first_lost =
        std::find_if(found.changes.begin(), found.changes.end(),
                     [&](const auto& each) { return each.sequence >= limit; });
    std::uint64_t torn = 0;
    if (first_lost != found.changes.end() && first_lost->sequence == limit
        && first_lost->new_size >= first_lost->old_size)
      torn =
          random.below(first_lost->touched.end - first_lost->touched.begin + 1);
    found.keep_prefix(
        static_cast<std::size_t>(first_lost - found.changes.begin()), torn);
    found.durable_mode = found.mode;
  }
}

void disk::count_links() {
  std::map<inode_number, std::uint32_t> links;
  // What hangs below a directory that was lost is lost, too.
  std::vector<inode_number> reached{root};
  links[root] = 1;
  for (std::size_t i = 0; i < reached.size(); ++i)
    for (const auto& [name, number] : at(reached[i]).entries)
      if (++links[number] == 1 && is_directory(number))
        reached.push_back(number);
  std::erase_if(inodes_,
                [&](const auto& each) { return !links.contains(each.first); });
  for (const auto& [number, count] : links)
    if (at(number).links != count)
      writable(number).links = count;
}

std::uint64_t disk::fingerprint() const {
  hasher out;
  for (const auto& [number, found] : inodes_) {
    out.add(number);
    out.add(found->mode);
    if (found->content)
      out.add(std::span<const std::byte>(*found->content));
    for (const auto& [name, target] : found->entries) {
      out.add(name);
      out.add(target);
    }
  }
  return out.value();
}

} // namespace callboard::simulation
