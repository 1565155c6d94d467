#include "simulation/simulated_embedder.hpp"

#include <cmath>
#include <limits>
#include <stdexcept>

namespace callboard::simulation {

std::vector<float> simulated_vector(const std::string& text,
                                    std::size_t dimension) {
  random_source random(mixed(0, text));
  std::vector<float> out(dimension);
  double squares = 0;
  for (auto& each : out) {
    // Whole numbers, so that no rounding depends on the machine.
    const auto whole = 1 + static_cast<int>(random.below(1000));
    each = static_cast<float>(random.one_in(2) ? whole : -whole);
    squares += double{each} * double{each};
  }
  for (auto& each : out)
    each = static_cast<float>(double{each} / std::sqrt(squares));
  return out;
}

result<embedding_batch>
simulated_embedder::embed(std::span<const std::string> texts,
                          embedding_context) {
  ++batch_count_;
  const auto fault = policy_ ? policy_() : embedding_fault::none;
  if (options_.latency.count() > 0)
    door_.pause(options_.latency);
  switch (fault) {
  case embedding_fault::failure:
    return failure{errc::embedding_failed, "the simulated model failed"};
  case embedding_fault::rate_limit:
    return failure{errc::busy, "the simulated model asks for patience"};
  case embedding_fault::throws:
    throw std::runtime_error("thrown by the simulated model");
  default:
    break;
  }
  const auto dimension =
      options_.dimension + (fault == embedding_fault::wrong_dimension ? 1 : 0);
  embedding_batch out;
  for (const auto& each : texts) {
    const auto vector = simulated_vector(each, dimension);
    out.vectors.insert(out.vectors.end(), vector.begin(), vector.end());
  }
  if (fault == embedding_fault::wrong_count)
    out.vectors.resize(out.vectors.size() - dimension);
  if (fault == embedding_fault::not_a_number)
    out.vectors.front() = std::numeric_limits<float>::quiet_NaN();
  if (fault == embedding_fault::rejected_text)
    out.rejected.push_back({0, "rejected by the simulated model"});
  return out;
}

} // namespace callboard::simulation
