#include "core/words_embedder.hpp"
#include "tests/support/faulty_io.hpp"
#include "tests/support/scratch_directory.hpp"

#include <catch2/catch.hpp>

#include <cmath>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <vector>
#include <xxhash.h>

using namespace callboard;
using namespace callboard::test;

namespace {

template <class T>
errc code_of(const result<T>& outcome) {
  REQUIRE_FALSE(outcome.has_value());
  return outcome.error().code;
}

/// An empty directory, gone after the test.
class scratch {
public:
  std::unique_ptr<directory> open(io& door = posix_io()) const {
    return need(door.open_directory(path_, false));
  }

  std::string read(const std::string& name) const {
    std::ifstream in(path_ + '/' + name, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  void write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path_ + '/' + name, std::ios::binary) << bytes;
  }

private:
  scratch_directory place_;
  std::string path_ = place_.path().string();
};

std::vector<float> vector_of(words_embedder& model, const std::string& text) {
  const auto batch =
      need(model.embed(std::span(&text, 1), embedding_context::document));
  REQUIRE(batch.rejected.empty());
  REQUIRE(batch.vectors.size() == model.dimension());
  return batch.vectors;
}

double cosine(const std::vector<float>& a, const std::vector<float>& b) {
  double product = 0;
  double a_square = 0;
  double b_square = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    product += double{a[i]} * double{b[i]};
    a_square += double{a[i]} * double{a[i]};
    b_square += double{b[i]} * double{b[i]};
  }
  return product / std::sqrt(a_square * b_square);
}

double likeness(words_embedder& model, const std::string& a,
                const std::string& b) {
  return cosine(vector_of(model, a), vector_of(model, b));
}

word_frequencies trained(const std::vector<std::string>& documents) {
  word_frequencies out;
  for (const auto& document : documents)
    out.add(document);
  return out;
}

word_frequencies small_table() {
  return trained({"the cat sat on the mat", "the dog sat on the log",
                  "the rain in spain", "a dog and a cat"});
}

template <class Integer>
void overwrite(std::string& bytes, std::size_t offset, Integer value) {
  for (std::size_t i = 0; i < sizeof(Integer); ++i)
    bytes[offset + i] = static_cast<char>(
        static_cast<unsigned char>(std::uint64_t{value} >> (8 * i)));
}

/// Makes the checksum right, as one with bad intentions would.
std::string sealed(std::string bytes) {
  const auto content = bytes.size() - 8;
  overwrite(bytes, content, std::uint64_t{XXH3_64bits(bytes.data(), content)});
  return bytes;
}

} // namespace

TEST_CASE("the vectors of words are the same bits everywhere and for ever",
          "[words]") {
  struct pinned {
    std::size_t dimension;
    const char* name;
    std::uint64_t uniform;
    const char* name_with_table;
    std::uint64_t with_table;
  };
  const auto pin = GENERATE(
      values<pinned>({{8, "words:8", 0x7b91f4ac5f3b2f4b, "words:8+idf-4fa6ea9b",
                       0x8d8b53c3d565db58},
                      {100, "words:100", 0x505405c24b3f179b,
                       "words:100+idf-4fa6ea9b", 0x9f2d1198f70b9aea},
                      {256, "words:256", 0x1d05f2043f918c3f,
                       "words:256+idf-4fa6ea9b", 0x4148fe6c477a8635},
                      {1024, "words:1024", 0x895b8992894ba747,
                       "words:1024+idf-4fa6ea9b", 0x0415532e375098a3}}));
  INFO("dimension " << pin.dimension);
  const std::vector<std::string> texts{
      "The quick brown fox jumps over the lazy dog; the dog sleeps.",
      "Gr\u00fc\u00dfe aus K\u00f6ln \u2014 \u4f60\u597d\uff0c\u4e16\u754c"
      "\u3002",
      "cat"};
  auto checksum = [&](words_embedder& model) {
    const auto batch = need(model.embed(texts, embedding_context::document));
    CHECK(batch.rejected.empty());
    return XXH3_64bits(batch.vectors.data(),
                       batch.vectors.size() * sizeof(float));
  };
  auto uniform = need(words_embedder::create(pin.dimension));
  CHECK(uniform->name() == pin.name);
  CHECK(checksum(*uniform) == pin.uniform);
  auto weighted = need(words_embedder::create(pin.dimension, small_table()));
  CHECK(weighted->name() == pin.name_with_table);
  CHECK(checksum(*weighted) == pin.with_table);
}

