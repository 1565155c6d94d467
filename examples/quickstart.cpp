/// The shortest useful program: stores four texts and asks which of them is
/// most like a fifth. Usage: example_quickstart [DIRECTORY]
#include "actors/client.hpp"
#include "core/record.hpp"
#include "core/words_embedder.hpp"

#include <filesystem>
#include <iostream>

namespace {

using namespace callboard;

result<void> run(const std::string& directory) {
  CALLBOARD_TRY_ASSIGN(const auto actors, runtime::start());
  open_options options;
  options.working_directory = directory;
  options.namespace_name = "notes";
  // Needs no model. Implement `embedder` to use yours.
  CALLBOARD_TRY_ASSIGN(options.model, words_embedder::create(256));
  CALLBOARD_TRY_ASSIGN(client notes, actors->open(options));

  // Records are JSON objects; `content` is what is searched.
  CALLBOARD_TRY(notes.upsert("tea", R"({"content": "how to pour tea"})"));
  CALLBOARD_TRY(notes.upsert("bread", R"({"content": "let the dough rise"})"));
  CALLBOARD_TRY(notes.upsert("chess", R"({"content": "move the knight"})"));
  CALLBOARD_TRY(notes.upsert("ship", R"({"content": "the ship leaves"})"));
  // Now they are durable, and every process that has the store open sees them.
  CALLBOARD_TRY_ASSIGN(const auto done, notes.commit());
  std::cout << "committed " << done.committed << " notes\n";

  CALLBOARD_TRY_ASSIGN(const auto hits, notes.query("why must dough rise"));
  for (const auto& found : hits)
    std::cout << found.distance << "  " << found.id << "  "
              << string_member(found.record, "content").value_or("") << '\n';
  return {};
}

} // namespace

int main(int argc, char** argv) {
  const auto default_directory =
      std::filesystem::temp_directory_path() / "callboard-quickstart";
  const auto done = run(argc > 1 ? argv[1] : default_directory.string());
  if (!done)
    std::cerr << to_string(done.error().code) << ": " << done.error().message
              << '\n';
  return done ? 0 : 1;
}
