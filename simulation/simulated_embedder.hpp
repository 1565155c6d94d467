#pragma once

#include "core/embedder.hpp"
#include "core/io.hpp"
#include "simulation/random_source.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace callboard::simulation {

/// What goes wrong with one batch.
enum class embedding_fault : std::uint8_t {
  none,
  /// The whole batch fails.
  failure,
  /// As a service that asks for patience: fails as `busy`.
  rate_limit,
  /// A vector too few.
  wrong_count,
  /// Vectors of another length.
  wrong_dimension,
  not_a_number,
  /// One text of the batch is rejected.
  rejected_text,
  throws,
};

/// The unit vector of a text: the same on every machine and in each process.
std::vector<float> simulated_vector(const std::string& text,
                                    std::size_t dimension);

struct simulated_embedder_options {
  std::size_t dimension = 4;
  std::size_t concurrency = 1;
  std::size_t batch_texts_max = 8;
  /// How long a batch takes: the calling process waits, others go on.
  std::chrono::milliseconds latency{};
};

/// A model whose vectors follow from the text, and which fails as told. One for
/// each process. To make it hang, see `actor_process::hang_embedder`.
class simulated_embedder : public embedder {
public:
  /// `door`: the process's; must live as long as the process's actors.
  simulated_embedder(io& door, simulated_embedder_options options)
      : door_(door), options_(options) {}

  std::size_t dimension() const override { return options_.dimension; }
  std::string name() const override { return "simulated"; }
  std::size_t concurrency() const override { return options_.concurrency; }
  std::size_t batch_texts_max() const override {
    return options_.batch_texts_max;
  }

  /// Called for each batch until the world ends, also while it ends the
  /// process: what it uses must live as long. Must not throw.
  void on_batch(std::function<embedding_fault()> policy) {
    policy_ = std::move(policy);
  }

  std::uint64_t batch_count() const noexcept { return batch_count_; }

  result<embedding_batch> embed(std::span<const std::string> texts,
                                embedding_context context) override;

private:
  io& door_;
  simulated_embedder_options options_;
  std::function<embedding_fault()> policy_;
  std::uint64_t batch_count_ = 0;
};

} // namespace callboard::simulation
