#include "tests/torture/checker.hpp"

#include <algorithm>
#include <iterator>
#include <set>
#include <vector>

namespace callboard::torture {

namespace {

/// Entries of a row that a finding shows.
constexpr std::size_t shown_entries_max = 16;

finding lost(std::string text) {
  return {finding::kind::lost, std::move(text)};
}
finding torn(std::string text) {
  return {finding::kind::torn, std::move(text)};
}

std::string store_name(unsigned store) {
  return "store " + std::to_string(store) + ": ";
}

std::uint64_t first_of(const ledger& known, unsigned store,
                       const ledger::touch& each) {
  return each.by ? each.by->first : known.start_of(store).generation;
}
std::uint64_t last_of(const ledger& known, unsigned store,
                      const ledger::touch& each) {
  return each.by ? each.by->last : known.start_of(store).generation;
}
bool is_certain(const ledger::touch& each) {
  return each.by == nullptr || each.by->certain;
}

/// One row of a state, and all that may have happened to it.
struct row_case {
  const ledger& known;
  const seen_state& seen;
  unsigned number = 0;
  version value = no_row;
  std::vector<ledger::touch> touches;

  std::uint64_t first(const ledger::touch& each) const {
    return first_of(known, seen.store, each);
  }
  std::uint64_t last(const ledger::touch& each) const {
    return std::min(last_of(known, seen.store, each), seen.generation);
  }

  /// What has certainly happened by then and cannot be undone by what came
  /// before this generation.
  std::uint64_t floor() const {
    std::uint64_t out = 0;
    for (const auto& each : touches)
      if (is_certain(each)
          && last_of(known, seen.store, each) <= seen.generation)
        out = std::max(out, first(each));
    return out;
  }

  /// Whether the row can be as it is, if nothing before `least` counts.
  bool possible(std::uint64_t least) const {
    return std::any_of(
        touches.begin(), touches.end(), [&](const ledger::touch& each) {
          return each.value == value && first(each) <= seen.generation
                 && last(each) >= least;
        });
  }

  std::string evidence() const;
};

std::string row_case::evidence() const {
  std::string out = "\n  found in generation " + std::to_string(seen.generation)
                    + ": " + to_text(value) + "\n  the ledger says of "
                    + id_of(number) + ':';
  auto shown = touches;
  std::stable_sort(shown.begin(), shown.end(),
                   [&](const auto& left, const auto& right) {
                     return first(left) < first(right);
                   });
  // The last ones before the state, and what has the found value.
  std::size_t near = 0;
  for (auto each = shown.rbegin(); each != shown.rend(); ++each) {
    const bool is_near =
        first(*each) <= seen.generation + 3 && near++ < shown_entries_max;
    if (is_near || (value != no_row && each->value == value))
      out += "\n    " + to_text(each->value) + " by "
             + (each->by ? each->by->describe()
                         : "the baseline, generation "
                               + std::to_string(first(*each)));
  }
  return out;
}

verdict check_row(const row_case& row) {
  const auto where = store_name(row.seen.store) + id_of(row.number);
  const bool is_known =
      std::any_of(row.touches.begin(), row.touches.end(),
                  [&](const auto& each) { return each.value == row.value; });
  if (row.value != no_row && !is_known)
    return torn(where + " has a version that nobody has committed"
                + row.evidence());
  if (!row.possible(row.floor()))
    return lost(where + " is not what was acknowledged last" + row.evidence());
  return std::nullopt;
}

/// `whole`, which nobody was told of, has happened, as one of its rows is
/// there: then nothing that it has replaced may be there. (For what was
/// acknowledged, `floor` says so.)
verdict check_whole(const entry& whole, const std::vector<row_case>& rows) {
  for (const auto& change : whole.operations) {
    const auto& row = rows[change.number];
    if (!row.possible(whole.first))
      return torn(store_name(row.seen.store) + id_of(row.number)
                  + " lacks its part of a commit of which another row is "
                    "there: "
                  + whole.describe() + row.evidence());
  }
  return std::nullopt;
}

std::vector<row_case> rows_of(const ledger& known, const seen_state& seen) {
  std::vector<row_case> out;
  for (unsigned number = 0; number < id_count; ++number) {
    const auto found = seen.rows.find(number);
    out.push_back({known, seen, number,
                   found == seen.rows.end() ? no_row : found->second,
                   known.touches_of(seen.store, number)});
  }
  return out;
}

std::set<std::string> ids_of(const entry& by, bool removed) {
  std::set<std::string> out;
  for (const auto& each : by.operations)
    if ((each.value == no_row) == removed)
      out.insert(id_of(each.number));
  return out;
}

bool includes(const std::set<std::string>& all,
              const std::set<std::string>& some) {
  return std::includes(all.begin(), all.end(), some.begin(), some.end());
}

/// Whether `by` can be what the event tells of.
bool explains(const entry& by, const commit_event& event) {
  if (event.generation < by.first || event.generation > by.last
      || (by.what == entry::kind::drop)
             != (event.what == commit_event::kind::drop))
    return false;
  if (by.what == entry::kind::drop)
    return event.changed.empty() && event.removed.empty();
  const std::set<std::string> changed(event.changed.begin(),
                                      event.changed.end());
  const std::set<std::string> removed(event.removed.begin(),
                                      event.removed.end());
  const auto upserts = ids_of(by, false);
  const auto removals = ids_of(by, true);
  if (by.certain)
    return changed == upserts && removed == removals;
  // A drop in between takes away some of an unanswered commit's changes.
  return includes(upserts, changed) && includes(removals, removed);
}

std::string describe(const commit_event& event) {
  std::string out = "event of generation " + std::to_string(event.generation);
  out += event.what == commit_event::kind::commit ? " (commit)"
         : event.what == commit_event::kind::drop ? " (drop)"
                                                  : " (overflow)";
  for (const auto& id : event.changed)
    out += " +" + id;
  for (const auto& id : event.removed)
    out += " -" + id;
  return out;
}

/// What events do to the rows of a state.
struct replay {
  /// Whether the newest event of a row has put it there.
  std::map<unsigned, bool> touched;
  bool dropped = false;
  std::string unknown_id;

