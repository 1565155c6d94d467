#include "actors/embedder_spec.hpp"
#include "core/words_embedder.hpp"
#include "tests/support/scratch_directory.hpp"

#include <catch2/catch.hpp>

#include <string>
#include <vector>

using namespace callboard;
using namespace callboard::test;

namespace {

std::shared_ptr<embedder> make(const std::string& spec,
                               std::size_t dimension = 0,
                               const command_settings& settings = {}) {
  auto made = make_embedder(spec, dimension, posix_io(), settings);
  if (!made)
    FAIL(made.error().message);
  return std::move(made).value();
}

failure refusal(const std::string& spec, std::size_t dimension = 0) {
  const auto made = make_embedder(spec, dimension, posix_io());
  REQUIRE_FALSE(made.has_value());
  return made.error();
}

/// A directory with a table "idf", gone after the test.
class scratch {
public:
  scratch() {
    word_frequencies table;
    table.add("a b");
    table.add("b c");
    auto home = posix_io().open_directory(path_, false);
    REQUIRE(home);
    REQUIRE(table.save(**home, "idf,with comma"));
  }
  std::string table() const { return path_ + "/idf,with comma"; }
  const std::string& path() const { return path_; }

private:
  scratch_directory place_;
  std::string path_ = place_.path().string();
};

} // namespace

TEST_CASE("\"words\" takes its dimension from the spec or beside it",
          "[embedder_spec]") {
  CHECK(make("words")->name() == "words:256");
  CHECK(make("words", 64)->name() == "words:64");
  CHECK(make("words:64")->name() == "words:64");
  CHECK(make("words:64", 64)->dimension() == 64);
}

TEST_CASE("dimensions that do not agree are refused", "[embedder_spec]") {
  const auto reason = refusal("words:64", 128);
  CHECK(reason.code == errc::dimension_mismatch);
  CHECK(contains(reason.message, "64"));
  CHECK(contains(reason.message, "128"));
}

TEST_CASE("dimensions out of range are refused", "[embedder_spec]") {
  CHECK(refusal("words:7").code == errc::invalid_argument);
  CHECK(refusal("words", 65'537).code == errc::invalid_argument);
  CHECK(refusal("command:cat", 65'537).code == errc::invalid_argument);
}

TEST_CASE("\"words\" weighs by the table that the spec names",
          "[embedder_spec]") {
  const scratch place;
  CHECK(
      contains(make("words:64,idf=" + place.table())->name(), "words:64+idf-"));
  CHECK(contains(make("words,idf=" + place.table())->name(), "words:256+idf-"));
  CHECK(refusal("words,idf=" + place.path() + "/none").code == errc::not_found);
  CHECK(refusal("words,idf=" + place.path() + "/none/idf").code
        == errc::not_found);
}

TEST_CASE("\"command\" runs a program of the dimension given",
          "[embedder_spec]") {
  const auto model =
      make("command:read -r line; echo '{\"vectors\": [[1, 2]]}'", 2,
           {.model_name = "two", .time_limit = std::chrono::seconds(60)});
  CHECK(model->dimension() == 2);
  CHECK(model->name() == "two");
  const std::vector<std::string> texts{"text"};
  const auto batch = model->embed(texts, embedding_context::query);
  if (!batch)
    FAIL(batch.error().message);
  CHECK(batch->vectors == std::vector<float>{1, 2});
  CHECK(make("command:cat", 3)->name().empty());
}

TEST_CASE("\"command\" without a dimension is refused", "[embedder_spec]") {
  const auto reason = refusal("command:cat");
  CHECK(reason.code == errc::invalid_argument);
  CHECK(contains(reason.message, "dimension"));
}

TEST_CASE("unknown embedders are answered with the known forms",
          "[embedder_spec]") {
  const std::string spec =
      GENERATE("", "word", "wordsmith", "words:", "words:12x", "words:-8",
               "words: 64", "words:99999999999999999999999", "words,", "words;",
               "words:64,", "words:64,idf=", "words:64,other=1", "command",
               "command:", "openai:model", "WORDS");
  INFO(spec);
  const auto reason = refusal(spec);
  CHECK(reason.code == errc::invalid_argument);
  CHECK(contains(reason.message, "words:DIMENSION"));
  CHECK(contains(reason.message, "idf=FILE"));
  CHECK(contains(reason.message, "command:"));
  CHECK(contains(reason.message, '"' + spec + '"'));
}
