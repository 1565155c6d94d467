#include "core/pending_buffer.hpp"

#include "core/record.hpp"

#include <unordered_set>
#include <utility>

namespace callboard {

namespace {

bool is_upsert(const pending_change& change) noexcept {
  return change->what == commit_operation::kind::upsert;
}

/// Its vector may have been made already.
bool is_same(const commit_operation& a, const commit_operation& b) noexcept {
  return a.record == b.record && a.drop_epoch == b.drop_epoch;
}

} // namespace

std::size_t
pending_buffer::cost(const commit_operation& change) const noexcept {
  auto vector_bytes = change.what == commit_operation::kind::upsert
                          ? dimension_ * sizeof(float)
                          : std::size_t{0};
  return change.id.size() + change.record.size() + vector_bytes
         + change_overhead_bytes;
}

result<void> pending_buffer::check_room(std::size_t added_operations,
                                        std::size_t added_bytes,
                                        std::size_t freed_bytes,
                                        std::string_view what) const {
  auto limits = " (at most " + std::to_string(limits_.operations_max)
                + " changes and " + std::to_string(limits_.bytes_max)
                + " bytes with their vectors)";
  if (added_operations > limits_.operations_max
      || added_bytes > limits_.bytes_max)
    return failure{errc::too_large,
                   std::string(what)
                       + " exceeds what one commit takes: split it" + limits};
  if (slots_.size() + added_operations > limits_.operations_max
      || bytes_ + added_bytes - freed_bytes > limits_.bytes_max)
    return failure{errc::busy, "uncommitted changes fill their buffer: commit,"
                               " then try again"
                                   + limits};
  return {};
}

result<void>
pending_buffer::check_upserts(std::span<const pending_change> upserts) const {
  std::unordered_map<std::string_view, const commit_operation*> last;
  for (const auto& upsert : upserts)
    last.insert_or_assign(upsert->id, upsert.get());
  std::size_t added_operations = 0;
  std::size_t added_bytes = 0;
  std::size_t freed_bytes = 0;
  for (const auto& [id, upsert] : last) {
    added_bytes += cost(*upsert);
    if (auto found = by_id_.find(id); found != by_id_.end())
      freed_bytes += cost(*found->second->change);
    else
      ++added_operations;
  }
  return check_room(added_operations, added_bytes, freed_bytes,
                    "the upsert of " + std::to_string(last.size())
                        + " records");
}

result<void> pending_buffer::upsert(std::vector<pending_change> upserts) {
  CALLBOARD_TRY(check_upserts(upserts));
  for (auto& upsert : upserts)
    put_upsert(std::move(upsert));
  return {};
}

void pending_buffer::adopt(std::vector<pending_change> upserts) {
  for (auto& upsert : upserts) {
    auto found = by_id_.find(upsert->id);
    if (found == by_id_.end()) {
      append(std::move(upsert)).is_adopted = true;
      continue;
    }
    auto& position = *found->second;
    position.is_adopted = true;
    if (position.change->was_waiting && !is_same(*position.change, *upsert))
      replace(position, std::move(upsert));
  }
}

void pending_buffer::forget_adopted(
    const std::function<bool(std::string_view)>& is_committed) {
  for (auto each = slots_.begin(); each != slots_.end();) {
    auto current = each++;
    if (current->change->was_waiting && is_committed(current->change->id))
      erase(current);
  }
}

pending_buffer::slot& pending_buffer::append(pending_change change) {
  bytes_ += cost(*change);
  upserts_ += is_upsert(change) ? 1 : 0;
  slots_.push_back({.change = std::move(change), .place = ++last_place_});
  auto& added = slots_.back();
  by_id_.emplace(added.change->id, std::prev(slots_.end()));
  return added;
}

void pending_buffer::put_upsert(pending_change upsert) {
  auto found = by_id_.find(upsert->id);
  if (found == by_id_.end()) {
    append(std::move(upsert));
    return;
  }
  auto position = found->second;
  if (!is_upsert(position->change)) {
    slots_.splice(slots_.end(), slots_, position);
    position->place = ++last_place_;
  }
  replace(*position, std::move(upsert));
}

result<void> pending_buffer::remove(
    std::span<const std::string> ids, std::uint64_t drop_epoch,
    const std::function<bool(std::string_view)>& is_committed) {
  std::unordered_set<std::string_view> to_delete;
  std::size_t added_operations = 0;
  std::size_t added_bytes = 0;
  for (const auto& id : ids) {
    auto found = by_id_.find(id);
    auto is_pending = found != by_id_.end();
    if (is_pending
        && (found->second->in_flight || found->second->hides
            || found->second->is_adopted))
      to_delete.insert(id);
    else if (is_committed(id) && to_delete.insert(id).second && !is_pending) {
      ++added_operations;
      added_bytes += id.size() + change_overhead_bytes;
    }
  }
  if (added_operations > 0)
    CALLBOARD_TRY(check_room(added_operations, added_bytes, 0,
                             "the removal of "
                                 + std::to_string(added_operations) + " rows"));
  for (const auto& id : ids) {
    if (to_delete.contains(id))
      put_remove(id, drop_epoch);
    else if (auto found = by_id_.find(id); found != by_id_.end())
      erase(found->second);
  }
  return {};
}

void pending_buffer::put_remove(const std::string& id,
                                std::uint64_t drop_epoch) {
  auto found = by_id_.find(id);
  // One from before a drop does not count after it.
  if (found != by_id_.end() && !is_upsert(found->second->change)
      && found->second->change->drop_epoch == drop_epoch)
    return;
  auto change = std::make_shared<commit_operation>();
  change->what = commit_operation::kind::remove;
  change->id = id;
  change->drop_epoch = drop_epoch;
  slot* target = nullptr;
  if (found == by_id_.end()) {
    target = &append(std::move(change));
  } else {
    target = &*found->second;
    replace(*target, std::move(change));
  }
  target->hides = true;
  target->deleted_at = ++time_;
}

void pending_buffer::replace(slot& target, pending_change change) {
  bytes_ += cost(*change);
  bytes_ -= cost(*target.change);
  upserts_ += is_upsert(change) ? 1 : 0;
  upserts_ -= is_upsert(target.change) ? 1 : 0;
  auto node = by_id_.extract(target.change->id);
  node.key() = change->id;
  by_id_.insert(std::move(node));
  target.change = std::move(change);
}

void pending_buffer::erase(slot_list::iterator position) {
  bytes_ -= cost(*position->change);
  upserts_ -= is_upsert(position->change) ? 1 : 0;
  by_id_.erase(position->change->id);
  slots_.erase(position);
}

void pending_buffer::hide(std::string_view id) {
  auto found = by_id_.find(id);
  if (found == by_id_.end())
    return;
  found->second->hides = true;
  found->second->deleted_at = ++time_;
}

pending_change pending_buffer::find(std::string_view id) const {
  auto found = by_id_.find(id);
  if (found == by_id_.end() || !is_upsert(found->second->change))
    return nullptr;
  return found->second->change;
}

bool pending_buffer::hides(std::string_view id) const {
  auto found = by_id_.find(id);
  return found != by_id_.end() && found->second->hides;
}

std::vector<std::string> pending_buffer::hidden_ids() const {
  std::vector<std::string> out;
  for (const auto& each : slots_)
    if (each.hides)
      out.push_back(each.change->id);
  return out;
}

std::vector<std::string> pending_buffer::upsert_ids() const {
  std::vector<std::string> out;
  out.reserve(upserts_);
  for (const auto& each : slots_)
    if (is_upsert(each.change))
      out.push_back(each.change->id);
  return out;
}

std::vector<std::string>
pending_buffer::ids_with(indexed_field field, std::string_view value) const {
  auto name = indexed_field_names[static_cast<std::size_t>(field)];
  std::vector<std::string> out;
  for (const auto& each : slots_)
    if (is_upsert(each.change)
        && string_member(each.change->record, name) == value)
      out.push_back(each.change->id);
  return out;
}

pending_batch pending_buffer::take() {
  return take_between(0, last_place_);
}

pending_batch pending_buffer::take_rest(const pending_batch& before) {
  return take_between(before.last_place_, before.end_place_);
}

/// What is in the places from `after` to `end`, as far as it fits. One change
/// always does.
pending_batch pending_buffer::take_between(std::uint64_t after,
                                           std::uint64_t end) {
  pending_batch batch;
  batch.taken_at_ = time_;
  batch.end_place_ = end;
  std::size_t bytes = 0;
  for (auto& each : slots_) {
    if (each.place <= after)
      continue;
    if (each.place > end)
      break;
    bytes += cost(*each.change);
    if (!batch.changes.empty()
        && (batch.changes.size() == limits_.operations_max
            || bytes > limits_.bytes_max)) {
      batch.is_last = false;
      break;
    }
    each.in_flight = true;
    batch.last_place_ = each.place;
    batch.changes.push_back(each.change);
  }
  return batch;
}

void pending_buffer::committed(const pending_batch& batch) {
  put_back();
  for (const auto& change : batch.changes) {
    auto found = by_id_.find(change->id);
    if (found == by_id_.end())
      continue;
    auto position = found->second;
    if (position->change == change) {
      erase(position);
    } else {
      position->hides = position->deleted_at > batch.taken_at_;
      position->is_adopted = position->change->was_waiting;
    }
  }
}

void pending_buffer::put_back() {
  for (auto& each : slots_)
    each.in_flight = false;
}

void pending_buffer::clear() {
  by_id_.clear();
  slots_.clear();
  upserts_ = 0;
  bytes_ = 0;
}

} // namespace callboard
