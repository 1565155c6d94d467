#include "actors/embedder_spec.hpp"

#include "actors/command_embedder.hpp"
#include "core/words_embedder.hpp"

#include <charconv>
#include <filesystem>
#include <optional>
#include <utility>

namespace callboard {

namespace {

constexpr std::size_t dimension_max = 65'536;
constexpr std::string_view words_form = "words";
constexpr std::string_view table_option = ",idf=";
constexpr std::string_view command_form = "command:";

failure unknown(std::string_view spec) {
  return {errc::invalid_argument,
          "There is no embedder \"" + std::string(spec)
              + "\". Known are \"words\", \"words:DIMENSION\" (8 to 65536), "
                "both with \",idf=FILE\" behind for a table of word "
                "frequencies, and \"command:SHELL COMMAND\"."};
}

std::optional<std::size_t> parse_dimension(std::string_view digits) {
  std::size_t value = 0;
  const auto end = digits.data() + digits.size();
  const auto [parsed, error] = std::from_chars(digits.data(), end, value);
  if (error != std::errc() || parsed != end)
    return std::nullopt;
  return value;
}

result<word_frequencies> load_table(std::string_view file, io& door) {
  const std::filesystem::path path(file);
  const auto parent = path.parent_path();
  CALLBOARD_TRY_ASSIGN(
      auto home,
      door.open_directory(parent.empty() ? "." : parent.string(), false));
  return word_frequencies::load(*home, path.filename().string());
}

/// `rest` is what follows "words".
result<std::shared_ptr<embedder>> make_words(std::string_view spec,
                                             std::string_view rest,
                                             std::size_t dimension, io& door) {
  std::optional<std::string_view> table;
  if (const auto at = rest.find(table_option); at != std::string_view::npos) {
    table = rest.substr(at + table_option.size());
    rest = rest.substr(0, at);
    if (table->empty())
      return unknown(spec);
  }
  auto chosen = dimension != 0 ? dimension : words_embedder::dimension_default;
  if (!rest.empty()) {
    const auto named =
        rest.front() == ':' ? parse_dimension(rest.substr(1)) : std::nullopt;
    if (!named)
      return unknown(spec);
    if (dimension != 0 && *named != dimension)
      return failure{errc::dimension_mismatch,
                     "The embedder \"" + std::string(spec) + "\" has dimension "
                         + std::to_string(*named) + ", but "
                         + std::to_string(dimension)
                         + " was asked for; give one of them, or both alike."};
    chosen = *named;
  }
  if (!table) {
    CALLBOARD_TRY_ASSIGN(auto words, words_embedder::create(chosen));
    return std::shared_ptr<embedder>(std::move(words));
  }
  CALLBOARD_TRY_ASSIGN(const auto frequencies, load_table(*table, door));
  CALLBOARD_TRY_ASSIGN(auto words, words_embedder::create(chosen, frequencies));
  return std::shared_ptr<embedder>(std::move(words));
}

result<std::shared_ptr<embedder>>
make_command(std::string_view command, std::size_t dimension,
             const command_settings& settings) {
  if (command.find('\0') != std::string_view::npos)
    return failure{errc::invalid_argument,
                   "An embedding command cannot hold a zero byte."};
  if (dimension == 0 || dimension > dimension_max)
    return failure{errc::invalid_argument,
                   "The embedder \"command:" + std::string(command)
                       + "\" needs to be told the dimension of its vectors, 1 "
                         "to "
                       + std::to_string(dimension_max) + "; it was given "
                       + (dimension == 0 ? "none" : std::to_string(dimension))
                       + "."};
  command_embedder_options options;
  options.command = command;
  options.dimension = dimension;
  options.name = settings.model_name;
  options.time_limit = settings.time_limit;
  return std::shared_ptr<embedder>(
      std::make_shared<command_embedder>(std::move(options)));
}

} // namespace

result<std::shared_ptr<embedder>>
make_embedder(std::string_view spec, std::size_t dimension, io& door,
              const command_settings& settings) {
  if (spec.starts_with(command_form) && spec.size() > command_form.size())
    return make_command(spec.substr(command_form.size()), dimension, settings);
  if (spec.starts_with(words_form))
    return make_words(spec, spec.substr(words_form.size()), dimension, door);
  return unknown(spec);
}

} // namespace callboard
