#pragma once

#include "core/io.hpp"
#include "core/notice_board.hpp"
#include "core/store.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

namespace callboard {

/// Knows which stores of a runtime have moved on, and asks their actors to
/// look. Has no thread: see `board_thread`.
///
/// Costs: a look is a few atomic loads for each store that somebody waits for
///        and nothing for the others; a look at the files takes two `stat`
///        calls for each store.
/// Threads: `look` on one thread at a time; the rest is thread-safe.
class board_watcher {
  struct store_entry;

public:
  /// A store's place here, from `add` until it is destroyed; the watcher must
  /// outlive it.
  /// Threads: belongs to the store's actor.
  class registration {
  public:
    registration(board_watcher& owner, std::uint64_t number,
                 std::shared_ptr<store_entry> entry);
    registration(const registration&) = delete;
    registration& operator=(const registration&) = delete;
    ~registration();

    /// Where the handle is, and whether somebody waits for it to move on. Who
    /// then finds that the store has not moved on is woken when it does.
    void update(const std::shared_ptr<const change_probe>& probe,
                std::uint64_t generation, bool is_awaited);

    /// To be called first when the actor does what it was asked for: until
    /// then it is not asked again.
    void begin_look();

  private:
    board_watcher& owner_;
    std::uint64_t number_;
    std::shared_ptr<store_entry> entry_;
    std::shared_ptr<const change_probe> probe_;
    bool is_awaited_ = false;
  };

  board_watcher();
  board_watcher(const board_watcher&) = delete;
  board_watcher& operator=(const board_watcher&) = delete;
  ~board_watcher();

  /// `ask_to_look` may be called on any thread, also a little after the
  /// registration has ended. It must not block.
  std::unique_ptr<registration> add(std::function<void()> ask_to_look);

  /// Asks the actors of those stores to look that somebody waits for and that
  /// have moved on; with `at_files`, also of those, awaited or not, whose
  /// files have changed.
  void look(bool at_files);

private:
  using entries = std::map<std::uint64_t, std::shared_ptr<store_entry>>;

  void look_at_board();
  void look_at_files();
  void set_awaited(std::uint64_t number,
                   const std::shared_ptr<store_entry>& entry, bool is_awaited);
  void remove(std::uint64_t number);

  std::mutex mutex_;
  entries all_;
  entries awaited_;
  std::uint64_t next_number_ = 0;
};

/// How long the commit of a process that cannot announce stays unknown to
/// those who wait, about.
inline constexpr auto file_look_interval = std::chrono::milliseconds(500);

/// Waits for announcements and has the watcher look: after each, and at the
/// files once in `file_look_interval`.
///
/// Ownership: borrows all of them. The destructor ends the thread at once.
class board_thread {
public:
  board_thread(io& door, notice_board& board, board_watcher& watcher);
  board_thread(const board_thread&) = delete;
  board_thread& operator=(const board_thread&) = delete;
  ~board_thread();

private:
  void run();

  io& door_;
  notice_board& board_;
  board_watcher& watcher_;
  std::atomic<bool> is_stopped_ = false;
  std::thread thread_;
};

} // namespace callboard
