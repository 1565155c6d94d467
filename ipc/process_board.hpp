#pragma once

#include "core/notice_board.hpp"

#include <atomic>
#include <cstdint>

namespace callboard {

/// A board in plain memory, which the handles of this process share. It tells
/// nothing of other processes (`covers_all_processes` is false), so that
/// readers look at the files, too.
///
/// Ownership: lives as long as the process. Notices of a store are kept for
///            ever once attached, because a poisoned log outlives its handles;
///            about 300 bytes per store.
/// Threads:   thread-safe.
notice_board& process_board();

/// A futex that grows with every announcement on `process_board`: for a board
/// that waits for it beside its own. Lives as long as the process.
const std::atomic<std::uint32_t>& process_board_word() noexcept;

} // namespace callboard
