#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace callboard {

/// A row's place in a store: base rows first, then rows committed since.
using row_number = std::uint32_t;
inline constexpr row_number row_count_max = 0x7fff'ffff;

/// Which rows exist: a bitmap in shared chunks that are copied when changed.
/// `share` gives a copy that shares all chunks; a change to either copies one
/// chunk (4 KB).
///
/// Threads: a shared copy may be read by any number of threads while the
///          original changes. One object is not thread-safe.
class liveness {
public:
  static constexpr std::size_t chunk_rows = 32'768;
  static constexpr std::size_t chunk_words = chunk_rows / 64;

  liveness() = default;
  /// Copies the chunks that `other` alone owns and shares the others.
  liveness(const liveness& other);
  liveness& operator=(const liveness& other);
  liveness(liveness&&) noexcept = default;
  liveness& operator=(liveness&&) noexcept = default;

  /// A copy at the cost of one pointer per chunk.
  liveness share();

  /// Row `i` is alive if bit `i % 64` of `words[i / 64]` is set.
  static liveness from_words(std::span<const std::uint64_t> words,
                             std::size_t row_count);

  bool test(row_number row) const noexcept;
  void set(row_number row);
  void clear(row_number row);
  void clear_all() noexcept;

  /// Rows that are alive.
  std::size_t count() const noexcept { return count_; }

  /// The bits of rows `chunk * chunk_rows` and following, or null if none of
  /// them is alive. Valid as long as this object is not changed.
  const std::uint64_t* words(std::size_t chunk) const noexcept;

private:
  using chunk = std::array<std::uint64_t, chunk_words>;
  chunk& writable(row_number row);

  std::vector<std::shared_ptr<chunk>> chunks_;
  /// Which chunks no other object shares.
  std::vector<bool> owned_;
  std::size_t count_ = 0;
};

} // namespace callboard
