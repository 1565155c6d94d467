#pragma once

#include "core/result.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

/// What processes have done to stores and seen of them, as each of them wrote
/// it down, and whether one order of transactions explains it all.
namespace callboard::history {

/// What a store holds, or what a transaction has written: values by id.
using rows = std::map<std::string, std::string>;
using id_set = std::set<std::string>;

/// "a=1;b=2;", or "-" for nothing. Neither ids nor values have spaces, '=' or
/// ';'.
std::string to_text(const rows& values);
std::string to_text(const id_set& ids);
/// Of what `to_text` made.
rows rows_in(std::string_view text);
id_set ids_in(std::string_view text);

/// In place of rows: only the generation was written down.
inline constexpr std::string_view unknown_rows = "?";

/// One thing that a process has done. Times are nanoseconds of the clock that
/// all processes share.
struct entry {
  enum class kind : std::uint8_t {
    /// Asked for a commit.
    attempt,
    /// Asked for a drop.
    drop,
    /// Looked at the newest state.
    read,
    /// Looked once more at a snapshot that it had kept.
    read_again,
    /// Has followed the events of the commits after this generation.
    watch,
    event_commit,
    event_drop,
    event_overflow,
    /// Has seen all events up to this generation, and ended.
    end,
    /// Was told an error, or saw what contradicts itself.
    bad,
  };
  enum class outcome : std::uint8_t {
    /// The process was killed before it knew.
    unknown,
    committed,
    /// Another commit came first.
    conflict,
    /// A drop came first.
    discarded,
    /// Somebody else had the lock for too long.
    busy,
  };

  kind what = kind::bad;
  unsigned store = 0;
  /// Of the line in the journal, from 1.
  std::size_t line = 0;
  /// Which transaction of the process.
  std::uint64_t number = 0;
  std::optional<std::uint64_t> expected_generation;
  /// The generation of the state that it is about: of what a drop has removed
  /// since, nothing may come back. Empty if the process cannot tell.
  std::optional<std::uint64_t> known_generation;
  std::int64_t begun_at = 0;
  std::int64_t ended_at = 0;
  outcome end = outcome::unknown;
  std::uint64_t generation = 0;
  /// Written, seen or named as changed; see `to_text`.
  std::string changed;
  std::string removed;
  /// What is bad.
  std::string text;
};

/// All that one process did, in its order.
struct journal {
  std::string name;
  /// Which of the processes; those started after its death have its number.
  unsigned process = 0;
  std::vector<entry> entries;
};

/// Reads a journal, one entry a line:
///
///     try <store> <number> <begun at> <expected or -> <rows> <removed ids>
///         [<known>]
///     drop <store> <number> <begun at>
///     ok <ended at> <generation>            } of the line
///     conflict|discarded|busy <ended at>    } before
///     read <store> <begun at> <generation> <rows>
///     again <store> <generation> <rows>
///     watch|end <store> <generation>
///     event <store> <generation> commit|drop|overflow <ids> <removed ids>
///     bad <text>
///
/// A last line without its end is left out: its process was killed meanwhile.
/// Errors: `corrupt`.
result<journal> parse_journal(std::string name, unsigned process,
                              std::string_view text);

/// Of files called "<name>.<process>.<incarnation>", in order.
/// Errors: `corrupt`, `io_failure`.
result<std::vector<journal>>
read_journals(const std::filesystem::path& directory);

/// A journal that is written. Each line is there for everybody when its call
/// returns, whatever becomes of this process. Throws `std::system_error`.
class journal_file {
public:
  explicit journal_file(const std::filesystem::path& path);
  journal_file(const journal_file&) = delete;
  journal_file& operator=(const journal_file&) = delete;
  ~journal_file();

  void add_line(std::string line);

private:
  int descriptor_;
};

} // namespace callboard::history
