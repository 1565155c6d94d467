#include "cli/progress.hpp"

#include "cli/output.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <string_view>
#include <unistd.h>

namespace callboard::cli {
namespace {

constexpr auto redraw_interval = std::chrono::milliseconds(200);
constexpr auto line_interval = std::chrono::seconds(5);
constexpr std::string_view clear_line = "\r\x1B[K";

void write_error(std::string_view text) {
  static_cast<void>(write_all(STDERR_FILENO, text, "standard error"));
}

std::string clock_text(double seconds) {
  const auto whole = static_cast<long long>(std::min(seconds, 3.6e6));
  std::array<char, 32> text{};
  if (whole >= 3600)
    std::snprintf(text.data(), text.size(), "%lld:%02lld:%02lld", whole / 3600,
                  whole / 60 % 60, whole % 60);
  else
    std::snprintf(text.data(), text.size(), "%lld:%02lld", whole / 60,
                  whole % 60);
  return text.data();
}

} // namespace

std::string progress_line(const progress_state& state, std::size_t columns) {
  const auto seconds = std::max(state.elapsed.count(), 1e-3);
  const auto rate = static_cast<double>(state.records) / seconds;
  std::string text = grouped(state.records) + " records, "
                     + grouped(static_cast<std::uint64_t>(rate)) + "/s";
  if (state.bytes_total == 0)
    return fit_columns(text + ", " + clock_text(seconds), columns);

  const auto share = std::min(static_cast<double>(state.bytes)
                                  / static_cast<double>(state.bytes_total),
                              1.0);
  text = std::to_string(static_cast<int>(share * 100)) + "%, " + text;
  if (share > 0)
    text += ", " + clock_text(seconds / share - seconds) + " left";
  constexpr std::size_t bar_columns = 20;
  if (columns > text.size() + bar_columns + 3) {
    const auto done = static_cast<std::size_t>(share * bar_columns);
    text = "[" + std::string(done, '#') + std::string(bar_columns - done, '.')
           + "] " + text;
  }
  return fit_columns(text, columns);
}

progress::progress(bool is_shown)
    : is_shown_(is_shown),
      columns_(terminal_columns(STDERR_FILENO)),
      start_(clock::now()),
      next_(start_
            + (columns_ > 0 ? clock::duration(redraw_interval)
                            : clock::duration(line_interval))) {}

progress::~progress() {
  clear();
}

void progress::update(progress_state state) {
  const auto now = clock::now();
  if (!is_shown_ || now < next_)
    return;
  state.elapsed = now - start_;
  if (columns_ == 0) {
    next_ = now + line_interval;
    note(progress_line(state, 0));
    return;
  }
  next_ = now + redraw_interval;
  is_drawn_ = true;
  // The last column stays free: some terminals wrap there.
  write_error(std::string(clear_line) + progress_line(state, columns_ - 1));
}

void progress::clear() {
  if (is_drawn_)
    write_error(clear_line);
  is_drawn_ = false;
}

std::chrono::duration<double> progress::elapsed() const {
  return clock::now() - start_;
}

} // namespace callboard::cli
