#include "cli/event_text.hpp"
#include "cli/message_session.hpp"

#include <chrono>
#include <optional>
#include <string>
#include <utility>

/// The operations that wait for other processes. Waits are bounded: the
/// conversation stands still meanwhile.
namespace callboard::cli {
namespace {

constexpr double timeout_seconds_max = 600;

result<std::chrono::milliseconds> timeout_of(const message_request& request) {
  CALLBOARD_TRY_ASSIGN(const auto given, request.number("timeout"));
  const double seconds = given.value_or(0);
  if (seconds < 0 || seconds > timeout_seconds_max)
    return failure{errc::invalid_argument,
                   "\"timeout\" is not between 0 and 600 seconds"};
  return std::chrono::ceil<std::chrono::milliseconds>(
      std::chrono::duration<double>(seconds));
}

failure no_such_watch(std::int64_t number) {
  return {errc::invalid_argument,
          "the handle has no watch " + std::to_string(number)
              + "; begin one with the operation \"watch\""};
}

} // namespace

message_session::outcome
message_session::watch(const message_request& request) {
  CALLBOARD_TRY_ASSIGN(auto* const entry, entry_of(request));
  CALLBOARD_TRY_ASSIGN(auto events, entry->store.watch());
  const auto generation = events.generation();
  const auto number = ++entry->last_watch;
  entry->watches.emplace(number, std::move(events));
  return good("{\"watch\": " + std::to_string(number)
              + ", \"generation\": " + std::to_string(generation) + "}");
}

message_session::outcome
message_session::next_event(const message_request& request) {
  CALLBOARD_TRY_ASSIGN(auto* const entry, entry_of(request));
  CALLBOARD_TRY_ASSIGN(const auto number, request.integer("watch"));
  CALLBOARD_TRY_ASSIGN(const auto timeout, timeout_of(request));
  const auto found = entry->watches.find(number);
  if (found == entry->watches.end())
    return no_such_watch(number);
  CALLBOARD_TRY_ASSIGN(const auto event, found->second.next(timeout));
  return good(event ? event_json(*event) : "null");
}

message_session::outcome
message_session::unwatch(const message_request& request) {
  CALLBOARD_TRY_ASSIGN(auto* const entry, entry_of(request));
  CALLBOARD_TRY_ASSIGN(const auto number, request.integer("watch"));
  if (entry->watches.erase(number) == 0)
    return no_such_watch(number);
  return good("null");
}

message_session::outcome
message_session::await_generation(const message_request& request) {
  CALLBOARD_TRY_ASSIGN(auto* const handle, handle_of(request));
  CALLBOARD_TRY(request.required_raw("generation"));
  CALLBOARD_TRY_ASSIGN(const auto generation,
                       request.integer_or("generation", 0, 0));
  CALLBOARD_TRY_ASSIGN(const auto timeout, timeout_of(request));
  CALLBOARD_TRY_ASSIGN(const auto reached,
                       handle->await_generation(
                           static_cast<std::uint64_t>(generation), timeout));
  return good(std::to_string(reached));
}

} // namespace callboard::cli
