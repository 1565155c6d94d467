#include "actors/vector_maker.hpp"

#include "core/json_text.hpp"
#include "core/record.hpp"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

namespace callboard {

namespace {

/// Text for a model: lone surrogates, which are no characters, become U+FFFD.
std::string as_text(std::string content) {
  if (json_text::valid_utf8(content, json_text::surrogates::refused))
    return content;
  std::string out;
  std::string_view rest = content;
  while (!rest.empty()) {
    auto next = json_text::first_code_point(rest);
    auto size = std::max<std::size_t>(1, next.bytes);
    auto is_surrogate = next.value >= 0xd800 && next.value < 0xe000;
    if (next.bytes == 0 || is_surrogate)
      out += "\xef\xbf\xbd";
    else
      out += rest.substr(0, size);
    rest.remove_prefix(size);
  }
  return out;
}

failure no_content(const commit_operation& change) {
  return {errc::invalid_argument,
          "the record " + printable(change.id)
              + " has neither a string `content` among the store's meta "
                "fields nor a vector: replace or delete it"};
}

failure refused(const commit_operation& change, std::string_view message) {
  return {errc::embedding_failed, "the record " + printable(change.id) + ": "
                                      + std::string(message)
                                      + ": replace or delete it"};
}

} // namespace

void vector_maker::make(const std::vector<pending_change>& changes,
                        answer<rejections> done) {
  auto asked = std::make_shared<need>();
  asked->done = std::move(done);
  // One more than there are, so that it cannot be answered before the end.
  asked->open = 1;
  for (const auto& change : changes)
    if (change->vector.empty())
      register_need(change, asked);
  send_batches();
  close_one(asked);
}

void vector_maker::register_need(const pending_change& change,
                                 const std::shared_ptr<need>& asked) {
  ++asked->open;
  auto& needs = wanted_[change.get()];
  if (needs.empty())
    queue_.push_back(change);
  needs.push_back(asked);
}

void vector_maker::send_batches() {
  while (batches_under_way_ < limits_.batches_at_once && send_batch()) {
  }
}

bool vector_maker::send_batch() {
  embed_request request;
  request.context = embedding_context::document;
  request.batch_texts_max = limits_.batch_texts_max;
  batch sent;
  while (sent.size() < limits_.batch_texts_max) {
    auto next = next_wanted();
    if (!next)
      break;
    if (auto content = string_member(next->record, "content")) {
      request.texts.push_back(as_text(std::move(*content)));
      sent.push_back(std::move(next));
    } else {
      settle(next, no_content(*next));
    }
  }
  if (sent.empty())
    return false;
  ++batches_under_way_;
  embed_(std::move(request),
         [this, sent = std::move(sent)](result<embedding_batch> answered) {
           --batches_under_way_;
           settle_batch(sent, std::move(answered));
           send_batches();
         });
  return true;
}

/// The oldest change that somebody still needs, or null.
pending_change vector_maker::next_wanted() {
  while (!queue_.empty()) {
    auto next = std::move(queue_.front());
    queue_.pop_front();
    const auto& needs = wanted_.at(next.get());
    if (!std::all_of(needs.begin(), needs.end(),
                     [](const auto& each) { return each->failed.has_value(); }))
      return next;
    settle(next, std::nullopt);
  }
  return nullptr;
}

void vector_maker::settle_batch(const batch& sent,
                                result<embedding_batch> answered) {
  if (!answered) {
    for (const auto& change : sent)
      for (auto& each : wanted_.at(change.get()))
        each->failed = answered.error();
    for (const auto& change : sent)
      settle(change, std::nullopt);
    return;
  }
  std::vector<std::optional<failure>> rejected(sent.size());
  for (const auto& each : answered->rejected)
    rejected[each.index] = refused(*sent[each.index], each.message);
  for (std::size_t i = 0; i < sent.size(); ++i) {
    auto first =
        answered->vectors.begin() + static_cast<std::ptrdiff_t>(i * dimension_);
    if (!rejected[i])
      sent[i]->vector.assign(first,
                             first + static_cast<std::ptrdiff_t>(dimension_));
  }
  for (std::size_t i = 0; i < sent.size(); ++i)
    settle(sent[i], rejected[i]);
}

/// Nobody waits for `change` any more: it has its vector, or a rejection, or
/// its batch failed.
void vector_maker::settle(const pending_change& change,
                          const std::optional<failure>& rejection) {
  auto node = wanted_.extract(change.get());
  for (const auto& each : node.mapped()) {
    if (rejection)
      each->rejected.emplace(change.get(), *rejection);
    close_one(each);
  }
}

void vector_maker::close_one(const std::shared_ptr<need>& asked) {
  if (--asked->open > 0)
    return;
  if (asked->failed)
    asked->done(std::move(*asked->failed));
  else
    asked->done(std::move(asked->rejected));
}

} // namespace callboard
