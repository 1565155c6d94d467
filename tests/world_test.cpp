#include "simulation/reduce.hpp"
#include "simulation/simulated_embedder.hpp"
#include "simulation/world.hpp"

#include <caf/event_based_actor.hpp>
#include <catch2/catch.hpp>

#include <chrono>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

using namespace callboard;
using namespace callboard::simulation;
using namespace std::chrono_literals;

struct tick {};
struct letter {
  int sender = 0;
  int number = 0;
};
CALLBOARD_LOCAL_MESSAGE(tick)
CALLBOARD_LOCAL_MESSAGE(letter)

namespace {

/// What a process of the tests has.
struct client {
  actor_process* process = nullptr;
  std::shared_ptr<simulated_embedder> model;
  remote_store store;
};

client start(world& where, simulated_embedder_options how = {},
             process_options options = {}) {
  auto& process = where.start_process(options);
  auto model = std::make_shared<simulated_embedder>(process.door(), how);
  auto store = where.open(process, {.working_directory = "/notes",
                                    .namespace_name = "notes",
                                    .model = model,
                                    .meta_fields = {"content"},
                                    .threshold = -2,
                                    .lock_timeout = 20ms,
                                    .automatic_checkpoints = false});
  REQUIRE(store);
  return {&process, model, *store};
}

upsert_request note(const std::string& id) {
  upsert_request out;
  out.items.push_back({id, R"({"content": ")" + id + R"("})", {}});
  return out;
}

bool has(world& where, const client& who, const std::string& id) {
  auto found = where.ask<optional_rows>(who.store, get_request{{id}});
  REQUIRE(found);
  return found->at(0).has_value();
}

result<commit_result> save(world& where, const client& who,
                           const std::string& id) {
  REQUIRE(where.ask<void>(who.store, note(id)));
  return where.ask<commit_result>(who.store, commit_request{});
}

template <class Text>
bool mentions(const Text& lines, const std::string& what) {
  for (const auto& each : lines)
    if (each.find(what) != std::string::npos)
      return true;
  return false;
}

constexpr std::uint64_t seeds = 30;

} // namespace

// -- Deaths -------------------------------------------------------------------

TEST_CASE(
    "A commit survives a kill, a power loss and a stop; changes that were "
    "not committed do not") {
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
    CAPTURE(seed);
    world world(seed);
    auto first = start(world);
    REQUIRE(save(world, first, "a"));
    REQUIRE(world.ask<void>(first.store, note("b")));
    switch (seed % 4) {
    case 0:
      world.kill(*first.process);
      break;
    case 1:
      world.lose_power(loss_model::weakest);
      break;
    case 2:
      world.lose_power(loss_model::ordered);
      break;
    default:
      world.stop(*first.process);
    }
    REQUIRE_FALSE(first.process->is_alive());
    auto second = start(world);
    REQUIRE(second.process->number() != first.process->number());
    REQUIRE(has(world, second, "a"));
    REQUIRE_FALSE(has(world, second, "b"));
  }
}

TEST_CASE("A kill leaves other processes alone, a power loss nobody") {
  world world(1);
  auto first = start(world);
  auto second = start(world);
  world.kill(*first.process);
  REQUIRE(second.process->is_alive());
  REQUIRE(save(world, second, "a"));
  world.lose_power(loss_model::kill);
  REQUIRE_FALSE(second.process->is_alive());
  REQUIRE(world.computer().lock_count() == 0);
  REQUIRE(has(world, start(world), "a"));
}

TEST_CASE("A process that is dead opens nothing, and dies only once") {
  world world(1);
  auto first = start(world);
  world.kill(*first.process);
  world.kill(*first.process);
  world.stop(*first.process);
  const auto opened = world.open(*first.process, {});
  REQUIRE_FALSE(opened);
  REQUIRE(opened.error().code == errc::closed);
}