  void note(const std::vector<std::string>& ids, bool present) {
    for (const auto& id : ids) {
      if (const auto number = number_of(id))
        touched[*number] = present;
      else
        unknown_id = id;
    }
  }

  void apply(const commit_event& event) {
    if (event.what == commit_event::kind::drop) {
      dropped = true;
      touched.clear();
    }
    note(event.changed, true);
    note(event.removed, false);
  }
};

/// A drop that was asked for when all of `commit` was pending, and came first.
const entry* drop_before(const std::vector<const entry*>& entries,
                         const entry& commit) {
  for (const auto* each : entries)
    if (each->what == entry::kind::drop && each->certain
        && each->asked_at > commit.pending_at && each->last < commit.generation)
      return each;
  return nullptr;
}

version at(const versions& rows, unsigned number) {
  const auto found = rows.find(number);
  return found == rows.end() ? no_row : found->second;
}

} // namespace

std::string_view to_string(finding::kind kind) noexcept {
  switch (kind) {
  case finding::kind::lost:
    return "lost";
  case finding::kind::torn:
    return "torn";
  case finding::kind::hung:
    return "hung";
  }
  return "unknown";
}

verdict check_state(const ledger& known, const seen_state& seen) {
  const auto rows = rows_of(known, seen);
  std::set<const entry*> unanswered;
  for (const auto& row : rows) {
    if (auto wrong = check_row(row))
      return wrong;
    for (const auto& each : row.touches)
      if (row.value != no_row && each.value == row.value && each.by
          && each.by->how == entry::fate::open)
        unanswered.insert(each.by);
  }
  for (const auto* each : unanswered)
    if (auto wrong = check_whole(*each, rows))
      return wrong;
  return std::nullopt;
}

verdict check_freshness(unsigned store, std::uint64_t acknowledged,
                        std::uint64_t generation) {
  if (generation >= acknowledged)
    return std::nullopt;
  return lost(store_name(store) + "generation " + std::to_string(acknowledged)
              + " was acknowledged before a state was asked for that is of "
                "generation "
              + std::to_string(generation));
}

verdict check_growth(unsigned store, std::uint64_t before,
                     std::uint64_t generation) {
  if (generation >= before)
    return std::nullopt;
  return lost(store_name(store) + "a process has seen generation "
              + std::to_string(before) + " and then "
              + std::to_string(generation));
}

verdict check_acknowledgements(const ledger& known, unsigned store) {
  const auto entries = known.entries_of(store);
  for (const auto* each : entries) {
    if (each->how != entry::fate::acknowledged)
      continue;
    const auto least = known.acknowledged_before(store, each->asked_at);
    const bool is_commit = each->what == entry::kind::commit;
    if (each->generation < least + (is_commit ? 1 : 0))
      return lost(store_name(store) + "generation " + std::to_string(least)
                  + " was acknowledged before this was asked: "
                  + each->describe());
    if (!is_commit)
      continue;
    if (const auto* same = known.commit_of(store, each->generation);
        same != each)
      return torn(store_name(store) + "two commits have one generation: "
                  + same->describe() + "; " + each->describe());
    if (each->expected_generation
        && each->generation != *each->expected_generation + 1)
      return torn(store_name(store)
                  + "another commit came in between: " + each->describe());
    if (const auto* drop = drop_before(entries, *each))
      return torn(
          store_name(store) + "this had been pending: " + each->describe()
          + "; and should have been discarded by this: " + drop->describe());
  }
  return std::nullopt;
}

verdict check_account(const ledger& known, unsigned store,
                      std::uint64_t generation) {
  auto least = known.start_of(store).generation;
  auto most = least;
  for (const auto* each : known.entries_of(store)) {
    ++most;
    if (each->how == entry::fate::acknowledged)
      ++least;
  }
  const auto text = store_name(store) + "generation "
                    + std::to_string(generation)
                    + " at the end, but the ledger accounts for "
                    + std::to_string(least) + " to " + std::to_string(most);
  if (generation < least)
    return lost(text);
  if (generation > most)
    return torn(text);
  return std::nullopt;
}

verdict check_event(const ledger& known, unsigned store,
                    const commit_event& event) {
  if (event.what == commit_event::kind::overflow)
    return std::nullopt;
  std::string text = store_name(store)
                     + "nobody has committed what an event "
                       "tells of\n  "
                     + describe(event);
  // An acknowledged commit leaves no other explanation of its generation.
  if (const auto* by = known.commit_of(store, event.generation)) {
    if (explains(*by, event))
      return std::nullopt;
    for (const auto& each : by->operations)
      text += (each.value == no_row ? " but -" : " but +") + id_of(each.number);
    return torn(text + "\n  " + by->describe());
  }
  for (const auto* each : known.entries_of(store)) {
    if (explains(*each, event))
      return std::nullopt;
    if (event.generation >= each->first && event.generation <= each->last)
      text += "\n  not by " + each->describe();
  }
  return torn(text);
}

verdict check_event_order(unsigned store, std::uint64_t previous,
                          const commit_event& event) {
  const bool follows = event.what == commit_event::kind::overflow
                           ? event.generation > previous
                           : event.generation == previous + 1;
  if (follows)
    return std::nullopt;
  return lost(store_name(store) + "after generation " + std::to_string(previous)
              + " came the " + describe(event));
}

verdict check_events(const seen_state& before,
                     std::span<const commit_event> events,
                     const seen_state& after) {
  replay played;
  std::string evidence = "\n  between generations "
                         + std::to_string(before.generation) + " and "
                         + std::to_string(after.generation) + ':';
  for (const auto& event : events) {
    evidence += "\n    " + describe(event);
    if (event.what == commit_event::kind::overflow)
      return std::nullopt;
    played.apply(event);
  }
  if (!played.unknown_id.empty())
    return torn(store_name(before.store) + "an event tells of the unknown id '"
                + played.unknown_id + "'" + evidence);
  for (unsigned number = 0; number < id_count; ++number) {
    const auto was = at(before.rows, number);
    const auto is = at(after.rows, number);
    const auto touched = played.touched.find(number);
    const bool explained =
        touched == played.touched.end()
            ? is == (played.dropped ? no_row : was)
            : (touched->second ? is != no_row && is != was : is == no_row);
    if (!explained)
      return torn(store_name(before.store) + id_of(number) + " was "
                  + to_text(was) + " and is " + to_text(is)
                  + ", which the events do not explain" + evidence);
  }
  return std::nullopt;
}

} // namespace callboard::torture
