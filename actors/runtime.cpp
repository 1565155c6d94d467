#include "actors/board_watcher.hpp"
#include "actors/embedder_pool.hpp"
#include "actors/manual_scheduler.hpp"
#include "actors/runtime_actors.hpp"
#include "actors/storage_actor.hpp"
#include "actors/worker_pool.hpp"
#include "core/index_file.hpp"
#include "core/record.hpp"
#include "ipc/shared_board.hpp"

#include <spdlog/logger.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <algorithm>
#include <future>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace callboard {

namespace {

/// For checkpoints and verification: one store at a time, so that the disk is
/// left to commits.
constexpr std::size_t slow_io_threads = 1;

std::shared_ptr<spdlog::logger> warnings_to_stderr() {
  auto log = std::make_shared<spdlog::logger>(
      "callboard", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  log->set_level(spdlog::level::warn);
  return log;
}

runtime_options with_defaults(runtime_options options) {
  auto processors = std::max(1U, std::thread::hardware_concurrency());
  options.scheduler_threads =
      std::max<std::size_t>(1, options.scheduler_threads);
  options.io_threads = std::max<std::size_t>(1, options.io_threads);
  if (options.search_threads == 0)
    options.search_threads = processors;
  if (options.door == nullptr)
    options.door = &posix_io();
  if (!options.log)
    options.log = warnings_to_stderr();
  return options;
}

/// What a model says about itself.
struct model_facts {
  std::size_t dimension = 0;
  std::string name;
  std::size_t concurrency = 1;
  std::size_t batch_texts_max = 1;
};

result<model_facts> facts_of(const embedder& model) {
  try {
    model_facts facts{
        .dimension = model.dimension(),
        .name = model.name(),
        .concurrency = std::max<std::size_t>(1, model.concurrency()),
        .batch_texts_max = std::max<std::size_t>(1, model.batch_texts_max())};
    if (facts.dimension < 1 || facts.dimension > dimension_max)
      return failure{errc::invalid_argument,
                     "the embedder's dimension "
                         + std::to_string(facts.dimension) + " is outside 1 to "
                         + std::to_string(dimension_max)};
    return facts;
  } catch (...) {
    return unexpected_exception("the embedder", errc::embedding_failed);
  }
}

result<void> check_limit(std::string_view name, std::size_t value,
                         std::size_t largest) {
  if (value >= 1 && value <= largest)
    return {};
  return failure{errc::invalid_argument,
                 "`open_options::" + std::string(name) + "` is "
                     + std::to_string(value) + ", outside 1 to "
                     + std::to_string(largest) + ", what one commit takes"};
}

result<void> check(const open_options& options) {
  if (!options.model)
    return failure{errc::invalid_argument,
                   "an embedder is required to open a store: set "
                   "`open_options::model`"};
  if (options.working_directory.empty())
    return failure{errc::invalid_argument,
                   "the working directory is required to open a store: set "
                   "`open_options::working_directory`"};
  CALLBOARD_TRY(check_limit("pending_operations_max",
                            options.pending_operations_max,
                            commit_operations_max));
  CALLBOARD_TRY(check_limit("pending_bytes_max", options.pending_bytes_max,
                            commit_bytes_max));
  CALLBOARD_TRY(check_store_name(name_kind::workspace, options.workspace));
  return check_store_name(name_kind::namespace_name, options.namespace_name);
}

store_options store_options_of(const open_options& options,
                               const model_facts& facts,
                               std::shared_ptr<spdlog::logger> log) {
  return {.working_directory = options.working_directory,
          .workspace = options.workspace,
          .namespace_name = options.namespace_name,
          .dimension = static_cast<std::uint32_t>(facts.dimension),
          .model = facts.name,
          .base_map = options.base_map,
          .lock_timeout = options.lock_timeout,
          .reader_grace = options.reader_grace,
          .salvage = options.salvage,
          .network_files = options.network_files,
          .log = std::move(log)};
}

/// Enough batches for a model to be busy, and few enough that stores share it.
batch_limits limits_of(const open_options& options, const model_facts& facts) {
  auto wished = std::max<std::size_t>(1, options.embedding_batch);
  return {.batch_texts_max = std::min(wished, facts.batch_texts_max),
          .batches_at_once = 2 * facts.concurrency + 2};
}

} // namespace

namespace {

/// CAF cannot be left half started: so first, whether all threads can be had.
result<void> check_threads(std::size_t count) {
  std::vector<std::thread> held;
  held.reserve(count);
  std::promise<void> enough;
  auto is_enough = enough.get_future().share();
  result<void> out;
  try {
    while (held.size() < count)
      held.emplace_back([is_enough] { is_enough.wait(); });
  } catch (const std::system_error& reason) {
    out = failure{errc::busy,
                  "the system gives " + std::to_string(held.size())
                      + " threads, and the runtime needs "
                      + std::to_string(count) + ": " + reason.what()
                      + "; raise the limit, or ask for fewer threads"};
  }
  enough.set_value();
  for (auto& each : held)
    each.join();
  return out;
}

std::size_t threads_of(const runtime_options& options) {
  constexpr std::size_t others = 4; // board, clock, a model's first workers
  return options.scheduler_threads + options.io_threads + slow_io_threads
         + options.search_threads + others;
}

} // namespace

runtime::implementation::implementation(runtime_options options,
                                        spawn_mode mode)
    : options_(with_defaults(std::move(options))), mode_(mode) {
  thread_detacher detacher;
  if (options_.board == nullptr) {
    own_board_ =
        std::make_unique<shared_board>(*options_.door, options_.backing);
    options_.board = own_board_.get();
  }
  board_watcher_ = std::make_unique<board_watcher>();
  if (mode_ == spawn_mode::own_thread) {
    board_thread_ = std::make_unique<board_thread>(
        *options_.door, *options_.board, *board_watcher_);
    configure_scheduler(config_, options_.scheduler_threads);
  } else {
    configure_manual_scheduler(config_);
  }
  system_ = std::make_unique<caf::actor_system>(config_);
  gateway_ = std::make_shared<gateway>(*system_);
  auto pool_of = [this](std::size_t workers) {
    return pool_options{
        .workers = workers, .queue_max = options_.queue_max, .mode = mode_};
  };
  io_pool_ = spawn_io_pool(*system_, pool_of(options_.io_threads));
  slow_io_pool_ = spawn_io_pool(*system_, pool_of(slow_io_threads));
  search_pool_ = spawn_search_pool(*system_, pool_of(options_.search_threads));
}

runtime::implementation::~implementation() {
  gateway_->close();
  board_thread_.reset();
  stop_storages();
  stop_pools();
  run_without_threads();
  gateway_->drain();
  system_.reset();
}

void runtime::implementation::stop_storages() {
  std::unique_lock lock(mutex_);
  is_closed_ = true;
  for (const auto& [number, each] : storages_)
    stop(each);
  lock.unlock();
  run_without_threads();
  lock.lock();
  all_ended_.wait(lock, [this] { return storages_.empty(); });
}

void runtime::implementation::run_without_threads() {
  if (mode_ == spawn_mode::shared_thread)
    run_actors(*system_);
}

void runtime::implementation::stop_pools() {
  stop(search_pool_);
  stop(slow_io_pool_);
  stop(io_pool_);
  search_pool_ = nullptr;
  slow_io_pool_ = nullptr;
  io_pool_ = nullptr;
}

result<storage_actor>
runtime::implementation::open_storage(open_options options) {
  CALLBOARD_TRY(check(options));
  CALLBOARD_TRY_ASSIGN(auto facts, facts_of(*options.model));
  if (options.meta_fields.empty())
    options.meta_fields = default_meta_fields(options.namespace_name);
  auto open_store = [door = options_.door, board = options_.board,
                     chosen = store_options_of(options, facts, options_.log)] {
    return store::open(*door, *board, chosen);
  };
  CALLBOARD_TRY_ASSIGN(auto session, store_session::open(open_store));

  thread_detacher detacher;
  std::unique_lock lock(mutex_);
  if (is_closed_)
    return closed_failure();
  auto model = options.model;
  auto limits = limits_of(options, facts);
  storage_setup setup{.session = std::move(session),
                      .options = std::move(options),
                      .dimension = static_cast<std::uint32_t>(facts.dimension),
                      .embedding = limits,
                      .door = options_.door,
                      .log = options_.log};
  auto spawned = spawn_storage(*system_, std::move(setup),
                               {.io = io_pool_,
                                .slow_io = slow_io_pool_,
                                .search = search_pool_,
                                .embedder = join_pool(model),
                                .watcher = board_watcher_.get()});
  auto number = next_number_++;
  storages_.emplace(number, spawned);
  lock.unlock();
  when_ended(spawned,
             [this, number, key = model.get()] { storage_ended(number, key); });
  return spawned;
}

embedder_pool_actor
runtime::implementation::join_pool(const std::shared_ptr<embedder>& model) {
  auto& entry = embedder_pools_[model.get()];
  if (entry.users++ == 0)
    entry.pool = spawn_embedder_pool(
        *system_, model, {.queue_max = options_.queue_max, .mode = mode_});
  return entry.pool;
}

void runtime::implementation::leave_pool(const embedder* model) {
  auto found = embedder_pools_.find(model);
  if (--found->second.users > 0)
    return;
  stop(found->second.pool);
  embedder_pools_.erase(found);
}

void runtime::implementation::storage_ended(std::uint64_t number,
                                            const embedder* model) {
  std::lock_guard lock(mutex_);
  storages_.erase(number);
  leave_pool(model);
  if (storages_.empty())
    all_ended_.notify_all();
}

runtime::runtime(std::unique_ptr<implementation> actors)
    : implementation_(std::move(actors)) {}

runtime::~runtime() = default;

result<std::unique_ptr<runtime>> runtime::start(runtime_options options) {
  try {
    CALLBOARD_TRY(check_threads(threads_of(with_defaults(options))));
    return std::unique_ptr<runtime>(
        new runtime(std::make_unique<implementation>(std::move(options))));
  } catch (...) {
    return unexpected_exception("starting the runtime", errc::busy);
  }
}

} // namespace callboard
