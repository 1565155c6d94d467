#pragma once

#include "core/result.hpp"
#include "simulation/disk.hpp"
#include "simulation/operation.hpp"
#include "simulation/random_source.hpp"
#include "simulation/shared_memory.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
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
  explicit machine_state(std::uint64_t seed) : random(seed) {}

  disk files;
  shared_memory memory;
  lock_table locks;
  random_source random;
  std::chrono::nanoseconds steady{std::chrono::hours(1)};
  std::chrono::nanoseconds wall{std::chrono::seconds(1'700'000'000)};
  std::uint64_t boot = 1;

  std::vector<std::weak_ptr<process_state>> processes;
  std::map<handle_number, open_handle> handles;
  std::uint64_t next_process = 1;
  handle_number next_handle = 1;

  std::function<void(const operation&)> yield;
  std::function<fault(const operation&)> policy;
  std::function<void(moment, const operation&)> observer;

  std::uint64_t next_operation = 0;
  std::uint64_t event_hash = 0;
  bool has_trace = false;
  std::vector<std::string> trace;

  std::int64_t wall_ns() const noexcept { return wall.count(); }
  void advance(std::chrono::nanoseconds duration) {
    steady += duration;
    wall += duration;
  }

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
  /// Of a process without the machine's board.
  shared_memory own_memory;
  bool is_interrupted = false;

  shared_memory& memory() { return has_board ? machine->memory : own_memory; }
};

failure dead(const operation& what);
failure injected(const operation& what, errc code);

/// One operation of a process: waits for its turn, asks what is to happen to
/// it, and lets it happen.
///
///   step now(self, what);
///   if (!now.may_go_on())
///     return now.refusal();
///   ... do it ...
///   now.succeed();   // or: return now.fail(...)
///   if (now.died()) ...
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
