#include "cli/message_session.hpp"

#include "actors/embedder_spec.hpp"
#include "cli/output.hpp"
#include "cli/stats_text.hpp"
#include "core/json_text.hpp"
#include "core/record.hpp"

#include <array>
#include <cstring>
#include <limits>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

namespace callboard::cli {
namespace {

constexpr std::string_view default_handle = "A";

/// Adds `value` to an unfinished array or object.
void append(std::string& container, std::string_view value) {
  if (container.size() > 1)
    container += ", ";
  container += value;
}

std::string member_text(std::string_view name, std::string_view value) {
  return json_text::encode_string(name) + ": " + std::string(value);
}

std::string floats_json(std::span<const float> values) {
  std::string text = "[";
  for (const float value : values)
    append(text, json_text::from_float(value));
  return text + "]";
}

std::string row_json(const std::optional<row>& found) {
  return found ? result_row(found->record) : "null";
}

std::string failures_json(const std::vector<record_failure>& failed) {
  std::string list = "[";
  for (const auto& [id, reason] : failed) {
    std::string entry = "{";
    append(entry, member_text("id", json_text::encode_string(id)));
    append(entry, member_text("code", json_text::encode_string(
                                          to_string(reason.code))));
    append(entry,
           member_text("message", json_text::encode_string(reason.message)));
    append(list, entry + "}");
  }
  return list + "]";
}

/// Records that were left out make an error of a commit, although the others
/// are committed.
std::string records_failed(const commit_result& done) {
  const auto message =
      std::to_string(done.failed.size())
      + " records are left out and stay pending, the others are committed; "
        "first: "
      + done.failed.front().reason.message;
  std::string error = "{";
  append(error, member_text("code", "\"records_failed\""));
  append(error, member_text("message", json_text::encode_string(message)));
  append(error, member_text("generation", std::to_string(done.generation)));
  append(error, member_text("failed", failures_json(done.failed)));
  return "{\"e\": " + error + "}}";
}

/// An item of `data`: [id, record] or [id, record, vector].
result<upsert_item> parse_item(std::string_view raw) {
  using json_text::value_kind;
  constexpr std::string_view shape =
      "an element of \"data\" is not [id, record] or [id, record, vector]";
  if (json_text::kind_of(raw) != value_kind::array)
    return failure{errc::invalid_argument, std::string(shape)};
  std::vector<std::string_view> parts;
  const auto keep = [&](std::string_view value) -> result<void> {
    parts.push_back(value);
    return {};
  };
  CALLBOARD_TRY(json_text::for_each_element(raw, keep, request_rules));
  if (parts.size() < 2 || parts.size() > 3)
    return failure{errc::invalid_argument, std::string(shape)};

  upsert_item item;
  CALLBOARD_TRY_ASSIGN(item.id, decode_named_string("id", parts[0]));
  item.record = parts[1];
  if (parts.size() == 3 && json_text::kind_of(parts[2]) != value_kind::null) {
    CALLBOARD_TRY_ASSIGN(item.vector, json_text::to_floats(parts[2]));
  }
  return item;
}

/// `data` is an array of items or an object of records by id.
result<std::vector<upsert_item>> parse_data(std::string_view raw) {
  std::vector<upsert_item> items;
  const auto keep_item = [&](std::string_view value) -> result<void> {
    CALLBOARD_TRY_ASSIGN(auto item, parse_item(value));
    items.push_back(std::move(item));
    return {};
  };
  const auto keep_member = [&](std::string_view key, std::string_view value,
                               std::string_view) -> result<void> {
    items.push_back({std::string(key), std::string(value), {}});
    return {};
  };
  switch (json_text::kind_of(raw)) {
  case json_text::value_kind::array:
    CALLBOARD_TRY(json_text::for_each_element(raw, keep_item, request_rules));
    return items;
  case json_text::value_kind::object:
    CALLBOARD_TRY(json_text::for_each_member(raw, keep_member, request_rules));
    return items;
  default:
    return failure{errc::invalid_argument,
                   "\"data\" is neither an array nor an object"};
  }
}

result<std::string> stored_row_json(const snapshot& view, row_number number,
                                    bool with_vector) {
  CALLBOARD_TRY_ASSIGN(const auto record, view.record(number));
  std::string text(record);
  if (!with_vector)
    return text;
  CALLBOARD_TRY_ASSIGN(const auto bytes, view.vector(number));
  std::vector<float> values(view.dimension());
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  text.pop_back();
  append(text, member_text("__vector__", floats_json(values)));
  return text + "}";
}

} // namespace

message_session::message_session(runtime& actors, io& door, manual_clock* clock)
    : actors_(actors), door_(door), clock_(clock) {}

std::string message_session::good(std::string_view json) {
  return "{\"r\": " + std::string(json) + "}";
}

std::string message_session::answer_too_long() {
  return failure_json({errc::too_large, "the line is too long"});
}

std::string message_session::answer(std::string_view line) {
  const auto answered = run(line);
  return answered ? *answered : failure_json(answered.error());
}

message_session::operation
message_session::find_operation(std::string_view name) {
  static const std::map<std::string_view, operation> operations = {
      {"new", &message_session::open},
      {"upsert", &message_session::upsert},
      {"query", &message_session::query},
      {"get_by_id", &message_session::get_by_id},
      {"get_by_ids", &message_session::get_by_ids},
      {"get_vectors_by_ids", &message_session::get_vectors_by_ids},
      {"delete", &message_session::remove},
      {"delete_entity", &message_session::remove_entity},
      {"delete_entity_relation", &message_session::remove_entity_relation},
      {"commit", &message_session::commit},
      {"finalize", &message_session::finalize},
      {"drop", &message_session::drop},
      {"client_storage", &message_session::client_storage},
      {"pending", &message_session::pending},
      {"forget", &message_session::forget},
      {"time", &message_session::set_time},
      {"stats", &message_session::stats},
      {"checkpoint", &message_session::checkpoint},
      {"verify", &message_session::verify},
      {"watch", &message_session::watch},
      {"next_event", &message_session::next_event},
      {"unwatch", &message_session::unwatch},
      {"await_generation", &message_session::await_generation},
  };
  const auto found = operations.find(name);
  return found == operations.end() ? nullptr : found->second;
}

message_session::outcome message_session::run(std::string_view line) {
  CALLBOARD_TRY_ASSIGN(const auto request, message_request::parse(line));
  CALLBOARD_TRY_ASSIGN(const auto name, request.string("op"));
  const auto chosen = find_operation(name);
  if (chosen == nullptr)
    return failure{errc::invalid_argument,
                   "there is no operation " + printable(name)};
  return (this->*chosen)(request);
}

result<message_session::open_handle*>
message_session::entry_of(const message_request& request) {
  CALLBOARD_TRY_ASSIGN(const auto name,
                       request.string_or("i", std::string(default_handle)));
  const auto found = handles_.find(name);
  if (found == handles_.end())
    return failure{errc::invalid_argument,
                   "there is no handle " + printable(name)
                       + "; make it with the operation \"new\""};
  return &found->second;
}

result<client*> message_session::handle_of(const message_request& request) {
  CALLBOARD_TRY_ASSIGN(auto* const entry, entry_of(request));
  return &entry->store;
}

result<std::shared_ptr<embedder>>
message_session::embedder_of(const message_request& request) {
  CALLBOARD_TRY_ASSIGN(const auto dimension, request.integer_or("dim", 1, 0));
  CALLBOARD_TRY_ASSIGN(const auto specification,
                       request.string_or("embedder", "words"));
  command_settings settings;
  CALLBOARD_TRY_ASSIGN(settings.model_name, request.string_or("model", ""));
  const auto key = std::to_string(dimension) + '\n' + settings.model_name + '\n'
                   + specification;
  if (const auto found = embedders_.find(key); found != embedders_.end())
    return found->second;
  CALLBOARD_TRY_ASSIGN(auto made,
                       make_embedder(specification,
                                     static_cast<std::size_t>(dimension), door_,
                                     settings));
  embedders_.emplace(key, made);
  return made;
}

result<open_options>
message_session::options_of(const message_request& request) {
  open_options options;
  CALLBOARD_TRY_ASSIGN(options.working_directory, request.string("dir"));
  CALLBOARD_TRY_ASSIGN(options.workspace, request.string_or("workspace", ""));
  CALLBOARD_TRY_ASSIGN(options.namespace_name, request.string("namespace"));
  CALLBOARD_TRY_ASSIGN(options.meta_fields, request.strings("meta_fields"));
  CALLBOARD_TRY_ASSIGN(const auto threshold, request.number("threshold"));
  options.threshold = threshold.value_or(options.threshold);
  CALLBOARD_TRY_ASSIGN(
      const auto batch,
      request.integer_or("batch", 1,
                         static_cast<std::int64_t>(options.embedding_batch)));
  options.embedding_batch = static_cast<std::size_t>(batch);
  CALLBOARD_TRY_ASSIGN(options.network_files,
                       request.boolean_or("network_files", false));
  CALLBOARD_TRY_ASSIGN(options.model, embedder_of(request));
  return options;
}

message_session::outcome message_session::open(const message_request& request) {
  CALLBOARD_TRY_ASSIGN(auto name,
                       request.string_or("i", std::string(default_handle)));
  CALLBOARD_TRY_ASSIGN(auto options, options_of(request));
  CALLBOARD_TRY_ASSIGN(auto opened, actors_.open(std::move(options)));
  handles_.insert_or_assign(std::move(name), open_handle{std::move(opened)});
  return good("null");
}

message_session::outcome
message_session::upsert(const message_request& request) {
  CALLBOARD_TRY_ASSIGN(auto* const handle, handle_of(request));
  CALLBOARD_TRY_ASSIGN(const auto raw, request.required_raw("data"));
  CALLBOARD_TRY_ASSIGN(auto items, parse_data(raw));
  if (!items.empty())
    CALLBOARD_TRY(handle->upsert(std::move(items)));
  return good("null");
}

message_session::outcome
message_session::query(const message_request& request) {
  CALLBOARD_TRY_ASSIGN(auto* const handle, handle_of(request));
  query_options how;
  CALLBOARD_TRY_ASSIGN(const auto top_k, request.integer_or("top_k", 1, 10));
  how.top_k = static_cast<std::size_t>(top_k);
  CALLBOARD_TRY_ASSIGN(how.threshold, request.number("threshold"));

  std::vector<hit> hits;
  if (const auto raw = request.raw("emb")) {
    CALLBOARD_TRY_ASSIGN(auto vector, json_text::to_floats(*raw));
    CALLBOARD_TRY_ASSIGN(hits, handle->query(std::move(vector), how));
  } else {
    CALLBOARD_TRY_ASSIGN(auto text, request.string("text"));
    CALLBOARD_TRY_ASSIGN(hits, handle->query(std::move(text), how));
  }
  std::string list = "[";
  for (const auto& found : hits)
    append(list, result_row(found.record, found.distance));
  return good(list + "]");
}

message_session::outcome
message_session::get_by_id(const message_request& request) {
  CALLBOARD_TRY_ASSIGN(auto* const handle, handle_of(request));
  CALLBOARD_TRY_ASSIGN(auto id, request.string("id"));
  CALLBOARD_TRY_ASSIGN(const auto found, handle->get_by_id(std::move(id)));
  return good(row_json(found));
}

message_session::outcome
message_session::get_by_ids(const message_request& request) {
  CALLBOARD_TRY_ASSIGN(auto* const handle, handle_of(request));
  CALLBOARD_TRY_ASSIGN(auto ids, request.strings("ids"));
  CALLBOARD_TRY_ASSIGN(const auto rows, handle->get_by_ids(std::move(ids)));
  std::string list = "[";
  for (const auto& found : rows)
    append(list, row_json(found));
  return good(list + "]");
}

message_session::outcome
message_session::get_vectors_by_ids(const message_request& request) {
  CALLBOARD_TRY_ASSIGN(auto* const handle, handle_of(request));
  CALLBOARD_TRY_ASSIGN(auto ids, request.strings("ids"));
  CALLBOARD_TRY_ASSIGN(const auto found,
                       handle->get_vectors_by_ids(std::move(ids)));
  std::set<std::string_view> seen;
  std::string object = "{";
  for (const auto& [id, vector] : found) {
    if (seen.insert(id).second)
      append(object, json_text::encode_string(id) + ": " + floats_json(vector));
  }
  return good(object + "}");
}

message_session::outcome
message_session::remove(const message_request& request) {
  CALLBOARD_TRY_ASSIGN(auto* const handle, handle_of(request));
  CALLBOARD_TRY(request.required_raw("ids"));
  CALLBOARD_TRY_ASSIGN(auto ids, request.strings("ids"));
  if (!ids.empty())
    CALLBOARD_TRY(handle->remove(std::move(ids)));
  return good("null");
}

message_session::outcome
message_session::remove_entity(const message_request& request) {
  CALLBOARD_TRY_ASSIGN(auto* const handle, handle_of(request));
  CALLBOARD_TRY_ASSIGN(auto name, request.string("name"));
  CALLBOARD_TRY(handle->remove_entity(std::move(name)));
  return good("null");
}

message_session::outcome
message_session::remove_entity_relation(const message_request& request) {
  CALLBOARD_TRY_ASSIGN(auto* const handle, handle_of(request));
  CALLBOARD_TRY_ASSIGN(auto name, request.string("name"));
  CALLBOARD_TRY(handle->remove_entity_relation(std::move(name)));
  return good("null");
}

message_session::outcome
message_session::commit(const message_request& request) {
  CALLBOARD_TRY_ASSIGN(auto* const handle, handle_of(request));
  std::optional<std::uint64_t> expected;
  if (request.raw("expected_generation")) {
    CALLBOARD_TRY_ASSIGN(const auto value,
                         request.integer_or("expected_generation", 0, 0));
    expected = static_cast<std::uint64_t>(value);
  }
  CALLBOARD_TRY_ASSIGN(const auto done, handle->commit(expected));
  std::string object = "{";
  append(object, member_text("generation", std::to_string(done.generation)));
  append(object, member_text("committed", std::to_string(done.committed)));
  append(object, member_text("discarded", std::to_string(done.discarded)));
  return done.failed.empty() ? good(object + "}") : records_failed(done);
}

message_session::outcome
message_session::finalize(const message_request& request) {
  CALLBOARD_TRY_ASSIGN(auto* const handle, handle_of(request));
  CALLBOARD_TRY_ASSIGN(const auto done, handle->finalize());
  return done.failed.empty() ? good("null") : records_failed(done);
}

message_session::outcome message_session::drop(const message_request& request) {
  CALLBOARD_TRY_ASSIGN(auto* const handle, handle_of(request));
  CALLBOARD_TRY(handle->drop());
  return good(R"({"status": "success", "message": "data dropped"})");
}

message_session::outcome
message_session::client_storage(const message_request& request) {
  CALLBOARD_TRY_ASSIGN(auto* const handle, handle_of(request));
  CALLBOARD_TRY_ASSIGN(const auto with_vectors,
                       request.boolean_or("vectors", false));
  CALLBOARD_TRY_ASSIGN(const auto view, handle->snapshot());
  std::string list = "[";
  result<void> state;
  view->for_each_row([&](row_number number) {
    auto text = stored_row_json(*view, number, with_vectors);
    if (text)
      append(list, *text);
    else
      state = std::move(text).error();
    return state.has_value();
  });
  CALLBOARD_TRY(std::move(state));
  return good("{\"data\": " + list + "]}");
}

message_session::outcome
message_session::pending(const message_request& request) {
  CALLBOARD_TRY_ASSIGN(auto* const handle, handle_of(request));
  CALLBOARD_TRY_ASSIGN(const auto ids, handle->pending_ids());
  std::string list = "[";
  for (const auto& id : ids)
    append(list, json_text::encode_string(id));
  return good(list + "]");
}

message_session::outcome
message_session::forget(const message_request& request) {
  CALLBOARD_TRY(handle_of(request));
  CALLBOARD_TRY_ASSIGN(const auto name,
                       request.string_or("i", std::string(default_handle)));
  handles_.erase(name);
  return good("null");
}

message_session::outcome
message_session::set_time(const message_request& request) {
  if (clock_ == nullptr)
    return failure{errc::invalid_argument,
                   "time can be set only with --manual-clock"};
  CALLBOARD_TRY_ASSIGN(const auto seconds, request.integer("t"));
  clock_->set(seconds);
  return good("null");
}

message_session::outcome
message_session::stats(const message_request& request) {
  CALLBOARD_TRY_ASSIGN(auto* const handle, handle_of(request));
  CALLBOARD_TRY_ASSIGN(const auto known, handle->stats());
  return good(stats_json(known));
}

message_session::outcome
message_session::checkpoint(const message_request& request) {
  CALLBOARD_TRY_ASSIGN(auto* const handle, handle_of(request));
  CALLBOARD_TRY_ASSIGN(const auto compacts,
                       request.boolean_or("compact", false));
  CALLBOARD_TRY(handle->checkpoint(compacts ? compaction::forced
                                            : compaction::automatic));
  return good("null");
}

message_session::outcome
message_session::verify(const message_request& request) {
  CALLBOARD_TRY_ASSIGN(auto* const handle, handle_of(request));
  CALLBOARD_TRY(handle->verify());
  return good("null");
}

} // namespace callboard::cli