TEST_CASE("A fault kills a process in the middle of its commit") {
  world world(1);
  auto first = start(world);
  REQUIRE(world.ask<void>(first.store, note("a")));
  world.keep_trace(1);
  world.computer().on_fault([](const operation& what) {
    return what.kind == operation_kind::append ? fault::kill(moment::half)
                                               : fault::none();
  });
  const auto saved = world.ask<commit_result>(first.store, commit_request{});
  REQUIRE_FALSE(saved);
  REQUIRE(saved.error().code == errc::closed);
  REQUIRE_FALSE(first.process->is_alive());
  REQUIRE(mentions(world.remarks(), "kills its process half through it"));
  world.computer().on_fault({});
  REQUIRE_FALSE(has(world, start(world), "a"));
}

// -- Answers ------------------------------------------------------------------

TEST_CASE("A request of a process that dies is lost, an answer stays") {
  world world(1);
  auto first = start(world);
  const auto answered = first.store.send<void>(note("a"));
  REQUIRE_FALSE(answered.is_over());
  REQUIRE(world.run_until([&] { return answered.is_over(); }));
  const auto asked = first.store.send<commit_result>(commit_request{});
  world.kill(*first.process);
  REQUIRE(answered.is_answered());
  REQUIRE(answered.value());
  REQUIRE(asked.is_lost());
  REQUIRE_FALSE(asked.is_answered());
  REQUIRE(first.store.send<void>(note("b")).is_lost());
  REQUIRE(first.store.another_sender().send<void>(note("b")).is_lost());
}

TEST_CASE("Who is not answered in so many steps is told") {
  world world(1);
  auto first = start(world);
  first.process->hang_embedder(true);
  REQUIRE(world.ask<void>(first.store, note("a")));
  const auto saved =
      world.ask<commit_result>(first.store, commit_request{}, 1000);
  REQUIRE_FALSE(saved);
  REQUIRE(saved.error().code == errc::timed_out);
}

// -- Order --------------------------------------------------------------------

namespace {

/// Keeps the order in which letters come.
class reader : public caf::event_based_actor {
public:
  reader(caf::actor_config& config, std::vector<letter>& read)
      : caf::event_based_actor(config), read_(read) {}
  caf::behavior make_behavior() override {
    return {[this](const letter& each) { read_.push_back(each); }};
  }

private:
  std::vector<letter>& read_;
};

/// The letters of three senders who take turns, in the order in which they were
/// read.
std::string order_of_letters(const schedule& by) {
  std::vector<letter> read;
  world world(by);
  auto& process = world.start_process();
  {
    auto to = process.spawn<reader>(read);
    std::vector<caf::actor> senders;
    std::vector<letter> unread;
    for (int i = 0; i < 3; ++i)
      senders.push_back(process.spawn<reader>(unread));
    for (int i = 0; i < 9; ++i)
      caf::send_as(senders[static_cast<std::size_t>(i % 3)], to,
                   letter{i % 3, i / 3});
  }
  REQUIRE(world.run_until([&] { return read.size() == 9; }));
  std::string out;
  std::vector<int> next(3);
  for (const auto& each : read) {
    auto& expected = next[static_cast<std::size_t>(each.sender)];
    REQUIRE(each.number == expected++);
    out += static_cast<char>('a' + each.sender);
  }
  return out;
}

} // namespace

TEST_CASE("Letters of one sender come in order, of several in any") {
  std::set<std::string> seen;
  for (std::uint64_t seed = 1; seed <= 200; ++seed)
    seen.insert(order_of_letters(seed));
  REQUIRE(seen.size() > 100);
}

TEST_CASE("In a calm world letters come in the order of sending") {
  schedule calm(1);
  calm.calm("events", {});
  REQUIRE(order_of_letters(calm) == "abcabcabc");
}

