/// Kills processes that work on the same stores, and looks for what was lost,
/// torn or left hanging by it.
///
/// Usage: callboard_torture --seconds N [--seed S] [--kills K] [--directory D]
///
/// Three writers, a checkpointer and two readers work on two stores; each is
/// killed (SIGKILL) at random instants and started anew. What they ask for and
/// what they are answered goes to a ledger outside of the stores, by which
/// everything that they see is judged; after each round, when all are dead, a
/// fresh process judges what is left.
///
///   --seconds    how long
///   --seed       repeats the choices of an earlier run; not its interleaving,
///                as kills happen by the clock
///   --kills      goes on until there were so many kills, up to four times as
///                long; fewer are a failure
///   --directory  a new or empty directory, which is kept; else there is a
///                temporary one, which is kept if something was found
///
/// The last line counts: kills=.. commits=.. lost=.. torn=.. hung=..
/// Exit status 0: nothing was found; 1: something was; 2: wrong usage.
#include "tests/torture/conductor.hpp"
#include "tests/torture/role.hpp"

#include <charconv>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <sys/prctl.h>

namespace {

using namespace callboard::torture;

using flags = std::map<std::string, std::string>;

std::optional<flags> parse(int argc, char** argv) {
  const std::set<std::string> names{"--seconds",    "--seed", "--kills",
                                    "--directory",  "--slot", "--round",
                                    "--incarnation"};
  flags out;
  for (int i = 1; i < argc; i += 2) {
    if (!names.contains(argv[i]) || i + 1 == argc)
      return std::nullopt;
    out[argv[i]] = argv[i + 1];
  }
  return out;
}

template <class Number>
std::optional<Number> number(const flags& given, const std::string& name,
                             Number otherwise) {
  const auto found = given.find(name);
  if (found == given.end())
    return otherwise;
  Number out{};
  const auto end = found->second.data() + found->second.size();
  const auto parsed = std::from_chars(found->second.data(), end, out);
  if (parsed.ec != std::errc{} || parsed.ptr != end)
    return std::nullopt;
  return out;
}

/// One of the processes of a run, started by `conduct`.
int play(const flags& given) {
  // Nobody else would end it.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const auto slot = number(given, "--slot", 0U);
  const auto round = number(given, "--round", 0U);
  const auto incarnation = number(given, "--incarnation", 0U);
  const auto seed = number<std::uint64_t>(given, "--seed", 0);
  const auto directory = given.find("--directory");
  if (!slot || !round || !incarnation || !seed || *slot >= slot_count
      || directory == given.end())
    return 2;
  role self({.directory = directory->second,
             .seed = *seed,
             .round = *round,
             .slot = *slot,
             .incarnation = *incarnation});
  switch (*slot) {
  case checkpointer_slot:
    checkpoint_for_ever(self);
  case reader_slot:
    read_for_ever(self);
  case watcher_slot:
    watch_for_ever(self);
  case judge_slot:
    judge(self);
    return 0;
  default:
    write_for_ever(self);
  }
}

/// Empty if it cannot be used.
std::filesystem::path prepare(const flags& given) {
  std::error_code failed;
  if (const auto named = given.find("--directory"); named != given.end()) {
    std::filesystem::create_directories(named->second, failed);
    const bool is_new = std::filesystem::is_empty(named->second, failed);
    return is_new && !failed ? std::filesystem::absolute(named->second)
                             : std::filesystem::path();
  }
  auto name = (std::filesystem::temp_directory_path(failed)
               / "callboard-torture-XXXXXX")
                  .string();
  return ::mkdtemp(name.data()) != nullptr ? name : "";
}

int run(const flags& given) {
  std::random_device device;
  const auto seconds = number(given, "--seconds", 0U);
  const auto kills = number<std::size_t>(given, "--kills", 0);
  const auto seed =
      number<std::uint64_t>(given, "--seed", device() & 0xffff'ffffU);
  if (!seconds || *seconds == 0 || !kills || !seed) {
    std::cerr << "usage: callboard_torture --seconds N [--seed S] [--kills K] "
                 "[--directory D]\n";
    return 2;
  }
  std::cout << "seed=" << *seed << std::endl;
  const auto directory = prepare(given);
  if (directory.empty()) {
    std::cerr << "the directory cannot be made, or is not empty\n";
    return 2;
  }
  const int status = conduct({.seconds = *seconds,
                              .kills = *kills,
                              .seed = *seed,
                              .directory = directory});
  std::error_code ignored;
  if (status == 0 && !given.contains("--directory"))
    std::filesystem::remove_all(directory, ignored);
  return status;
}

} // namespace

int main(int argc, char** argv) {
  const auto given = parse(argc, argv);
  if (!given) {
    std::cerr << "usage: callboard_torture --seconds N [--seed S] [--kills K] "
                 "[--directory D]\n";
    return 2;
  }
  return given->contains("--slot") ? play(*given) : run(*given);
}
