#include "actors/board_watcher.hpp"

#include <utility>
#include <vector>

namespace callboard {

struct board_watcher::store_entry {
  explicit store_entry(std::function<void()> ask)
      : ask_to_look(std::move(ask)) {}

  bool has_changed() {
    std::lock_guard lock(mutex);
    return probe && probe->changed(generation.load(std::memory_order_relaxed));
  }

  bool have_files_changed() {
    std::unique_lock lock(mutex);
    auto current = probe;
    lock.unlock();
    return current && current->look_at_files();
  }

  void ask() {
    // Pairs with `begin_look`: if the actor has not begun yet, it will see
    // what was seen here.
    if (!is_asked.exchange(true, std::memory_order_acq_rel))
      ask_to_look();
  }

  const std::function<void()> ask_to_look;
  std::atomic<std::uint64_t> generation = 0;
  std::atomic<bool> is_asked = false;
  std::mutex mutex;
  std::shared_ptr<const change_probe> probe;
};

// -- registration -------------------------------------------------------------

board_watcher::registration::registration(board_watcher& owner,
                                          std::uint64_t number,
                                          std::shared_ptr<store_entry> entry)
    : owner_(owner), number_(number), entry_(std::move(entry)) {}

board_watcher::registration::~registration() {
  owner_.remove(number_);
}

void board_watcher::registration::update(
    const std::shared_ptr<const change_probe>& probe, std::uint64_t generation,
    bool is_awaited) {
  entry_->generation.store(generation, std::memory_order_relaxed);
  if (probe != probe_) {
    probe_ = probe;
    std::lock_guard lock(entry_->mutex);
    entry_->probe = probe;
  }
  if (is_awaited != is_awaited_) {
    is_awaited_ = is_awaited;
    owner_.set_awaited(number_, entry_, is_awaited);
  }
}

void board_watcher::registration::begin_look() {
  entry_->is_asked.exchange(false, std::memory_order_acq_rel);
}

// -- watcher ------------------------------------------------------------------

board_watcher::board_watcher() = default;
board_watcher::~board_watcher() = default;

std::unique_ptr<board_watcher::registration>
board_watcher::add(std::function<void()> ask_to_look) {
  auto entry = std::make_shared<store_entry>(std::move(ask_to_look));
  std::lock_guard lock(mutex_);
  auto number = next_number_++;
  auto out = std::make_unique<registration>(*this, number, entry);
  all_.emplace(number, std::move(entry));
  return out;
}

void board_watcher::set_awaited(std::uint64_t number,
                                const std::shared_ptr<store_entry>& entry,
                                bool is_awaited) {
  std::lock_guard lock(mutex_);
  if (is_awaited)
    awaited_.emplace(number, entry);
  else
    awaited_.erase(number);
}

void board_watcher::remove(std::uint64_t number) {
  std::lock_guard lock(mutex_);
  awaited_.erase(number);
  all_.erase(number);
}

void board_watcher::look(bool at_files) {
  look_at_board();
  if (at_files)
    look_at_files();
}

void board_watcher::look_at_board() {
  std::vector<std::shared_ptr<store_entry>> changed;
  std::unique_lock lock(mutex_);
  for (const auto& [number, each] : awaited_)
    if (each->has_changed())
      changed.push_back(each);
  lock.unlock();
  for (const auto& each : changed)
    each->ask();
}

void board_watcher::look_at_files() {
  std::vector<std::shared_ptr<store_entry>> all;
  std::unique_lock lock(mutex_);
  all.reserve(all_.size());
  for (const auto& [number, each] : all_)
    all.push_back(each);
  lock.unlock();
  for (const auto& each : all)
    if (each->have_files_changed())
      each->ask();
}

// -- thread -------------------------------------------------------------------

board_thread::board_thread(io& door, notice_board& board,
                           board_watcher& watcher)
    : door_(door),
      board_(board),
      watcher_(watcher),
      thread_([this] { run(); }) {}

board_thread::~board_thread() {
  is_stopped_.store(true);
  board_.interrupt();
  thread_.join();
}

void board_thread::run() {
  using std::chrono::milliseconds;
  auto files_due = door_.steady_clock() + file_look_interval;
  while (!is_stopped_.load()) {
    // Before the look: what is announced during it ends the wait.
    auto seen = board_.announcements();
    auto now = door_.steady_clock();
    auto at_files = now >= files_due;
    if (at_files)
      files_due = now + file_look_interval;
    watcher_.look(at_files);
    board_.wait(seen, std::chrono::ceil<milliseconds>(files_due - now));
  }
}

} // namespace callboard
