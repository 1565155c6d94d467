#include "core/pending_buffer.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

using namespace callboard;

namespace {

constexpr std::size_t dimension = 4;

pending_change upsert_of(std::string id, std::string record = "{}") {
  auto change = std::make_shared<commit_operation>();
  change->id = std::move(id);
  change->record = std::move(record);
  return change;
}

/// A record that the store keeps until its first commit.
pending_change waiting_of(std::string id, std::string record = "{}") {
  auto change = upsert_of(std::move(id), std::move(record));
  change->was_waiting = true;
  return change;
}

std::string cost_of(const pending_buffer& buffer) {
  return std::to_string(buffer.bytes());
}

/// A buffer and the committed rows that it changes, as a handle has them.
struct handle {
  explicit handle(pending_limits limits = {}) : buffer(dimension, limits) {}

  result<void> upsert(std::string id, std::string record = "{}") {
    return buffer.upsert({upsert_of(std::move(id), std::move(record))});
  }

  result<void> remove(std::vector<std::string> ids) {
    return buffer.remove(ids, 0, [this](std::string_view id) {
      return visible().contains(std::string(id));
    });
  }

  /// What a query can find.
  std::map<std::string, std::string> visible() const {
    auto out = committed;
    for (const auto& id : buffer.hidden_ids())
      out.erase(id);
    return out;
  }

  void land(const pending_batch& batch) {
    for (const auto& change : batch.changes) {
      if (change->what == commit_operation::kind::upsert)
        committed[change->id] = change->record;
      else
        committed.erase(change->id);
    }
    buffer.committed(batch);
  }

  void commit() { land(buffer.take()); }

  pending_buffer buffer;
  std::map<std::string, std::string> committed;
};

std::vector<std::string> ids_of(const pending_batch& batch) {
  std::vector<std::string> out;
  for (const auto& change : batch.changes)
    out.push_back(change->id);
  return out;
}

using strings = std::vector<std::string>;

} // namespace

TEST_CASE("an id upserted again keeps its place and loses its vector",
          "[pending][B32]") {
  handle handle;
  REQUIRE(handle.upsert("a", "1"));
  REQUIRE(handle.upsert("b", "2"));
  handle.buffer.find("a")->vector = {1, 0, 0, 0};
  REQUIRE(handle.upsert("a", "3"));
  CHECK(handle.buffer.upsert_ids() == strings{"a", "b"});
  CHECK(handle.buffer.find("a")->record == "3");
  CHECK(handle.buffer.find("a")->vector.empty());
}

TEST_CASE("an id deleted and upserted again moves to the end",
          "[pending][B63]") {
  handle handle;
  REQUIRE(handle.upsert("a"));
  handle.commit();
  REQUIRE(handle.upsert("a"));
  REQUIRE(handle.upsert("b"));
  REQUIRE(handle.remove({"a"}));
  REQUIRE(handle.upsert("a", "new"));
  CHECK(handle.buffer.upsert_ids() == strings{"b", "a"});
  CHECK(handle.visible().empty());
  handle.commit();
  CHECK(handle.visible().at("a") == "new");
}

TEST_CASE("of one id in one call the last record counts", "[pending]") {
  handle handle;
  REQUIRE(handle.buffer.upsert(
      {upsert_of("a", "1"), upsert_of("b", "2"), upsert_of("a", "3")}));
  CHECK(handle.buffer.upsert_ids() == strings{"a", "b"});
  CHECK(handle.buffer.find("a")->record == "3");
}

TEST_CASE("deleting what was never committed leaves no trace",
          "[pending][B61]") {
  handle handle;
  REQUIRE(handle.upsert("a"));
  REQUIRE(handle.remove({"a", "b", "a"}));
  CHECK(handle.buffer.empty());
  CHECK(handle.buffer.bytes() == 0);
  CHECK(handle.buffer.hidden_ids().empty());
}

