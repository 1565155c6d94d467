#include "tests/torture/power_loss_worker.hpp"

#include "ipc/shared_board.hpp"

#include <chrono>
#include <cstdio>
#include <string>
#include <thread>
#include <utility>

namespace callboard::test {

worker::worker(shared_memory& shared, syncing syncs, std::uint64_t boot,
               store_options where, std::uint64_t seed, std::size_t number)
    : shared_(shared),
      syncs_(syncs),
      boot_(boot),
      where_(std::move(where)),
      seed_(seed),
      number_(number),
      random_(seed * 31 + boot * 7 + number) {}

int worker::write(row_version first) {
  return run([&](store& target) { return commit_next(target, first); });
}

int worker::checkpoint() {
  return run([&](store& target) -> result<void> {
    static constexpr std::array kinds = {
        compaction::none, compaction::automatic, compaction::forced};
    CALLBOARD_TRY_ASSIGN(auto view,
                         target.checkpoint(kinds[random_() % kinds.size()]));
    show(*view);
    pause_up_to(5'000);
    return {};
  });
}

int worker::read() {
  return run([&](store& target) -> result<void> {
    CALLBOARD_TRY_ASSIGN(auto view, target.refresh());
    show(*view);
    pause_up_to(500);
    return {};
  });
}

int worker::run(const std::function<result<void>(store&)>& step) {
  machine_io door(syncs_, boot_);
  shared_board board(door);
  auto opened = store::open(door, board, where_);
  if (!opened)
    return ended(opened.error());
  show(*(*opened)->view());
  ++shared_.at_work;
  while (shared_.power_is_on())
    if (auto outcome = step(**opened); !outcome)
      return ended(outcome.error());
  return 0;
}

result<void> worker::commit_next(store& target, row_version first) {
  auto& mine = shared_.ledgers[number_];
  auto count = mine.begun.load();
  if (count == commits_max)
    return failure{errc::too_large, "the ledger is full"};
  auto next = make_transaction(seed_, first + count);
  auto operations = operations_of(next);
  mine.begun = count + 1;
  std::uint64_t generation = 0;
  if (next.drops) {
    CALLBOARD_TRY_ASSIGN(auto view, target.drop());
    generation = view->generation();
  } else {
    CALLBOARD_TRY_ASSIGN(auto outcome, target.commit(operations));
    generation = outcome.generation;
  }
  // A sync may succeed though the power is off. Then it told nobody.
  if (shared_.power_is_on()) {
    mine.generations[count] = generation;
    mine.acknowledged = count + 1;
  }
  return {};
}

void worker::show(const snapshot& view) {
  if (shared_.power_is_on())
    shared_.shown[number_] = view.generation();
}

void worker::pause_up_to(std::uint64_t microseconds) {
  std::this_thread::sleep_for(
      std::chrono::microseconds(random_() % microseconds));
}

int worker::ended(const failure& reason) const {
  if (!shared_.power_is_on())
    return 0;
  std::fprintf(stderr, "worker %zu: %s: %s\n", number_,
               std::string(to_string(reason.code)).c_str(),
               reason.message.c_str());
  return 1;
}

result<void> examine(const store_options& where, std::uint64_t boot,
                     bool with_checkpoint, findings& out) {
  machine_io door(syncing::real, boot);
  shared_board board(door);
  const auto& place = where.working_directory;
  CALLBOARD_TRY_ASSIGN(out.published_before,
                       published_contents(place, where.namespace_name));
  CALLBOARD_TRY_ASSIGN(auto opened, store::open(door, board, where));
  out.generation = opened->view()->generation();
  CALLBOARD_TRY_ASSIGN(out.rows, contents_of(*opened->view()));
  CALLBOARD_TRY(opened->verify());
  if (with_checkpoint) {
    CALLBOARD_TRY(opened->checkpoint(compaction::automatic));
    out.checkpointed = true;
  }
  CALLBOARD_TRY_ASSIGN(out.published_after,
                       published_contents(place, where.namespace_name));
  return {};
}

} // namespace callboard::test
