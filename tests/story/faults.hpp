#pragma once

#include "simulation/machine.hpp"
#include "simulation/random_source.hpp"
#include "simulation/simulated_embedder.hpp"
#include "tests/story/story.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>

/// What goes wrong.
namespace callboard::test {

/// What a seed decides about its story. A draw of 0 is the calm choice.
struct plot {
  explicit plot(simulation::random_source& random);

  /// About every so many operations; 0: never.
  std::uint64_t io_fault_rate = 0;
  std::uint64_t kill_rate = 0;
  std::uint64_t power_rate = 0;
  /// About every so many batches.
  std::uint64_t embedding_fault_rate = 0;
  /// The model, and users who give records without a text.
  bool may_reject_texts = false;
  /// Processes may not hear of commits: boards cannot be opened, are removed
  /// and damaged.
  bool is_board_lossy = false;
  /// Some processes have no board.
  bool has_deaf_processes = false;
  bool has_automatic_checkpoints = false;
  /// Another program writes pairs as LightRAG does.
  bool has_foreign_program = false;
  /// At the end, a file is damaged while nobody has the store open.
  bool has_damage = false;
  std::size_t stores = 1;
  std::size_t processes = 2;
  std::size_t turns = 0;
  std::size_t top_k = 5;
  std::uint64_t patience = 0;
  /// Uncommitted changes that a handle holds at most.
  std::size_t pending_max = 0;

  bool is_calm() const {
    return io_fault_rate == 0 && kill_rate == 0 && power_rate == 0;
  }
};

/// Decides for each operation and each batch of texts whether it fails.
class fault_maker {
public:
  fault_maker(const plot& chosen, const simulation::machine& computer,
              simulation::random_source& random, story_totals& totals)
      : plot_(chosen), computer_(computer), random_(random), totals_(totals) {}

  simulation::fault fault_for(const simulation::operation& what);
  simulation::embedding_fault embedding_fault_now();

  /// From now on nothing fails.
  void end() { are_over_ = true; }
  bool are_over() const { return are_over_; }

  /// The operations of this process never fail.
  void spare(std::uint64_t process) { spared_.insert(process); }

  /// Whether the power may fail now, by a test's choice.
  bool may_lose_power(std::uint64_t operation_count) const;
  simulation::loss_model lose_power();
  /// Whether the power has failed since the last call.
  bool take_power_loss();

  /// Whether somebody may not have heard of a commit yet.
  bool may_be_deaf() const;
  /// Whether commits can be told from each other by their rows: not if parts
  /// of them are rejected, or lost to a drop that a process has not heard of.
  bool keeps_commits_whole() const;

private:
  bool once_in(std::uint64_t rate) { return rate > 0 && random_.one_in(rate); }
  simulation::fault death();
  simulation::fault io_fault(const simulation::operation& what);
  simulation::fault count(simulation::fault out);

  const plot& plot_;
  const simulation::machine& computer_;
  simulation::random_source& random_;
  story_totals& totals_;
  std::set<std::uint64_t> spared_;
  bool are_over_ = false;
  bool power_failed_ = false;
  /// No process dies before this operation.
  std::uint64_t safe_until_ = 0;
};

} // namespace callboard::test
