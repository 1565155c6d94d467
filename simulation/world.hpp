#pragma once

#include "actors/client.hpp"
#include "actors/messages.hpp"
#include "actors/runtime_actors.hpp"
#include "simulation/machine.hpp"
#include "simulation/random_source.hpp"
#include "simulation/schedule.hpp"

#include <caf/actor.hpp>
#include <caf/actor_cast.hpp>
#include <caf/event_based_actor.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// Whole programs - actors, stores, disk, clock and shared memory - on one
/// thread, where a seed, or a `schedule`, decides what happens next:
///
///   simulation::world world(seed);
///   auto& one = world.start_process();
///   auto notes = world.open(one, options).value();
///   world.ask<void>(notes, upsert_request{...});
///   auto saved = notes.send<commit_result>(commit_request{});
///   world.lose_power(simulation::loss_model::weakest);
///   // saved.is_answered() or saved.is_lost(), as the seed has it.
///
/// docs/simulation.md tells how to use it, and what it does not simulate.
namespace callboard::simulation {

class actor_process;
class world;

/// The answer to a request, now or later. Copies show the same answer. It
/// comes in a `world::step`, and stays when the process has died. May outlive
/// the process and the world.
template <class T>
class awaited {
public:
  /// With a value or with an error.
  bool is_answered() const noexcept { return value_->has_value(); }
  /// The process that asked has died first: nobody will ever know.
  bool is_lost() const noexcept { return !is_answered() && !*is_alive_; }
  bool is_over() const noexcept { return is_answered() || is_lost(); }

  /// Requires: `is_answered()`.
  const result<T>& value() const { return value_->value(); }

private:
  friend class remote_store;

  explicit awaited(std::shared_ptr<const bool> is_alive)
      : is_alive_(std::move(is_alive)) {}

  std::shared_ptr<const bool> is_alive_;
  std::shared_ptr<std::optional<result<T>>> value_ =
      std::make_shared<std::optional<result<T>>>();
};

/// A store that a process has open. Requests of one copy are received in the
/// order in which they were sent; those of `another_sender()` in any order.
///
/// Ownership: may outlive the process, whose death loses all its requests, but
///            not the world.
class remote_store {
public:
  /// Asks for one of actors/messages.hpp, and does not wait: `T` is the type
  /// that the message protocol answers (`void` for none). What is asked of a
  /// dead process is lost at once.
  template <class T, class Request>
  awaited<T> send(Request request) const {
    awaited<T> out(is_alive_);
    if (!*is_alive_)
      return out;
    begin([value = out.value_, request = std::move(request)](
              caf::event_based_actor* self, const storage_actor& store) {
      callboard::ask<T>(self, store, request, [value](result<T> answered) {
        value->emplace(std::move(answered));
      });
    });
    return out;
  }

  /// The same store, as another client of the process sees it.
  remote_store another_sender() const;
  actor_process& process() const noexcept { return *process_; }
  /// For actors of the test's own. Requires: the process is alive. Let go of
  /// the handle before it dies: its actor lives as long.
  storage_actor actor() const;

private:
  friend class world;
  using begin_request =
      std::function<void(caf::event_based_actor*, const storage_actor&)>;

  remote_store(actor_process& process, std::size_t number, std::size_t sender,
               std::shared_ptr<const bool> is_alive)
      : process_(&process),
        number_(number),
        sender_(sender),
        is_alive_(std::move(is_alive)) {}

  void begin(begin_request how) const;

  actor_process* process_;
  std::size_t number_;
  std::size_t sender_;
  std::shared_ptr<const bool> is_alive_;
};

/// A process of the world, with a runtime of its own.
///
/// Ownership: belongs to the world, and lives as long; when the process is
///            dead, only its number and that are left.
class actor_process {
public:
  actor_process(const actor_process&) = delete;
  actor_process& operator=(const actor_process&) = delete;
  ~actor_process();

  std::uint64_t number() const noexcept;
  /// Whether `kill`, `stop`, a power loss, or a fault has not ended it yet.
  bool is_alive() const noexcept;

  // -- Requires, for the following: it is alive -------------------------------

  /// For embedders that wait, and for code under test that has no actor.
  io& door() noexcept;

  /// Spawns an actor of the user's own. It ends with the process; who keeps its
  /// handle must let go of it before that.
  template <class Actor, class... Arguments>
  auto spawn(Arguments&&... arguments) {
    auto spawned = system().spawn<Actor>(std::forward<Arguments>(arguments)...);
    adopt(caf::actor_cast<caf::actor>(spawned));
    return spawned;
  }
  caf::actor_system& system() noexcept;

  /// While true, the models of its stores do not answer: batches stay with
  /// them, and are answered later, if the process lives.
  void hang_embedder(bool hangs) noexcept;

private:
  friend class world;
  friend class remote_store;
  struct parts;

  actor_process(std::unique_ptr<process> self, runtime_options options);

  void adopt(caf::actor spawned);

  std::unique_ptr<parts> parts_;
};

struct world_options {
  /// About every so many operations of a process, others run in the middle of
  /// it. 0: what blocks runs in one piece.
  std::uint64_t interleaving_interval = 20;
  /// About every so many steps, up to 20 ms pass though actors have work to
  /// do. 0: time passes only when nothing else can happen.
  std::uint64_t haste_interval = 50;
  /// Of each process.
  std::size_t io_threads = 2;
  std::size_t search_threads = 1;
};

/// A computer, its processes, and their actors.
///
/// Order:   which actor runs, which of its messages it gets first (from one
///          sender: in order), when time passes, and when a process hears of
///          others' commits follow from the seed; what runs while one process
///          is in the middle of work that blocks, too.
/// Time:    passes in steps to the next timer, and by what waits: locks,
///          `io::pause`.
/// Threads: one; and one world at a time on it.
class world {
public:
  /// `by`: or just a seed.
  explicit world(const schedule& by, world_options options = {});
  world(const world&) = delete;
  world& operator=(const world&) = delete;
  /// Ends all processes, as `kill` does.
  ~world();