TEST_CASE("a word has eight places of one size", "[words]") {
  const auto dimension = GENERATE(as<std::size_t>(), 8, 9, 100, 256, 65'536);
  auto model = need(words_embedder::create(dimension));
  std::multiset<float> sizes;
  for (auto value : vector_of(*model, "banana"))
    if (value != 0)
      sizes.insert(std::abs(value));
  CHECK(sizes.size() == 8);
  CHECK(sizes.count(6.0f) == 8); // its length
}

TEST_CASE("case and punctuation make no difference", "[words]") {
  auto model = need(words_embedder::create());
  const auto plain = vector_of(*model, "hello brave new world 42");
  CHECK(vector_of(*model, "Hello, BRAVE new-world: (42)!\n") == plain);
  CHECK(vector_of(*model,
                  "\u201cHello\u201d\u2014brave\u00a0new\u3000world\uff0c"
                  "42\u2026")
        == plain);
}

TEST_CASE("documents and queries are embedded alike", "[words]") {
  auto model = need(words_embedder::create());
  const std::vector<std::string> texts{"one and the same"};
  CHECK(need(model->embed(texts, embedding_context::document)).vectors
        == need(model->embed(texts, embedding_context::query)).vectors);
}

TEST_CASE("texts are alike as far as they share words", "[words]") {
  auto model = need(words_embedder::create(1024));
  const std::string text = "the ferry to the island leaves at noon";
  const auto same_words =
      likeness(*model, text, "at noon the ferry leaves to the island");
  const auto some_words = likeness(*model, text, "when does the ferry leave");
  const auto no_words = likeness(*model, text, "budget report for march");
  CHECK(same_words > 0.8);
  CHECK(same_words < 0.99); // pairs tell the order
  CHECK(some_words < 0.6);
  CHECK(some_words > 0.15);
  CHECK(std::abs(no_words) < 0.12);
}

TEST_CASE("Chinese and Japanese characters are words of their own", "[words]") {
  auto model = need(words_embedder::create(1024));
  const std::string text = "\u5317\u4eac\u5927\u5b66";
  CHECK(likeness(*model, text, "\u6e05\u534e\u5927\u5b66") > 0.3);
  CHECK(likeness(*model, text, "\u5927\u5b66\u3002\u5317\u4eac") > 0.8);
  CHECK(std::abs(likeness(*model, text, "\u3053\u3093\u306b\u3061\u306f"))
        < 0.12);
  CHECK(likeness(*model, "\U00020000\U00020001", "\U00020001x") > 0.4);
}

TEST_CASE("a text without words is rejected, the others of its batch are not",
          "[words]") {
  auto model = need(words_embedder::create());
  const std::vector<std::string> texts{"good", "", " -- ?! \u2026 \u3002",
                                       "good"};
  const auto batch = need(model->embed(texts, embedding_context::document));
  REQUIRE(batch.vectors.size() == 4 * model->dimension());
  REQUIRE(batch.rejected.size() == 2);
  CHECK(batch.rejected[0].index == 1);
  CHECK(batch.rejected[1].index == 2);
  CHECK(contains(batch.rejected[0].message, "has no words"));
  const auto row = [&](std::size_t i) {
    const auto begin = batch.vectors.begin()
                       + static_cast<std::ptrdiff_t>(i * model->dimension());
    return std::vector<float>(
        begin, begin + static_cast<std::ptrdiff_t>(model->dimension()));
  };
  CHECK(row(0) == vector_of(*model, "good"));
  CHECK(row(3) == row(0));
}

TEST_CASE("a text whose words cancel each other out is rejected", "[words]") {
  auto model = need(words_embedder::create(8));
  const std::vector<std::string> texts{"fn zl jm"};
  const auto batch = need(model->embed(texts, embedding_context::document));
  REQUIRE(batch.rejected.size() == 1);
  CHECK(contains(batch.rejected[0].message, "larger dimension"));
}

TEST_CASE("any bytes can be embedded", "[words]") {
  const auto seed = GENERATE(range(0u, 200u));
  INFO("seed " << seed);
  std::mt19937 random(seed);
  std::string text;
  for (auto length = random() % 200; length > 0; --length)
    text.push_back(static_cast<char>(random() % 3 == 0 ? 0xC0 + random() % 64
                                                       : random() % 256));
  auto model = need(words_embedder::create(64, small_table()));
  const auto batch =
      need(model->embed(std::span(&text, 1), embedding_context::document));
  CHECK(batch.vectors.size() == 64);
  for (auto value : batch.vectors)
    CHECK(std::isfinite(value));
}

TEST_CASE("dimensions of words are 8 to 65536", "[words]") {
  for (std::size_t dimension :
       {std::size_t{0}, std::size_t{7}, std::size_t{65'537},
        std::numeric_limits<std::size_t>::max()})
    CHECK(code_of(words_embedder::create(dimension)) == errc::invalid_argument);
  CHECK(need(words_embedder::create(8))->dimension() == 8);
  CHECK(need(words_embedder::create(65'536))->dimension() == 65'536);
  CHECK(need(words_embedder::create())->dimension() == 256);
}

TEST_CASE("rare words count more with a table", "[words][frequencies]") {
  std::vector<std::string> documents;
  for (int i = 0; i < 100; ++i)
    documents.push_back(i % 25 == 0 ? "common zebra" : "common horse");
  auto uniform = need(words_embedder::create(1024));
  auto weighted = need(words_embedder::create(1024, trained(documents)));
  const std::string text = "common zebra";
  CHECK(likeness(*weighted, text, "zebra")
        > likeness(*uniform, text, "zebra") + 0.1);
  CHECK(likeness(*weighted, text, "common")
        < likeness(*uniform, text, "common") - 0.1);
  // A word that the table does not have is rarer than all that it has.
  CHECK(likeness(*weighted, "zebra unheard", "unheard")
        > likeness(*weighted, "zebra unheard", "zebra"));
}

TEST_CASE("a table of no documents is usable", "[words][frequencies]") {
  auto model = need(words_embedder::create(64, word_frequencies()));
  CHECK(likeness(*model, "one two", "one two") > 0.999);
}

TEST_CASE("the name tells tables apart, whatever order they were trained in",
          "[words][frequencies]") {
  auto name = [](const word_frequencies& table) {
    return need(words_embedder::create(32, table))->name();
  };
  const std::vector<std::string> documents{"a b c", "b c d", "c d e"};
  const std::vector<std::string> reversed(documents.rbegin(), documents.rend());
  CHECK(name(trained(documents)) == name(trained(reversed)));
  CHECK(name(trained(documents)) != name(trained({"a b c", "b c d"})));
  CHECK(name(trained(documents)).starts_with("words:32+idf-"));
}

TEST_CASE("a saved table loads as it was", "[words][frequencies]") {
  const scratch place;
  auto home = place.open();
  const auto table = small_table();
  REQUIRE(table.save(*home, "idf"));
  CHECK(place.read("idf") == table.encode());
  CHECK(need(home->list()) == std::vector<std::string>{"idf"});
  const auto loaded = need(word_frequencies::load(*home, "idf"));
  CHECK(loaded.document_count() == 4);
  CHECK(loaded.encode() == table.encode());
  auto before = need(words_embedder::create(64, table));
  auto after = need(words_embedder::create(64, loaded));
  CHECK(before->name() == after->name());
  const std::string text = "the spanish cat and an unknown word";
  CHECK(vector_of(*before, text) == vector_of(*after, text));
}

TEST_CASE("a loaded table can be trained further", "[words][frequencies]") {
  const std::vector<std::string> first{"a b", "a b"};
  const std::vector<std::string> all{"a b", "a b", "a c", "c"};
  auto table =
      need(word_frequencies::decode(trained(first).encode(), "a test"));
  table.add(all[2]);
  table.add(all[3]);
  CHECK(table.document_count() == 4);
  CHECK(table.encode() == trained(all).encode());
}

TEST_CASE("a table of damaged bytes is refused", "[words][frequencies]") {
  const auto good = small_table().encode();
  REQUIRE(word_frequencies::decode(good, "a test"));
  for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
    auto bytes = good;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
    CHECK_FALSE(word_frequencies::decode(bytes, "a test"));
  }
  for (std::size_t size = 0; size < good.size(); ++size)
    CHECK_FALSE(word_frequencies::decode(good.substr(0, size), "a test"));
  CHECK_FALSE(word_frequencies::decode(good + '\0', "a test"));
}

TEST_CASE("a table with impossible numbers is refused in spite of its checksum",
          "[words][frequencies]") {
  const auto good = small_table().encode();
  const std::size_t count = (good.size() - 32) / 12;
  REQUIRE(count == 5); // the, cat, sat, on, dog
  auto refused = [&](std::size_t offset, auto value) {
    auto bytes = good;
    overwrite(bytes, offset, value);
    return code_of(word_frequencies::decode(sealed(bytes), "a test"));
  };
  CHECK(refused(8, std::uint32_t{2}) == errc::unsupported_format);
  CHECK(refused(12, std::uint32_t{4}) == errc::corrupt);
  CHECK(refused(12, std::uint32_t{0xFFFFFFFF}) == errc::corrupt);
  CHECK(refused(16, std::uint64_t{1}) == errc::corrupt);
  CHECK(refused(16, ~std::uint64_t{0}) == errc::corrupt);
  CHECK(refused(24, ~std::uint64_t{0}) == errc::corrupt);
  CHECK(refused(32, std::uint64_t{0}) == errc::corrupt);
  CHECK(refused(24 + 8 * count, std::uint32_t{0}) == errc::corrupt);
  CHECK(refused(24 + 8 * count, std::uint32_t{1}) == errc::corrupt);
  CHECK(refused(24 + 8 * count, std::uint32_t{5}) == errc::corrupt);
}

TEST_CASE("files that are no table are refused by name",
          "[words][frequencies]") {
  const scratch place;
  auto home = place.open();
  CHECK(code_of(word_frequencies::load(*home, "none")) == errc::not_found);
  place.write("empty", "");
  place.write("text", std::string(1000, 'x'));
  place.write("large", "");
  need(home->open_file("large", open_mode::read_write));
  REQUIRE(need(home->open_file("large", open_mode::read_write))
              ->truncate(std::uint64_t{1} << 40));
  for (const auto* name : {"empty", "text", "large"}) {
    const auto loaded = word_frequencies::load(*home, name);
    REQUIRE(code_of(loaded) == errc::corrupt);
    CHECK(contains(loaded.error().message, name));
  }
}

TEST_CASE("a table is replaced whole or not at all, whatever fails",
          "[words][frequencies]") {
  const auto old_table = trained({"old words", "old words"});
  const auto new_table = small_table();
  std::size_t operations = 0;
  {
    const scratch place;
    faulty_io dry;
    auto home = place.open(dry);
    const auto first = dry.operation_count();
    REQUIRE(new_table.save(*home, "idf"));
    operations = dry.operation_count() - first;
  }
  REQUIRE(operations >= 5);
  for (std::size_t i = 0; i < operations; ++i) {
    INFO("operation " << i << " fails");
    const scratch place;
    REQUIRE(old_table.save(*place.open(), "idf"));
    faulty_io disk;
    auto home = place.open(disk);
    disk.fail_at(disk.operation_count() + i, errc::no_space);
    const auto saved = new_table.save(*home, "idf");
    REQUIRE_FALSE(saved);
    CHECK(saved.error().code == errc::no_space);
    const auto found = need(word_frequencies::load(*place.open(), "idf"));
    const bool is_old = found.encode() == old_table.encode();
    const bool is_new = found.encode() == new_table.encode();
    CHECK((is_old || is_new));
    // A failed save can be tried again.
    REQUIRE(new_table.save(*place.open(), "idf"));
    CHECK(need(word_frequencies::load(*place.open(), "idf")).encode()
          == new_table.encode());
  }
}
