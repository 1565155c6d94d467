#pragma once

#include "core/notice_board.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <optional>

namespace callboard::simulation {

/// The words of a board: they outlive processes, but not the power.
/// Copies are independent. Not thread-safe.
struct shared_memory {
  struct store_words {
    std::uint64_t durable_sequence = 0;
    std::optional<std::uint64_t> poisoned_from;
    std::uint64_t base_epoch = 0;
  };

  std::map<store_id, store_words> stores;
  std::uint64_t announcements = 0;

  void announce(const store_id& id, std::uint64_t sequence);
  void poison(const store_id& id, std::uint64_t sequence);
};

struct process_state;

/// The board as one simulated process sees it. What it does are operations of
/// that process: faults, crashes and other processes can come between.
std::unique_ptr<notice_board> make_board(std::shared_ptr<process_state> self);

} // namespace callboard::simulation
