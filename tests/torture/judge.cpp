#include "tests/torture/published.hpp"
#include "tests/torture/role.hpp"

namespace callboard::torture {

namespace {

/// The state of a store when all are dead; nothing changes it any more.
seen_state judge_store(role& self, unsigned store) {
  const auto seen = self.check_store(store);
  self.check(check_acknowledgements(self.known(), store));
  self.check(check_account(self.known(), store, seen.generation));
  self.begin(step::verifying);
  self.need(self.store(store).verify(), "to verify");
  self.check_queries(store, id_count);
  self.begin(step::finalizing);
  const auto done = self.need(self.store(store).finalize(), "to finalize");
  const auto after = self.look(store);
  if (done.generation != seen.generation || after.generation != seen.generation
      || after.rows != seen.rows)
    self.fail(finding{finding::kind::torn,
                      "store " + std::to_string(store)
                          + " changed by itself from generation "
                          + std::to_string(seen.generation) + " to "
                          + std::to_string(after.generation)});
  self.begin(step::verifying);
  self.need(self.store(store).verify(), "to verify after a checkpoint");
  return seen;
}

void compare_published(role& self, const seen_state& seen) {
  self.begin(step::reading_published_pair);
  const auto pair =
      self.need(read_published(store_directory(self.who().directory),
                               namespace_of(seen.store)),
                "to read the published pair");
  const auto where = "store " + std::to_string(seen.store);
  if (!pair)
    self.fail(finding{finding::kind::lost,
                      where + " has no published pair after a finalize"});
  for (unsigned number = 0; number < id_count; ++number) {
    const auto value_in = [number](const versions& rows) {
      const auto found = rows.find(number);
      return found == rows.end() ? no_row : found->second;
    };
    if (value_in(*pair) != value_in(seen.rows))
      self.fail(finding{finding::kind::lost,
                        where + ": the published pair shows "
                            + to_text(value_in(*pair)) + " of " + id_of(number)
                            + ", the store " + to_text(value_in(seen.rows))});
  }
}

} // namespace

void judge(role& self) {
  self.open_stores();
  std::array<seen_state, store_count> states;
  for (unsigned store = 0; store < store_count; ++store)
    states[store] = judge_store(self, store);
  self.close_stores();

  std::array<ledger::baseline, store_count> next;
  for (unsigned store = 0; store < store_count; ++store) {
    compare_published(self, states[store]);
    next[store] = {states[store].generation, states[store].rows};
  }
  const auto directory =
      ledger_directory(self.who().directory, self.who().round + 1);
  std::error_code failed;
  std::filesystem::create_directories(directory, failed);
  self.need(write_baselines(directory, next), "to write the next baseline");
}

} // namespace callboard::torture
