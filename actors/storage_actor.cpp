#include "actors/storage_actor.hpp"

#include "core/record.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <utility>

namespace callboard {

/// To a storage actor from the board watcher: the store may have moved on.
struct look_message {};

/// To a storage actor from itself: the time has passed for which it asked
/// under this number.
struct timer_message {
  std::uint64_t number = 0;
};

} // namespace callboard

CALLBOARD_LOCAL_MESSAGE(callboard::look_message)
CALLBOARD_LOCAL_MESSAGE(callboard::timer_message)

namespace callboard {

namespace {

using inner_actor = extended<storage_actor, look_message, timer_message>;

/// Closes a store, which may take long, on a thread that may block.
class release_job : public job {
public:
  explicit release_job(std::unique_ptr<storage_machine> machine)
      : machine_(std::move(machine)) {}
  void run() override { machine_.reset(); }

private:
  std::unique_ptr<storage_machine> machine_;
};

class storage : public inner_actor::base, public storage_services {
public:
  storage(caf::actor_config& config, storage_setup setup,
          storage_helpers helpers)
      : inner_actor::base(config),
        helpers_(std::move(helpers)),
        place_(register_at(helpers_.watcher)),
        machine_(std::make_unique<storage_machine>(std::move(setup), *this)) {
    when_told_of_ends(this, [this](const actor_name& ended) {
      std::erase_if(watchers_, [&](const auto& each) {
        if (each.second != ended)
          return false;
        machine_->unwatch(each.first);
        return true;
      });
    });
  }

  const char* name() const override { return "callboard.storage"; }

  behavior_type make_behavior() override {
    return {
        [this](upsert_request& request) {
          return keep<void>([&](answer<void> respond) {
            machine_->upsert(std::move(request.items), std::move(respond));
          });
        },
        [this](query_text_request& request) {
          return search([&](answer<search_request> respond) {
            machine_->query_text(std::move(request.text), request.options,
                                 std::move(respond));
          });
        },
        [this](query_vector_request& request) {
          return search([&](answer<search_request> respond) {
            machine_->query_vector(std::move(request.vector), request.options,
                                   std::move(respond));
          });
        },
        [this](query_batch_request& request) {
          return search([&](answer<search_request> respond) {
            machine_->query_batch(std::move(request.vectors), request.options,
                                  std::move(respond));
          });
        },
        [this](get_request& request) {
          return keep<optional_rows>([&](answer<optional_rows> respond) {
            machine_->get(std::move(request.ids), std::move(respond));
          });
        },
        [this](get_vectors_request& request) {
          return keep<std::vector<id_vector>>(
              [&](answer<std::vector<id_vector>> respond) {
                machine_->get_vectors(std::move(request.ids),
                                      std::move(respond));
              });
        },
        [this](remove_request& request) {
          return keep<void>([&](answer<void> respond) {
            machine_->remove(std::move(request.ids), std::move(respond));
          });
        },
        [this](remove_entity_request& request) {
          return keep<void>([&](answer<void> respond) {
            machine_->remove({entity_id(request.name)}, std::move(respond));
          });
        },
        [this](remove_relation_request& request) {
          return keep<void>([&](answer<void> respond) {
            machine_->remove_relation(std::move(request.name),
                                      std::move(respond));
          });
        },
        [this](commit_request& request) {
          return keep<commit_result>([&](answer<commit_result> respond) {
            machine_->commit(request.expected_generation, std::move(respond));
          });
        },
        [this](finalize_request&) {
          return keep<commit_result>([&](answer<commit_result> respond) {
            machine_->finalize(std::move(respond));
          });
        },
        [this](drop_request&) {
          return keep<void>([&](answer<void> respond) {
            machine_->drop(std::move(respond));
          });
        },
        [this](checkpoint_request& request) {
          return keep<void>([&](answer<void> respond) {
            machine_->checkpoint(request.how, std::move(respond));
          });
        },
        [this](watch_request& request) {
          auto watcher = sender_of(this);
          return keep<watch_start>([&](answer<watch_start> respond) {
            start_watch(request.options, watcher, std::move(respond));
          });
        },
        [this](next_event_request& request) {
          return keep<optional_event>([&](answer<optional_event> respond) {
            machine_->next_event(request.number, request.timeout,
                                 std::move(respond));
          });
        },
        [this](unwatch_request& request) {
          end_watch(request.number);
          return reply<void>{};
        },
        [this](await_generation_request& request) {
          return keep<std::uint64_t>([&](answer<std::uint64_t> respond) {
            machine_->await_generation(request.generation, request.timeout,
                                       std::move(respond));
          });
        },
        [this](pending_request&) {
          return reply<std::vector<std::string>>{machine_->pending_ids()};
        },
        [this](snapshot_request&) {
          return keep<snapshot_ptr>([&](answer<snapshot_ptr> respond) {
            machine_->snapshot(std::move(respond));
          });
        },
        [this](stats_request&) {
          return keep<handle_stats>([&](answer<handle_stats> respond) {
            machine_->stats(std::move(respond));
          });
        },
        [this](verify_request&) {
          return keep<void>([&](answer<void> respond) {
            machine_->verify(std::move(respond));
          });
        },
        [this](look_message) {
          place_->begin_look();
          machine_->look();
        },
        [this](timer_message& passed) {
          timers_.extract(passed.number).mapped()();
        },
    };
  }