TEST_CASE("a delete hides a committed row at once and removes it at commit",
          "[pending][B59][B60]") {
  handle handle;
  REQUIRE(handle.upsert("a"));
  handle.commit();
  REQUIRE(handle.remove({"a", "a"}));
  CHECK(handle.buffer.remove_count() == 1);
  CHECK(handle.visible().empty());
  CHECK(handle.committed.size() == 1);
  handle.commit();
  CHECK(handle.committed.empty());
  CHECK(handle.buffer.empty());
}

TEST_CASE("an id upserted again during a commit waits for the next one",
          "[pending]") {
  handle handle;
  REQUIRE(handle.upsert("a", "old"));
  auto batch = handle.buffer.take();
  REQUIRE(handle.upsert("a", "new"));
  CHECK(batch.changes.front()->record == "old");
  handle.land(batch);
  CHECK(handle.visible().at("a") == "old");
  CHECK(handle.buffer.find("a")->record == "new");
  handle.commit();
  CHECK(handle.visible().at("a") == "new");
}

TEST_CASE("a delete during a commit wins over the row in flight", "[pending]") {
  handle handle;
  REQUIRE(handle.upsert("a"));
  auto batch = handle.buffer.take();
  REQUIRE(handle.remove({"a"}));
  CHECK(handle.buffer.find("a") == nullptr);
  handle.land(batch);
  CHECK(handle.committed.contains("a"));
  CHECK(handle.visible().empty());
  handle.commit();
  CHECK(handle.committed.empty());
}

TEST_CASE("a delete and an upsert during a commit both count", "[pending]") {
  handle handle;
  REQUIRE(handle.upsert("a", "old"));
  auto batch = handle.buffer.take();
  REQUIRE(handle.remove({"a"}));
  REQUIRE(handle.upsert("a", "new"));
  handle.land(batch);
  CHECK(handle.visible().empty());
  CHECK(handle.buffer.find("a")->record == "new");
  handle.commit();
  CHECK(handle.visible().at("a") == "new");
}

TEST_CASE("a delete is over once its commit is done, whatever came after",
          "[pending]") {
  handle handle;
  REQUIRE(handle.upsert("a", "1"));
  handle.commit();
  REQUIRE(handle.remove({"a"}));
  REQUIRE(handle.upsert("a", "2"));
  auto batch = handle.buffer.take();
  REQUIRE(handle.upsert("a", "3"));
  CHECK(handle.visible().empty());
  handle.land(batch);
  CHECK(handle.visible().at("a") == "2");
}

TEST_CASE("a failed commit leaves changes and vectors for the next",
          "[pending][B71][B73]") {
  handle handle;
  REQUIRE(handle.upsert("a"));
  auto batch = handle.buffer.take();
  batch.changes.front()->vector = {1, 0, 0, 0};
  handle.buffer.put_back();
  auto again = handle.buffer.take();
  REQUIRE(ids_of(again) == strings{"a"});
  CHECK(again.changes.front()->vector.size() == dimension);
}

TEST_CASE("after a failed commit a delete of a new id leaves no trace",
          "[pending]") {
  handle handle;
  REQUIRE(handle.upsert("a"));
  auto batch = handle.buffer.take();
  handle.buffer.put_back();
  REQUIRE(handle.remove({"a"}));
  CHECK(handle.buffer.empty());
}

TEST_CASE("what a commit leaves out stays pending", "[pending][B35]") {
  handle handle;
  REQUIRE(handle.upsert("poison"));
  REQUIRE(handle.upsert("good"));
  auto batch = handle.buffer.take();
  batch.changes.erase(batch.changes.begin());
  handle.land(batch);
  CHECK(handle.buffer.upsert_ids() == strings{"poison"});
  REQUIRE(handle.remove({"poison"}));
  CHECK(handle.buffer.empty());
}

TEST_CASE("a full buffer refuses a whole call with busy", "[pending]") {
  handle handle({.operations_max = 3, .bytes_max = 1 << 20});
  REQUIRE(handle.upsert("a"));
  REQUIRE(handle.upsert("b"));
  auto refused =
      handle.buffer.upsert({upsert_of("c"), upsert_of("d"), upsert_of("a")});
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == errc::busy);
  CHECK(handle.buffer.upsert_ids() == strings{"a", "b"});
  CHECK(handle.buffer.upsert({upsert_of("a"), upsert_of("c")}));
  handle.commit();
  REQUIRE(handle.upsert("d"));
  auto too_many = handle.remove({"a", "b", "c"});
  REQUIRE_FALSE(too_many);
  CHECK(too_many.error().code == errc::busy);
  CHECK(handle.visible().size() == 3);
}

