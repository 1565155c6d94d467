#pragma once

#include "core/result.hpp"
#include "simulation/disk.hpp"

#include <cstddef>
#include <cstdint>
#include <ostream>
#include <string>
#include <string_view>

/// What simulated processes do, and what can be done to them meanwhile.
namespace callboard::simulation {

enum class operation_kind : std::uint8_t {
  /// An existing file: `open_mode::read` and `read_write`.
  open_file,
  /// `open_mode::create` and `create_empty`, whether it was missing or not.
  create_file,
  open_directory,
  /// Opening a directory with `create`, whether it was missing or not.
  create_directory,
  read_at,
  write_at,
  append,
  truncate,
  sync_data,
  sync,
  set_mode,
  map,
  lock,
  unlock,
  /// The end of an open file or directory, and of its locks. Hooks of a
  /// `machine` do not get it.
  close,
  /// Of an open file or of a name.
  status,
  list,
  rename,
  link,
  remove,
  sync_directory,
  /// Of the board. If it fails, the announcement is lost.
  announce,
  poison,
  clear_poison,
  /// `io::pause`, and the waiting for a board: they never fail.
  pause,
};

std::string_view to_string(operation_kind kind) noexcept;

/// Whether it changes what a crash leaves: the crash points that differ.
bool is_mutation(operation_kind kind) noexcept;

/// Valid only for the time of the call that it is an argument of.
struct operation {
  /// How many operations, of all processes, came before.
  std::uint64_t index = 0;
  operation_kind kind = operation_kind::open_file;
  /// Who does it: 1 for the machine's first process.
  std::uint64_t process = 0;
  /// Of the file, or of the directory if `name` is empty.
  std::string_view directory;
  std::string_view name;
  /// The new name, for `rename` and `link`.
  std::string_view target_directory;
  std::string_view target_name;
  /// Where in the file; the byte of a lock; the sequence of a notice.
  std::uint64_t offset = 0;
  /// How much is read, written, mapped, or kept by `truncate`.
  std::uint64_t size_bytes = 0;
  /// What `set_mode` sets.
  std::uint32_t mode = 0;
  /// A lock that somebody else holds is asked for once more.
  bool is_repeated = false;

  std::string path() const;
};

/// "#12 process 1: append /store/log-1 at 64, 96 bytes"
std::string to_string(const operation& what);
std::ostream& operator<<(std::ostream& out, const operation& what);

/// Which part of an operation has been done. Only writes and appends have a
/// half, of a random length, and `io::open_directory`, which is half done when
/// the names that it makes are not durable; for others, `half` is `before`.
enum class moment : std::uint8_t { before, half, after };

/// What happens to one operation.
struct fault {
  enum class action : std::uint8_t {
    none,
    /// Not done; the caller gets `code`. A `sync` or `sync_data` that fails
    /// loses what it should have written: see `disk::fail_sync`.
    fail,
    /// `write_at` and `append` write the first `bytes` bytes; the caller gets
    /// `no_space`. Other kinds: as `fail` with that code.
    cut_short,
    /// The process dies.
    kill,
    /// The machine loses its power.
    lose_power,
  };

  action what = action::none;
  errc code = errc::io_failure;
  std::size_t bytes = 0;
  moment when = moment::before;
  loss_model model = loss_model::weakest;

  static fault none() noexcept { return {}; }
  static fault fail(errc code) noexcept;
  static fault cut_short(std::size_t bytes) noexcept;
  static fault kill(moment when) noexcept;
  static fault lose_power(moment when, loss_model model) noexcept;
};

/// What it does to its operation: "fails with no_space".
std::string to_string(const fault& injected);

} // namespace callboard::simulation
