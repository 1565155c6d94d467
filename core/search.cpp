#include "core/search.hpp"

#include "core/scan.hpp"

#include <faiss/utils/distances.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

namespace callboard {

namespace {

/// Rows are scored in strips that stay in the second-level cache while one
/// group of queries after the other passes over them.
constexpr std::size_t strip_bytes = std::size_t{128} << 10;
constexpr std::size_t strip_rows_max = 1024;

bool all_finite(std::span<const float> values) {
  return std::all_of(values.begin(), values.end(),
                     [](float value) { return std::isfinite(value); });
}

/// Queries at cache-line boundaries, where the kernels read them fastest.
class aligned_queries {
public:
  explicit aligned_queries(std::span<const float> queries)
      : lines_((queries.size_bytes() + sizeof(line) - 1) / sizeof(line)) {
    if (!queries.empty())
      std::memcpy(lines_.data(), queries.data(), queries.size_bytes());
  }

  const std::byte* data() const noexcept {
    return reinterpret_cast<const std::byte*>(lines_.data());
  }

private:
  struct alignas(64) line {
    std::byte bytes[64];
  };
  std::vector<line> lines_;
};

/// The order of answers. Ids are looked up only to tell equal scores apart.
struct is_better {
  const snapshot* view;

  bool operator()(const scored_row& a, const scored_row& b) const {
    if (a.score != b.score)
      return a.score > b.score;
    return view->id(a.row) < view->id(b.row);
  }
};

/// The best `count` of the rows offered.
class best_rows {
public:
  /// Requires: `count > 0`.
  best_rows(const snapshot& view, std::size_t count)
      : better_{&view}, count_(count) {}

  void offer(row_number first, std::span<const float> scores) {
    for (std::size_t i = 0; i < scores.size(); ++i)
      if (scores[i] >= score_min_) // false for NaN
        insert({first + static_cast<row_number>(i), scores[i]});
  }

  /// Ends the use of this object. Best row first.
  std::vector<scored_row> take() {
    std::sort_heap(heap_.begin(), heap_.end(), better_);
    return std::move(heap_);
  }

private:
  void insert(scored_row candidate) {
    if (heap_.size() == count_) {
      if (!better_(candidate, heap_.front()))
        return;
      std::pop_heap(heap_.begin(), heap_.end(), better_);
      heap_.back() = candidate;
    } else {
      heap_.push_back(candidate);
    }
    std::push_heap(heap_.begin(), heap_.end(), better_);
    if (heap_.size() == count_)
      score_min_ = heap_.front().score;
  }

