#include "tests/support/store_script.hpp"

#include <algorithm>
#include <utility>

namespace callboard::test {

namespace {

bool is_among(const versions& found, const std::vector<versions>& allowed) {
  return std::find(allowed.begin(), allowed.end(), found) != allowed.end();
}

std::string published_path(std::string_view suffix) {
  return std::string(simulated_place) + "/faiss_index_"
         + std::string(store_namespace) + std::string(suffix);
}

const std::string index_suffix = ".index";
const std::string meta_suffix = ".index.meta.json";

} // namespace

store_options simulated_options() {
  auto out = options_for(std::string(simulated_place));
  out.base_map = map_mode::shared;
  return out;
}

std::string simulated_private_path(std::string_view name) {
  return published_path(".callboard/") + std::string(name);
}

published_rows read_published(const simulation::machine& computer,
                              strictness how) {
  const auto index = computer.read_file(published_path(index_suffix));
  if (!index)
    return {};
  const auto meta = computer.read_file(published_path(meta_suffix));
  REQUIRE(meta.has_value());
  return read_published(*index, *meta, how);
}

void write_foreign_pair(simulation::machine& computer, const versions& rows,
                        foreign_files which) {
  const quick_directory place;
  write_foreign_pair(place.path(), rows);
  if (!computer.status(simulated_place))
    need(
        computer.start_process()->door().open_directory(simulated_place, true));
  computer.write_file(published_path(index_suffix),
                      read_file(index_path(place.path())));
  if (which == foreign_files::both)
    computer.write_file(published_path(meta_suffix),
                        read_file(meta_path(place.path())));
}

bool knowledge::allows(const versions& found, bool power_failed) const {
  return found == acknowledged || is_among(found, under_way)
         || (power_failed && is_among(found, refused));
}

bool knowledge::allows_published(const versions& found) const {
  return is_among(found, published);
}

// -- One process --------------------------------------------------------------

template <class T>
bool store_client::succeeded(const result<T>& outcome) {
  if (outcome)
    return true;
  problem_ = outcome.error();
  ++script_.failure_count_;
  script_.is_publication_loose_ = true;
  script_.known_.published.push_back(script_.known_.acknowledged);
  if (problem_.code == errc::broken)
    handle_.reset();
  return false;
}

bool store_client::open() {
  script_.begin(phase::open);
  auto opened =
      store::open(process_->door(), process_->board(), simulated_options());
  if (!succeeded(opened))
    return false;
  handle_ = std::move(*opened);
  return true;
}

bool store_client::ready() {
  if (!script_.known_.under_way.empty())
    resolve();
  return script_.known_.under_way.empty() && (handle_ || open());
}

/// Finds out whether something has happened that failed in between.
void store_client::resolve() {
  handle_.reset();
  if (!open())
    return;
  const auto found = contents(*handle_);
  REQUIRE(script_.known_.allows(found, false));
  script_.known_.under_way.clear();
  acknowledge(found);
}

void store_client::acknowledge(const versions& state) {
  auto& known = script_.known_;
  REQUIRE(contents(*handle_) == state);
  REQUIRE(handle_->view()->generation() >= known.generation);
  known.acknowledged = state;
  known.under_way.clear();
  known.refused.clear();
  known.generation = handle_->view()->generation();
  if (script_.is_publication_loose_)
    known.published.push_back(state);
}

void store_client::published(const versions& state) {
  script_.known_.published = {state};
  script_.known_.is_published_pair_torn = false;
  script_.is_publication_loose_ = false;
}

bool store_client::commit(const versions& rows,
                          const std::vector<std::string>& removed) {
  if (!ready())
    return false;
  script_.begin(phase::commit);
  std::vector<commit_operation> operations;
  for (const auto& [id, version] : rows)
    operations.push_back(upsert(id, version));
  for (const auto& id : removed)
    operations.push_back(removal(id));
  auto& known = script_.known_;
  const auto next = without(changed(known.acknowledged, rows), removed);
  known.under_way.push_back(next);
  if (!succeeded(handle_->commit(operations))) {
    known.under_way.clear();
    known.refused.push_back(next);
    return false;
  }
  acknowledge(next);
  return true;
}

bool store_client::checkpoint(compaction how) {
  if (!ready())
    return false;
  script_.begin(phase::checkpoint);
  auto& known = script_.known_;
  known.published.push_back(known.acknowledged);
  if (!succeeded(handle_->checkpoint(how)))
    return false;
  acknowledge(known.acknowledged);
  published(known.acknowledged);
  return true;
}

bool store_client::checkpoint_in_steps(store_client& other, bool finishes) {
  if (!ready())
    return false;
  script_.begin(phase::checkpoint);
  auto& known = script_.known_;
  const auto folded = known.acknowledged;
  known.published.push_back(folded);
  auto job =
      handle_->begin_checkpoint(compaction::none, patience::lock_timeout);
  if (!succeeded(job))
    return false;
  other.commit({{"between", 1}}, {});
  script_.begin(phase::other);
  if (!succeeded((*job)->write()))
    return false;
  commit({{"late", 1}}, {"a1"});
  if (!finishes || !handle_)
    return false;
  script_.begin(phase::other);
  if (!succeeded(handle_->finish_checkpoint(std::move(*job))))
    return false;
  published(folded);
  return true;
}

bool store_client::take_over(const versions& expected) {
  script_.begin(phase::other);
  if (!handle_ || !succeeded(handle_->checkpoint(compaction::none)))
    return false;
  acknowledge(expected);
  published(expected);
  return true;
}

bool store_client::drop() {
  if (!ready())
    return false;
  script_.begin(phase::drop);
  auto& known = script_.known_;
  known.under_way.push_back({});
  known.published.push_back({});
  if (!succeeded(handle_->drop()))
    return false; // whether it has happened, `resolve` finds out
  acknowledge({});
  published({});
  return true;
}

// -- The script ---------------------------------------------------------------

store_script::store_script(simulation::machine& computer,
                           script_options options)
    : computer_(computer), options_(options) {
  known_.published = {{}};
  if (options_.starts_with_foreign_pair) {
    known_.acknowledged = many("old", 3);
    known_.published = {known_.acknowledged};
    write_foreign_pair(computer_, known_.acknowledged, foreign_files::both);
  }
  first_ = std::make_unique<store_client>(*this, computer_.start_process());
  second_ = std::make_unique<store_client>(
      *this,
      computer_.start_process({.has_board = options_.is_second_on_board}));
  reader_process_ = computer_.start_process();
  computer_.on_yield(
      [this](const simulation::operation& what) { look_on(what); });
  computer_.on_moment(
      [this](simulation::moment when, const simulation::operation& what) {
        if (on_moment && !is_reader_at_work_)
          on_moment(when, what);
      });
}

store_script::~store_script() {
  computer_.on_yield({});
  computer_.on_moment({});
}

/// The reader's turn: whatever it shows must never be lost.
void store_script::look_on(const simulation::operation& what) {
  if (is_reader_at_work_ || what.is_repeated || options_.reader_rate == 0
      || !simulation::is_mutation(what.kind)
      || ++turns_ % options_.reader_rate != 0)
    return;
  is_reader_at_work_ = true;
  if (reader_ && reader_->refresh())
    known_.generation =
        std::max(known_.generation, reader_->view()->generation());
  is_reader_at_work_ = false;
}

void store_script::run() {
  first_->reopen();
  first_->commit(many("a", options_.first_rows), {});
  first_->checkpoint(compaction::none);
  is_reader_at_work_ = true;
  if (auto opened = store::open(reader_process_->door(),
                                reader_process_->board(), simulated_options()))
    reader_ = std::move(*opened);
  is_reader_at_work_ = false;
  first_->commit({{"a1", 2}, {"b", 1}}, {});
  first_->commit({}, {"a2", "a5"});
  run_checkpoints();
  if (!options_.is_short)
    run_foreign_pairs();
  run_drop();
  run_interrupted_checkpoint();
}

void store_script::run_checkpoints() {
  (void)first_->checkpoint_in_steps(*second_, true);
  second_->commit({{"c", 1}}, {});
  first_->commit({{"a3", 3}}, {"a4"});
  second_->commit({{"d", 1}, {"a0", 2}}, {});
  second_->checkpoint(compaction::none);
  first_->commit({}, {"b", "a0"});
  first_->checkpoint(compaction::forced);
  second_->commit({{"e", 1}}, {});
}

/// Somebody else replaces the published files; the second process takes them
/// over when it checkpoints.
void store_script::take_over(const versions& theirs, foreign_files which) {
  // It must be known what was committed since the base.
  if (!first_->checkpoint(compaction::none)
      || !first_->commit({{"ours", 1}}, {"a3"}))
    return;
  write_foreign_pair(computer_, theirs, which);
  const auto merged = without(changed(theirs, {{"ours", 1}}), {"a3"});
  auto& known = known_;
  if (which == foreign_files::both) {
    known.under_way.push_back(merged);
    known.published.push_back(theirs);
    known.published.push_back(merged);
  } else {
    known.is_published_pair_torn = true;
  }
  known.published.push_back(known.acknowledged);
  (void)second_->take_over(which == foreign_files::both ? merged
                                                        : known.acknowledged);
}

void store_script::run_foreign_pairs() {
  take_over(changed(many("theirs", 3), {{"a3", 9}}), foreign_files::both);
  take_over(many("half", 2), foreign_files::only_index);
}

void store_script::run_drop() {
  second_->commit({{"f", 1}}, {});
  first_->drop();
  second_->commit({{"g", 1}}, {});
  second_->commit(many("a", 4, 5), {"g"});
  first_->checkpoint(compaction::none);
}

void store_script::run_interrupted_checkpoint() {
  first_->commit({{"h", 1}}, {"a0"});
  (void)first_->checkpoint_in_steps(*second_, false);
  first_->reopen();
  first_->commit({{"i", 1}}, {});
  first_->checkpoint(compaction::none);
  second_->commit({{"j", 1}}, {});
}

} // namespace callboard::test
