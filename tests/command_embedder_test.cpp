#include "actors/command_embedder.hpp"
#include "tests/support/scratch_directory.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <fcntl.h>
#include <fstream>
#include <iterator>
#include <optional>
#include <poll.h>
#include <string>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>
#include <vector>

using namespace callboard;
using namespace callboard::test;
using namespace std::chrono_literals;

namespace {

/// An empty directory, gone after the test.
class scratch {
public:
  std::string path(const std::string& name) const { return path_ + '/' + name; }

  std::string read(const std::string& name) const {
    std::ifstream in(path(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  std::size_t lines(const std::string& name) const {
    const auto text = read(name);
    return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
  }

  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(path(name), std::ios::binary) << text;
    return path(name);
  }

private:
  scratch_directory place_;
  std::string path_ = place_.path().string();
};

command_embedder_options options_for(std::string command,
                                     std::size_t dimension = 2) {
  command_embedder_options out;
  out.command = std::move(command);
  out.dimension = dimension;
  return out;
}

/// Answers each line with `answer`, after noting in `log` that it started.
std::string answering(const std::string& answer,
                      const std::string& log = "/dev/null") {
  return "echo start >> " + log + "; while read -r line; do echo '" + answer
         + "'; done";
}

constexpr const char* good_answer = R"({"vectors": [[1, 2]]})";

result<embedding_batch>
ask(embedder& model, const std::vector<std::string>& texts,
    embedding_context context = embedding_context::document) {
  return model.embed(texts, context);
}

/// The message of the failure that there must be.
std::string message_of(const result<embedding_batch>& outcome) {
  REQUIRE_FALSE(outcome.has_value());
  CHECK(outcome.error().code == errc::embedding_failed);
  return outcome.error().message;
}

void check_good(const result<embedding_batch>& outcome) {
  if (!outcome)
    FAIL(outcome.error().message);
  CHECK(outcome->vectors == std::vector<float>{1, 2});
}

/// Embeds a text as its length in code points and whether it is a query.
constexpr const char* measuring_program = R"(
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    query = request["context"] == "query"
    print(json.dumps({"vectors": [[len(t), int(query)] for t in request["texts"]]}),
          flush=True)
)";

std::string measuring(const scratch& place) {
  return "exec python3 " + place.write("measure.py", measuring_program);
}

} // namespace

TEST_CASE("a program's vectors come back in the order of the texts",
          "[command]") {
  const scratch place;
  command_embedder model(options_for(measuring(place)));
  const auto documents = ask(model, {"one", "", "three", "\u00fc\U0001f600"});
  if (!documents)
    FAIL(documents.error().message);
  CHECK(documents->vectors == std::vector<float>{3, 0, 0, 0, 5, 0, 2, 0});
  CHECK(documents->rejected.empty());
  const auto query = ask(model, {"why"}, embedding_context::query);
  if (!query)
    FAIL(query.error().message);
  CHECK(query->vectors == std::vector<float>{3, 1});
}

TEST_CASE("a program is started when it is first needed, and once",
          "[command]") {
  const scratch place;
  {
    command_embedder model(
        options_for(answering(good_answer, place.path("log"))));
    CHECK(ask(model, {}).has_value());
    CHECK(place.lines("log") == 0);
    for (int i = 0; i < 10; ++i)
      check_good(ask(model, {"text"}));
  }
  CHECK(place.lines("log") == 1);
}

TEST_CASE("requests are one line of ASCII whatever the texts hold",
          "[command]") {
  const scratch place;
  command_embedder model(options_for(
      "read -r line; printf '%s\\n' \"$line\" > " + place.path("request")
      + R"(; echo '{"vectors": [[1, 2], [3, 4]]}')"));
  using namespace std::string_literals;
  const auto answer =
      ask(model, {"a\"b\\\n\0\x7f"s, "\u00e9\U0001f600\xed\xa0\x80"},
          embedding_context::query);
  if (!answer)
    FAIL(answer.error().message);
  CHECK(place.read("request")
        == "{\"texts\": [\"a\\\"b\\\\\\n\\u0000\\u007f\", "
           "\"\\u00e9\\ud83d\\ude00\\ud800\"], \"context\": \"query\"}\n");
}

TEST_CASE("large requests and answers pass", "[command]") {
  const scratch place;
  command_embedder model(options_for(measuring(place)));
  const std::vector<std::string> texts(30'000, std::string(100, 'x'));
  const auto batch = ask(model, texts);
  if (!batch)
    FAIL(batch.error().message);
  REQUIRE(batch->vectors.size() == 2 * texts.size());
  CHECK(batch->vectors.front() == 100);
  CHECK(batch->vectors[batch->vectors.size() - 2] == 100);
}

TEST_CASE("a program may answer before it has read the request", "[command]") {
  command_embedder model(options_for(std::string("echo '") + good_answer
                                     + "'; exec cat > /dev/null"));
  check_good(ask(model, {std::string(4'000'000, 'x')}));
}

TEST_CASE("a program that answers and ends without reading is understood",
          "[command]") {
  command_embedder model(
      options_for(std::string("exec 0<&-; echo '") + good_answer + "'"));
  for (int i = 0; i < 3; ++i)
    check_good(ask(model, {std::string(4'000'000, 'x')}));
}

TEST_CASE("a program that ends after each answer is started again",
          "[command]") {
  const scratch place;
  command_embedder model(options_for("echo start >> " + place.path("log")
                                     + "; read -r line; echo '" + good_answer
                                     + "'"));
  for (int i = 0; i < 5; ++i)
    check_good(ask(model, {"text"}));
  CHECK(place.lines("log") >= 5);
}

TEST_CASE("a program that dies while it answers fails the call, and the next "
          "one starts it again",
          "[command]") {
  const scratch place;
  command_embedder model(options_for(
      "if test -e " + place.path("flag") + "; then "
      + answering(good_answer, place.path("log")) + "; fi; touch "
      + place.path("flag") + "; read -r line; printf half; exit 3"));
  CHECK(contains(message_of(ask(model, {"text"})), "exited with status 3"));
  check_good(ask(model, {"text"}));
  check_good(ask(model, {"text"}));
  CHECK(place.lines("log") == 1);
}

TEST_CASE("a text that kills the program fails its call", "[command]") {
  const scratch place;
  command_embedder model(options_for(
      "echo start >> " + place.path("log")
      + "; while read -r line; do case $line in *poison*) kill -SEGV $$;; esac;"
      + " echo '" + good_answer + "'; done"));
  check_good(ask(model, {"text"}));
  CHECK(contains(message_of(ask(model, {"poison"})), "killed by signal 11"));
  check_good(ask(model, {"text"}));
  // At most one more start each for the poisoned call and the one after it.
  CHECK(place.lines("log") == 3);
}

TEST_CASE("a command that does not exist is named", "[command]") {
  command_embedder model(options_for("no-such-program-anywhere 2>/dev/null"));
  for (int i = 0; i < 2; ++i) {
    const auto message = message_of(ask(model, {"text"}));
    CHECK(contains(message, "no-such-program-anywhere"));
    CHECK(contains(message, "127"));
  }
}

TEST_CASE("writing to a program that is gone is an error and no signal",
          "[command]") {
  command_embedder model(options_for("exit 7"));
  CHECK(contains(message_of(ask(model, {std::string(4'000'000, 'x')})),
                 "exited with status 7"));
}

TEST_CASE("answers that are not the vectors asked for are errors",
          "[command]") {
  struct wrong {
    const char* answer;
    const char* part;
  };
  const auto each = GENERATE(values<wrong>({
      {R"({"vectors": [[1, 2], [3, 4]]})",
       "Vector count mismatch: expected 1 vectors but got 2 vectors (from "
       "embedding result)."},
      {R"({"vectors": []})",
       "Vector count mismatch: expected 1 vectors but got 0 vectors (from "
       "embedding result)."},
      {R"({"vectors": [[1, 2, 3]]})", "Embedding dimension mismatch"},
      {R"({"vectors": [[]]})", "Embedding dimension mismatch"},
      {R"({"vectors": [[1, NaN]]})", "not finite"},
      {R"({"vectors": [[-Infinity, 1]]})", "not finite"},
      {R"({"vectors": [[1e39, 1]]})", "not finite"},
      {R"({"vectors": [[1e999, 1]]})", "Vector 0"},
      {R"({"vectors": [[1, null]]})", "Vector 0"},
      {R"({"vectors": [[1, [2]]]})", "Vector 0"},
      {R"({"vectors": [7]})", "is not an array"},
      {R"({"vectors": 7})", "is not an array"},
      {R"({"vectors": [[1, 2]})", "no JSON object"},
      {R"([[1, 2]])", "no JSON object"},
      {"Loading the model...", "Loading the model..."},
      {"\xff\x01", "no JSON object"},
      {"", "no JSON object"},
      {R"({"vektors": [[1, 2]]})", "neither"},
      {R"({"error": null})", "neither"},
  }));
  INFO(each.answer);
  const scratch place;
  command_embedder model(options_for("cat " + place.write("answer", each.answer)
                                     + "; echo; cat > /dev/null"));
  for (int i = 0; i < 2; ++i)
    CHECK(contains(message_of(ask(model, {"text"})), each.part));
}

TEST_CASE("after a wrong answer the program is started anew", "[command]") {
  const scratch place;
  command_embedder model(
      options_for(answering(R"({"vectors": []})", place.path("log"))));
  for (int i = 0; i < 3; ++i)
    message_of(ask(model, {"text"}));
  CHECK(place.lines("log") == 3);
}

TEST_CASE("a program that reports an error goes on running", "[command]") {
  const scratch place;
  command_embedder model(options_for(
      "echo start >> " + place.path("log")
      + R"(; read -r line; echo '{"error": "out of \u2018luck\u2019"}')"
      + "; read -r line; echo '" + R"({"error": {"code": 7}})"
      + "'; while read -r line; do echo '" + good_answer + "'; done"));
  CHECK(contains(message_of(ask(model, {"text"})), "out of \u2018luck\u2019"));
  CHECK(contains(message_of(ask(model, {"text"})), "code"));
  check_good(ask(model, {"text"}));
  CHECK(place.lines("log") == 1);
}

TEST_CASE("a program that says too much is not believed", "[command]") {
  SECTION("two lines at once") {
    command_embedder model(options_for(std::string("printf '%s\\n%s\\n' '")
                                       + good_answer + "' '" + good_answer
                                       + "'; cat > /dev/null"));
    CHECK(contains(message_of(ask(model, {"text"})), "more than one line"));
  }
  SECTION("a second line at any time") {
    command_embedder model(
        options_for(std::string("while read -r line; do echo '") + good_answer
                    + "'; echo late; done"));
    const auto first = ask(model, {"text"});
    const auto second = ask(model, {"text"});
    CHECK_FALSE((first.has_value() && second.has_value()));
  }
}

TEST_CASE("an endless answer is cut off", "[command]") {
  auto options = options_for("tr '\\0' x < /dev/zero");
  options.answer_bytes_max = 100'000;
  command_embedder model(options);
  CHECK(contains(message_of(ask(model, {"text"})), "a line of more than"));
}

TEST_CASE("a program that hangs is killed at the time limit", "[command]") {
  const scratch place;
  const std::string command =
      GENERATE("sleep 1000", "cat > /dev/null", "exec 0<&-; sleep 1000",
               "trap '' TERM; printf half; sleep 1000");
  INFO(command);
  auto options =
      options_for("echo $$ > " + place.path("process") + "; " + command);
  options.time_limit = 200ms;
  command_embedder model(options);
  CHECK(contains(message_of(ask(model, {std::string(1'000'000, 'x')})),
                 "time limit"));
  const auto process = std::stoi(place.read("process"));
  CHECK(::kill(process, 0) == -1);
  CHECK(errno == ESRCH);
}

TEST_CASE("nothing of a program's group outlives the embedder", "[command]") {
  const scratch place;
  REQUIRE(::mkfifo(place.path("alive").c_str(), 0600) == 0);
  const int alive =
      ::open(place.path("alive").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  REQUIRE(alive >= 0);
  {
    command_embedder model(options_for("exec 3> " + place.path("alive")
                                       + "; sleep 1000 & "
                                       + answering(good_answer)));
    check_good(ask(model, {"text"}));
    pollfd state{alive, POLLIN, 0};
    CHECK(::poll(&state, 1, 0) == 0); // its writers are open
  }
  pollfd state{alive, POLLIN, 0};
  CHECK(::poll(&state, 1, 60'000) == 1);
  CHECK((state.revents & POLLHUP) != 0);
  ::close(alive);
}

TEST_CASE("a program may tidy up when its input ends", "[command]") {
  const scratch place;
  {
    command_embedder model(options_for(answering(good_answer) + "; echo done > "
                                       + place.path("end")));
    check_good(ask(model, {"text"}));
  }
  CHECK(place.read("end") == "done\n");
}

TEST_CASE("threads that share a program get their own answers", "[command]") {
  const scratch place;
  command_embedder model(options_for(measuring(place)));
  CHECK(model.concurrency() == 1);
  std::vector<int> wrong(4, 0);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < wrong.size(); ++i)
    threads.emplace_back([&, i] {
      for (int n = 0; n < 50; ++n) {
        const auto batch = ask(model, {std::string(i + 1, 'x')});
        wrong[i] += !batch || batch->vectors.at(0) != static_cast<float>(i + 1);
      }
    });
  for (auto& thread : threads)
    thread.join();
  CHECK(wrong == std::vector<int>(4, 0));
}

TEST_CASE("a program starts with no signal blocked and SIGPIPE as usual",
          "[command]") {
  struct ::sigaction ignore = {};
  ignore.sa_handler = SIG_IGN;
  struct ::sigaction action_before = {};
  ::sigaction(SIGPIPE, &ignore, &action_before);
  sigset_t blocked;
  sigset_t mask_before;
  ::sigemptyset(&blocked);
  ::sigaddset(&blocked, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &blocked, &mask_before);
  // SIGPIPE is the lowest bit of the fourth digit from the right.
  command_embedder model(options_for(
      "read -r line; grep -q '^SigBlk:.0*$' /proc/self/status"
      " && grep -q '^SigIgn:.*[02468ace]...$' /proc/self/status && echo '"
      + std::string(good_answer) + "'"));
  check_good(ask(model, {"text"}));
  ::pthread_sigmask(SIG_SETMASK, &mask_before, nullptr);
  ::sigaction(SIGPIPE, &action_before, nullptr);
}