  void on_exit() override {
    promises_.close();
    place_.reset();
    timers_.clear();
    while (!watchers_.empty())
      forget_watcher(watchers_.begin()->first);
    tell(helpers_.io,
         run_request{std::make_shared<release_job>(std::move(machine_))});
    helpers_ = {};
  }

private:
  void run(std::shared_ptr<job> work, job_pace pace,
           answer<void> respond) override {
    const auto& pool = pace == job_pace::slow ? helpers_.slow_io : helpers_.io;
    ask<void>(this, pool, run_request{std::move(work)}, std::move(respond));
  }

  void embed(embed_request request, answer<embedding_batch> respond) override {
    ask<embedding_batch>(this, helpers_.embedder, std::move(request),
                         std::move(respond));
  }

  void after(std::chrono::milliseconds time,
             std::function<void()> then) override {
    timers_.emplace(next_timer_, std::move(then));
    tell_later(inner_actor(this), time, timer_message{next_timer_++});
  }

  void note_view(const std::shared_ptr<const change_probe>& probe,
                 std::uint64_t generation, bool is_awaited) override {
    if (place_)
      place_->update(probe, generation, is_awaited);
  }

  std::unique_ptr<board_watcher::registration>
  register_at(board_watcher* watcher) {
    if (watcher == nullptr)
      return nullptr;
    return watcher->add([name = actor_name(address())] {
      tell(handle_of<inner_actor>(name), look_message{});
    });
  }

  void start_watch(watch_options options, actor_name watcher,
                   answer<watch_start> respond) {
    machine_->watch(
        options, [this, watcher = std::move(watcher),
                  respond = std::move(respond)](result<watch_start> started) {
          if (started) {
            if (!is_followed(watcher))
              follow(this, watcher);
            watchers_.emplace(started->number, watcher);
          }
          respond(std::move(started));
        });
  }

  void end_watch(std::uint64_t number) {
    forget_watcher(number);
    machine_->unwatch(number);
  }

  void forget_watcher(std::uint64_t number) {
    auto ended = watchers_.extract(number);
    if (!ended.empty() && !is_followed(ended.mapped()))
      stop_following(this, ended.mapped());
  }

  bool is_followed(const actor_name& watcher) const {
    return std::any_of(
        watchers_.begin(), watchers_.end(),
        [&](const auto& each) { return each.second == watcher; });
  }

  /// Passes the way to answer to `begin`, which may use it now or later.
  template <class T, class Begin>
  promise<T> keep(Begin begin) {
    auto promised = make_response_promise<reply<T>>();
    auto respond = promises_.keep(promised);
    attempt(begin, respond);
    return promised;
  }

  /// What `begin` answers is looked for by the search pool, which answers the
  /// caller.
  template <class Begin>
  promise<hit_lists> search(Begin begin) {
    auto promised = make_response_promise<reply<hit_lists>>();
    auto respond = promises_.keep_for<search_request>(
        promised, [this, promised](search_request request) mutable {
          promised.delegate(helpers_.search, std::move(request));
        });
    attempt(begin, respond);
    return promised;
  }

  template <class T, class Begin>
  static void attempt(Begin& begin, answer<T>& respond) {
    try {
      begin(respond);
    } catch (...) {
      respond(unexpected_exception("the storage actor", errc::broken));
    }
  }

  storage_helpers helpers_;
  kept_promises promises_;
  std::unique_ptr<board_watcher::registration> place_;
  std::map<std::uint64_t, std::function<void()>> timers_;
  std::uint64_t next_timer_ = 0;
  /// Who has asked for each watch.
  std::map<std::uint64_t, actor_name> watchers_;
  std::unique_ptr<storage_machine> machine_;
};

} // namespace

storage_actor spawn_storage(caf::actor_system& system, storage_setup setup,
                            storage_helpers helpers) {
  return system.spawn<storage>(std::move(setup), std::move(helpers));
}

} // namespace callboard
