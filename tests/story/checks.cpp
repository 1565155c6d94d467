#include "tests/story/checks.hpp"

#include "core/record.hpp"
#include "simulation/simulated_embedder.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>

namespace callboard::test {

namespace {

/// The first generation from the read's floor on of which `fits` is true: the
/// handle has shown it.
template <class Fits>
void find_generation(const read& asked, Fits fits, const std::string& promise) {
  const auto floor = asked.book.floor_of(asked.terms);
  const auto& history = asked.store.model().generations();
  for (int attempt = 0; attempt < 2; ++attempt) {
    for (auto each = history.lower_bound(floor); each != history.end(); ++each)
      if (!each->second.state || fits(*each->second.state))
        return asked.book.has_shown(each->first);
    if (history.empty() || (floor == 0 && fits(rows{}))
        || !asked.store.is_open())
      return;
    asked.store.look_at_files();
  }
  require(false, promise + " (from generation " + std::to_string(floor)
                     + " on, until "
                     + std::to_string(asked.store.model().latest()) + ")");
}

std::vector<own_changes> own_of(const read& asked,
                                const std::vector<std::string>& ids) {
  std::vector<own_changes> out;
  for (const auto& each : ids)
    out.push_back(asked.book.own_of(each, asked.terms.asked));
  return out;
}

/// What people see of a record.
void check_shown(const std::string& id, const std::string& record,
                 std::optional<float> distance) {
  const auto row = result_row(record, distance);
  const auto shown = member(row, "distance");
  const auto is_as_far = shown ? std::stof(std::string(*shown)) == distance
                               : !distance.has_value();
  require(string_member(row, "id") == id && member(row, "created_at")
              && version_in(row) == version_in(id, record) && is_as_far,
          "a row is shown whole, with its id and distance: " + row);
}

bool is_surely_removed(const own_changes& own) {
  return own.is_certain && own.possible == std::set<int>{absent};
}

bool may_be_upserted(const own_changes& own) {
  return std::any_of(own.possible.begin(), own.possible.end(),
                     [](int version) { return version != absent; });
}

bool is_surely_upserted(const own_changes& own) {
  return own.is_certain && own.possible.count(absent) == 0;
}

} // namespace

// -- Rows by id ---------------------------------------------------------------

void check_get(const read& asked, const std::vector<std::string>& ids,
               const optional_rows& found) {
  require(found.size() == ids.size(), "there is an answer for each id");
  rows shown;
  std::vector<int> versions;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    require(!found[i] || found[i]->id == ids[i], "answers are in order");
    if (found[i])
      check_shown(ids[i], found[i]->record, std::nullopt);
    versions.push_back(found[i] ? version_in(found[i]->record) : absent);
    shown[ids[i]] = versions.back();
  }
  const auto own = own_of(asked, ids);
  const auto fits = [&](const rows& state) {
    for (std::size_t i = 0; i < ids.size(); ++i)
      if (!own[i].allows(versions[i], version_of(state, ids[i])))
        return false;
    return true;
  };
  find_generation(asked, fits,
                  "a handle shows its own changes and one generation:"
                      + list_of(shown));
}

void check_vectors(const read& asked, const std::vector<std::string>& ids,
                   const std::vector<id_vector>& found) {
  std::map<std::string, std::vector<float>> vectors;
  for (const auto& each : found)
    require(vectors.emplace(each.id, each.vector).second
                && std::find(ids.begin(), ids.end(), each.id) != ids.end(),
            "each id that was asked for has one vector");
  const auto own = own_of(asked, ids);
  const auto has_vector_of = [&](const std::string& id, int version) {
    const auto each = vectors.find(id);
    if (version == absent || each == vectors.end())
      return version == absent && each == vectors.end();
    return is_close(each->second, simulation::simulated_vector(
                                      content_of(id, version), dimension));
  };
  const auto fits = [&](const rows& state) {
    for (std::size_t i = 0; i < ids.size(); ++i) {
      auto versions = own[i].possible;
      if (!own[i].is_certain)
        versions.insert(version_of(state, ids[i]));
      if (std::none_of(versions.begin(), versions.end(), [&](int version) {
            return has_vector_of(ids[i], version);
          }))
        return false;
    }
    return true;
  };
  std::vector<std::string> shown;
  for (const auto& each : found)
    shown.push_back(each.id);
  find_generation(asked, fits,
                  "vectors are those of the handle's own changes and of one "
                  "generation: of"
                      + list_of(ids) + " there are" + list_of(shown));
}

