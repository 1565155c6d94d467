#include "actors/storage_machine.hpp"
#include "core/search.hpp"
#include "tests/support/machine_handle.hpp"

#include <catch2/catch.hpp>

#include <map>
#include <random>

using namespace callboard;
using namespace callboard::test;

namespace {

using rows = std::map<std::string, std::string>;
using strings = std::vector<std::string>;

} // namespace

TEST_CASE("upserts are pending, seen by get and not by queries, until commit",
          "[machine][B31][B39][B52]") {
  scratch_directory where;
  test_handle mine(where);
  need(mine.upsert("a", "one").get());
  CHECK(mine.services.is_idle());
  CHECK(mine.content_of("a") == "one");
  CHECK(mine.visible().empty());
  auto done = mine.settle(mine.commit());
  CHECK(done.committed == 1);
  CHECK(done.generation == 1);
  CHECK(mine.visible() == rows{{"a", "one"}});
  CHECK(mine.machine->pending_ids().empty());
}

TEST_CASE("an id upserted again during a commit keeps its newer content for"
          " the next commit",
          "[machine]") {
  scratch_directory where;
  test_handle mine(where);
  need(mine.upsert("a", "old").get());
  auto first = mine.commit();
  mine.services.embed_texts();
  need(mine.upsert("a", "new").get());
  CHECK(mine.content_of("a") == "new");
  mine.settle(first);
  CHECK(mine.visible() == rows{{"a", "old"}});
  CHECK(mine.machine->pending_ids() == strings{"a"});
  mine.settle(mine.commit());
  CHECK(mine.visible() == rows{{"a", "new"}});
}

TEST_CASE("a delete during a commit wins over the row in flight", "[machine]") {
  scratch_directory where;
  test_handle mine(where);
  need(mine.upsert("a", "one").get());
  auto first = mine.commit();
  mine.services.embed_texts();
  need(mine.remove({"a"}).get());
  mine.settle(first);
  CHECK(mine.content_of("a").empty());
  CHECK(mine.visible().empty());
  mine.settle(mine.commit());
  test_handle other(where);
  CHECK(other.visible().empty());
}

TEST_CASE("commits that arrive during a commit share the next one",
          "[machine]") {
  scratch_directory where;
  test_handle mine(where);
  need(mine.upsert("a", "one").get());
  auto first = mine.commit();
  need(mine.upsert("b", "two").get());
  auto second = mine.commit();
  auto third = mine.commit();
  mine.services.settle();
  CHECK(need(first.get()).committed == 1);
  CHECK(need(second.get()).generation == 2);
  CHECK(need(third.get()).generation == 2);
  CHECK(mine.script->commits == 2);
}

TEST_CASE("a commit that expects a generation shares with nobody",
          "[machine]") {
  scratch_directory where;
  test_handle mine(where);
  mine.put("a", "one");
  need(mine.upsert("b", "two").get());
  auto first = mine.commit(1);
  need(mine.upsert("c", "three").get());
  auto second = mine.commit(1);
  auto third = mine.commit();
  mine.services.settle();
  CHECK(need(first.get()).generation == 2);
  CHECK(failure_of(second.get()).code == errc::conflict);
  CHECK(need(third.get()).generation == 3);
  CHECK(mine.visible().size() == 3);
}

TEST_CASE("a conflict keeps what is pending", "[machine]") {
  scratch_directory where;
  test_handle mine(where);
  test_handle other(where);
  other.put("x", "foreign");
  mine.settle(mine.upsert("a", "one"));
  auto refused = mine.commit(0);
  mine.services.settle();
  CHECK(failure_of(refused.get()).code == errc::conflict);
  CHECK(mine.machine->pending_ids() == strings{"a"});
  mine.settle(mine.commit(1));
  CHECK(mine.visible() == rows{{"a", "one"}, {"x", "foreign"}});
}

TEST_CASE("a failed batch fails the commit and keeps the vectors made",
          "[machine][B71]") {
  scratch_directory where;
  test_handle mine(where, {}, {.batch_texts_max = 1, .batches_at_once = 2});
  for (const char* id : {"a", "b", "c", "d"})
    need(mine.upsert(id, id).get());
  auto failed = mine.commit();
  REQUIRE(mine.services.texts.size() == 2);
  mine.services.embed_texts();
  mine.services.answer_texts(failure{errc::embedding_failed, "no model"});
  CHECK_FALSE(failed.is_answered()); // "c" was sent before the failure
  mine.services.embed_texts();
  CHECK(failure_of(failed.get()).message == "no model");
  CHECK(mine.services.is_idle()); // "d" was not sent
  CHECK(mine.machine->pending_ids() == strings{"a", "b", "c", "d"});

  mine.services.batches_sent = 0;
  CHECK(mine.settle(mine.commit()).committed == 4);
  CHECK(mine.services.batches_sent == 2); // "b" and "d"
}

