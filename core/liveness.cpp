#include "core/liveness.hpp"

#include <algorithm>
#include <bit>

namespace callboard {

liveness::liveness(const liveness& other)
    : chunks_(other.chunks_), owned_(other.owned_), count_(other.count_) {
  for (std::size_t i = 0; i < chunks_.size(); ++i)
    if (owned_[i])
      chunks_[i] = std::make_shared<chunk>(*chunks_[i]);
}

liveness liveness::share() {
  owned_.assign(owned_.size(), false);
  return *this;
}

liveness& liveness::operator=(const liveness& other) {
  if (this != &other)
    *this = liveness(other);
  return *this;
}

liveness liveness::from_words(std::span<const std::uint64_t> words,
                              std::size_t row_count) {
  liveness out;
  auto chunk_count = (row_count + chunk_rows - 1) / chunk_rows;
  for (std::size_t i = 0; i < chunk_count; ++i) {
    auto copy = std::make_shared<chunk>();
    auto first = i * chunk_words;
    auto count = std::min(chunk_words, words.size() - first);
    std::copy_n(words.begin() + static_cast<std::ptrdiff_t>(first), count,
                copy->begin());
    for (auto word : *copy)
      out.count_ += static_cast<std::size_t>(std::popcount(word));
    out.chunks_.push_back(std::move(copy));
    out.owned_.push_back(true);
  }
  return out;
}

bool liveness::test(row_number row) const noexcept {
  auto index = row / chunk_rows;
  if (index >= chunks_.size() || !chunks_[index])
    return false;
  return ((*chunks_[index])[row % chunk_rows / 64] >> (row % 64)) & 1;
}

liveness::chunk& liveness::writable(row_number row) {
  auto index = row / chunk_rows;
  if (index >= chunks_.size()) {
    chunks_.resize(index + 1);
    owned_.resize(index + 1, false);
  }
  if (!owned_[index]) {
    chunks_[index] = chunks_[index] ? std::make_shared<chunk>(*chunks_[index])
                                    : std::make_shared<chunk>();
    owned_[index] = true;
  }
  return *chunks_[index];
}

void liveness::set(row_number row) {
  if (test(row))
    return;
  writable(row)[row % chunk_rows / 64] |= std::uint64_t{1} << (row % 64);
  ++count_;
}

void liveness::clear(row_number row) {
  if (!test(row))
    return;
  writable(row)[row % chunk_rows / 64] &= ~(std::uint64_t{1} << (row % 64));
  --count_;
}

void liveness::clear_all() noexcept {
  chunks_.clear();
  owned_.clear();
  count_ = 0;
}

const std::uint64_t* liveness::words(std::size_t index) const noexcept {
  if (index >= chunks_.size() || !chunks_[index])
    return nullptr;
  return chunks_[index]->data();
}

} // namespace callboard
