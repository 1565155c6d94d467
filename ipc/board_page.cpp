#include "ipc/board_page.hpp"

#include "core/bytes.hpp"

#include <boost/interprocess/file_mapping.hpp>
#include <boost/interprocess/mapped_region.hpp>
#include <boost/interprocess/shared_memory_object.hpp>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

namespace callboard {

namespace {

namespace interprocess = boost::interprocess;

/// Who holds the lock is at work for milliseconds, or stopped.
constexpr auto lock_timeout = std::chrono::milliseconds(1000);
/// How often the file may be replaced while we wait for its lock.
constexpr int lock_attempts = 4;
constexpr mode_t others = 077;

using head_bits = std::array<std::uint64_t, sizeof(board_head) / 8>;
using name_bits = std::array<std::uint64_t, sizeof(board_name) / 8>;

board_head head_for(std::string_view boot_id) {
  board_head head;
  head.total_bytes = sizeof(board_memory);
  boot_id.copy(head.boot_id.data(), head.boot_id.size());
  return head;
}

/// Nothing if it is too long.
std::optional<name_bits> encoded_name(const store_address& address) {
  const auto& [id, place, workspace, namespace_name] = address;
  board_name name;
  if (workspace.size() > name.text.size()
      || namespace_name.size() > name.text.size() - workspace.size())
    return std::nullopt;
  name.workspace_bytes = static_cast<std::uint16_t>(workspace.size());
  name.namespace_bytes = static_cast<std::uint16_t>(namespace_name.size());
  workspace.copy(name.text.data(), workspace.size());
  namespace_name.copy(name.text.data() + workspace.size(),
                      namespace_name.size());
  return std::bit_cast<name_bits>(name);
}

std::uint64_t hash_of(const name_bits& name) {
  return std::max<std::uint64_t>(1, checksum(std::as_bytes(std::span{name})));
}

bool is_name(const board_name_words& words, const name_bits& name) {
  return std::equal(words.begin(), words.end(), name.begin(),
                    [](const auto& word, std::uint64_t bits) {
                      return word.load(std::memory_order_relaxed) == bits;
                    });
}

enum class head_kind : std::uint8_t {
  ours,
  /// Of another boot, or no board at all: whoever made it is gone.
  stale,
  /// Of another layout, by a program that may be running.
  of_another_layout,
};

head_kind kind_of(const board_head& found, const board_head& expected) {
  if (found.magic != expected.magic || found.boot_id != expected.boot_id)
    return head_kind::stale;
  return found == expected ? head_kind::ours : head_kind::of_another_layout;
}

/// All zero where the file is too short.
board_head read_head(int descriptor) {
  std::array<std::byte, sizeof(board_head)> bytes{};
  if (::pread(descriptor, bytes.data(), bytes.size(), 0)
      != static_cast<ssize_t>(bytes.size()))
    bytes.fill(std::byte{0});
  return std::bit_cast<board_head>(bytes);
}

bool is_private(const struct stat& status) {
  return S_ISREG(status.st_mode) && status.st_uid == ::geteuid()
         && (status.st_mode & others) == 0 && status.st_nlink == 1;
}

/// Whether every byte has its place on the disk: to touch one that has not,
/// when the disk is full, would kill us.
bool has_all_blocks(const struct stat& status) {
  constexpr auto needed = static_cast<off_t>(sizeof(board_memory));
  constexpr blkcnt_t block = 512;
  return status.st_size == needed && status.st_blocks >= needed / block;
}

/// If it fails, the disk keeps what was free.
bool allocate(int descriptor, off_t size_before) {
  int error = EINTR;
  while (error == EINTR)
    error = ::posix_fallocate(descriptor, 0, sizeof(board_memory));
  // Nobody has mapped a board that has not its size yet.
  if (error != 0 && size_before < static_cast<off_t>(sizeof(board_memory)))
    (void)::ftruncate(descriptor, size_before);
  return error == 0;
}

/// One per user and board file; lives until the machine restarts.
std::string object_name(const file_identity& identity) {
  return "callboard." + std::to_string(::geteuid()) + '.'
         + std::to_string(identity.device) + '.'
         + std::to_string(identity.inode);
}

} // namespace

std::uint64_t sequence_word(std::uint64_t sequence,
                            std::uint64_t key) noexcept {
  sequence = std::min(sequence, board_sequence_max);
  auto mixed = (sequence ^ key) * 0x9e37'79b9'7f4a'7c15;
  mixed = (mixed ^ mixed >> 32) * 0xd6e8'feb8'6659'fd93;
  return sequence << 16 | mixed >> 48;
}

std::uint64_t sequence_in(std::uint64_t word, std::uint64_t key) noexcept {
  const auto sequence = word >> 16;
  return sequence_word(sequence, key) == word ? sequence : 0;
}

board_store_keys::board_store_keys(const store_id& id) noexcept
    : store_word(std::max<std::uint64_t>(1, checksum(id))),
      check_key(checksum(id, 1)) {}

// -- The lock -----------------------------------------------------------------

/// The board's file, locked until it is closed.
struct board_page::locked_file {
  std::unique_ptr<file> opened;
  file_identity identity;
};

result<board_page::locked_file> board_page::lock() const {
  CALLBOARD_TRY_ASSIGN(const auto home,
                       door_.open_directory(working_directory_, false));
  for (int attempt = 0; attempt < lock_attempts; ++attempt) {
    CALLBOARD_TRY_ASSIGN(auto opened,
                         home->open_file(board_file_name, open_mode::create));
    CALLBOARD_TRY(opened->lock(0, lock_mode::exclusive, lock_timeout));
    CALLBOARD_TRY_ASSIGN(const auto status, opened->status());
    const auto named = home->status(board_file_name);
    if (named && named->identity == status.identity)
      return locked_file{std::move(opened), status.identity};
  }
  return refused(errc::busy, "it is being replaced all the time");
}

// -- The page -----------------------------------------------------------------

board_page::board_page(io& door, std::string working_directory, board_head head)
    : door_(door),
      working_directory_(std::move(working_directory)),
      expected_head_(head) {}

board_page::~board_page() = default;

std::string board_page::path() const {
  return working_directory_ + '/' + std::string(board_file_name);
}

failure board_page::refused(errc code, std::string_view why) const {
  return {code,
          "cannot share the board \"" + path() + "\": " + std::string(why)};
}

result<std::shared_ptr<board_page>>
board_page::open(io& door, board_backing backing,
                 std::string working_directory) {
  const auto boot_id = door.boot_id();
  std::shared_ptr<board_page> page(
      new board_page(door, std::move(working_directory), head_for(boot_id)));
  if (boot_id.empty())
    return page->refused(errc::io_failure, "the boot id is unknown");
  CALLBOARD_TRY_ASSIGN(const auto held, page->lock());
  page->identity_ = held.identity;
  try {
    CALLBOARD_TRY(page->map(backing));
  } catch (const interprocess::interprocess_exception& problem) {
    return page->refused(errc::io_failure, problem.what());
  }
  if (!page->has_expected_head())
    page->reset();
  return page;
}

result<void> board_page::map(board_backing backing) {
  if (backing == board_backing::file)
    return map(
        interprocess::file_mapping(path().c_str(), interprocess::read_write),
        identity_);
  interprocess::permissions owner_only(0600);
  return map(interprocess::shared_memory_object(
                 interprocess::open_or_create, object_name(identity_).c_str(),
                 interprocess::read_write, owner_only),
             std::nullopt);
}

/// Boost follows symbolic links: what it opened is compared with what the
/// door, which does not, has found, before anything is changed.
template <class Source>
result<void> board_page::map(const Source& source,
                             const std::optional<file_identity>& expected) {
  const int descriptor = source.get_mapping_handle().handle;
  struct stat status {};
  if (::fstat(descriptor, &status) != 0 || !is_private(status)
      || (expected && *expected != file_identity{status.st_dev, status.st_ino}))
    return refused(errc::permission_denied,
                   "it must be a file of the user's own, mode 0600, with one "
                   "name; remove it");
  if (status.st_size > static_cast<off_t>(sizeof(board_memory))
      || kind_of(read_head(descriptor), expected_head_)
             == head_kind::of_another_layout)
    return refused(errc::unsupported_format,
                   "it has another layout; remove it when no program uses it");
  if (!has_all_blocks(status) && !allocate(descriptor, status.st_size))
    return refused(errc::no_space, "it cannot get its size");
  region_ = std::make_unique<interprocess::mapped_region>(
      source, interprocess::read_write, 0, sizeof(board_memory));
  memory_ = static_cast<board_memory*>(region_->get_address());
  // A board that was cut is not whole again because it has its size again.
  if (status.st_size < static_cast<off_t>(sizeof(board_memory)))
    memory_->head.front().store(0, std::memory_order_relaxed);
  return {};
}

bool board_page::has_expected_head() const {
  const auto expected = std::bit_cast<head_bits>(expected_head_);
  return std::equal(expected.begin(), expected.end(), memory().head.begin(),
                    [](std::uint64_t bits, const auto& word) {
                      return word.load(std::memory_order_relaxed) == bits;
                    });
}

/// The magic goes first and comes last: who is killed in between leaves a
/// board that is emptied again. Who still has it mapped finds that its slot is
/// of no store. Names stay: they mean nothing in a slot that is free.
void board_page::reset() {
  const auto bits = std::bit_cast<head_bits>(expected_head_);
  auto& head = memory().head;
  head.front().store(0, std::memory_order_seq_cst);
  for (auto& slot : memory().slots) {
    take(slot, 0);
    slot.name_hash.store(0, std::memory_order_relaxed);
  }
  for (std::size_t i = 1; i < bits.size(); ++i)
    head[i].store(bits[i], std::memory_order_relaxed);
  head.front().store(bits.front(), std::memory_order_release);
  wake(memory().announcements);
}

/// Of no store first: what is cleared next must not be missed by the old one.
void board_page::take(board_slot& slot, std::uint64_t store_word) {
  slot.store_word.store(0, std::memory_order_seq_cst);
  for (auto* word : {&slot.durable, &slot.poisoned, &slot.base_epoch,
                     &slot.writer_pid, &slot.announcement_count})
    word->store(0, std::memory_order_release);
  slot.store_word.store(store_word, std::memory_order_release);
}

result<board_slot*> board_page::claim(const store_address& address) {
  const auto name = encoded_name(address);
  if (!name)
    return refused(errc::too_large, "the store's name is too long");
  CALLBOARD_TRY_ASSIGN(const auto held, lock());
  if (held.identity != identity_ || !has_expected_head()) {
    is_current_.store(false, std::memory_order_relaxed);
    return refused(errc::conflict, "it was replaced");
  }
  const auto hash = hash_of(*name);
  const auto store_word = board_store_keys(address.id).store_word;
  for (std::size_t step = 0; step < board_slot_count; ++step) {
    const auto index = (hash + step) % board_slot_count;
    auto& slot = memory().slots[index];
    auto& words = memory().names[index];
    const auto taken_by = slot.name_hash.load(std::memory_order_acquire);
    const bool is_free = taken_by == 0;
    if (!is_free && (taken_by != hash || !is_name(words, *name)))
      continue;
    if (is_free)
      for (std::size_t i = 0; i < name->size(); ++i)
        words[i].store((*name)[i], std::memory_order_relaxed);
    if (is_free
        || slot.store_word.load(std::memory_order_relaxed) != store_word)
      take(slot, store_word);
    slot.name_hash.store(hash, std::memory_order_release);
    return &slot;
  }
  return refused(errc::busy, "all of its slots are taken");
}

void board_page::look_again() {
  const auto home = door_.open_directory(working_directory_, false);
  const auto named = home ? (*home)->status(board_file_name)
                          : result<file_status>(home.error());
  is_current_.store(named && named->identity == identity_,
                    std::memory_order_relaxed);
}

} // namespace callboard
