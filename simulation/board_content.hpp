#pragma once

#include "ipc/board_page.hpp"
#include "simulation/random_source.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

/// What is in the memory of boards. Not for users of the kit.
namespace callboard::simulation {

/// Memory of the size of a board, all zero, used again and again: to get and
/// to clear it costs little, for of most boards a few slots are in use.
///
/// Ownership: memory keeps its pool.
/// Threads:   thread-safe.
class board_memory_pool
    : public std::enable_shared_from_this<board_memory_pool> {
public:
  board_memory_pool() = default;
  board_memory_pool(const board_memory_pool&) = delete;
  board_memory_pool& operator=(const board_memory_pool&) = delete;
  ~board_memory_pool();

  std::shared_ptr<board_memory> take();

private:
  void put_back(board_memory* memory);

  std::mutex mutex_;
  std::vector<board_memory*> free_; // protected by mutex_
};

/// The content of one board: it outlives processes, but not the power.
///
/// Copies: are independent, and as small as what is in use, until they are
///         mapped.
/// Threads: not thread-safe.
class board_content {
public:
  /// What a file has, and zeros behind it.
  explicit board_content(std::span<const std::byte> file);

  board_content(const board_content& other);
  board_content(board_content&&) noexcept = default;
  board_content& operator=(const board_content&) = delete;
  board_content& operator=(board_content&&) noexcept = default;

  /// The memory that all who map this board share.
  std::shared_ptr<board_memory> map(board_memory_pool& pool);

  /// Copies what there is at `offset`; returns how much.
  std::size_t read(std::uint64_t offset, std::span<std::byte> into) const;

  /// What is beyond the size of a board is left out.
  void write(std::uint64_t offset, std::span<const std::byte> data,
             board_memory_pool& pool);

  /// Nobody has it mapped any more: what is on the disk are zeros, the old
  /// words, or those with garbage among them.
  void lose_power(random_source& random);

private:
  /// A word that is not zero: its number, and what is in it.
  using used_word = std::pair<std::size_t, std::uint64_t>;
  using used_words = std::vector<used_word>;

  static used_words words_of(const board_memory& memory);

  /// Of before it was mapped.
  std::shared_ptr<const used_words> kept_;
  std::shared_ptr<board_memory> mapped_;
};

} // namespace callboard::simulation
