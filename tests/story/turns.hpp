#pragma once

#include "simulation/simulated_embedder.hpp"
#include "simulation/world.hpp"
#include "tests/story/checks.hpp"
#include "tests/story/faults.hpp"
#include "tests/story/foreign_pair.hpp"
#include "tests/story/model.hpp"
#include "tests/story/observer.hpp"
#include "tests/story/story.hpp"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

/// What is asked, and by whom.
namespace callboard::test {

struct user;

/// A store that a user has open.
struct handle {
  user* owner = nullptr;
  store_observer* store = nullptr;
  handle_book* book = nullptr;
  std::size_t number = 0;
  /// Requests of the reader overtake those of the writer.
  std::optional<simulation::remote_store> writer;
  std::optional<simulation::remote_store> reader;
  bool is_closed = false;
  struct watch {
    std::uint64_t number = 0;
    std::uint64_t last = 0;
    std::size_t waits = 0;
  };
  std::optional<watch> watched;
  bool is_starting_watch = false;
  /// A view that was asked for, and what it showed.
  snapshot_ptr kept;
  rows kept_rows;
};

/// Somebody who starts a process, and another one when that has died.
struct user {
  simulation::actor_process* process = nullptr;
  std::shared_ptr<simulation::simulated_embedder> model;
  std::vector<handle*> handles = {};
};

/// The users of the stores: what they ask for, turn by turn, and what they
/// still wait for.
class turns {
public:
  turns(simulation::world& world, simulation::random_source& random,
        const plot& chosen, fault_maker& faults, story_totals& totals);
  turns(const turns&) = delete;
  turns& operator=(const turns&) = delete;

  void start();
  /// Something, or nothing, is asked by one user.
  void take();
  /// Looks at the stores as one more process does.
  void observe();
  /// Checks what has been answered.
  void settle();

  /// When nothing fails any more: everything is answered, and everybody sees
  /// the same, and can go on.
  void finish();

private:
  // -- Who (turns.cpp) --------------------------------------------------------

  void start(user& who);
  void open(user& who);
  void open_wrongly(user& who);
  void close(handle& at);
  void strike(user& who);
  void settle_power();
  bool is_in_use(const store_observer& store) const;
  open_options options_for(const user& who, const store_place& place);
  void write_foreign_pair();
  rows write_foreign_pair(store_observer& store, rows state,
                          foreign_files which);
  void spoil_board();
  void spoil_board_in_place(std::uint64_t offset);
  void ask_for_events();

  void drain(handle& at);
  void compare(handle& at);
  void follow(handle& at, std::uint64_t latest);
  void compare_foreign(handle& at);
  void take_over(handle& at);
  void damage(user& who, store_observer& store);
  void compare_salvaged(const store_observer& store,
                        const result<simulation::remote_store>& opened,
                        std::uint64_t oldest);
  void answer_all(const std::string& promise);

  // -- What (requests.cpp) ----------------------------------------------------

  /// Lets a handle do one thing, at random.
  void act(handle& at);
  void upsert(handle& at);
  void remove(handle& at);
  void remove_entity(handle& at);
  void remove_relation(handle& at);
  void commit(handle& at);
  void commit_now(handle& at, std::optional<std::uint64_t> expected);
  void finalize(handle& at);
  void drop(handle& at);
  void checkpoint(handle& at);

  void get(handle& at);
  void get_vectors(handle& at);
  void query_one(handle& at);
  void query_batch(handle& at);
  void snapshot(handle& at);
  void pending(handle& at);
  void stats(handle& at);
  void verify(handle& at);

  void watch(handle& at);
  void next_event(handle& at);
  void unwatch(handle& at);
  void await(handle& at);

  void ask_nonsense(handle& at);
  void upsert_nonsense(handle& at);
  void query_nonsense(handle& at);

  // -- How --------------------------------------------------------------------

  /// What is asked, and which errors are answers to that, beside those of all
  /// requests.
  struct wish {
    handle& by;
    std::string name;
    std::vector<errc> also = {};
  };

  struct open_request {
    std::string name;
    std::function<bool()> is_over;
    std::function<void()> check;
  };

  template <class T, class Check>
  void expect(wish asked, simulation::awaited<T> answer, Check check) {
    const auto number = ++request_count_;
    ++totals_.requests;
    world_.remark("request " + std::to_string(number) + ": " + asked.name
                  + by(asked.by));
    requests_.push_back(
        {asked.name + by(asked.by) + ", asked at step "
             + std::to_string(world_.step_count()),
         [answer] { return answer.is_over(); },
         [this, number, asked = std::move(asked), answer, check] {
           if (answer.is_lost()) {
             ++totals_.lost_requests;
             return;
           }
           const auto& value = answer.value();
           world_.remark("answer " + std::to_string(number)
                         + (value ? "" : ": " + value.error().message));
           if (!value)
             check_error(value.error(), asked);
           check(value);
         }});
  }

  /// Of what must be refused with `code`.
  template <class T>
  void expect_refusal(handle& at, const std::string& name,
                      simulation::awaited<T> answer, errc code) {
    ++totals_.refusals;
    expect<T>({at, name, {code}}, std::move(answer), [name](const auto& value) {
      require(!value, "what makes no sense is refused: " + name);
    });
  }

  void committing(handle& at, turning_point::kind what, const std::string& name,
                  simulation::awaited<commit_result> answer,
                  std::optional<std::uint64_t> expected);
  void changes_sent(handle& at, std::size_t first, const std::string& name,
                    simulation::awaited<void> answer,
                    std::function<void()> acknowledged);
  std::size_t turning(handle& at, turning_point::kind what);
  void turned(handle& at, std::size_t point, bool succeeded);

  read read_of(handle& at) const;
  const simulation::remote_store& reader_of(handle& at);
  std::vector<std::string> random_ids();
  const std::string& random_id();
  query_options random_query(search_terms& terms);
  std::string by(const handle& at) const;

  void check_error(const failure& error, const wish& asked);
  void check_opening(const failure& error);
  bool is_excused(errc code) const;

  simulation::world& world_;
  simulation::random_source& random_;
  const plot& plot_;
  fault_maker& faults_;
  story_totals& totals_;

  std::deque<store_observer> stores_;
  std::deque<user> users_;
  std::list<handle> handles_;
  std::list<open_request> requests_;
  std::size_t request_count_ = 0;
  int next_version_ = absent + 1;
};

} // namespace callboard::test
