#include "tests/history/roles.hpp"
#include "tests/history/values.hpp"
#include "tests/torture/ledger.hpp"
#include "tests/torture/rows.hpp"

#include <array>
#include <memory>
#include <optional>
#include <random>
#include <utility>
#include <vector>

namespace callboard::history {

namespace {

using torture::monotonic_ns;

constexpr unsigned counters = 4;
constexpr unsigned lists = 4;
constexpr unsigned plain_rows = 8;
/// Rows by which the event of a commit tells whose it is.
constexpr unsigned marks = 8;
/// Drops of a run; evenly spread.
constexpr std::uint64_t drops_max = 6;

torture::random_source random_of(const assignment& who) {
  std::seed_seq mixer{static_cast<std::uint32_t>(who.seed),
                      static_cast<std::uint32_t>(who.seed >> 32U), who.process,
                      who.incarnation};
  return torture::random_source(mixer);
}

/// A transaction before anybody knows the values it will write.
struct plan {
  unsigned store = 0;
  /// To be written whatever is there, but for those that `next_value` knows.
  id_set written;
  id_set removed;
  /// Whether it holds only for the state that was looked at.
  bool is_conditional = false;
};

class writer {
public:
  writer(const assignment& who, progress& shared, journal_file& journal,
         connection& stores)
      : who_(who),
        shared_(shared),
        journal_(journal),
        connection_(stores),
        random_(random_of(who)) {}

  result<void> work();

private:
  bool is_over() const { return shared_.writers_stop.load(); }
  bool one_in(std::uint64_t chance) { return torture::one_in(random_, chance); }
  std::string any_id(const std::string& prefix, unsigned count) {
    return prefix + std::to_string(torture::below(random_, count));
  }
  plan make_plan(std::uint64_t number);
  result<snapshot_ptr> look(unsigned store, bool at_everything);
  result<snapshot_ptr> view_for(const plan& what);
  result<change> make_change(const plan& from, const std::string& name,
                             const snapshot& view) const;
  result<void> run_transaction();
  result<entry::outcome> attempt(const plan& what, std::uint64_t number);
  result<entry::outcome> commit(unsigned store, const change& what,
                                std::optional<std::uint64_t> expected);
  result<void> maintain();
  result<void> drop(unsigned store);

