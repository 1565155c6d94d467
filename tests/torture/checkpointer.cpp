#include "tests/torture/role.hpp"

#include <chrono>

namespace callboard::torture {

namespace {

using std::chrono::milliseconds;

class checkpointer {
public:
  explicit checkpointer(role& self)
      : self_(self),
        ledger_(self.need(
            ledger_file::open(
                ledger_directory(self.who().directory, self.who().round)
                / ledger_file_name(self.who().slot, self.who().incarnation)),
            "to open the ledger")) {
    self_.open_stores();
  }

  void work();

private:
  void let_others_work(unsigned store);
  void drop(unsigned store);

  role& self_;
  ledger_file ledger_;
};

void checkpointer::let_others_work(unsigned store) {
  self_.begin(step::awaiting);
  const auto seen = self_.look(store).generation;
  const auto reached = self_.store(store).await_generation(
      seen + 1 + self_.below(20), milliseconds(40));
  if (!reached && reached.error().code != errc::timed_out)
    self_.fail(reached.error(), "to await a generation");
}

/// Afterwards the store is empty, but for what others have put there since.
void checkpointer::drop(unsigned store) {
  self_.need(ledger_.ask_drop(store), "to write the ledger");
  self_.begin(step::dropping);
  self_.need(self_.store(store).drop(), "to drop");
  const auto seen = self_.look(store);
  self_.need(ledger_.acknowledge(seen.generation, 0), "to write the ledger");
  self_.check(check_state(self_.known(), seen));
}

void checkpointer::work() {
  const auto store = static_cast<unsigned>(self_.below(store_count));
  auto& target = self_.store(store);
  const auto choice = self_.below(20);
  if (choice == 0) {
    drop(store);
  } else if (choice == 1) {
    self_.begin(step::verifying);
    self_.need(target.verify(), "to verify");
  } else if (choice < 5) {
    self_.begin(step::finalizing);
    self_.need(target.finalize(), "to finalize");
  } else {
    self_.begin(step::checkpointing);
    self_.need(target.checkpoint(choice < 8    ? compaction::forced
                                 : choice < 10 ? compaction::none
                                               : compaction::automatic),
               "a checkpoint");
  }
  let_others_work(store);
}

} // namespace

void checkpoint_for_ever(role& self) {
  checkpointer worker(self);
  while (true)
    worker.work();
}

} // namespace callboard::torture
