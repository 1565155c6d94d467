#include "cli/commands.hpp"
#include "cli/output.hpp"
#include "cli/store_access.hpp"
#include "core/json_text.hpp"
#include "core/record.hpp"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace callboard::cli {
namespace {

struct get_arguments {
  store_arguments store;
  std::vector<std::string> ids;
};

/// For people: strings as they are, further lines indented.
std::string readable_value(std::string_view value) {
  const auto text = json_text::decode_string(value);
  if (!text)
    return std::string(value);
  std::string out;
  for (const char letter : harmless(*text)) {
    out += letter;
    if (letter == '\n')
      out += "    ";
  }
  return out;
}

void print_row(const row& found, standard_output& out) {
  out.line(fit_columns(found.id, 0));
  const auto print = [&](std::string_view key, std::string_view value,
                         std::string_view) -> result<void> {
    if (key != "__id__")
      out.line("  " + fit_columns(key, 0) + ": " + readable_value(value));
    return {};
  };
  static_cast<void>(json_text::for_each_member(found.record, print));
}

result<exit_code> run_get(const get_arguments& arguments) {
  CALLBOARD_TRY_ASSIGN(auto opened,
                       open_store(arguments.store, store_use::read));
  CALLBOARD_TRY_ASSIGN(const auto rows,
                       opened.handle.get_by_ids(arguments.ids));
  const bool as_json = arguments.store.messages.as_json;
  auto ended = exit_code::success;
  standard_output out;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (!rows[i]) {
      ended = exit_code::incomplete;
      if (as_json)
        out.line("null");
      report({errc::not_found,
              "there is no record " + printable(arguments.ids[i])},
             as_json);
    } else if (as_json) {
      out.line(result_row(rows[i]->record));
    } else {
      print_row(*rows[i], out);
    }
  }
  CALLBOARD_TRY(out.flush());
  return ended;
}

} // namespace

void add_get(CLI::App& app, invocation& chosen) {
  auto arguments = std::make_shared<get_arguments>();
  auto* command = app.add_subcommand(
      "get", "Print records by id, in the order asked for. Status 1 if one is "
             "missing; with --json a missing one is null");
  add_store_options(*command, arguments->store);
  command->add_option("ID", arguments->ids, "Ids of the records")->required();
  command->callback([&chosen, arguments] {
    chosen.run = [arguments] { return run_get(*arguments); };
    chosen.as_json = arguments->store.messages.as_json;
  });
}

} // namespace callboard::cli
