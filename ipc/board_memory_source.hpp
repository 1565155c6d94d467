#pragma once

#include "core/io.hpp"
#include "core/notice_board.hpp"
#include "core/result.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace callboard {

/// What is found where a board is to be; nothing of it was changed.
struct found_memory {
  file_status status;
  /// Whether it belongs to the user of this process.
  bool is_own = false;
  /// Its first bytes; all zero where it has fewer.
  std::array<std::byte, 64> head{};
};

/// Memory for a board: opened, and then mapped.
///
/// Ownership: the mapping ends with this object.
/// Threads:   not thread-safe, but what is mapped may be used by all.
class board_area {
public:
  virtual ~board_area() = default;

  /// As it was when it was opened.
  virtual const found_memory& found() const noexcept = 0;

  /// Gives it a size of `size_bytes`, which is not less than it has, and maps
  /// it, shared, for reading and writing; what is new is zero. The address is
  /// that of a page. Every byte has its place on the disk then: a full disk
  /// fails here with `no_space`, and never where the memory is used.
  virtual result<void*> map(std::uint64_t size_bytes) = 0;
};

/// Where boards get the memory that processes share. `mapped_memory()` is the
/// operating system's; a simulated machine puts its own behind it.
///
/// Failures say why, not what: who asked for a board says which.
/// Threads: thread-safe.
class board_memory_source {
public:
  virtual ~board_memory_source() = default;

  /// Opens the memory of the board whose file is at `path` and was found to be
  /// `identity`; a shared memory object is made if it is missing. It may be
  /// another file by now: compare what is found.
  virtual result<std::unique_ptr<board_area>>
  open(const std::string& path, const file_identity& identity,
       board_backing backing) = 0;

  /// How this process calls itself on boards, for people.
  virtual std::uint64_t process_number() const noexcept = 0;
};

/// Mapped files and shared memory objects. Lives as long as the process.
board_memory_source& mapped_memory();

} // namespace callboard
