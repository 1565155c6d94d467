#pragma once

#include "core/io.hpp"
#include "core/notice_board.hpp"
#include "core/result.hpp"
#include "ipc/board_memory_source.hpp"
#include "ipc/wake_word.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

/// The board of one working directory, in memory that processes share.
///
///     offset      size  field
///          0         8  magic "CBBOARD1"
///          8         4  layout version = 1
///         12         4  number of slots = 4096
///         16         8  bytes of the board = 2101248
///         24        40  boot id: text, padded with zeros
///         64         4  wake word: one more with every announcement; a futex
///         68      4028  unused
///       4096   64 each  slots
///     266240  448 each  names, in the order of the slots
///
/// Slot; every field is an unsigned integer of 8 bytes:
///
///          0  hash of the name (checksum of its 448 bytes); 0: free
///          8  store word: checksum of the store's id; 0: of no store
///         16  durable: a sequence word; 0: none
///         24  poisoned: a sequence word; 0: none
///         32  newest base epoch    (this and the next two: for people only)
///         40  process that announced last
///         48  number of announcements
///         56  unused
///
/// Name:
///
///          0         2  bytes of the workspace
///          2         2  bytes of the namespace
///          4       444  the two, one after the other, padded with zeros
///
/// Sequence word: `sequence << 16 | check`; see `sequence_word`.
///
/// Bytes 0 to 63 keep their meaning in all versions of the layout.
///
/// All that changes are single lock-free atomics; there are no pointers, no
/// lengths that decide about memory, and no mutex: a process killed at any
/// instant leaves nothing locked or torn. Slots are claimed, and the board is
/// made and emptied, only under the lock of byte 0 of its file.
namespace callboard {

inline constexpr std::string_view board_file_name = "callboard.board";
inline constexpr std::uint64_t board_magic = 0x3144'5241'4f42'4243; // CBBOARD1
inline constexpr std::uint32_t board_layout_version = 1;
inline constexpr std::uint32_t board_slot_count = 4096;

/// What a slot holds. All zero: free.
struct board_slot {
  using word = std::atomic<std::uint64_t>;
  /// Stored last when a slot is claimed, and never taken back.
  word name_hash;
  word store_word;
  word durable;
  word poisoned;
  word base_epoch;
  word writer_pid;
  word announcement_count;
  word unused;
};
static_assert(board_slot::word::is_always_lock_free);
static_assert(sizeof(board_slot) == 64);

struct board_head {
  std::uint64_t magic = board_magic;
  std::uint32_t layout_version = board_layout_version;
  std::uint32_t slot_count = board_slot_count;
  std::uint64_t total_bytes = 0;
  std::array<char, 40> boot_id{};
  bool operator==(const board_head&) const = default;
};
static_assert(sizeof(board_head) == 64);

struct board_name {
  std::uint16_t workspace_bytes = 0;
  std::uint16_t namespace_bytes = 0;
  std::array<char, 444> text{};
};
static_assert(sizeof(board_name) == 448);

/// `board_head` and `board_name`, as the words in which they are shared.
using board_head_words = std::array<board_slot::word, sizeof(board_head) / 8>;
using board_name_words = std::array<board_slot::word, sizeof(board_name) / 8>;

struct board_memory {
  board_head_words head;
  alignas(64) wake_word announcements;
  alignas(4096) std::array<board_slot, board_slot_count> slots;
  std::array<board_name_words, board_slot_count> names;
};
static_assert(offsetof(board_memory, announcements) == 64);
static_assert(offsetof(board_memory, slots) == 4096);
static_assert(offsetof(board_memory, names) == 266240);
static_assert(sizeof(board_memory) == 2101248);

/// Sequences are kept with 48 bits: far more than any log can reach.
inline constexpr std::uint64_t board_sequence_max =
    (std::uint64_t{1} << 48) - 1;

/// `sequence` (beyond `board_sequence_max`: that) with a check of 16 bits that
/// depends on `key`, so that neither garbage nor another store's word passes.
std::uint64_t sequence_word(std::uint64_t sequence, std::uint64_t key) noexcept;

/// The sequence in `word`; 0 if it is none that was made with `key`.
std::uint64_t sequence_in(std::uint64_t word, std::uint64_t key) noexcept;

/// By what a store's words are told from those of others.
struct board_store_keys {
  explicit board_store_keys(const store_id& id) noexcept;
  std::uint64_t store_word;
  std::uint64_t check_key;
};

/// The mapped board of one working directory.
///
/// Ownership: borrows the `io`, and the source only to open. Slots live as long
///            as the page.
/// Threads:   thread-safe.
class board_page {
public:
  /// Maps the board of `working_directory`; makes it if it is missing, and
  /// empties it if it is damaged or of another boot. Fails, and changes
  /// nothing, if it is not the user's own, or of another layout.
  static result<std::shared_ptr<board_page>>
  open(io& door, board_memory_source& source, board_backing backing,
       std::string working_directory);

  board_page(const board_page&) = delete;
  board_page& operator=(const board_page&) = delete;

  /// The slot of a store: the one that has its name, or a free one. What an
  /// older store of that name left in it is cleared.
  result<board_slot*> claim(const store_address& address);

  wake_word& announcements() const noexcept { return memory().announcements; }

  /// Whether this is still the board that others find, as of the last look.
  bool is_current() const noexcept {
    return is_current_.load(std::memory_order_relaxed);
  }

  /// Looks whether the board's file is still the one of this page. If somebody
  /// has removed it, others have made a new one, and announce there.
  void look_again();

private:
  struct locked_file;

  board_page(io& door, std::string working_directory, board_head head);

  result<locked_file> lock() const;
  result<void> map(board_memory_source& source, board_backing backing);
  result<void> examine(const found_memory& found, board_backing backing) const;
  void reset();
  bool has_expected_head() const;
  void take(board_slot& slot, std::uint64_t store_word);
  std::string path() const;
  failure refused(errc code, std::string_view why) const;

  board_memory& memory() const noexcept { return *memory_; }

  io& door_;
  const std::string working_directory_;
  const board_head expected_head_;
  file_identity identity_;
  std::unique_ptr<board_area> area_;
  board_memory* memory_ = nullptr;
  std::atomic<bool> is_current_{true};
};

} // namespace callboard
