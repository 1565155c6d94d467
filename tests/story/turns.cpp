#include "tests/story/turns.hpp"

#include "ipc/board_page.hpp"
#include "ipc/shared_board.hpp"
#include "tests/story/foreign_pair.hpp"

#include <algorithm>
#include <utility>

namespace callboard::test {

using namespace simulation;
using namespace std::chrono_literals;

turns::turns(world& world, random_source& random, const plot& chosen,
             fault_maker& faults, story_totals& totals)
    : world_(world),
      random_(random),
      plot_(chosen),
      faults_(faults),
      totals_(totals) {
  const store_place places[] = {{"", "rows"}, {"work", "more"}};
  for (std::size_t i = 0; i < plot_.stores; ++i)
    stores_.emplace_back(world_, faults_, totals_, places[i]);
}

// -- Processes ----------------------------------------------------------------

void turns::start() {
  for (std::size_t i = 0; i < plot_.processes; ++i)
    users_.emplace_back();
  for (auto& each : users_)
    start(each);
}

void turns::start(user& who) {
  for (auto* each : who.handles)
    each->owner = nullptr;
  who.handles.clear();
  process_options how;
  how.has_board = !(plot_.has_deaf_processes && random_.below(2) == 1);
  who.process = &world_.start_process(how);
  simulated_embedder_options model;
  model.concurrency = 1 + random_.below(2);
  model.batch_texts_max = 1 + random_.below(4);
  model.latency = std::chrono::milliseconds(random_.below(3) * 5);
  who.model = std::make_shared<simulated_embedder>(who.process->door(), model);
  who.model->on_batch([this] { return faults_.embedding_fault_now(); });
  open(who);
  if (random_.below(4) == 1)
    open(who);
}

open_options turns::options_for(const user& who, const store_place& place) {
  return {.working_directory = std::string(working_directory),
          .workspace = place.workspace,
          .namespace_name = place.namespace_name,
          .model = who.model,
          .meta_fields = {"content", "src_id", "tgt_id", "extra", "version"},
          .threshold = -2,
          .embedding_batch = 1 + random_.below(4),
          .lock_timeout = 20ms,
          .reader_grace = std::chrono::seconds(random_.below(2) * 60),
          .automatic_checkpoints = plot_.has_automatic_checkpoints,
          .pending_operations_max = plot_.pending_max};
}

void turns::open(user& who) {
  if (!who.process->is_alive())
    return;
  auto& store = stores_[random_.below(stores_.size())];
  // Who has no board may miss the commit of a writer who is at work.
  const auto known = faults_.may_be_deaf() ? 0 : store.model().acknowledged();
  auto opened = world_.open(*who.process, options_for(who, store.place()));
  settle_power();
  if (!opened) {
    if (who.process->is_alive())
      check_opening(opened.error());
    return;
  }
  auto& made = handles_.emplace_back();
  made.number = handles_.size() - 1;
  made.owner = &who;
  made.store = &store;
  made.book = &store.model().add_handle();
  made.book->has_shown(known);
  made.writer = *opened;
  made.reader = opened->another_sender();
  who.handles.push_back(&made);
  observe();
}

namespace {

/// Says that it is another one than the store's.
class other_embedder : public simulated_embedder {
public:
  using simulated_embedder::simulated_embedder;
  std::string name() const override { return "another model"; }
};

} // namespace

/// What cannot be opened is refused, and nothing is harmed.
void turns::open_wrongly(user& who) {
  auto options = options_for(who, stores_.front().place());
  auto expected = errc::invalid_argument;
  switch (random_.below(6)) {
  case 0:
    options.namespace_name = "a/b";
    break;
  case 1:
    options.model = nullptr;
    break;
  case 2:
    options.working_directory.clear();
    break;
  case 3:
    options.workspace = std::string(300, 'w');
    expected = errc::too_large;
    break;
  case 4:
    options.model = std::make_shared<other_embedder>(
        who.process->door(), simulated_embedder_options{});
    expected = errc::model_mismatch;
    break;
  default:
    options.model = std::make_shared<simulated_embedder>(
        who.process->door(),
        simulated_embedder_options{.dimension = dimension + 1});
    expected = errc::dimension_mismatch;
    break;
  }
  // Somebody must have made the store with the right model.
  if (expected != errc::invalid_argument && !stores_.front().is_open())
    return;
  ++totals_.refusals;
  const auto opened = world_.open(*who.process, std::move(options));
  settle_power();
  require(!opened, "what makes no sense is not opened");
  if (who.process->is_alive() && opened.error().code != expected)
    check_opening(opened.error());
}

/// Its actor ends; what is not committed is gone.
void turns::close(handle& at) {
  world_.remark("close" + by(at));
  at.is_closed = true;
  at.kept.reset();
  stop(at.writer->actor());
  std::erase(at.owner->handles, &at);
}

void turns::settle_power() {
  if (!faults_.take_power_loss())
    return;
  for (auto& each : stores_)
    each.die();
}

void turns::observe() {
  settle_power();
  for (auto& each : stores_)
    if (each.is_open() || is_in_use(each))
      each.observe();
}

bool turns::is_in_use(const store_observer& store) const {
  return std::any_of(handles_.begin(), handles_.end(), [&](const auto& each) {
    return each.store == &store && each.owner
           && each.owner->process->is_alive();
  });
}

void turns::settle() {
  for (auto each = requests_.begin(); each != requests_.end();) {
    if (!each->is_over()) {
      ++each;
      continue;
    }
    auto over = std::move(*each);
    each = requests_.erase(each);
    over.check();
  }
}

// -- Turns --------------------------------------------------------------------

void turns::take() {
  settle_power();
  constexpr std::uint64_t calm_in = 16;
  if (random_.below(calm_in) == 0)
    return;
  auto& who = users_[random_.below(users_.size())];
  if (!who.process->is_alive())
    return start(who);
  strike(who);
  if (!who.process->is_alive())
    return;
  if (random_.below(40) == 1)
    who.process->hang_embedder(true);
  else if (random_.below(4) == 1)
    who.process->hang_embedder(false);
  if (who.handles.empty() || random_.below(40) == 1)
    return open(who);
  act(*who.handles[random_.below(who.handles.size())]);
  ask_for_events();
}

/// What may happen to a process, and to a computer.
void turns::strike(user& who) {
  if (!faults_.are_over() && plot_.kill_rate > 0 && random_.below(60) == 1) {
    ++totals_.kills;
    return world_.kill(*who.process);
  }
  if (random_.below(100) == 1
      && faults_.may_lose_power(world_.computer().operation_count()))
    return world_.lose_power(faults_.lose_power());
  if (random_.below(100) == 1) {
    world_.remark("stop process " + std::to_string(who.process->number()));
    for (auto* each : who.handles)
      each->kept.reset();
    return world_.stop(*who.process);
  }
  if (random_.below(30) == 1)
    open_wrongly(who);
  else if (random_.below(40) == 1 && who.handles.size() > 1)
    close(*who.handles.front());
  if (plot_.has_foreign_program && random_.below(15) == 1)
    write_foreign_pair();
  if (!faults_.are_over() && plot_.is_board_lossy && random_.below(20) == 1)
    spoil_board();
}

/// A board may be removed at any time, and anything may be in its file.
void turns::spoil_board() {
  auto& computer = world_.computer();
  auto path = std::string(working_directory);
  path.append("/").append(board_file_name);
  auto content = computer.read_file(path);
  if (!content)
    return;
  switch (random_.below(6)) {
  case 0:
    return computer.remove_file(path);
  case 1: // cut, as a copy may be
    content->resize(static_cast<std::size_t>(random_.below(300'000)));
    return computer.write_file(path, *content);
  case 2: // of another layout
    (*content)[offsetof(board_head, layout_version)] ^= 1;
    return computer.write_file(path, *content);
  case 3:
    content->append("more");
    return computer.write_file(path, *content);
  default:
    return spoil_board_in_place(random_.below(sizeof(board_head)));
  }
}

void turns::spoil_board_in_place(std::uint64_t offset) {
  const auto vandal = world_.computer().start_process();
  faults_.spare(vandal->number());
  auto& door = vandal->door();
  (void)read_board(door, std::string(working_directory));
  const auto home = door.open_directory(working_directory, false);
  require(bool(home), "the directory of the stores is there");
  const auto opened =
      (*home)->open_file(board_file_name, open_mode::read_write);
  require(bool(opened), "the board is there");
  const auto any = static_cast<std::byte>(random_.below(256));
  require((*opened)->set_mode(random_.one_in(2) ? 0600 : 0644)
              && (*opened)->write_at(offset, std::span(&any, 1)),
          "a board can be written");
}

/// A program that knows the published rows, and changes some.
void turns::write_foreign_pair() {
  auto& store = stores_[random_.below(stores_.size())];
  if (!store.is_open())
    return;
  store.look_at_files();
  const auto published = store.model().base_state();
  if (!published)
    return;
  // Half a pair over a whole one of theirs is a pair that nobody wrote.
  const auto which = !store.model().may_be_foreign() && random_.below(4) == 1
                         ? static_cast<foreign_files>(1 + random_.below(2))
                         : foreign_files::both;
  write_foreign_pair(store, *published, which);
}

/// Returns its rows.
rows turns::write_foreign_pair(store_observer& store, rows state,
                               foreign_files which) {
  for (auto n = random_.below(4); n > 0; --n) {
    const auto& id = random_id();
    if (random_.below(3) == 1)
      state.erase(id);
    else
      state[id] = next_version_++;
  }
  ++totals_.foreign_pairs;
  world_.remark("a foreign pair:" + list_of(state));
  store.model().expect_foreign(state);
  test::write_foreign_pair(world_.computer(), random_, store.place(), state,
                           which);
  return state;
}

void turns::ask_for_events() {
  for (auto& who : users_)
    for (auto* at : who.handles)
      if (who.process->is_alive() && at->watched && random_.below(3) == 1)
        next_event(*at);
}

// -- Errors -------------------------------------------------------------------

/// By what goes wrong in this story.
bool turns::is_excused(errc code) const {
  switch (code) {
  case errc::busy:
    return true;
  case errc::io_failure:
  case errc::no_space:
  case errc::broken:
    return !plot_.is_calm();
  case errc::embedding_failed:
    return plot_.embedding_fault_rate > 0;
  default:
    return false;
  }
}

void turns::check_error(const failure& error, const wish& asked) {
  ++totals_.failed_requests;
  const auto is_expected =
      is_excused(error.code)
      || (asked.by.is_closed && error.code == errc::closed)
      || std::find(asked.also.begin(), asked.also.end(), error.code)
             != asked.also.end();
  require(is_expected, "only what went wrong is told: " + asked.name + " says "
                           + std::string(to_string(error.code)) + ": "
                           + error.message);
}

void turns::check_opening(const failure& error) {
  ++totals_.failed_requests;
  require(is_excused(error.code), "only what went wrong is told: open says "
                                      + std::string(to_string(error.code))
                                      + ": " + error.message);
}

// -- The end ------------------------------------------------------------------

void turns::answer_all(const std::string& promise) {
  const auto is_over = world_.run_until([this] { return requests_.empty(); });
  require(is_over, promise + (is_over ? "" : ": " + requests_.front().name));
}

void turns::finish() {
  faults_.end();
  for (auto& each : users_)
    if (each.process->is_alive())
      each.process->hang_embedder(false);
  answer_all("every request is answered");
  for (auto& each : users_) {
    if (!each.process->is_alive())
      start(each);
    for (int attempt = 0; attempt < 5 && each.handles.empty(); ++attempt)
      open(each);
    require(!each.handles.empty(), "a sound store can be opened");
    for (auto* at : each.handles)
      drain(*at);
  }
  observe();
  for (auto& each : users_)
    for (auto* at : each.handles)
      compare(*at);
  require(world_.computer().lock_count() == 0, "all locks are let go");
  require(plot_.is_board_lossy || world_.computer().unshared_attachments() == 0,
          "who can share a board does");
  if (plot_.has_foreign_program)
    compare_foreign(*users_.front().handles.front());
  if (plot_.has_damage)
    damage(users_.front(), *users_.front().handles.front()->store);
}

/// A store that is sound again takes commits again, soon.
void turns::drain(handle& at) {
  const auto before = totals_.committed_changes;
  // An upsert may be of more than the handle can have pending.
  for (int attempt = 0; attempt < 20 && totals_.committed_changes == before;
       ++attempt) {
    upsert(at);
    answer_all("every upsert is answered");
    commit_now(at, std::nullopt);
    answer_all("every commit is answered");
  }
  // What cannot be embedded waits to be replaced, and may fill the buffer.
  const auto may_be_full =
      plot_.may_reject_texts && plot_.pending_max < all_ids().size();
  require(totals_.committed_changes > before || may_be_full,
          "a sound store can be written");
}

void turns::compare(handle& at) {
  const auto latest = at.store->model().acknowledged();
  const auto reached = world_.ask<std::uint64_t>(
      *at.reader, await_generation_request{latest, 10s});
  require(reached && *reached >= latest,
          "every handle gets to the latest generation");
  at.book->has_shown(*reached);
  for (std::size_t i = 0; i < 4; ++i) {
    get(at);
    query_one(at);
  }
  answer_all("every read is answered");
  follow(at, latest);
  if (at.store->model().may_be_foreign())
    take_over(at);
  const auto sound = world_.ask<void>(*at.reader, verify_request{});
  require(bool(sound),
          "the store is sound: " + (sound ? "" : sound.error().message));
}

/// Whoever watches is told of all that was committed.
void turns::follow(handle& at, std::uint64_t latest) {
  for (int wait = 0; wait < 100 && at.watched && at.watched->last < latest;
       ++wait) {
    next_event(at);
    answer_all("every wait for an event is answered");
  }
  require(!at.watched || at.watched->last >= latest,
          "a watch gets to the latest generation");
}

/// Nobody writes meanwhile.
void turns::compare_foreign(handle& at) {
  take_over(at); // now all that was committed is published
  at.store->look_at_files();
  const auto published = at.store->model().base_state();
  if (!published)
    return;
  const auto foreign =
      write_foreign_pair(*at.store, *published, foreign_files::both);
  take_over(at);
  at.store->look_at_files();
  const auto& model = at.store->model();
  const auto& found = model.generations().at(model.latest()).state;
  require(found == foreign, "a foreign pair is taken over:" + list_of(foreign)
                                + (found ? ", not" + list_of(*found) : ""));
}

/// A checkpoint takes over a foreign pair, if nobody else is at it.
void turns::take_over(handle& at) {
  auto done = result<void>{failure{errc::busy, "not asked yet"}};
  for (int attempt = 0; attempt < 5 && !done; ++attempt)
    done = world_.ask<void>(*at.writer, checkpoint_request{compaction::none});
  require(bool(done), "a sound store can be checkpointed: "
                          + (done ? "" : done.error().message));
}

/// Nobody has the store open any more, and something happens to its files.
void turns::damage(user& who, store_observer& store) {
  checkpoint(*who.handles.front()); // removes what crashes have left
  answer_all("every checkpoint is answered");
  for (int i = 0; i < 3; ++i) {
    upsert(*who.handles.front());
    answer_all("every upsert is answered");
    drain(*who.handles.front());
  }
  store.look_at_files();
  world_.lose_power(loss_model::kill);
  for (auto& each : stores_)
    each.die();
  for (auto& each : handles_)
    each.kept.reset();
  const auto latest = store.model().latest();
  const auto what = static_cast<damaged_part>(random_.below(4));
  if (!test::damage(world_.computer(), store.place(), what))
    return;
  ++totals_.damages;
  auto& fresh = world_.start_process();
  const user heir{.process = &fresh,
                  .model = std::make_shared<simulated_embedder>(
                      fresh.door(), simulated_embedder_options{})};
  auto options = options_for(heir, store.place());
  options.pending_operations_max = commit_operations_max;
  const auto opened = world_.open(fresh, options);
  switch (what) {
  case damaged_part::log:
    require(!opened && opened.error().code == errc::corrupt,
            "a store whose log is damaged is not opened");
    options.salvage = true;
    return compare_salvaged(store, world_.open(fresh, options),
                            store.model().base_generation());
  case damaged_part::manifest:
    return require(!opened && opened.error().code == errc::corrupt,
                   "a store whose MANIFEST is damaged is not opened");
  case damaged_part::catalog:
    // It is made again.
    return compare_salvaged(store, opened, latest);
  case damaged_part::base:
    const auto verified = opened ? world_.ask<void>(*opened, verify_request{})
                                 : result<void>{opened.error()};
    return require(!verified && verified.error().code == errc::corrupt,
                   "who verifies a damaged store is told");
  }
}

/// What comes before the damage, at least what `oldest` had, can be had, and
/// the store goes on.
void turns::compare_salvaged(const store_observer& store,
                             const result<remote_store>& opened,
                             std::uint64_t oldest) {
  require(bool(opened), "what is sound of a damaged store can be had: "
                            + (opened ? "" : opened.error().message));
  const auto view = world_.ask<snapshot_ptr>(*opened, snapshot_request{});
  require(view.has_value(), "what is left of a damaged store can be read");
  const auto left = rows_of(**view);
  const auto& history = store.model().generations();
  require(
      std::any_of(history.lower_bound(oldest), history.end(),
                  [&](const auto& each) { return each.second.state == left; }),
      "what is left of a damaged store is what it was once:" + list_of(left));
  const auto asked = world_.ask<void>(*opened, remove_request{{all_ids()}});
  const auto made = world_.ask<commit_result>(*opened, commit_request{});
  require(asked && made && made->committed == left.size(),
          "what is left of a damaged store can be written");
}

} // namespace callboard::test
