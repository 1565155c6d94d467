#include "tests/torture/role.hpp"

#include <chrono>

namespace callboard::torture {

namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

/// How long what is there already may take to be seen.
constexpr auto patience = seconds(20);
constexpr std::size_t queries = 8;

void await(role& self, unsigned store) {
  const auto acknowledged = self.known().acknowledged_generation(store);
  self.begin(step::awaiting);
  const auto reached =
      self.need(self.store(store).await_generation(acknowledged, patience),
                "to await generation " + std::to_string(acknowledged));
  self.check(check_freshness(store, acknowledged, reached));
  self.check(check_freshness(store, reached, self.look(store).generation));
}

/// What may not come in time is no finding.
void await_next(role& self, unsigned store) {
  const auto seen = self.look(store).generation;
  self.begin(step::awaiting);
  const auto reached =
      self.store(store).await_generation(seen + 1, milliseconds(100));
  if (reached)
    self.check(check_freshness(store, seen + 1, *reached));
  else if (reached.error().code != errc::timed_out)
    self.fail(reached.error(), "to await a generation");
}

void get_rows(role& self, unsigned store) {
  self.begin(step::reading_rows);
  std::vector<std::string> ids;
  for (unsigned number = 0; number < id_count; number += 9)
    ids.push_back(id_of(number));
  const auto rows =
      self.need(self.store(store).get_by_ids(std::move(ids)), "to get rows");
  for (const auto& each : rows)
    if (each)
      (void)self.recognize_record(each->id, each->record);
}

void read_once(role& self) {
  const auto store = static_cast<unsigned>(self.below(store_count));
  switch (self.below(12)) {
  case 0:
  case 1:
    self.check_queries(store, queries);
    break;
  case 2:
    await(self, store);
    break;
  case 3:
    await_next(self, store);
    break;
  case 4:
    self.check_published(store);
    break;
  case 5:
    get_rows(self, store);
    break;
  case 6:
    if (self.one_in(4)) {
      self.begin(step::verifying);
      self.need(self.store(store).verify(), "to verify");
    }
    break;
  default:
    (void)self.check_store(store);
  }
}

/// Follows one store's events.
class watcher {
public:
  watcher(role& self, unsigned store)
      : self_(self),
        store_(store),
        events_(begin()),
        previous_(events_.generation()),
        before_(self.look(store)) {
    self_.check(check_freshness(store_, previous_, before_.generation));
  }

  void work();

private:
  subscription begin() {
    self_.begin(step::watching);
    watch_options options;
    if (self_.one_in(8))
      options.buffer_bytes_max = 400; // to see overflows
    return self_.need(self_.store(store_).watch(options), "to watch");
  }

  std::optional<commit_event> next(std::chrono::milliseconds timeout);
  void compare(std::vector<commit_event> events, const seen_state& after);

  role& self_;
  unsigned store_;
  subscription events_;
  /// The generation of the newest event.
  std::uint64_t previous_;
  seen_state before_;
};

std::optional<commit_event> watcher::next(std::chrono::milliseconds timeout) {
  self_.begin(step::watching);
  auto event = self_.need(events_.next(timeout), "to wait for an event");
  if (event) {
    self_.check(check_event_order(store_, previous_, *event));
    previous_ = event->generation;
  }
  return event;
}

void watcher::work() {
  const auto acknowledged = self_.known().acknowledged_generation(store_);
  const bool must_come = acknowledged > previous_;
  std::vector<commit_event> events;
  if (auto event = next(must_come ? patience : milliseconds(100)))
    events.push_back(std::move(*event));
  else if (must_come)
    self_.fail(finding{
        finding::kind::hung,
        "store " + std::to_string(store_) + ": no event came after generation "
            + std::to_string(previous_) + ", but "
            + std::to_string(acknowledged) + " is acknowledged"});
  else
    return;
  // What an event tells of is visible, and events come for all that is.
  const auto seen_from = previous_;
  const auto after = self_.look(store_);
  self_.check(check_freshness(store_, seen_from, after.generation));
  while (previous_ < after.generation) {
    auto event = next(patience);
    if (!event)
      self_.fail(finding{
          finding::kind::hung,
          "store " + std::to_string(store_)
              + ": no event came after generation " + std::to_string(previous_)
              + ", but " + std::to_string(after.generation) + " is visible"});
    events.push_back(std::move(*event));
  }
  compare(std::move(events), after);
}

void watcher::compare(std::vector<commit_event> events,
                      const seen_state& after) {
  const auto& known = self_.known();
  for (const auto& event : events)
    self_.check(check_event(known, store_, event));
  // The first state may have been newer than the first events.
  std::erase_if(events, [&](const commit_event& event) {
    return event.generation <= before_.generation
           && event.what != commit_event::kind::overflow;
  });
  self_.check(check_events(before_, events, after));
  self_.check(check_state(known, after));
  // An overflow may reach beyond the state.
  before_ = previous_ > after.generation ? self_.look(store_) : after;
}

} // namespace

void read_for_ever(role& self) {
  self.open_stores();
  while (true)
    read_once(self);
}

void watch_for_ever(role& self) {
  self.open_stores();
  while (true) {
    watcher follows(self, static_cast<unsigned>(self.below(store_count)));
    for (auto rounds = 1 + self.below(30); rounds > 0; --rounds)
      follows.work();
  }
}

} // namespace callboard::torture