TEST_CASE("a failed save keeps what is pending and its vectors",
          "[machine][B73][B75]") {
  scratch_directory where;
  test_handle mine(where);
  need(mine.upsert("a", "one").get());
  mine.script->on_commit = [] {
    return std::optional(failure{errc::no_space, "full"});
  };
  auto failed = mine.commit();
  mine.services.settle();
  CHECK(failure_of(failed.get()).code == errc::no_space);
  CHECK(mine.content_of("a") == "one");
  CHECK(mine.visible().empty());
  mine.script->on_commit = nullptr;
  mine.services.batches_sent = 0;
  mine.settle(mine.commit());
  CHECK(mine.services.batches_sent == 0);
  CHECK(mine.visible() == rows{{"a", "one"}});
}

TEST_CASE("after a failed sync the next commit opens the store anew",
          "[machine]") {
  scratch_directory where;
  test_handle mine(where);
  need(mine.upsert("a", "one").get());
  mine.script->on_commit = [] {
    return std::optional(failure{errc::broken, "sync failed"});
  };
  auto failed = mine.commit();
  mine.services.settle();
  CHECK(failure_of(failed.get()).code == errc::broken);
  CHECK(mine.script->opened == 1);
  CHECK(mine.visible().empty()); // still reads
  mine.script->on_commit = nullptr;
  mine.settle(mine.commit());
  CHECK(mine.script->opened == 2);
  CHECK(mine.visible() == rows{{"a", "one"}});
}

TEST_CASE("a poison record fails by name and the others commit",
          "[machine][B35]") {
  scratch_directory where;
  test_handle mine(where);
  need(mine.upsert_record("bare", R"({"src_id": "A"})").get());
  need(mine.upsert("refused", "bad text").get());
  need(mine.upsert_record("number", R"({"content": 7})").get());
  need(mine.upsert("good", "good text").get());
  auto commit = mine.commit();
  auto answered = batch_of(mine.services.texts.front().request.texts);
  answered.rejected.push_back({0, "too long"});
  mine.services.answer_texts(std::move(answered));
  auto done = mine.settle(commit);
  CHECK(done.committed == 1);
  REQUIRE(done.failed.size() == 3);
  CHECK(done.failed[0].id == "bare");
  CHECK(contains(done.failed[0].reason.message, "content"));
  CHECK(done.failed[1].id == "refused");
  CHECK(contains(done.failed[1].reason.message, "too long"));
  CHECK(done.failed[2].id == "number");
  CHECK(mine.machine->pending_ids() == strings{"bare", "refused", "number"});

  // Replaced, deleted, embedded at last: nothing is poisoned for ever.
  mine.settle(mine.upsert("bare", "has content"));
  mine.settle(mine.remove({"number"}));
  CHECK(mine.settle(mine.commit()).committed == 2);
  CHECK(mine.machine->pending_ids().empty());
}

TEST_CASE("a commit of poison alone still tells the generation", "[machine]") {
  scratch_directory where;
  test_handle mine(where);
  mine.put("a", "one");
  mine.settle(mine.upsert_record("bare", "{}"));
  auto done = mine.settle(mine.commit());
  CHECK(done.generation == 1);
  CHECK(done.committed == 0);
  CHECK(done.failed.size() == 1);
}

TEST_CASE("lone surrogates reach the embedder as replacement characters",
          "[machine]") {
  scratch_directory where;
  test_handle mine(where);
  mine.settle(mine.upsert("a", "x\\ud800y"));
  auto commit = mine.commit();
  CHECK(mine.services.texts.front().request.texts == strings{"x\xef\xbf\xbdy"});
  mine.settle(commit);
}

TEST_CASE("a content that a commit and a reader need is embedded once",
          "[machine][B56]") {
  scratch_directory where;
  test_handle mine(where);
  need(mine.upsert("a", "one").get());
  auto commit = mine.commit();
  auto vectors = mine.get_vectors({"a", "a", "missing"});
  CHECK(mine.services.batches_sent == 1);
  mine.services.embed_texts();
  REQUIRE(need(vectors.get()).size() == 1);
  CHECK(need(vectors.get()).front().id == "a");
  CHECK(need(vectors.get()).front().vector.size() == test_dimension);
  mine.settle(commit);
  CHECK(mine.services.batches_sent == 1);
  CHECK(mine.settle(mine.get_vectors({"a"})).front().vector
        == need(vectors.get()).front().vector);
}

