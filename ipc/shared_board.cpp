#include "ipc/shared_board.hpp"

#include "core/bytes.hpp"
#include "ipc/board_page.hpp"
#include "ipc/wake_word.hpp"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <map>
#include <mutex>
#include <span>
#include <string_view>
#include <tuple>
#include <utility>

namespace callboard {

namespace {

/// How often `wait` looks whether boards were replaced.
constexpr auto look_interval = std::chrono::milliseconds(500);

// -- The notices of one store -------------------------------------------------

/// Once the board was emptied or the slot has gone to another store, these are
/// the notices of this process.
class slot_notices final : public store_notices {
public:
  slot_notices(std::shared_ptr<board_page> page, board_slot& slot,
               const store_id& id, std::uint64_t process,
               std::shared_ptr<store_notices> substitute)
      : page_(std::move(page)),
        slot_(slot),
        keys_(id),
        process_(process),
        substitute_(std::move(substitute)) {}

  std::uint64_t durable_sequence() const noexcept override {
    // Pairs with the release in `raise`.
    const auto word = slot_.durable.load(std::memory_order_acquire);
    return is_ours() ? sequence_in(word, keys_.check_key)
                     : substitute_->durable_sequence();
  }

  void announce(std::uint64_t sequence) noexcept override;
  std::optional<std::uint64_t> poisoned_from() const noexcept override;
  void poison(std::uint64_t sequence) noexcept override;

  void clear_poison() noexcept override {
    substitute_->clear_poison();
    if (is_ours())
      slot_.poisoned.store(0, std::memory_order_release);
  }

  void note_base_epoch(std::uint64_t epoch) noexcept override {
    if (is_ours())
      slot_.base_epoch.store(epoch, std::memory_order_relaxed);
  }

  bool covers_all_processes() const noexcept override {
    return page_->is_current() && is_ours();
  }

private:
  bool is_ours() const noexcept {
    return slot_.store_word.load(std::memory_order_relaxed) == keys_.store_word;
  }

  bool raise(std::uint64_t sequence) noexcept;

  const std::shared_ptr<board_page> page_;
  board_slot& slot_;
  const board_store_keys keys_;
  const std::uint64_t process_;
  const std::shared_ptr<store_notices> substitute_;
};

/// Whether it was lower. What is not of this store is overwritten; if the slot
/// goes to another store at this very instant, its word is lost, and its
/// readers learn of that commit by its files.
bool slot_notices::raise(std::uint64_t sequence) noexcept {
  const auto next = sequence_word(sequence, keys_.check_key);
  auto known = slot_.durable.load(std::memory_order_relaxed);
  while (sequence_in(known, keys_.check_key)
         < sequence_in(next, keys_.check_key)) {
    if (slot_.durable.compare_exchange_weak(
            known, next, std::memory_order_release, std::memory_order_relaxed))
      return true;
  }
  return false;
}

/// Killed after `raise` it has told who looks; waiters look every half second.
void slot_notices::announce(std::uint64_t sequence) noexcept {
  if (!is_ours()) {
    substitute_->announce(sequence);
  } else if (raise(sequence)) {
    slot_.writer_pid.store(process_, std::memory_order_relaxed);
    slot_.announcement_count.fetch_add(1, std::memory_order_relaxed);
  } else {
    return;
  }
  wake(page_->announcements());
}

std::optional<std::uint64_t> slot_notices::poisoned_from() const noexcept {
  const auto word = slot_.poisoned.load(std::memory_order_acquire);
  if (!is_ours())
    return substitute_->poisoned_from();
  const auto sequence = sequence_in(word, keys_.check_key);
  return sequence == 0 ? std::nullopt : std::optional(sequence);
}

/// Of several failures the one that condemns most counts.
void slot_notices::poison(std::uint64_t sequence) noexcept {
  if (!is_ours())
    return substitute_->poison(sequence);
  // Nothing has sequence 0, and the word for it says: none.
  const auto next =
      sequence_word(std::max<std::uint64_t>(sequence, 1), keys_.check_key);
  auto known = slot_.poisoned.load(std::memory_order_relaxed);
  for (;;) {
    const auto worst = sequence_in(known, keys_.check_key);
    if (worst != 0 && worst <= sequence)
      return;
    if (slot_.poisoned.compare_exchange_weak(
            known, next, std::memory_order_release, std::memory_order_relaxed))
      return;
  }
}

} // namespace

// -- The board ----------------------------------------------------------------

class shared_board::implementation {
public:
  implementation(io& door, board_backing backing, board_memory_source& source,
                 local_board& substitute)
      : door_(door),
        backing_(backing),
        source_(source),
        substitute_(substitute),
        looked_(door.steady_clock()) {}

