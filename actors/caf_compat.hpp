#pragma once

#include "actors/work.hpp"
#include "core/result.hpp"

#include <caf/actor_addr.hpp>
#include <caf/actor_cast.hpp>
#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <caf/allowed_unsafe_message_type.hpp>
#include <caf/atom.hpp>
#include <caf/duration.hpp>
#include <caf/error.hpp>
#include <caf/exit_reason.hpp>
#include <caf/logger.hpp>
#include <caf/scoped_actor.hpp>
#include <caf/send.hpp>
#include <caf/system_messages.hpp>
#include <caf/typed_actor.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <caf/typed_response_promise.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <utility>

/// Everything that depends on CAF's version. Other files name only CAF's
/// classes that are the same in all of them.
#ifdef CAF_VERSION_MAJOR
#error                                                                         \
    "callboard is written for CAF 0.17; a port to 1.x is a matter of this file"
#endif

/// Lets a type travel inside this process without a way to serialize it. To be
/// used outside of namespaces.
#define CALLBOARD_LOCAL_MESSAGE(type) CAF_ALLOW_UNSAFE_MESSAGE_TYPE(type)

namespace callboard {

/// The answer to every request: failures travel as they are, as values. CAF's
/// own errors mean that the other actor is gone.
template <class T>
struct reply {
  result<T> value;
};

} // namespace callboard

template <class T>
struct caf::allowed_unsafe_message_type<callboard::reply<T>> : std::true_type {
};

namespace callboard {

template <class Signature>
struct message_signature;

template <class T, class Request>
struct message_signature<reply<T>(Request)> {
  using type = typename caf::replies_to<Request>::template with<reply<T>>;
};

/// A handle of an actor that answers these: `typed<reply<row>(get_request)>`.
template <class... Signatures>
using typed = caf::typed_actor<typename message_signature<Signatures>::type...>;

template <class T>
using promise = caf::typed_response_promise<reply<T>>;

/// `Public`, and messages without an answer that only who has this handle can
/// send: those of the actor to itself.
template <class Public, class... Messages>
using extended = typename Public::template extend<caf::reacts_to<Messages>...>;

/// Whether actors get a thread of their own; only these may block. Shared
/// ones make a system that runs on one thread, for simulations.
enum class spawn_mode : std::uint8_t { shared_thread, own_thread };

inline failure closed_failure() {
  return {errc::closed, "the store or its runtime is closed: open it again"};
}

/// The failure for the exception that is being handled, which no contract
/// foresees. `where` begins the message.
inline failure unexpected_exception(std::string_view where, errc code) {
  auto message = std::string(where) + ": ";
  try {
    throw;
  } catch (const std::bad_alloc&) {
    return {errc::busy, message + "out of memory: try again with less"};
  } catch (const std::exception& reason) {
    return {code, message + "unexpected exception: " + reason.what()};
  } catch (...) {
    return {code, message + "unexpected exception of unknown type"};
  }
}

/// Sends `request` and passes the answer to `done`, a function of `result<T>`,
/// in `self`. There is always an answer as long as `self` lives: an actor that
/// ends answers what it has kept, and CAF what it has not seen.
template <class T, class Self, class Handle, class Request, class Done>
void ask(Self* self, const Handle& to, Request request, Done done) {
  auto kept = std::make_shared<Done>(std::move(done));
  self->request(to, caf::infinite, std::move(request))
      .then([kept](reply<T>& answered) { (*kept)(std::move(answered.value)); },
            [kept](caf::error&) { (*kept)(result<T>(closed_failure())); });
}

/// As `ask`, and waits. Not for actors: it blocks.
template <class T, class Handle, class Request>
result<T> ask_and_wait(caf::scoped_actor& self, const Handle& to,
                       Request request) {
  result<T> out = closed_failure();
  self->request(to, caf::infinite, std::move(request))
      .receive([&](reply<T>& answered) { out = std::move(answered.value); },
               [](caf::error&) {});
  return out;
}

/// Sends a message that is not answered, or nothing if `target` is null.
template <class Handle, class Message>
void tell(const Handle& target, Message message) {
  caf::anon_send(target, std::move(message));
}

/// As `tell`, when `time` has passed. Cannot be called off: what `target` still
/// has after its end is kept until then.
template <class Handle, class Message>
void tell_later(const Handle& target, std::chrono::milliseconds time,
                Message message) {
  caf::delayed_anon_send(target, time, std::move(message));
}

/// Which actor, without keeping it.
using actor_name = caf::actor_addr;

/// A handle of the actor, or null if it is gone.
template <class Handle>
Handle handle_of(const actor_name& name) {
  return caf::actor_cast<Handle>(name);
}

/// The sender of the message that `self` handles. To be asked for before the
/// message's promise is made, which takes it away.
template <class Self>
actor_name sender_of(Self* self) {
  return caf::actor_cast<actor_name>(self->current_sender());
}

/// Has `self` be told, once for each call, when `other` ends, or at once if it
/// has: see `when_told_of_ends`.
template <class Self>
void follow(Self* self, const actor_name& other) {
  if (auto known = caf::actor_cast<caf::strong_actor_ptr>(other))
    self->monitor(known);
}

template <class Self>
void stop_following(Self* self, const actor_name& other) {
  self->demonitor(other);
}

/// Calls `done` with the name of each actor that `self` follows and that has
/// ended.
template <class Self>
void when_told_of_ends(Self* self, std::function<void(actor_name)> done) {
  self->set_down_handler([done = std::move(done)](const caf::down_msg& told) {
    done(told.source);
  });
}

/// Ends the actor before it looks at what else is in its mailbox.
template <class Handle>
void stop(const Handle& target) {
  auto untyped = caf::actor_cast<caf::actor>(target);
  caf::anon_send<caf::message_priority::high>(
      untyped,
      caf::exit_msg{untyped->address(), caf::exit_reason::user_shutdown});
}

/// Calls `done` on the thread on which `target` ends, or at once if it has.
template <class Handle>
void when_ended(const Handle& target, std::function<void()> done) {
  caf::actor_cast<caf::actor>(target)->attach_functor(std::move(done));
}

template <class Actor, class... Arguments>
auto spawn(caf::actor_system& system, spawn_mode mode,
           Arguments&&... arguments) {
  if (mode == spawn_mode::own_thread)
    return system.spawn<Actor, caf::detached>(
        std::forward<Arguments>(arguments)...);
  return system.spawn<Actor>(std::forward<Arguments>(arguments)...);
}

/// A thread that is no actor's and that has spawned an actor, or made a
/// `scoped_actor`, holds on to the actor system until this is called or the
/// thread ends; the system's destructor waits for it, if it runs on another
/// thread.
inline void detach_thread() {
  caf::logger::set_current_actor_system(nullptr);
}

/// Calls `detach_thread` at the end of its scope.
struct thread_detacher {
  thread_detacher() = default;
  thread_detacher(const thread_detacher&) = delete;
  thread_detacher& operator=(const thread_detacher&) = delete;
  ~thread_detacher() { detach_thread(); }
};

/// How many messages an actor handles before it lets another one run.
inline constexpr std::size_t messages_per_turn = 100;

inline void configure_scheduler(caf::actor_system_config& config,
                                std::size_t threads) {
  config.set("scheduler.policy", caf::atom("sharing"));
  config.set("scheduler.max-threads", threads);
  config.set("scheduler.max-throughput", messages_per_turn);
}

/// The promises that an actor has not fulfilled yet. CAF tells nobody when an
/// actor ends with kept promises, so that actor must: `close` in `on_exit`.
///
/// Threads: belongs to one actor and must live as long as it does.
class kept_promises {
public:
  kept_promises() = default;
  kept_promises(const kept_promises&) = delete;
  kept_promises& operator=(const kept_promises&) = delete;

