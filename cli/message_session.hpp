#pragma once

#include "actors/client.hpp"
#include "cli/manual_clock.hpp"
#include "cli/message_request.hpp"
#include "core/result.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

namespace callboard::cli {

/// One conversation of `callboard messages`: see docs/protocol.md.
///
/// Ownership: borrows its arguments. Handles end with it, without a commit.
/// Threads:   one owner; blocks.
class message_session {
public:
  /// `door` is the runtime's. `clock` is null if time cannot be set, else the
  /// same as `door`.
  message_session(runtime& actors, io& door, manual_clock* clock);

  /// The answer to one line, as one line without its end. Every line has one;
  /// an error leaves the session usable.
  std::string answer(std::string_view line);

  /// The answer to a line that was not kept because it was too long.
  static std::string answer_too_long();

private:
  struct open_handle {
    client store;
    /// By the numbers that the conversation knows them by.
    std::map<std::int64_t, subscription> watches = {};
    std::int64_t last_watch = 0;
  };

  /// A whole answer; failures become `{"e": ...}`.
  using outcome = result<std::string>;
  using operation = outcome (message_session::*)(const message_request&);

  static operation find_operation(std::string_view name);
  /// The answer with this result.
  static std::string good(std::string_view json);

  outcome run(std::string_view line);
  result<open_handle*> entry_of(const message_request& request);
  result<client*> handle_of(const message_request& request);
  result<std::shared_ptr<embedder>> embedder_of(const message_request& request);
  result<open_options> options_of(const message_request& request);
  outcome open(const message_request& request);
  outcome upsert(const message_request& request);
  outcome query(const message_request& request);
  outcome get_by_id(const message_request& request);
  outcome get_by_ids(const message_request& request);
  outcome get_vectors_by_ids(const message_request& request);
  outcome remove(const message_request& request);
  outcome remove_entity(const message_request& request);
  outcome remove_entity_relation(const message_request& request);
  outcome commit(const message_request& request);
  outcome finalize(const message_request& request);
  outcome drop(const message_request& request);
  outcome client_storage(const message_request& request);
  outcome pending(const message_request& request);
  outcome forget(const message_request& request);
  outcome watch(const message_request& request);
  outcome next_event(const message_request& request);
  outcome unwatch(const message_request& request);
  outcome await_generation(const message_request& request);
  outcome set_time(const message_request& request);
  outcome stats(const message_request& request);
  outcome checkpoint(const message_request& request);
  outcome verify(const message_request& request);

  runtime& actors_;
  io& door_;
  manual_clock* clock_;
  std::map<std::string, open_handle, std::less<>> handles_;
  /// By what they were asked for with, so that handles share a program.
  std::map<std::string, std::shared_ptr<embedder>> embedders_;
};

} // namespace callboard::cli