TEST_CASE("vectors of pending records are embedded on demand and reused",
          "[machine][B55][B56]") {
  scratch_directory where;
  test_handle mine(where);
  mine.put("old", "zero");
  mine.settle(mine.upsert("a", "one"));
  auto found = mine.settle(mine.get_vectors({"a", "old"}));
  REQUIRE(found.size() == 2);
  CHECK(found[0].id == "a");
  CHECK(found[1].id == "old");
  mine.services.batches_sent = 0;
  mine.settle(mine.commit());
  CHECK(mine.services.batches_sent == 0);
  mine.settle(mine.upsert("a", "one"));
  mine.settle(mine.commit());
  CHECK(mine.services.batches_sent == 1); // upserted again: made anew
}

TEST_CASE("errors of embedding on demand propagate and change nothing",
          "[machine][B57]") {
  scratch_directory where;
  test_handle mine(where);
  mine.settle(mine.upsert("a", "one"));
  auto failed = mine.get_vectors({"a"});
  mine.services.answer_texts(failure{errc::embedding_failed, "no model"});
  CHECK(failure_of(failed.get()).code == errc::embedding_failed);
  mine.settle(mine.upsert_record("bare", "{}"));
  auto poisoned = mine.get_vectors({"bare"});
  CHECK(failure_of(poisoned.get()).code == errc::invalid_argument);
  CHECK(mine.machine->pending_ids() == strings{"a", "bare"});
}

TEST_CASE("a reader's failed batch does not fail a commit without its records",
          "[machine]") {
  scratch_directory where;
  test_handle mine(where, {}, {.batch_texts_max = 1, .batches_at_once = 4});
  mine.settle(mine.upsert("a", "one"));
  auto reading = mine.get_vectors({"a"});
  need(mine.remove({"a"}).get());
  need(mine.upsert("b", "two").get());
  auto commit = mine.commit();
  mine.services.answer_texts(failure{errc::embedding_failed, "no model"});
  CHECK_FALSE(reading.get());
  mine.settle(commit);
  CHECK(mine.visible() == rows{{"b", "two"}});
}

TEST_CASE("reads are answered while a job on the store is under way",
          "[machine]") {
  scratch_directory where;
  test_handle mine(where);
  mine.put("a", "one");
  need(mine.upsert("b", "two").get());
  auto commit = mine.commit();
  mine.services.embed_texts();
  REQUIRE(mine.services.jobs.size() == 1);
  CHECK(need(mine.get({"a", "b"}).get()).size() == 2);
  CHECK(need(mine.snapshot().get())->live_count() == 1);
  need(mine.upsert("c", "three").get());
  need(mine.remove({"a"}).get());
  mine.settle(commit);
  CHECK(mine.visible() == rows{{"b", "two"}});
}

TEST_CASE("reads wait for what somebody else has committed", "[machine][B92]") {
  scratch_directory where;
  test_handle mine(where);
  test_handle other(where);
  other.put("a", "foreign");
  auto read = mine.get({"a"});
  CHECK_FALSE(read.is_answered());
  auto second = mine.snapshot();
  CHECK(mine.services.jobs.size() == 1); // one refresh for both
  mine.services.settle();
  CHECK(test_handle::content_in(need(read.get()).front()) == "foreign");
  CHECK(need(second.get())->live_count() == 1);
}

TEST_CASE("a failed refresh fails the reads that need it", "[machine][B94]") {
  scratch_directory where;
  test_handle mine(where);
  test_handle other(where);
  other.put("a", "foreign");
  mine.script->on_refresh = [] {
    return std::optional(failure{errc::corrupt, "damaged"});
  };
  auto read = mine.get({"a"});
  auto change = mine.upsert("b", "two");
  mine.services.settle();
  CHECK(failure_of(read.get()).code == errc::corrupt);
  CHECK(failure_of(change.get()).code == errc::corrupt);
  mine.script->on_refresh = nullptr;
  CHECK(mine.content_of("a") == "foreign");
}

TEST_CASE("deletes stay hidden when others commit", "[machine][B95]") {
  scratch_directory where;
  test_handle mine(where);
  mine.put("a", "one");
  mine.settle(mine.remove({"a"}));
  test_handle other(where);
  other.put("b", "foreign");
  CHECK(mine.visible() == rows{{"b", "foreign"}});
  CHECK(mine.content_of("a").empty());
  CHECK(other.visible().size() == 2);
}

TEST_CASE("a commit keeps what others have committed meanwhile",
          "[machine][B78][B87]") {
  scratch_directory where;
  test_handle mine(where);
  test_handle other(where);
  mine.settle(mine.upsert("a", "one"));
  mine.settle(mine.upsert("shared", "mine"));
  other.put("b", "foreign");
  other.put("shared", "theirs");
  mine.settle(mine.commit());
  rows expected{{"a", "one"}, {"b", "foreign"}, {"shared", "mine"}};
  CHECK(mine.visible() == expected);
  CHECK(other.visible() == expected);
}

