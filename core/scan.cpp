#include "core/scan.hpp"

#include "core/search.hpp"

#include <cstdint>
#include <cstring>

// This file is compiled once per processor generation: `foreach_target.h`
// includes it again for each, and `inner_products` picks the best at run time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/scan.cpp"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();

namespace callboard {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using floats = hn::ScalableTag<float>;
using float_vector = hn::Vec<floats>;

/// Loads a vector of floats that need not be aligned to a float's size.
HWY_INLINE float_vector load(const std::uint8_t* from) {
  const floats tag;
#if HWY_TARGET == HWY_SCALAR
  float value;
  std::memcpy(&value, from, sizeof(value));
  return hn::Set(tag, value);
#else
  const hn::Repartition<std::uint8_t, floats> bytes;
  return hn::BitCast(tag, hn::LoadU(bytes, from));
#endif
}

/// Loads `size` bytes, less than a vector, and fills up with zeros.
HWY_INLINE float_vector load_tail(const std::uint8_t* from, std::size_t size) {
  HWY_ALIGN std::uint8_t buffer[HWY_MAX_BYTES] = {};
  std::memcpy(buffer, from, size);
  return load(buffer);
}

/// Asks for what comes a page later: the processor itself looks ahead only
/// within a page. The address need not be mapped.
HWY_INLINE void prefetch(const std::uint8_t* from) {
  const auto ahead = reinterpret_cast<std::uintptr_t>(from) + 4096;
  // NOLINTNEXTLINE(performance-no-int-to-ptr): it may point to nothing.
  hwy::Prefetch(reinterpret_cast<const std::uint8_t*>(ahead));
}

/// How a row is cut: pairs of vectors, perhaps one more vector, a tail.
struct row_shape {
  explicit row_shape(std::size_t dimension)
      : size(dimension * sizeof(float)),
        pairs_end(size - size % (2 * vector_size())),
        tail_size(size % vector_size()),
        tail_start(size - tail_size) {}

  static std::size_t vector_size() {
    return hn::Lanes(floats()) * sizeof(float);
  }

  std::size_t size;
  std::size_t pairs_end;
  std::size_t tail_size;
  std::size_t tail_start;
};

/// The running inner product of one query and one row. All kernels add in
/// this order: that makes their scores equal. Two sums are enough to keep the
/// processor busy, because it begins with the next row before this one's sums
/// are complete, and leave registers for four queries on AVX2.
struct partial_sums {
  // Written out because gcc compiles an implicit constructor for the baseline.
  HWY_INLINE partial_sums() : even(hn::Zero(floats())), odd(even) {}

  HWY_INLINE void add_pair(const std::uint8_t* query, float_vector x0,
                           float_vector x1) {
    even = hn::MulAdd(load(query), x0, even);
    odd = hn::MulAdd(load(query + row_shape::vector_size()), x1, odd);
  }

  HWY_INLINE void add(float_vector query, float_vector x) {
    even = hn::MulAdd(query, x, even);
  }

  HWY_INLINE float total() const {
    return hn::GetLane(hn::SumOfLanes(floats(), hn::Add(even, odd)));
  }

  float_vector even;
  float_vector odd;
};

HWY_NOINLINE void one_query(const std::uint8_t* query, const std::uint8_t* rows,
                            std::size_t row_count, const row_shape& shape,
                            float* scores) {
  const auto step = row_shape::vector_size();
  const auto tail = load_tail(query + shape.tail_start, shape.tail_size);
  for (std::size_t r = 0; r < row_count; ++r, rows += shape.size) {
    partial_sums sums;
    std::size_t i = 0;
    for (; i < shape.pairs_end; i += 2 * step) {
      prefetch(rows + i);
      prefetch(rows + i + step);
      sums.add_pair(query + i, load(rows + i), load(rows + i + step));
    }
    if (i < shape.tail_start)
      sums.add(load(query + i), load(rows + i));
    if (shape.tail_size != 0)
      sums.add(tail, load_tail(rows + shape.tail_start, shape.tail_size));
    scores[r] = sums.total();
  }
}

/// Four queries share the loads of each row.
HWY_NOINLINE void four_queries(const std::uint8_t* queries,
                               const std::uint8_t* rows, std::size_t row_count,
                               const row_shape& shape, float* scores) {
  const auto step = row_shape::vector_size();
  const auto* a = queries;
  const auto* b = a + shape.size;
  const auto* c = b + shape.size;
  const auto* d = c + shape.size;
  const auto a_tail = load_tail(a + shape.tail_start, shape.tail_size);
  const auto b_tail = load_tail(b + shape.tail_start, shape.tail_size);
  const auto c_tail = load_tail(c + shape.tail_start, shape.tail_size);
  const auto d_tail = load_tail(d + shape.tail_start, shape.tail_size);
  for (std::size_t r = 0; r < row_count; ++r, rows += shape.size) {
    partial_sums a_sums;
    partial_sums b_sums;
    partial_sums c_sums;
    partial_sums d_sums;
    std::size_t i = 0;
    for (; i < shape.pairs_end; i += 2 * step) {
      prefetch(rows + i);
      prefetch(rows + i + step);
      const auto x0 = load(rows + i);
      const auto x1 = load(rows + i + step);
      a_sums.add_pair(a + i, x0, x1);
      b_sums.add_pair(b + i, x0, x1);
      c_sums.add_pair(c + i, x0, x1);
      d_sums.add_pair(d + i, x0, x1);
    }
    if (i < shape.tail_start) {
      const auto x = load(rows + i);
      a_sums.add(load(a + i), x);
      b_sums.add(load(b + i), x);
      c_sums.add(load(c + i), x);
      d_sums.add(load(d + i), x);
    }
    if (shape.tail_size != 0) {
      const auto x = load_tail(rows + shape.tail_start, shape.tail_size);
      a_sums.add(a_tail, x);
      b_sums.add(b_tail, x);
      c_sums.add(c_tail, x);
      d_sums.add(d_tail, x);
    }
    scores[r] = a_sums.total();
    scores[row_count + r] = b_sums.total();
    scores[2 * row_count + r] = c_sums.total();
    scores[3 * row_count + r] = d_sums.total();
  }
}

void products(const std::byte* queries, std::size_t query_count,
              const std::byte* rows, std::size_t row_count,
              std::size_t dimension, float* scores) {
  const row_shape shape(dimension);
  const auto* query = reinterpret_cast<const std::uint8_t*>(queries);
  const auto* first_row = reinterpret_cast<const std::uint8_t*>(rows);
  for (; query_count >= queries_per_pass; query_count -= queries_per_pass) {
    four_queries(query, first_row, row_count, shape, scores);
    query += queries_per_pass * shape.size;
    scores += queries_per_pass * row_count;
  }
  for (; query_count > 0; --query_count) {
    one_query(query, first_row, row_count, shape, scores);
    query += shape.size;
    scores += row_count;
  }
}

} // namespace HWY_NAMESPACE
} // namespace callboard

HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace callboard {

HWY_EXPORT(products);

void inner_products(const std::byte* queries, std::size_t query_count,
                    const std::byte* rows, std::size_t row_count,
                    std::size_t dimension, float* scores) noexcept {
  HWY_DYNAMIC_DISPATCH(products)
  (queries, query_count, rows, row_count, dimension, scores);
}

float inner_product(const std::byte* left, const std::byte* right,
                    std::size_t dimension) noexcept {
  float score = 0;
  inner_products(left, 1, right, 1, dimension, &score);
  return score;
}

} // namespace callboard

#endif
