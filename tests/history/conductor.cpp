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

/// Who does nothing for so long hangs.
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

failure ended_by_itself() {
  return {errc::io_failure, "a process has ended by itself"};
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
  void spawn(unsigned process, const std::function<result<void>()>& work);
  result<void> wait_for(unsigned process, clock::time_point give_up);
  result<void> wait_for_all(unsigned begin, unsigned end);
  bool look_after_processes();
  void kill_if_due();
  void kill_any_writer();
  result<void> wait_for_transactions();
  result<void> end_all();
  result<void> judge();
  void wait_a_moment();
  void wait_at_most(std::chrono::microseconds duration);

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
  spawn(process, [&] {
    return self.is_writer ? write(who, *shared_) : read(who, *shared_);
  });
}

void conductor::spawn(unsigned process,
                      const std::function<result<void>()>& work) {
  auto& self = processes_[process];
  const auto parent = ::getpid();
  self.id = ::fork();
  if (self.id != 0)
    return;
  ::sigprocmask(SIG_SETMASK, &mask_before_, nullptr);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent)
    ::_exit(1);
  live(work);
}

/// Until it has ended. Errors: `io_failure` if it has not ended well,
/// `timed_out` if it has not ended when `give_up` is reached.
result<void> conductor::wait_for(unsigned process, clock::time_point give_up) {
  auto& self = processes_[process];
  while (self.id > 0) {
    int status = 0;
    const auto ended = ::waitpid(self.id, &status, WNOHANG);
    if (ended != 0) {
      self.id = -1;
      if (ended > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return {};
      break;
    }
    if (clock::now() >= give_up)
      return failure{errc::timed_out, "process " + std::to_string(process)
                                          + " has not ended in a minute"};
    wait_at_most(std::chrono::milliseconds(100));
  }
  return ended_by_itself();
}

/// The first error of those from `begin` to before `end`.
result<void> conductor::wait_for_all(unsigned begin, unsigned end) {
  const auto give_up = clock::now() + still_max;
  result<void> out;
  for (auto process = begin; process < end; ++process) {
    const auto ended = wait_for(process, give_up);
    if (out && !ended)
      out = ended;
  }
  return out;
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

void conductor::wait_a_moment() {
  wait_at_most(
      std::chrono::microseconds(torture::below(random_, look_interval_us_max)));
}

/// Less than a second. Returns early when a process has ended.
void conductor::wait_at_most(std::chrono::microseconds duration) {
  timespec time{};
  time.tv_nsec = std::chrono::nanoseconds(duration).count();
  ::sigtimedwait(&ends_, nullptr, &time);
}

void conductor::kill_any_writer() {
  const auto process =
      static_cast<unsigned>(torture::below(random_, options_.writers));
  ::kill(processes_[process].id, SIGKILL);
  (void)wait_for(process, clock::now() + still_max);
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
      return ended_by_itself();
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

/// Writers first: readers must see the last commit of all.
result<void> conductor::end_all() {
  const auto all = options_.writers + options_.readers;
  shared_->writers_stop = true;
  const auto written = wait_for_all(0, options_.writers);
  shared_->readers_stop = true;
  const auto read = wait_for_all(options_.writers, all);
  return written ? read : written;
}

/// What a fresh process finds when all are gone.
result<void> conductor::judge() {
  processes_.emplace_back();
  const auto process = static_cast<unsigned>(processes_.size() - 1);
  const auto who = assignment_of(process);
  spawn(process, [&] { return read_at_the_end(who); });
  return wait_for_all(process, process + 1);
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
  CALLBOARD_TRY(end_all());
  CALLBOARD_TRY(judge());
  return kills_;
}

} // namespace

result<std::uint64_t> conduct(const run_options& options) {
  return conductor(options).run();
}

} // namespace callboard::history