TEST_CASE("a call that no buffer can hold is too large, not busy",
          "[pending]") {
  handle handle({.operations_max = 2, .bytes_max = 400});
  auto many =
      handle.buffer.upsert({upsert_of("a"), upsert_of("b"), upsert_of("c")});
  REQUIRE_FALSE(many);
  CHECK(many.error().code == errc::too_large);
  auto large = handle.upsert("a", std::string(400, 'x'));
  REQUIRE_FALSE(large);
  CHECK(large.error().code == errc::too_large);
  CHECK(handle.buffer.empty());
}

TEST_CASE(
    "a batch takes as much as one commit does, and the next ones the rest",
    "[pending]") {
  const auto cost =
      1 + 2 + dimension * sizeof(float) + pending_buffer::change_overhead_bytes;
  const auto limits = GENERATE_COPY(
      pending_limits{.operations_max = 2, .bytes_max = 1 << 20},
      pending_limits{.operations_max = 99, .bytes_max = 2 * cost + 1});
  handle handle(limits);
  handle.buffer.adopt({waiting_of("a"), waiting_of("b"), waiting_of("c"),
                       waiting_of("d"), waiting_of("e")});
  auto batch = handle.buffer.take();
  CHECK(ids_of(batch) == strings{"a", "b"});
  CHECK_FALSE(batch.is_last);
  batch.changes.erase(batch.changes.begin()); // cannot be committed
  handle.buffer.adopt({waiting_of("later")});
  REQUIRE(handle.remove({"c"}));
  handle.land(batch);
  batch = handle.buffer.take_rest(batch);
  CHECK(ids_of(batch) == strings{"c", "d"});
  CHECK(batch.changes.front()->what == commit_operation::kind::remove);
  handle.land(batch);
  batch = handle.buffer.take_rest(batch);
  CHECK(ids_of(batch) == strings{"e"});
  CHECK(batch.is_last);
  handle.land(batch);
  CHECK(handle.buffer.upsert_ids() == strings{"a", "later"});
}

TEST_CASE("a change that is larger than a batch has one to itself",
          "[pending]") {
  handle handle({.operations_max = 9, .bytes_max = 1});
  handle.buffer.adopt({waiting_of("a"), waiting_of("b")});
  auto batch = handle.buffer.take();
  CHECK(ids_of(batch) == strings{"a"});
  handle.land(batch);
  CHECK(ids_of(handle.buffer.take_rest(batch)) == strings{"b"});
}

TEST_CASE("the delete of what the store keeps waiting is committed",
          "[pending]") {
  handle handle;
  handle.buffer.adopt({waiting_of("a"), waiting_of("b")});
  const auto is_replaced = GENERATE(false, true);
  if (is_replaced) {
    REQUIRE(handle.upsert("a", "newer"));
  }
  REQUIRE(handle.remove({"a"}));
  CHECK(handle.buffer.upsert_ids() == strings{"b"});
  CHECK(handle.buffer.remove_count() == 1);
  handle.commit();
  CHECK(handle.committed.size() == 1);
  REQUIRE(handle.upsert("a"));
  REQUIRE(handle.remove({"a"}));
  CHECK(handle.buffer.empty()); // it waits no more
}

TEST_CASE("what is adopted replaces only what was", "[pending]") {
  handle handle;
  REQUIRE(handle.upsert("mine", "newer"));
  handle.buffer.adopt({waiting_of("theirs", "1"), waiting_of("same", "1")});
  handle.buffer.find("same")->vector = {1, 0, 0, 0};
  handle.buffer.adopt({waiting_of("theirs", "2"), waiting_of("same", "1"),
                       waiting_of("mine", "2")});
  CHECK(handle.buffer.find("mine")->record == "newer");
  CHECK(handle.buffer.find("theirs")->record == "2");
  CHECK(handle.buffer.find("same")->vector.size() == dimension);
  REQUIRE(handle.remove({"mine"}));
  CHECK(handle.buffer.remove_count() == 1);
}

