#pragma once

#include "core/io.hpp"
#include "core/notice_board.hpp"
#include "core/result.hpp"
#include "ipc/board_memory_source.hpp"
#include "ipc/process_board.hpp"

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace callboard {

/// A board that tells other processes, for any number of working directories.
///
/// Each working directory has one board for all its stores: 2 MiB of shared
/// memory, by default the file `callboard.board` in it (mode 0600), with room
/// for 4096 stores. docs/design.md, "Board", has its format. It is transient:
/// it may be removed at any time, but must not be cut while it is in use, and
/// is emptied when the machine has restarted.
///
/// Where it cannot be shared (the directory may not be written, the disk is
/// full, the board is full, of another layout, or not the user's own),
/// `attach` returns those of a substitute, the `process_board`; the next one
/// tries again.
///
/// Notices no longer cover all processes when their slot has become that of
/// another store (one that was made anew under the same name), when the board
/// was emptied, or when its file is found removed or replaced. `wait` looks
/// for the latter every half second. Without their slot they go on as notices
/// of this process. To get new ones, attach again.
///
/// All programs that use a directory should use the same backing: those of the
/// other one find commits by the files only. So do other machines.
///
/// Ownership: borrows `door`, which must outlive it and its notices, and the
///            source and the substitute, which must outlive it. Notices may
///            outlive the board.
/// Threads:   thread-safe; but one thread at a time in `wait`. `attach` reads
///            and locks files: up to a second, if a stopped process has the
///            lock.
/// Forking:   a forked child must not use it.
class shared_board final : public notice_board {
public:
  explicit shared_board(io& door, board_backing backing = board_backing::file);
  /// With memory and a substitute of other kinds, for a simulated process.
  shared_board(io& door, board_backing backing, board_memory_source& source,
               local_board& substitute);
  ~shared_board() override;
  shared_board(const shared_board&) = delete;
  shared_board& operator=(const shared_board&) = delete;

  std::shared_ptr<store_notices> attach(const store_address& address) override;
  std::uint64_t announcements() const noexcept override;
  void wait(std::uint64_t seen, std::chrono::milliseconds timeout) override;
  void interrupt() noexcept override;

private:
  class implementation;
  std::unique_ptr<implementation> implementation_;
};

/// What a board says of one store, for people.
struct board_entry {
  std::string workspace;
  std::string namespace_name;
  std::uint64_t durable_sequence = 0;
  std::optional<std::uint64_t> poisoned_from;
  std::uint64_t base_epoch = 0;
  /// The process that announced last, as it calls itself.
  std::uint64_t writer_pid = 0;
  std::uint64_t announcements = 0;
};

/// Reads the board of `working_directory`, if it has one in a file; changes
/// nothing. The stores need not exist any more. Errors: as of
/// `directory::open_file`; `unsupported_format` if it is no board of this
/// layout.
result<std::vector<board_entry>>
read_board(io& door, const std::string& working_directory);

} // namespace callboard
