#pragma once

#include "core/result.hpp"
#include "simulation/board_content.hpp"
#include "simulation/disk.hpp"
#include "simulation/operation.hpp"
#include "simulation/random_source.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// What the doors of simulated processes share. Not for users of the kit.
namespace callboard::simulation {

using handle_number = std::uint64_t;

/// What a process has open.
struct open_handle {
  std::uint64_t process = 0;
  disk::inode_number inode = 0;
};

/// Open-file-description locks on single bytes.
class lock_table {
public:
  /// False if somebody else's lock is in the way. Changes the mode of a lock
  /// that `who` has already.
  bool acquire(handle_number who, disk::inode_number file, std::uint64_t byte,
               lock_mode mode);
  void release(handle_number who, disk::inode_number file, std::uint64_t byte);
  void release_all(handle_number who);
  void clear() { held_.clear(); }
  std::size_t count() const;

private:
  using place = std::pair<disk::inode_number, std::uint64_t>;
  std::map<place, std::map<handle_number, lock_mode>> held_;
};

struct machine_state {
  explicit machine_state(random_source source) : random(std::move(source)) {}

  disk files;
  /// Of files that somebody has mapped as a board: their content is here, and
  /// not in `files`.
  std::map<disk::inode_number, board_content> boards;
  std::shared_ptr<board_memory_pool> board_memories =
      std::make_shared<board_memory_pool>();
  std::uint64_t unshared_attachments = 0;
  lock_table locks;
  random_source random;
  std::chrono::nanoseconds steady{std::chrono::hours(1)};
  std::chrono::nanoseconds wall{std::chrono::seconds(1'700'000'000)};
  std::uint64_t boot = 1;
  file_system keeper = file_system::local;

  std::vector<std::weak_ptr<process_state>> processes;
  std::map<handle_number, open_handle> handles;
  std::uint64_t next_process = 1;
  handle_number next_handle = 1;

  std::function<void(const operation&)> yield;
  std::function<fault(const operation&)> policy;
  std::function<void(moment, const operation&)> observer;
  std::function<void(const operation&, const fault&)> fault_observer;

  std::uint64_t next_operation = 0;
  std::uint64_t event_hash = 0;
  /// How many lines are kept; 0: none.
  std::size_t trace_max = 0;
  std::deque<std::string> trace;

  std::int64_t wall_ns() const noexcept { return wall.count(); }
  void advance(std::chrono::nanoseconds duration) {
    steady += duration;
    wall += duration;
  }

  /// To be told of each new file or directory: the number may have been that of
  /// a board's file. Returns it.
  disk::inode_number made(disk::inode_number number) {
    boards.erase(number);
    return number;
  }

  /// The board in a file; from now on it has its whole size.
  board_content& board_at(disk::inode_number file);
  /// As of `files`, but for boards.
  file_status status_of(disk::inode_number file) const;
  std::size_t read(disk::inode_number file, std::uint64_t offset,
                   std::span<std::byte> into) const;
  std::errc write(disk::inode_number file, std::uint64_t offset,
                  std::span<const std::byte> data);
  void lose_power_of_boards();

  void kill(process_state& which);
  void lose_power(loss_model model);
  void close(handle_number number);

  /// Tells the hash and the trace.
  void record(const operation& what, std::optional<errc> outcome);
  void observe(moment when, const operation& what) {
    if (observer)
      observer(when, what);
  }
};

struct process_state {
  std::shared_ptr<machine_state> machine;
  std::uint64_t number = 0;
  bool is_alive = true;
  bool has_board = true;
};

/// "cannot append "/store/log-1": " and why.
failure described(errc code, const operation& what, std::string_view why);
failure dead(const operation& what);
failure injected(const operation& what, errc code);

/// One operation of a process: waits for its turn, asks what is to happen to
/// it, and lets it happen.
///
///   step now(self, what);
///   if (!now.may_go_on())
///     return now.refusal();
///   ... do it ...
///   return now.succeed(); // or: return now.fail(...)
class step {
public:
  step(process_state& self, operation& what);

  bool may_go_on() const noexcept { return !refusal_.has_value(); }
  failure refusal() { return std::move(*refusal_); }

  /// Only a part is to be done, then `finish_part`.
  bool is_partial() const noexcept;
  /// How much of `size` bytes is that part.
  std::size_t part_of(std::size_t size) const;
  failure finish_part();

  /// Whether somebody wants to see it half done.
  bool is_watched() const noexcept { return bool(machine_.observer); }
  void half_done() { machine_.observe(moment::half, what_); }

  /// It was done. Fails if the process dies right after it.
  result<void> succeed();
  failure fail(failure reason);

private:
  bool crashes(moment when) const noexcept;
  void crash();

  process_state& self_;
  machine_state& machine_;
  operation& what_;
  fault fault_;
  std::optional<failure> refusal_;
};

} // namespace callboard::simulation
