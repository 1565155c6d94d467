#pragma once

#include "cli/exit_code.hpp"
#include "core/result.hpp"

#include <CLI/App.hpp>

#include <functional>

/// The subcommands. Each `add_...` adds one with its options to the command
/// line; parsing then chooses.
namespace callboard::cli {

/// What the command line asks for.
struct invocation {
  std::function<result<exit_code>()> run;
  /// Whether errors are reported as JSON.
  bool as_json = false;
};

void add_ingest(CLI::App& app, invocation& chosen);
void add_query(CLI::App& app, invocation& chosen);
void add_get(CLI::App& app, invocation& chosen);
void add_delete(CLI::App& app, invocation& chosen);
void add_stats(CLI::App& app, invocation& chosen);
void add_verify(CLI::App& app, invocation& chosen);
void add_checkpoint(CLI::App& app, invocation& chosen);
void add_watch(CLI::App& app, invocation& chosen);
void add_train(CLI::App& app, invocation& chosen);
void add_messages(CLI::App& app, invocation& chosen);

} // namespace callboard::cli
