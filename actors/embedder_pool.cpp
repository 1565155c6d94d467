#include "actors/embedder_pool.hpp"

#include "actors/checked_embedder.hpp"
#include "actors/crew.hpp"

#include <algorithm>
#include <deque>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

namespace callboard {

namespace {

/// Texts of one or several requests, for one call of the model.
struct batch_request {
  std::vector<std::string> texts;
  embedding_context context = embedding_context::document;
};

} // namespace

} // namespace callboard

CALLBOARD_LOCAL_MESSAGE(callboard::batch_request)

namespace callboard {

namespace {

/// A request whose texts are in a batch.
struct passenger {
  std::size_t text_count = 0;
  answer<embedding_batch> done;
};

/// Hands each passenger its part of what the model answered.
void deal_out(std::vector<passenger>& passengers, std::size_t dimension,
              result<embedding_batch> answered) {
  std::size_t first = 0;
  for (auto& each : passengers) {
    if (!answered) {
      each.done(answered.error());
      continue;
    }
    auto last = first + each.text_count;
    auto at = [&](std::size_t text) {
      return answered->vectors.begin()
             + static_cast<std::ptrdiff_t>(text * dimension);
    };
    embedding_batch part;
    part.vectors.assign(at(first), at(last));
    for (const auto& rejected : answered->rejected)
      if (rejected.index >= first && rejected.index < last)
        part.rejected.push_back({rejected.index - first, rejected.message});
    each.done(std::move(part));
    first = last;
  }
}

class embedder_pool : public embedder_pool_actor::base {
public:
  embedder_pool(caf::actor_config& config, std::shared_ptr<embedder> model,
                embedder_pool_options options)
      : embedder_pool_actor::base(config),
        dimension_(model->dimension()),
        batch_texts_max_(std::max<std::size_t>(1, model->batch_texts_max())),
        queue_max_(options.queue_max),
        workers_(this, embedding_worker_name,
                 std::max<std::size_t>(1, model->concurrency()), options.mode,
                 [model, permits = permits_of(model)](batch_request& request) {
                   return embed_checked(*model, *permits,
                                        std::move(request.texts),
                                        request.context);
                 }) {}

  const char* name() const override { return "callboard.embedder"; }

  behavior_type make_behavior() override {
    return {[this](embed_request& request) {
      auto promised = make_response_promise<reply<embedding_batch>>();
      accept(std::move(request), promised);
      return promised;
    }};
  }

  void on_exit() override {
    workers_.dismiss();
    promises_.close();
    queries_.clear();
    documents_.clear();
  }

private:
  struct waiting {
    embed_request request;
    answer<embedding_batch> done;
  };
  using lane = std::deque<waiting>;

  std::size_t limit_of(const embed_request& request) const noexcept {
    return std::min(request.batch_texts_max, batch_texts_max_);
  }

  void accept(embed_request request, promise<embedding_batch> promised) {
    auto is_query = request.context == embedding_context::query;
    auto& chosen = is_query ? queries_ : documents_;
    if (request.texts.empty()) {
      promised.deliver(reply<embedding_batch>{embedding_batch{}});
    } else if (request.texts.size() > limit_of(request)) {
      promised.deliver(reply<embedding_batch>{
          failure{errc::invalid_argument,
                  std::to_string(request.texts.size())
                      + " texts in one request to an embedder that takes "
                      + std::to_string(limit_of(request)) + ": split them"}});
    } else if (chosen.size() >= queue_max_) {
      promised.deliver(reply<embedding_batch>{failure{
          errc::busy, std::to_string(queue_max_)
                          + " requests wait for the embedder already: try "
                            "again later, or use one that is faster"}});
    } else {
      chosen.push_back({std::move(request), promises_.keep(promised)});
      feed();
    }
  }

  void feed() {
    while (workers_.has_idle() && !(queries_.empty() && documents_.empty()))
      send_batch(queries_.empty() ? documents_ : queries_);
  }

  /// The batch grows by whole requests while it suits all that are in it.
  void send_batch(lane& from) {
    batch_request batch;
    std::vector<passenger> passengers;
    batch.context = from.front().request.context;
    auto limit = batch_texts_max_;
    while (!from.empty()) {
      auto& next = from.front();
      auto& texts = next.request.texts;
      limit = std::min(limit, limit_of(next.request));
      if (batch.texts.size() + texts.size() > limit)
        break;
      passengers.push_back({texts.size(), std::move(next.done)});
      std::move(texts.begin(), texts.end(), std::back_inserter(batch.texts));
      from.pop_front();
    }
    workers_.give(std::move(batch),
                  [this, passengers = std::move(passengers)](
                      result<embedding_batch> answered) mutable {
                    deal_out(passengers, dimension_, std::move(answered));
                    feed();
                  });
  }

  std::size_t dimension_;
  std::size_t batch_texts_max_;
  std::size_t queue_max_;
  lane queries_;
  lane documents_;
  kept_promises promises_;
  crew<embedder_pool, embedding_batch, batch_request> workers_;
};

} // namespace

embedder_pool_actor spawn_embedder_pool(caf::actor_system& system,
                                        std::shared_ptr<embedder> model,
                                        embedder_pool_options options) {
  return system.spawn<embedder_pool>(std::move(model), options);
}

} // namespace callboard
