/// Several processes write into the same two stores at once, without a server,
/// while another one watches and asks.
/// Usage: example_multi_process_ingest [DIRECTORY [WORKERS [FILE]]]
///
/// FILE is a text of paragraphs that are separated by blank lines, such as
/// what `apt-cache dumpavail` prints. Each paragraph is a row of `chunks`, and
/// its first line one of `entities`. The parent starts a reader and WORKERS
/// workers, programs of their own that know of each other only the directory,
/// and compares in the end what is stored with what there was to store.
#include "actors/client.hpp"
#include "core/json_text.hpp"
#include "core/record.hpp"
#include "core/words_embedder.hpp"

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <set>
#include <spawn.h>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace {

using namespace callboard;
using namespace std::chrono_literals;

// -- what is stored -----------------------------------------------------------

using paragraphs = std::vector<std::string>;

paragraphs built_in_corpus() {
  paragraphs all;
  for (const char* who : {"ship", "train", "tram", "ferry", "night bus"})
    for (const char* where : {"harbour", "station", "market", "river"})
      for (const char* when : {"at noon", "at dawn", "on sundays"})
        all.push_back(std::string(who) + ' ' + when + "\nThe " + who
                      + " leaves from the " + where + ' ' + when + '.');
  return all;
}

paragraphs read_corpus(const std::string& file) {
  if (file.empty())
    return built_in_corpus();
  std::ifstream input(file);
  paragraphs all(1);
  for (std::string line; std::getline(input, line);) {
    if (!line.empty())
      all.back() += (all.back().empty() ? "" : "\n") + line;
    else if (!all.back().empty())
      all.emplace_back();
  }
  if (all.back().empty())
    all.pop_back();
  return all;
}

std::string title_of(const std::string& paragraph) {
  return paragraph.substr(0, paragraph.find('\n'));
}

/// A record with this content. `content` is what is searched.
std::string record_of(const std::string& content) {
  return "{\"content\": " + json_text::encode_string(content) + "}";
}

/// What every process does the same way: the stores of one directory must all
/// be opened with the same embedder.
result<client> open(runtime& actors, const std::string& directory,
                    const std::string& name) {
  open_options options;
  options.working_directory = directory;
  options.namespace_name = name;
  CALLBOARD_TRY_ASSIGN(options.model, words_embedder::create(256));
  return actors.open(options);
}

// -- a worker -----------------------------------------------------------------

/// A record that cannot be embedded does not hold up the others, and is named.
result<void> commit(client& store) {
  CALLBOARD_TRY_ASSIGN(const auto done, store.commit());
  return done.failed.empty() ? result<void>() : done.failed.front().reason;
}

/// Stores every `workers`th paragraph. Commits are durable and whole: when a
/// worker is killed, what it has committed stays, and nobody waits for it.
result<void> work(const std::string& directory, std::size_t worker,
                  std::size_t workers, const std::string& file) {
  CALLBOARD_TRY_ASSIGN(const auto actors, runtime::start());
  CALLBOARD_TRY_ASSIGN(auto chunks, open(*actors, directory, "chunks"));
  CALLBOARD_TRY_ASSIGN(auto entities, open(*actors, directory, "entities"));
  const auto corpus = read_corpus(file);
  // Few large commits are faster than many small ones.
  const auto per_commit =
      std::clamp<std::size_t>(corpus.size() / workers / 4, 1, 500);
  std::size_t pending = 0;
  for (auto i = worker; i < corpus.size(); i += workers) {
    const auto title = title_of(corpus[i]);
    CALLBOARD_TRY(chunks.upsert(chunk_id(corpus[i]), record_of(corpus[i])));
    CALLBOARD_TRY(entities.upsert(entity_id(title), record_of(title)));
    if (++pending % per_commit == 0 || i + workers >= corpus.size()) {
      CALLBOARD_TRY(commit(entities));
      CALLBOARD_TRY(commit(chunks));
    }
  }
  return {};
}

// -- the reader ---------------------------------------------------------------

