#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

namespace callboard::cli {

/// How far a long work is.
struct progress_state {
  std::uint64_t records = 0;
  std::uint64_t bytes = 0;
  /// 0: not known.
  std::uint64_t bytes_total = 0;
  std::chrono::duration<double> elapsed{};
};

/// `state` as a line of at most `columns` columns (0: any), with a bar if
/// there is room: share done, records, rate, and the time that is left.
std::string progress_line(const progress_state& state, std::size_t columns);

/// Shows progress on standard error: a line that is redrawn where that is a
/// terminal, else a line every few seconds.
///
/// Threads: one owner.
class progress {
public:
  explicit progress(bool is_shown);
  ~progress();
  progress(const progress&) = delete;
  progress& operator=(const progress&) = delete;

  /// Shows it if it is time to. `state.elapsed` is filled in here.
  void update(progress_state state);

  /// Makes room for another line.
  void clear();

  std::chrono::duration<double> elapsed() const;

private:
  using clock = std::chrono::steady_clock;

  bool is_shown_;
  std::size_t columns_;
  bool is_drawn_ = false;
  clock::time_point start_;
  clock::time_point next_;
};

} // namespace callboard::cli
