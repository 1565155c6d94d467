#include "actors/watch_list.hpp"

#include "core/event_recorder.hpp"

#include <string>

namespace callboard {

namespace {

failure no_such_watch(std::uint64_t number) {
  return {errc::invalid_argument,
          "there is no watch number " + std::to_string(number)
              + " on this handle: it has ended, or belongs to another one"};
}

failure watch_ended() {
  return {errc::closed, "the watch was ended while its next event was waited "
                        "for"};
}

failure waited_for_already(std::uint64_t number) {
  return {errc::busy, "the next event of watch number " + std::to_string(number)
                          + " is waited for already: one request at a time, or "
                            "watch twice"};
}

} // namespace

watch_start watch_list::add(watch_options options, std::uint64_t generation) {
  watches_.emplace(next_number_, watch{.bytes_max = options.buffer_bytes_max});
  return {.number = next_number_++, .generation = generation};
}

void watch_list::remove(std::uint64_t number) {
  auto ended = watches_.extract(number);
  if (!ended.empty() && ended.mapped().waits)
    settle(ended.mapped(), watch_ended());
}

bool watch_list::next(std::uint64_t number, std::uint64_t wait,
                      answer<optional_event> done) {
  auto found = watches_.find(number);
  if (found == watches_.end()) {
    done(no_such_watch(number));
    return true;
  }
  auto& asked = found->second;
  if (asked.waits) {
    done(waited_for_already(number));
    return true;
  }
  if (asked.events.empty()) {
    asked.waits = {wait, std::move(done)};
    return false;
  }
  auto oldest = std::move(asked.events.front());
  asked.events.pop_front();
  asked.bytes -= memory_bytes(*oldest);
  done(optional_event(*oldest));
  return true;
}

void watch_list::give_up(std::uint64_t number, std::uint64_t wait,
                         const result<void>& status) {
  auto found = watches_.find(number);
  if (found == watches_.end() || !found->second.waits
      || found->second.waits->number != wait)
    return;
  if (status)
    settle(found->second, optional_event());
  else
    settle(found->second, status.error());
}

void watch_list::fail_waits(const failure& reason) {
  for (auto& [number, each] : watches_)
    if (each.waits)
      settle(each, reason);
}

void watch_list::publish(std::vector<commit_event> events) {
  if (watches_.empty())
    return;
  for (auto& each : events) {
    auto event = std::make_shared<const commit_event>(std::move(each));
    auto bytes = memory_bytes(*event);
    for (auto& [number, watcher] : watches_) {
      if (watcher.waits)
        settle(watcher, optional_event(*event));
      else
        keep(watcher, event, bytes);
    }
  }
}

/// What a watch keeps is either commits and drops that fit its limit, or one
/// `overflow`.
void watch_list::keep(watch& into, const event_ptr& event, std::size_t bytes) {
  auto is_overflow =
      event->what == commit_event::kind::overflow
      || into.bytes + bytes > into.bytes_max
      || (!into.events.empty()
          && into.events.front()->what == commit_event::kind::overflow);
  if (!is_overflow) {
    into.events.push_back(event);
    into.bytes += bytes;
    return;
  }
  auto overflow =
      std::make_shared<const commit_event>(overflow_at(event->generation));
  into.bytes = memory_bytes(*overflow);
  into.events.clear();
  into.events.push_back(std::move(overflow));
}

void watch_list::settle(watch& waited, result<optional_event> value) {
  auto ended = std::exchange(waited.waits, std::nullopt);
  settled_(ended->number);
  ended->done(std::move(value));
}

} // namespace callboard
