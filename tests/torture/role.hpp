#pragma once

#include "actors/client.hpp"
#include "tests/torture/checker.hpp"
#include "tests/torture/ledger.hpp"
#include "tests/torture/pulse.hpp"
#include "tests/torture/rows.hpp"

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

/// What the processes of a run do. Each role is the whole life of a process:
/// it works until it is killed, or finds something wrong and says so.
namespace callboard::torture {

/// Slots 0 to 2 write, 3 checkpoints, 4 and 5 read; 6 judges a round when the
/// others are dead.
inline constexpr unsigned writer_count = 3;
inline constexpr unsigned checkpointer_slot = 3;
inline constexpr unsigned reader_slot = 4;
inline constexpr unsigned watcher_slot = 5;
inline constexpr unsigned worker_slots = 6;
inline constexpr unsigned judge_slot = 6;

/// Who a process is.
struct assignment {
  /// Of the run; the stores and everything else are below.
  std::filesystem::path directory;
  std::uint64_t seed = 0;
  unsigned round = 0;
  unsigned slot = 0;
  unsigned incarnation = 0;
};

std::filesystem::path store_directory(const std::filesystem::path& run);
std::string namespace_of(unsigned store);
std::filesystem::path ledger_directory(const std::filesystem::path& run,
                                       unsigned round);
std::filesystem::path pulse_file(const std::filesystem::path& run);
/// Where a process writes what it has found.
std::filesystem::path finding_file(const assignment& who);

/// How a process that has found something exits; others are bugs.
int exit_status(finding::kind what);
std::optional<finding::kind> finding_of(int exit_status);

/// What every role needs: its stores, its random numbers, its pulse, and a way
/// to complain.
class role {
public:
  explicit role(assignment who);

  const assignment& who() const noexcept { return who_; }
  random_source& random() noexcept { return random_; }
  bool one_in(std::uint64_t chance) { return torture::one_in(random_, chance); }
  std::uint64_t below(std::uint64_t limit) {
    return torture::below(random_, limit);
  }

  /// Shows that the process gets on, and with what.
  void begin(step what);

  /// Reports a finding and ends the process.
  [[noreturn]] void fail(const finding& found);
  void check(const verdict& wrong) {
    if (wrong)
      fail(*wrong);
  }
  /// A failure that cannot be helped by anybody's death is a finding.
  [[noreturn]] void fail(const failure& why, const std::string& what);
  template <class T>
  T need(result<T> outcome, const std::string& what) {
    if (!outcome)
      fail(outcome.error(), what);
    return std::move(outcome).value();
  }
  void need(const result<void>& outcome, const std::string& what) {
    if (!outcome)
      fail(outcome.error(), what);
  }

  /// Starts the runtime and opens the stores.
  void open_stores();
  /// One more handle on a store.
  client open_store(unsigned store);
  client& store(unsigned number) { return *stores_[number]; }
  void close_stores();

  /// The ledger as it is now.
  const ledger& known();

  /// What a snapshot holds; all rows are checked, and that generations grow.
  seen_state look(unsigned store);
  /// Takes in the snapshot of a store, which may be older than the last one.
  seen_state contents(unsigned store, const snapshot& view);

  /// The version of a row that the library answered, checked as far as it is
  /// there.
  version recognize_record(const std::string& id, const std::string& record);

  /// Checks what the store shows against the ledger.
  seen_state check_store(unsigned store);

  /// Asks for the best rows of some rows' own vectors. Rows that were there
  /// before and after must be found first.
  void check_queries(unsigned store, std::size_t count);

  /// Whether what the published pair shows is right.
  void check_published(unsigned store);

private:
  void check_hit(unsigned store, const hit& best, unsigned number,
                 version value);

  assignment who_;
  random_source random_;
  pulse_board pulses_;
  pulse& pulse_;
  ledger_reader ledger_;
  std::unique_ptr<runtime> runtime_;
  std::array<std::optional<client>, store_count> stores_;
  std::array<std::uint64_t, store_count> generations_{};
  std::array<std::uint64_t, store_count> drops_{};
};

[[noreturn]] void write_for_ever(role& self);
[[noreturn]] void checkpoint_for_ever(role& self);
[[noreturn]] void read_for_ever(role& self);
[[noreturn]] void watch_for_ever(role& self);
/// Compares everything with the ledger, and writes what the next round begins
/// with.
void judge(role& self);

} // namespace callboard::torture
