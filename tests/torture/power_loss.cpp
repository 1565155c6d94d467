// Cuts the power of a real file system under processes that write a store, and
// looks whether what was promised is there after the next mount.
//
//   power_loss --file-system ext4|xfs [--cycles N] [--seed S] [--without-sync]
//
// Two processes commit (and now and then drop), one checkpoints, one reads, and
// they tell each other by a board in the same file system;
// at a random instant the file system is shut down without its journal being
// written, as by a power cut. A commit counts as acknowledged if the power was
// still on after it had returned; acknowledgements are kept in memory, which is
// not cut. Every fourth time the power goes again during the recovery. Then a
// fresh process opens the store: all that was acknowledged or shown to a reader
// must be there, in order; what was under way must be there as a whole or not
// at all; `verify` must agree; the published pair must be a former state.
//
// With --without-sync the processes' syncs do nothing: then the test must find
// a loss, and fails if it does not.
//
// Needs root (it mounts an image of its own through a loop device) and
// mkfs.ext4 (Debian: e2fsprogs) or mkfs.xfs (xfsprogs); exits with 77 where it
// cannot run, with 1 if something was lost or torn, with 2 if it was called
// wrongly. What it mounts is private to it and goes with it.

#include "tests/torture/power_loss_disk.hpp"
#include "tests/torture/power_loss_model.hpp"
#include "tests/torture/power_loss_worker.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <new>
#include <random>
#include <stdexcept>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace callboard::test {
namespace {

constexpr int exit_cannot_run = 77;
/// A new store so often, so that creation is under test, too.
constexpr std::uint64_t cycles_per_store = 20;
constexpr auto patience_max = std::chrono::seconds(60);

struct options {
  file_system kind = file_system::ext4;
  std::uint64_t cycles = 500;
  std::uint64_t seed = 0;
  std::string directory = "/var/tmp";
  bool without_sync = false;
};

/// Ends the test: not a loss, but nothing that may happen either.
struct test_failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A worker found the store damaged, or crashed.
struct worker_failure : test_failure {
  using test_failure::test_failure;
};

void require(const result<void>& outcome) {
  if (!outcome)
    throw test_failure(outcome.error().message);
}

// -- what the processes share -------------------------------------------------

class shared_mapping {
public:
  shared_mapping()
      : place_(::mmap(nullptr, sizeof(shared_memory), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0)) {
    if (place_ == MAP_FAILED)
      throw test_failure("no shared memory");
    clear();
  }
  void clear() { content_ = new (place_) shared_memory; }
  shared_memory& operator*() const { return *content_; }
  shared_memory* operator->() const { return content_; }

private:
  void* place_;
  shared_memory* content_ = nullptr;
};

// -- processes ----------------------------------------------------------------

/// A child of this process; killed by the destructor.
class process {
public:
  explicit process(const std::function<int()>& work) {
    std::fflush(nullptr);
    id_ = ::fork();
    if (id_ < 0)
      throw test_failure("cannot fork");
    if (id_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::_exit(work());
    }
  }
  process(process&& other) noexcept : id_(std::exchange(other.id_, -1)) {}
  process& operator=(process&&) = delete;
  ~process() {
    if (id_ > 0)
      kill();
  }

  /// Kills it unless it has ended by itself, and waits for it. Its status.
  int kill() {
    ::kill(id_, SIGKILL);
    int status = 0;
    ::waitpid(std::exchange(id_, -1), &status, 0);
    return status;
  }

  /// Its status; empty if it does not end in time.
  std::optional<int> wait(std::chrono::seconds patience) {
    auto deadline = std::chrono::steady_clock::now() + patience;
    int status = 0;
    while (::waitpid(id_, &status, WNOHANG) == 0) {
      if (std::chrono::steady_clock::now() > deadline)
        return std::nullopt;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    id_ = -1;
    return status;
  }

private:
  pid_t id_ = -1;
};

/// Without power a worker may end in any way that a dead device brings about,
/// SIGBUS of a mapped file included; with it, it must not end at all.
void require_death_by_power_cut(int status) {
  auto expected =
      (WIFEXITED(status) && WEXITSTATUS(status) == 0)
      || (WIFSIGNALED(status)
          && (WTERMSIG(status) == SIGKILL || WTERMSIG(status) == SIGBUS));
  if (!expected)
    throw worker_failure("a worker failed while the power was on, or crashed: "
                         "wait status "
                         + std::to_string(status));
}

// -- the test -----------------------------------------------------------------

class power_loss_test {
public:
  power_loss_test(const options& chosen, virtual_disk& disk)
      : chosen_(chosen),
        disk_(disk),
        random_(chosen.seed),
        history_(chosen.seed) {}

