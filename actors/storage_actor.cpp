#include "actors/storage_actor.hpp"

#include "core/record.hpp"

#include <exception>
#include <utility>

namespace callboard {

namespace {

/// Closes a store, which may take long, on a thread that may block.
class release_job : public job {
public:
  explicit release_job(std::unique_ptr<storage_machine> machine)
      : machine_(std::move(machine)) {}
  void run() override { machine_.reset(); }

private:
  std::unique_ptr<storage_machine> machine_;
};

class storage : public storage_actor::base, public storage_services {
public:
  storage(caf::actor_config& config, storage_setup setup,
          storage_helpers helpers)
      : storage_actor::base(config),
        helpers_(std::move(helpers)),
        machine_(std::make_unique<storage_machine>(std::move(setup), *this)) {}

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
    };
  }

  void on_exit() override {
    promises_.close();
    caf::anon_send(helpers_.io, run_request{std::make_shared<release_job>(
                                    std::move(machine_))});
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
  std::unique_ptr<storage_machine> machine_;
};

} // namespace

storage_actor spawn_storage(caf::actor_system& system, storage_setup setup,
                            storage_helpers helpers) {
  return system.spawn<storage>(std::move(setup), std::move(helpers));
}

} // namespace callboard
