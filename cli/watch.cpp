#include "cli/commands.hpp"
#include "cli/event_text.hpp"
#include "cli/interrupt.hpp"
#include "cli/output.hpp"
#include "cli/store_access.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>

namespace callboard::cli {
namespace {

using std::chrono::milliseconds;

/// A limit, as CLI11 reads -1 as the largest number.
constexpr std::uint64_t events_limit = 1'000'000'000'000;

/// How long a request to stop may go unnoticed.
constexpr milliseconds interrupt_interval{100};

struct watch_arguments {
  store_arguments store;
  /// 0: any number.
  std::uint64_t events_max = 0;
  std::optional<double> timeout_seconds;
};

/// The time left until a deadline, if there is one.
class countdown {
public:
  explicit countdown(std::optional<double> seconds) {
    using namespace std::chrono;
    if (seconds)
      end_ =
          steady_clock::now()
          + duration_cast<steady_clock::duration>(duration<double>(*seconds));
  }

  /// At most `limit`; zero when the time is up.
  milliseconds left(milliseconds limit) const {
    if (!end_)
      return limit;
    const auto rest = std::chrono::ceil<milliseconds>(
        *end_ - std::chrono::steady_clock::now());
    return std::clamp(rest, milliseconds{0}, limit);
  }

private:
  std::optional<std::chrono::steady_clock::time_point> end_;
};

/// Whoever reads along sees each line at once.
result<void> print(standard_output& out, const std::string& line) {
  out.line(line);
  return out.flush();
}

std::string start_text(std::uint64_t generation, bool as_json) {
  const auto number = std::to_string(generation);
  return as_json ? "{\"event\": \"start\", \"generation\": " + number + "}"
                 : "generation " + number + ": watching";
}

/// Prints events until there are enough, the time is up or somebody asks to
/// stop. Answers how many there were.
result<std::uint64_t> print_events(subscription& events,
                                   const watch_arguments& arguments,
                                   standard_output& out) {
  const countdown time(arguments.timeout_seconds);
  const bool as_json = arguments.store.messages.as_json;
  std::uint64_t count = 0;
  while (count < arguments.events_max) {
    // What has come already is still printed.
    const auto wait =
        is_interrupted() ? milliseconds{0} : time.left(interrupt_interval);
    CALLBOARD_TRY_ASSIGN(const auto event, events.next(wait));
    if (event) {
      ++count;
      CALLBOARD_TRY(
          print(out, as_json ? event_json(*event) : event_line(*event)));
    } else if (wait == milliseconds{0}) {
      break;
    }
  }
  return count;
}

result<exit_code> run_watch(watch_arguments arguments) {
  catch_interrupts();
  const bool is_bounded = arguments.events_max != 0;
  if (!is_bounded)
    arguments.events_max = std::numeric_limits<std::uint64_t>::max();
  open_options options;
  options.automatic_checkpoints = false;
  CALLBOARD_TRY_ASSIGN(auto opened, open_store(arguments.store, store_use::read,
                                               std::move(options)));
  CALLBOARD_TRY_ASSIGN(auto events, opened.handle.watch());
  standard_output out;
  CALLBOARD_TRY(print(
      out, start_text(events.generation(), arguments.store.messages.as_json)));
  CALLBOARD_TRY_ASSIGN(const auto count, print_events(events, arguments, out));
  if (is_bounded && count < arguments.events_max && !is_interrupted())
    return failure{errc::timed_out, "of " + grouped(arguments.events_max)
                                        + " events " + grouped(count)
                                        + " came in time (see --timeout)"};
  return exit_code::success;
}

} // namespace

void add_watch(CLI::App& app, invocation& chosen) {
  auto arguments = std::make_shared<watch_arguments>();
  auto* command = app.add_subcommand(
      "watch",
      "Print a line when it begins, then one for each commit by any process, "
      "at once: the generation, how many records it changed and removed (with "
      "--json their ids); and for drops, and when it was too slow and lost "
      "events (overflow). Ends with status 0 when interrupted");
  add_store_options(*command, arguments->store);
  command
      ->add_option("--events", arguments->events_max,
                   "End after so many events (default: go on)")
      ->check(CLI::Range(std::uint64_t{1}, events_limit));
  command
      ->add_option("--timeout", arguments->timeout_seconds,
                   "End after so many seconds (default: go on), with status 8 "
                   "if --events asks for more")
      ->check(seconds_range(31'536'000));
  command->callback([&chosen, arguments] {
    chosen.run = [arguments] { return run_watch(*arguments); };
    chosen.as_json = arguments->store.messages.as_json;
  });
}

} // namespace callboard::cli
