#include "tests/support/child_process.hpp"

#include <catch2/catch.hpp>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <exception>
#include <fcntl.h>
#include <iostream>
#include <span>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace callboard::test {

namespace {

template <class Call>
auto uninterrupted(Call call) {
  auto returned = call();
  while (returned < 0 && errno == EINTR)
    returned = call();
  return returned;
}

bool write_all(int descriptor, std::string_view bytes) {
  while (!bytes.empty()) {
    const auto count = uninterrupted(
        [&] { return ::write(descriptor, bytes.data(), bytes.size()); });
    if (count <= 0)
      return false;
    bytes.remove_prefix(static_cast<std::size_t>(count));
  }
  return true;
}

bool read_all(int descriptor, std::span<char> buffer) {
  while (!buffer.empty()) {
    const auto count = uninterrupted(
        [&] { return ::read(descriptor, buffer.data(), buffer.size()); });
    if (count <= 0)
      return false;
    buffer = buffer.subspan(static_cast<std::size_t>(count));
  }
  return true;
}

/// Does `job` in a process that was forked for it, and ends that process.
[[noreturn]] void live(const child_process::work& job, const pipe_end& parent,
                       pid_t parent_id) {
  ::signal(SIGPIPE, SIG_IGN);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent_id)
    ::_exit(child_process::failed);
  int status = child_process::threw;
  try {
    status = job(parent) ? child_process::succeeded : child_process::failed;
  } catch (const std::exception& problem) {
    std::cout << "in a child process: " << problem.what() << '\n';
  } catch (...) {
    // A failed assertion, which is reported already.
  }
  std::cout.flush();
  ::_exit(status);
}

int status_in(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

} // namespace

pipe_end::~pipe_end() {
  ::close(reading_);
  ::close(writing_);
}

bool pipe_end::say(std::string_view text) const {
  const auto size = static_cast<std::uint64_t>(text.size());
  return write_all(writing_,
                   {reinterpret_cast<const char*>(&size), sizeof(size)})
         && write_all(writing_, text);
}

std::optional<std::string> pipe_end::hear() const {
  std::uint64_t size = 0;
  if (!read_all(reading_, {reinterpret_cast<char*>(&size), sizeof(size)}))
    return std::nullopt;
  std::string text(size, '\0');
  if (!read_all(reading_, text))
    return std::nullopt;
  return text;
}

child_process::child_process(const work& job) {
  int down[2];
  int up[2];
  REQUIRE(::pipe2(down, O_CLOEXEC) == 0);
  REQUIRE(::pipe2(up, O_CLOEXEC) == 0);
  // Else the child, too, would write what is buffered.
  std::cout.flush();
  std::fflush(nullptr);
  const auto parent_id = ::getpid();
  id_ = ::fork();
  if (id_ == 0) {
    ::close(down[1]);
    ::close(up[0]);
    const pipe_end parent(down[0], up[1]);
    live(job, parent, parent_id);
  }
  ::close(down[0]);
  ::close(up[1]);
  pipe_.emplace(up[0], down[1]);
  REQUIRE(id_ > 0);
}

int child_process::wait() {
  int status = 0;
  REQUIRE(id_ > 0);
  REQUIRE(uninterrupted([&] { return ::waitpid(id_, &status, 0); }) == id_);
  id_ = 0;
  return status_in(status);
}

bool child_process::wait_until_stopped() {
  int status = 0;
  REQUIRE(id_ > 0);
  REQUIRE(uninterrupted([&] { return ::waitpid(id_, &status, WUNTRACED); })
          == id_);
  if (WIFSTOPPED(status))
    return true;
  id_ = 0;
  UNSCOPED_INFO("the child ended with " << status_in(status));
  return false;
}

void child_process::stop() {
  REQUIRE(id_ > 0);
  REQUIRE(::kill(id_, SIGSTOP) == 0);
  REQUIRE(wait_until_stopped());
}

void child_process::resume() {
  REQUIRE(id_ > 0);
  REQUIRE(::kill(id_, SIGCONT) == 0);
}

void child_process::kill() {
  if (id_ <= 0)
    return;
  ::kill(id_, SIGKILL);
  uninterrupted([&] { return ::waitpid(id_, nullptr, 0); });
  id_ = 0;
}

shared_pages::shared_pages(std::size_t size) : size_(size) {
  begin_ = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(begin_ != MAP_FAILED);
}

shared_pages::~shared_pages() {
  ::munmap(begin_, size_);
}

} // namespace callboard::test
