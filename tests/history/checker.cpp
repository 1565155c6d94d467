#include "tests/history/checker.hpp"

#include "tests/history/values.hpp"

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace callboard::history {

namespace {

/// An entry, and who wrote it.
struct source {
  const journal* from = nullptr;
  const entry* what = nullptr;
};

std::string place_of(const source& of) {
  return of.from->name + ", line " + std::to_string(of.what->line);
}

std::string describe(const source& of) {
  const auto& what = *of.what;
  auto out = place_of(of) + ": "
             + (what.what == entry::kind::drop ? "drop " : "transaction ")
             + transaction_name(of.from->process, what.number) + ", begun at "
             + std::to_string(what.begun_at);
  if (what.expected_generation)
    out += ", expects generation " + std::to_string(*what.expected_generation);
  if (what.end == entry::outcome::committed)
    out += ", acknowledged at " + std::to_string(what.ended_at)
           + " as generation " + std::to_string(what.generation);
  else
    out += ", never acknowledged";
  if (what.what == entry::kind::attempt)
    out += ", writes " + what.changed + " and removes " + what.removed;
  return out;
}

/// What is the matter with rows that should be others.
std::string difference(const rows& seen, const rows& right) {
  std::string out;
  const auto add = [&](const std::string& id, const std::string& was,
                       const std::string& should) {
    out += "\n    " + id + " is " + was + ", but should be " + should;
  };
  for (const auto& [id, value] : right) {
    const auto found = seen.find(id);
    if (found == seen.end())
      add(id, "missing", value);
    else if (found->second != value)
      add(id, found->second, value);
  }
  for (const auto& [id, value] : seen)
    if (!right.contains(id))
      add(id, value, "missing");
  return out;
}

bool is_change(const entry& what) {
  return what.what == entry::kind::attempt || what.what == entry::kind::drop;
}

bool is_event(const entry& what) {
  return what.what == entry::kind::event_commit
         || what.what == entry::kind::event_drop
         || what.what == entry::kind::event_overflow;
}

id_set ids_of(const rows& values) {
  id_set out;
  for (const auto& [id, value] : values)
    out.insert(id);
  return out;
}

/// Whether `event` can be that of `change`, whatever was in the store.
bool can_be(const entry& event, const entry& change) {
  if (event.what == entry::kind::event_drop)
    return change.what == entry::kind::drop;
  const auto removed = ids_in(event.removed);
  const auto asked = ids_in(change.removed);
  return change.what == entry::kind::attempt
         && ids_in(event.changed) == ids_of(rows_in(change.changed))
         && std::includes(asked.begin(), asked.end(), removed.begin(),
                          removed.end());
}

/// Judges what concerns one store.
class store_judge {
public:
  store_judge(std::span<const journal> journals, unsigned store,
              judgement& found)
      : journals_(journals), store_(store), found_(found) {}

  void judge() {
    collect();
    find_unacknowledged();
    replay();
    check_conflicts();
    check_drops();
    check_real_time();
    for (const auto& each : journals_) {
      check_session(each);
      check_events(each);
    }
  }

private:
  void collect();
  void take(const source& each);
  void note_end(std::uint64_t generation) {
    last_ = std::max(last_, generation);
  }
  void find_unacknowledged();
  source choose(std::uint64_t generation);
  bool fits(const source& each, std::uint64_t generation) const;
  void replay();
  void apply(std::uint64_t generation, const source& change);
  void check_update(const source& change, const std::string& id,
                    const std::string& value);
  void check_reads(std::uint64_t generation);
  void check_event(const source& event, const source& change) const;
  void check_conflicts();
  void check_drops();
  void check_real_time();
  void check_session(const journal& of);
  void check_events(const journal& of);
  void check_next_event(const source& event, std::uint64_t previous);
  void report(const std::string& text) const {
    found_.violations.push_back("store " + std::to_string(store_) + ": "
                                + text);
  }

  std::span<const journal> journals_;
  unsigned store_;
  judgement& found_;
  /// The highest generation that anybody speaks of.
  std::uint64_t last_ = 0;
  std::map<std::uint64_t, source> order_;
  /// Changes whose process was killed before it was told.
  std::vector<source> unknown_;
  std::vector<source> conflicts_;
  std::vector<source> discarded_;
  std::multimap<std::uint64_t, source> reads_;
  std::multimap<std::uint64_t, source> events_;
  rows state_;
};

void store_judge::collect() {
  for (const auto& journal : journals_)
    for (const auto& each : journal.entries)
      if (each.what != entry::kind::bad && each.store == store_)
        take({&journal, &each});
}

void store_judge::take(const source& each) {
  const auto& what = *each.what;
  note_end(what.generation);
  if (is_event(what)) {
    events_.emplace(what.generation, each);
    ++(what.what == entry::kind::event_overflow ? found_.overflows
                                                : found_.events);
  } else if (what.what == entry::kind::read
             || what.what == entry::kind::read_again) {
    reads_.emplace(what.generation, each);
    ++found_.reads;
  } else if (is_change(what) && what.end == entry::outcome::unknown) {
    unknown_.push_back(each);
  } else if (is_change(what) && what.end == entry::outcome::committed) {
    const auto [other, is_new] = order_.emplace(what.generation, each);
    if (!is_new)
      report("two commits have generation " + std::to_string(what.generation)
             + "\n  " + describe(other->second) + "\n  " + describe(each));
  } else if (is_change(what)) {
    if (what.end == entry::outcome::discarded) {
      discarded_.push_back(each);
      ++found_.discarded;
    }
    if (what.end == entry::outcome::conflict) {
      conflicts_.push_back(each);
      ++found_.conflicts;
    }
  }
}

/// Gives each generation that nobody was told of its transaction.
void store_judge::find_unacknowledged() {
  for (std::uint64_t generation = 1; generation <= last_; ++generation) {
    if (order_.contains(generation))
      continue;
    const auto chosen = choose(generation);
    if (!chosen.what) {
      report("nobody has asked for what generation "
             + std::to_string(generation) + " is");
      continue;
    }
    order_.emplace(generation, chosen);
    std::erase_if(unknown_,
                  [&](const source& each) { return each.what == chosen.what; });
    found_.unacknowledged += chosen.what->what == entry::kind::attempt ? 1 : 0;
  }
}

source store_judge::choose(std::uint64_t generation) {
  for (const auto& each : unknown_)
    if (fits(each, generation))
      return each;
  return {};
}

/// Whether an unacknowledged change can be this generation: events know it as
/// such, and it comes after what its process, and those that went before it
/// with the same number, did first, and before what they did later.
bool store_judge::fits(const source& each, std::uint64_t generation) const {
  const auto& what = *each.what;
  if (what.expected_generation && *what.expected_generation + 1 != generation)
    return false;
  const auto [first, behind] = events_.equal_range(generation);
  for (auto event = first; event != behind; ++event)
    if (event->second.what->what != entry::kind::event_overflow
        && !can_be(*event->second.what, what))
      return false;
  return std::all_of(order_.begin(), order_.end(), [&](const auto& known) {
    const auto& [at, other] = known;
    return other.from->process != each.from->process
           || (other.what->number < what.number) == (at < generation);
  });
}

void store_judge::replay() {
  check_reads(0);
  for (const auto& [generation, change] : order_) {
    apply(generation, change);
    check_reads(generation);
  }
}

void store_judge::apply(std::uint64_t generation, const source& change) {
  const auto& what = *change.what;
  if (what.expected_generation && *what.expected_generation + 1 != generation)
    report("a commit that expected generation "
           + std::to_string(*what.expected_generation) + " became generation "
           + std::to_string(generation) + "\n  " + describe(change));
  const auto [first, behind] = events_.equal_range(generation);
  for (auto event = first; event != behind; ++event)
    check_event(event->second, change);
  if (what.what == entry::kind::drop) {
    ++found_.drops;
    state_.clear();
    return;
  }
  ++found_.transactions;
  for (const auto& id : ids_in(what.removed))
    state_.erase(id);
  for (auto& [id, value] : rows_in(what.changed)) {
    check_update(change, id, value);
    state_[id] = value;
  }
}

void store_judge::check_update(const source& change, const std::string& id,
                               const std::string& value) {
  const auto found = state_.find(id);
  const auto before = found == state_.end() ? std::string() : found->second;
  const auto transaction =
      transaction_name(change.from->process, change.what->number);
  const auto right = next_value(id, before, transaction);
  if (right && value != *right)
    report("an update of " + id + " was lost: it was "
           + (before.empty() ? "missing" : before) + "; " + value
           + " was written, not " + *right + "\n  " + describe(change));
}

void store_judge::check_reads(std::uint64_t generation) {
  const auto [first, behind] = reads_.equal_range(generation);
  if (first == behind)
    return;
  const auto right = to_text(state_);
  for (auto read = first; read != behind; ++read) {
    const auto& seen = read->second.what->changed;
    if (seen == right || seen == unknown_rows)
      continue;
    const auto change = order_.find(generation);
    report("a snapshot of generation " + std::to_string(generation)
           + " is not the transactions up to it\n  " + place_of(read->second)
           + difference(rows_in(seen), state_)
           + (change == order_.end()
                  ? ""
                  : "\n  the last is " + describe(change->second)));
  }
}

/// Called with the state before `change`.
void store_judge::check_event(const source& event, const source& change) const {
  if (event.what->what == entry::kind::event_overflow)
    return;
  const auto removed = ids_in(event.what->removed);
  const auto asked = ids_in(change.what->removed);
  const bool is_whole =
      std::all_of(asked.begin(), asked.end(), [&](const std::string& id) {
        return removed.contains(id) || !state_.contains(id);
      });
  if (!can_be(*event.what, *change.what) || !is_whole)
    report("the event of generation " + std::to_string(event.what->generation)
           + " is not of its commit\n  " + place_of(event) + ": changed "
           + event.what->changed + ", removed " + event.what->removed + "\n  "
           + describe(change));
}

/// A commit is refused only if another one was made before.
void store_judge::check_conflicts() {
  for (const auto& refused : conflicts_) {
    const auto expected = refused.what->expected_generation;
    const auto other = expected ? order_.find(*expected + 1) : order_.end();
    if (!expected || other == order_.end()
        || other->second.what->begun_at > refused.what->ended_at)
      report("a conflict with nothing\n  " + describe(refused));
  }
}

/// What was asked for before a drop is discarded after it, and nothing else is.
void store_judge::check_drops() {
  std::map<std::uint64_t, source> drops;
  for (const auto& [generation, each] : order_)
    if (each.what->what == entry::kind::drop)
      drops.emplace(generation, each);
  for (const auto& [generation, each] : order_) {
    const auto drop =
        drops.upper_bound(each.what->known_generation.value_or(generation));
    if (drop != drops.end() && drop->first < generation)
      report("generation " + std::to_string(generation)
             + " was asked for before a drop\n  " + describe(each) + "\n  "
             + describe(drop->second));
  }
  for (const auto& each : discarded_) {
    const auto drop =
        drops.upper_bound(each.what->known_generation.value_or(0));
    if (drop == drops.end()
        || drop->second.what->begun_at > each.what->ended_at)
      report("a change was discarded without a drop\n  " + describe(each));
  }
}

/// Whatever begins after a commit was acknowledged comes after it.
void store_judge::check_real_time() {
  std::vector<std::pair<std::int64_t, source>> ends;
  for (const auto& [generation, each] : order_)
    if (each.what->end == entry::outcome::committed)
      ends.emplace_back(each.what->ended_at, each);
  std::sort(ends.begin(), ends.end(), [](const auto& left, const auto& right) {
    return left.first < right.first;
  });
  // From each on, the newest of those that ended no later.
  for (std::size_t i = 1; i < ends.size(); ++i)
    if (ends[i].second.what->generation < ends[i - 1].second.what->generation)
      ends[i].second = ends[i - 1].second;
  const auto newest_before = [&](std::int64_t time) {
    const auto end = std::lower_bound(
        ends.begin(), ends.end(), time,
        [](const auto& each, std::int64_t than) { return each.first < than; });
    return end == ends.begin() ? source() : std::prev(end)->second;
  };
  for (const auto& [generation, read] : reads_) {
    if (read.what->what != entry::kind::read)
      continue;
    const auto newest = newest_before(read.what->begun_at);
    if (newest.what && newest.what->generation > generation)
      report("a stale read: " + place_of(read) + " saw generation "
             + std::to_string(generation) + " and had begun at "
             + std::to_string(read.what->begun_at) + "\n  " + describe(newest));
  }
  for (const auto& [generation, commit] : order_) {
    const auto newest = newest_before(commit.what->begun_at);
    if (newest.what && newest.what->generation > generation)
      report("generation " + std::to_string(generation)
             + " had begun after a later one was acknowledged\n  "
             + describe(commit) + "\n  " + describe(newest));
  }
}

/// What one process sees only grows, and has its own commits in it.
void store_judge::check_session(const journal& of) {
  std::uint64_t newest = 0;
  for (const auto& each : of.entries) {
    if (each.what == entry::kind::bad || each.store != store_)
      continue;
    const bool commits =
        is_change(each) && each.end == entry::outcome::committed;
    if (!commits && each.what != entry::kind::read)
      continue;
    if (each.generation < newest || (commits && each.generation == newest))
      report("a process went back from generation " + std::to_string(newest)
             + " to " + std::to_string(each.generation) + ": "
             + place_of({&of, &each}));
    newest = std::max(newest, each.generation);
  }
}

void store_judge::check_events(const journal& of) {
  std::optional<std::uint64_t> previous;
  for (const auto& each : of.entries) {
    if (each.what == entry::kind::bad || each.store != store_)
      continue;
    if (each.what == entry::kind::watch) {
      previous = each.generation;
    } else if (is_event(each)) {
      check_next_event({&of, &each}, previous.value_or(0));
      previous = each.generation;
    } else if (each.what == entry::kind::end && previous != each.generation) {
      report("events have ended with generation "
             + std::to_string(previous.value_or(0)) + ": "
             + place_of({&of, &each}) + ": the process has seen "
             + std::to_string(each.generation));
    }
  }
}

void store_judge::check_next_event(const source& event,
                                   std::uint64_t previous) {
  const auto generation = event.what->generation;
  const bool is_overflow = event.what->what == entry::kind::event_overflow;
  if (generation <= previous)
    report("an event went back from generation " + std::to_string(previous)
           + " to " + std::to_string(generation) + ": " + place_of(event));
  else if (generation != previous + 1 && !is_overflow)
    report("events are missing between the generations "
           + std::to_string(previous) + " and " + std::to_string(generation)
           + ": " + place_of(event));
}

} // namespace

judgement judge(std::span<const journal> journals) {
  judgement out;
  std::set<unsigned> stores;
  for (const auto& each : journals)
    for (const auto& what : each.entries) {
      if (what.what == entry::kind::bad)
        out.violations.push_back(place_of({&each, &what}) + ": " + what.text);
      else
        stores.insert(what.store);
    }
  for (const auto store : stores)
    store_judge(journals, store, out).judge();
  return out;
}

} // namespace callboard::history
