#pragma once

#include "core/io.hpp"
#include "core/result.hpp"

#include <catch2/catch.hpp>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace callboard::test {

/// The value of `outcome`; the test fails if there is none.
template <class T>
T need(result<T> outcome) {
  if (!outcome)
    FAIL(outcome.error().message);
  return std::move(outcome).value();
}

inline void need(const result<void>& outcome) {
  if (!outcome)
    FAIL(outcome.error().message);
}

/// Why `outcome` failed; the test fails if it did not.
template <class T>
failure failure_of(const result<T>& outcome) {
  REQUIRE_FALSE(outcome.has_value());
  return outcome.error();
}

inline bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

/// A new directory, removed with all that is in it.
class scratch_directory {
public:
  scratch_directory() {
    auto name =
        (std::filesystem::temp_directory_path() / "callboard-test-XXXXXX")
            .string();
    if (::mkdtemp(name.data()) == nullptr)
      FAIL("cannot make a directory for the test");
    path_ = name;
  }
  scratch_directory(const scratch_directory&) = delete;
  scratch_directory& operator=(const scratch_directory&) = delete;
  ~scratch_directory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  const std::filesystem::path& path() const noexcept { return path_; }
  std::filesystem::path operator/(std::string_view name) const {
    return path_ / name;
  }

  std::unique_ptr<directory> open(io& door = posix_io()) const {
    return need(door.open_directory(path_.string(), false));
  }

private:
  std::filesystem::path path_;
};

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in)
    FAIL("cannot read " << path);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void write_file(const std::filesystem::path& path,
                       std::string_view content) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(content.data(), static_cast<std::streamsize>(content.size()));
  out.close();
  if (!out)
    FAIL("cannot write " << path);
}

inline std::string with_flipped_bit(std::string content, std::size_t bit) {
  content[bit / 8] = static_cast<char>(content[bit / 8] ^ (1 << (bit % 8)));
  return content;
}

} // namespace callboard::test
