#pragma once

#include "simulation/machine.hpp"
#include "tests/support/store_fixture.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

/// What several processes do to one store on a simulated machine, and what may
/// be found in it at any moment: for tests of crashes and failing disks.
namespace callboard::test {

inline constexpr std::string_view simulated_place = "/store";

/// For stores on a simulated machine; as `options_for`.
store_options simulated_options();

std::string simulated_private_path(std::string_view name);

/// The published pair of a simulated machine; see `read_published`. Fails the
/// test if there is an index file without a meta file.
published_rows read_published(const simulation::machine& computer,
                              strictness how);

/// Replaces the published files by those of a LightRAG writer, durably.
enum class foreign_files : std::uint8_t { both, only_index };
void write_foreign_pair(simulation::machine& computer, const versions& rows,
                        foreign_files which);

/// What is known of a store from outside.
struct knowledge {
  /// What was acknowledged: it must be there.
  versions acknowledged;
  /// What may have happened already, instead.
  std::vector<versions> under_way;
  /// What failed: it must not be there, unless the power fails before the next
  /// acknowledged change.
  std::vector<versions> refused;
  /// What a LightRAG reader may see.
  std::vector<versions> published;
  /// A LightRAG writer has replaced only one of its two files.
  bool is_published_pair_torn = false;
  /// The highest that was acknowledged or shown to a reader.
  std::uint64_t generation = 0;

  bool allows(const versions& found, bool power_failed) const;
  bool allows_published(const versions& found) const;
};

/// What the script is at; the crash points of docs/design.md depend on it.
enum class phase : std::uint8_t { open, commit, checkpoint, drop, other };

class store_client;

struct script_options {
  /// Starts with a pair of LightRAG instead of with nothing.
  bool starts_with_foreign_pair = false;
  /// Whether the second process shares the board.
  bool is_second_on_board = true;
  /// Leaves out the slow parts: pairs that somebody else writes.
  bool is_short = false;
  /// Rows of the first commit.
  int first_rows = 8;
  /// A reader looks on, before each of so many operations.
  std::uint64_t reader_rate = 5;
};

/// Every kind of change, by two processes in turn, with a reader looking on.
/// Failures of the disk are taken as a careful client takes them: what failed
/// did not happen; a handle that is `broken` is replaced.
class store_script {
public:
  store_script(simulation::machine& computer, script_options options);
  store_script(const store_script&) = delete;
  store_script& operator=(const store_script&) = delete;
  ~store_script();

  void run();

  const knowledge& known() const noexcept { return known_; }
  phase at() const noexcept { return phase_; }
  /// How many calls of stores were begun.
  std::size_t call_count() const noexcept { return call_count_; }
  /// How many calls failed.
  std::size_t failure_count() const noexcept { return failure_count_; }
  store_client& first() noexcept { return *first_; }

  /// Called at each moment of each operation, as `machine::on_moment`.
  std::function<void(simulation::moment, const simulation::operation&)>
      on_moment;

private:
  friend class store_client;

  void run_checkpoints();
  void run_foreign_pairs();
  void run_drop();
  void run_interrupted_checkpoint();
  void begin(phase what) {
    phase_ = what;
    ++call_count_;
  }
  void take_over(const versions& theirs, foreign_files which);
  void look_on(const simulation::operation& what);

  simulation::machine& computer_;
  script_options options_;
  knowledge known_;
  phase phase_ = phase::open;
  std::size_t call_count_ = 0;
  std::size_t failure_count_ = 0;
  /// Somebody may have rewritten and published the store since the last
  /// checkpoint.
  bool is_publication_loose_ = false;
  std::unique_ptr<store_client> first_;
  std::unique_ptr<store_client> second_;
  std::unique_ptr<simulation::process> reader_process_;
  std::unique_ptr<store> reader_;
  bool is_reader_at_work_ = false;
  std::uint64_t turns_ = 0;
};

/// One process of the script, and its handle.
class store_client {
public:
  store_client(store_script& script, std::unique_ptr<simulation::process> self)
      : script_(script), process_(std::move(self)) {}

  /// Opens the store if it is not open. False: it cannot be.
  bool ready();
  void reopen() {
    handle_.reset();
    (void)ready();
  }

  bool commit(const versions& rows, const std::vector<std::string>& removed);
  bool checkpoint(compaction how);
  /// With commits of both clients between its steps; or without its last step.
  bool checkpoint_in_steps(store_client& other, bool finishes);
  bool drop();
  /// A checkpoint that finds files of somebody else.
  bool take_over(const versions& expected);

  store* handle() noexcept { return handle_.get(); }
  /// Why the last call failed.
  const failure& problem() const noexcept { return problem_; }

private:
  bool open();
  void resolve();
  /// Whether `outcome` is a success; if not, takes note of it.
  template <class T>
  bool succeeded(const result<T>& outcome);
  void acknowledge(const versions& state);
  void published(const versions& state);

  store_script& script_;
  std::unique_ptr<simulation::process> process_;
  std::unique_ptr<store> handle_;
  failure problem_;
};

} // namespace callboard::test