  const assignment& who_;
  progress& shared_;
  journal_file& journal_;
  connection& connection_;
  torture::random_source random_;
  std::vector<std::unique_ptr<session>> stores_;
  /// What was looked at last.
  std::array<snapshot_ptr, store_count> views_;
};

result<void> writer::work() {
  for (unsigned store = 0; store < store_count; ++store) {
    CALLBOARD_TRY_ASSIGN(auto opened, connection_.open(store));
    stores_.push_back(std::move(opened));
  }
  while (!is_over()) {
    CALLBOARD_TRY(run_transaction());
    if (who_.maintains) {
      CALLBOARD_TRY(maintain());
    }
  }
  return {};
}

plan writer::make_plan(std::uint64_t number) {
  plan out;
  out.store = static_cast<unsigned>(torture::below(random_, store_count));
  out.written.insert("mark-" + std::to_string(who_.process) + '-'
                     + std::to_string(number % marks));
  switch (torture::below(random_, 6)) {
  case 0:
    out.removed.insert(any_id("row-", plain_rows));
    out.removed.insert(any_id("row-", plain_rows));
    // What is not there, a client does not remove at all.
    out.is_conditional = who_.how == access::client || one_in(4);
    break;
  case 1:
  case 2:
    out.written.insert(any_id("counter-", counters));
    out.written.insert(any_id("counter-", counters));
    out.is_conditional = true;
    break;
  case 3:
    out.written.insert(any_id("list-", lists));
    out.written.insert(any_id("counter-", counters));
    out.is_conditional = true;
    break;
  default:
    out.is_conditional = one_in(8);
  }
  while (one_in(2))
    out.written.insert(any_id("row-", plain_rows));
  for (const auto& id : out.written)
    out.removed.erase(id);
  return out;
}

result<snapshot_ptr> writer::look(unsigned store, bool at_everything) {
  const auto begun_at = monotonic_ns();
  CALLBOARD_TRY_ASSIGN(auto view, stores_[store]->refresh());
  std::string seen(unknown_rows);
  if (at_everything) {
    CALLBOARD_TRY_ASSIGN(const auto found, contents(*view));
    seen = to_text(found);
  }
  journal_.add_line("read " + std::to_string(store) + ' '
                    + std::to_string(begun_at) + ' '
                    + std::to_string(view->generation()) + ' ' + seen);
  return view;
}

/// Nobody must look before he writes, unless what he writes depends on it. So
/// it may be about a store that has been dropped since.
result<snapshot_ptr> writer::view_for(const plan& what) {
  auto& view = views_[what.store];
  if (!view || what.is_conditional || one_in(2)) {
    CALLBOARD_TRY_ASSIGN(view, look(what.store, one_in(8)));
  }
  return view;
}

result<change> writer::make_change(const plan& from, const std::string& name,
                                   const snapshot& view) const {
  change out{
      .written = {}, .removed = from.removed, .drop_epoch = view.drop_epoch()};
  for (const auto& id : from.written) {
    CALLBOARD_TRY_ASSIGN(const auto before, value_in(view, id));
    out.written[id] = next_value(id, before, name).value_or(name);
  }
  return out;
}

/// One that has lost against another commit is thought of anew.
result<void> writer::run_transaction() {
  const auto number = ++shared_.numbers[who_.process];
  const auto plan = make_plan(number);
  while (!is_over()) {
    CALLBOARD_TRY_ASSIGN(const auto end, attempt(plan, number));
    if (end == entry::outcome::committed)
      ++shared_.acknowledged;
    if (end != entry::outcome::conflict)
      return {};
    if (!plan.removed.empty())
      break;
  }
  return stores_[plan.store]->forget();
}

result<entry::outcome> writer::attempt(const plan& what, std::uint64_t number) {
  CALLBOARD_TRY_ASSIGN(const auto view, view_for(what));
  CALLBOARD_TRY_ASSIGN(
      const auto change,
      make_change(what, transaction_name(who_.process, number), *view));
  std::optional<std::uint64_t> expected;
  if (what.is_conditional)
    expected = view->generation();
  journal_.add_line(
      "try " + std::to_string(what.store) + ' ' + std::to_string(number) + ' '
      + std::to_string(monotonic_ns()) + ' '
      + (expected ? std::to_string(*expected) : "-") + ' '
      + to_text(change.written) + ' ' + to_text(change.removed)
      + (who_.how == access::engine ? ' ' + std::to_string(view->generation())
                                    : ""));
  return commit(what.store, change, expected);
}

result<entry::outcome> writer::commit(unsigned store, const change& what,
                                      std::optional<std::uint64_t> expected) {
  const auto done = stores_[store]->commit(what, expected);
  const auto now = std::to_string(monotonic_ns());
  if (!done && done.error().code == errc::conflict) {
    journal_.add_line("conflict " + now);
    return entry::outcome::conflict;
  }
  if (!done && done.error().code == errc::busy) {
    journal_.add_line("busy " + now);
    CALLBOARD_TRY(stores_[store]->forget());
    return entry::outcome::busy;
  }
  if (!done)
    return done.error();
  if (done->committed == 0 && done->discarded > 0) {
    journal_.add_line("discarded " + now);
    views_[store] = nullptr;
    return entry::outcome::discarded;
  }
  journal_.add_line("ok " + now + ' ' + std::to_string(done->generation));
  if (done->discarded > 0)
    return failure{errc::corrupt, "only a part of a transaction was committed"};
  return entry::outcome::committed;
}

result<void> writer::maintain() {
  if (one_in(200)) {
    const auto store = torture::below(random_, store_count);
    const auto done = stores_[store]->checkpoint();
    if (!done && done.error().code != errc::busy)
      return done.error();
  }
  const auto dropped = shared_.drops.load();
  if (dropped == drops_max
      || shared_.acknowledged * (drops_max + 1)
             < (dropped + 1) * who_.transactions)
    return {};
  ++shared_.drops;
  return drop(static_cast<unsigned>(dropped % store_count));
}

result<void> writer::drop(unsigned store) {
  const auto number = ++shared_.numbers[who_.process];
  journal_.add_line("drop " + std::to_string(store) + ' '
                    + std::to_string(number) + ' '
                    + std::to_string(monotonic_ns()));
  const auto generation = stores_[store]->drop();
  const auto now = std::to_string(monotonic_ns());
  if (!generation && generation.error().code == errc::busy) {
    journal_.add_line("busy " + now);
    return {};
  }
  if (!generation)
    return generation.error();
  journal_.add_line("ok " + now + ' ' + std::to_string(*generation));
  return {};
}

} // namespace

std::filesystem::path store_directory(const std::filesystem::path& run) {
  return run / "stores";
}

std::filesystem::path journal_directory(const std::filesystem::path& run) {
  return run / "journals";
}

result<void> write(const assignment& who, progress& shared) {
  return with_journal(
      who, "writer", [&](journal_file& journal) -> result<void> {
        CALLBOARD_TRY_ASSIGN(const auto stores,
                             connect(store_directory(who.directory), who.how));
        return writer(who, shared, journal, *stores).work();
      });
}

} // namespace callboard::history
