#include "cli/input_options.hpp"

#include <CLI/Validators.hpp>

#include <map>
#include <utility>

namespace callboard::cli {

void add_input_options(CLI::App& command, input_arguments& arguments) {
  static const std::map<std::string, input_format> formats = {
      {"jsonl", input_format::jsonl},
      {"text", input_format::text},
      {"deb822", input_format::deb822}};
  command.add_option("FILE", arguments.paths,
                     "Files to read; none or - is standard input");
  const auto choose = [&arguments](const std::string& name) {
    if (const auto found = formats.find(name); found != formats.end())
      arguments.format = found->second;
  };
  command
      .add_option_function<std::string>(
          "-f,--format", choose,
          "jsonl (objects with \"content\", one a line), text (paragraphs), "
          "deb822 (Debian control data), or auto: by extension and content")
      ->check(CLI::IsMember({"auto", "jsonl", "text", "deb822"}))
      ->default_str("auto");
}

input_files open_input(const input_arguments& arguments,
                       std::vector<std::string> fields) {
  return input_files(arguments.paths, arguments.format, std::move(fields));
}

} // namespace callboard::cli
