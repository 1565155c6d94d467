#pragma once

#include "core/embedder.hpp"

#include <catch2/catch.hpp>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace callboard::test {

inline constexpr std::size_t test_dimension = 4;

/// How long tests wait for what must happen; never for what must not.
inline constexpr auto long_wait = std::chrono::seconds(60);

/// A vector that depends on `text` alone; not normalized.
inline std::vector<float> vector_of(std::string_view text) {
  std::uint64_t hash = 0xcbf2'9ce4'8422'2325U;
  for (unsigned char byte : text)
    hash = (hash ^ byte) * 0x0000'0100'0000'01b3U;
  std::vector<float> out;
  for (std::size_t i = 0; i < test_dimension; ++i) {
    hash = hash * 6'364'136'223'846'793'005U + 1'442'695'040'888'963'407U;
    out.push_back(static_cast<float>(hash >> 48U) - 32'768.5F);
  }
  return out;
}

inline embedding_batch batch_of(std::span<const std::string> texts) {
  embedding_batch out;
  for (const auto& text : texts) {
    auto vector = vector_of(text);
    out.vectors.insert(out.vectors.end(), vector.begin(), vector.end());
  }
  return out;
}

/// An embedder that a test watches and holds back.
class scripted_embedder : public embedder {
public:
  using script = std::function<result<embedding_batch>(
      std::span<const std::string>, embedding_context)>;

  struct call {
    std::vector<std::string> texts;
    embedding_context context;
  };

  /// What every call answers; without a script `batch_of`.
  void follow(script chosen) {
    std::lock_guard lock(mutex_);
    script_ = std::move(chosen);
  }

  /// From now on calls wait to be released.
  void hold() {
    std::lock_guard lock(mutex_);
    is_held_ = true;
  }

  void release() {
    std::lock_guard lock(mutex_);
    is_held_ = false;
    changed_.notify_all();
  }

  /// Lets one held call go on.
  void release_one() {
    std::lock_guard lock(mutex_);
    ++tickets_;
    changed_.notify_all();
  }

  /// Waits until `count` calls have begun.
  void wait_for_calls(std::size_t count) {
    std::unique_lock lock(mutex_);
    REQUIRE(changed_.wait_for(lock, long_wait,
                              [&] { return calls_.size() >= count; }));
  }

  std::vector<call> calls() const {
    std::lock_guard lock(mutex_);
    return calls_;
  }

  std::size_t dimension() const override { return test_dimension; }
  std::size_t concurrency() const override { return concurrent; }
  std::size_t batch_texts_max() const override { return texts_max; }

  result<embedding_batch> embed(std::span<const std::string> texts,
                                embedding_context context) override {
    std::unique_lock lock(mutex_);
    calls_.push_back({{texts.begin(), texts.end()}, context});
    changed_.notify_all();
    changed_.wait(lock, [&] { return !is_held_ || tickets_ > 0; });
    if (is_held_)
      --tickets_;
    auto chosen = script_;
    lock.unlock();
    return chosen ? chosen(texts, context) : batch_of(texts);
  }

  /// To be set before use.
  std::size_t concurrent = 1;
  std::size_t texts_max = 32;

private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  script script_;
  std::vector<call> calls_;
  bool is_held_ = false;
  std::size_t tickets_ = 0;
};

} // namespace callboard::test
