/// Lets processes commit transactions to the same stores and look at them, and
/// then looks for an order of the transactions that explains everything that
/// any of them has seen.
///
/// Usage: callboard_history --transactions N [--processes P] [--readers R]
///                          [--kills K] [--seed S] [--directory D]
///
/// The last line counts: transactions=.. conflicts=.. reads=.. kills=..
/// violations=.. Exit status 0: there is such an order; 1: there is none, or a
/// process failed or hung; 2: wrong usage.
#include "tests/history/checker.hpp"
#include "tests/history/conductor.hpp"
#include "tests/history/roles.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <random>
#include <string>
#include <utility>

namespace {

using namespace callboard;
using namespace callboard::history;

/// Others often follow from the first ones.
constexpr std::size_t shown_violations_max = 20;

/// Empty if it cannot be used.
std::filesystem::path prepare(const std::string& named) {
  std::error_code failed;
  if (!named.empty()) {
    std::filesystem::create_directories(named, failed);
    const bool is_new = std::filesystem::is_empty(named, failed);
    return is_new && !failed ? std::filesystem::absolute(named)
                             : std::filesystem::path();
  }
  auto name = (std::filesystem::temp_directory_path(failed)
               / "callboard-history-XXXXXX")
                  .string();
  return ::mkdtemp(name.data()) != nullptr ? name : "";
}

void print(const judgement& found, std::uint64_t kills) {
  const auto shown = std::min(found.violations.size(), shown_violations_max);
  for (std::size_t i = 0; i < shown; ++i)
    std::cout << "VIOLATION " << found.violations[i] << '\n';
  if (shown < found.violations.size())
    std::cout << "and " << found.violations.size() - shown << " more\n";
  std::cout << "unacknowledged=" << found.unacknowledged
            << " drops=" << found.drops << " discarded=" << found.discarded
            << " events=" << found.events << " overflows=" << found.overflows
            << "\ntransactions=" << found.transactions
            << " conflicts=" << found.conflicts << " reads=" << found.reads
            << " kills=" << kills << " violations=" << found.violations.size()
            << std::endl;
}

judgement judge_run(const run_options& options, bool has_ended_well) {
  auto journals = read_journals(journal_directory(options.directory));
  if (!journals) {
    judgement out;
    out.violations.push_back(journals.error().message);
    return out;
  }
  auto out = judge(*journals);
  if (has_ended_well && out.transactions < options.transactions)
    out.violations.push_back("too few transactions");
  return out;
}

int run(const run_options& options, bool keeps_directory) {
  std::cout << "seed=" << options.seed << std::endl;
  const auto kills = conduct(options);
  auto found = judge_run(options, kills.has_value());
  if (!kills)
    found.violations.insert(found.violations.begin(), kills.error().message);
  if (!found.violations.empty())
    std::cout << "journals are in " << options.directory.string() << '\n';
  print(found, kills ? *kills : 0);
  std::error_code ignored;
  if (found.violations.empty() && !keeps_directory)
    std::filesystem::remove_all(options.directory, ignored);
  return found.violations.empty() ? 0 : 1;
}

} // namespace

int main(int argc, char** argv) {
  run_options options;
  options.seed = std::random_device()();
  std::string directory;
  CLI::App app("Looks for an order of transactions that explains everything.");
  app.add_option("--transactions", options.transactions)
      ->required()
      ->check(CLI::Range(1, 100'000'000));
  app.add_option("--processes", options.writers, "writers")
      ->check(CLI::Range(1U, processes_max / 2));
  app.add_option("--readers", options.readers)
      ->check(CLI::Range(1U, processes_max / 2 - 1));
  app.add_option("--kills", options.kills, "of writers, started anew");
  app.add_option("--seed", options.seed, "repeats choices, not instants");
  app.add_option("--directory", directory, "new or empty; is kept");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& problem) {
    return app.exit(problem) == 0 ? 0 : 2;
  }
  options.directory = prepare(directory);
  if (options.directory.empty()) {
    std::cerr << "the directory cannot be made, or is not empty\n";
    return 2;
  }
  return run(options, !directory.empty());
}