TEST_CASE("what was pending before somebody's drop is discarded and counted",
          "[machine][B83]") {
  scratch_directory where;
  test_handle mine(where);
  test_handle other(where);
  mine.put("old", "zero");
  mine.settle(mine.upsert("before", "one"));
  mine.settle(mine.remove({"old"}));
  other.settle(other.drop());
  mine.settle(mine.upsert("after", "two"));
  auto done = mine.settle(mine.commit());
  CHECK(done.committed == 1);
  CHECK(done.discarded == 2);
  CHECK(mine.visible() == rows{{"after", "two"}});
  CHECK(mine.machine->pending_ids().empty());
}

TEST_CASE("a change asked for after a foreign drop survives, even during a"
          " commit",
          "[machine]") {
  scratch_directory where;
  test_handle mine(where);
  test_handle other(where);
  mine.settle(mine.upsert("before", "one"));
  auto commit = mine.commit();
  mine.services.embed_texts(); // the commit waits for its turn
  other.settle(other.drop());
  auto upsert = mine.upsert("after", "two");
  CHECK_FALSE(upsert.is_answered());
  auto next = mine.commit();
  mine.services.settle();
  need(upsert.get());
  CHECK(need(commit.get()).discarded == 1);
  CHECK(need(next.get()).committed == 1);
  CHECK(mine.visible() == rows{{"after", "two"}});
}

TEST_CASE("a drop waits for the commit in flight and ends all that is pending",
          "[machine][B81]") {
  scratch_directory where;
  test_handle mine(where);
  need(mine.upsert("a", "one").get());
  auto commit = mine.commit();
  need(mine.upsert("b", "two").get());
  auto drop = mine.drop();
  auto later = mine.upsert("c", "three");
  auto later_commit = mine.commit();
  CHECK_FALSE(later.is_answered());
  CHECK(need(mine.get({"b"}).get()).front().has_value()); // not yet dropped
  mine.services.settle();
  CHECK(need(commit.get()).committed == 1);
  need(drop.get());
  need(later.get());
  CHECK(need(later_commit.get()).committed == 1);
  CHECK(mine.visible() == rows{{"c", "three"}});
  CHECK(mine.content_of("b").empty());
  CHECK(mine.settle(mine.stats()).pending_deletes == 0);
}

TEST_CASE("a failed drop changes nothing", "[machine][B82]") {
  scratch_directory where;
  test_handle mine(where);
  mine.put("a", "one");
  mine.settle(mine.upsert("b", "two"));
  mine.script->on_drop = [] {
    return std::optional(failure{errc::busy, "locked"});
  };
  auto drop = mine.drop();
  mine.services.settle();
  CHECK(failure_of(drop.get()).code == errc::busy);
  CHECK(mine.visible() == rows{{"a", "one"}});
  CHECK(mine.machine->pending_ids() == strings{"b"});
  mine.settle(mine.commit());
  CHECK(mine.visible().size() == 2);
}

TEST_CASE("relations go with either end, pending or committed",
          "[machine][B65][B66]") {
  scratch_directory where;
  test_handle mine(where);
  auto relate = [&](std::string id, std::string source, std::string target) {
    mine.settle(mine.upsert_record(std::move(id),
                                   R"({"content": "x", "src_id": ")" + source
                                       + R"(", "tgt_id": ")" + target + "\"}"));
  };
  relate("r1", "A", "B");
  relate("r2", "B", "A");
  relate("r3", "a", "b");
  mine.settle(mine.commit());
  relate("r4", "A", "C");
  relate("r5", "C", "D");
  receipt<void> removed;
  mine.machine->remove_relation("A", removed.way());
  mine.settle(removed);
  CHECK(mine.visible() == rows{{"r3", "x"}});
  CHECK(mine.machine->pending_ids() == strings{"r5"});
  mine.settle(mine.commit());
  CHECK(mine.visible() == rows{{"r3", "x"}, {"r5", "x"}});
}

TEST_CASE("a row and what is pending for its id go by their own relations",
          "[machine][B65]") {
  scratch_directory where;
  test_handle mine(where);
  auto relate = [&](std::string id, std::string source, std::string content) {
    mine.settle(mine.upsert_record(std::move(id), R"({"content": ")" + content
                                                      + R"(", "src_id": ")"
                                                      + source + "\"}"));
  };
  relate("r1", "A", "old");
  relate("r2", "B", "old");
  mine.settle(mine.commit());
  relate("r1", "B", "new");
  relate("r2", "A", "new");
  receipt<void> removed;
  mine.machine->remove_relation("A", removed.way());
  mine.settle(removed);
  CHECK(mine.visible() == rows{{"r2", "old"}});
  CHECK(mine.machine->pending_ids() == strings{"r1"});
  mine.settle(mine.commit());
  CHECK(mine.visible() == rows{{"r1", "new"}, {"r2", "old"}});
}