void check_snapshot(const read& asked, const snapshot& found) {
  const auto shown = rows_of(found);
  const auto own = own_of(asked, all_ids());
  const auto fits = [&](const rows& state) {
    for (std::size_t i = 0; i < all_ids().size(); ++i) {
      const auto& id = all_ids()[i];
      const auto version = version_of(shown, id);
      const auto is_right =
          version == absent
              ? version_of(state, id) == absent
                    || asked.book.may_hide(id, asked.terms.asked)
              : version_of(state, id) == version && !is_surely_removed(own[i]);
      if (!is_right)
        return false;
    }
    return true;
  };
  find_generation(asked, fits,
                  "a snapshot is one generation, less what the handle has "
                  "deleted:"
                      + list_of(shown));
}

// -- Queries ------------------------------------------------------------------

namespace {

constexpr double tolerance = 1e-5;

double score(const std::string& one, const std::string& other) {
  const auto left = simulation::simulated_vector(one, dimension);
  const auto right = simulation::simulated_vector(other, dimension);
  double sum = 0;
  for (std::size_t i = 0; i < dimension; ++i)
    sum += double{left[i]} * double{right[i]};
  return sum;
}

/// Of one text and one generation.
struct exact_search {
  const read& asked;
  const std::string& text;
  const search_terms& terms;

  bool equals(const rows& state, const std::vector<hit>& hits) const {
    auto worst = 2.0;
    std::set<std::string> found;
    for (const auto& each : hits) {
      const auto version = version_in(each.record);
      const auto exact = score(text, content_of(each.id, version));
      const auto own = asked.book.own_of(each.id, asked.terms.asked);
      if (version_of(state, each.id) != version
          || std::abs(exact - double{each.distance}) > tolerance
          || double{each.distance} > worst + tolerance
          || double{each.distance} < terms.threshold.value_or(-2)
          || is_surely_removed(own) || !found.insert(each.id).second)
        return false;
      worst = double{each.distance};
    }
    return hits.size() <= terms.top_k
           && std::all_of(state.begin(), state.end(), [&](const auto& row) {
                return found.count(row.first) > 0
                       || may_be_missing(row.first, row.second,
                                         hits.size() < terms.top_k, worst);
              });
  }

  bool may_be_missing(const std::string& id, int version, bool has_room,
                      double worst) const {
    if (asked.book.may_hide(id, asked.terms.asked))
      return true;
    const auto its_own = score(text, content_of(id, version));
    return (terms.threshold && its_own <= *terms.threshold + tolerance)
           || (!has_room && its_own <= worst + tolerance);
  }
};

} // namespace

void check_queries(const read& asked, const search_terms& terms,
                   const hit_lists& found) {
  require(found.size() == terms.texts.size(), "there is a list for each query");
  std::string shown;
  for (std::size_t i = 0; i < found.size(); ++i) {
    shown.append(" ").append(terms.texts[i]).append(" finds");
    for (const auto& each : found[i]) {
      check_shown(each.id, each.record, each.distance);
      shown.append(" ").append(content_of(each.id, version_in(each.record)));
    }
  }
  const auto fits = [&](const rows& state) {
    for (std::size_t i = 0; i < found.size(); ++i)
      if (!exact_search{asked, terms.texts[i], terms}.equals(state, found[i]))
        return false;
    return true;
  };
  find_generation(asked, fits,
                  "a query equals brute force on one generation, less what "
                  "the handle has deleted:"
                      + shown);
}

// -- What a handle says of itself ---------------------------------------------

void check_pending(const read& asked, const std::vector<std::string>& ids) {
  const std::set<std::string> listed(ids.begin(), ids.end());
  require(listed.size() == ids.size(), "each pending id is listed once");
  const auto own = own_of(asked, all_ids());
  for (std::size_t i = 0; i < all_ids().size(); ++i) {
    const auto is_listed = listed.count(all_ids()[i]) > 0;
    require(is_listed ? may_be_upserted(own[i]) : !is_surely_upserted(own[i]),
            "what is upserted and not committed is pending: "
                + label_of(all_ids()[i])
                + (is_listed ? " is listed" : " is not listed"));
  }
}

