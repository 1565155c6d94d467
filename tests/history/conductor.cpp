#include "tests/history/conductor.hpp"

#include "tests/history/roles.hpp"
#include "tests/torture/rows.hpp"

#include <chrono>
#include <csignal>
#include <ctime>
#include <exception>
#include <functional>
#include <iostream>
#include <new>
#include <string>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

namespace callboard::history {

namespace {

using clock = std::chrono::steady_clock;

constexpr auto still_max = std::chrono::minutes(1);
/// Between two looks at the processes, at most.
constexpr std::uint64_t look_interval_us_max = 4000;

/// `progress` in memory that forked processes share.
class shared_progress {
public:
  shared_progress()
      : memory_(::mmap(nullptr, sizeof(progress), PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS, -1, 0)) {
    if (memory_ == MAP_FAILED)
      throw std::bad_alloc();
    value_ = new (memory_) progress;
  }
  shared_progress(const shared_progress&) = delete;
  shared_progress& operator=(const shared_progress&) = delete;
  ~shared_progress() { ::munmap(memory_, sizeof(progress)); }
  progress& operator*() const noexcept { return *value_; }
  progress* operator->() const noexcept { return value_; }

private:
  void* memory_;
  progress* value_ = nullptr;
};

/// A process that ends with its parent, at the latest.
struct child {
  pid_t id = -1;
  unsigned incarnation = 0;
  bool is_writer = false;
};

[[noreturn]] void live(const std::function<result<void>()>& work) {
  int status = 1;
  try {
    if (const auto done = work())
      status = 0;
    else
      std::cout << done.error().message << std::endl;
  } catch (const std::exception& problem) {
    std::cout << "in a process: " << problem.what() << std::endl;
  }
  ::_exit(status);
}

class conductor {
public:
  explicit conductor(run_options options)
      : options_(std::move(options)), random_(options_.seed) {}
  conductor(const conductor&) = delete;
  conductor& operator=(const conductor&) = delete;
  ~conductor();

  result<std::uint64_t> run();

private:
  assignment assignment_of(unsigned process) const;
  void start(unsigned process);
  bool wait_for(unsigned process);
  bool look_after_processes();
  void kill_if_due();
  void kill_any_writer();
  result<void> wait_for_transactions();
  bool end_all();
  bool judge();
  void wait_a_moment();

  run_options options_;
  torture::random_source random_;
  shared_progress shared_;
  sigset_t ends_{};
  sigset_t mask_before_{};
  std::vector<child> processes_;
  std::uint64_t kills_ = 0;
  /// What must be acknowledged before the next kill.
  std::uint64_t kill_at_ = 0;
};

conductor::~conductor() {
  for (const auto& each : processes_)
    if (each.id > 0) {
      ::kill(each.id, SIGKILL);
      ::waitpid(each.id, nullptr, 0);
    }
}

assignment conductor::assignment_of(unsigned process) const {
  const bool is_writer = process < options_.writers;
  const auto role_number = is_writer ? process : process - options_.writers;
  return {.directory = options_.directory,
          .seed = options_.seed,
          .process = process,
          .incarnation = processes_[process].incarnation,
          .how = role_number == 1 ? access::client : access::engine,
          .transactions = options_.transactions,
          .maintains = process == 0};
}

void conductor::start(unsigned process) {
  auto& self = processes_[process];
  ++self.incarnation;
  const auto who = assignment_of(process);
  const auto parent = ::getpid();
  self.id = ::fork();
  if (self.id != 0)
    return;
  ::sigprocmask(SIG_SETMASK, &mask_before_, nullptr);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent)
    ::_exit(1);
  live([&] {
    return processes_[process].is_writer ? write(who, *shared_)
                                         : read(who, *shared_);
  });
}

/// Whether it ended well.
bool conductor::wait_for(unsigned process) {
  int status = 0;
  const auto id = std::exchange(processes_[process].id, -1);
  return id > 0 && ::waitpid(id, &status, 0) == id && WIFEXITED(status)
         && WEXITSTATUS(status) == 0;
}

/// False if one has ended that nobody has killed.
bool conductor::look_after_processes() {
  for (auto& each : processes_) {
    if (each.id <= 0)
      return false;
    if (::waitpid(each.id, nullptr, WNOHANG) == each.id) {
      each.id = -1;
      return false;
    }
  }
  return true;
}

/// Returns early when a process has ended.
void conductor::wait_a_moment() {
  timespec time{};
  time.tv_nsec =
      1000 * static_cast<long>(torture::below(random_, look_interval_us_max));
  ::sigtimedwait(&ends_, nullptr, &time);
}

void conductor::kill_any_writer() {
  const auto process =
      static_cast<unsigned>(torture::below(random_, options_.writers));
  ::kill(processes_[process].id, SIGKILL);
  (void)wait_for(process);
  ++kills_;
  start(process);
}

void conductor::kill_if_due() {
  if (kills_ == options_.kills || shared_->acknowledged < kill_at_)
    return;
  kill_any_writer();
  kill_at_ = options_.transactions * (kills_ + 1) / (options_.kills + 1);
}

result<void> conductor::wait_for_transactions() {
  kill_at_ = options_.transactions / (options_.kills + 1);
  std::uint64_t before = 0;
  auto since = clock::now();
  while (shared_->acknowledged < options_.transactions
         || kills_ < options_.kills) {
    wait_a_moment();
    if (!look_after_processes())
      return failure{errc::io_failure, "a process has ended by itself"};
    kill_if_due();
    const auto now = shared_->acknowledged.load();
    if (std::exchange(before, now) != now)
      since = clock::now();
    else if (clock::now() - since > still_max)
      return failure{errc::timed_out,
                     "nothing was acknowledged for a minute, after "
                         + std::to_string(now) + " transactions"};
  }
  return {};
}

/// Writers first: readers must see the last commit of all. Whether all ended
/// well.
bool conductor::end_all() {
  shared_->writers_stop = true;
  bool out = true;
  for (unsigned process = 0; process < options_.writers; ++process)
    out = wait_for(process) && out;
  shared_->readers_stop = true;
  for (unsigned process = options_.writers; process < processes_.size();
       ++process)
    out = wait_for(process) && out;
  return out;
}

/// What a fresh process finds when all are gone.
bool conductor::judge() {
  processes_.emplace_back();
  const auto process = static_cast<unsigned>(processes_.size() - 1);
  const auto who = assignment_of(process);
  processes_[process].id = ::fork();
  if (processes_[process].id == 0)
    live([&] { return read_at_the_end(who); });
  return wait_for(process);
}

result<std::uint64_t> conductor::run() {
  std::error_code failed;
  std::filesystem::create_directory(store_directory(options_.directory),
                                    failed);
  std::filesystem::create_directory(journal_directory(options_.directory),
                                    failed);
  ::sigemptyset(&ends_);
  ::sigaddset(&ends_, SIGCHLD);
  ::sigprocmask(SIG_BLOCK, &ends_, &mask_before_);
  processes_.resize(options_.writers + options_.readers);
  for (unsigned process = 0; process < processes_.size(); ++process) {
    processes_[process].is_writer = process < options_.writers;
    start(process);
  }
  CALLBOARD_TRY(wait_for_transactions());
  if (!end_all() || !judge())
    return failure{errc::io_failure, "a process has ended by itself"};
  return kills_;
}

} // namespace

result<std::uint64_t> conduct(const run_options& options) {
  return conductor(options).run();
}

} // namespace callboard::history