TEST_CASE("what was adopted is forgotten once somebody has committed it",
          "[pending]") {
  handle handle;
  handle.buffer.adopt({waiting_of("a"), waiting_of("b"), waiting_of("c")});
  REQUIRE(handle.upsert("b", "mine"));
  handle.buffer.forget_adopted([](std::string_view id) { return id != "c"; });
  CHECK(handle.buffer.upsert_ids() == strings{"b", "c"});
  handle.commit();
  CHECK(handle.buffer.bytes() == 0);
}

TEST_CASE("bytes count vectors still to be made and return to zero",
          "[pending]") {
  handle handle;
  REQUIRE(handle.upsert("ab", "12345"));
  CHECK(handle.buffer.bytes()
        == 2 + 5 + dimension * sizeof(float)
               + pending_buffer::change_overhead_bytes);
  REQUIRE(handle.upsert("ab", "1"));
  handle.commit();
  CHECK(handle.buffer.bytes() == 0);
  REQUIRE(handle.upsert("ab", "12345"));
  REQUIRE(handle.remove({"ab"}));
  CHECK(handle.buffer.bytes() == 2 + pending_buffer::change_overhead_bytes);
  handle.buffer.clear();
  CHECK(handle.buffer.bytes() == 0);
}

TEST_CASE("a delete asked for again after a drop counts as asked for then",
          "[pending]") {
  handle handle;
  handle.committed.emplace("a", "1");
  constexpr std::uint64_t later_drop_epoch = 3;
  const strings ids = {"a"};
  const auto is_committed = [](std::string_view) { return true; };
  REQUIRE(handle.remove(ids));
  REQUIRE(handle.buffer.remove(ids, later_drop_epoch, is_committed));
  const auto batch = handle.buffer.take();
  REQUIRE(batch.changes.size() == 1);
  CHECK(batch.changes.front()->drop_epoch == later_drop_epoch);
  CHECK(handle.buffer.remove_count() == 1);
}

TEST_CASE("a row can be hidden until its pending upsert is committed",
          "[pending]") {
  handle handle;
  handle.committed.emplace("a", "1");
  REQUIRE(handle.upsert("a", "2"));
  handle.buffer.hide("a");
  handle.buffer.hide("b");
  CHECK(handle.visible().empty());
  CHECK(handle.buffer.find("a")->record == "2");
  handle.commit();
  CHECK(handle.visible().at("a") == "2");
  CHECK(handle.buffer.empty());
}

TEST_CASE("pending relations are found by exact string equality",
          "[pending][B65][B66]") {
  handle handle;
  REQUIRE(handle.upsert("r1", R"({"src_id": "A", "tgt_id": "B"})"));
  REQUIRE(handle.upsert("r2", R"({"src_id": "a", "tgt_id": null})"));
  REQUIRE(handle.upsert("r3", R"({"src_id": "\u0041"})"));
  REQUIRE(handle.upsert("r4", R"({"content": "A"})"));
  CHECK(handle.buffer.ids_with(indexed_field::src_id, "A")
        == strings{"r1", "r3"});
  CHECK(handle.buffer.ids_with(indexed_field::tgt_id, "B") == strings{"r1"});
  CHECK(handle.buffer.ids_with(indexed_field::tgt_id, "null").empty());
}

namespace {

/// What a handle must show, straight from the list of all that was asked:
/// nothing here is updated, everything is searched anew.
struct model {
  struct asked {
    std::string id;
    std::optional<std::string> record; // empty: a delete
    bool hides = false;
  };

  std::vector<asked> history;
  /// Per id, how much of `history` its commits have made durable.
  std::map<std::string, std::size_t> durable;
  std::map<std::string, std::string> world;

