#pragma once

#include "core/io.hpp"
#include "core/result.hpp"
#include "core/store.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace callboard {

inline constexpr std::size_t log_header_bytes = 64;
inline constexpr std::size_t frame_header_bytes = 64;

std::string log_name(std::uint64_t epoch);

/// Values are part of the format: do not change.
enum class frame_type : std::uint32_t { commit = 1, drop = 2 };

/// One committed transaction, as read from a log.
struct frame {
  frame_type type = frame_type::commit;
  std::uint64_t sequence = 0;
  std::uint64_t fence = 0;
  std::uint32_t operation_count = 0;
  std::vector<std::byte> payload;
};

/// One operation inside a payload. Views live as long as the payload.
struct operation_view {
  commit_operation::kind what = commit_operation::kind::upsert;
  std::string_view id;
  std::string_view record;
  /// `dimension` floats, at any alignment; empty for a removal.
  std::span<const std::byte> vector;
};

/// Appends the encoding of one operation to a payload.
void encode_operation(const commit_operation& operation,
                      std::vector<std::byte>& payload);

/// Calls `visit` for each operation of a commit's payload. Checks every length
/// before use; on an error nothing is missing but what follows is unknown.
result<void>
for_each_operation(const frame& transaction, std::uint32_t dimension,
                   const std::function<void(const operation_view&)>& visit);

/// A reader's and writer's position in one log file: everything before it has
/// been read and is valid.
///
/// Format:  docs/design.md, "Log".
/// Threads: not thread-safe.
class log_cursor {
public:
  /// Writes an empty log and syncs it (not its directory).
  static result<void> create(directory& home, std::uint64_t epoch,
                             std::uint64_t base_sequence, std::uint64_t salt,
                             std::uint32_t dimension);

  /// Opens log `epoch` at its first frame.
  /// Errors: `not_found`; `corrupt` if the header is not that of this log.
  static result<log_cursor> open(const directory& home, std::uint64_t epoch,
                                 std::uint32_t dimension);

  std::uint64_t epoch() const noexcept { return epoch_; }
  std::uint64_t base_sequence() const noexcept { return base_sequence_; }
  /// Sequence of the last frame read.
  std::uint64_t sequence() const noexcept { return sequence_; }
  std::uint64_t offset() const noexcept { return offset_; }
  std::string name() const { return log_name(epoch_); }

  result<std::uint64_t> file_bytes() const;

  /// The next frame, or empty if the bytes at the position are not, or not
  /// yet, a complete and valid frame. Moves on only after a frame.
  result<std::optional<frame>> next();

  /// Whether a valid frame header of a later commit stands somewhere after the
  /// position: then what is at the position is damage, not a torn tail.
  result<bool> valid_frame_follows() const;

  /// Writes one frame at the position, which must be the end of the file, and
  /// moves on. Not durable before `sync`. On an error the file may hold a part
  /// of the frame: `cut` it.
  result<void> append(frame_type type, std::uint64_t fence,
                      std::uint32_t operation_count,
                      std::span<const std::byte> payload);

  /// Cuts the file at `offset`.
  result<void> cut(std::uint64_t offset);

  /// Makes the file durable. Never try again after an error.
  result<void> sync();

  /// Copies what follows the position to `name` in `home` and syncs it.
  result<void> copy_tail(directory& home, std::string_view name) const;

  /// Forgets what was appended or read since: the position is `to` again.
  struct position {
    std::uint64_t offset;
    std::uint64_t sequence;
    std::uint64_t link;
  };
  position where() const noexcept { return {offset_, sequence_, link_}; }
  void rewind(const position& to) noexcept {
    offset_ = to.offset;
    sequence_ = to.sequence;
    link_ = to.link;
  }

private:
  log_cursor() = default;

  std::unique_ptr<file> file_;
  /// For messages.
  std::string path_;
  std::uint64_t epoch_ = 0;
  std::uint64_t base_sequence_ = 0;
  std::uint64_t salt_ = 0;
  std::uint64_t sequence_ = 0;
  std::uint64_t offset_ = 0;
  /// Header checksum of the frame before the position.
  std::uint64_t link_ = 0;
};

} // namespace callboard
