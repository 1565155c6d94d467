#include "cli/commands.hpp"
#include "cli/output.hpp"
#include "cli/store_access.hpp"
#include "core/record.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <memory>
#include <string>
#include <unistd.h>
#include <utility>
#include <vector>

namespace callboard::cli {
namespace {

/// Columns of a line where there is no terminal to ask.
constexpr std::size_t columns_default = 120;

struct query_arguments {
  store_arguments store;
  std::vector<std::string> words;
  std::size_t top_k = 10;
  double threshold = 0.2;
};

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const auto& word : words) {
    if (!text.empty())
      text += ' ';
    text += word;
  }
  return text;
}

/// "  1  0.8123  " and so on.
std::string rank_and_score(std::size_t rank, float score) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%3zu  %.4f  ", rank,
                static_cast<double>(score));
  return text.data();
}

std::string first_line_of_content(const std::string& record) {
  auto content = string_member(record, "content").value_or("");
  content.resize(std::min(content.size(), content.find('\n')));
  return content;
}

void print_hits(const std::vector<hit>& hits, standard_output& out) {
  const auto terminal = terminal_columns(STDOUT_FILENO);
  const auto columns = terminal == 0 ? columns_default : terminal;
  for (std::size_t i = 0; i < hits.size(); ++i) {
    const auto line = rank_and_score(i + 1, hits[i].distance) + hits[i].id
                      + "  " + first_line_of_content(hits[i].record);
    out.line(fit_columns(line, columns));
  }
}

result<exit_code> run_query(const query_arguments& arguments) {
  open_options options;
  options.threshold = arguments.threshold;
  CALLBOARD_TRY_ASSIGN(
      auto opened,
      open_store(arguments.store, store_use::embed, std::move(options)));
  query_options how;
  how.top_k = arguments.top_k;
  CALLBOARD_TRY_ASSIGN(const auto hits,
                       opened.handle.query(joined(arguments.words), how));
  standard_output out;
  if (arguments.store.messages.as_json) {
    for (const auto& found : hits)
      out.line(result_row(found.record, found.distance));
  } else {
    print_hits(hits, out);
    if (hits.empty() && !arguments.store.messages.is_quiet)
      note("nothing is similar enough (see --threshold)");
  }
  CALLBOARD_TRY(out.flush());
  return exit_code::success;
}

} // namespace

void add_query(CLI::App& app, invocation& chosen) {
  auto arguments = std::make_shared<query_arguments>();
  auto* command = app.add_subcommand(
      "query", "Print the records most similar to a text, best first: rank, "
               "score, id, first line. --json: one record a line");
  add_store_options(*command, arguments->store);
  command
      ->add_option("TEXT", arguments->words,
                   "What to look for; several words are one text")
      ->required();
  command->add_option("-k,--top-k", arguments->top_k, "How many, at most")
      ->check(CLI::Range(1u, 1'000'000u))
      ->capture_default_str();
  command
      ->add_option("-t,--threshold", arguments->threshold,
                   "Leave out records with a lower score (-1 to 1)")
      ->capture_default_str();
  command->callback([&chosen, arguments] {
    chosen.run = [arguments] { return run_query(*arguments); };
    chosen.as_json = arguments->store.messages.as_json;
  });
}

} // namespace callboard::cli
