#include "tests/torture/role.hpp"

#include <chrono>

namespace callboard::torture {

namespace {

constexpr unsigned operations_max = 50;
constexpr auto hold_time = std::chrono::milliseconds(100);
/// Counters of versions that are never committed begin here.
constexpr unsigned ghosts_from = 1U << 30U;

class writer {
public:
  explicit writer(role& self)
      : self_(self),
        ledger_(self.need(ledger_file::open(file_of(self.who())),
                          "to open the ledger")) {
    self_.open_stores();
    if (self_.one_in(4))
      upsert_ghosts();
  }

  void work();

private:
  /// Changes that wait for one commit.
  struct batch {
    unsigned store = 0;
    std::int64_t begun_at = 0;
    std::int64_t pending_at = 0;
    std::vector<operation> operations;
  };

  static std::filesystem::path file_of(const assignment& who) {
    return ledger_directory(who.directory, who.round)
           / ledger_file_name(who.slot, who.incarnation);
  }

  version new_version(unsigned from = 0) {
    return make_version({.round = self_.who().round,
                         .slot = self_.who().slot,
                         .incarnation = self_.who().incarnation,
                         .counter = from + ++counter_});
  }
  std::vector<unsigned> choose_rows();
  void upsert_ghosts();
  batch prepare();
  void upsert(const batch& changes, bool embed);
  void remove(batch& changes, unsigned number);
  void check_pending(const batch& changes);
  void let_others_work(unsigned store);
  void commit(const batch& changes);
  bool try_commit(const batch& changes,
                  std::optional<std::uint64_t> expected_generation);
  void check_commit(const batch& changes, const commit_result& done);

