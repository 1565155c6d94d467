#include "cli/commands.hpp"
#include "cli/line_reader.hpp"
#include "cli/manual_clock.hpp"
#include "cli/message_session.hpp"
#include "cli/output.hpp"
#include "cli/store_access.hpp"
#include "core/io.hpp"

#include <memory>
#include <unistd.h>

namespace callboard::cli {
namespace {

struct messages_arguments {
  bool has_manual_clock = false;
  message_arguments messages;
};

result<exit_code> run_messages(const messages_arguments& arguments) {
  manual_clock clock(posix_io());
  io& door = arguments.has_manual_clock ? clock : posix_io();
  auto options = make_runtime_options(arguments.messages);
  options.door = &door;
  CALLBOARD_TRY_ASSIGN(const auto actors, runtime::start(options));
  message_session session(*actors, door,
                          arguments.has_manual_clock ? &clock : nullptr);

  CALLBOARD_TRY_ASSIGN(auto input, line_reader::open("-"));
  for (;;) {
    CALLBOARD_TRY_ASSIGN(const auto line, input.next());
    if (!line)
      return exit_code::success;
    auto answer = line->is_too_long ? message_session::answer_too_long()
                                    : session.answer(line->text);
    CALLBOARD_TRY(write_all(STDOUT_FILENO, answer + "\n", "standard output"));
  }
}

} // namespace

void add_messages(CLI::App& app, invocation& chosen) {
  auto arguments = std::make_shared<messages_arguments>();
  auto* command = app.add_subcommand(
      "messages", "Serve a conversation: one JSON request a line on standard "
                  "input, one JSON answer a line on standard output, in order "
                  "(docs/protocol.md). Uncommitted changes end with it");
  command->add_flag("--manual-clock", arguments->has_manual_clock,
                    "The time that records are stamped with is 1700000000 and "
                    "then what the operation \"time\" says");
  add_message_options(*command, arguments->messages);
  command->callback([&chosen, arguments] {
    chosen.run = [arguments] { return run_messages(*arguments); };
    chosen.as_json = arguments->messages.as_json;
  });
}

} // namespace callboard::cli
