#include "cli/commands.hpp"
#include "cli/exit_code.hpp"
#include "cli/output.hpp"

#include <CLI/CLI.hpp>

#include <csignal>
#include <exception>
#include <iostream>
#include <string>
namespace {

using namespace callboard;
using namespace callboard::cli;

void add_subcommands(CLI::App& app, invocation& chosen) {
  add_ingest(app, chosen);
  add_query(app, chosen);
  add_get(app, chosen);
  add_delete(app, chosen);
  add_stats(app, chosen);
  add_verify(app, chosen);
  add_checkpoint(app, chosen);
  add_watch(app, chosen);
  add_train(app, chosen);
  add_messages(app, chosen);
  for (auto* command : app.get_subcommands({}))
    command->footer(exit_code_help());
}

/// Help was asked for, or the command line is wrong.
exit_code end_of_parsing(CLI::App& app, const CLI::ParseError& reason) {
  if (reason.get_exit_code() == 0) {
    app.exit(reason);
    std::cout.flush();
    return std::cout ? exit_code::success : exit_code::input_output;
  }
  const auto* command = &app;
  while (!command->get_subcommands().empty())
    command = command->get_subcommands().front();
  report({errc::invalid_argument,
          std::string(reason.what()) + " (see callboard "
              + (command == &app ? "" : command->get_name() + " ") + "--help)"},
         false);
  return exit_code::usage;
}

exit_code run(const invocation& chosen) {
  auto ended = chosen.run();
  if (ended)
    return *ended;
  report(ended.error(), chosen.as_json);
  return exit_code_of(ended.error().code);
}

exit_code run_command_line(int argc, char** argv) {
  CLI::App app("callboard: a vector store that many processes share",
               "callboard");
  app.set_version_flag("--version", "callboard " CALLBOARD_VERSION);
  app.require_subcommand(1);
  app.footer(exit_code_help());
  invocation chosen;
  add_subcommands(app, chosen);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& reason) {
    return end_of_parsing(app, reason);
  }
  return run(chosen);
}

} // namespace

int main(int argc, char** argv) {
  // A closed pipe is an error of `write`.
  std::signal(SIGPIPE, SIG_IGN);
  try {
    return static_cast<int>(run_command_line(argc, argv));
  } catch (const std::exception& reason) {
    note(std::string("internal error: ") + reason.what());
    return static_cast<int>(exit_code::internal);
  }
}
