#pragma once

#include "core/embedder.hpp"
#include "core/result.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// Rows whose text and vector follow from their id and version, so that a row
/// that has something of another one is noticed.
namespace callboard::torture {

inline constexpr unsigned store_count = 2;
inline constexpr unsigned id_count = 200;
inline constexpr std::size_t vector_dimension = 8;

/// Names one upsert of the whole run; 0 stands for "no row".
using version = std::uint64_t;
inline constexpr version no_row = 0;

/// Who made a version. `round` and `slot` begin with 0, the others with 1.
struct version_parts {
  unsigned round = 0;
  unsigned slot = 0;
  unsigned incarnation = 0;
  unsigned counter = 0;
};
version make_version(const version_parts& parts);
version_parts parts_of(version value);
/// "2.0.17.5", or "no row".
std::string to_text(version value);

/// What a store holds: the version of each row, by number.
using versions = std::map<unsigned, version>;

/// "row-017".
std::string id_of(unsigned number);
std::optional<unsigned> number_of(std::string_view id);

std::string content_of(unsigned number, version value);
/// A JSON object with that content.
std::string record_of(unsigned number, version value);
/// Normalized; follows from the text alone.
std::vector<float> vector_of(std::string_view content);

/// The version of the row `id` with this content and vector; `corrupt` with
/// the reason if they do not belong together.
result<version> recognize(std::string_view id, std::string_view content,
                          std::span<const float> vector);

/// Gives each text its `vector_of`.
class content_embedder : public embedder {
public:
  std::size_t dimension() const override { return vector_dimension; }
  std::string name() const override { return "torture"; }
  std::size_t concurrency() const override { return 2; }
  result<embedding_batch> embed(std::span<const std::string> texts,
                                embedding_context context) override;
};

using random_source = std::mt19937_64;

/// A number below `limit`, the same on every machine.
inline std::uint64_t below(random_source& source, std::uint64_t limit) {
  return source() % limit;
}
inline bool one_in(random_source& source, std::uint64_t chance) {
  return below(source, chance) == 0;
}

} // namespace callboard::torture