  /// The way to fulfil `kept`. Works once, and not after `close`.
  template <class T>
  answer<T> keep(promise<T> kept) {
    return keep_for<T>(kept, [kept](T value) mutable {
      kept.deliver(reply<T>{std::move(value)});
    });
  }

  answer<void> keep(promise<void> kept) {
    auto number = add(kept);
    return [this, number, kept](result<void> value) mutable {
      if (waiting_.erase(number) > 0)
        kept.deliver(reply<void>{std::move(value)});
    };
  }

  /// For a promise of something else than `T`: a failure goes to `kept`, a
  /// value to `use`, which must see to it that `kept` is fulfilled.
  template <class T, class Promised, class Use>
  answer<T> keep_for(promise<Promised> kept, Use use) {
    auto number = add(kept);
    return [this, number, kept, use = std::move(use)](result<T> value) mutable {
      if (waiting_.erase(number) == 0)
        return;
      if (value)
        use(std::move(*value));
      else
        kept.deliver(reply<Promised>{std::move(value).error()});
    };
  }

  /// Answers all of them with `closed`.
  void close() {
    auto waiting = std::exchange(waiting_, {});
    for (auto& [number, give_up] : waiting)
      give_up();
  }

private:
  template <class T>
  std::uint64_t add(promise<T> kept) {
    waiting_.emplace(
        next_, [kept]() mutable { kept.deliver(reply<T>{closed_failure()}); });
    return next_++;
  }

  std::uint64_t next_ = 0;
  std::map<std::uint64_t, std::function<void()>> waiting_;
};

} // namespace callboard