void check_stats(const read& asked, const handle_stats& found) {
  const auto generation = found.store.generation;
  require(found.store.dimension == dimension
              && found.store.model == "simulated",
          "statistics are of this store");
  require(generation >= asked.terms.own, "a handle never goes back");
  asked.book.has_shown(generation);
  asked.store.catch_up(generation);
  const auto& history = asked.store.model().generations();
  const auto known = history.find(generation);
  if (known != history.end() && known->second.state)
    require(found.store.live_rows == known->second.state->size(),
            "statistics count the rows of a generation");
  std::size_t removals = 0;
  std::size_t upserts = 0;
  std::size_t sure_upserts = 0;
  for (const auto& id : all_ids()) {
    const auto own = asked.book.own_of(id, asked.terms.asked);
    removals += asked.book.may_hide(id, asked.terms.asked) ? 1 : 0;
    upserts += may_be_upserted(own) ? 1 : 0;
    sure_upserts += is_surely_upserted(own) ? 1 : 0;
  }
  require(found.pending_upserts <= upserts
              && found.pending_upserts >= sure_upserts
              && found.pending_deletes <= removals
              && (found.pending_bytes > 0)
                     == (found.pending_upserts + found.pending_deletes > 0),
          "statistics count what is pending");
}

// -- Commits and events -------------------------------------------------------

namespace {

/// The last change of each id that the commit was sent after.
void check_committed(const store_model& model, const handle_book& book,
                     const turning_point& point, std::uint64_t generation) {
  std::map<std::string, std::size_t> last;
  for (auto i = book.loose_until; i < point.changes; ++i)
    if (book.changes[i].reach != removal::row_only)
      last[book.changes[i].id] = i;
  for (const auto& [id, index] : last) {
    const auto& made = book.changes[index];
    auto found = made.reach != removal::certain;
    for (auto i = index; i < book.changes.size() && !found; ++i)
      // A removal that came before the commit began takes the change back.
      found = book.changes[i].id == id
              && (book.changes[i].reach != removal::certain
                  || model.was_seen(id, book.changes[i].version, made.sent,
                                    generation));
    require(found, "what is committed is there: " + content_of(id, made.version)
                       + " in generation " + std::to_string(generation));
  }
}

} // namespace

void check_commit(store_observer& store, handle_book& book,
                  const turning_point& point, const commit_result& made,
                  std::optional<std::uint64_t> expected) {
  auto& model = store.model();
  if (!store.is_open())
    // All have died meanwhile; whoever comes next will see it.
    return model.acknowledge(made.generation);
  store.catch_up(made.generation);
  if (expected && made.committed > 0)
    require(made.generation == *expected + 1,
            "a commit that expects a generation is the next one");
  require(made.generation <= model.latest(),
          "what is acknowledged is visible to a new reader: generation "
              + std::to_string(made.generation) + " of "
              + std::to_string(model.latest()));
  model.acknowledge(made.generation);
  book.has_shown(made.generation);
  for (const auto& each : made.failed)
    require(std::any_of(book.changes.begin(), book.changes.end(),
                        [&](const auto& change) {
                          return change.id == each.id
                                 && change.version != absent;
                        }),
            "only a handle's own upserts can fail");
  require(made.discarded == 0 || model.was_drop_asked(),
          "only a drop discards changes");
  if (made.discarded > 0 || !made.failed.empty())
    book.loose_until = book.changes.size();
  const auto is_finalizing =
      std::any_of(book.points.begin(), book.points.end(), [](const auto& each) {
        return each.what == turning_point::kind::finalize && !each.over;
      });
  // What that has discarded is not known yet.
  if (!is_finalizing)
    check_committed(model, book, point, made.generation);
}

void check_conflict(store_observer& store, const failure& error,
                    std::optional<std::uint64_t> expected) {
  if (error.code != errc::conflict || !expected || !store.is_open())
    return;
  store.look_at_files();
  require(store.model().latest() != *expected,
          "a commit conflicts with another one only: generation "
              + std::to_string(*expected) + " is the latest");
}

void check_event(store_observer& store, handle_book& book, std::uint64_t last,
                 const commit_event& event) {
  store.catch_up(event.generation);
  const auto here =
      std::to_string(event.generation) + " after " + std::to_string(last);
  require(event.generation > last, "events come in rising order: " + here);
  book.has_shown(event.generation);
  if (event.what == commit_event::kind::overflow)
    return;
  require(event.generation == last + 1,
          "no event is lost without an overflow: " + here);
  const auto& history = store.model().generations();
  const auto known = history.find(event.generation);
  if (known == history.end() || !known->second.event)
    return;
  const auto& seen = *known->second.event;
  require(seen.changed == event.changed && seen.removed == event.removed
              && seen.what == event.what,
          "all watchers are told the same of generation " + here);
}

} // namespace callboard::test
