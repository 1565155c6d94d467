#include "actors/storage_machine.hpp"

#include "core/json_text.hpp"
#include "core/record.hpp"
#include "core/search.hpp"

#include <algorithm>
#include <cstring>
#include <unordered_set>
#include <utility>

namespace callboard {

namespace {

std::vector<float> floats_of(std::span<const std::byte> bytes) {
  std::vector<float> out(bytes.size() / sizeof(float));
  if (!out.empty())
    std::memcpy(out.data(), bytes.data(), out.size() * sizeof(float));
  return out;
}

failure wrong_dimension(std::string_view what, std::size_t found,
                        std::size_t expected) {
  return {errc::dimension_mismatch,
          std::string(what) + " has " + std::to_string(found)
              + " components, but those of this store have "
              + std::to_string(expected)};
}

} // namespace

storage_machine::storage_machine(storage_setup setup,
                                 storage_services& services)
    : setup_(std::move(setup)),
      services_(services),
      lane_(
          setup_.session, services,
          [this](store_state state) { adopt(std::move(state)); },
          [this] {
            if (std::exchange(looks_at_rest_, false))
              look();
          }),
      pending_(setup_.dimension,
               {.operations_max = setup_.options.pending_operations_max,
                .bytes_max = setup_.options.pending_bytes_max}),
      vectors_(setup_.dimension, setup_.embedding,
               [this](embed_request request, answer<embedding_batch> done) {
                 services_.embed(std::move(request), std::move(done));
               }),
      deadlines_(
          *setup_.door,
          [this](std::chrono::milliseconds time, std::function<void()> then) {
            services_.after(time, std::move(then));
          }),
      watches_([this](std::uint64_t wait) { deadlines_.cancel(wait); }) {
  adopt(setup_.session->state());
}

// -- validation ---------------------------------------------------------------

result<pending_change> storage_machine::make_change(upsert_item& item,
                                                    std::int64_t now) const {
  auto out = std::make_shared<commit_operation>();
  CALLBOARD_TRY_ASSIGN(out->record, make_record(item.id, now, item.record,
                                                setup_.options.meta_fields));
  if (!item.vector.empty()) {
    auto what = "the vector of record " + printable(item.id);
    if (item.vector.size() != setup_.dimension)
      return wrong_dimension(what, item.vector.size(), setup_.dimension);
    CALLBOARD_TRY(normalize(item.vector, what));
  }
  out->id = std::move(item.id);
  out->vector = std::move(item.vector);
  return out;
}

result<std::vector<pending_change>>
storage_machine::make_changes(std::vector<upsert_item>& items) const {
  auto now = setup_.door->wall_clock_seconds();
  std::vector<pending_change> out;
  out.reserve(items.size());
  for (auto& item : items) {
    CALLBOARD_TRY_ASSIGN(auto made, make_change(item, now));
    out.push_back(std::move(made));
  }
  return out;
}

result<search_parameters>
storage_machine::parameters_of(const query_options& options) const {
  if (options.top_k < 1)
    return failure{errc::invalid_argument,
                   "top_k is 0: ask for at least 1 row"};
  return search_parameters{
      .top_k = options.top_k,
      .threshold = options.threshold.value_or(setup_.options.threshold)};
}

// -- the state of the store ---------------------------------------------------

void storage_machine::adopt(store_state state) {
  auto is_new_view = state.view != state_.view;
  auto to_embed = std::move(state.to_embed);
  auto events = std::move(state.events);
  state_ = std::move(state);
  if (is_new_view) {
    pending_.forget_adopted([this](std::string_view id) {
      return state_.view->find(id).has_value();
    });
    rebuild_view();
  }
  std::vector<pending_change> changes;
  for (auto& each : to_embed) {
    auto change = std::make_shared<commit_operation>();
    change->id = std::move(each.id);
    change->record = std::move(each.record);
    change->drop_epoch = state_.view->drop_epoch();
    change->was_waiting = true;
    changes.push_back(std::move(change));
  }
  pending_.adopt(std::move(changes));
  watches_.publish(std::move(events));
  answer_awaits();
  note_view();
}

void storage_machine::rebuild_view() {
  auto hidden = pending_.hidden_ids();
  view_ = hidden.empty() ? state_.view : state_.view->without(hidden);
}

// -- whose turn it is ---------------------------------------------------------

bool storage_machine::is_stale() const {
  return state_.probe->changed(state_.view->generation());
}

void storage_machine::read(fresh_task run) {
  auto must_wait =
      refresh_ == refresh_phase::running || (!lane_.is_busy() && is_stale());
  if (!must_wait) {
    run({});
    return;
  }
  reads_.push_back({.run = std::move(run)});
  request_refresh();
}

/// As `read`, but waits for a job under way rather than to miss what somebody
/// else has committed.
void storage_machine::read_latest(fresh_task run) {
  if (refresh_ == refresh_phase::none && !is_stale()) {
    run({});
    return;
  }
  reads_.push_back({.run = std::move(run)});
  request_refresh();
}

void storage_machine::change(bool needs_fresh_view, fresh_task run) {
  changes_.push_back(
      {.needs_fresh_view = needs_fresh_view, .run = std::move(run)});
  pump_changes();
}

void storage_machine::pump_changes() {
  while (!changes_.empty() && !drop_) {
    auto& next = changes_.front();
    if (next.needs_fresh_view && !next.fresh) {
      if (refresh_ == refresh_phase::none && is_stale())
        request_refresh();
      if (refresh_ != refresh_phase::none)
        return;
    }
    auto current = std::move(next);
    changes_.pop_front();
    current.run(current.fresh.value_or(freshness{}));
  }
}

void storage_machine::request_refresh() {
  if (refresh_ != refresh_phase::none)
    return;
  refresh_ = refresh_phase::queued;
  lane_.run<snapshot_ptr>(
      [](store_session& session) {
        return session.use(store_access::read,
                           [](store& current) { return current.refresh(); });
      },
      [this](result<snapshot_ptr> view) {
        refreshed(view ? freshness{} : std::move(view).error());
      },
      job_pace::quick,
      [this] {
        refresh_ = refresh_phase::running;
        for (auto* waiting : {&reads_, &changes_})
          for (auto& each : *waiting)
            each.is_covered = true;
      });
}

void storage_machine::refreshed(const freshness& status) {
  refresh_ = refresh_phase::none;
  // `busy` passes: the next look tries again.
  if (!status && status.error().code != errc::busy)
    fail_waits(status.error());
  for (auto& each : changes_)
    if (each.is_covered)
      each.fresh = status;
  for (auto& each : std::exchange(reads_, {})) {
    if (each.is_covered)
      each.run(status);
    else
      read(std::move(each.run));
  }
  pump_changes();
}

// -- changes ------------------------------------------------------------------

void storage_machine::upsert(std::vector<upsert_item> items,
                             answer<void> done) {
  if (items.empty()) {
    done({});
    return;
  }
  auto made = make_changes(items);
  if (!made) {
    done(std::move(made).error());
    return;
  }
  change(true, [this, changes = std::move(*made),
                done = std::move(done)](const freshness& fresh) {
    if (!fresh) {
      done(fresh.error());
      return;
    }
    for (const auto& each : changes)
      each->drop_epoch = state_.view->drop_epoch();
    done(pending_.upsert(changes));
  });
}

void storage_machine::remove(std::vector<std::string> ids, answer<void> done) {
  if (ids.empty()) {
    done({});
    return;
  }
  change(true, [this, ids = std::move(ids),
                done = std::move(done)](const freshness& fresh) {
    done(fresh ? remove_now(ids) : fresh);
  });
}

void storage_machine::remove_relation(std::string name, answer<void> done) {
  change(true, [this, name = std::move(name),
                done = std::move(done)](const freshness& fresh) {
    done(fresh ? remove_relation_now(name) : fresh);
  });
}

result<void> storage_machine::remove_now(std::span<const std::string> ids) {
  std::vector<std::string> visible;
  for (const auto& id : ids)
    if (view_->find(id))
      visible.push_back(id);
  CALLBOARD_TRY(pending_.remove(
      ids, state_.view->drop_epoch(),
      [this](std::string_view id) { return view_->find(id).has_value(); }));
  if (!visible.empty())
    view_ = view_->without(visible);
  return {};
}

/// Rows and pending upserts go each for itself: with a row that is about to be
/// replaced by one of other ends, that one stays.
result<void> storage_machine::remove_relation_now(std::string_view name) {
  std::vector<std::string> rows;
  std::vector<std::string> ids;
  for (auto field : {indexed_field::src_id, indexed_field::tgt_id}) {
    CALLBOARD_TRY_ASSIGN(auto found, view_->rows_with(field, name));
    for (auto row : found)
      rows.emplace_back(view_->id(row));
    for (auto& id : pending_.ids_with(field, name))
      ids.push_back(std::move(id));
  }
  for (const auto& id : rows)
    if (!pending_.find(id))
      ids.push_back(id);
  const std::unordered_set<std::string_view> goes(rows.begin(), rows.end());
  CALLBOARD_TRY(
      pending_.remove(ids, state_.view->drop_epoch(),
                      [&](std::string_view id) { return goes.contains(id); }));
  for (const auto& id : rows)
    pending_.hide(id);
  if (!rows.empty())
    view_ = view_->without(rows);
  return {};
}

// -- reads --------------------------------------------------------------------

void storage_machine::query_text(std::string text, query_options options,
                                 answer<search_request> done) {
  auto parameters = parameters_of(options);
  if (!parameters) {
    done(std::move(parameters).error());
    return;
  }
  if (!json_text::valid_utf8(text, json_text::surrogates::refused)) {
    done(failure{errc::invalid_argument,
                 "the query text is not valid UTF-8: encode it first"});
    return;
  }
  embed_request request;
  request.texts.push_back(std::move(text));
  request.context = embedding_context::query;
  request.batch_texts_max = setup_.embedding.batch_texts_max;
  services_.embed(std::move(request), [this, parameters = *parameters,
                                       done = std::move(done)](
                                          result<embedding_batch> embedded) {
    if (!embedded)
      done(std::move(embedded).error());
    else if (!embedded->rejected.empty())
      done(failure{errc::embedding_failed,
                   "the query text: " + embedded->rejected.front().message});
    else
      search(std::move(embedded->vectors), parameters, done);
  });
}

void storage_machine::query_vector(std::vector<float> vector,
                                   query_options options,
                                   answer<search_request> done) {
  if (vector.size() != setup_.dimension) {
    done(wrong_dimension("the query vector", vector.size(), setup_.dimension));
    return;
  }
  query_batch(std::move(vector), options, std::move(done));
}

void storage_machine::query_batch(std::vector<float> vectors,
                                  query_options options,
                                  answer<search_request> done) {
  auto parameters = parameters_of(options);
  if (!parameters)
    done(std::move(parameters).error());
  else if (vectors.size() % setup_.dimension != 0)
    done(failure{errc::dimension_mismatch,
                 "the query vectors have " + std::to_string(vectors.size())
                     + " components together, which is no multiple of this "
                       "store's "
                     + std::to_string(setup_.dimension)});
  else
    search(std::move(vectors), *parameters, std::move(done));
}

void storage_machine::search(std::vector<float> vectors,
                             search_parameters parameters,
                             answer<search_request> done) {
  read([this, vectors = std::move(vectors), parameters,
        done = std::move(done)](const freshness& fresh) mutable {
    if (fresh)
      done(search_request{view_, std::move(vectors), parameters});
    else
      done(fresh.error());
  });
}

void storage_machine::get(std::vector<std::string> ids,
                          answer<optional_rows> done) {
  read([this, ids = std::move(ids),
        done = std::move(done)](const freshness& fresh) {
    if (fresh)
      done(rows_of(ids));
    else
      done(fresh.error());
  });
}

result<optional_rows>
storage_machine::rows_of(std::span<const std::string> ids) const {
  optional_rows out;
  out.reserve(ids.size());
  for (const auto& id : ids) {
    if (auto found = pending_.find(id)) {
      out.push_back(row{id, found->record});
    } else if (auto number = view_->find(id)) {
      CALLBOARD_TRY_ASSIGN(auto record, view_->record(*number));
      out.push_back(row{id, std::string(record)});
    } else {
      out.emplace_back();
    }
  }
  return out;
}

void storage_machine::get_vectors(std::vector<std::string> ids,
                                  answer<std::vector<id_vector>> done) {
  read([this, ids = std::move(ids),
        done = std::move(done)](const freshness& fresh) {
    if (fresh)
      read_vectors(ids, done);
    else
      done(fresh.error());
  });
}

void storage_machine::read_vectors(std::vector<std::string> ids,
                                   answer<std::vector<id_vector>> done) {
  std::vector<id_vector> found;
  /// By place in `found`; the others are complete.
  std::vector<std::pair<std::size_t, pending_change>> uncommitted;
  std::vector<pending_change> to_make;
  std::unordered_set<std::string_view> seen;
  for (const auto& id : ids) {
    if (!seen.insert(id).second)
      continue;
    if (auto change = pending_.find(id)) {
      uncommitted.emplace_back(found.size(), change);
      to_make.push_back(std::move(change));
      found.push_back({id, {}});
    } else if (auto number = view_->find(id)) {
      auto vector = view_->vector(*number);
      if (!vector) {
        done(std::move(vector).error());
        return;
      }
      found.push_back({id, floats_of(*vector)});
    }
  }
  vectors_.make(to_make,
                [found = std::move(found), uncommitted = std::move(uncommitted),
                 done = std::move(done)](result<rejections> made) mutable {
                  if (!made) {
                    done(std::move(made).error());
                    return;
                  }
                  for (const auto& [place, change] : uncommitted) {
                    if (auto rejected = made->find(change.get());
                        rejected != made->end()) {
                      done(rejected->second);
                      return;
                    }
                    found[place].vector = change->vector;
                  }
                  done(std::move(found));
                });
}

void storage_machine::snapshot(answer<snapshot_ptr> done) {
  read([this, done = std::move(done)](const freshness& fresh) {
    if (fresh)
      done(view_);
    else
      done(fresh.error());
  });
}

void storage_machine::stats(answer<handle_stats> done) {
  lane_.run_on_store<store_stats>(
      store_access::read,
      [](store& current) -> result<store_stats> { return current.stats(); },
      [this, done = std::move(done)](result<store_stats> stats) {
        if (stats)
          done(handle_stats{.store = std::move(*stats),
                            .opened = setup_.session->report(),
                            .pending_upserts = pending_.upsert_count(),
                            .pending_deletes = pending_.remove_count(),
                            .pending_bytes = pending_.bytes()});
        else
          done(std::move(stats).error());
      });
}

void storage_machine::verify(answer<void> done) {
  lane_.run_on_store<void>(
      store_access::read, [](store& current) { return current.verify(); },
      std::move(done), job_pace::slow);
}

} // namespace callboard
