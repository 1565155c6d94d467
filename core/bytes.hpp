#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>
#include <xxhash.h>

/// Little-endian encoding and checksums of everything this library writes.
namespace callboard {

static_assert(std::endian::native == std::endian::little,
              "files are mapped and written in the machine's byte order");

/// XXH3 with 64 bits.
inline std::uint64_t checksum(std::span<const std::byte> bytes,
                              std::uint64_t seed = 0) noexcept {
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
}

inline std::span<const std::byte> as_bytes(std::string_view text) noexcept {
  return std::as_bytes(std::span{text.data(), text.size()});
}

inline std::string_view as_text(std::span<const std::byte> bytes) noexcept {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// The value at `offset`. Requires: it lies within `bytes`.
template <class T>
requires std::is_trivially_copyable_v<T>
    T load(std::span<const std::byte> bytes, std::size_t offset)
noexcept {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

template <class T>
requires std::is_trivially_copyable_v<T>
void store_at(std::span<std::byte> bytes, std::size_t offset,
              const T& value) noexcept {
  std::memcpy(bytes.data() + offset, &value, sizeof(T));
}

inline void append_bytes(std::vector<std::byte>& out,
                         std::span<const std::byte> bytes) {
  out.insert(out.end(), bytes.begin(), bytes.end());
}

template <class T>
requires std::is_trivially_copyable_v<T>
void append_value(std::vector<std::byte>& out, const T& value) {
  append_bytes(out, std::as_bytes(std::span{&value, 1}));
}

inline void pad_to(std::vector<std::byte>& out, std::size_t alignment) {
  while (out.size() % alignment != 0)
    out.push_back(std::byte{0});
}

constexpr std::uint64_t round_up(std::uint64_t value,
                                 std::uint64_t alignment) noexcept {
  return (value + alignment - 1) / alignment * alignment;
}

} // namespace callboard
