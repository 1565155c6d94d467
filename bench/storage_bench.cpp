// What commits, refreshes, opens and lookups cost as a store grows, beside the
// bare write and fdatasync of the same bytes; and the memory of a process that
// has a store open. Run it on a quiet machine.

#include "actors/client.hpp"
#include "core/search.hpp"
#include "core/store.hpp"
#include "ipc/process_board.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <stdexcept>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "bench/bench_support.hpp"

namespace callboard::bench {
namespace {

constexpr std::uint64_t seed = 20'260'101;
constexpr std::size_t commit_rows = 100;

struct options {
  std::vector<std::size_t> rows = {1'000, 10'000, 100'000};
  std::uint32_t dimension = 384;
  std::size_t rounds = 41;
  std::string directory;
  std::string memory_of;
};

double milliseconds_of(const std::function<void()>& work) {
  auto start = std::chrono::steady_clock::now();
  work();
  std::chrono::duration<double, std::milli> took =
      std::chrono::steady_clock::now() - start;
  return took.count();
}

double median(std::vector<double> values) {
  auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// A store of `rows` rows, all of them in its base.
std::unique_ptr<store> filled_store(const std::string& directory,
                                    std::size_t rows, std::uint32_t dimension) {
  auto out = need(
      store::open(posix_io(), process_board(), where(directory, dimension)));
  fill(*out, rows, dimension, seed);
  return out;
}

struct figures {
  double commit_ms;
  double bare_ms;
  double refresh_ms;
  double lookup_us;
  double get_us;
  double delete_us;
  double open_ms;
};

figures measure(const options& chosen, std::size_t rows) {
  auto directory = chosen.directory + "/rows-" + std::to_string(rows);
  auto writer = filled_store(directory, rows, chosen.dimension);
  auto reader = need(store::open(posix_io(), process_board(),
                                 where(directory, chosen.dimension)));
  auto actors = need(runtime::start());
  open_options as_client;
  as_client.working_directory = directory;
  as_client.namespace_name = "bench";
  as_client.model = std::make_shared<no_model>(chosen.dimension);
  auto handle = need(actors->open(as_client));
  bare_log bare(directory);
  std::mt19937_64 random(seed + rows);
  std::vector<double> commits, bares, refreshes, lookups, gets, deletes, opens;
  for (std::size_t round = 0; round < chosen.rounds; ++round) {
    auto first = random() % rows;
    auto changed = random_rows(first, commit_rows, chosen.dimension, random);
    const auto bytes = frame_bytes(changed);
    bares.push_back(milliseconds_of([&] { bare.append(bytes); }));
    commits.push_back(milliseconds_of([&] { need(writer->commit(changed)); }));
    refreshes.push_back(milliseconds_of([&] { need(reader->refresh()); }));
    std::vector<std::string> ids;
    for (int i = 0; i < 100; ++i)
      ids.push_back("row-" + std::to_string(random() % rows));
    need(handle.get_by_id(ids.front())); // takes in the commit
    auto view = reader->view();
    lookups.push_back(10 * milliseconds_of([&] { // 100, in microseconds
                        for (const auto& id : ids)
                          if (auto row = view->find(id))
                            need(view->record(*row));
                      }));
    gets.push_back(10 * milliseconds_of([&] {
                     for (const auto& id : ids)
                       need(handle.get_by_id(id));
                   }));
    deletes.push_back(
        1000 * milliseconds_of([&] { need(handle.remove({ids.back()})); }));
  }
  for (int round = 0; round < 5; ++round)
    opens.push_back(milliseconds_of([&] {
      need(store::open(posix_io(), process_board(),
                       where(directory, chosen.dimension)));
    }));
  return {median(commits), median(bares),   median(refreshes), median(lookups),
          median(gets),    median(deletes), median(opens)};
}

void compare_sizes(const options& chosen) {
  std::printf("\ncommits of %zu changed rows x %u, medians of %zu rounds\n",
              commit_rows, chosen.dimension, chosen.rounds);
  std::printf("%9s %10s %10s %6s %11s %10s %8s %10s %8s\n", "rows", "commit ms",
              "bare ms", "ratio", "refresh ms", "lookup us", "get us",
              "delete us", "open ms");
  std::vector<figures> all;
  for (auto rows : chosen.rows) {
    auto got = measure(chosen, rows);
    std::printf("%9zu %10.3f %10.3f %6.2f %11.3f %10.2f %8.1f %10.1f %8.2f\n",
                rows, got.commit_ms, got.bare_ms, got.commit_ms / got.bare_ms,
                got.refresh_ms, got.lookup_us, got.get_us, got.delete_us,
                got.open_ms);
    all.push_back(got);
  }
  const auto& small = all.front();
  const auto& large = all.back();
  std::printf("%9s %10.2f %10.2f %6s %11.2f %10.2f %8.2f %10.2f %8.2f\n",
              "last/1st", large.commit_ms / small.commit_ms,
              large.bare_ms / small.bare_ms, "",
              large.refresh_ms / small.refresh_ms,
              large.lookup_us / small.lookup_us, large.get_us / small.get_us,
              large.delete_us / small.delete_us, large.open_ms / small.open_ms);
  std::printf(
      "(bare: append and fdatasync of the same bytes, in turn with each "
      "commit; lookup: id to record in a snapshot, random ids; get, "
      "delete: get_by_id and remove of a client; open: with the commits "
      "of all rounds still in the log)\n");
}

// -- memory -------------------------------------------------------------------

/// Child: opens the store, asks ten queries, and says what that took. Waits
/// for its input to end, so that the next child finds it there.
void report_memory(const options& chosen) {
  auto before = memory_of_this_process();
  auto opened = need(store::open(posix_io(), process_board(),
                                 where(chosen.memory_of, chosen.dimension)));
  std::mt19937_64 random(seed);
  for (int i = 0; i < 10; ++i) {
    auto query = random_row("query", chosen.dimension, random).vector;
    need(search(*opened->view(), query, {10, -1}));
  }
  auto after = memory_of_this_process();
  auto own = [](auto& of) { return of["Private_Clean"] + of["Private_Dirty"]; };
  std::printf("  RSS %7.1f MB, private %6.1f MB (before opening: %.1f MB)\n",
              after["Rss"] / 1024.0, own(after) / 1024.0, own(before) / 1024.0);
  std::fflush(stdout);
  while (std::getchar() != EOF) {
  }
}

void compare_memory(const options& chosen, const std::string& program) {
  auto rows = chosen.rows.back();
  auto directory = chosen.directory + "/memory";
  filled_store(directory, rows, chosen.dimension).reset();
  std::printf(
      "\na process that opened a store of %zu x %u (%.1f MB of vectors) "
      "and asked ten queries; a second and third beside it:\n",
      rows, chosen.dimension,
      static_cast<double>(rows) * chosen.dimension * 4 / 1e6);
  std::fflush(stdout);
  auto command = program + " --dimension " + std::to_string(chosen.dimension)
                 + " --memory-of " + directory;
  // The first asks nothing of its neighbours, the others find its pages.
  std::vector<FILE*> children;
  for (int i = 0; i < 3; ++i) {
    children.push_back(::popen(command.c_str(), "w"));
    if (children.back() == nullptr)
      throw std::runtime_error("cannot start " + command);
    std::this_thread::sleep_for(std::chrono::seconds(2));
  }
  for (auto* child : children)
    ::pclose(child);
}

int run(int argument_count, char** arguments) {
  options chosen;
  CLI::App application{"What commits, refreshes and lookups cost"};
  application.add_option("--rows", chosen.rows, "Sizes to compare");
  application.add_option("--dimension", chosen.dimension, "Floats per vector");
  application.add_option("--rounds", chosen.rounds, "Rounds per size");
  application.add_option("--directory", chosen.directory,
                         "Where to write (emptied afterwards)");
  application.add_option("--memory-of", chosen.memory_of,
                         "Only open this store and report memory");
  CLI11_PARSE(application, argument_count, arguments);
  if (!chosen.memory_of.empty()) {
    report_memory(chosen);
    return 0;
  }
  namespace fs = std::filesystem;
  auto made = chosen.directory.empty();
  if (made) {
    auto pattern = (fs::current_path() / "bench-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr)
      throw std::runtime_error("cannot make a directory here");
    chosen.directory = pattern;
  }
  print_machine(seed);
  compare_sizes(chosen);
  compare_memory(chosen, arguments[0]);
  if (made)
    fs::remove_all(chosen.directory);
  return 0;
}

} // namespace
} // namespace callboard::bench

int main(int argument_count, char** arguments) {
  try {
    return callboard::bench::run(argument_count, arguments);
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "storage_bench: %s\n", problem.what());
    return 1;
  }
}
