#pragma once

#include "tests/history/journal.hpp"
#include "tests/history/session.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <string>

/// What the processes of a run do.
namespace callboard::history {

inline constexpr unsigned store_count = 2;
/// Writers and readers together, and the one that judges at the end.
inline constexpr unsigned processes_max = 64;

/// What the processes of a run share.
struct progress {
  /// Transactions that were acknowledged, drops not counted.
  std::atomic<std::uint64_t> acknowledged = 0;
  /// Drops that were asked for, over all stores in turn.
  std::atomic<std::uint64_t> drops = 0;
  std::atomic<bool> writers_stop = false;
  std::atomic<bool> readers_stop = false;
  /// The last transaction of each process; goes on when it is started anew.
  std::array<std::atomic<std::uint64_t>, processes_max> numbers{};
};

/// Who a process is.
struct assignment {
  /// Of the run; stores and journals are below.
  std::filesystem::path directory;
  std::uint64_t seed = 0;
  unsigned process = 0;
  unsigned incarnation = 0;
  access how = access::engine;
  /// Transactions of the whole run.
  std::uint64_t transactions = 0;
  /// Whether a writer also checkpoints and drops.
  bool maintains = false;
};

std::filesystem::path store_directory(const std::filesystem::path& run);
std::filesystem::path journal_directory(const std::filesystem::path& run);

/// Commits transactions until told to stop, and writes its journal. Answers
/// the reason if it could not go on.
result<void> write(const assignment& who, progress& shared);

/// Looks at all stores and follows their events until told to stop, then once
/// more.
result<void> read(const assignment& who, progress& shared);

/// Verifies all stores and looks at them, once.
result<void> read_at_the_end(const assignment& who);

/// Opens the journal of `who` and does `work` with it; what fails becomes its
/// last line.
template <class Work>
result<void> with_journal(const assignment& who, const std::string& name,
                          const Work& work) {
  journal_file journal(journal_directory(who.directory)
                       / (name + '.' + std::to_string(who.process) + '.'
                          + std::to_string(who.incarnation)));
  auto done = work(journal);
  if (!done)
    journal.add_line("bad " + std::string(to_string(done.error().code)) + ": "
                     + done.error().message);
  return done;
}

} // namespace callboard::history