/// Tells of each commit, and asks a question after it, until `rows` are there.
result<void> read_along(const std::string& directory, std::size_t rows) {
  CALLBOARD_TRY_ASSIGN(const auto actors, runtime::start());
  CALLBOARD_TRY_ASSIGN(auto chunks, open(*actors, directory, "chunks"));
  CALLBOARD_TRY_ASSIGN(auto events, chunks.watch());
  // Stores are a way to tell other processes something, too.
  CALLBOARD_TRY_ASSIGN(auto control, open(*actors, directory, "control"));
  CALLBOARD_TRY(control.upsert("reader", record_of("the reader watches")));
  CALLBOARD_TRY(commit(control));
  for (;;) {
    CALLBOARD_TRY_ASSIGN(const auto event, events.next(60s));
    if (!event)
      return failure{errc::timed_out, "the reader heard nothing for a minute"};
    // What it tells of is visible already, and maybe more.
    CALLBOARD_TRY_ASSIGN(const auto view, chunks.snapshot());
    CALLBOARD_TRY_ASSIGN(const auto hits, chunks.query("ferry at the river"));
    std::cout << "heard of generation " << event->generation << ": "
              << event->changed.size() << " changed, " << view->live_count()
              << " rows, best: "
              << (hits.empty()
                      ? "none"
                      : title_of(string_member(hits[0].record, "content")
                                     .value_or("")))
              << std::endl;
    if (view->live_count() == rows)
      return {};
  }
}

// -- the parent ---------------------------------------------------------------

/// Starts this program anew. (A process that has a runtime must not fork
/// without exec.)
result<pid_t> start(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "multi_process_ingest");
  std::vector<char*> pointers;
  for (auto& argument : arguments)
    pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  pid_t process = 0;
  if (::posix_spawn(&process, "/proc/self/exe", nullptr, nullptr,
                    pointers.data(), environ)
      != 0)
    return failure{errc::io_failure, "a process cannot be started"};
  return process;
}

bool ended_well(pid_t process) {
  int status = 0;
  return ::waitpid(process, &status, 0) == process && status == 0;
}

/// Runs the workers, and answers whether all ended well.
result<bool> run_workers(const std::string& directory, std::size_t workers,
                         const std::string& file) {
  std::vector<pid_t> running;
  for (std::size_t i = 0; i < workers; ++i) {
    CALLBOARD_TRY_ASSIGN(const auto worker,
                         start({"--worker", directory, std::to_string(i),
                                std::to_string(workers), file}));
    running.push_back(worker);
  }
  std::size_t good = 0;
  for (const auto worker : running)
    good += ended_well(worker) ? 1 : 0;
  return good == workers;
}

result<void> compare(client& store, std::size_t expected) {
  CALLBOARD_TRY_ASSIGN(const auto view, store.snapshot());
  std::cout << view->live_count() << " rows of " << expected << std::endl;
  if (view->live_count() != expected)
    return failure{errc::corrupt, "a store has another number of rows"};
  return {};
}

result<void> ingest(const std::string& directory, std::size_t workers,
                    const std::string& file) {
  std::set<std::string> chunk_ids;
  std::set<std::string> entity_ids;
  for (const auto& paragraph : read_corpus(file)) {
    chunk_ids.insert(chunk_id(paragraph));
    entity_ids.insert(entity_id(title_of(paragraph)));
  }
  if (chunk_ids.empty() || workers == 0 || std::filesystem::exists(directory))
    return failure{errc::invalid_argument,
                   "there must be text, workers and no directory " + directory};
  CALLBOARD_TRY_ASSIGN(const auto actors, runtime::start());
  CALLBOARD_TRY_ASSIGN(auto chunks, open(*actors, directory, "chunks"));
  CALLBOARD_TRY_ASSIGN(auto entities, open(*actors, directory, "entities"));
  CALLBOARD_TRY_ASSIGN(auto control, open(*actors, directory, "control"));

  CALLBOARD_TRY_ASSIGN(
      const auto reader,
      start({"--reader", directory, std::to_string(chunk_ids.size())}));
  const bool is_ready = control.await_generation(1, 60s).has_value();
  const auto is_stored =
      is_ready ? run_workers(directory, workers, file) : result<bool>(false);
  if (!is_stored || !*is_stored)
    ::kill(reader, SIGTERM); // It would wait in vain.
  if (!ended_well(reader) || !is_stored || !*is_stored)
    return failure{errc::closed, "the reader or a worker failed"};
  CALLBOARD_TRY(compare(chunks, chunk_ids.size()));
  return compare(entities, entity_ids.size());
}

} // namespace

int main(int argc, char** argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  const bool is_worker = argc == 6 && arguments[0] == "--worker";
  const bool is_reader = argc == 4 && arguments[0] == "--reader";
  const auto number = [&](std::size_t i) {
    return std::strtoul(arguments[i].c_str(), nullptr, 10);
  };
  if (arguments.empty())
    arguments = {"multi-process-data"};
  const auto done = is_worker
                        ? work(arguments[1], number(2), number(3), arguments[4])
                    : is_reader ? read_along(arguments[1], number(2))
                                : ingest(arguments[0], argc > 2 ? number(1) : 3,
                                         argc > 3 ? arguments[2] : "");
  if (!done)
    std::cerr << to_string(done.error().code) << ": " << done.error().message
              << '\n';
  return done ? 0 : 1;
}
