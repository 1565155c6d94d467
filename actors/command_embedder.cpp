#include "actors/command_embedder.hpp"

#include "core/json_text.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <optional>
#include <poll.h>
#include <spawn.h>
#include <string_view>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

namespace callboard {

namespace {

using clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr auto exit_grace = std::chrono::seconds(1);
constexpr std::size_t read_bytes = std::size_t{64} << 10;
constexpr std::size_t number_bytes_max = 32;
constexpr std::size_t excerpt_bytes_max = 200;
constexpr std::size_t error_bytes_max = 4096;
constexpr auto time_limit_max = std::chrono::hours(24 * 365);

failure failed(std::string message) {
  return {errc::embedding_failed, std::move(message)};
}

std::string system_error(int code) {
  std::array<char, 128> buffer;
  return ::strerror_r(code, buffer.data(), buffer.size());
}

class descriptor {
public:
  descriptor() = default;
  explicit descriptor(int number) : number_(number) {}
  descriptor(descriptor&& other) noexcept
      : number_(std::exchange(other.number_, -1)) {}
  descriptor& operator=(descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~descriptor() { close(); }

  void close() noexcept {
    if (number_ >= 0)
      ::close(std::exchange(number_, -1));
  }
  int number() const noexcept { return number_; }
  bool is_open() const noexcept { return number_ >= 0; }

private:
  int number_ = -1;
};

/// The same file at a number above those of standard streams: the child's
/// streams are made by copying over those.
descriptor above_standard(descriptor from) {
  if (!from.is_open() || from.number() > 2)
    return from;
  return descriptor(::fcntl(from.number(), F_DUPFD_CLOEXEC, 3));
}

int milliseconds_until(clock::time_point deadline) {
  const auto left =
      std::chrono::ceil<milliseconds>(deadline - clock::now()).count();
  return static_cast<int>(std::clamp<decltype(left)>(left, 0, 1 << 30));
}

/// As poll(2), until `deadline`; 0 when that has passed.
int poll_until(std::span<pollfd> files, clock::time_point deadline) {
  for (;;) {
    const auto ready =
        ::poll(files.data(), files.size(), milliseconds_until(deadline));
    if (ready >= 0 || errno != EINTR)
      return ready;
  }
}

/// A program starts with no signal blocked, with the default action of those
/// that hosts often ignore, and in a group of its own.
class spawn_attributes {
public:
  spawn_attributes() {
    ::posix_spawnattr_init(&value_);
    sigset_t signals;
    ::sigemptyset(&signals);
    ::posix_spawnattr_setsigmask(&value_, &signals);
    for (int number : {SIGPIPE, SIGCHLD})
      ::sigaddset(&signals, number);
    ::posix_spawnattr_setsigdefault(&value_, &signals);
    ::posix_spawnattr_setpgroup(&value_, 0);
    ::posix_spawnattr_setflags(&value_, POSIX_SPAWN_SETSIGMASK
                                            | POSIX_SPAWN_SETSIGDEF
                                            | POSIX_SPAWN_SETPGROUP);
  }
  spawn_attributes(const spawn_attributes&) = delete;
  spawn_attributes& operator=(const spawn_attributes&) = delete;
  ~spawn_attributes() { ::posix_spawnattr_destroy(&value_); }

  const posix_spawnattr_t* get() const noexcept { return &value_; }

private:
  posix_spawnattr_t value_;
};

class spawn_streams {
public:
  spawn_streams(int input, int output) {
    ::posix_spawn_file_actions_init(&value_);
    ::posix_spawn_file_actions_adddup2(&value_, input, STDIN_FILENO);
    ::posix_spawn_file_actions_adddup2(&value_, output, STDOUT_FILENO);
  }
  spawn_streams(const spawn_streams&) = delete;
  spawn_streams& operator=(const spawn_streams&) = delete;
  ~spawn_streams() { ::posix_spawn_file_actions_destroy(&value_); }

