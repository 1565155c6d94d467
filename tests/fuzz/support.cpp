#include "tests/fuzz/support.hpp"

#include <cstdio>
#include <cstdlib>
#include <sanitizer/allocator_interface.h>

namespace callboard::fuzz {

namespace {

constexpr std::string_view home_path = "/home";

thread_local bool is_metering = false;
// Of this thread, since the meter was made:
thread_local std::int64_t held_bytes = 0;
thread_local std::int64_t peak = 0;

void on_allocated(const volatile void*, std::size_t size) {
  if (!is_metering)
    return;
  held_bytes += static_cast<std::int64_t>(size);
  peak = std::max(peak, held_bytes);
}

void on_freed(const volatile void* address) {
  if (is_metering && address != nullptr)
    held_bytes -= static_cast<std::int64_t>(
        __sanitizer_get_allocated_size(const_cast<const void*>(address)));
}

std::string path_of(std::string_view name) {
  return std::string(home_path) + '/' + std::string(name);
}

} // namespace

void require(bool holds, std::string_view promise) {
  if (holds)
    return;
  std::fprintf(stderr, "broken promise: %.*s\n",
               static_cast<int>(promise.size()), promise.data());
  std::abort();
}

void need(const result<void>& outcome) {
  if (!outcome)
    require(false, outcome.error().message);
}

allocation_meter::allocation_meter() {
  static const int installed =
      __sanitizer_install_malloc_and_free_hooks(on_allocated, on_freed);
  require(installed > 0, "allocations can be measured");
  held_bytes = 0;
  peak = 0;
  is_metering = true;
}

allocation_meter::~allocation_meter() {
  is_metering = false;
}

std::size_t allocation_meter::peak_bytes() const noexcept {
  return static_cast<std::size_t>(peak);
}

void allocation_meter::require_at_most(std::size_t multiple,
                                       std::size_t input_bytes,
                                       std::size_t constant) const {
  const auto limit = multiple * input_bytes + constant;
  const auto used = peak_bytes();
  if (used > limit)
    require(false, "at most " + std::to_string(limit) + " bytes are held for "
                       + std::to_string(input_bytes) + " bytes of input, but "
                       + std::to_string(used) + " were");
}

const simulation::machine& desk::pristine() {
  static const auto made = [] {
    simulation::machine computer(1);
    const auto process = computer.start_process();
    need(process->door().open_directory(home_path, true));
    return computer;
  }();
  return made;
}

desk::desk()
    : computer_(pristine().clone(1)),
      process_(computer_.start_process()),
      home_(need(process_->door().open_directory(home_path, false))) {}

void desk::write(std::string_view name, std::span<const std::byte> content) {
  computer_.write_file(path_of(name), as_text(content));
}

std::string desk::read(std::string_view name) const {
  auto content = computer_.read_file(path_of(name));
  require(content.has_value(), "the file exists");
  return std::move(*content);
}

} // namespace callboard::fuzz