TEST_CASE("finalize publishes the pair, and does nothing when it need not",
          "[machine][B85][B86]") {
  scratch_directory where;
  test_handle mine(where);
  mine.settle(mine.upsert("a", "one"));
  CHECK(mine.settle(mine.finalize()).committed == 1);
  CHECK(contains(read_file(where / "faiss_index_relationships.index.meta.json"),
                 "one"));
  CHECK(mine.script->checkpoints == 1);
  mine.settle(mine.finalize());
  CHECK(mine.script->checkpoints == 1);
}

TEST_CASE("commits go on while a checkpoint is written", "[machine]") {
  scratch_directory where;
  test_handle mine(where);
  mine.put("a", "one");
  auto checkpoint = mine.checkpoint(compaction::none);
  mine.services.finish_job(); // begun; now it is written
  REQUIRE(mine.services.jobs.size() == 1);
  auto writing = std::move(mine.services.jobs.front());
  mine.services.jobs.pop_front();
  mine.put("b", "two");
  auto finalized = mine.finalize();
  mine.services.settle();
  CHECK_FALSE(checkpoint.is_answered());
  CHECK_FALSE(finalized.is_answered()); // waits for it
  writing.work->run();
  writing.done({});
  mine.services.settle();
  need(checkpoint.get());
  need(finalized.get());
  CHECK(mine.visible() == rows{{"a", "one"}, {"b", "two"}});
  CHECK(contains(read_file(where / "faiss_index_relationships.index.meta.json"),
                 "two"));
}

TEST_CASE("a log that has outgrown its base is folded after a commit",
          "[machine]") {
  scratch_directory where;
  test_handle mine(where);
  mine.script->checkpoint_is_due = true;
  mine.settle(mine.upsert("a", "one"));
  mine.settle(mine.commit());
  CHECK(mine.script->checkpoints == 1);
  CHECK(mine.settle(mine.stats()).store.base_generation == 1);

  open_options by_hand;
  by_hand.automatic_checkpoints = false;
  test_handle manual(where, by_hand);
  manual.script->checkpoint_is_due = true;
  manual.put("b", "two");
  CHECK(manual.script->checkpoints == 0);
}

TEST_CASE("only checkpoints that somebody asked for wait for others'",
          "[machine]") {
  scratch_directory where;
  test_handle mine(where);
  mine.script->checkpoint_is_due = true;
  mine.settle(mine.upsert("a", "one"));
  mine.settle(mine.commit());
  mine.script->checkpoint_is_due = false;
  mine.settle(mine.checkpoint(compaction::none));
  mine.settle(mine.upsert("b", "two"));
  mine.settle(mine.finalize());
  CHECK(mine.script->checkpoint_waits
        == std::vector{callboard::patience::none,
                       callboard::patience::lock_timeout,
                       callboard::patience::lock_timeout});
}

TEST_CASE("an automatic checkpoint that fails fails no commit", "[machine]") {
  scratch_directory where;
  test_handle mine(where);
  mine.script->checkpoint_is_due = true;
  mine.script->on_begin_checkpoint = [] {
    return std::optional(failure{errc::busy, "others"});
  };
  mine.put("a", "one");
  auto asked = mine.checkpoint();
  mine.services.settle();
  CHECK(failure_of(asked.get()).code == errc::busy);
  mine.script->on_begin_checkpoint = nullptr;
  mine.put("b", "two");
  CHECK(mine.visible().size() == 2);
}

TEST_CASE("a store opened anew during a checkpoint gives the checkpoint up",
          "[machine]") {
  scratch_directory where;
  test_handle mine(where);
  mine.put("a", "one");
  auto checkpoint = mine.checkpoint(compaction::none);
  mine.services.finish_job();
  auto writing = std::move(mine.services.jobs.front());
  mine.services.jobs.pop_front();
  mine.script->on_commit = [] {
    return std::optional(failure{errc::broken, "sync failed"});
  };
  mine.settle(mine.upsert("b", "two"));
  auto failed = mine.commit();
  mine.services.settle();
  CHECK_FALSE(failed.get());
  mine.script->on_commit = nullptr;
  mine.settle(mine.commit());
  writing.work->run();
  writing.done({});
  mine.services.settle();
  CHECK(failure_of(checkpoint.get()).code == errc::busy);
  mine.settle(mine.checkpoint(compaction::none));
  CHECK(mine.visible() == rows{{"a", "one"}, {"b", "two"}});
}