  const posix_spawn_file_actions_t* get() const noexcept { return &value_; }

private:
  posix_spawn_file_actions_t value_;
};

std::string request_line(std::span<const std::string> texts,
                         embedding_context context) {
  std::string out = R"({"texts": [)";
  for (std::size_t i = 0; i < texts.size(); ++i) {
    if (i > 0)
      out += ", ";
    out += json_text::encode_string(texts[i]);
  }
  out += context == embedding_context::query ? R"(], "context": "query"})"
                                             : R"(], "context": "document"})";
  out += '\n';
  return out;
}

/// The begin of `text`, which may be any bytes, fit for a message.
std::string excerpt(std::string_view text) {
  const auto shown =
      json_text::encode_string(text.substr(0, excerpt_bytes_max));
  return text.size() <= excerpt_bytes_max ? shown : shown + "...";
}

std::string reported(std::string_view json) {
  auto text = json_text::decode_string(json);
  if (!text || !json_text::valid_utf8(*text, json_text::surrogates::refused)
      || text->size() > error_bytes_max)
    return excerpt(json);
  return *text;
}

/// The members of an answer that count, as JSON.
struct answer {
  std::optional<std::string_view> vectors;
  std::optional<std::string_view> error;
};

result<answer> read_answer(std::string_view line) {
  answer out;
  auto read = json_text::for_each_member(
      line,
      [&](std::string_view key, std::string_view value,
          std::string_view) -> result<void> {
        if (key == "vectors")
          out.vectors = value;
        else if (key == "error")
          out.error = value;
        return {};
      },
      {.depth_max = 32, .error = errc::embedding_failed});
  if (!read)
    return failed("printed a line that is no JSON object ("
                  + read.error().message + "): " + excerpt(line));
  if (out.error
      && json_text::kind_of(*out.error) == json_text::value_kind::null)
    out.error.reset();
  return out;
}

result<void> read_vector(std::string_view json, std::size_t index,
                         std::size_t dimension, std::vector<float>& out) {
  if (json_text::kind_of(json) != json_text::value_kind::array)
    return failed("Vector " + std::to_string(index)
                  + " is not an array (from embedding result).");
  auto numbers = json_text::to_floats(json);
  if (!numbers)
    return failed("Vector " + std::to_string(index) + " is unusable: "
                  + numbers.error().message + " (from embedding result).");
  if (numbers->size() != dimension)
    return failed("Embedding dimension mismatch detected: expected "
                  + std::to_string(dimension) + " numbers but vector "
                  + std::to_string(index) + " has "
                  + std::to_string(numbers->size())
                  + " (from embedding result).");
  for (auto number : *numbers)
    if (!std::isfinite(number))
      return failed("Vector " + std::to_string(index)
                    + " holds a number that is not finite (from embedding "
                      "result).");
  out.insert(out.end(), numbers->begin(), numbers->end());
  return {};
}

result<embedding_batch> read_vectors(std::string_view json, std::size_t count,
                                     std::size_t dimension) {
  if (json_text::kind_of(json) != json_text::value_kind::array)
    return failed("\"vectors\" is not an array (from embedding result).");
  std::vector<std::string_view> rows;
  CALLBOARD_TRY(json_text::for_each_element(
      json,
      [&](std::string_view row) -> result<void> {
        rows.push_back(row);
        return {};
      },
      {.depth_max = 32, .error = errc::embedding_failed}));
  if (rows.size() != count)
    return failed("Vector count mismatch: expected " + std::to_string(count)
                  + " vectors but got " + std::to_string(rows.size())
                  + " vectors (from embedding result).");
  embedding_batch out;
  out.vectors.reserve(count * dimension);
  for (std::size_t i = 0; i < count; ++i)
    CALLBOARD_TRY(read_vector(rows[i], i, dimension, out.vectors));
  return out;
}

} // namespace

// -- command_embedder::program ----------------------------------------------

/// One run of the program. Its input is a socket, which, unlike a pipe, can be
/// written without the signal SIGPIPE; its output is a pipe. Neither blocks
/// on our side.
class command_embedder::program {
public:
  static result<std::unique_ptr<program>> start(const std::string& command);

  program(const program&) = delete;
  program& operator=(const program&) = delete;
  /// Kills the group at once.
  ~program();

  /// Closes its input and waits until it has ended or `deadline` is past.
  void finish(clock::time_point deadline);

  /// Whether it has printed something since its last answer.
  bool is_talking() const;

  /// Sends `request` and returns the line that comes back, without its end.
  /// Errors say what the program did. After one the program is of no use.
  result<std::string> ask(std::string_view request, std::size_t answer_max,
                          clock::time_point deadline);

  /// Whether `ask` failed because the program ended without a word.
  bool died_silently() const noexcept { return died_silently_; }

private:
  program() = default;

