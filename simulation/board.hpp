#pragma once

#include "core/io.hpp"
#include "core/notice_board.hpp"

#include <memory>

namespace callboard::simulation {

struct process_state;

/// The board of one simulated process: callboard's own, on the memory and the
/// locks of the simulated machine. What it does are operations of that
/// process: faults, crashes and other processes can come between.
///
/// Ownership: borrows `door`, which must outlive it and its notices.
std::unique_ptr<notice_board> make_board(std::shared_ptr<process_state> self,
                                         io& door);

} // namespace callboard::simulation
