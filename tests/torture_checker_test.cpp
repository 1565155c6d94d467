#include "tests/torture/checker.hpp"

#include <catch2/catch.hpp>

#include <initializer_list>
#include <string>
#include <utility>

/// That the kill test sees what it looks for: ledgers and states with planted
/// errors.
namespace callboard::torture {
namespace {

/// A ledger of store 0, where time passes by one with each line.
class script {
public:
  script() {
    for (unsigned slot = 0; slot < ledger_slots; ++slot)
      start(slot, 1);
  }

  void start(unsigned slot, unsigned incarnation) {
    incarnations_[slot] = incarnation;
    take(slot, "s " + std::to_string(++now_));
  }
  /// `changes` as in a ledger's file.
  void ask(unsigned slot, const std::string& changes,
           const std::string& expected = "-") {
    take(slot, "i " + std::to_string(++serial_[slot]) + " 0 "
                   + std::to_string(now_ + 1) + ' ' + std::to_string(now_ + 2)
                   + ' ' + expected + ' ' + changes);
    now_ += 2;
  }
  void drop(unsigned slot) {
    take(slot, "d " + std::to_string(++serial_[slot]) + " 0 "
                   + std::to_string(++now_));
  }
  void acknowledge(unsigned slot, std::uint64_t generation,
                   unsigned discarded = 0) {
    take(slot, "a " + std::to_string(serial_[slot]) + ' '
                   + std::to_string(++now_) + ' ' + std::to_string(generation)
                   + ' ' + std::to_string(discarded));
  }
  void refuse(unsigned slot) {
    take(slot, "f " + std::to_string(serial_[slot]) + ' '
                   + std::to_string(++now_) + " conflict");
  }
  void commit(unsigned slot, const std::string& changes,
              std::uint64_t generation) {
    ask(slot, changes);
    acknowledge(slot, generation);
  }

  const ledger& known() {
    ledger_.settle();
    return ledger_;
  }

private:
  void take(unsigned slot, const std::string& line) {
    INFO(line);
    REQUIRE(ledger_.take_line(0, slot, incarnations_[slot], line));
  }

