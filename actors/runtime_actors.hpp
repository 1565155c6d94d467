#pragma once

#include "actors/client.hpp"
#include "actors/messages.hpp"

#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace callboard {

class board_thread;
class board_watcher;

/// The way of threads that are no actors to actors: a call sends one message
/// and waits. Actors that wait for answers are reused, as they cost more than
/// a call.
///
/// Threads: thread-safe.
class gateway {
public:
  explicit gateway(caf::actor_system& system) : system_(system) {}
  gateway(const gateway&) = delete;
  gateway& operator=(const gateway&) = delete;

  /// Lets `target` be called; the number is its name here.
  std::uint64_t admit(storage_actor target);
  /// Ends the actor, unless it has ended.
  void release(std::uint64_t number);

  /// Errors: `closed`, and the actor's.
  template <class T, class Request>
  result<T> call(std::uint64_t number, Request request) {
    auto line = enter(number);
    if (!line)
      return closed_failure();
    return ask_and_wait<T>(*line->waiter, line->target, std::move(request));
  }

  /// Sends a message whose answer nobody waits for; nothing if the gateway is
  /// closed. Never blocks.
  template <class Request>
  void tell(std::uint64_t number, Request request) {
    std::lock_guard lock(mutex_);
    if (auto found = targets_.find(number); found != targets_.end())
      callboard::tell(found->second, std::move(request));
  }

  /// Refuses new calls. Those under way end when their actors do.
  void close();
  /// Waits for them, and gives up all that belongs to the actor system.
  void drain();

private:
  /// A call under way.
  struct connection {
    explicit connection(gateway& owner) : owner_(owner) {}
    connection(const connection&) = delete;
    connection& operator=(const connection&) = delete;
    ~connection() { owner_.leave(*this); }

    std::unique_ptr<caf::scoped_actor> waiter;
    storage_actor target;

  private:
    gateway& owner_;
  };

  /// Null if there is no such target any more.
  std::unique_ptr<connection> enter(std::uint64_t number);
  void leave(connection& line);

  caf::actor_system& system_;
  std::mutex mutex_;
  std::condition_variable is_idle_;
  bool is_closed_ = false;
  std::size_t calls_ = 0;
  std::uint64_t next_number_ = 1;
  std::map<std::uint64_t, storage_actor> targets_;
  std::vector<std::unique_ptr<caf::scoped_actor>> waiters_;
};

/// The actors of a runtime, for code that talks to actors itself.
///
/// Who sees to whom: pools replace workers that die. Storage actors depend on
/// pools: what is asked of a dead one is answered `closed`. An embedder pool
/// ends with the last storage actor that uses its embedder. Nothing else is
/// restarted: an actor ends by an exception that no contract foresees, and its
/// requests are answered `closed`.
///
/// Stopping, in this order:
/// 1. the gateway refuses new calls;
/// 2. the thread that waits for the board ends;
/// 3. storage actors answer what they have kept, and end;
/// 4. pools answer what waits, and end; their workers finish what they are at;
/// 5. calls of other threads, all answered by now, have returned;
/// 6. the actor system waits for the workers' threads;
/// 7. the board goes, if it is the runtime's own.
///
/// Threads: thread-safe. A thread that spawns actors itself must have ended or
///          called `detach_thread` before another thread destroys the runtime.
class runtime::implementation {
public:
  /// `own_thread`: as `runtime` has it. `shared_thread`: no thread is started,
  /// for simulations: actors, those that block, too, run when whoever drives
  /// `manual_scheduler(system())` lets them, and he has the watcher look. Then
  /// all members belong to one thread, and `options.board` must be given.
  explicit implementation(runtime_options options,
                          spawn_mode mode = spawn_mode::own_thread);
  ~implementation();
  implementation(const implementation&) = delete;
  implementation& operator=(const implementation&) = delete;

  caf::actor_system& system() noexcept { return *system_; }

  /// Opens a store and spawns its owner. Blocks on the disk: not for actors.
  /// The actor lives until it is sent an exit message (uncommitted changes are
  /// gone then) or the runtime stops. Let go of the handle before that.
  result<storage_actor> open_storage(open_options options);

  std::shared_ptr<gateway> calls() const noexcept { return gateway_; }

  board_watcher& watcher() noexcept { return *board_watcher_; }

private:
  struct embedder_pool_entry {
    embedder_pool_actor pool;
    std::size_t users = 0;
  };

  embedder_pool_actor join_pool(const std::shared_ptr<embedder>& model);
  void leave_pool(const embedder* model);
  void storage_ended(std::uint64_t number, const embedder* model);
  void stop_storages();
  void stop_pools();
  /// With threads, actors run by themselves.
  void run_without_threads();

  runtime_options options_;
  spawn_mode mode_;
  std::unique_ptr<notice_board> own_board_;
  std::unique_ptr<board_watcher> board_watcher_;
  std::unique_ptr<board_thread> board_thread_;
  caf::actor_system_config config_;
  std::unique_ptr<caf::actor_system> system_;
  std::shared_ptr<gateway> gateway_;

  std::mutex mutex_;
  std::condition_variable all_ended_;
  bool is_closed_ = false;
  std::uint64_t next_number_ = 1;
  std::map<std::uint64_t, storage_actor> storages_;
  std::map<const embedder*, embedder_pool_entry> embedder_pools_;
  io_pool_actor io_pool_;
  io_pool_actor slow_io_pool_;
  search_pool_actor search_pool_;
};

} // namespace callboard
