#pragma once

#include "cli/input.hpp"
#include "cli/input_files.hpp"

#include <CLI/App.hpp>

#include <optional>
#include <string>
#include <vector>

namespace callboard::cli {

/// The options that say what is read.
struct input_arguments {
  std::vector<std::string> paths;
  /// Empty: guessed.
  std::optional<input_format> format;
};

void add_input_options(CLI::App& command, input_arguments& arguments);

/// `fields`: see `make_parser`.
input_files open_input(const input_arguments& arguments,
                       std::vector<std::string> fields = {});

} // namespace callboard::cli
