#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <type_traits>

/// Processes for tests: forked, each with a single thread.
namespace callboard::test {

/// One end of a two-way pipe that carries texts. Not thread-safe.
class pipe_end {
public:
  pipe_end(int reading, int writing) noexcept
      : reading_(reading), writing_(writing) {}
  pipe_end(const pipe_end&) = delete;
  pipe_end& operator=(const pipe_end&) = delete;
  ~pipe_end();

  /// Blocks while the pipe is full. False if the other end is gone.
  bool say(std::string_view text) const;
  /// Waits for what the other end says next; empty if the other end is gone.
  std::optional<std::string> hear() const;
  /// Whether the other end says just `text` next.
  bool hears(std::string_view text) const { return hear() == text; }

private:
  int reading_;
  int writing_;
};

/// A child process that does some work and ends. It never outlives its parent,
/// nor this object: it is killed.
///
/// Only for programs whose other threads hold nothing that the work needs.
class child_process {
public:
  /// Returns whether all was well. In the child, `parent` leads here. A failed
  /// REQUIRE is printed and ends the child; a failed CHECK is only printed.
  using work = std::function<bool(const pipe_end& parent)>;

  /// What `wait` returns if the work returned true; false; or threw, as REQUIRE
  /// does.
  static constexpr int succeeded = 0;
  static constexpr int failed = 1;
  static constexpr int threw = 2;

  explicit child_process(const work& job);
  child_process(const child_process&) = delete;
  child_process& operator=(const child_process&) = delete;
  ~child_process() { kill(); }

  bool say(std::string_view text) const { return pipe_->say(text); }
  std::optional<std::string> hear() const { return pipe_->hear(); }
  bool hears(std::string_view text) const { return pipe_->hears(text); }

  /// Waits until the child ends. Its exit status, or the negated number of the
  /// signal that killed it.
  int wait();
  /// Waits until the child is stopped by a signal; false if it ends instead.
  bool wait_until_stopped();
  /// Stops the child, which may be anywhere in its work.
  void stop();
  void resume();
  /// Kills the child, stopped or not, if it has not ended; waits for that.
  void kill();

private:
  pid_t id_ = 0;
  std::optional<pipe_end> pipe_;
};

/// Zeroed memory that this process shares with the children forked while this
/// object is there.
class shared_pages {
public:
  explicit shared_pages(std::size_t size);
  shared_pages(const shared_pages&) = delete;
  shared_pages& operator=(const shared_pages&) = delete;
  ~shared_pages();
  void* begin() const noexcept { return begin_; }

private:
  void* begin_;
  std::size_t size_;
};

/// A value in memory that children share, for counters and the like: its
/// members should be lock-free atomics or written by one process only.
template <class T>
class shared_with_children {
  static_assert(std::is_trivially_destructible_v<T>);

public:
  shared_with_children()
      : pages_(sizeof(T)), value_(new (pages_.begin()) T{}) {}
  T& operator*() const noexcept { return *value_; }
  T* operator->() const noexcept { return value_; }

private:
  shared_pages pages_;
  T* value_;
};

} // namespace callboard::test
