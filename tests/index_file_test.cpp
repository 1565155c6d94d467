#include "core/bytes.hpp"
#include "core/index_file.hpp"
#include "core/liveness.hpp"
#include "tests/support/scratch_directory.hpp"

#include <catch2/catch.hpp>

#include <array>
#include <cstdint>
#include <limits>

using namespace callboard;
using namespace callboard::test;

namespace {

constexpr std::string_view where = "\"/data/x.index\"";

using header_bytes = std::array<std::byte, index_header_bytes>;

std::uint64_t file_bytes_of(const index_header& header) {
  return index_header_bytes + 4 * header.row_count * header.dimension;
}

result<index_header> decode(const header_bytes& bytes,
                            std::uint64_t file_bytes) {
  return decode_index_header(bytes, file_bytes, where);
}

/// A header of type `code` that is right but for that.
header_bytes header_of_type(std::string_view code) {
  auto bytes = encode_index_header({4, 2});
  std::copy_n(as_bytes(code).begin(), 4, bytes.begin());
  return bytes;
}

/// A header that says what it is told, of a file of 45 bytes.
errc code_of_counts(std::int32_t dimension, std::int64_t row_count,
                    std::uint64_t float_count, std::uint64_t file_bytes) {
  auto bytes = encode_index_header({1, 0});
  store_at(bytes, 4, dimension);
  store_at(bytes, 8, row_count);
  store_at(bytes, 37, float_count);
  return failure_of(decode(bytes, file_bytes)).code;
}

} // namespace

TEST_CASE("an index header reads back as it was written", "[index_file][B7]") {
  const index_header header = GENERATE(values<index_header>({
      {1, 0},
      {1, 1},
      {32, 180},
      {768, 1'000'000},
      {dimension_max, row_count_max},
  }));
  const auto bytes = encode_index_header(header);
  const auto read = need(decode(bytes, file_bytes_of(header)));
  CHECK(read.dimension == header.dimension);
  CHECK(read.row_count == header.row_count);
}

TEST_CASE("an index header is byte for byte the one that faiss writes",
          "[index_file][B7]") {
  const std::string store = GENERATE("empty/e/faiss_index_chunks.index",
                                     "small/demo/faiss_index_entities.index",
                                     "small/demo/faiss_index_chunks.index",
                                     "nows/faiss_index_entities.index");
  const auto file =
      read_file(std::filesystem::path(CALLBOARD_GOLDEN_DIR) / "stores" / store);
  const auto header =
      need(decode_index_header(as_bytes(file), file.size(), where));
  const auto bytes = encode_index_header(header);
  CHECK(as_text(bytes) == std::string_view(file).substr(0, index_header_bytes));
}

TEST_CASE("every flipped bit of an index header is refused, but for the two "
          "fields that nobody reads",
          "[index_file]") {
  const index_header header{3, 5};
  for (std::size_t bit = 0; bit < 8 * index_header_bytes; ++bit) {
    INFO("bit " << bit);
    auto bytes = encode_index_header(header);
    bytes[bit / 8] ^= std::byte{1} << (bit % 8);
    const bool is_unused = bit / 8 >= 16 && bit / 8 < 32;
    const auto read = decode(bytes, file_bytes_of(header));
    CHECK(read.has_value() == is_unused);
    if (read)
      CHECK((read->dimension == 3 && read->row_count == 5));
    else
      CHECK(contains(read.error().message, where));
  }
}

TEST_CASE("counts whose product wraps around do not pass as a small file",
          "[index_file]") {
  constexpr auto row_max = std::numeric_limits<std::int64_t>::max();
  CHECK(code_of_counts(1024, std::int64_t{1} << 52, 0, 45) == errc::corrupt);
  CHECK(code_of_counts(1, std::int64_t{1} << 62, 0, 45) == errc::corrupt);
  CHECK(code_of_counts(1, row_max, 0, 45) == errc::corrupt);
  CHECK(code_of_counts(1, -1, ~std::uint64_t{0}, 41) == errc::corrupt);
  CHECK(code_of_counts(-1, -1, 1, 49) == errc::corrupt);
  CHECK(code_of_counts(0, 0, 0, 45) == errc::corrupt);
  CHECK(code_of_counts(0, 5, 0, 45) == errc::corrupt);
  CHECK(code_of_counts(1 << 30, std::int64_t{1} << 32, 0, 45) == errc::corrupt);
  CHECK(code_of_counts(65'537, 1, 65'537, 45 + 4 * 65'537) == errc::corrupt);
  CHECK(code_of_counts(1, std::int64_t{1} << 31, std::uint64_t{1} << 31,
                       45 + (std::uint64_t{4} << 31))
        == errc::corrupt);
  CHECK(code_of_counts(4, 2, std::uint64_t{1} << 39, 77) == errc::corrupt);
}

TEST_CASE("an index file must have exactly the size that its header says",
          "[index_file]") {
  const index_header header{4, 2};
  const auto bytes = encode_index_header(header);
  CHECK(decode(bytes, 77));
  for (const std::uint64_t size : {0u, 44u, 45u, 76u, 78u, 154u})
    CHECK(failure_of(decode(bytes, size)).code == errc::corrupt);
  CHECK_FALSE(decode(bytes, ~std::uint64_t{0}));
}

TEST_CASE("an index header that is cut is refused at any length",
          "[index_file][B25]") {
  const auto bytes = encode_index_header({4, 2});
  for (std::size_t size = 0; size < index_header_bytes; ++size) {
    const auto part = std::span(bytes).first(size);
    CHECK(failure_of(decode_index_header(part, size, where)).code
          == errc::corrupt);
  }
}

TEST_CASE("an index of another type is named, not misread",
          "[index_file][B21]") {
  struct foreign {
    const char* code;
    const char* name;
  };
  const foreign type = GENERATE(values<foreign>({
      {"IxF2", "IndexFlatL2"},
      {"IHNf", "IndexHNSWFlat"},
      {"IwFl", "IndexIVFFlat"},
      {"IxMp", "IndexIDMap"},
      {"IxZz", "IxZz"},
  }));
  const auto why = failure_of(decode(header_of_type(type.code), 77));
  CHECK(why.code == errc::unsupported_format);
  CHECK(contains(why.message, type.name));
  CHECK(contains(why.message, where));
}

TEST_CASE("an index with another metric is unsupported", "[index_file][B21]") {
  auto bytes = encode_index_header({4, 2});
  store_at(bytes, 33, std::int32_t{1});
  CHECK(failure_of(decode(bytes, 77)).code == errc::unsupported_format);
}

TEST_CASE("a file that is no faiss index is damaged", "[index_file][B25]") {
  CHECK(failure_of(decode(header_of_type("{\"0\""), 77)).code == errc::corrupt);
  CHECK(failure_of(decode(header_of_type("abcd"), 77)).code == errc::corrupt);
}
