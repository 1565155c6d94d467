#include "tests/torture/conductor.hpp"

#include "tests/torture/role.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iostream>
#include <iterator>
#include <optional>
#include <spawn.h>
#include <string>
#include <sys/types.h>
#include <sys/wait.h>
#include <vector>

namespace callboard::torture {

namespace {

using clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr auto round_length = seconds(10);
constexpr auto still_max = seconds(30);
/// Between two looks at the processes.
constexpr auto look_interval = milliseconds(2);
/// What one look adds to a process's standstill at most: if this process did
/// not get on either, nobody hangs.
constexpr auto still_per_look_max = milliseconds(100);

struct counts {
  std::size_t kills = 0;
  std::size_t commits = 0;
  std::array<std::size_t, 3> findings{};

  std::size_t& of(finding::kind what) {
    return findings[static_cast<std::size_t>(what)];
  }
  bool clean() const {
    return findings == std::array<std::size_t, 3>{} && kills > 0 && commits > 0;
  }
};

/// When a process is to be killed.
struct death {
  enum class after : std::uint8_t {
    its_start,
    /// When it has opened its stores.
    its_opening,
    /// The same, and not before it has got on: so that it is noticed if it
    /// waits for a dead one.
    its_progress,
  };
  after what = after::its_start;
  milliseconds delay{};
};

death choose_death(random_source& random) {
  const auto delay = milliseconds(5 + below(random, 396));
  switch (below(random, 8)) {
  case 0:
    return {death::after::its_start, milliseconds(below(random, 30))};
  case 1:
    return {death::after::its_start, delay};
  case 2:
    return {death::after::its_progress, delay};
  default:
    return {death::after::its_opening, delay};
  }
}

struct worker {
  pid_t process = -1;
  unsigned incarnation = 0;
  death end;
  clock::time_point started;
  std::optional<clock::time_point> opened;
  /// When it was due, how often it had shown itself.
  std::optional<std::uint64_t> beats_when_due;
  std::uint64_t beats = 0;
  clock::duration still{};
};

void print(const failure& why) {
  std::cout << to_string(why.code) << ": " << why.message << '\n';
}

class conductor {
public:
  conductor(run_options options, pulse_board pulses)
      : options_(std::move(options)),
        pulses_(std::move(pulses)),
        random_(options_.seed) {}

  int run();

private:
  result<void> start_round();
  void run_round();
  void end_round();
  bool is_over() const;
  void note_commits();
  void judge_round();

  void start(unsigned slot);
  std::vector<std::string> arguments_of(unsigned slot) const;
  void look_after(unsigned slot, clock::duration since_last_look);
  bool is_due(unsigned slot);
  bool hangs(unsigned slot, clock::duration since_last_look);
  void kill(unsigned slot);
  void note_end(unsigned slot, int status);
  void report(finding::kind what, const std::string& text);
  /// Returns early when a process has ended.
  static void wait_a_moment();

