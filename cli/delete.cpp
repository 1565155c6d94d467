#include "cli/commands.hpp"
#include "cli/output.hpp"
#include "cli/store_access.hpp"

#include <memory>
#include <string>
#include <vector>

namespace callboard::cli {
namespace {

struct delete_arguments {
  store_arguments store;
  std::vector<std::string> ids;
  std::vector<std::string> entities;
  std::vector<std::string> relations_of;
};

result<exit_code> run_delete(const delete_arguments& arguments) {
  CALLBOARD_TRY_ASSIGN(auto opened,
                       open_store(arguments.store, store_use::read));
  auto& handle = opened.handle;
  CALLBOARD_TRY(handle.remove(arguments.ids));
  for (const auto& name : arguments.entities)
    CALLBOARD_TRY(handle.remove_entity(name));
  for (const auto& name : arguments.relations_of)
    CALLBOARD_TRY(handle.remove_entity_relation(name));
  CALLBOARD_TRY_ASSIGN(const auto done, handle.commit());

  standard_output out;
  const auto generation = std::to_string(done.generation);
  out.line(arguments.store.messages.as_json
               ? "{\"generation\": " + generation + "}"
               : "generation " + generation);
  CALLBOARD_TRY(out.flush());
  return exit_code::success;
}

} // namespace

void add_delete(CLI::App& app, invocation& chosen) {
  auto arguments = std::make_shared<delete_arguments>();
  auto* command = app.add_subcommand(
      "delete", "Delete records and print the store's generation, a number "
                "that grows with every change. Ids that are not there are "
                "ignored");
  add_store_options(*command, arguments->store);
  auto* what = command->add_option_group("What to delete");
  what->add_option("ID", arguments->ids, "Ids of the records");
  what->add_option("--entity", arguments->entities,
                   "The entity of this name; may be repeated")
      ->allow_extra_args(false);
  what->add_option("--relations-of", arguments->relations_of,
                   "All relations of the entity of this name; may be repeated")
      ->allow_extra_args(false);
  what->require_option(1, 0);
  command->callback([&chosen, arguments] {
    chosen.run = [arguments] { return run_delete(*arguments); };
    chosen.as_json = arguments->store.messages.as_json;
  });
}

} // namespace callboard::cli
