#include "ipc/board_page.hpp"

#include "core/bytes.hpp"

#include <algorithm>
#include <bit>
#include <optional>
#include <utility>

namespace callboard {

namespace {

/// Who holds the lock is at work for milliseconds, or stopped.
constexpr auto lock_timeout = std::chrono::milliseconds(1000);
/// How often the file may be replaced while we wait for its lock.
constexpr int lock_attempts = 4;
constexpr std::uint32_t others = 077;

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

bool is_private(const found_memory& found) {
  const auto& status = found.status;
  return status.is_regular && found.is_own && (status.mode & others) == 0
         && status.link_count == 1;
}

/// Whether there is nothing to clear: what was never used needs no page.
bool is_blank(const board_slot& slot) {
  for (const auto* word :
       {&slot.name_hash, &slot.store_word, &slot.durable, &slot.poisoned,
        &slot.base_epoch, &slot.writer_pid, &slot.announcement_count})
    if (word->load(std::memory_order_relaxed) != 0)
      return false;
  return true;
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

std::string board_page::path() const {
  return working_directory_ + '/' + std::string(board_file_name);
}

failure board_page::refused(errc code, std::string_view why) const {
  return {code,
          "cannot share the board \"" + path() + "\": " + std::string(why)};
}

result<std::shared_ptr<board_page>>
board_page::open(io& door, board_memory_source& source, board_backing backing,
                 std::string working_directory) {
  const auto boot_id = door.boot_id();
  std::shared_ptr<board_page> page(
      new board_page(door, std::move(working_directory), head_for(boot_id)));
  if (boot_id.empty())
    return page->refused(errc::io_failure, "the boot id is unknown");
  CALLBOARD_TRY_ASSIGN(const auto held, page->lock());
  page->identity_ = held.identity;
  CALLBOARD_TRY(page->map(source, backing));
  if (!page->has_expected_head())
    page->reset();
  return page;
}

result<void> board_page::map(board_memory_source& source,
                             board_backing backing) {
  auto opened = source.open(path(), identity_, backing);
  if (!opened)
    return refused(opened.error().code, opened.error().message);
  const auto& found = (*opened)->found();
  CALLBOARD_TRY(examine(found, backing));
  const auto mapped = (*opened)->map(sizeof(board_memory));
  if (!mapped)
    return refused(mapped.error().code, mapped.error().message);
  area_ = std::move(*opened);
  memory_ = static_cast<board_memory*>(*mapped);
  // A board that was cut is not whole again because it has its size again.
  if (found.status.size_bytes < sizeof(board_memory))
    memory_->head.front().store(0, std::memory_order_relaxed);
  return {};
}

/// A source follows symbolic links: what it opened is compared with what the
/// door, which does not, has found, before anything is changed.
result<void> board_page::examine(const found_memory& found,
                                 board_backing backing) const {
  const auto& status = found.status;
  if (!is_private(found)
      || (backing == board_backing::file && status.identity != identity_))
    return refused(errc::permission_denied,
                   "it must be a file of the user's own, mode 0600, with one "
                   "name; remove it");
  if (status.size_bytes > sizeof(board_memory)
      || kind_of(std::bit_cast<board_head>(found.head), expected_head_)
             == head_kind::of_another_layout)
    return refused(errc::unsupported_format,
                   "it has another layout; remove it when no program uses it");
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
    if (is_blank(slot))
      continue;
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