  run_options options_;
  pulse_board pulses_;
  random_source random_;
  unsigned round_ = 0;
  clock::time_point began_ = clock::now();
  std::array<worker, slot_count> workers_{};
  counts counts_;
  /// Nobody is started any more.
  bool ends_ = false;
  bool stop_ = false;
};

void conductor::report(finding::kind what, const std::string& text) {
  ++counts_.of(what);
  stop_ = true;
  std::cout << "FOUND " << to_string(what) << ": " << text << '\n';
}

// -- processes ----------------------------------------------------------------

std::vector<std::string> conductor::arguments_of(unsigned slot) const {
  return {"callboard_torture",
          "--slot",
          std::to_string(slot),
          "--incarnation",
          std::to_string(workers_[slot].incarnation),
          "--round",
          std::to_string(round_),
          "--seed",
          std::to_string(options_.seed),
          "--directory",
          options_.directory.string()};
}

void conductor::start(unsigned slot) {
  auto& started = workers_[slot];
  started = {.process = -1,
             .incarnation = started.incarnation + 1,
             .end = choose_death(random_),
             .started = clock::now(),
             .opened = std::nullopt,
             .beats_when_due = std::nullopt};
  auto& pulse = pulses_.of(slot);
  pulse.is_ready.store(false);
  pulse.at.store(step::starting);
  started.beats = pulse.beats.load();
  if (slot < ledger_slots) {
    auto file =
        ledger_file::open(ledger_directory(options_.directory, round_)
                          / ledger_file_name(slot, started.incarnation));
    if (!file || !file->start())
      return report(finding::kind::torn, "cannot write the ledger");
  }
  auto words = arguments_of(slot);
  std::vector<char*> arguments;
  for (auto& each : words)
    arguments.push_back(each.data());
  arguments.push_back(nullptr);
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  sigset_t none;
  ::sigemptyset(&none);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  const int failed = ::posix_spawn(&started.process, "/proc/self/exe", nullptr,
                                   &attributes, arguments.data(), environ);
  ::posix_spawnattr_destroy(&attributes);
  if (failed != 0) {
    started.process = -1;
    report(finding::kind::torn,
           std::string("cannot start a process: ") + std::strerror(failed));
  }
}

void conductor::kill(unsigned slot) {
  auto& victim = workers_[slot];
  if (victim.process < 0)
    return;
  ::kill(victim.process, SIGKILL);
  int status = 0;
  while (::waitpid(victim.process, &status, 0) < 0 && errno == EINTR)
    continue;
  victim.process = -1;
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
    ++counts_.kills;
  else
    note_end(slot, status);
}

/// The process has ended by itself.
void conductor::note_end(unsigned slot, int status) {
  auto& ended = workers_[slot];
  ended.process = -1;
  const assignment who{.directory = options_.directory,
                       .seed = options_.seed,
                       .round = round_,
                       .slot = slot,
                       .incarnation = ended.incarnation};
  const auto what = WIFEXITED(status) ? finding_of(WEXITSTATUS(status))
                                      : std::optional<finding::kind>();
  if (what) {
    std::ifstream in(finding_file(who));
    report(*what, {std::istreambuf_iterator<char>(in), {}});
    return;
  }
  if (slot == judge_slot && WIFEXITED(status) && WEXITSTATUS(status) == 0)
    return;
  report(finding::kind::torn,
         "the process of slot " + std::to_string(slot) + " ended by itself, "
             + (WIFEXITED(status)
                    ? "with status " + std::to_string(WEXITSTATUS(status))
                    : "by signal " + std::to_string(WTERMSIG(status)))
             + ", while " + std::string(to_string(pulses_.of(slot).at.load())));
}

bool conductor::is_due(unsigned slot) {
  auto& each = workers_[slot];
  const auto now = clock::now();
  if (!each.opened && pulses_.of(slot).is_ready.load())
    each.opened = now;
  if (each.end.what == death::after::its_start)
    return now >= each.started + each.end.delay;
  if (!each.opened || now < *each.opened + each.end.delay)
    return false;
  if (each.end.what == death::after::its_opening)
    return true;
  if (!each.beats_when_due)
    each.beats_when_due = each.beats;
  return each.beats != *each.beats_when_due;
}

bool conductor::hangs(unsigned slot, clock::duration since_last_look) {
  auto& each = workers_[slot];
  const auto beats = pulses_.of(slot).beats.load();
  if (beats != each.beats) {
    each.beats = beats;
    each.still = {};
    return false;
  }
  each.still += std::min<clock::duration>(since_last_look, still_per_look_max);
  return each.still > still_max;
}

void conductor::look_after(unsigned slot, clock::duration since_last_look) {
  auto& each = workers_[slot];
  if (each.process < 0)
    return;
  int status = 0;
  if (::waitpid(each.process, &status, WNOHANG) == each.process) {
    note_end(slot, status);
    return;
  }
  if (hangs(slot, since_last_look)) {
    report(finding::kind::hung,
           "the process of slot " + std::to_string(slot)
               + " stands still, while "
               + std::string(to_string(pulses_.of(slot).at.load())));
    kill(slot);
    return;
  }
  if (slot != judge_slot && is_due(slot)) {
    kill(slot);
    if (!stop_ && !ends_)
      start(slot);
  }
}

void conductor::wait_a_moment() {
  sigset_t child;
  ::sigemptyset(&child);
  ::sigaddset(&child, SIGCHLD);
  const timespec moment{
      .tv_sec = 0,
      .tv_nsec =
          std::chrono::duration_cast<std::chrono::nanoseconds>(look_interval)
              .count()};
  (void)::sigtimedwait(&child, nullptr, &moment);
}

// -- rounds -------------------------------------------------------------------

bool conductor::is_over() const {
  const auto elapsed = clock::now() - began_;
  return elapsed >= seconds(options_.seconds) * time_factor_max
         || (elapsed >= seconds(options_.seconds)
             && counts_.kills >= options_.kills);
}

result<void> conductor::start_round() {
  for (auto& each : workers_)
    each.incarnation = 0;
  if (round_ > 0)
    return {}; // the judge has written its baseline
  std::error_code failed;
  const auto directory = ledger_directory(options_.directory, round_);
  std::filesystem::create_directories(directory, failed);
  std::filesystem::create_directories(store_directory(options_.directory),
                                      failed);
  return write_baselines(directory, {});
}

void conductor::run_round() {
  for (unsigned slot = 0; slot < worker_slots; ++slot)
    start(slot);
  const auto end = clock::now() + round_length;
  auto looked = clock::now();
  while (!stop_ && !is_over() && clock::now() < end) {
    wait_a_moment();
    const auto now = clock::now();
    for (unsigned slot = 0; slot < worker_slots; ++slot)
      look_after(slot, now - looked);
    looked = now;
  }
  end_round();
  note_commits();
}

/// Whoever is left must get on, although more and more of the others are dead.
void conductor::end_round() {
  ends_ = true;
  for (auto& each : workers_)
    each.end = {death::after::its_progress, milliseconds(0)};
  const auto somebody_lives = [this] {
    return std::any_of(workers_.begin(), workers_.end(),
                       [](const worker& each) { return each.process >= 0; });
  };
  auto looked = clock::now();
  while (!stop_ && somebody_lives()) {
    wait_a_moment();
    const auto now = clock::now();
    for (unsigned slot = 0; slot < worker_slots; ++slot)
      look_after(slot, now - looked);
    looked = now;
  }
  for (unsigned slot = 0; slot < worker_slots; ++slot)
    kill(slot);
  ends_ = false;
}

void conductor::note_commits() {
  ledger_reader reader(ledger_directory(options_.directory, round_), round_);
  if (const auto known = reader.read())
    counts_.commits += (*known)->acknowledged_commits();
  else
    report(finding::kind::torn, known.error().message);
}

void conductor::judge_round() {
  start(judge_slot);
  auto looked = clock::now();
  while (workers_[judge_slot].process >= 0) {
    wait_a_moment();
    const auto now = clock::now();
    look_after(judge_slot, now - looked);
    looked = now;
  }
  if (stop_)
    return;
  std::error_code ignored;
  std::filesystem::remove_all(ledger_directory(options_.directory, round_),
                              ignored);
}

int conductor::run() {
  for (; !stop_ && !is_over(); ++round_) {
    if (auto started = start_round(); !started) {
      print(started.error());
      return 1;
    }
    run_round();
    if (!stop_)
      judge_round();
    std::cout << "round " << round_ << ": " << counts_.kills << " kills, "
              << counts_.commits << " commits so far" << std::endl;
  }
  const bool enough = counts_.kills >= options_.kills;
  if (!stop_ && !enough)
    std::cout << "not " << options_.kills << " kills in "
              << options_.seconds * time_factor_max << " seconds\n";
  if (stop_)
    std::cout << "kept: " << options_.directory.string() << '\n';
  std::cout << "kills=" << counts_.kills << " commits=" << counts_.commits
            << " lost=" << counts_.of(finding::kind::lost)
            << " torn=" << counts_.of(finding::kind::torn)
            << " hung=" << counts_.of(finding::kind::hung) << std::endl;
  return counts_.clean() && enough ? 0 : 1;
}

} // namespace

int conduct(const run_options& options) {
  sigset_t child;
  ::sigemptyset(&child);
  ::sigaddset(&child, SIGCHLD);
  ::sigprocmask(SIG_BLOCK, &child, nullptr);
  auto pulses = pulse_board::open(pulse_file(options.directory));
  if (!pulses) {
    print(pulses.error());
    return 1;
  }
  return conductor(options, std::move(*pulses)).run();
}

} // namespace callboard::torture