TEST_CASE("Two senders of one process overtake each other, one does not") {
  bool has_overtaken = false;
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
    CAPTURE(seed);
    world world(seed);
    auto first = start(world);
    auto other = first.store.another_sender();
    const auto changed = first.store.send<void>(note("a"));
    const auto own = first.store.send<optional_rows>(get_request{{"a"}});
    const auto others = other.send<optional_rows>(get_request{{"a"}});
    REQUIRE(world.run_until([&] {
      return changed.is_over() && own.is_over() && others.is_over();
    }));
    REQUIRE(own.value().value().at(0));
    has_overtaken = has_overtaken || !others.value().value().at(0);
  }
  REQUIRE(has_overtaken);
}

namespace {

/// How often a process did something between two operations of another one's
/// upsert and commit.
std::size_t interruptions(const world_options& options) {
  std::size_t out = 0;
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
    world world(seed, options);
    auto first = start(world);
    auto second = start(world);
    world.keep_trace(100'000);
    (void)save(world, first, "a");
    (void)save(world, second, "b");
    for (const auto& each : world.trace())
      out += each.find(",     process") != std::string::npos ? 1U : 0U;
  }
  return out;
}

} // namespace

TEST_CASE("Processes run in the middle of each other's work, unless told not "
          "to") {
  REQUIRE(interruptions({.interleaving_interval = 5}) > 0);
  REQUIRE(interruptions({.interleaving_interval = 0}) == 0);
}

// -- Time ---------------------------------------------------------------------

namespace {

class alarm_clock : public caf::event_based_actor {
public:
  alarm_clock(caf::actor_config& config, bool& rang)
      : caf::event_based_actor(config), rang_(rang) {}
  caf::behavior make_behavior() override {
    delayed_send(this, 3s, tick{});
    return {[this](tick) { rang_ = true; }};
  }

private:
  bool& rang_;
};

} // namespace

TEST_CASE("A timer fires when its time has come, not earlier") {
  for (const std::uint64_t haste : {0U, 5U}) {
    world world(1, {.haste_interval = haste});
    bool rang = false;
    (void)world.start_process().spawn<alarm_clock>(rang);
    const auto begin = world.computer().steady_clock();
    REQUIRE(world.run_until([&] { return rang; }));
    const auto passed = world.computer().steady_clock() - begin;
    REQUIRE(passed >= 3s);
    REQUIRE(passed < 4s);
  }
}

TEST_CASE("Who advances the clock sees in the next steps what was due") {
  world world(1);
  bool rang = false;
  (void)world.start_process().spawn<alarm_clock>(rang);
  REQUIRE(world.run_until([&] { return world.is_idle(); }));
  REQUIRE_FALSE(rang);
  world.advance(3s);
  const auto now = world.computer().steady_clock();
  while (!rang)
    world.step();
  REQUIRE(world.computer().steady_clock() - now < 100ms);
}

TEST_CASE("A process hears of what another one commits, with a board at once") {
  for (const bool has_board : {true, false}) {
    CAPTURE(has_board);
    world world(1, {.haste_interval = 0});
    auto first = start(world);
    auto second = start(world, {}, {.has_board = has_board});
    const auto waited =
        second.store.send<std::uint64_t>(await_generation_request{1, 10s});
    const auto begin = world.computer().steady_clock();
    REQUIRE(save(world, first, "a"));
    REQUIRE(world.run_until([&] { return waited.is_over(); }));
    REQUIRE(waited.value());
    REQUIRE(world.computer().steady_clock() - begin < 2s);
    REQUIRE(has(world, second, "a"));
  }
}

// -- Models -------------------------------------------------------------------

TEST_CASE("A model that hangs answers when it is told to") {
  world world(1);
  auto first = start(world);
  first.process->hang_embedder(true);
  REQUIRE(world.ask<void>(first.store, note("a")));
  const auto saved = first.store.send<commit_result>(commit_request{});
  REQUIRE_FALSE(world.run_until([&] { return saved.is_over(); }, 2000));
  REQUIRE(world.run_until([&] { return world.is_idle(); }));
  REQUIRE(first.model->batch_count() == 0);
  // Reads do not wait for it.
  REQUIRE(has(world, first, "a"));
  first.process->hang_embedder(false);
  REQUIRE(world.run_until([&] { return saved.is_over(); }));
  REQUIRE(saved.value());
  REQUIRE(first.model->batch_count() == 1);
}

