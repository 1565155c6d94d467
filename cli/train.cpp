#include "cli/commands.hpp"
#include "cli/input_options.hpp"
#include "cli/interrupt.hpp"
#include "cli/output.hpp"
#include "cli/store_access.hpp"
#include "core/io.hpp"
#include "core/record.hpp"
#include "core/words_embedder.hpp"

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace callboard::cli {
namespace {

struct train_arguments {
  message_arguments messages;
  std::string output;
  input_arguments input;
};

result<void> save(const word_frequencies& frequencies,
                  const std::string& output) {
  const std::filesystem::path path(output);
  const auto parent = path.parent_path();
  CALLBOARD_TRY_ASSIGN(
      auto home,
      posix_io().open_directory(parent.empty() ? "." : parent.string(), false));
  return frequencies.save(*home, path.filename().string());
}

result<exit_code> run_train(const train_arguments& arguments) {
  catch_interrupts();
  auto input = open_input(arguments.input);
  word_frequencies frequencies;
  auto ended = exit_code::success;
  for (;;) {
    CALLBOARD_TRY_ASSIGN(const auto found, input.next());
    if (is_interrupted())
      return exit_code::interrupted;
    if (!found)
      break;
    if (!found->record) {
      note("skipped: " + found->where + ": " + found->record.error().message);
      ended = exit_code::incomplete;
      continue;
    }
    frequencies.add(
        string_member(found->record->record, "content").value_or(""));
  }
  CALLBOARD_TRY(save(frequencies, arguments.output));
  const auto count = frequencies.document_count();
  standard_output out;
  out.line(arguments.messages.as_json
               ? "{\"documents\": " + std::to_string(count) + "}"
               : "trained on " + grouped(count)
                     + (count == 1 ? " document" : " documents"));
  CALLBOARD_TRY(out.flush());
  return ended;
}

} // namespace

void add_train(CLI::App& app, invocation& chosen) {
  auto arguments = std::make_shared<train_arguments>();
  auto* command = app.add_subcommand(
      "train", "Count in how many texts each word occurs, for --embedder "
               "words:DIMENSION,idf=FILE, which finds more than words: alone");
  command->add_option("-o,--output", arguments->output, "File to write")
      ->required();
  add_input_options(*command, arguments->input);
  add_message_options(*command, arguments->messages);
  command->callback([&chosen, arguments] {
    chosen.run = [arguments] { return run_train(*arguments); };
    chosen.as_json = arguments->messages.as_json;
  });
}

} // namespace callboard::cli
