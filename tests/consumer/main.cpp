// A program outside the project: finds the installed package, stores a record
// and gets it back.
#include "actors/client.hpp"
#include "core/embedder.hpp"

#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace {

/// Knows two things about a text: how many vowels and how many other
/// characters it has.
class vowel_embedder : public callboard::embedder {
public:
  std::size_t dimension() const override { return 2; }
  std::string name() const override { return "vowels"; }

  callboard::result<callboard::embedding_batch>
  embed(std::span<const std::string> texts,
        callboard::embedding_context) override {
    callboard::embedding_batch batch;
    for (const auto& text : texts) {
      float vowels = 0;
      for (char character : text)
        if (std::string_view("aeiou").find(character) != std::string::npos)
          ++vowels;
      batch.vectors.push_back(vowels);
      batch.vectors.push_back(static_cast<float>(text.size()) - vowels);
    }
    return batch;
  }
};

callboard::result<std::string> best_match(const std::string& directory) {
  CALLBOARD_TRY_ASSIGN(auto runtime, callboard::runtime::start());
  callboard::open_options options;
  options.working_directory = directory;
  options.namespace_name = "chunks";
  options.model = std::make_shared<vowel_embedder>();
  CALLBOARD_TRY_ASSIGN(auto store, runtime->open(std::move(options)));
  CALLBOARD_TRY(store.upsert("island", R"({"content": "aeiouaeiou"})"));
  CALLBOARD_TRY(store.upsert("rhythm", R"({"content": "rhythms"})"));
  CALLBOARD_TRY(store.commit());
  callboard::query_options best_only;
  best_only.top_k = 1;
  CALLBOARD_TRY_ASSIGN(auto hits, store.query("myth", best_only));
  return hits.empty() ? std::string("nothing") : hits.front().id;
}

} // namespace

int main() {
  auto directory = std::filesystem::temp_directory_path() / "callboard-XXXXXX";
  auto path = directory.string();
  if (::mkdtemp(path.data()) == nullptr)
    return EXIT_FAILURE;
  auto found = best_match(path);
  std::filesystem::remove_all(path);
  if (!found) {
    std::cerr << found.error().message << '\n';
    return EXIT_FAILURE;
  }
  std::cout << "best match: " << *found << '\n';
  return *found == "rhythm" ? EXIT_SUCCESS : EXIT_FAILURE;
}
