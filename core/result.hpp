#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace callboard {

/// What went wrong, in the classes a caller can act on. The names (see
/// `to_string`) are part of the command's `--json` output: do not rename.
enum class errc : std::uint8_t {
  /// A parameter or record is unusable; the message names it.
  invalid_argument = 1,
  /// The vector's dimension differs from the store's.
  dimension_mismatch,
  /// The store was written with another embedding model.
  model_mismatch,
  /// A file has another index type or metric than this library stores.
  unsupported_format,
  /// A file's bytes are damaged. Nothing was overwritten.
  corrupt,
  /// The operating system refused or failed a file operation.
  io_failure,
  /// The file system is full. Nothing was lost.
  no_space,
  /// The directory or file may not be written or read.
  permission_denied,
  /// Somebody holds the lock, or a bounded queue is full. Try again later.
  busy,
  /// A limit of the format would be exceeded.
  too_large,
  /// The embedder failed or answered nonsense. Nothing was committed.
  embedding_failed,
  /// A sync failed: this handle no longer writes. Reopen the store.
  broken,
  /// Another commit came first (see `expected_generation`).
  conflict,
  /// The runtime or actor is shutting down.
  closed,
  /// The file or directory does not exist.
  not_found,
  /// What was waited for did not come in time. Nothing was changed.
  timed_out,
};

/// The stable name of `code`, e.g. "dimension_mismatch".
std::string_view to_string(errc code) noexcept;

/// Why an operation failed: its class and a sentence that says what, where and
/// what to do.
struct failure {
  errc code = errc::invalid_argument;
  std::string message;
};

/// A value or the reason why there is none. Member names are those of
/// `std::expected`, which replaces this file when C++23 can be required.
template <class T>
class [[nodiscard]] result {
public:
  using value_type = T;

  result(T value) : data_(std::in_place_index<0>, std::move(value)) {}
  result(failure reason) : data_(std::in_place_index<1>, std::move(reason)) {}

  bool has_value() const noexcept { return data_.index() == 0; }
  explicit operator bool() const noexcept { return has_value(); }

  /// Requires: `has_value()`; throws `std::bad_variant_access` otherwise.
  T& value() & { return std::get<0>(data_); }
  const T& value() const& { return std::get<0>(data_); }
  T&& value() && { return std::get<0>(std::move(data_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  /// Requires: `!has_value()`.
  failure& error() & { return std::get<1>(data_); }
  const failure& error() const& { return std::get<1>(data_); }
  failure&& error() && { return std::get<1>(std::move(data_)); }

private:
  std::variant<T, failure> data_;
};

template <>
class [[nodiscard]] result<void> {
public:
  using value_type = void;

  result() = default;
  result(failure reason) : failed_(true), error_(std::move(reason)) {}

  bool has_value() const noexcept { return !failed_; }
  explicit operator bool() const noexcept { return !failed_; }

  failure& error() & { return error_; }
  const failure& error() const& { return error_; }
  failure&& error() && { return std::move(error_); }

private:
  bool failed_ = false;
  failure error_;
};

} // namespace callboard

/// Evaluates `expression` (a `result`); on failure returns its error from the
/// enclosing function, which must itself return a `result`.
#define CALLBOARD_TRY(expression)                                              \
  do {                                                                         \
    if (auto callboard_try_ = (expression); !callboard_try_)                   \
      return std::move(callboard_try_).error();                                \
  } while (false)

#define CALLBOARD_CONCAT_INNER(a, b) a##b
#define CALLBOARD_CONCAT(a, b) CALLBOARD_CONCAT_INNER(a, b)

/// `CALLBOARD_TRY_ASSIGN(auto x, f())`: declares or assigns the value of a
/// `result`, or returns its error from the enclosing function.
#define CALLBOARD_TRY_ASSIGN(target, expression)                               \
  CALLBOARD_TRY_ASSIGN_IMPL(CALLBOARD_CONCAT(callboard_result_, __LINE__),     \
                            target, expression)
#define CALLBOARD_TRY_ASSIGN_IMPL(name, target, expression)                    \
  auto name = (expression);                                                    \
  if (!name)                                                                   \
    return std::move(name).error();                                            \
  target = std::move(name).value()