namespace {

/// What LightRAG leaves that died before it wrote the index.
void write_records_without_vectors(const scratch_directory& where,
                                   const rows& contents) {
  std::string meta;
  std::size_t row = 0;
  for (const auto& [id, content] : contents) {
    meta += meta.empty() ? "{\"" : ", \"";
    meta += std::to_string(row++);
    meta += R"(": {"__id__": ")" + id + R"(", "content": ")" + content + "\"}";
  }
  meta += "}";
  write_file(where / "faiss_index_relationships.index.meta.json", meta);
}

} // namespace

TEST_CASE("a record that came without a vector stays deleted", "[machine]") {
  scratch_directory where;
  write_records_without_vectors(where, {{"a", "one"}, {"b", "two"}});
  {
    test_handle mine(where);
    const auto is_replaced = GENERATE(false, true);
    if (is_replaced)
      mine.settle(mine.upsert("a", "newer"));
    mine.settle(mine.remove({"a"}));
    CHECK(mine.content_of("a").empty());
    mine.settle(mine.commit());
    CHECK(mine.visible() == rows{{"b", "two"}});
  }
  test_handle later(where);
  CHECK(later.machine->pending_ids().empty());
  CHECK(later.visible() == rows{{"b", "two"}});
}

TEST_CASE("relations that came without a vector stay deleted", "[machine]") {
  scratch_directory where;
  write_file(where / "faiss_index_relationships.index.meta.json",
             R"({"0": {"__id__": "a", "content": "one", "src_id": "A"}})");
  test_handle mine(where);
  receipt<void> removed;
  mine.machine->remove_relation("A", removed.way());
  mine.settle(removed);
  mine.settle(mine.commit());
  test_handle later(where);
  CHECK(later.machine->pending_ids().empty());
}

TEST_CASE("a record that came without a vector gives way to what others have"
          " committed since",
          "[machine]") {
  scratch_directory where;
  write_records_without_vectors(where, {{"a", "old"}, {"b", "old"}});
  test_handle mine(where);
  const auto is_under_way = GENERATE(false, true);
  receipt<commit_result> under_way;
  if (is_under_way) {
    under_way = mine.commit();
    mine.services.embed_texts();
  }
  {
    test_handle other(where);
    other.settle(other.upsert("a", "new"));
    other.settle(other.remove({"b"}));
    other.settle(other.commit());
  }
  if (is_under_way) {
    CHECK(mine.settle(under_way).discarded == 2);
  } else {
    CHECK(mine.content_of("a") == "new");
    CHECK(mine.machine->pending_ids() == strings{"b"});
    CHECK(mine.settle(mine.commit()).discarded == 1);
  }
  CHECK(mine.visible() == rows{{"a", "new"}});
  CHECK(mine.machine->pending_ids().empty());
}

TEST_CASE("a record of a pair that is too large to commit fails by name",
          "[machine]") {
  scratch_directory where;
  write_records_without_vectors(
      where, {{"a", std::string(record_bytes_max, 'x')}, {"b", "two"}});
  test_handle mine(where);
  auto done = mine.settle(mine.commit());
  REQUIRE(done.failed.size() == 1);
  CHECK(done.failed.front().id == "a");
  CHECK(done.failed.front().reason.code == errc::too_large);
  CHECK(mine.visible() == rows{{"b", "two"}});
  mine.settle(mine.remove({"a"}));
  mine.settle(mine.commit());
  CHECK(mine.machine->pending_ids().empty());
}

TEST_CASE("more than one commit takes is committed batch by batch",
          "[machine]") {
  scratch_directory where;
  write_records_without_vectors(
      where, {{"a", "1"}, {"b", "2"}, {"c", "3"}, {"d", "4"}, {"e", "5"}});
  open_options options;
  options.pending_operations_max = 2;
  test_handle mine(where, options);
  auto first = mine.commit();
  REQUIRE(mine.services.texts.front().request.texts == strings{"1", "2"});
  auto second = mine.commit();
  mine.services.settle();
  const auto before = need(second.get()).generation;
  CHECK(need(first.get()).generation == before);
  CHECK(need(first.get()).committed == 5);
  CHECK(before == 3);
  CHECK(need(second.get()).committed == 0);
  CHECK(mine.visible().size() == 5);
  CHECK(mine.machine->pending_ids().empty());
  mine.put("f", "6");
}

TEST_CASE("what cannot be committed does not keep the batches after it back",
          "[machine]") {
  scratch_directory where;
  write_records_without_vectors(where, {{"a", "1"}, {"b", "2"}, {"c", "3"}});
  open_options options;
  options.pending_operations_max = 1;
  test_handle mine(where, options);
  auto commit = mine.commit();
  auto refused = batch_of(mine.services.texts.front().request.texts);
  refused.rejected.push_back({0, "too long"});
  mine.services.answer_texts(std::move(refused));
  auto done = mine.settle(commit);
  CHECK(done.committed == 2);
  REQUIRE(done.failed.size() == 1);
  CHECK(done.failed.front().id == "a");
  CHECK(mine.machine->pending_ids() == strings{"a"});
}

TEST_CASE("a batch that fails keeps those before it committed and the rest"
          " pending",
          "[machine]") {
  scratch_directory where;
  write_records_without_vectors(where, {{"a", "1"}, {"b", "2"}, {"c", "3"}});
  open_options options;
  options.pending_operations_max = 1;
  test_handle mine(where, options);
  auto failed = mine.commit();
  mine.services.embed_texts();
  mine.services.finish_job();
  mine.services.answer_texts(failure{errc::embedding_failed, "no model"});
  CHECK(failure_of(failed.get()).message == "no model");
  CHECK(mine.visible() == rows{{"a", "1"}});
  CHECK(mine.machine->pending_ids() == strings{"b", "c"});
  CHECK(mine.settle(mine.commit()).committed == 2);
}

TEST_CASE("a commit that expects a generation is not split", "[machine]") {
  scratch_directory where;
  write_records_without_vectors(where, {{"a", "1"}, {"b", "2"}});
  open_options options;
  options.pending_operations_max = 1;
  test_handle mine(where, options);
  auto refused = mine.commit(0);
  CHECK(failure_of(refused.get()).code == errc::too_large);
  CHECK(mine.services.is_idle());
  CHECK(mine.machine->pending_ids() == strings{"a", "b"});
  mine.settle(mine.commit());
  mine.settle(mine.upsert("c", "3"));
  CHECK(mine.settle(mine.commit(2)).generation == 3);
}

TEST_CASE("records that came without a vector are pending from the start",
          "[machine]") {
  scratch_directory where;
  write_file(where / "faiss_index_relationships.index.meta.json",
             R"({"0": {"__id__": "a", "__created_at__": 5, "content": "one", )"
             R"("extra": 1}})");
  test_handle mine(where);
  CHECK(mine.machine->pending_ids() == strings{"a"});
  mine.settle(mine.commit());
  CHECK(mine.visible() == rows{{"a", "one"}});
  auto found = mine.settle(mine.get({"a"})).front();
  CHECK(contains(found->record, "extra")); // kept whole
}

TEST_CASE("a full buffer answers busy and takes nothing of the call",
          "[machine]") {
  scratch_directory where;
  open_options options;
  options.pending_operations_max = 2;
  test_handle mine(where, options);
  mine.settle(mine.upsert("a", "one"));
  receipt<void> refused;
  mine.machine->upsert({{"b", "{}", {}}, {"c", "{}", {}}}, refused.way());
  CHECK(failure_of(refused.get()).code == errc::busy);
  CHECK(mine.machine->pending_ids() == strings{"a"});
}

TEST_CASE("bad records are refused by name, all or nothing",
          "[machine][B36][B47]") {
  scratch_directory where;
  test_handle mine(where);
  auto upsert = [&](upsert_item bad) {
    receipt<void> out;
    mine.machine->upsert({{"good", "{}", {}}, std::move(bad)}, out.way());
    CHECK(mine.machine->pending_ids().empty());
    return failure_of(out.get());
  };
  CHECK(upsert({"x", "[]", {}}).code == errc::invalid_argument);
  CHECK(upsert({"", "{}", {}}).code == errc::invalid_argument);
  auto dimension = upsert({"odd", "{}", {1, 2}});
  CHECK(dimension.code == errc::dimension_mismatch);
  CHECK(contains(dimension.message, "odd"));
  auto zero = upsert({"nought", "{}", {0, 0, 0, 0}});
  CHECK(zero.code == errc::invalid_argument);
  CHECK(contains(zero.message, "nought"));
}

TEST_CASE("bad queries are errors, before anything is embedded or read",
          "[machine][B44][B45]") {
  scratch_directory where;
  test_handle mine(where);
  receipt<search_request> none;
  mine.machine->query_text("x", {.top_k = 0, .threshold = {}}, none.way());
  CHECK(failure_of(none.get()).code == errc::invalid_argument);
  receipt<search_request> bytes;
  mine.machine->query_text("\xff", {}, bytes.way());
  CHECK(failure_of(bytes.get()).code == errc::invalid_argument);
  receipt<search_request> twice;
  mine.machine->query_vector(std::vector<float>(2 * test_dimension, 1.0F), {},
                             twice.way());
  CHECK(failure_of(twice.get()).code == errc::dimension_mismatch);
  receipt<search_request> ragged;
  mine.machine->query_batch({1, 2, 3}, {}, ragged.way());
  CHECK(failure_of(ragged.get()).code == errc::dimension_mismatch);
  CHECK(mine.services.is_idle());
}

TEST_CASE("a text query sees what was committed while it was embedded",
          "[machine][B50]") {
  scratch_directory where;
  test_handle mine(where);
  test_handle other(where);
  receipt<search_request> query;
  mine.machine->query_text("x", {}, query.way());
  other.put("a", "foreign");
  mine.services.settle();
  CHECK(need(query.get()).view->live_count() == 1);
  CHECK(need(query.get()).parameters.threshold == 0.2);
}

namespace {

/// Random requests, batches and jobs in random order; the model learns of a
/// request when it is answered.
class random_handle {
public:
  random_handle(const scratch_directory& where, std::uint32_t seed)
      : mine_(where, {}, {.batch_texts_max = 2, .batches_at_once = 2}),
        other_(where),
        random_(seed) {}

