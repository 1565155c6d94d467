#include "cli/line_reader.hpp"

#include "cli/interrupt.hpp"

#include <cerrno>
#include <fcntl.h>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace callboard::cli {
namespace {

constexpr std::size_t buffer_bytes = 256u << 10;

failure read_failure(const std::string& name, int code) {
  const auto what = code == ENOENT   ? errc::not_found
                    : code == EACCES ? errc::permission_denied
                                     : errc::io_failure;
  return {what,
          name + " cannot be read: " + std::generic_category().message(code)};
}

} // namespace

line_reader::line_reader(int descriptor, std::string name,
                         std::size_t bytes_max)
    : descriptor_(descriptor),
      name_(std::move(name)),
      bytes_max_(bytes_max),
      buffer_(buffer_bytes) {}

line_reader::line_reader(line_reader&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)),
      name_(std::move(other.name_)),
      bytes_max_(other.bytes_max_),
      buffer_(std::move(other.buffer_)),
      unread_(other.unread_),
      kept_(std::move(other.kept_)),
      is_kept_returned_(other.is_kept_returned_),
      is_too_long_(other.is_too_long_),
      line_number_(other.line_number_),
      bytes_read_(other.bytes_read_) {}

line_reader::~line_reader() {
  if (descriptor_ > STDERR_FILENO)
    ::close(descriptor_);
}

result<line_reader> line_reader::open(const std::string& path,
                                      std::size_t bytes_max) {
  if (path == "-")
    return line_reader(STDIN_FILENO, "standard input", bytes_max);
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0)
    return read_failure(path, errno);
  return line_reader(descriptor, path, bytes_max);
}

result<bool> line_reader::refill() {
  for (;;) {
    if (is_interrupted())
      return false;
    const auto got = ::read(descriptor_, buffer_.data(), buffer_.size());
    if (got >= 0) {
      const auto bytes = static_cast<std::size_t>(got);
      bytes_read_ += bytes;
      unread_ = {buffer_.data(), bytes};
      return bytes > 0;
    }
    if (errno != EINTR)
      return read_failure(name_, errno);
  }
}

void line_reader::keep(std::string_view piece) {
  if (is_too_long_)
    return;
  if (piece.size() > bytes_max_ - kept_.size()) {
    is_too_long_ = true;
    kept_.clear();
    kept_.shrink_to_fit();
    return;
  }
  kept_ += piece;
}

line_reader::line line_reader::finish_line() {
  is_kept_returned_ = true;
  return {kept_, ++line_number_, std::exchange(is_too_long_, false)};
}

result<std::optional<line_reader::line>> line_reader::next() {
  if (std::exchange(is_kept_returned_, false))
    kept_.clear();
  for (;;) {
    const auto end = unread_.find('\n');
    if (end != std::string_view::npos) {
      const auto piece = unread_.substr(0, end);
      unread_.remove_prefix(end + 1);
      if (kept_.empty() && !is_too_long_ && piece.size() <= bytes_max_)
        return std::optional(line{piece, ++line_number_, false});
      keep(piece);
      return std::optional(finish_line());
    }
    keep(std::exchange(unread_, {}));
    CALLBOARD_TRY_ASSIGN(const bool more, refill());
    if (!more && (is_interrupted() || (kept_.empty() && !is_too_long_)))
      return std::optional<line>();
    if (!more)
      return std::optional(finish_line());
  }
}

} // namespace callboard::cli
