#pragma once

#include "core/store.hpp"
#include "tests/torture/power_loss_io.hpp"
#include "tests/torture/power_loss_model.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>

/// The processes of the power-loss test, and what they share.
namespace callboard::test {

inline constexpr std::size_t writers = 2;
/// The writers, then one that checkpoints, then one that reads.
inline constexpr std::size_t workers = writers + 2;
inline constexpr std::size_t commits_max = std::size_t{1} << 15;

/// One writer's commits. Written by the writer, read when it is dead.
struct ledger {
  std::atomic<std::uint64_t> begun{0};
  std::atomic<std::uint64_t> acknowledged{0};
  /// Of the acknowledged ones.
  std::array<std::uint64_t, commits_max> generations{};
};

/// What the examining process found.
struct findings {
  bool complete = false;
  std::uint64_t generation = 0;
  row_versions rows{};
  row_versions published_before{};
  row_versions published_after{};
  /// It has made a checkpoint: the pair must show everything.
  bool checkpointed = false;
  std::array<char, 1024> problem{};
};

/// Lies in memory that all processes share, and that outlives the power.
struct shared_memory {
  std::atomic<bool> power_is_off{false};
  std::atomic<std::size_t> at_work{0};
  /// The newest generation that each worker has shown.
  std::array<std::atomic<std::uint64_t>, workers> shown{};
  std::array<ledger, writers> ledgers;
  findings found;

  bool power_is_on() const { return !power_is_off.load(); }
};

/// What one process does to the store, until the power is off. Each of its
/// three members answers the process's exit code: 0, or 1 if something failed
/// while the power was on (then it says what).
class worker {
public:
  /// `number`: below `workers`; its place in `shared`, which it borrows.
  worker(shared_memory& shared, syncing syncs, std::uint64_t boot,
         store_options where, std::uint64_t seed, std::size_t number);

  /// Commits the transactions from `first` on. For writers.
  int write(row_version first);
  int checkpoint();
  int read();

private:
  int run(const std::function<result<void>(store&)>& step);
  result<void> commit_next(store& target, row_version first);
  void show(const snapshot& view);
  void pause_up_to(std::uint64_t microseconds);
  int ended(const failure& reason) const;

  shared_memory& shared_;
  syncing syncs_;
  std::uint64_t boot_;
  store_options where_;
  std::uint64_t seed_;
  std::size_t number_;
  std::mt19937_64 random_;
};

/// After the power cut, in a fresh process: looks at everything.
result<void> examine(const store_options& where, std::uint64_t boot,
                     bool with_checkpoint, findings& out);

} // namespace callboard::test
