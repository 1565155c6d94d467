#pragma once

#include "core/notice_board.hpp"
#include "ipc/wake_word.hpp"

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>

namespace callboard {

/// A board in plain memory, which the handles of one process share. It tells
/// nothing of other processes (`covers_all_processes` is false), so that
/// readers look at the files, too.
///
/// Ownership: notices may outlive the board. Those of a store are kept as long
///            as the board once attached, because a poisoned log outlives its
///            handles; about 300 bytes per store.
/// Threads:   thread-safe; but one thread at a time in `wait`.
class local_board final : public notice_board {
public:
  local_board();
  ~local_board() override;
  local_board(const local_board&) = delete;
  local_board& operator=(const local_board&) = delete;

  std::shared_ptr<store_notices> attach(const store_address& address) override;
  std::uint64_t announcements() const noexcept override;
  void wait(std::uint64_t seen, std::chrono::milliseconds timeout) override;
  void interrupt() noexcept override { interruption_.raise(); }

  /// Grows by one with every announcement: for a board that waits for it
  /// beside its own.
  const wake_word& announcement_word() const noexcept { return *word_; }

private:
  class notices;
  using key = std::tuple<std::string, std::string, std::string, store_id>;

  const std::shared_ptr<wake_word> word_;
  interruption interruption_;
  std::mutex mutex_;
  // Protected by mutex_:
  std::map<key, std::shared_ptr<notices>> notices_;
};

/// The board that all handles of this process share. Lives as long as the
/// process.
local_board& process_board();

} // namespace callboard