  template <class Visitor>
  void for_each_pending(const std::string& id, Visitor visit) const {
    auto found = durable.find(id);
    for (auto i = found == durable.end() ? 0 : found->second;
         i < history.size(); ++i)
      if (history[i].id == id)
        visit(history[i]);
  }

  std::optional<std::string> pending(const std::string& id) const {
    std::optional<std::string> out;
    for_each_pending(id, [&](const asked& each) { out = each.record; });
    return out;
  }

  bool hidden(const std::string& id) const {
    bool out = false;
    for_each_pending(id, [&](const asked& each) { out = out || each.hides; });
    return out;
  }

  std::optional<std::string> visible(const std::string& id) const {
    auto found = world.find(id);
    if (found == world.end() || hidden(id))
      return std::nullopt;
    return found->second;
  }
};

/// Applies random requests to a buffer and to the model.
struct random_run {
  explicit random_run(std::uint32_t seed) : random(seed) {}

  std::size_t below(std::size_t limit) { return random() % limit; }
  std::string any_id() { return std::string(1, char('a' + below(6))); }

  void step() {
    switch (below(6)) {
    case 0:
    case 1:
      return upsert(any_id());
    case 2:
      return remove(any_id());
    case 3:
      if (!batch)
        start();
      return;
    case 4:
      if (batch)
        finish();
      return;
    default:
      if (batch && below(4) == 0)
        fail();
    }
  }

  void upsert(const std::string& id) {
    auto record = std::to_string(expected.history.size());
    REQUIRE(buffered.upsert(id, record));
    expected.history.push_back({id, record});
  }

  void remove(const std::string& id) {
    REQUIRE(buffered.remove({id}));
    auto is_in_flight = batch && taken.contains(id);
    expected.history.push_back(
        {id, std::nullopt, is_in_flight || expected.world.contains(id)});
  }

  void start() {
    batch = buffered.buffer.take();
    taken.clear();
    for (const auto& change : batch->changes)
      taken.insert(change->id);
    taken_at = expected.history.size();
    std::erase_if(batch->changes, [&](const pending_change& change) {
      return change->what == commit_operation::kind::upsert && below(5) == 0;
    });
  }

  void finish() {
    buffered.land(*batch);
    for (const auto& change : batch->changes) {
      if (change->what == commit_operation::kind::upsert)
        expected.world[change->id] = change->record;
      else
        expected.world.erase(change->id);
      expected.durable[change->id] = taken_at;
    }
    batch.reset();
  }

  void fail() {
    buffered.buffer.put_back();
    batch.reset();
  }

  void compare() {
    auto visible = buffered.visible();
    std::size_t pending_count = 0;
    for (char letter = 'a'; letter < 'g'; ++letter) {
      std::string id(1, letter);
      auto found = buffered.buffer.find(id);
      auto pending =
          found ? std::optional(found->record) : std::optional<std::string>();
      CHECK(pending == expected.pending(id));
      pending_count += found ? 1 : 0;
      auto row = visible.find(id);
      auto seen = row == visible.end() ? std::optional<std::string>()
                                       : std::optional(row->second);
      CHECK(seen == expected.visible(id));
    }
    CHECK(buffered.buffer.upsert_count() == pending_count);
    CHECK(buffered.buffer.upsert_ids().size() == pending_count);
  }

  std::mt19937 random;
  handle buffered;
  model expected;
  std::optional<pending_batch> batch;
  std::set<std::string> taken;
  std::size_t taken_at = 0;
};

} // namespace

TEST_CASE("any history of requests and commits is seen as a plain list of"
          " them tells",
          "[pending][random]") {
  auto seed = GENERATE(range(1U, 200U));
  INFO("seed " << seed);
  random_run run(seed);
  for (int step = 0; step < 120; ++step) {
    INFO("step " << step);
    run.step();
    run.compare();
  }
  if (run.batch)
    run.finish();
  // Nothing is left out from here on: the buffer empties itself.
  run.buffered.commit();
  CHECK(run.buffered.buffer.empty());
  INFO("bytes left: " << cost_of(run.buffered.buffer));
  CHECK(run.buffered.buffer.bytes() == 0);
}