  void step() {
    switch (below(12)) {
    case 0:
    case 1:
    case 2:
      return upsert(any_id());
    case 3:
      return remove(any_id());
    case 4:
      return commit();
    case 5:
      return below(6) == 0 ? drop()
                           : mine_.machine->checkpoint(compaction::forced,
                                                       [](result<void>) {});
    case 6:
      return other_.put("foreign", std::to_string(below(100)));
    case 7:
    case 8:
      return advance_texts();
    default:
      if (!mine_.services.jobs.empty())
        mine_.services.finish_job();
    }
  }

  void compare() {
    for (char letter = 'a'; letter < 'f'; ++letter) {
      std::string id(1, letter);
      auto read = mine_.get({id});
      if (!read.is_answered())
        return; // a refresh comes first
      auto expected = contents_.find(id);
      auto content = expected == contents_.end() ? "" : expected->second;
      CHECK(test_handle::content_in(need(read.get()).front()) == content);
    }
  }

  /// Afterwards everybody sees what was answered last.
  void finish() {
    mine_.services.settle();
    mine_.settle(mine_.commit());
    CHECK(mine_.machine->pending_ids().empty());
    auto visible = mine_.visible();
    CHECK(other_.visible() == visible);
    visible.erase("foreign");
    CHECK(visible == contents_);
  }

private:
  std::size_t below(std::size_t limit) { return random_() % limit; }
  std::string any_id() { return std::string(1, char('a' + below(5))); }