  is_better better_;
  std::size_t count_;
  /// The worst row comes first.
  std::vector<scored_row> heap_;
  float score_min_ = -std::numeric_limits<float>::infinity();
};

/// The first row from `row` on that is (not) alive, or `end`.
row_number next_row(const liveness& alive, row_number row, row_number end,
                    bool wanted) {
  while (row < end) {
    const auto* words = alive.words(row / liveness::chunk_rows);
    auto word = words ? words[row % liveness::chunk_rows / 64] : 0;
    if (!wanted)
      word = ~word;
    word >>= row % 64;
    if (word != 0)
      return std::min(end,
                      row + static_cast<row_number>(std::countr_zero(word)));
    row = (row / 64 + 1) * 64;
  }
  return end;
}

/// Calls `visit` with the first row and the count of each piece of `block` in
/// which all rows are alive; pieces have `rows_max` rows at most.
template <class Visitor>
void for_each_live_strip(const liveness& alive, const row_block& block,
                         std::size_t rows_max, Visitor visit) {
  const auto end = block.first + static_cast<row_number>(block.count);
  for (auto row = next_row(alive, block.first, end, true); row < end;
       row = next_row(alive, row, end, true)) {
    const auto reach = std::min<std::size_t>(rows_max, end - row);
    const auto stop =
        next_row(alive, row, row + static_cast<row_number>(reach), false);
    visit(row, static_cast<std::size_t>(stop - row));
    row = stop;
  }
}

result<void> check(const snapshot& view, std::span<const float> queries,
                   const search_parameters& parameters) {
  const auto dimension = view.dimension();
  if (dimension == 0 || queries.size() % dimension != 0)
    return failure{errc::dimension_mismatch,
                   std::to_string(queries.size())
                       + " query components were given, but vectors of this "
                         "store have "
                       + std::to_string(dimension)
                       + "; embed queries with the model of the store"};
  if (parameters.top_k == 0)
    return failure{errc::invalid_argument,
                   "top_k is 0; ask for at least one row"};
  if (!all_finite(queries))
    return failure{errc::invalid_argument,
                   "a query holds NaN or infinity; normalize it first"};
  return {};
}

/// Leaves out what is below the threshold, and checks what is left: the scan
/// reads bytes that nobody has compared with their checksum.
result<void> finish(const snapshot& view, double threshold,
                    std::vector<scored_row>& found) {
  auto is_below = [&](const scored_row& hit) { return hit.score < threshold; };
  std::erase_if(found, is_below);
  for (const auto& hit : found)
    CALLBOARD_TRY(view.vector(hit.row));
  return {};
}

} // namespace

result<void> normalize(std::span<float> vector, std::string_view what) {
  if (!all_finite(vector))
    return failure{errc::invalid_argument,
                   std::string(what)
                       + " holds NaN or infinity; give finite numbers"};
  const auto square = faiss::fvec_norm_L2sqr(vector.data(), vector.size());
  if (!std::isnormal(square))
    return failure{errc::invalid_argument,
                   std::string(what)
                       + " cannot be normalized, the square of its length is "
                       + std::to_string(square)
                       + " in float32; give a vector of ordinary length"};
  // Not by fvec_renorm_L2 itself: it starts OpenMP's threads for one vector.
  const auto scale = static_cast<float>(1.0 / std::sqrt(square));
  for (auto& value : vector)
    value *= scale;
  return {};
}

result<std::vector<scored_row>> search(const snapshot& view,
                                       std::span<const float> query,
                                       const search_parameters& parameters) {
  if (query.size() != view.dimension())
    return failure{errc::dimension_mismatch,
                   "the query has " + std::to_string(query.size())
                       + " components, but vectors of this store have "
                       + std::to_string(view.dimension())
                       + "; embed queries with the model of the store"};
  CALLBOARD_TRY_ASSIGN(auto found, search_batch(view, query, parameters));
  return std::move(found.front());
}

result<std::vector<std::vector<scored_row>>>
search_batch(const snapshot& view, std::span<const float> queries,
             const search_parameters& parameters) {
  CALLBOARD_TRY(check(view, queries, parameters));
  const auto dimension = view.dimension();
  const auto row_bytes = dimension * sizeof(float);
  const auto strip_rows =
      std::clamp(strip_bytes / row_bytes, std::size_t{1}, strip_rows_max);
  const auto query_count = queries.size() / dimension;
  const aligned_queries copy(queries);
  std::vector<best_rows> best(query_count, best_rows(view, parameters.top_k));
  std::array<float, queries_per_pass * strip_rows_max> scores;

  for (const auto& block : view.blocks()) {
    auto score_strip = [&](row_number first, std::size_t count) {
      const auto* rows = block.vectors + (first - block.first) * row_bytes;
      for (std::size_t q = 0; q < query_count; q += queries_per_pass) {
        const auto group = std::min(queries_per_pass, query_count - q);
        inner_products(copy.data() + q * row_bytes, group, rows, count,
                       dimension, scores.data());
        for (std::size_t i = 0; i < group; ++i)
          best[q + i].offer(first, {scores.data() + i * count, count});
      }
    };
    for_each_live_strip(view.alive(), block, strip_rows, score_strip);
  }

  std::vector<std::vector<scored_row>> out;
  for (auto& rows : best) {
    out.push_back(rows.take());
    CALLBOARD_TRY(finish(view, parameters.threshold, out.back()));
  }
  return out;
}

} // namespace callboard
