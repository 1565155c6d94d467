#pragma once

#include "core/bytes.hpp"
#include "core/io.hpp"
#include "core/result.hpp"
#include "simulation/machine.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// What libFuzzer calls, and what it offers to mutators.
extern "C" {
int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                    std::size_t max_size, unsigned seed);
std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size,
                             std::size_t max_size);
}

/// What the fuzzers share. Each file beside this one is a program that feeds
/// bytes to one decoder and checks what the decoder promises.
namespace callboard::fuzz {

/// Ends the process, so that the input is kept, if a promise is broken.
void require(bool holds, std::string_view promise);

/// The value of what can only fail if a promise is broken.
template <class T>
T need(result<T> outcome) {
  require(outcome.has_value(), outcome ? "" : outcome.error().message);
  return std::move(outcome).value();
}
void need(const result<void>& outcome);

inline std::span<const std::byte> as_input(const std::uint8_t* data,
                                           std::size_t size) {
  return std::as_bytes(std::span{data, size});
}

/// The input of a mutator.
inline std::span<std::byte> as_output(std::uint8_t* data, std::size_t size) {
  return std::as_writable_bytes(std::span{data, size});
}

/// Reads an input from its front; zeros behind its end.
class byte_source {
public:
  explicit byte_source(std::span<const std::byte> bytes) : rest_(bytes) {}

  template <class T>
  T take() {
    std::array<std::byte, sizeof(T)> bytes{};
    std::ranges::copy(take_bytes(sizeof(T)), bytes.begin());
    return load<T>(bytes, 0);
  }

  /// Fewer at the end.
  std::span<const std::byte> take_bytes(std::size_t count) {
    const auto taken = rest_.first(std::min(count, rest_.size()));
    rest_ = rest_.subspan(taken.size());
    return taken;
  }

  std::span<const std::byte> rest() const noexcept { return rest_; }

private:
  std::span<const std::byte> rest_;
};

/// Measures what this thread holds of memory that it allocated while the meter
/// lived. One at a time.
class allocation_meter {
public:
  allocation_meter();
  ~allocation_meter();
  allocation_meter(const allocation_meter&) = delete;
  allocation_meter& operator=(const allocation_meter&) = delete;

  /// The most that was held at once.
  std::size_t peak_bytes() const noexcept;

  /// Requires that this was at most `multiple` times `input_bytes` and
  /// `constant`.
  void require_at_most(std::size_t multiple, std::size_t input_bytes,
                       std::size_t constant) const;
};

class heap_mapping final : public mapping {
public:
  explicit heap_mapping(std::span<const std::byte> bytes)
      : bytes_(bytes.begin(), bytes.end()) {}
  std::span<const std::byte> bytes() const noexcept override { return bytes_; }

private:
  std::vector<std::byte> bytes_;
};

/// A simulated computer with one process and an empty directory.
class desk {
public:
  desk();

  io& door() { return process_->door(); }
  directory& home() { return *home_; }

  void write(std::string_view name, std::span<const std::byte> content);
  /// Requires: there is such a file.
  std::string read(std::string_view name) const;

private:
  static const simulation::machine& pristine();

  simulation::machine computer_;
  std::unique_ptr<simulation::process> process_;
  std::unique_ptr<directory> home_;
};

} // namespace callboard::fuzz