  /// One power cut and what came after it.
  verdict cycle();
  void print_totals(const verdict& last) const {
    std::printf(
        "cycles=%llu commits=%llu lost=%llu torn=%llu power_offs=%llu\n",
        print(cycles_), print(commits_), print(last.lost), print(last.torn),
        print(power_offs_));
  }
  std::uint64_t cycles() const noexcept { return cycles_; }

private:
  static unsigned long long print(std::uint64_t number) { return number; }

  void begin_new_store();
  store_options where() const;
  worker make_worker(std::size_t number) const;
  row_version first_version(std::size_t writer) const {
    return ((cycles_ * writers + writer) << 16) + 1;
  }
  void pause_up_to(std::chrono::microseconds least,
                   std::chrono::microseconds most);
  void work_until_power_cut(bool wait_for_all);
  void recover_until_power_cut();
  void cut_power(std::vector<process>& running);
  evidence collect();
  void let_somebody_examine();
  verdict judge(const evidence& before);

  const options& chosen_;
  virtual_disk& disk_;
  std::mt19937_64 random_;
  shared_mapping shared_;
  store_history history_;
  std::uint64_t stores_ = 0;
  std::uint64_t boot_ = 0;
  std::uint64_t cycles_ = 0;
  std::uint64_t commits_ = 0;
  std::uint64_t power_offs_ = 0;
};

store_options power_loss_test::where() const {
  store_options out;
  out.working_directory = disk_.mount_point();
  out.namespace_name = "store" + std::to_string(stores_);
  out.dimension = power_loss_dimension;
  out.reader_grace = std::chrono::seconds(0); // nobody reads the pair meanwhile
  return out;
}

worker power_loss_test::make_worker(std::size_t number) const {
  auto syncs = chosen_.without_sync ? syncing::pretended : syncing::real;
  return {*shared_, syncs, boot_, where(), chosen_.seed, number};
}

void power_loss_test::pause_up_to(std::chrono::microseconds least,
                                  std::chrono::microseconds most) {
  std::uniform_int_distribution<std::int64_t> any(least.count(), most.count());
  std::this_thread::sleep_for(std::chrono::microseconds(any(random_)));
}

void power_loss_test::begin_new_store() {
  for (const auto& old :
       std::filesystem::directory_iterator(disk_.mount_point()))
    if (old.path().filename() != "lost+found")
      std::filesystem::remove_all(old.path());
  ++stores_;
  history_ = store_history(chosen_.seed);
}

void power_loss_test::cut_power(std::vector<process>& running) {
  require(disk_.cut_power(shared_->power_is_off));
  ++power_offs_;
  for (auto& each : running)
    require_death_by_power_cut(each.kill());
  running.clear();
  // A device can also be cut off without the machine.
  boot_ += random_() % 4 == 0 ? 0 : 1;
  require(disk_.unmount());
  require(disk_.mount());
}

void power_loss_test::work_until_power_cut(bool wait_for_all) {
  using namespace std::chrono_literals;
  std::vector<process> running;
  for (std::size_t i = 0; i < workers; ++i)
    running.emplace_back([&, i] {
      auto each = make_worker(i);
      return i < writers    ? each.write(first_version(i))
             : i == writers ? each.checkpoint()
                            : each.read();
    });
  auto deadline = std::chrono::steady_clock::now() + patience_max;
  while (wait_for_all && shared_->at_work < workers) {
    if (std::chrono::steady_clock::now() > deadline)
      throw test_failure("the workers do not come to work");
    std::this_thread::sleep_for(1ms);
  }
  pause_up_to(wait_for_all ? 2ms : 0ms, 80ms);
  cut_power(running);
}

void power_loss_test::recover_until_power_cut() {
  using namespace std::chrono_literals;
  shared_->power_is_off = false;
  std::vector<process> running;
  running.emplace_back([&] { return make_worker(writers).checkpoint(); });
  pause_up_to(0ms, 30ms);
  cut_power(running);
}

evidence power_loss_test::collect() {
  evidence out;
  for (std::size_t i = 0; i < writers; ++i) {
    const auto& of = shared_->ledgers[i];
    auto acknowledged = of.acknowledged.load();
    for (std::uint64_t n = 0; n < acknowledged; ++n)
      out.acknowledged.push_back({first_version(i) + n, of.generations[n]});
    if (of.begun > acknowledged)
      out.unanswered.push_back(first_version(i) + acknowledged);
  }
  for (const auto& shown : shared_->shown)
    out.shown = std::max(out.shown, shown.load());
  commits_ += out.acknowledged.size();
  return out;
}

void power_loss_test::let_somebody_examine() {
  auto with_checkpoint = random_() % 4 == 0;
  auto& found = shared_->found;
  process checker([&] {
    auto outcome = examine(where(), boot_, with_checkpoint, found);
    if (outcome)
      found.complete = true;
    else
      outcome.error().message.copy(found.problem.data(),
                                   found.problem.size() - 1);
    return 0;
  });
  auto status = checker.wait(patience_max);
  if (!status)
    throw test_failure("the store does not open: it hangs");
  if (*status != 0)
    std::strcpy(found.problem.data(), "the opening process crashed");
}

verdict power_loss_test::judge(const evidence& before) {
  const auto& found = shared_->found;
  if (!found.complete)
    return {std::max<std::uint64_t>(1, before.acknowledged.size()), 0,
            std::string("nothing can be read: ") + found.problem.data()};
  auto out = history_.judge(before, found.generation, found.rows);
  if (out.good())
    out = history_.judge_published(found.published_before);
  if (out.good())
    out = history_.judge_published(found.published_after);
  if (out.good() && found.checkpointed && found.published_after != found.rows)
    out = {0, 1, "the pair does not show all after a checkpoint"};
  return out;
}

verdict power_loss_test::cycle() {
  auto fresh = cycles_ % cycles_per_store == 0;
  if (fresh)
    begin_new_store();
  ++cycles_;
  shared_.clear();
  work_until_power_cut(!fresh || random_() % 2 == 0);
  if (random_() % 4 == 0 && !chosen_.without_sync)
    recover_until_power_cut();
  auto before = collect();
  let_somebody_examine();
  return judge(before);
}

/// As long as all is well.
verdict run_cycles(const options& chosen, power_loss_test& test) {
  verdict last;
  try {
    while (last.good() && test.cycles() < chosen.cycles) {
      last = test.cycle();
      if (last.good() && test.cycles() % 100 == 0)
        test.print_totals(last);
    }
  } catch (const worker_failure& problem) {
    last = {1, 0, problem.what()};
  }
  return last;
}

/// The exit code.
int run(const options& chosen, virtual_disk& disk) {
  power_loss_test test(chosen, disk);
  auto last = run_cycles(chosen, test);
  auto cycles = static_cast<unsigned long long>(test.cycles());
  if (!last.good())
    std::printf("cycle %llu: %s\n", cycles, last.explanation.c_str());
  if (chosen.without_sync)
    std::printf(last.lost > 0 ? "without syncs, cycle %llu has lost commits, "
                                "as it must\n"
                              : "without syncs, nothing was found to be lost "
                                "in %llu cycles: the test is blind\n",
                cycles);
  test.print_totals(last);
  return chosen.without_sync ? last.lost == 0 : !last.good();
}

/// A directory that goes with this object.
class temporary_directory {
public:
  explicit temporary_directory(const std::string& place)
      : path_(place + "/callboard-power-loss-XXXXXX") {
    if (::mkdtemp(path_.data()) == nullptr)
      throw test_failure("cannot make a directory in " + place);
  }
  temporary_directory(const temporary_directory&) = delete;
  temporary_directory& operator=(const temporary_directory&) = delete;
  ~temporary_directory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const noexcept { return path_; }

private:
  std::string path_;
};

int run(int argument_count, char** arguments) {
  options chosen;
  chosen.seed = std::random_device()();
  CLI::App application{"Cuts the power under a store, and looks what is left"};
  const std::map<std::string, file_system> kinds = {{"ext4", file_system::ext4},
                                                    {"xfs", file_system::xfs}};
  application.add_option("--file-system", chosen.kind, "ext4 or xfs")
      ->required()
      ->transform(CLI::CheckedTransformer(kinds));
  application.add_option("--cycles", chosen.cycles, "Power cuts, at least");
  application.add_option("--seed", chosen.seed, "Repeats the choices of a run");
  application.add_option("--directory", chosen.directory,
                         "Where the image is put");
  application.add_flag("--without-sync", chosen.without_sync,
                       "Syncs do nothing; succeeds if a loss was found");
  try {
    application.parse(argument_count, arguments);
  } catch (const CLI::ParseError& problem) {
    return application.exit(problem) == 0 ? 0 : 2;
  }
  std::printf("seed=%llu\n", static_cast<unsigned long long>(chosen.seed));
  temporary_directory place(chosen.directory);
  auto disk = virtual_disk::make(place.path(), chosen.kind);
  if (!disk) {
    std::printf("skipped: %s\n", disk.error().message.c_str());
    return exit_cannot_run;
  }
  return run(chosen, **disk);
}

} // namespace
} // namespace callboard::test

int main(int argument_count, char** arguments) {
  try {
    return callboard::test::run(argument_count, arguments);
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "power_loss: %s\n", problem.what());
    return 1;
  }
}
