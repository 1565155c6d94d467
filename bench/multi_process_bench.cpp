// What several processes on one store pay for each other: how soon one sees
// what another has committed, what a refresh costs, how commits of many writers
// add up and how fair they are, and the memory of each further reader. Beside
// each figure stands its limit, taken in the same run: a wake-up by the kernel,
// a write and fdatasync of the same bytes. Run it on a quiet machine.

#include "ipc/process_board.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <linux/futex.h>
#include <map>
#include <optional>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "bench/multi_process_support.hpp"

namespace callboard::bench {
namespace {

/// Of this process's last fdatasync.
std::atomic<std::int64_t> sync_end_ns{0};
std::atomic<std::int64_t> sync_took_ns{0};

} // namespace
} // namespace callboard::bench

/// Stands before the C library's, for all code of this program, and takes the
/// time.
extern "C" int fdatasync(int descriptor) {
  using namespace callboard::bench;
  auto start = now_ns();
  auto outcome = ::syscall(SYS_fdatasync, descriptor);
  auto end = now_ns();
  sync_took_ns = end - start;
  sync_end_ns = end;
  return static_cast<int>(outcome);
}

namespace callboard::bench {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t rounds_max = 4'096;
constexpr std::size_t writers_max = 8;
constexpr std::size_t readers = 3;

struct options {
  std::uint32_t dimension = 384;
  std::size_t rounds = 500;
  std::size_t rounds_lost = 20;
  std::size_t rows = 100'000;
  double seconds = 2;
  std::string directory;
  std::vector<std::string> parts = {"visible", "refresh", "writers", "overhead",
                                    "memory"};
};

// -- processes ----------------------------------------------------------------

/// What the processes of one measurement share.
struct shared_memory {
  std::atomic<std::uint32_t> ready{0};
  std::atomic<bool> go{false};
  std::atomic<std::uint32_t> word{0};
  std::array<std::int64_t, rounds_max> begun_ns{};
  std::array<std::int64_t, rounds_max> seen_ns{};
  std::array<std::atomic<std::uint64_t>, writers_max> commits{};
  std::uint64_t store_bytes = 0;
  std::array<std::array<double, 3>, readers> kilobytes{};
};

// -- commit to visible --------------------------------------------------------

long futex(std::atomic<std::uint32_t>& word, int operation,
           std::uint32_t value) {
  return ::syscall(SYS_futex, &word, operation, value, nullptr, nullptr, 0);
}

/// From "begun" in one process to "seen" in the other, in microseconds.
std::vector<double> latencies(const shared_mapping<shared_memory>& shared,
                              std::size_t rounds) {
  std::vector<double> out;
  for (std::size_t i = 0; i < rounds; ++i)
    out.push_back(static_cast<double>(shared->seen_ns[i] - shared->begun_ns[i])
                  / 1e3);
  return out;
}

/// What the kernel needs to wake another process that has a page in common.
std::vector<double> measure_wake_up(const options& chosen) {
  shared_mapping<shared_memory> shared;
  crew processes;
  processes.start([&] {
    for (std::uint32_t i = 0; i < chosen.rounds; ++i) {
      while (shared->word == i)
        futex(shared->word, FUTEX_WAIT, i);
      shared->seen_ns[i] = now_ns();
    }
  });
  processes.start([&] {
    for (std::size_t i = 0; i < chosen.rounds; ++i) {
      std::this_thread::sleep_for(3ms);
      shared->begun_ns[i] = now_ns();
      ++shared->word;
      futex(shared->word, FUTEX_WAKE, INT_MAX);
    }
  });
  processes.wait();
  return latencies(shared, chosen.rounds);
}

/// Opens the store, says that it is ready, and notes when it sees commits.
using watcher =
    std::function<void(const std::string& directory, std::uint32_t dimension,
                       shared_memory& shared, std::size_t rounds)>;

void watch_board(const std::string& directory, std::uint32_t dimension,
                 shared_memory& shared, std::size_t rounds) {
  opened_store opened(directory, dimension);
  auto generation = need(opened->refresh())->generation();
  shared.ready = 1;
  for (std::size_t i = 0; i < rounds; ++i) {
    ++generation;
    for (;;) {
      auto seen = opened.board().announcements();
      if (need(opened->refresh())->generation() >= generation)
        break;
      opened.board().wait(seen, 500ms);
    }
    shared.seen_ns[i] = now_ns();
  }
}

void watch_generations(const std::string& directory, std::uint32_t dimension,
                       shared_memory& shared, std::size_t rounds) {
  opened_client opened(directory, dimension);
  auto known = need(opened.handle.await_generation(0, patience_max));
  shared.ready = 1;
  for (std::size_t i = 0; i < rounds; ++i) {
    need(opened.handle.await_generation(known + i + 1, patience_max));
    shared.seen_ns[i] = now_ns();
  }
}

void watch_events(const std::string& directory, std::uint32_t dimension,
                  shared_memory& shared, std::size_t rounds) {
  opened_client opened(directory, dimension);
  auto events = need(opened.handle.watch());
  shared.ready = 1;
  for (std::size_t i = 0; i < rounds; ++i) {
    auto event = need(events.next(patience_max));
    shared.seen_ns[i] = now_ns();
    if (!event || event->generation != events.generation() + i + 1)
      throw std::runtime_error("the events are not those of the commits");
  }
}

/// From the end of the writer's sync to the answer in another process.
/// `board`: what the writer announces on; null: what everybody has.
std::vector<double> measure_visible(const options& chosen, std::size_t rounds,
                                    std::chrono::milliseconds pace,
                                    const watcher& watch, notice_board* board) {
  static int stores = 0;
  auto directory = chosen.directory + "/visible-" + std::to_string(stores++);
  shared_mapping<shared_memory> shared;
  crew processes;
  processes.start([&] { fill_store(directory, 1'000, chosen.dimension); });
  processes.wait();
  processes.start([&] { watch(directory, chosen.dimension, *shared, rounds); });
  processes.start([&] {
    opened_client opened(directory, chosen.dimension, board);
    std::mt19937_64 random(seed);
    wait_until([&] { return shared->ready != 0; });
    for (std::size_t i = 0; i < rounds; ++i) {
      std::this_thread::sleep_for(pace);
      commit_row(opened.handle, random_row("new", chosen.dimension, random));
      shared->begun_ns[i] = sync_end_ns;
    }
  });
  processes.wait();
  return latencies(shared, rounds);
}

void compare_visible(const options& chosen) {
  print_head("from the end of a commit's fdatasync to the answer in another "
             "process, us");
  print_quantiles("bare futex, for comparison", measure_wake_up(chosen), "");
  print_quantiles(
      "notice_board::wait, store::refresh",
      measure_visible(chosen, chosen.rounds, 3ms, watch_board, nullptr),
      "p50 <= 100, p99 <= 1000");
  print_quantiles(
      "client::await_generation",
      measure_visible(chosen, chosen.rounds, 3ms, watch_generations, nullptr),
      "p50 <= 100, p99 <= 1000");
  print_quantiles(
      "subscription::next",
      measure_visible(chosen, chosen.rounds, 3ms, watch_events, nullptr),
      "p50 <= 100, p99 <= 1000");
  print_quantiles("await_generation, announcement lost",
                  measure_visible(chosen, chosen.rounds_lost, 630ms,
                                  watch_generations, &process_board()),
                  "max <= 600000");
}

// -- refresh ------------------------------------------------------------------

struct refresh_figures {
  double refresh_us;
  double read_us;
};

refresh_figures measure_refresh(const options& chosen, std::size_t rows) {
  auto directory = chosen.directory + "/refresh-" + std::to_string(rows);
  fill_store(directory, rows, chosen.dimension);
  opened_store writer(directory, chosen.dimension);
  opened_store reader(directory, chosen.dimension);
  std::mt19937_64 random(seed + rows);
  std::vector<double> refreshes, reads;
  for (int round = 0; round < 41; ++round) {
    auto changed = random_rows(rows + std::size_t(round) * 100, 100,
                               chosen.dimension, random);
    auto bytes = frame_bytes(changed);
    auto home = need(posix_io().open_directory(directory, false));
    auto beside = need(home->open_file("bare", open_mode::create));
    need(beside->write_at(0, bytes));
    need(writer->commit(changed));
    auto start = now_ns();
    need(reader->refresh());
    refreshes.push_back(static_cast<double>(now_ns() - start) / 1e3);
    start = now_ns();
    need(beside->read_at(0, bytes));
    reads.push_back(static_cast<double>(now_ns() - start) / 1e3);
  }
  return {quantile(refreshes, 0.5), quantile(reads, 0.5)};
}

void print_refreshes(const options& chosen) {
  std::printf("\nrefresh of 100 new rows, medians of 41\n"
              "  %10s %12s %20s %8s\n",
              "rows", "refresh us", "read of the bytes us", "ratio");
  auto print = [](std::size_t rows, const refresh_figures& of) {
    std::printf("  %10zu %12.1f %20.1f %8.2f\n", rows, of.refresh_us,
                of.read_us, of.refresh_us / of.read_us);
  };
  auto small = measure_refresh(chosen, 1'000);
  print(1'000, small);
  auto large = measure_refresh(chosen, chosen.rows);
  print(chosen.rows, large);
  std::printf("  large to small: %.2f (expected: <= 1.2)\n",
              large.refresh_us / small.refresh_us);
}

void compare_refresh(const options& chosen) {
  crew processes;
  processes.start([&] { print_refreshes(chosen); });
  processes.wait();
}

// -- many writers -------------------------------------------------------------

/// Commits per second of each of `writers` processes; 0: writes and syncs of
/// the same bytes by one process, without a store.
std::vector<double> measure_writers(const options& chosen, std::size_t writers,
                                    std::size_t rows) {
  auto directory = chosen.directory + "/writers-" + std::to_string(writers)
                   + "-" + std::to_string(rows);
  auto count = std::max<std::size_t>(1, writers);
  shared_mapping<shared_memory> shared;
  crew processes;
  for (std::size_t number = 0; number < count; ++number)
    processes.start([&, number] {
      std::mt19937_64 random(seed + number);
      auto changed = random_rows(number * rows, rows, chosen.dimension, random);
      auto bytes = frame_bytes(changed);
      std::optional<opened_store> opened;
      std::optional<bare_log> bare;
      if (writers == 0)
        bare.emplace(directory);
      else
        opened.emplace(directory, chosen.dimension);
      ++shared->ready;
      wait_until([&] { return shared->go.load(); });
      auto end = now_ns() + static_cast<std::int64_t>(chosen.seconds * 1e9);
      while (now_ns() < end) {
        if (bare)
          bare->append(bytes);
        else
          need((*opened)->commit(changed));
        ++shared->commits[number];
      }
    });
  wait_until([&] { return shared->ready == count; });
  shared->go = true;
  processes.wait();
  std::filesystem::remove_all(directory);
  std::vector<double> out;
  for (std::size_t number = 0; number < count; ++number)
    out.push_back(static_cast<double>(shared->commits[number])
                  / chosen.seconds);
  return out;
}

void compare_writers(const options& chosen) {
  std::printf("\ncommits per second of several processes, %.0f s each\n"
              "  %8s %8s %10s %10s %12s %12s %8s\n",
              chosen.seconds, "rows", "writers", "commits/s", "of bare",
              "slowest/s", "fastest/s", "spread");
  for (std::size_t rows : {1, 100}) {
    auto bare = measure_writers(chosen, 0, rows).front();
    std::printf("  %8zu %8s %10.0f\n", rows, "bare", bare);
    for (std::size_t writers : {1, 2, 4, 8}) {
      auto each = measure_writers(chosen, writers, rows);
      double sum = 0;
      for (auto one : each)
        sum += one;
      auto [slowest, fastest] = std::ranges::minmax(each);
      std::printf("  %8zu %8zu %10.0f %9.0f%% %12.1f %12.1f %8.2f\n", rows,
                  writers, sum, 100 * sum / bare, slowest, fastest,
                  fastest / slowest);
    }
  }
  std::printf("  (bare: one process that appends and syncs the same bytes; "
              "spread: fastest to slowest writer)\n");
}

// -- overhead -----------------------------------------------------------------

/// Of commits of one row each, by turns with appends of the same bytes, what
/// they take beside their fdatasync; all in microseconds.
struct overhead_figures {
  std::vector<double> commits;
  std::vector<double> bare;
  std::vector<double> syncs;
};

overhead_figures
measure_overhead(const options& chosen, const std::string& directory,
                 const std::function<void(const commit_operation&)>& commit) {
  overhead_figures out;
  std::mt19937_64 random(seed);
  bare_log bare(directory);
  auto timed = [&](std::vector<double>& overhead,
                   const std::function<void()>& work) {
    auto start = now_ns();
    work();
    auto took = now_ns() - start;
    overhead.push_back(static_cast<double>(took - sync_took_ns) / 1e3);
    out.syncs.push_back(static_cast<double>(sync_took_ns) / 1e3);
  };
  for (std::size_t i = 0; i < chosen.rounds; ++i) {
    auto row = random_row("new", chosen.dimension, random);
    auto bytes = frame_bytes({row});
    timed(out.bare, [&] { bare.append(bytes); });
    timed(out.commits, [&] { commit(row); });
  }
  return out;
}

void print_overhead(const options& chosen) {
  auto directory = chosen.directory + "/overhead";
  fill_store(directory, 1'000, chosen.dimension);
  print_head("a commit of one row, without its fdatasync, us");
  {
    opened_store opened(directory, chosen.dimension);
    auto of = measure_overhead(chosen, directory, [&](const auto& row) {
      need(opened->commit(std::span(&row, 1)));
    });
    print_quantiles("fdatasync, for comparison", of.syncs, "");
    print_quantiles("bare append, for comparison", of.bare, "");
    print_quantiles("store::commit", of.commits, "p50 <= 100");
  }
  opened_client opened(directory, chosen.dimension);
  auto of = measure_overhead(chosen, directory, [&](const auto& row) {
    commit_row(opened.handle, row);
  });
  print_quantiles("client::upsert and client::commit", of.commits,
                  "p50 <= 100");
}

void compare_overhead(const options& chosen) {
  crew processes;
  processes.start([&] { print_overhead(chosen); });
  processes.wait();
}

// -- memory -------------------------------------------------------------------

void read_and_report(const options& chosen, const std::string& directory,
                     const shared_mapping<shared_memory>& shared,
                     std::size_t number) {
  auto own = [](auto of) { return of["Private_Clean"] + of["Private_Dirty"]; };
  auto before = memory_of_this_process();
  opened_client opened(directory, chosen.dimension);
  std::mt19937_64 random(seed + number);
  for (int i = 0; i < 10; ++i)
    need(opened.handle.query(
        random_row("query", chosen.dimension, random).vector, {10, -1.0}));
  // Everybody has read everything before anybody looks.
  ++shared->ready;
  wait_until([&] { return shared->ready >= readers; });
  auto after = memory_of_this_process();
  shared->kilobytes[number] = {own(before), own(after), after["Pss"]};
  ++shared->ready;
  wait_until([&] { return shared->ready == 2 * readers; });
}

void compare_memory(const options& chosen) {
  auto directory = chosen.directory + "/memory";
  shared_mapping<shared_memory> shared;
  crew processes;
  processes.start([&] {
    shared->store_bytes = fill_store(directory, chosen.rows, chosen.dimension);
  });
  processes.wait();
  auto kilobytes = static_cast<double>(shared->store_bytes) / 1024;
  for (std::size_t number = 0; number < readers; ++number)
    processes.start(
        [&, number] { read_and_report(chosen, directory, shared, number); });
  processes.wait();
  std::printf("\nmemory of %zu readers of one store of %zu x %u (%.1f MB), "
              "after ten queries each\n",
              readers, chosen.rows, chosen.dimension, kilobytes / 1024);
  for (const auto& [before, after, pss] : shared->kilobytes)
    std::printf("  private %6.1f MB = %4.1f%% of the store (before opening: "
                "%.1f MB; expected: < 5%%), Pss %6.1f MB\n",
                after / 1024, 100 * after / kilobytes, before / 1024,
                pss / 1024);
}

// -- all of it ----------------------------------------------------------------

void measure(const options& chosen) {
  const std::map<std::string, void (*)(const options&)> parts = {
      {"visible", compare_visible},
      {"refresh", compare_refresh},
      {"writers", compare_writers},
      {"overhead", compare_overhead},
      {"memory", compare_memory}};
  for (const auto& part : chosen.parts)
    parts.at(part)(chosen);
}

int run(int argument_count, char** arguments) {
  options chosen;
  CLI::App application{"What processes on one store pay for each other"};
  application.add_option("--dimension", chosen.dimension, "Floats per vector");
  application.add_option("--rounds", chosen.rounds, "Commits per figure")
      ->check(CLI::Range(std::size_t{1}, rounds_max));
  application
      .add_option("--rounds-lost", chosen.rounds_lost,
                  "Commits whose announcement is lost")
      ->check(CLI::Range(std::size_t{1}, rounds_max));
  application.add_option("--rows", chosen.rows, "Rows of the large store");
  application.add_option("--seconds", chosen.seconds, "Per number of writers");
  application.add_option("--directory", chosen.directory,
                         "Where to make a directory for the run");
  application
      .add_option("--parts", chosen.parts,
                  "Of: visible refresh writers overhead memory")
      ->check(CLI::IsMember(
          {"visible", "refresh", "writers", "overhead", "memory"}));
  CLI11_PARSE(application, argument_count, arguments);
  namespace fs = std::filesystem;
  auto parent = chosen.directory.empty() ? fs::current_path()
                                         : fs::path(chosen.directory);
  auto pattern = (parent / "bench-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr)
    throw std::runtime_error("cannot make a directory in " + parent.string());
  chosen.directory = pattern;
  print_machine(seed);
  measure(chosen);
  fs::remove_all(chosen.directory);
  return 0;
}

} // namespace
} // namespace callboard::bench

int main(int argument_count, char** arguments) {
  try {
    return callboard::bench::run(argument_count, arguments);
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "multi_process_bench: %s\n", problem.what());
    return 1;
  }
}