  ledger ledger_;
  std::int64_t now_ = 0;
  std::array<unsigned, ledger_slots> incarnations_{};
  std::array<unsigned, ledger_slots> serial_{};
};

/// The version that a slot's `<row>:<counter>` stands for.
version by(unsigned slot, unsigned counter, unsigned incarnation = 1) {
  return make_version({.round = 0,
                       .slot = slot,
                       .incarnation = incarnation,
                       .counter = counter});
}

seen_state state(std::uint64_t generation, versions rows) {
  return {.store = 0, .generation = generation, .rows = std::move(rows)};
}

commit_event event(std::uint64_t generation, std::vector<std::string> changed,
                   std::vector<std::string> removed = {}) {
  return {.what = commit_event::kind::commit,
          .generation = generation,
          .changed = std::move(changed),
          .removed = std::move(removed)};
}

commit_event event_of(commit_event::kind what, std::uint64_t generation) {
  return {.what = what, .generation = generation, .changed = {}, .removed = {}};
}

void check_is(const verdict& wrong, finding::kind what) {
  REQUIRE(wrong.has_value());
  INFO(wrong->text);
  CHECK(wrong->what == what);
}

void check_clean(const verdict& wrong) {
  INFO((wrong ? wrong->text : std::string()));
  CHECK_FALSE(wrong.has_value());
}

TEST_CASE("a row is recognized by its text and its vector together") {
  const auto value = by(1, 7);
  const auto content = content_of(3, value);
  const auto vector = vector_of(content);
  CHECK(recognize("row-003", content, vector).value() == value);
  CHECK_FALSE(recognize("row-004", content, vector));
  CHECK_FALSE(
      recognize("row-003", content, vector_of(content_of(3, value + 1))));
  CHECK_FALSE(recognize("row-003", content + "x", vector));
  CHECK_FALSE(recognize("row-003", "", vector));
  CHECK_FALSE(recognize("another", content, vector));
}

TEST_CASE("versions keep who has made them") {
  const auto parts = parts_of(
      make_version({.round = 4, .slot = 2, .incarnation = 300, .counter = 9}));
  CHECK(parts.round == 4);
  CHECK(parts.slot == 2);
  CHECK(parts.incarnation == 300);
  CHECK(parts.counter == 9);
}

TEST_CASE("what was acknowledged last is what a state must show") {
  script told;
  told.commit(0, "5:1 6:2", 1);
  told.commit(1, "5:1", 2);
  check_clean(
      check_state(told.known(), state(1, {{5, by(0, 1)}, {6, by(0, 2)}})));
  check_clean(
      check_state(told.known(), state(2, {{5, by(1, 1)}, {6, by(0, 2)}})));

  SECTION("an update that is not there is lost") {
    check_is(
        check_state(told.known(), state(2, {{5, by(0, 1)}, {6, by(0, 2)}})),
        finding::kind::lost);
  }
  SECTION("a row that is not there is lost") {
    check_is(check_state(told.known(), state(2, {{5, by(1, 1)}})),
             finding::kind::lost);
  }
  SECTION("an older state does not show what came later") {
    check_is(
        check_state(told.known(), state(1, {{5, by(1, 1)}, {6, by(0, 2)}})),
        finding::kind::lost);
  }
  SECTION("a row that was removed is not there") {
    told.commit(2, "6:-", 3);
    check_clean(check_state(told.known(), state(3, {{5, by(1, 1)}})));
    check_is(
        check_state(told.known(), state(3, {{5, by(1, 1)}, {6, by(0, 2)}})),
        finding::kind::lost);
  }
  SECTION("a version that nobody has committed is unexplained") {
    check_is(
        check_state(told.known(), state(2, {{5, by(2, 1)}, {6, by(0, 2)}})),
        finding::kind::torn);
  }
  SECTION("a version whose commit was refused is unexplained") {
    told.ask(2, "7:1");
    told.refuse(2);
    check_is(
        check_state(told.known(),
                    state(2, {{5, by(1, 1)}, {6, by(0, 2)}, {7, by(2, 1)}})),
        finding::kind::torn);
  }
}

TEST_CASE("what nobody was told of may be there or not, but as a whole") {
  script told;
  told.commit(0, "5:1 6:2", 1);
  told.ask(1, "5:1 6:2 7:-");
  const versions before{{5, by(0, 1)}, {6, by(0, 2)}};
  const versions after{{5, by(1, 1)}, {6, by(1, 2)}};
  check_clean(check_state(told.known(), state(1, before)));
  check_clean(check_state(told.known(), state(2, after)));

  SECTION("half of it is torn") {
    check_is(
        check_state(told.known(), state(2, {{5, by(1, 1)}, {6, by(0, 2)}})),
        finding::kind::torn);
  }
  SECTION("it did not happen before it was asked for") {
    check_is(check_state(told.known(), state(1, after)), finding::kind::lost);
  }
  SECTION("what was asked for after its process's death comes after it") {
    told.start(1, 2);
    told.commit(1, "5:1", 2);
    told.known();
    check_clean(
        check_state(told.known(), state(2, {{5, by(1, 1, 2)}, {6, by(0, 2)}})));
    check_is(check_state(told.known(), state(2, after)), finding::kind::lost);
  }
  SECTION("what was asked for meanwhile comes before or after it") {
    told.commit(2, "5:1", 3);
    check_clean(
        check_state(told.known(), state(3, {{5, by(2, 1)}, {6, by(1, 2)}})));
    check_clean(check_state(told.known(), state(4, after)));
  }
}

TEST_CASE("a drop removes what was there, at some generation") {
  script told;
  told.commit(0, "5:1", 1);
  told.drop(3);
  check_clean(check_state(told.known(), state(1, {{5, by(0, 1)}})));
  check_clean(check_state(told.known(), state(2, {})));
  check_is(check_state(told.known(), state(1, {})), finding::kind::lost);

  told.acknowledge(3, 2);
  check_is(check_state(told.known(), state(2, {{5, by(0, 1)}})),
           finding::kind::lost);
  told.commit(0, "5:2", 3);
  check_clean(check_state(told.known(), state(3, {{5, by(0, 2)}})));
  check_is(check_state(told.known(), state(3, {})), finding::kind::lost);
}

TEST_CASE("a commit that a drop has overtaken may be there in part") {
  script told;
  told.ask(0, "5:1 6:2");
  told.drop(3);
  told.acknowledge(3, 1);
  told.acknowledge(0, 2, 1);
  check_clean(check_state(told.known(), state(2, {{6, by(0, 2)}})));
  check_clean(check_event(told.known(), 0, event(2, {"row-006"})));
  check_is(check_event(told.known(), 0, event(2, {"row-007"})),
           finding::kind::torn);
}

TEST_CASE("the baseline counts until something replaces it") {
  ledger known;
  known.begin_with(0, {.generation = 9, .rows = {{5, by(0, 1)}}});
  known.settle();
  CHECK(known.acknowledged_generation(0) == 9);
  check_clean(check_state(known, state(9, {{5, by(0, 1)}})));
  check_is(check_state(known, state(9, {})), finding::kind::lost);
  check_clean(check_account(known, 0, 9));
  check_is(check_account(known, 0, 10), finding::kind::torn);
}

TEST_CASE("generations do not go back") {
  check_clean(check_growth(0, 4, 4));
  check_is(check_growth(0, 4, 3), finding::kind::lost);
  check_clean(check_freshness(0, 4, 5));
  check_is(check_freshness(0, 4, 3), finding::kind::lost);
}

TEST_CASE("acknowledgements do not contradict each other") {
  script told;
  told.commit(0, "5:1", 1);
  told.commit(1, "5:1", 2);
  check_clean(check_acknowledgements(told.known(), 0));

  SECTION("a generation is given once") {
    told.ask(0, "6:2");
    told.ask(1, "6:2");
    told.acknowledge(0, 3);
    told.acknowledge(1, 3);
    check_is(check_acknowledgements(told.known(), 0), finding::kind::torn);
  }
  SECTION("generations grow with time") {
    told.commit(2, "6:1", 4);
    told.commit(0, "6:2", 3);
    check_is(check_acknowledgements(told.known(), 0), finding::kind::lost);
  }
  SECTION("who expects a generation is the next one") {
    told.ask(2, "6:1", "2");
    told.acknowledge(2, 4);
    check_is(check_acknowledgements(told.known(), 0), finding::kind::torn);
  }
}

TEST_CASE("what was pending before a drop does not come after it") {
  script told;
  told.ask(0, "5:1");
  told.drop(3);
  told.acknowledge(3, 1);
  SECTION("it was committed before") {
    told.acknowledge(0, 1);
    check_clean(check_acknowledgements(told.known(), 0));
  }
  SECTION("it has come back") {
    told.acknowledge(0, 2);
    check_is(check_acknowledgements(told.known(), 0), finding::kind::torn);
  }
  SECTION("it was upserted afterwards") {
    told.refuse(0);
    told.commit(0, "5:2", 2);
    check_clean(check_acknowledgements(told.known(), 0));
  }
}

TEST_CASE("all generations have somebody who asked for them") {
  script told;
  told.commit(0, "5:1", 1);
  told.ask(1, "5:1");
  told.ask(2, "5:1");
  told.refuse(2);
  check_is(check_account(told.known(), 0, 0), finding::kind::lost);
  check_clean(check_account(told.known(), 0, 1));
  check_clean(check_account(told.known(), 0, 2));
  check_is(check_account(told.known(), 0, 3), finding::kind::torn);
}

TEST_CASE("events tell of what somebody has committed") {
  script told;
  told.commit(0, "5:1 6:-", 1);
  told.ask(1, "7:1");
  told.drop(3);
  const auto& known = told.known();
  check_clean(check_event(known, 0, event(1, {"row-005"}, {"row-006"})));
  check_clean(check_event(known, 0, event(2, {"row-007"})));
  check_clean(check_event(known, 0, event_of(commit_event::kind::drop, 2)));
  check_clean(check_event(known, 0, event_of(commit_event::kind::overflow, 9)));
  check_is(check_event(known, 0, event(1, {"row-005"})), finding::kind::torn);
  check_is(check_event(known, 0, event(1, {"row-005", "row-006"})),
           finding::kind::torn);
  check_is(check_event(known, 0, event(2, {"row-008"})), finding::kind::torn);
  check_is(check_event(known, 0, event_of(commit_event::kind::drop, 1)),
           finding::kind::torn);
}

TEST_CASE("no event is missing, but for an overflow") {
  check_clean(check_event_order(0, 4, event(5, {})));
  check_is(check_event_order(0, 4, event(6, {})), finding::kind::lost);
  check_is(check_event_order(0, 4, event(4, {})), finding::kind::lost);
  check_clean(
      check_event_order(0, 4, event_of(commit_event::kind::overflow, 9)));
  check_is(check_event_order(0, 4, event_of(commit_event::kind::overflow, 4)),
           finding::kind::lost);
}

TEST_CASE("events explain how one state became another") {
  const auto before = state(1, {{5, 50}, {6, 60}});
  const std::vector<commit_event> events{event(2, {"row-005", "row-007"}),
                                         event(3, {}, {"row-006"})};
  check_clean(check_events(before, events, state(3, {{5, 51}, {7, 70}})));

  SECTION("a change without an event is unexplained") {
    check_is(
        check_events(before, events, state(3, {{5, 51}, {7, 70}, {8, 80}})),
        finding::kind::torn);
    check_is(check_events(before, {}, state(1, {{5, 50}})),
             finding::kind::torn);
  }
  SECTION("an event without its change is unexplained") {
    check_is(check_events(before, events, state(3, {{5, 50}, {7, 70}})),
             finding::kind::torn);
    check_is(
        check_events(before, events, state(3, {{5, 51}, {6, 60}, {7, 70}})),
        finding::kind::torn);
  }
  SECTION("a drop explains that all is gone") {
    const std::vector<commit_event> dropped{
        event_of(commit_event::kind::drop, 2), event(3, {"row-009"})};
    check_clean(check_events(before, dropped, state(3, {{9, 90}})));
    check_is(check_events(before, dropped, state(3, {{5, 50}, {9, 90}})),
             finding::kind::torn);
  }
  SECTION("an overflow explains anything") {
    check_clean(check_events(
        before,
        std::vector<commit_event>{event_of(commit_event::kind::overflow, 3)},
        state(3, {})));
  }
}

TEST_CASE("a ledger takes nothing that it does not understand") {
  ledger known;
  for (const auto* line :
       {"", "i", "x 1", "i 1 0 5 5", "i 1 9 5 5 -", "i 1 0 5 5 - 7",
        "i 1 0 5 5 - 900:1", "d 1 0", "a 1 5 1 0", "s now"}) {
    INFO(line);
    CHECK_FALSE(known.take_line(0, 0, 1, line));
  }
  REQUIRE(known.take_line(0, 0, 1, "i 1 0 5 5 - 7:1"));
  CHECK_FALSE(known.take_line(0, 0, 1, "a 2 6 1 0"));
}

} // namespace
} // namespace callboard::torture