  void upsert(const std::string& id) {
    auto content = "v" + std::to_string(++version_);
    mine_.machine->upsert({{id, R"({"content": ")" + content + "\"}", {}}},
                          [this, id, content](result<void> done) {
                            need(done);
                            contents_[id] = content;
                          });
  }

  void remove(const std::string& id) {
    mine_.machine->remove({id}, [this, id](result<void> done) {
      need(done);
      contents_.erase(id);
    });
  }

  void commit() {
    mine_.machine->commit(std::nullopt, [](result<commit_result> done) {
      CHECK((done || done.error().code == errc::embedding_failed));
    });
  }

  void drop() {
    mine_.machine->drop([this](result<void> done) {
      need(done);
      contents_.clear();
    });
  }

  void advance_texts() {
    if (mine_.services.texts.empty())
      return;
    auto chance = below(8);
    if (chance == 0) {
      mine_.services.answer_texts(failure{errc::embedding_failed, "chance"});
    } else if (chance == 1) {
      auto batch = batch_of(mine_.services.texts.front().request.texts);
      for (std::size_t i = 0; i < batch.vectors.size(); i += test_dimension)
        need(
            normalize(std::span(batch.vectors).subspan(i, test_dimension), ""));
      batch.rejected.push_back({0, "chance"});
      mine_.services.answer_texts(std::move(batch));
    } else {
      mine_.services.embed_texts();
    }
  }

  test_handle mine_;
  test_handle other_;
  std::mt19937 random_;
  int version_ = 0;
  std::map<std::string, std::string> contents_;
};

} // namespace

TEST_CASE("whatever happens in whatever order, what was answered is what is"
          " there",
          "[machine][random]") {
  auto seed = GENERATE(range(1U, 41U));
  INFO("seed " << seed);
  scratch_directory where;
  random_handle handle(where, seed);
  for (int step = 0; step < 80; ++step) {
    INFO("step " << step);
    handle.step();
    handle.compare();
  }
  handle.finish();
}