  /// For faults and files. Its hooks `on_yield` and `on_injected` are the
  /// world's. Kill processes, and cut the power, by the world itself.
  machine& computer() noexcept { return computer_; }
  /// Choices of the test, by the same schedule. Choose so that 0 is what is
  /// most ordinary: see docs/simulation.md, "From a failure to its cause".
  random_source& random() noexcept { return test_random_; }

  /// The first one, or one more, or one after a power loss. It has no store
  /// open. The object lives as long as the world.
  actor_process& start_process(process_options options = {});
  /// As by SIGKILL: locks are free, files are closed, what was written stays.
  /// Its requests that are not answered are lost. A dead one stays dead.
  void kill(actor_process& which);
  /// All processes die, and the disk is left as `model` has it. The machine is
  /// on again at once: start processes anew. (`kill`: only the processes die.)
  void lose_power(loss_model model);
  /// Ends the process as `~runtime` does; its files are closed in order, and
  /// requests that are not answered are lost. Nothing happens if it is dead.
  /// Not to be called from within an operation of the process itself.
  void stop(actor_process& which);

  /// As `runtime::open`; blocks, so that other processes may run meanwhile.
  /// `options.model` is the process's own: one for each. With two processes
  /// or more, keep `options.lock_timeout` short.
  /// Errors: those of `runtime::open`; `closed` if the process is dead or dies.
  result<remote_store> open(actor_process& where, open_options options);

  /// Lets one thing happen; if nothing can, passes time until something can.
  /// Not to be called by actors, hooks or models.
  void step();

  /// Until `done` is true: at most `steps_max` steps; false if it is not then.
  template <class Done>
  bool run_until(Done done, std::size_t steps_max = 100'000) {
    for (std::size_t i = 0; i < steps_max; ++i) {
      if (done())
        return true;
      step();
    }
    return done();
  }

  /// Sends, and steps until the answer is there. Errors: as they are answered;
  /// `closed` if the process dies, `timed_out` after `steps_max` steps.
  template <class T, class Request>
  result<T> ask(const remote_store& store, Request request,
                std::size_t steps_max = 100'000) {
    auto answered = store.send<T>(std::move(request));
    if (!run_until([&] { return answered.is_over(); }, steps_max))
      return failure{errc::timed_out, "no answer in "
                                          + std::to_string(steps_max)
                                          + " steps of the simulation"};
    if (answered.is_lost())
      return failure{errc::closed, "the simulated process has died"};
    return answered.value();
  }

  /// Whether nothing is left to do but to wait for timers, and for models that
  /// hang.
  bool is_idle() const;

  /// Lets the clocks of all processes go on. What is due happens in the steps
  /// after this.
  void advance(std::chrono::nanoseconds duration);

  // -- What happened ----------------------------------------------------------

  /// Called after each step that is not within another: the place for checks
  /// of what must hold at any time. May throw, through `step`.
  void after_step(std::function<void()> hook) { after_step_ = std::move(hook); }

  /// Steps within others are not counted.
  std::uint64_t step_count() const noexcept { return step_count_; }
  /// All steps and all operations so far, as one number: two runs of one
  /// schedule have the same, whatever the options of the compiler.
  std::uint64_t event_hash() const noexcept;
  /// From now on the last `count` lines of the trace are kept (a line for each
  /// step and remark), and all remarks.
  void keep_trace(std::size_t count);
  const std::deque<std::string>& trace() const noexcept { return trace_; }
  /// What the test has remarked, deaths, power losses, and injected faults.
  const std::vector<std::string>& remarks() const noexcept { return remarks_; }
  /// A line by the test, for people, and a part of the hash.
  void remark(std::string_view text) { tell(text, 0); }

private:
  class running;

  /// How deep processes may run in the middle of each other.
  static constexpr std::size_t depth_max = 3;

  /// Something that can happen now.
  struct chance {
    enum class kind : std::uint8_t { actor, timer, look, look_at_files };
    kind what = kind::actor;
    actor_process* where = nullptr;
    std::size_t job = 0;
  };

  void bury_the_dead();
  void end(actor_process& which);
  void set_clocks();
  bool take_step(bool may_pass_time);
  void take(chance chosen);
  void fire_timers(actor_process& where);
  void run_actor(actor_process& where, std::size_t job);
  void look(actor_process& where, bool at_files);
  void pass_time();
  std::optional<std::chrono::nanoseconds> next_timer() const;
  void yield();
  void note(std::string_view what, std::uint64_t process, std::uint64_t actor,
            std::string_view detail);
  void tell(std::string_view what, std::uint64_t process);

  world_options options_;
  random_source random_;
  random_source test_random_;
  machine computer_;
  std::vector<std::unique_ptr<actor_process>> processes_;
  std::function<void()> after_step_;
  std::size_t depth_ = 0;
  /// For each depth; kept for their memory.
  std::array<std::vector<chance>, depth_max + 1> chances_;
  std::uint64_t step_count_ = 0;
  std::uint64_t hash_ = 0;
  std::size_t trace_max_ = 0;
  std::deque<std::string> trace_;
  std::vector<std::string> remarks_;
};

} // namespace callboard::simulation
