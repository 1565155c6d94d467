#pragma once

#include "core/result.hpp"
#include "core/snapshot.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace callboard {

/// A row that a query found.
struct scored_row {
  row_number row = 0;
  /// Inner product of the normalized query and the row's vector.
  float score = 0;
  bool operator==(const scored_row&) const = default;
};

/// What a query asks for.
struct search_parameters {
  /// At most this many rows; at least 1.
  std::size_t top_k = 10;
  /// Rows with a lower score are left out after the best `top_k` were chosen
  /// (compared in double precision; NaN leaves out nothing).
  double threshold = 0.2;
};

/// Scales `vector` to length 1, in place; the result has the bits of faiss's
/// `fvec_renorm_L2`.
/// Errors: `invalid_argument` for NaN, infinity, and lengths whose square is
///         zero or out of float32's range (below about 1e-19, above about
///         1e19); `what` names the vector in the message. The vector is then
///         unchanged.
result<void> normalize(std::span<float> vector, std::string_view what);

/// The exact nearest rows of one normalized query: descending score, equal
/// scores by ascending id. Reads every live row's vector once, at memory
/// bandwidth. A row whose score is not a number is never found.
/// Errors:  `dimension_mismatch`; `invalid_argument` for a `top_k` of 0 and a
///          query that is not finite; `corrupt` if the bytes of a found row's
///          vector do not match their checksum.
/// Threads: any number at once, on one snapshot too.
result<std::vector<scored_row>> search(const snapshot& view,
                                       std::span<const float> query,
                                       const search_parameters& parameters);

/// The answers of `search`, bit for bit, for each of `queries` (row-major,
/// `view.dimension()` floats each; none is allowed). One pass over the rows
/// serves all queries: 32 of them take about five times as long as one.
/// Errors and threads: as `search`.
result<std::vector<std::vector<scored_row>>>
search_batch(const snapshot& view, std::span<const float> queries,
             const search_parameters& parameters);

/// Inner product of `dimension` floats, at any alignment, with the kernel that
/// `search` uses.
float inner_product(const std::byte* left, const std::byte* right,
                    std::size_t dimension) noexcept;

} // namespace callboard
