#pragma once

#include "tests/torture/rows.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// What the processes have asked their stores for, and what was answered: kept
/// outside of the stores, and written such that a kill leaves it true.
namespace callboard::torture {

/// Processes whose work is in the ledger: the writers and the checkpointer.
inline constexpr unsigned ledger_slots = 4;

/// One change of a commit; `no_row`: a removal.
struct operation {
  unsigned number = 0;
  version value = no_row;
};

/// A commit or drop that somebody has asked for.
struct entry {
  enum class kind : std::uint8_t { commit, drop };
  enum class fate : std::uint8_t {
    /// Not answered (yet): it may have happened.
    open,
    acknowledged,
    /// It has certainly not happened.
    refused,
  };

  kind what = kind::commit;
  fate how = fate::open;
  unsigned slot = 0;
  unsigned incarnation = 0;
  unsigned serial = 0;
  unsigned store = 0;
  std::optional<std::uint64_t> expected_generation;
  std::vector<operation> operations;

  /// Nanoseconds of the machine's monotonic clock. A commit is asked for from
  /// when the first of its changes is given to the store; at `pending_at` all
  /// are, and only the request to commit is missing.
  std::int64_t asked_at = 0;
  std::int64_t pending_at = 0;
  std::int64_t answered_at = 0;
  /// Of a commit its own, of a drop one that was seen after it.
  std::uint64_t generation = 0;
  std::size_t discarded = 0;

  /// Its own generation is one of these, if it has happened; see
  /// `ledger::settle`.
  std::uint64_t first = 0;
  std::uint64_t last = 0;
  /// Whether it is sure that it has happened, with all of its operations.
  bool certain = false;

  std::string describe() const;
};

/// What is known of the stores' history: who has changed what, and in which
/// order.
class ledger {
public:
  /// The state of a store at the beginning.
  struct baseline {
    std::uint64_t generation = 0;
    versions rows;
  };

  /// What has happened to one row. `by` is null for the baseline.
  struct touch {
    const entry* by = nullptr;
    version value = no_row;
  };

  void begin_with(unsigned store, baseline state);

  /// Takes in one line of an incarnation's file; `round` is part of its
  /// versions. Errors: `corrupt` for a line that `ledger_file` does not write.
  result<void> take_line(unsigned round, unsigned slot, unsigned incarnation,
                         std::string_view line);

  /// To be called after lines have been taken in, before questions are asked.
  /// Works out when entries may have happened: after everything that had been
  /// acknowledged when they were asked for, and before everything that was
  /// asked for when their process was dead.
  void settle();

  const baseline& start_of(unsigned store) const {
    return stores_[store].start;
  }
  /// The highest generation that somebody was told.
  std::uint64_t acknowledged_generation(unsigned store) const;
  std::size_t acknowledged_commits() const;

  /// All entries for `store` that may have happened.
  std::vector<const entry*> entries_of(unsigned store) const;
  /// Those among them that touch a row, drops and the baseline included.
  std::vector<touch> touches_of(unsigned store, unsigned number) const;
  /// The acknowledged commit with this generation, or null.
  const entry* commit_of(unsigned store, std::uint64_t generation) const;
  /// The highest generation acknowledged before `time`.
  std::uint64_t acknowledged_before(unsigned store, std::int64_t time) const;

private:
  struct moment {
    std::int64_t time = 0;
    std::uint64_t generation = 0;
  };
  struct history {
    baseline start;
    std::vector<entry*> entries;
    std::vector<entry*> drops;
    std::array<std::vector<touch>, id_count> touches;
    std::map<std::uint64_t, entry*> commits;
    /// By rising time; the generations are highest ones so far.
    std::vector<moment> answers;
    /// By rising time; the generations are lowest ones from there on.
    std::vector<moment> questions;
  };

  result<void> take_question(unsigned round, entry asked,
                             std::span<const std::string_view> words);
  result<void> take_answer(unsigned slot,
                           std::span<const std::string_view> words);
  static void order_moments(history& of);
  void settle(const history& of, entry& each) const;

  std::deque<entry> entries_;
  std::array<history, store_count> stores_;
  /// The newest entry of each slot: only it can still be answered.
  std::array<entry*, ledger_slots> newest_{};
  /// Start of each incarnation; the one before was dead then.
  std::map<std::pair<unsigned, unsigned>, std::int64_t> starts_;
};

/// The name of an incarnation's file.
std::string ledger_file_name(unsigned slot, unsigned incarnation);

/// The machine's monotonic clock, the same for all processes.
std::int64_t monotonic_ns();

/// One incarnation's file. Each line is written by one call and is there for
/// every process when that returns, whatever becomes of this one.
///
///     s <time>
///         the incarnation starts
///     i <serial> <store> <time> <pending at> <expected> <row>:<counter>...
///         a commit is asked for; - for no expectation, and for a removal
///     d <serial> <store> <time>
///         a drop is asked for
///     a <serial> <time> <generation> <discarded>
///         it has happened
///     f <serial> <time> <why>
///         it has not
class ledger_file {
public:
  static result<ledger_file> open(const std::filesystem::path& path);
  ledger_file(ledger_file&& other) noexcept;
  ledger_file& operator=(ledger_file&&) = delete;
  ~ledger_file();

  result<void> start();
  /// `begun_at`: before the first of the operations was given to the store;
  /// `pending_at`: after the last one was.
  result<void> ask_commit(unsigned store, std::int64_t begun_at,
                          std::int64_t pending_at,
                          std::optional<std::uint64_t> expected_generation,
                          std::span<const operation> operations);
  result<void> ask_drop(unsigned store);
  /// To the newest question.
  result<void> acknowledge(std::uint64_t generation, std::size_t discarded);
  result<void> refuse(std::string_view why);

private:
  explicit ledger_file(int descriptor) : descriptor_(descriptor) {}
  result<void> append(const std::string& line);

  int descriptor_;
  unsigned serial_ = 0;
};

/// Follows the files of one round while they are written.
class ledger_reader {
public:
  ledger_reader(std::filesystem::path directory, unsigned round)
      : directory_(std::move(directory)), round_(round) {}

  /// Takes in what is new. Lines that are not whole yet are left.
  result<const ledger*> read();

private:
  struct place {
    unsigned incarnation = 1;
    std::size_t offset = 0;
  };
  result<void> read_baseline();
  result<void> read_slot(unsigned slot);
  result<void> read_lines(unsigned slot, place& where);

  std::filesystem::path directory_;
  unsigned round_;
  bool has_baseline_ = false;
  std::array<place, ledger_slots> places_{};
  ledger ledger_;
};

/// Writes what a round begins with.
result<void>
write_baselines(const std::filesystem::path& directory,
                const std::array<ledger::baseline, store_count>& states);

} // namespace callboard::torture
