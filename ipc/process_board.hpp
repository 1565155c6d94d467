#pragma once

#include "core/notice_board.hpp"

namespace callboard {

/// A board in plain memory, which the handles of this process share. It tells
/// nothing of other processes (`covers_all_processes` is false), so that
/// readers look at the files, too.
///
/// Ownership: lives as long as the process. Notices of a store are kept for
///            ever once attached, because a poisoned log outlives its handles;
///            about 100 bytes per store.
/// Threads:   thread-safe.
notice_board& process_board();

} // namespace callboard
