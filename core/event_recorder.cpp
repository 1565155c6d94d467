#include "core/event_recorder.hpp"

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

namespace callboard {

namespace {

commit_event event_of(const frame& transaction, std::uint32_t dimension) {
  commit_event out;
  out.generation = transaction.sequence;
  if (transaction.type == frame_type::drop) {
    out.what = commit_event::kind::drop;
    return out;
  }
  auto add = [&](const operation_view& operation) {
    auto& ids = operation.what == commit_operation::kind::upsert ? out.changed
                                                                 : out.removed;
    ids.emplace_back(operation.id);
  };
  // The frame was applied before: it is well-formed.
  if (!for_each_operation(transaction, dimension, add))
    return overflow_at(transaction.sequence);
  return out;
}

} // namespace

std::size_t memory_bytes(const commit_event& event) {
  constexpr std::size_t overhead = 64; // of allocations and of the queue
  auto out = sizeof event + overhead;
  for (const auto* ids : {&event.changed, &event.removed})
    for (const auto& id : *ids)
      out += sizeof(std::string) + id.size();
  return out;
}

commit_event overflow_at(std::uint64_t generation) {
  commit_event out;
  out.what = commit_event::kind::overflow;
  out.generation = generation;
  return out;
}

void event_recorder::start(std::uint64_t after) {
  stop();
  is_recording_ = true;
  last_ = after;
}

void event_recorder::stop() {
  is_recording_ = false;
  events_.clear();
  bytes_ = 0;
}

void event_recorder::record(const frame& transaction, std::uint32_t dimension) {
  if (!is_recording_ || transaction.sequence <= last_)
    return;
  skip_to(transaction.sequence - 1);
  last_ = transaction.sequence;
  add(event_of(transaction, dimension));
}

void event_recorder::skip_to(std::uint64_t sequence) {
  if (!is_recording_ || sequence <= last_)
    return;
  last_ = sequence;
  add(overflow_at(sequence));
}

void event_recorder::add(commit_event event) {
  bytes_ += memory_bytes(event);
  if (bytes_ > event_bytes_max)
    event = overflow_at(event.generation);
  // It tells of all that came before.
  if (event.what == commit_event::kind::overflow) {
    events_.clear();
    bytes_ = memory_bytes(event);
  }
  events_.push_back(std::move(event));
}

std::vector<commit_event> event_recorder::take(std::uint64_t last) {
  auto end = std::ranges::find_if(events_, [&](const commit_event& event) {
    return event.generation > last;
  });
  std::vector<commit_event> out(std::make_move_iterator(events_.begin()),
                                std::make_move_iterator(end));
  events_.erase(events_.begin(), end);
  bytes_ = 0;
  for (const auto& event : events_)
    bytes_ += memory_bytes(event);
  return out;
}

} // namespace callboard
