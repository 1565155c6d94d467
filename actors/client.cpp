#include "actors/client.hpp"

#include "actors/runtime_actors.hpp"

#include <utility>

namespace callboard {

/// What the copies of a client share; the actor ends with the last of them.
class client::state {
public:
  state(std::shared_ptr<gateway> calls, storage_actor target)
      : calls_(std::move(calls)), number_(calls_->admit(std::move(target))) {}
  ~state() { calls_->release(number_); }
  state(const state&) = delete;
  state& operator=(const state&) = delete;

  template <class T, class Request>
  result<T> call(Request request) {
    return calls_->call<T>(number_, std::move(request));
  }

  /// Waits for no answer.
  template <class Request>
  void tell(Request request) {
    calls_->tell(number_, std::move(request));
  }

private:
  std::shared_ptr<gateway> calls_;
  std::uint64_t number_;
};

namespace {

result<std::vector<hit>> first_of(result<hit_lists> lists) {
  if (!lists)
    return std::move(lists).error();
  return std::move(lists->front());
}

} // namespace

client::client(std::shared_ptr<state> shared) : state_(std::move(shared)) {}

result<client> runtime::open(open_options options) {
  CALLBOARD_TRY_ASSIGN(auto spawned,
                       implementation_->open_storage(std::move(options)));
  return client(std::make_shared<client::state>(implementation_->calls(),
                                                std::move(spawned)));
}

result<void> client::upsert(std::vector<upsert_item> items) {
  return state_->call<void>(upsert_request{std::move(items)});
}

result<void> client::upsert(std::string id, std::string record) {
  std::vector<upsert_item> items;
  items.push_back({std::move(id), std::move(record), {}});
  return upsert(std::move(items));
}

result<std::vector<hit>> client::query(std::string text,
                                       query_options options) {
  return first_of(
      state_->call<hit_lists>(query_text_request{std::move(text), options}));
}

result<std::vector<hit>> client::query(std::vector<float> vector,
                                       query_options options) {
  return first_of(state_->call<hit_lists>(
      query_vector_request{std::move(vector), options}));
}

result<std::vector<hit>> client::query(std::initializer_list<float> vector,
                                       query_options options) {
  return query(std::vector<float>(vector), options);
}

result<std::vector<std::vector<hit>>>
client::query_batch(std::vector<float> vectors, query_options options) {
  return state_->call<hit_lists>(
      query_batch_request{std::move(vectors), options});
}

result<std::optional<row>> client::get_by_id(std::string id) {
  std::vector<std::string> ids;
  ids.push_back(std::move(id));
  CALLBOARD_TRY_ASSIGN(auto rows, get_by_ids(std::move(ids)));
  return std::move(rows.front());
}

result<std::vector<std::optional<row>>>
client::get_by_ids(std::vector<std::string> ids) {
  return state_->call<optional_rows>(get_request{std::move(ids)});
}

result<std::vector<id_vector>>
client::get_vectors_by_ids(std::vector<std::string> ids) {
  return state_->call<std::vector<id_vector>>(
      get_vectors_request{std::move(ids)});
}

result<void> client::remove(std::vector<std::string> ids) {
  return state_->call<void>(remove_request{std::move(ids)});
}

result<void> client::remove_entity(std::string name) {
  return state_->call<void>(remove_entity_request{std::move(name)});
}

result<void> client::remove_entity_relation(std::string name) {
  return state_->call<void>(remove_relation_request{std::move(name)});
}

result<commit_result>
client::commit(std::optional<std::uint64_t> expected_generation) {
  return state_->call<commit_result>(commit_request{expected_generation});
}

result<commit_result> client::finalize() {
  return state_->call<commit_result>(finalize_request{});
}

result<void> client::drop() {
  return state_->call<void>(drop_request{});
}

result<void> client::checkpoint(compaction how) {
  return state_->call<void>(checkpoint_request{how});
}

result<subscription> client::watch(watch_options options) {
  CALLBOARD_TRY_ASSIGN(auto start,
                       state_->call<watch_start>(watch_request{options}));
  return subscription(state_, start);
}

result<std::uint64_t>
client::await_generation(std::uint64_t generation,
                         std::chrono::milliseconds timeout) {
  return state_->call<std::uint64_t>(
      await_generation_request{generation, timeout});
}

result<std::vector<std::string>> client::pending_ids() {
  return state_->call<std::vector<std::string>>(pending_request{});
}

result<snapshot_ptr> client::snapshot() {
  return state_->call<snapshot_ptr>(snapshot_request{});
}

result<handle_stats> client::stats() {
  return state_->call<handle_stats>(stats_request{});
}

result<void> client::verify() {
  return state_->call<void>(verify_request{});
}

subscription::subscription(std::shared_ptr<client::state> shared,
                           watch_start start)
    : state_(std::move(shared)), start_(start) {}

subscription::subscription(subscription&& other) noexcept
    : state_(std::exchange(other.state_, nullptr)), start_(other.start_) {}

subscription& subscription::operator=(subscription&& other) noexcept {
  subscription taken(std::move(other));
  std::swap(state_, taken.state_);
  std::swap(start_, taken.start_);
  return *this; // what was here before ends with `taken`
}

subscription::~subscription() {
  if (state_)
    state_->tell(unwatch_request{start_.number});
}

result<std::optional<commit_event>>
subscription::next(std::chrono::milliseconds timeout) {
  if (!state_)
    return failure{errc::closed, "this subscription was moved from: ask the "
                                 "one it was moved to"};
  return state_->call<std::optional<commit_event>>(
      next_event_request{start_.number, timeout});
}

} // namespace callboard