  result<void> send_some(std::string_view& unsent);
  /// False at the end of its output.
  result<bool> receive_some(std::string& received, std::size_t answer_max);
  /// Kills what is left and tells how the program ended.
  std::string end(clock::time_point deadline);
  bool wait_for_exit(clock::time_point deadline);
  /// False if somebody else in this process has waited for it.
  bool reap();

  pid_t process_ = -1;
  int status_ = 0;
  bool died_silently_ = false;
  descriptor process_file_;
  descriptor input_;
  descriptor output_;
};

result<std::unique_ptr<command_embedder::program>>
command_embedder::program::start(const std::string& command) {
  std::array<int, 2> sockets{-1, -1};
  std::array<int, 2> pipes{-1, -1};
  auto refused = [](int code) {
    return failed("cannot be started: " + system_error(code));
  };
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets.data()) != 0)
    return refused(errno);
  auto input = above_standard(descriptor(sockets[0]));
  auto child_input = above_standard(descriptor(sockets[1]));
  if (::pipe2(pipes.data(), O_CLOEXEC) != 0)
    return refused(errno);
  auto output = above_standard(descriptor(pipes[0]));
  auto child_output = above_standard(descriptor(pipes[1]));
  for (const auto* file : {&input, &output})
    if (::fcntl(file->number(), F_SETFL, O_NONBLOCK) != 0)
      return refused(errno);
  for (const auto* file : {&child_input, &child_output})
    if (!file->is_open())
      return refused(EMFILE);

  const spawn_streams streams(child_input.number(), child_output.number());
  const spawn_attributes attributes;
  std::string shell = "sh";
  std::string option = "-c";
  std::string text = command;
  std::array<char*, 4> arguments{shell.data(), option.data(), text.data(),
                                 nullptr};
  pid_t process = -1;
  // Not fork: a child of a process that has OpenMP threads may hang.
  if (const auto code =
          ::posix_spawn(&process, "/bin/sh", streams.get(), attributes.get(),
                        arguments.data(), environ);
      code != 0)
    return refused(code);
  std::unique_ptr<program> out(new program);
  out->process_ = process;
  out->input_ = std::move(input);
  out->output_ = std::move(output);
  out->process_file_ =
      descriptor(static_cast<int>(::syscall(SYS_pidfd_open, process, 0)));
  return out;
}

command_embedder::program::~program() {
  input_.close();
  output_.close();
  reap();
}

bool command_embedder::program::reap() {
  if (process_ < 0)
    return true;
  // Until it is waited for, its number, which is the group's too, is not given
  // to others.
  ::kill(-process_, SIGKILL);
  pid_t waited = -1;
  do
    waited = ::waitpid(process_, &status_, 0);
  while (waited < 0 && errno == EINTR);
  process_ = -1;
  return waited > 0;
}

bool command_embedder::program::wait_for_exit(clock::time_point deadline) {
  if (!process_file_.is_open())
    return false; // Linux before 5.3: do without the grace
  pollfd ended{process_file_.number(), POLLIN, 0};
  return poll_until(std::span(&ended, 1), deadline) > 0;
}

void command_embedder::program::finish(clock::time_point deadline) {
  input_.close();
  wait_for_exit(deadline);
}

std::string command_embedder::program::end(clock::time_point deadline) {
  const bool has_ended =
      wait_for_exit(std::min(deadline, clock::now() + exit_grace));
  if (!reap())
    return "ended";
  if (has_ended && WIFEXITED(status_))
    return "exited with status " + std::to_string(WEXITSTATUS(status_))
           + (WEXITSTATUS(status_) == 127 ? " (command not found)" : "");
  if (has_ended && WIFSIGNALED(status_))
    return "was killed by signal " + std::to_string(WTERMSIG(status_));
  return "closed its standard output";
}

bool command_embedder::program::is_talking() const {
  pollfd output{output_.number(), POLLIN, 0};
  return poll_until(std::span(&output, 1), clock::now()) > 0
         && (output.revents & POLLIN) != 0;
}

result<void> command_embedder::program::send_some(std::string_view& unsent) {
  const auto sent = ::send(input_.number(), unsent.data(), unsent.size(),
                           MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent >= 0)
    unsent.remove_prefix(static_cast<std::size_t>(sent));
  else if (errno == EPIPE || errno == ECONNRESET)
    unsent = {}; // it reads no more, but may still answer
  else if (errno != EINTR && errno != EAGAIN)
    return failed("cannot be asked: " + system_error(errno));
  return {};
}

