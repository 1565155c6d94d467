#include "cli/commands.hpp"
#include "cli/output.hpp"
#include "cli/stats_text.hpp"
#include "cli/store_access.hpp"

#include <memory>
#include <string>
#include <utility>

/// The subcommands `stats`, `verify` and `checkpoint`.
namespace callboard::cli {
namespace {

result<exit_code> print(const std::string& text) {
  standard_output out;
  out.line(text);
  CALLBOARD_TRY(out.flush());
  return exit_code::success;
}

/// "{"rows": 3, "generation": 7}", or for people with `verb` in front.
std::string rows_and_generation(const handle_stats& stats, bool as_json,
                                const std::string& verb) {
  const auto rows = stats.store.live_rows;
  const auto generation = std::to_string(stats.store.generation);
  if (as_json)
    return "{\"rows\": " + std::to_string(rows)
           + ", \"generation\": " + generation + "}";
  return verb + ": " + grouped(rows) + (rows == 1 ? " row" : " rows")
         + ", generation " + generation;
}

result<exit_code> run_stats(const store_arguments& arguments) {
  CALLBOARD_TRY_ASSIGN(auto opened, open_store(arguments, store_use::read));
  CALLBOARD_TRY_ASSIGN(const auto stats, opened.handle.stats());
  return print(arguments.messages.as_json ? stats_json(stats)
                                          : stats_table(stats));
}

struct verify_arguments {
  store_arguments store;
  bool salvages = false;
};

result<exit_code> run_verify(const verify_arguments& arguments) {
  open_options options;
  options.salvage = arguments.salvages;
  CALLBOARD_TRY_ASSIGN(auto opened, open_store(arguments.store, store_use::read,
                                               std::move(options)));
  CALLBOARD_TRY(opened.handle.verify());
  CALLBOARD_TRY_ASSIGN(const auto stats, opened.handle.stats());
  const auto& messages = arguments.store.messages;
  if (stats.opened.cut_bytes > 0 && !messages.is_quiet)
    note("cut " + grouped(stats.opened.cut_bytes)
         + " bytes off the end of the log");
  return print(rows_and_generation(stats, messages.as_json, "ok"));
}

struct checkpoint_arguments {
  store_arguments store;
  bool compacts = false;
};

result<exit_code> run_checkpoint(const checkpoint_arguments& arguments) {
  open_options options;
  options.automatic_checkpoints = false;
  CALLBOARD_TRY_ASSIGN(auto opened, open_store(arguments.store, store_use::read,
                                               std::move(options)));
  CALLBOARD_TRY(opened.handle.checkpoint(
      arguments.compacts ? compaction::forced : compaction::automatic));
  CALLBOARD_TRY_ASSIGN(const auto stats, opened.handle.stats());
  return print(rows_and_generation(stats, arguments.store.messages.as_json,
                                   "checkpoint"));
}

} // namespace

void add_stats(CLI::App& app, invocation& chosen) {
  auto arguments = std::make_shared<store_arguments>();
  auto* command = app.add_subcommand("stats", "Print what a store holds");
  add_store_options(*command, *arguments);
  command->callback([&chosen, arguments] {
    chosen.run = [arguments] { return run_stats(*arguments); };
    chosen.as_json = arguments->messages.as_json;
  });
}

void add_verify(CLI::App& app, invocation& chosen) {
  auto arguments = std::make_shared<verify_arguments>();
  auto* command = app.add_subcommand(
      "verify", "Read every byte of a store and compare it with its "
                "checksums. Prints \"ok\", or what is damaged (status 4)");
  add_store_options(*command, arguments->store);
  command->add_flag("--salvage", arguments->salvages,
                    "Cut the log at its first damaged place, losing the "
                    "commits behind it; what is cut is kept beside the log");
  command->callback([&chosen, arguments] {
    chosen.run = [arguments] { return run_verify(*arguments); };
    chosen.as_json = arguments->store.messages.as_json;
  });
}

void add_checkpoint(CLI::App& app, invocation& chosen) {
  auto arguments = std::make_shared<checkpoint_arguments>();
  auto* command = app.add_subcommand(
      "checkpoint", "Fold the log into a new base and publish it as the pair "
                    "of files that LightRAG reads");
  add_store_options(*command, arguments->store);
  command->add_flag("--compact", arguments->compacts,
                    "Also close holes, however few there are, as far as "
                    "readers of the old files allow");
  command->callback([&chosen, arguments] {
    chosen.run = [arguments] { return run_checkpoint(*arguments); };
    chosen.as_json = arguments->store.messages.as_json;
  });
}

} // namespace callboard::cli
