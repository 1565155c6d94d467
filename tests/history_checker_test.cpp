#include "tests/history/checker.hpp"
#include "tests/history/values.hpp"

#include <catch2/catch.hpp>

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

/// That the history check sees what it looks for: journals with planted errors.
namespace callboard::history {
namespace {

journal journal_of(unsigned process, std::string_view text) {
  auto read =
      parse_journal("journal." + std::to_string(process), process, text);
  INFO((read ? "" : read.error().message));
  REQUIRE(read);
  return *read;
}

/// Of processes 0, 1, ...
judgement judged(std::initializer_list<std::string_view> texts) {
  std::vector<journal> journals;
  for (const auto text : texts)
    journals.push_back(
        journal_of(static_cast<unsigned>(journals.size()), text));
  return judge(journals);
}

/// The only thing that is wrong.
std::string violation_in(std::initializer_list<std::string_view> texts) {
  const auto found = judged(texts).violations;
  for (const auto& each : found)
    UNSCOPED_INFO(each);
  REQUIRE(found.size() == 1);
  return found.front();
}

bool is_sound(std::initializer_list<std::string_view> texts) {
  const auto found = judged(texts).violations;
  for (const auto& each : found)
    UNSCOPED_INFO(each);
  return found.empty();
}

using Catch::Contains;

/// Two processes that count up one counter, in turn.
constexpr std::string_view first_counts =
    "try 0 1 10 0 a=0.1;counter-0=0.1:1; -\n"
    "ok 20 1\n";
constexpr std::string_view second_counts =
    "try 0 1 30 1 a=1.1;counter-0=1.1:2; -\n"
    "ok 40 2\n";

TEST_CASE("What one order of transactions explains is sound, and counted") {
  const auto found = judged({
      first_counts,
      "read 0 12 0 -\n"
      "try 0 1 13 0 counter-0=1.1:1; -\n"
      "conflict 21\n"
      "read 0 22 1 ?\n"
      "try 0 1 30 1 counter-0=1.1:2;list-0=1.1:0:1.1; a;\n"
      "ok 40 2\n"
      "drop 0 2 60\n"
      "ok 70 3\n"
      "try 0 3 80 - b=1.3; -\n"
      "discarded 90\n",
      "watch 0 0\n"
      "event 0 1 commit a;counter-0; -\n"
      "read 0 11 1 a=0.1;counter-0=0.1:1;\n"
      "event 0 2 commit counter-0;list-0; a;\n"
      "read 0 41 2 counter-0=1.1:2;list-0=1.1:0:1.1;\n"
      "event 0 3 drop - -\n"
      "read 0 71 3 -\n"
      "again 0 1 a=0.1;counter-0=0.1:1;\n"
      "end 0 3\n",
  });
  CHECK(found.violations.empty());
  CHECK(found.transactions == 2);
  CHECK(found.unacknowledged == 0);
  CHECK(found.drops == 1);
  CHECK(found.conflicts == 1);
  CHECK(found.discarded == 1);
  CHECK(found.reads == 6);
  CHECK(found.events == 3);
}

TEST_CASE("Stores are judged each for itself") {
  CHECK(is_sound({"try 0 1 10 0 a=0.1; -\nok 20 1\n"
                  "try 1 2 30 0 a=0.2; -\nok 40 1\n",
                  "read 1 50 1 a=0.2;\nread 0 60 1 a=0.1;\n"}));
}

// -- One order ----------------------------------------------------------------

TEST_CASE("A lost update of a counter is found") {
  CHECK_THAT(violation_in(
                 {first_counts, "try 0 1 30 - counter-0=1.1:1; -\nok 40 2\n"}),
             Contains("an update of counter-0 was lost")
                 && Contains("it was 0.1:1; 1.1:1 was written, not 1.1:2")
                 && Contains("transaction 1.1"));
}

TEST_CASE("A lost update of a list is found") {
  const auto first = "try 0 1 10 - list-0=0.1:0:0.1; -\nok 20 1\n";
  CHECK(is_sound({first, "try 0 1 30 - list-0=1.1:0:0.1,1.1; -\nok 40 2\n"}));
  for (const auto* list : {"0:1.1", "0:1.1,0.1", "1:1.1", "0:0.1,0.1,1.1"})
    CHECK_THAT(
        violation_in({first, "try 0 1 30 - list-0=1.1:" + std::string(list)
                                 + "; -\nok 40 2\n"}),
        Contains("an update of list-0 was lost"));
}

TEST_CASE("A list that has shed its elements goes on") {
  std::string value;
  for (int i = 1; i <= 25; ++i)
    value = *next_value("list-0", value, "0." + std::to_string(i));
  CHECK(value == "0.25:24:0.25");
  CHECK(next_value("list-0", value, "1.1") == "1.1:24:0.25,1.1");
}

TEST_CASE("Two commits with one generation are found") {
  CHECK_THAT(violation_in({"try 0 1 10 - a=0.1; -\nok 20 1\n",
                           "try 0 1 10 - b=1.1; -\nok 20 1\n"}),
             Contains("two commits have generation 1")
                 && Contains("transaction 0.1") && Contains("transaction 1.1"));
}

TEST_CASE("A commit that is not the one after the expected one is found") {
  CHECK_THAT(violation_in({"try 0 1 10 - a=0.1; -\nok 20 1\n",
                           "try 0 1 30 0 a=1.1; -\nok 40 2\n"}),
             Contains("expected generation 0 became generation 2"));
}

TEST_CASE("A conflict with nothing is found") {
  const auto refused = "try 0 1 5 1 a=1.1; -\nconflict 29\n";
  CHECK_THAT(violation_in({"try 0 1 1 - a=0.1; -\nok 4 1\n", refused}),
             Contains("a conflict with nothing"));
  const auto later = "try 0 1 1 - a=0.1; -\nok 4 1\n"
                     "try 0 2 30 - a=0.2; -\nok 40 2\n";
  CHECK_THAT(violation_in({later, refused}),
             Contains("a conflict with nothing"));
}

TEST_CASE("What comes back after a drop is found") {
  const auto drops = "try 0 1 1 - a=0.1; -\nok 4 1\n"
                     "drop 0 2 10\nok 20 2\n";
  CHECK(is_sound({drops, "try 0 1 5 - a=1.1; - 2\nok 40 3\n"}));
  CHECK(is_sound({drops, "try 0 1 5 - a=1.1; - 1\ndiscarded 40\n"}));
  CHECK_THAT(violation_in({drops, "try 0 1 5 - a=1.1; - 1\nok 40 3\n"}),
             Contains("generation 3 was asked for before a drop")
                 && Contains("transaction 1.1") && Contains("drop 0.2"));
}

TEST_CASE("A change that was discarded without a drop is found") {
  for (const auto* discarded : {"try 0 1 5 - a=1.1; - 2\ndiscarded 40\n",
                                "try 0 1 5 - a=1.1; -\ndiscarded 9\n"})
    CHECK_THAT(violation_in({"drop 0 1 10\nok 20 1\n"
                             "try 0 2 30 - b=0.2; -\nok 35 2\n",
                             discarded}),
               Contains("discarded without a drop"));
}

TEST_CASE("A generation that nobody has asked for is found") {
  CHECK_THAT(violation_in({"try 0 1 10 - a=0.1; -\nok 20 2\n"}),
             Contains("nobody has asked for what generation 1 is"));
}

TEST_CASE("Commits in another order than time's are found") {
  CHECK_THAT(violation_in({"try 0 1 30 - a=0.1; -\nok 40 1\n",
                           "try 0 1 10 - b=1.1; -\nok 20 2\n"}),
             Contains("had begun after a later one was acknowledged"));
}

// -- What is seen -------------------------------------------------------------

TEST_CASE("A snapshot with half a commit is found") {
  for (const auto* seen : {"a=1.1;counter-0=0.1:1;", "a=0.1;counter-0=1.1:2;",
                           "a=1.1;", "-", "a=1.1;b=1.1;counter-0=1.1:2;"}) {
    INFO(seen);
    CHECK_THAT(
        violation_in({first_counts, second_counts,
                      "read 0 50 2 " + std::string(seen) + "\n"}),
        Contains("a snapshot of generation 2 is not the transactions up to it")
            && Contains("journal.2, line 1") && Contains("transaction 1.1"));
  }
}

TEST_CASE("A snapshot that says it is older than it is, is found") {
  CHECK_THAT(violation_in({first_counts, second_counts,
                           "read 0 35 1 a=1.1;counter-0=1.1:2;\n"}),
             Contains("a is 1.1, but should be 0.1"));
}

TEST_CASE("Rows that are removed or dropped and still there are found") {
  const auto puts = "try 0 1 10 - a=0.1;b=0.1; -\nok 20 1\n";
  CHECK_THAT(violation_in({puts, "try 0 1 30 - c=1.1; a;\nok 40 2\n",
                           "read 0 50 2 a=0.1;b=0.1;c=1.1;\n"}),
             Contains("a is 0.1, but should be missing"));
  CHECK_THAT(
      violation_in({puts, "drop 0 1 30\nok 40 2\n", "read 0 50 2 b=0.1;\n"}),
      Contains("b is 0.1, but should be missing"));
}

TEST_CASE("A kept snapshot that has changed is found") {
  const auto reads = [](const std::string& again) {
    return "read 0 21 1 a=0.1;counter-0=0.1:1;\n"
           "read 0 41 2 a=1.1;counter-0=1.1:2;\n"
           "again 0 1 "
           + again + "\n";
  };
  CHECK(
      is_sound({first_counts, second_counts, reads("a=0.1;counter-0=0.1:1;")}));
  CHECK_THAT(violation_in({first_counts, second_counts,
                           reads("a=1.1;counter-0=1.1:2;")}),
             Contains("a snapshot of generation 1"));
}

TEST_CASE("A process whose reads go back is found") {
  CHECK_THAT(violation_in({first_counts, second_counts,
                           "read 0 31 2 ?\nread 0 32 1 ?\n"}),
             Contains("went back from generation 2 to 1")
                 && Contains("journal.2, line 2"));
}

TEST_CASE("A process that does not see its own commit is found") {
  const auto found =
      judged({"try 0 1 10 - a=0.1; -\nok 20 1\nread 0 21 0 -\n"}).violations;
  REQUIRE(found.size() == 2);
  CHECK_THAT(found[0], Contains("a stale read"));
  CHECK_THAT(found[1], Contains("went back from generation 1 to 0"));
}

TEST_CASE("A stale read is found, and a read that overlaps is none") {
  CHECK(is_sound({first_counts, "read 0 19 0 -\n"}));
  CHECK_THAT(violation_in({first_counts, "read 0 21 0 -\n"}),
             Contains("a stale read") && Contains("acknowledged at 20"));
  // Though the last one that was acknowledged was an older one.
  CHECK_THAT(violation_in({"try 0 1 10 - a=0.1; -\nok 50 1\n",
                           "try 0 1 10 - b=1.1; -\nok 20 2\n",
                           "read 0 60 1 a=0.1;\n"}),
             Contains("acknowledged at 20 as generation 2"));
}

TEST_CASE("What a process finds wrong by itself is a violation") {
  CHECK_THAT(violation_in({"bad corrupt: a vector of another row\n"}),
             Contains("a vector of another row"));
}

// -- Events -------------------------------------------------------------------

std::string events(const std::string& middle) {
  return "watch 0 0\n" + middle + "end 0 2\n";
}
const std::string event_1 = "event 0 1 commit a;counter-0; -\n";
const std::string event_2 = "event 0 2 commit a;counter-0; -\n";

std::string violation_with(const std::string& middle) {
  return violation_in({first_counts, second_counts, events(middle)});
}

TEST_CASE("An event that is missing is found, unless an overflow says so") {
  CHECK(is_sound({first_counts, second_counts, events(event_1 + event_2)}));
  CHECK(is_sound(
      {first_counts, second_counts, events("event 0 2 overflow - -\n")}));
  CHECK(is_sound({first_counts, second_counts,
                  events("event 0 1 overflow - -\n" + event_2)}));
  CHECK_THAT(violation_with(event_2),
             Contains("events are missing between the generations 0 and 2"));
  CHECK_THAT(violation_with(event_1),
             Contains("events have ended with generation 1"));
  CHECK_THAT(violation_with("event 0 1 overflow - -\n"),
             Contains("events have ended with generation 1"));
}

TEST_CASE("An event that comes twice is found") {
  CHECK_THAT(violation_with(event_1 + event_2 + event_2),
             Contains("an event went back from generation 2 to 2"));
}

TEST_CASE("An event of something else than its commit is found") {
  for (const auto* wrong : {"commit a; -", "commit a;b;counter-0; -",
                            "commit a;counter-0; c;", "drop - -"}) {
    INFO(wrong);
    CHECK_THAT(violation_with(event_1 + "event 0 2 " + wrong + "\n"),
               Contains("the event of generation 2 is not of its commit"));
  }
}

TEST_CASE("An event may leave out a removal only of what was not there") {
  const std::string removes = "try 0 2 50 - b=0.2; a;z;\nok 60 3\n";
  const auto with_removed = [](const std::string& removed) {
    return "watch 0 2\nevent 0 3 commit b; " + removed + "\nend 0 3\n";
  };
  for (const auto* removed : {"a;", "a;z;"})
    CHECK(is_sound({std::string(first_counts) + removes, second_counts,
                    with_removed(removed)}));
  for (const auto* removed : {"-", "z;"})
    CHECK_THAT(violation_in({std::string(first_counts) + removes, second_counts,
                             with_removed(removed)}),
               Contains("is not of its commit"));
}

// -- Processes that were killed -----------------------------------------------

TEST_CASE("A commit that its process was not told of may be there, or not") {
  const auto unknown = "try 0 1 15 - b=1.1; -\n";
  CHECK(is_sound({first_counts, unknown}));
  const auto there =
      judged({std::string(first_counts) + "try 0 2 50 - a=0.2; -\nok 60 3\n",
              unknown, "read 0 55 2 a=0.1;b=1.1;counter-0=0.1:1;\n"});
  CHECK(there.violations.empty());
  CHECK(there.transactions == 3);
  CHECK(there.unacknowledged == 1);
}

TEST_CASE("A commit that its process was not told of is there once") {
  CHECK_THAT(violation_in({"try 0 1 10 - a=0.1; -\nok 20 3\n",
                           "try 0 1 5 - b=1.1; -\n"}),
             Contains("nobody has asked for what generation 2 is"));
}

TEST_CASE("A commit that its process was not told of is there whole") {
  CHECK_THAT(violation_in({"try 0 1 50 - d=0.1; -\nok 60 2\n",
                           "try 0 1 5 - b=1.1;c=1.1; -\n",
                           "read 0 70 2 b=1.1;d=0.1;\n"}),
             Contains("c is missing, but should be 1.1"));
}

TEST_CASE("Events tell which of those that were killed has committed") {
  const std::string last = "try 0 1 50 - d=0.1; -\nok 60 2\n";
  const auto first = "try 0 1 5 - b=1.1; -\n";
  const auto second = "try 0 1 5 - c=2.1; -\n";
  const auto sees = [](const std::string& id, const std::string& by) {
    return "watch 0 0\nevent 0 1 commit " + id
           + "; -\nevent 0 2 commit d; -\nread 0 70 2 " + id + '=' + by
           + ";d=0.1;\nend 0 2\n";
  };
  CHECK(is_sound({last, first, second, sees("b", "1.1")}));
  CHECK(is_sound({last, first, second, sees("c", "2.1")}));
}

TEST_CASE("A commit whose process was killed comes in that process's order") {
  // The first attempt of process 1 was before generation 1, the last after.
  const std::string killed_twice = "try 0 1 1 - b=1.1; -\n"
                                   "try 0 2 5 - e=1.2; -\nok 20 1\n"
                                   "try 0 3 25 - b=1.3; -\n";
  CHECK(is_sound({"try 0 1 50 - d=0.1; -\nok 60 3\n", killed_twice,
                  "read 0 70 3 b=1.3;d=0.1;e=1.2;\n"}));
  CHECK_THAT(violation_in({"try 0 1 50 - d=0.1; -\nok 60 3\n", killed_twice,
                           "read 0 70 3 b=1.1;d=0.1;e=1.2;\n"}),
             Contains("b is 1.1, but should be 1.3"));
}

TEST_CASE("A commit whose process was killed is the one after the expected") {
  CHECK(is_sound({"try 0 1 1 - a=0.1; -\nok 4 1\n"
                  "try 0 2 50 - d=0.2; -\nok 60 3\n",
                  "try 0 1 2 0 b=1.1; -\n", "try 0 1 5 1 c=2.1; -\n",
                  "read 0 70 3 a=0.1;c=2.1;d=0.2;\n"}));
}

TEST_CASE("A drop that its process was not told of may have happened") {
  CHECK(is_sound({first_counts, "drop 0 1 30\n",
                  "watch 0 0\n" + event_1
                      + "event 0 2 drop - -\nread 0 50 2 -\nend 0 2\n"}));
}

// -- Journals -----------------------------------------------------------------

TEST_CASE("A line that a killed process has not finished is left out") {
  CHECK(journal_of(0, "try 0 1 10 - a=0.1; -\nok 2").entries.front().end
        == entry::outcome::unknown);
}

TEST_CASE("What is no journal is refused, and said where") {
  for (const auto* wrong :
       {"ok 20 1\n", "read 0 x 1 -\n", "try 0 1 10 y a=1; -\n",
        "event 0 1 change - -\n", "watch 0 0\nok 20 1\n", "hello\n",
        "try 0 1 10 - a=0.1; -\nok 20\n"}) {
    INFO(wrong);
    const auto read = parse_journal("journal", 0, wrong);
    REQUIRE_FALSE(read);
    CHECK(read.error().code == errc::corrupt);
    CHECK_THAT(read.error().message, Contains("journal, line "));
  }
}

} // namespace
} // namespace callboard::history