  std::shared_ptr<store_notices> attach(const store_address& address);
  std::uint64_t announcements() const;
  void wait(std::uint64_t seen, std::chrono::milliseconds timeout);
  void interrupt() noexcept { interruption_.raise(); }

private:
  /// A page, and what its wake word was when it was mapped.
  struct watched_page {
    std::shared_ptr<board_page> page;
    std::uint32_t first = 0;

    std::uint32_t announcements() const noexcept {
      return page->announcements().load(std::memory_order_acquire) - first;
    }
  };
  using key = std::tuple<std::string, std::string, std::string, store_id>;

  std::shared_ptr<store_notices> try_attach(const store_address& address);
  std::shared_ptr<board_page> page_of(const std::string& working_directory);
  void forget_unused();
  void forget(std::map<std::string, watched_page>::iterator each);
  void look_again();

  io& door_;
  const board_backing backing_;
  board_memory_source& source_;
  local_board& substitute_;
  interruption interruption_;
  /// When `wait` last looked whether boards were replaced.
  std::chrono::nanoseconds looked_;

  /// Held while a store is attached: reads and locks files.
  std::mutex attach_mutex_;
  // Protected by attach_mutex_:
  std::map<key, std::weak_ptr<slot_notices>> notices_;

  /// Never held while files are touched, or while anybody sleeps.
  mutable std::mutex mutex_;
  // Protected by mutex_:
  std::map<std::string, watched_page> pages_;
  /// Announcements of pages that are no longer watched, and one for each page
  /// that came or went.
  std::uint64_t settled_ = 0;
};

std::shared_ptr<store_notices>
shared_board::implementation::attach(const store_address& address) {
  const std::lock_guard attaching(attach_mutex_);
  auto notices = try_attach(address);
  return notices ? notices : substitute_.attach(address);
}

/// Null where the board cannot be shared.
std::shared_ptr<store_notices>
shared_board::implementation::try_attach(const store_address& address) {
  const key wanted{address.working_directory, address.workspace,
                   address.namespace_name, address.id};
  if (const auto found = notices_.find(wanted); found != notices_.end()) {
    auto known = found->second.lock();
    if (known && known->covers_all_processes())
      return known;
  }
  forget_unused();
  // Twice: the board that is mapped may turn out to be replaced.
  for (int attempt = 0; attempt < 2; ++attempt) {
    const auto page = page_of(address.working_directory);
    if (!page)
      return nullptr;
    if (const auto slot = page->claim(address)) {
      auto made = std::make_shared<slot_notices>(page, **slot, address.id,
                                                 source_.process_number(),
                                                 substitute_.attach(address));
      notices_[wanted] = made;
      return made;
    }
    if (page->is_current())
      return nullptr;
  }
  return nullptr;
}

std::shared_ptr<board_page>
shared_board::implementation::page_of(const std::string& working_directory) {
  {
    const std::lock_guard guard(mutex_);
    const auto found = pages_.find(working_directory);
    if (found != pages_.end() && found->second.page->is_current())
      return found->second.page;
  }
  auto opened = board_page::open(door_, source_, backing_, working_directory);
  if (!opened)
    return nullptr;
  const std::lock_guard guard(mutex_);
  if (const auto old = pages_.find(working_directory); old != pages_.end())
    forget(old);
  const auto first = (*opened)->announcements().load(std::memory_order_acquire);
  pages_.emplace(working_directory, watched_page{*opened, first});
  ++settled_;
  interruption_.raise(); // who sleeps does not watch this page yet
  return *opened;
}

/// Requires: `mutex_` is held.
void shared_board::implementation::forget(
    std::map<std::string, watched_page>::iterator each) {
  settled_ += each->second.announcements() + std::uint64_t{1};
  pages_.erase(each);
}

/// Unmaps the boards of directories of which no store is open any more.
void shared_board::implementation::forget_unused() {
  std::erase_if(notices_,
                [](const auto& each) { return each.second.expired(); });
  const std::lock_guard guard(mutex_);
  for (auto each = pages_.begin(); each != pages_.end();) {
    const auto next = std::next(each);
    if (each->second.page.use_count() == 1)
      forget(each);
    each = next;
  }
}

/// Modulo 2^32 exactly one more with every announcement.
std::uint64_t shared_board::implementation::announcements() const {
  std::uint64_t sum = substitute_.announcements();
  const std::lock_guard guard(mutex_);
  sum += settled_;
  for (const auto& [path, each] : pages_)
    sum += each.announcements();
  return sum;
}

void shared_board::implementation::wait(std::uint64_t seen,
                                        std::chrono::milliseconds timeout) {
  const auto& process_word = substitute_.announcement_word();
  const auto process_count = process_word.load(std::memory_order_acquire);
  std::vector<watched_word> words{interruption_.watched(),
                                  {&process_word, process_count}};
  std::uint64_t sum = process_count;
  // Not unmapped while we watch them.
  std::vector<std::shared_ptr<board_page>> kept;
  {
    const std::lock_guard guard(mutex_);
    sum += settled_;
    for (const auto& [path, each] : pages_) {
      const auto count = each.announcements();
      kept.push_back(each.page);
      words.push_back({&each.page->announcements(), count + each.first});
      sum += count;
    }
  }
  if (sum == seen)
    wait_for_change(words, timeout);
  interruption_.serve();
  look_again();
}

void shared_board::implementation::look_again() {
  const auto now = door_.steady_clock();
  if (now - looked_ < look_interval)
    return;
  looked_ = now;
  std::vector<std::shared_ptr<board_page>> pages;
  {
    const std::lock_guard guard(mutex_);
    for (const auto& [path, each] : pages_)
      pages.push_back(each.page);
  }
  for (const auto& each : pages)
    each->look_again();
}

shared_board::shared_board(io& door, board_backing backing)
    : shared_board(door, backing, mapped_memory(), process_board()) {}

shared_board::shared_board(io& door, board_backing backing,
                           board_memory_source& source, local_board& substitute)
    : implementation_(
        std::make_unique<implementation>(door, backing, source, substitute)) {}

shared_board::~shared_board() = default;

std::shared_ptr<store_notices>
shared_board::attach(const store_address& address) {
  return implementation_->attach(address);
}

std::uint64_t shared_board::announcements() const noexcept {
  return implementation_->announcements();
}

void shared_board::wait(std::uint64_t seen, std::chrono::milliseconds timeout) {
  implementation_->wait(seen, timeout);
}

void shared_board::interrupt() noexcept {
  implementation_->interrupt();
}

// -- For people ---------------------------------------------------------------

namespace {

std::optional<board_entry> entry_of(std::span<const std::byte> bytes,
                                    std::size_t index) {
  const auto slot =
      bytes.subspan(offsetof(board_memory, slots) + index * sizeof(board_slot),
                    sizeof(board_slot));
  const auto word = [slot](std::size_t offset) {
    return load<std::uint64_t>(slot, offset);
  };
  const auto name = load<board_name>(bytes, offsetof(board_memory, names)
                                                + index * sizeof(board_name));
  const std::string_view text(name.text.data(), name.text.size());
  if (word(offsetof(board_slot, name_hash)) == 0
      || name.workspace_bytes + std::size_t{name.namespace_bytes} > text.size())
    return std::nullopt;
  board_entry out;
  out.workspace = text.substr(0, name.workspace_bytes);
  out.namespace_name = text.substr(name.workspace_bytes, name.namespace_bytes);
  out.durable_sequence = word(offsetof(board_slot, durable)) >> 16;
  const auto poisoned = word(offsetof(board_slot, poisoned)) >> 16;
  if (poisoned != 0)
    out.poisoned_from = poisoned;
  out.base_epoch = word(offsetof(board_slot, base_epoch));
  out.writer_pid = word(offsetof(board_slot, writer_pid));
  out.announcements = word(offsetof(board_slot, announcement_count));
  return out;
}

} // namespace

result<std::vector<board_entry>>
read_board(io& door, const std::string& working_directory) {
  CALLBOARD_TRY_ASSIGN(const auto home,
                       door.open_directory(working_directory, false));
  CALLBOARD_TRY_ASSIGN(const auto opened,
                       home->open_file(board_file_name, open_mode::read));
  std::vector<std::byte> bytes(sizeof(board_memory));
  CALLBOARD_TRY_ASSIGN(const auto count, opened->read_at(0, bytes));
  const auto head = load<board_head>(bytes, 0);
  if (count != bytes.size() || head.magic != board_magic
      || head.layout_version != board_layout_version)
    return failure{errc::unsupported_format,
                   "cannot read the board \"" + working_directory + '/'
                       + std::string(board_file_name)
                       + "\": it has no board of this layout in it; it is made "
                         "anew when a store is opened"};
  std::vector<board_entry> entries;
  for (std::size_t i = 0; i < board_slot_count; ++i)
    if (auto entry = entry_of(bytes, i))
      entries.push_back(std::move(*entry));
  return entries;
}

} // namespace callboard
