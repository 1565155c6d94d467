#pragma once

#include "core/io.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

/// An `io` that counts what is asked of another one and fails, cuts short or
/// ends the process at any chosen operation. The usual test is two runs:
///
///   faulty_io dry;                     // 1. which operations are there?
///   scenario(dry);
///   for (auto& each : dry.operations()) {
///     faulty_io disk;                  // 2. one run for each of them
///     disk.fail_at(each.index, errc::io_failure);
///     scenario(disk);
///     ...
///   }
///
/// For crashes the second run is in a child process: see `exit_at`.
namespace callboard::test {

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
  /// Of an open file or of a name.
  status,
  list,
  rename,
  link,
  remove,
  sync_directory,
};

std::string_view to_string(operation_kind kind) noexcept;

/// Whether operations of `kind` change what a crash or another process can
/// see: the crash points that differ. (All kinds can fail.)
bool is_mutation(operation_kind kind) noexcept;

struct operation {
  /// How many operations, of all kinds, came before.
  std::size_t index = 0;
  operation_kind kind = operation_kind::open_file;
  /// The file or directory: its directory's path, '/' and its name.
  std::string path;
  /// The new path, for `rename` and `link`.
  std::string target;
  /// How much is read, written, mapped, or kept by `truncate`.
  std::uint64_t size_bytes = 0;
};

/// For `INFO` and `CAPTURE`: "#12 append /tmp/x/log-1, 96 bytes".
std::ostream& operator<<(std::ostream& out, const operation& what);

/// What happens to one operation.
struct fault {
  enum class action : std::uint8_t {
    none,
    /// Not done; the caller gets `reason`.
    fail,
    /// `write_at` and `append` write the first `bytes` bytes; the caller gets
    /// `no_space`. Other kinds: as `fail`.
    cut_short,
    /// The process ends by `_exit(exit_status)` before, half through (`append`
    /// and `write_at`; other kinds: before) or after it.
    exit_before,
    exit_half,
    exit_after,
  };

  action what = action::none;
  failure reason;
  std::size_t bytes = 0;

  static fault none() { return {}; }
  static fault fail(errc code);
  static fault fail(failure reason);
  static fault cut_short(std::size_t bytes);
  static fault exit(action when);
};

/// Threads: as thread-safe as the `io` behind it. Operations of several
/// threads are counted in the order in which they reach the hook.
class faulty_io : public io {
public:
  /// The status of a process that a fault ended.
  static constexpr int exit_status = 42;

  enum class moment : std::uint8_t { before, half, after };
  enum class persistence : std::uint8_t { once, persistent };

  /// Called before each operation, one at a time. Must not use the `faulty_io`
  /// itself.
  using hook = std::function<fault(const operation&)>;

  /// Borrows `base`, which must outlive this and all that it opened.
  explicit faulty_io(io& base = posix_io());
  ~faulty_io() override;

  /// Replaces the hook; an empty one injects nothing. Each of the functions
  /// below installs a hook, too.
  void set_hook(hook next);

  /// Ends the process at the operation with this index.
  void exit_at(std::size_t index, moment when = moment::before);

  /// Fails the operation with this index; `persistent`: and all later ones.
  void fail_at(std::size_t index, errc code,
               persistence how = persistence::once);

  /// Fails the operation of `kind` that comes after `nth` others of that kind,
  /// counted from now; `persistent`: and all later ones of that kind.
  void fail_from(operation_kind kind, errc code,
                 persistence how = persistence::once, std::size_t nth = 0);

  /// All operations so far, failed ones too.
  std::vector<operation> operations() const;
  std::size_t operation_count() const;

  /// How many faults were injected so far: 0 at the end of a run means that
  /// the fault lies beyond its last operation.
  std::size_t fault_count() const;

  /// Stops the wall clock at `seconds` since 1970. Until then it is the
  /// base's.
  void set_wall_clock(std::int64_t seconds);

  /// From now on the steady clock moves only by `pause`, which returns at once.
  void stop_steady_clock();

  result<std::unique_ptr<directory>> open_directory(std::string_view path,
                                                    bool create) override;
  std::int64_t wall_clock_seconds() override;
  std::chrono::nanoseconds steady_clock() override;
  void pause(std::chrono::milliseconds duration) override;
  std::uint64_t random_bits() override;
  std::string boot_id() override;

private:
  class control;
  class faulty_file;
  class faulty_directory;

  io& base_;
  /// Shared with the files and directories, which may live longer.
  std::shared_ptr<control> control_;
};

} // namespace callboard::test