TEST_CASE("A model that is slow takes its time") {
  world world(1);
  auto first = start(world, {.latency = 5s});
  const auto begin = world.computer().steady_clock();
  REQUIRE(save(world, first, "a"));
  REQUIRE(world.computer().steady_clock() - begin >= 5s);
}

TEST_CASE("The nonsense of a model that answers nonsense is as asked for") {
  world world(1);
  simulated_embedder model(world.start_process().door(), {.dimension = 4});
  auto next = embedding_fault::none;
  model.on_batch([&] { return next; });
  const std::vector<std::string> texts{"a", "b"};
  const auto embed = [&](embedding_fault how) {
    next = how;
    return model.embed(texts, embedding_context::document);
  };
  const auto sound = embed(embedding_fault::none).value();
  REQUIRE(sound.vectors.size() == 8);
  REQUIRE(sound.rejected.empty());
  REQUIRE(embed(embedding_fault::failure).error().code
          == errc::embedding_failed);
  REQUIRE(embed(embedding_fault::rate_limit).error().code == errc::busy);
  REQUIRE(embed(embedding_fault::wrong_count)->vectors.size() == 4);
  REQUIRE(embed(embedding_fault::wrong_dimension)->vectors.size() == 10);
  const auto damaged = embed(embedding_fault::not_a_number).value();
  REQUIRE(damaged.vectors.size() == 8);
  REQUIRE(damaged.vectors[0] != damaged.vectors[0]);
  REQUIRE(embed(embedding_fault::rejected_text)->rejected.size() == 1);
  REQUIRE_THROWS_AS(embed(embedding_fault::throws), std::runtime_error);
  REQUIRE(embed(embedding_fault::none)->vectors == sound.vectors);
  REQUIRE(model.batch_count() == 9);
}

TEST_CASE("A store survives each fault of its model, and commits afterwards") {
  for (const auto how :
       {embedding_fault::failure, embedding_fault::rate_limit,
        embedding_fault::wrong_count, embedding_fault::wrong_dimension,
        embedding_fault::not_a_number, embedding_fault::rejected_text,
        embedding_fault::throws}) {
    CAPTURE(static_cast<int>(how));
    world world(1);
    auto first = start(world);
    first.model->on_batch([&] { return how; });
    const auto refused = save(world, first, "a");
    const auto is_told = !refused || !refused->failed.empty();
    REQUIRE(is_told);
    first.model->on_batch({});
    REQUIRE(save(world, first, "b"));
    REQUIRE(has(world, first, "b"));
  }
}

// -- Reproduction -------------------------------------------------------------

TEST_CASE("The trace keeps the last lines, the remarks are kept for good") {
  world world(1);
  auto first = start(world);
  world.keep_trace(10);
  world.remark("begun");
  REQUIRE(save(world, first, "a"));
  world.kill(*first.process);
  REQUIRE(world.trace().size() == 10);
  REQUIRE_FALSE(mentions(world.trace(), "begun"));
  REQUIRE(mentions(world.trace(), "process 1: killed"));
  REQUIRE(world.remarks().size() == 2);
  REQUIRE(mentions(world.remarks(), "begun"));
  REQUIRE(mentions(world.remarks(), "process 1: killed"));
}

TEST_CASE("Each death is remarked once") {
  world world(1);
  world.keep_trace(10);
  auto& first = world.start_process();
  auto& second = world.start_process();
  world.kill(first);
  world.kill(first);
  world.stop(first);
  world.stop(second);
  world.stop(second);
  world.kill(second);
  REQUIRE(world.remarks().size() == 2);
  REQUIRE(mentions(world.remarks(), "process 1: killed"));
  REQUIRE(mentions(world.remarks(), "process 2: stopped"));
}

