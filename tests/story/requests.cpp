#include "core/record.hpp"
#include "tests/story/turns.hpp"

#include <algorithm>
#include <limits>
#include <utility>

namespace callboard::test {

using namespace simulation;
using namespace std::chrono_literals;

void turns::act(handle& at) {
  struct chance {
    std::uint64_t weight;
    void (turns::*ask)(handle&);
  };
  static constexpr chance chances[] = {
      {8, &turns::upsert},        {3, &turns::remove},
      {1, &turns::remove_entity}, {1, &turns::remove_relation},
      {8, &turns::commit},        {1, &turns::finalize},
      {1, &turns::checkpoint},    {1, &turns::drop},
      {5, &turns::get},           {2, &turns::get_vectors},
      {4, &turns::query_one},     {1, &turns::query_batch},
      {1, &turns::snapshot},      {1, &turns::pending},
      {1, &turns::stats},         {1, &turns::verify},
      {4, &turns::watch},         {2, &turns::await},
      {2, &turns::ask_nonsense}};
  std::uint64_t sum = 0;
  for (const auto& each : chances)
    sum += each.weight;
  auto drawn = random_.below(sum);
  for (const auto& each : chances) {
    if (drawn < each.weight)
      return (this->*each.ask)(at);
    drawn -= each.weight;
  }
}

// -- Words --------------------------------------------------------------------

/// Which handle, for the trace.
std::string turns::by(const handle& at) const {
  return " by handle " + std::to_string(at.number) + " of process "
         + std::to_string(at.writer->process().number());
}

const std::string& turns::random_id() {
  return all_ids()[random_.below(all_ids().size())];
}

std::vector<std::string> turns::random_ids() {
  std::vector<std::string> out;
  for (auto n = 1 + random_.below(3); n > 0; --n)
    out.push_back(random_id());
  return out;
}

const remote_store& turns::reader_of(handle& at) {
  return random_.below(3) == 1 ? *at.writer : *at.reader;
}

read turns::read_of(handle& at) const {
  const auto& book = *at.book;
  const auto is_at_rest = book.jobs_under_way == 0
                          && !plot_.has_automatic_checkpoints
                          && !faults_.may_be_deaf();
  const auto latest = at.store->model().acknowledged();
  return {*at.store,
          *at.book,
          {.asked = world_.step_count(),
           .own = book.floor,
           .at_rest = is_at_rest ? std::max(book.floor, latest) : book.floor,
           .jobs_started = book.jobs_started}};
}

// -- Changes ------------------------------------------------------------------

void turns::upsert(handle& at) {
  auto& book = *at.book;
  upsert_request request;
  const auto first = book.changes.size();
  std::string name = "upsert";
  for (const auto& id : random_ids()) {
    const auto version = next_version_++;
    const auto has_text =
        faults_.are_over() || !plot_.may_reject_texts || random_.below(6) != 1;
    upsert_item item{.id = id,
                     .record = has_text ? record_of(id, version)
                                        : record_without_text(version)};
    if (random_.below(3) == 1)
      item.vector = simulated_vector(content_of(id, version), dimension);
    request.items.push_back(std::move(item));
    at.store->model().give(id, version);
    book.changes.push_back({id, version, world_.step_count()});
    name.append(" ").append(content_of(id, version));
  }
  changes_sent(at, first, name, at.writer->send<void>(std::move(request)),
               [] {});
}

void turns::changes_sent(handle& at, std::size_t first, const std::string& name,
                         awaited<void> answer,
                         std::function<void()> acknowledged) {
  const auto end = at.book->changes.size();
  at.book->begin_job();
  wish asked{at, name};
  if (plot_.pending_max < all_ids().size())
    asked.also.push_back(errc::too_large);
  expect<void>(
      std::move(asked), std::move(answer),
      [this, &book = *at.book, first, end, acknowledged](const auto& value) {
        book.end_job();
        acknowledged();
        for (auto i = first; i < end; ++i)
          if (value)
            book.changes[i].acknowledged = world_.step_count();
        if (!value)
          book.loose_until = std::max(book.loose_until, end);
      });
}

void turns::remove(handle& at) {
  auto& book = *at.book;
  const auto first = book.changes.size();
  const auto ids = random_ids();
  for (const auto& each : ids)
    book.changes.push_back(
        {each, absent, world_.step_count(), {}, removal::perhaps_void});
  const auto is_there = [&at, &book, first, end = book.changes.size(),
                         floor = book.floor] {
    for (auto i = first; i < end; ++i)
      if (at.store->model().was_always(
              book.changes[i].id, floor,
              [](int version) { return version != absent; }))
        book.changes[i].reach = removal::certain;
  };
  changes_sent(at, first, "remove" + list_of(ids),
               at.writer->send<void>(remove_request{ids}), is_there);
}

void turns::remove_entity(handle& at) {
  auto& book = *at.book;
  const auto first = book.changes.size();
  const auto& id =
      all_ids()[all_ids().size() - 1 - random_.below(entity_count)];
  book.changes.push_back(
      {id, absent, world_.step_count(), {}, removal::perhaps_void});
  const auto is_there = [&at, &book, first, floor = book.floor] {
    if (at.store->model().was_always(
            book.changes[first].id, floor,
            [](int version) { return version != absent; }))
      book.changes[first].reach = removal::certain;
  };
  changes_sent(at, first, "remove_entity " + label_of(id),
               at.writer->send<void>(remove_entity_request{label_of(id)}),
               is_there);
}

/// Rows and pending records whose relation ends there, each for itself: a
/// record that another one is pending for, with other ends, leaves that.
void turns::remove_relation(handle& at) {
  auto& book = *at.book;
  const auto& end = all_ends()[random_.below(all_ends().size())];
  const auto first = book.changes.size();
  std::vector<own_changes> own;
  for (const auto& id : all_ids())
    own.push_back(book.own_of(id, world_.step_count()));
  for (const auto& id : all_ids())
    book.changes.push_back(
        {id, absent, world_.step_count(), {}, removal::unknown});
  const auto find_reach = [&at, &book, first, own, end, floor = book.floor] {
    for (std::size_t i = 0; i < own.size(); ++i) {
      auto& made = book.changes[first + i];
      const auto goes = [&](int version) { return has_end(version, end); };
      const auto is_sure = own[i].is_certain && own[i].possible.size() == 1;
      if (own[i].possible.empty())
        made.reach = at.store->model().was_always(made.id, floor, goes)
                         ? removal::certain
                         : removal::perhaps_void;
      else if (is_sure)
        made.reach = goes(*own[i].possible.begin()) ? removal::perhaps_void
                                                    : removal::row_only;
    }
  };
  changes_sent(at, first, "remove_relation " + end,
               at.writer->send<void>(remove_relation_request{end}), find_reach);
}

// -- Commits ------------------------------------------------------------------

std::size_t turns::turning(handle& at, turning_point::kind what) {
  auto& book = *at.book;
  book.begin_job();
  book.points.push_back(
      {what, world_.step_count(), book.changes.size(), {}, false});
  return book.points.size() - 1;
}

void turns::turned(handle& at, std::size_t point, bool succeeded) {
  at.book->end_job();
  at.book->points[point].over = world_.step_count();
  at.book->points[point].succeeded = succeeded;
}

void turns::commit(handle& at) {
  std::optional<std::uint64_t> expected;
  if (random_.below(4) == 1)
    expected = at.store->model().latest();
  commit_now(at, expected);
}

void turns::commit_now(handle& at, std::optional<std::uint64_t> expected) {
  committing(at, turning_point::kind::commit,
             expected ? "commit after " + std::to_string(*expected) : "commit",
             at.writer->send<commit_result>(commit_request{expected}),
             expected);
}

void turns::finalize(handle& at) {
  ++totals_.checkpoints;
  committing(at, turning_point::kind::finalize, "finalize",
             at.writer->send<commit_result>(finalize_request{}), {});
}

void turns::committing(handle& at, turning_point::kind what,
                       const std::string& name, awaited<commit_result> answer,
                       std::optional<std::uint64_t> expected) {
  const auto point = turning(at, what);
  wish asked{at, name};
  if (expected)
    asked.also.push_back(errc::conflict);
  expect<commit_result>(
      std::move(asked), std::move(answer),
      [this, &at, point, expected](const auto& value) {
        turned(at, point, bool(value));
        auto& book = *at.book;
        // How its commit ended is known only if it was published.
        if (!value && book.points[point].what == turning_point::kind::finalize)
          book.loose_until = book.changes.size();
        if (!value)
          return check_conflict(*at.store, value.error(), expected);
        ++totals_.commits;
        totals_.committed_changes += value->committed;
        require(value->failed.empty() || plot_.may_reject_texts
                    || plot_.embedding_fault_rate > 0,
                "only what cannot be embedded is rejected");
        check_commit(*at.store, book, book.points[point], *value, expected);
      });
}

void turns::drop(handle& at) {
  if (random_.below(3) != 1)
    return upsert(at);
  ++totals_.drops;
  const auto point = turning(at, turning_point::kind::drop);
  expect<void>({at, "drop"}, at.writer->send<void>(drop_request{}),
               [this, &at, point](const auto& value) {
                 turned(at, point, bool(value));
                 at.book->loose_until = at.book->changes.size();
               });
}

void turns::checkpoint(handle& at) {
  at.book->begin_job();
  ++totals_.checkpoints;
  const auto how = static_cast<compaction>(random_.below(3));
  expect<void>({at, "checkpoint"},
               at.writer->send<void>(checkpoint_request{how}),
               [&at](const auto&) { at.book->end_job(); });
}

// -- Reads --------------------------------------------------------------------

void turns::get(handle& at) {
  const auto ids = random_ids();
  const auto asked = read_of(at);
  expect<optional_rows>({at, "get" + list_of(ids)},
                        reader_of(at).send<optional_rows>(get_request{ids}),
                        [this, asked, ids](const auto& value) {
                          ++totals_.reads;
                          if (value)
                            check_get(asked, ids, *value);
                        });
}

void turns::get_vectors(handle& at) {
  const auto ids = random_ids();
  const auto asked = read_of(at);
  wish wanted{at, "get_vectors" + list_of(ids)};
  if (plot_.may_reject_texts)
    wanted.also.push_back(errc::invalid_argument); // there is no text
  expect<std::vector<id_vector>>(
      std::move(wanted),
      reader_of(at).send<std::vector<id_vector>>(get_vectors_request{ids}),
      [this, asked, ids](const auto& value) {
        ++totals_.reads;
        if (value)
          check_vectors(asked, ids, *value);
      });
}

query_options turns::random_query(search_terms& terms) {
  terms.top_k = plot_.top_k;
  if (random_.below(4) == 1)
    terms.threshold = static_cast<double>(random_.below(10)) / 10;
  return {.top_k = terms.top_k, .threshold = terms.threshold};
}

void turns::query_one(handle& at) {
  const auto text =
      content_of(random_id(), static_cast<int>(random_.below(200)));
  search_terms terms{.texts = {text}};
  const auto options = random_query(terms);
  const auto asked = read_of(at);
  const auto& from = reader_of(at);
  auto answer = random_.below(2) == 1
                    ? from.send<hit_lists>(query_text_request{text, options})
                    : from.send<hit_lists>(query_vector_request{
                        simulated_vector(text, dimension), options});
  expect<hit_lists>({at, "query " + text}, std::move(answer),
                    [this, asked, terms](const auto& value) {
                      ++totals_.queries;
                      if (value)
                        check_queries(asked, terms, *value);
                    });
}

void turns::query_batch(handle& at) {
  search_terms terms;
  std::vector<float> vectors;
  for (auto n = random_.below(4); n > 0; --n) {
    terms.texts.push_back(
        content_of(random_id(), static_cast<int>(random_.below(200))));
    const auto vector = simulated_vector(terms.texts.back(), dimension);
    vectors.insert(vectors.end(), vector.begin(), vector.end());
  }
  const auto options = random_query(terms);
  const auto asked = read_of(at);
  expect<hit_lists>(
      {at, "query_batch of " + std::to_string(terms.texts.size())},
      reader_of(at).send<hit_lists>(
          query_batch_request{std::move(vectors), options}),
      [this, asked, terms](const auto& value) {
        ++totals_.queries;
        if (value)
          check_queries(asked, terms, *value);
      });
}

/// Views that are kept stay what they were.
void turns::snapshot(handle& at) {
  require(!at.kept || rows_of(*at.kept) == at.kept_rows,
          "a snapshot never changes");
  const auto asked = read_of(at);
  expect<snapshot_ptr>({at, "snapshot"},
                       reader_of(at).send<snapshot_ptr>(snapshot_request{}),
                       [this, &at, asked](const auto& value) {
                         ++totals_.reads;
                         if (!value)
                           return;
                         check_snapshot(asked, **value);
                         at.kept = *value;
                         at.kept_rows = rows_of(*at.kept);
                       });
}

void turns::pending(handle& at) {
  const auto asked = read_of(at);
  expect<std::vector<std::string>>(
      {at, "pending"},
      reader_of(at).send<std::vector<std::string>>(pending_request{}),
      [asked](const auto& value) {
        if (value)
          check_pending(asked, *value);
      });
}

void turns::stats(handle& at) {
  const auto asked = read_of(at);
  at.book->begin_job();
  expect<handle_stats>({at, "stats"},
                       reader_of(at).send<handle_stats>(stats_request{}),
                       [&at, asked](const auto& value) {
                         at.book->end_job();
                         if (value)
                           check_stats(asked, *value);
                       });
}

void turns::verify(handle& at) {
  wish asked{at, "verify"};
  if (plot_.has_foreign_program)
    asked.also.push_back(errc::conflict);
  at.book->begin_job();
  expect<void>(std::move(asked), at.reader->send<void>(verify_request{}),
               [&at](const auto&) { at.book->end_job(); });
}

// -- Waits --------------------------------------------------------------------

void turns::watch(handle& at) {
  if (at.is_starting_watch)
    return;
  if (at.watched)
    return random_.below(8) == 1 ? unwatch(at) : next_event(at);
  at.is_starting_watch = true;
  at.book->begin_job();
  const watch_options options{.buffer_bytes_max =
                                  random_.below(4) == 1 ? 150U : 1U << 20U};
  expect<watch_start>({at, "watch"},
                      at.reader->send<watch_start>(watch_request{options}),
                      [&at](const auto& value) {
                        at.is_starting_watch = false;
                        at.book->end_job();
                        if (!value)
                          return;
                        at.watched = {value->number, value->generation, 0};
                        at.book->has_shown(value->generation);
                      });
}

void turns::next_event(handle& at) {
  // One who waits already is answered `busy`, which nobody does often.
  if (at.watched->waits > 0 && random_.below(16) != 1)
    return;
  ++at.watched->waits;
  const auto number = at.watched->number;
  const std::chrono::milliseconds timeout(random_.below(3) * 300);
  // The watch may end meanwhile.
  expect<optional_event>(
      {at, "next_event", {errc::closed, errc::invalid_argument}},
      at.reader->send<optional_event>(next_event_request{number, timeout}),
      [this, &at, number](const auto& value) {
        const auto is_going_on = at.watched && at.watched->number == number;
        require(value || !is_going_on
                    || (value.error().code != errc::closed || at.is_closed),
                "a watch ends when it is asked to");
        if (!is_going_on)
          return;
        --at.watched->waits;
        if (!value || !*value)
          return;
        ++totals_.events;
        if ((*value)->what == commit_event::kind::overflow)
          ++totals_.overflows;
        check_event(*at.store, *at.book, at.watched->last, **value);
        at.watched->last = (*value)->generation;
      });
}

void turns::unwatch(handle& at) {
  const auto number = at.watched->number;
  at.watched.reset();
  expect<void>({at, "unwatch"}, at.reader->send<void>(unwatch_request{number}),
               [](const auto&) {});
  if (random_.below(2) == 1)
    expect_refusal(
        at, "next_event of a watch that has ended",
        at.reader->send<optional_event>(next_event_request{number, 0ms}),
        errc::invalid_argument);
}

void turns::await(handle& at) {
  const auto wanted = at.store->model().acknowledged() + random_.below(2);
  const std::chrono::milliseconds timeout(random_.below(3) * 300);
  expect<std::uint64_t>(
      {at, "await_generation", {errc::timed_out}},
      at.reader->send<std::uint64_t>(await_generation_request{wanted, timeout}),
      [&at, wanted](const auto& value) {
        if (!value)
          return;
        require(*value >= wanted, "who awaits a generation sees it");
        at.store->catch_up(*value);
        at.book->has_shown(*value);
      });
}

// -- What makes no sense ------------------------------------------------------

namespace {

constexpr auto not_a_number = std::numeric_limits<float>::quiet_NaN();

} // namespace

void turns::ask_nonsense(handle& at) {
  switch (random_.below(3)) {
  case 0:
    return upsert_nonsense(at);
  case 1:
    return query_nonsense(at);
  default:
    expect_refusal(
        at, "next_event of an unknown watch",
        at.reader->send<optional_event>(next_event_request{1'000'000, 0ms}),
        errc::invalid_argument);
  }
}

/// With it, a sound record is refused, too.
void turns::upsert_nonsense(handle& at) {
  const auto version = next_version_++;
  upsert_request request;
  request.items.push_back(
      {.id = random_id(), .record = record_of("a", version)});
  upsert_item bad{.id = "bad", .record = record_of("bad", version)};
  auto code = errc::invalid_argument;
  switch (random_.below(8)) {
  case 0:
    bad.id.clear();
    break;
  case 1:
    bad.id = std::string(id_bytes_max + 1, 'i');
    code = errc::too_large;
    break;
  case 2:
    bad.id = "\xff";
    break;
  case 3:
    bad.record = "{\"content\": ";
    break;
  case 4:
    bad.record = "[]";
    break;
  case 5:
    bad.record = "{\"content\": " + std::string(record_depth_max, '[')
                 + std::string(record_depth_max, ']') + "}";
    break;
  case 6:
    bad.vector = std::vector<float>(dimension - 1, 1.0F);
    code = errc::dimension_mismatch;
    break;
  default:
    bad.vector = std::vector<float>(dimension, not_a_number);
    break;
  }
  request.items.push_back(std::move(bad));
  expect_refusal(at, "upsert of nonsense",
                 at.writer->send<void>(std::move(request)), code);
}

void turns::query_nonsense(handle& at) {
  const auto vector = simulated_vector("nonsense", dimension);
  const std::vector<float> longer(dimension + 1, 1.0F);
  const query_options none{.top_k = 0};
  const auto& from = *at.reader;
  switch (random_.below(8)) {
  case 0:
    return expect_refusal(
        at, "query for no rows",
        from.send<hit_lists>(query_vector_request{vector, none}),
        errc::invalid_argument);
  case 1:
    return expect_refusal(
        at, "query of text for no rows",
        from.send<hit_lists>(query_text_request{"nonsense", none}),
        errc::invalid_argument);
  case 2:
    return expect_refusal(
        at, "query_batch for no rows",
        from.send<hit_lists>(query_batch_request{vector, none}),
        errc::invalid_argument);
  case 3:
    return expect_refusal(
        at, "query of another dimension",
        from.send<hit_lists>(query_vector_request{longer, {}}),
        errc::dimension_mismatch);
  case 4:
    return expect_refusal(at, "query_batch of another dimension",
                          from.send<hit_lists>(query_batch_request{longer, {}}),
                          errc::dimension_mismatch);
  case 5:
    return expect_refusal(at, "query of no direction",
                          from.send<hit_lists>(query_vector_request{
                              std::vector<float>(dimension, 0.0F), {}}),
                          errc::invalid_argument);
  case 6:
    return expect_refusal(at, "query_batch of no numbers",
                          from.send<hit_lists>(query_batch_request{
                              std::vector<float>(dimension, not_a_number), {}}),
                          errc::invalid_argument);
  default:
    return expect_refusal(at, "query of no text",
                          from.send<hit_lists>(query_text_request{"\xff", {}}),
                          errc::invalid_argument);
  }
}

} // namespace callboard::test