result<bool> command_embedder::program::receive_some(std::string& received,
                                                     std::size_t answer_max) {
  const auto before = received.size();
  const bool had_line = received.ends_with('\n');
  received.resize(before + read_bytes);
  const auto count =
      ::read(output_.number(), received.data() + before, read_bytes);
  const auto code = errno;
  received.resize(before
                  + static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
  if (count == 0)
    return false;
  if (count < 0 && code != EINTR && code != EAGAIN)
    return failed("cannot be read from: " + system_error(code));
  const auto line_end = received.find('\n', before);
  if ((had_line && count > 0)
      || (line_end != std::string::npos && line_end + 1 != received.size()))
    return failed("printed more than one line for one request: "
                  + excerpt(received));
  if (received.size() > answer_max)
    return failed("printed a line of more than " + std::to_string(answer_max)
                  + " bytes");
  return true;
}

result<std::string> command_embedder::program::ask(std::string_view request,
                                                   std::size_t answer_max,
                                                   clock::time_point deadline) {
  std::string received;
  auto unsent = request;
  // A program may answer before it has read everything; the rest is sent all
  // the same, or the next request would be taken for it.
  while (!unsent.empty() || !received.ends_with('\n')) {
    std::array<pollfd, 2> files{pollfd{output_.number(), POLLIN, 0},
                                pollfd{input_.number(), POLLOUT, 0}};
    const std::size_t count = unsent.empty() ? 1 : 2;
    const auto ready = poll_until(std::span(files).first(count), deadline);
    if (ready < 0)
      return failed("cannot be waited for: " + system_error(errno));
    if (ready == 0)
      return failed("did not answer within the time limit and was killed");
    if (files[0].revents != 0) {
      CALLBOARD_TRY_ASSIGN(const bool more, receive_some(received, answer_max));
      if (!more && received.ends_with('\n'))
        break;
      if (!more) {
        died_silently_ = received.empty();
        return failed(end(deadline) + " before it had answered");
      }
    }
    if (files[1].revents != 0)
      CALLBOARD_TRY(send_some(unsent));
  }
  received.pop_back();
  return received;
}

// -- command_embedder --------------------------------------------------------

command_embedder::command_embedder(command_embedder_options options)
    : options_(std::move(options)) {}

command_embedder::~command_embedder() {
  if (program_)
    program_->finish(clock::now() + exit_grace);
}

failure command_embedder::stop_with(std::string what) {
  program_.reset();
  return failed("The embedding command \"" + options_.command + "\" " + what
                + ".");
}

result<void> command_embedder::start() {
  auto started = program::start(options_.command);
  if (!started)
    return stop_with(started.error().message);
  program_ = std::move(started).value();
  return {};
}

result<std::string>
command_embedder::ask(std::string_view request, std::size_t answer_max,
                      std::chrono::steady_clock::time_point deadline) {
  const bool was_running = program_ != nullptr;
  if (was_running && program_->is_talking())
    return stop_with("printed something that it was not asked for");
  if (!was_running)
    CALLBOARD_TRY(start());
  auto line = program_->ask(request, answer_max, deadline);
  // It may have died long ago: that is not this request's fault.
  if (!line && was_running && program_->died_silently()) {
    CALLBOARD_TRY(start());
    line = program_->ask(request, answer_max, deadline);
  }
  if (!line)
    return stop_with(line.error().message);
  return line;
}

result<embedding_batch>
command_embedder::embed(std::span<const std::string> texts,
                        embedding_context context) {
  if (texts.empty())
    return embedding_batch{};
  const auto request = request_line(texts, context);
  const auto answer_max =
      options_.answer_bytes_max
      + texts.size() * options_.dimension * number_bytes_max;
  const std::lock_guard lock(mutex_);
  const auto deadline =
      clock::now()
      + std::min<milliseconds>(options_.time_limit, time_limit_max);
  CALLBOARD_TRY_ASSIGN(const std::string line,
                       ask(request, answer_max, deadline));
  const auto read = read_answer(line);
  if (!read)
    return stop_with(read.error().message);
  if (read->error)
    return failed("The embedding command \"" + options_.command
                  + "\" reported an error: " + reported(*read->error));
  if (!read->vectors)
    return stop_with("answered neither \"vectors\" nor \"error\": "
                     + excerpt(line));
  auto vectors = read_vectors(*read->vectors, texts.size(), options_.dimension);
  if (!vectors)
    program_.reset();
  return vectors;
}

} // namespace callboard