TEST_CASE("An injected fault is in the trace, with what it hit") {
  world world(1);
  auto first = start(world);
  world.keep_trace(100);
  world.computer().on_fault([](const operation& what) {
    return what.kind == operation_kind::append ? fault::cut_short(3)
                                               : fault::none();
  });
  REQUIRE_FALSE(save(world, first, "a"));
  REQUIRE(mentions(world.remarks(), "process 1: append /notes/"));
  REQUIRE(mentions(world.remarks(), "is cut short after 3 bytes"));
}

TEST_CASE("After each step, and only then, the test is asked") {
  world world(1);
  std::uint64_t calls = 0;
  world.after_step([&] { ++calls; });
  auto first = start(world);
  REQUIRE(calls == 0);
  REQUIRE(save(world, first, "a"));
  REQUIRE(calls == world.step_count());
}

namespace {

std::uint64_t hash_of(const schedule& by) {
  world world(by);
  auto first = start(world);
  auto second = start(world);
  (void)save(world, first, "a");
  (void)save(world, second, "b");
  world.lose_power(loss_model::weakest);
  return world.event_hash();
}

} // namespace

TEST_CASE("One schedule gives one history, another one another") {
  std::set<std::uint64_t> seen;
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
    CAPTURE(seed);
    REQUIRE(hash_of(seed) == hash_of(seed));
    seen.insert(hash_of(seed));
  }
  REQUIRE(seen.size() == seeds);
  schedule calm(1);
  calm.calm("events", {10, 60});
  REQUIRE(hash_of(calm) == hash_of(calm));
  REQUIRE(hash_of(calm) != hash_of(1));
}

// -- Reduction ----------------------------------------------------------------

namespace {

/// Takes notes and saves them, and has a bug: when a commit is answered, it
/// believes to be saved what has come since the commit was asked for, too.
class ingest : public caf::event_based_actor {
public:
  using ledger = std::set<std::string>;

  ingest(caf::actor_config& config, storage_actor store, ledger& book)
      : caf::event_based_actor(config), store_(std::move(store)), book_(book) {}

  caf::behavior make_behavior() override {
    return {[this](const letter& taken) {
              const auto id = std::to_string(taken.number);
              unsaved_.insert(id);
              callboard::ask<void>(this, store_, note(id), [](result<void>) {});
            },
            [this](tick) {
              callboard::ask<commit_result>(
                  this, store_, commit_request{},
                  [this](result<commit_result> outcome) {
                    if (outcome)
                      book_.merge(unsaved_);
                  });
            }};
  }
  void on_exit() override { store_ = nullptr; }

private:
  storage_actor store_;
  ledger& book_;
  ledger unsaved_;
};

/// Whether the bug shows. The calm choice is not to save, and to go on.
bool loses_a_note(const schedule& by) {
  ingest::ledger book;
  world world(by);
  auto first = start(world);
  {
    auto actor = first.process->spawn<ingest>(first.store.actor(), book);
    for (int number = 0; number < 20; ++number) {
      caf::anon_send(actor, letter{0, number});
      if (world.random().one_in(2))
        caf::anon_send(actor, tick{});
      for (auto steps = world.random().below(20); steps > 0; --steps)
        world.step();
    }
  }
  world.lose_power(loss_model::weakest);
  auto second = start(world);
  for (const auto& id : book)
    if (!has(world, second, id))
      return true;
  return false;
}

} // namespace

TEST_CASE(
    "A race in an actor of a user's is found, and reduced to a handful of "
    "choices") {
  std::uint64_t seed = 1;
  while (!loses_a_note(seed))
    REQUIRE(++seed < 100);
  const schedule found(seed);
  REQUIRE(loses_a_note(found));
  const auto small = reduce(seed, loses_a_note);
  CAPTURE(seed);
  CAPTURE(to_string(small.reduced));
  CAPTURE(found.lively_draws());
  REQUIRE(small.is_reproduced);
  REQUIRE(found.lively_draws() > 100);
  REQUIRE(small.lively_draws <= 6);
  const auto read = schedule::parse(to_string(small.reduced)).value();
  REQUIRE(loses_a_note(read));
}
