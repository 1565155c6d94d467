#pragma once

#include <cstddef>

namespace callboard {

/// How many queries one look at a row serves.
inline constexpr std::size_t queries_per_pass = 4;

/// Inner products of each of `query_count` queries with each of `row_count`
/// rows: `scores[q * row_count + r]`. Queries lie one after the other, and so
/// do rows; `dimension` floats each, at any alignment (64-byte aligned queries
/// are faster).
///
/// The bits of a score depend on nothing but the bytes of its query and row
/// and on the processor: not on how many queries and rows are asked for at
/// once, nor on their places. Rows are read as one sequential stream, once
/// per `queries_per_pass` queries.
/// Threads: any number at once.
void inner_products(const std::byte* queries, std::size_t query_count,
                    const std::byte* rows, std::size_t row_count,
                    std::size_t dimension, float* scores) noexcept;

} // namespace callboard
