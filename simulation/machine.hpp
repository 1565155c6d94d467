#pragma once

#include "core/io.hpp"
#include "core/notice_board.hpp"
#include "simulation/disk.hpp"
#include "simulation/operation.hpp"
#include "simulation/random_source.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// A computer in memory, for tests of what a store does when processes die,
/// the power fails, or the disk does. The usual test:
///
///   simulation::machine computer(seed);
///   auto writer = computer.start_process();
///   auto handle = store::open(writer->door(), writer->board(), options);
///   ...
///   computer.lose_power(simulation::loss_model::weakest);
///   auto later = computer.start_process();
///   handle = store::open(later->door(), later->board(), options);
///
/// Everything follows from the seed and from what the processes do: two runs
/// of the same test are the same, operation by operation (`event_hash`).
namespace callboard::simulation {

struct machine_state;
struct process_state;

struct process_options {
  /// Whether it can share memory: then it has a `shared_board`, in files of the
  /// machine. Without, it has a board of its own, which does not cover other
  /// processes.
  bool has_board = true;
};

/// One process: the doors through which code under test sees the machine.
///
/// Ownership: the doors, and what was opened through them, must not be used
///            when this object is gone, but may be destroyed later. The
///            process ends with this object, as if it had been killed.
/// When dead: each call fails with `io_failure` and changes nothing.
class process {
public:
  explicit process(std::shared_ptr<process_state> state);
  process(const process&) = delete;
  process& operator=(const process&) = delete;
  ~process();

  io& door() noexcept { return *door_; }
  notice_board& board() noexcept { return *board_; }

  /// 1 for the machine's first process; never used again.
  std::uint64_t number() const noexcept;
  bool is_alive() const noexcept;

  /// Its locks are free, what it has open is closed.
  void kill();

private:
  std::shared_ptr<process_state> state_;
  std::unique_ptr<io> door_;
  std::unique_ptr<notice_board> board_;
};

/// One computer.
///
/// Files:   `disk` says what a file system it has. A mapping shows the file as
///          it was when it was mapped.
/// Clocks:  stand still, but for `advance`, `io::pause`, and waiting.
/// Waiting: for a lock or a board, without `on_yield`, moves the clock to the
///          end of the wait, and fails if it was in vain.
/// Threads: not thread-safe: all processes run on one thread.
class machine {
public:
  explicit machine(std::uint64_t seed);
  /// From `random` follow what its power losses leave, how much of a half
  /// write is done, and `io::random_bits`. If it is calm, power losses leave
  /// what was synced and nothing else, and half a write is nothing.
  explicit machine(random_source random);
  ~machine();
  machine(machine&&) noexcept;
  machine& operator=(machine&&) noexcept;

  /// This machine as it were if all processes died now; without hooks.
  /// Random numbers of the copy follow from `seed`. Cheap: content is shared.
  machine clone(std::uint64_t seed) const;

  std::unique_ptr<process> start_process(process_options options = {});

  /// All processes die. If `model` is not `kill`, the machine starts again:
  /// with another boot id, and the files that are left; what is in those of
  /// boards are zeros, old words or garbage.
  void lose_power(loss_model model);

  /// What `io::steady_clock` shows to all processes.
  std::chrono::nanoseconds steady_clock() const noexcept;
  void advance(std::chrono::nanoseconds duration);
  void set_wall_clock(std::int64_t seconds);
  /// What the disk is taken for; local at first.
  void set_file_system(file_system keeper);

  // -- Hooks: an empty one does nothing ---------------------------------------
  // They may start, use and kill processes, but must not throw. No hook gets
  // `operation_kind::close`, which destructors do: it cannot fail, and nothing
  // happens within it.

  /// Called before each operation, and again and again while it waits. May let
  /// other processes work.
  void on_yield(std::function<void(const operation&)> hook);

  /// Called before each operation: what is to happen to it.
  void on_fault(std::function<fault(const operation&)> policy);

  /// Called for each fault that the policy has chosen, before it happens.
  void
  on_injected(std::function<void(const operation&, const fault&)> observer);

  /// Called at each moment of each operation that is done; see `clone`.
  void on_moment(std::function<void(moment, const operation&)> observer);

  // -- What happened ----------------------------------------------------------

  /// How many operations were begun.
  std::uint64_t operation_count() const noexcept;
  /// All operations and their outcomes so far, as one number.
  std::uint64_t event_hash() const noexcept;
  /// From now on the last `count` lines of the trace are kept (a line for each
  /// operation and its outcome).
  void keep_trace(std::size_t count);
  const std::deque<std::string>& trace() const noexcept;

  /// How many locks are held.
  std::size_t lock_count() const noexcept;
  /// How often, since the machine started or all processes died, a process has
  /// attached to a store without sharing its board: others do not hear of it.
  std::uint64_t unshared_attachments() const noexcept;
  /// How many operations a power cut could take back.
  std::size_t unsynced_count() const;
  /// All files, as one number.
  std::uint64_t disk_fingerprint() const;

  // -- Files, past all processes and faults -----------------------------------

  std::optional<std::string> read_file(std::string_view path) const;
  std::optional<file_status> status(std::string_view path) const;
  /// Durable at once, as a new file that replaces the old one. Throws
  /// `std::invalid_argument`, and changes nothing, if the directory does not
  /// exist, `path` does not end with a name or is a directory, or `content` is
  /// larger than `disk::file_bytes_max`.
  void write_file(std::string_view path, std::string_view content);
  /// Durable at once. Nothing happens if there is no such file.
  void remove_file(std::string_view path);
  /// Empty if there is no such directory.
  std::vector<std::string> list(std::string_view path) const;

private:
  explicit machine(std::shared_ptr<machine_state> state);

  std::shared_ptr<machine_state> state_;
};

} // namespace callboard::simulation