  role& self_;
  ledger_file ledger_;
  unsigned counter_ = 0;
  /// Its changes are pending for ever: nobody may see them.
  std::optional<client> ghosts_;
};

std::vector<unsigned> writer::choose_rows() {
  std::vector<unsigned> out;
  const auto limit = self_.one_in(4) ? operations_max : 8;
  const auto count = 1 + self_.below(limit);
  const auto first = static_cast<unsigned>(self_.below(id_count));
  for (unsigned i = 0; i < count; ++i)
    out.push_back((first + i * 7) % id_count);
  return out;
}

void writer::upsert_ghosts() {
  ghosts_ = self_.open_store(static_cast<unsigned>(self_.below(store_count)));
  self_.begin(step::upserting);
  for (auto number : choose_rows())
    self_.need(ghosts_->upsert(id_of(number),
                               record_of(number, new_version(ghosts_from))),
               "to upsert");
}

void writer::upsert(const batch& changes, bool embed) {
  self_.begin(step::upserting);
  std::vector<upsert_item> items;
  for (const auto& each : changes.operations) {
    upsert_item item{.id = id_of(each.number),
                     .record = record_of(each.number, each.value),
                     .vector = {}};
    if (!embed)
      item.vector = vector_of(content_of(each.number, each.value));
    items.push_back(std::move(item));
  }
  self_.need(self_.store(changes.store).upsert(std::move(items)), "to upsert");
}

/// Only what is there is removed; the ledger must know.
void writer::remove(batch& changes, unsigned number) {
  self_.begin(step::removing);
  auto& target = self_.store(changes.store);
  const auto before = self_.need(target.stats(), "stats").pending_deletes;
  self_.need(target.remove({id_of(number)}), "to remove");
  if (self_.need(target.stats(), "stats").pending_deletes > before)
    changes.operations.push_back({number, no_row});
}

writer::batch writer::prepare() {
  batch out;
  out.store = static_cast<unsigned>(self_.below(store_count));
  out.begun_at = monotonic_ns();
  std::vector<unsigned> removed;
  for (auto number : choose_rows())
    if (self_.one_in(6))
      removed.push_back(number);
    else
      out.operations.push_back({number, new_version()});
  if (!out.operations.empty())
    upsert(out, self_.one_in(8));
  for (auto number : removed)
    remove(out, number);
  out.pending_at = monotonic_ns();
  return out;
}

/// A handle sees its own changes at once.
void writer::check_pending(const batch& changes) {
  self_.begin(step::reading_rows);
  std::vector<std::string> ids;
  for (const auto& each : changes.operations)
    ids.push_back(id_of(each.number));
  const auto rows = self_.need(
      self_.store(changes.store).get_by_ids(std::move(ids)), "to get rows");
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto& each = changes.operations[i];
    const auto seen =
        rows[i] ? self_.recognize_record(rows[i]->id, rows[i]->record) : no_row;
    if (seen != each.value)
      self_.fail(finding{finding::kind::lost,
                         "store " + std::to_string(changes.store) + ": pending "
                             + id_of(each.number) + " is " + to_text(seen)
                             + ", but should be " + to_text(each.value)});
  }
}

/// So that others commit, checkpoint and drop while changes are pending.
void writer::let_others_work(unsigned store) {
  const auto seen = self_.look(store).generation;
  self_.begin(step::awaiting);
  const auto reached =
      self_.store(store).await_generation(seen + 10, hold_time);
  if (!reached && reached.error().code != errc::timed_out)
    self_.fail(reached.error(), "to await a generation");
}

void writer::commit(const batch& changes) {
  std::optional<std::uint64_t> expected;
  if (self_.one_in(8))
    expected = self_.look(changes.store).generation;
  if (!try_commit(changes, expected) && !try_commit(changes, std::nullopt))
    self_.fail(finding{finding::kind::torn,
                       "a commit without expectation had a conflict"});
}

/// Whether there was no conflict.
bool writer::try_commit(const batch& changes,
                        std::optional<std::uint64_t> expected_generation) {
  self_.need(ledger_.ask_commit(changes.store, changes.begun_at,
                                changes.pending_at, expected_generation,
                                changes.operations),
             "to write the ledger");
  self_.begin(step::committing);
  const auto done = self_.store(changes.store).commit(expected_generation);
  if (!done && done.error().code == errc::conflict) {
    self_.need(ledger_.refuse("conflict"), "to write the ledger");
    return false;
  }
  if (!done)
    self_.fail(done.error(), "to commit");
  if (done->committed == 0)
    self_.need(ledger_.refuse("dropped"), "to write the ledger");
  else
    self_.need(ledger_.acknowledge(done->generation, done->discarded),
               "to write the ledger");
  check_commit(changes, *done);
  return true;
}

void writer::check_commit(const batch& changes, const commit_result& done) {
  const auto where = "store " + std::to_string(changes.store)
                     + ": the commit of generation "
                     + std::to_string(done.generation);
  if (done.committed + done.discarded != changes.operations.size()
      || !done.failed.empty())
    self_.fail(finding{finding::kind::lost,
                       where + " took " + std::to_string(done.committed)
                           + " of " + std::to_string(changes.operations.size())
                           + " changes, discarded "
                           + std::to_string(done.discarded) + ", refused "
                           + std::to_string(done.failed.size())});
  const auto seen = self_.look(changes.store);
  self_.check(check_freshness(changes.store, done.generation, seen.generation));
  if (seen.generation != done.generation || done.discarded > 0)
    return;
  for (const auto& each : changes.operations) {
    const auto found = seen.rows.find(each.number);
    const auto value = found == seen.rows.end() ? no_row : found->second;
    if (value != each.value)
      self_.fail(finding{finding::kind::lost, where + " was acknowledged, but "
                                                  + id_of(each.number) + " is "
                                                  + to_text(value) + " and not "
                                                  + to_text(each.value)});
  }
}

void writer::work() {
  const auto changes = prepare();
  if (self_.one_in(4))
    check_pending(changes);
  if (self_.one_in(12))
    let_others_work(changes.store);
  if (!changes.operations.empty())
    commit(changes);
  if (self_.one_in(16))
    self_.check_store(changes.store);
}

} // namespace

void write_for_ever(role& self) {
  writer worker(self);
  while (true)
    worker.work();
}

} // namespace callboard::torture
