// How long exact queries take, beside bare faiss and beside the time that the
// same processor needs just to read the vectors. Run it on a quiet machine.

#include <cstddef>
#include <cstdint>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "bench/query_bench.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();

namespace callboard::bench {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// Reads `size` bytes as fast as it can be done; a sum, so that no read can be
/// left out.
std::uint64_t read_all(const std::uint64_t* from, std::size_t size) {
  const hn::ScalableTag<std::uint64_t> tag;
  const auto step = hn::Lanes(tag);
  auto s0 = hn::Zero(tag);
  auto s1 = s0;
  auto s2 = s0;
  auto s3 = s0;
  for (std::size_t i = 0; i + 4 * step <= size / sizeof(*from); i += 4 * step) {
    s0 = hn::Add(s0, hn::LoadU(tag, from + i));
    s1 = hn::Add(s1, hn::LoadU(tag, from + i + step));
    s2 = hn::Add(s2, hn::LoadU(tag, from + i + 2 * step));
    s3 = hn::Add(s3, hn::LoadU(tag, from + i + 3 * step));
  }
  const auto sum = hn::Add(hn::Add(s0, s1), hn::Add(s2, s3));
  return hn::GetLane(hn::SumOfLanes(tag, sum));
}

const char* target_name() {
  return hwy::TargetName(HWY_TARGET);
}

} // namespace HWY_NAMESPACE
} // namespace callboard::bench

HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "core/delta.hpp"
#include "core/io.hpp"
#include "core/search.hpp"

#include <CLI/CLI.hpp>
#include <faiss/IndexFlat.h>
#include <faiss/utils/distances.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <omp.h>
#include <random>
#include <stdexcept>
#include <string>
#include <sys/mman.h>
#include <utility>
#include <vector>

#include "bench/bench_support.hpp"

namespace callboard::bench {

HWY_EXPORT(read_all);
HWY_EXPORT(target_name);

namespace {

constexpr std::size_t top_k = 10;
constexpr std::size_t query_count = 128;
constexpr unsigned seed = 20'240'601;
/// Scores of different kernels differ by less than this.
constexpr float score_tolerance = 1e-5F;

using floats = std::vector<float>;

struct options {
  std::size_t rows = 100'000;
  std::size_t dimension = 768;
  std::size_t rounds = 11;
  bool smoke = false;
};

/// `count` unit vectors around 500 centres, row-major.
floats clustered(std::size_t count, std::size_t dimension, unsigned stream) {
  std::mt19937 centre_random(seed);
  std::mt19937 random(seed + stream);
  std::uniform_real_distribution<float> component(-1, 1);
  floats centres(500 * dimension);
  for (auto& value : centres)
    value = component(centre_random);
  floats out(count * dimension);
  for (std::size_t row = 0; row < count; ++row) {
    const auto* centre = centres.data() + random() % 500 * dimension;
    const std::span vector(out.data() + row * dimension, dimension);
    for (std::size_t i = 0; i < dimension; ++i)
      vector[i] = centre[i] + component(random);
    if (auto done = normalize(vector, "a generated vector"); !done)
      throw std::runtime_error(done.error().message);
  }
  return out;
}

/// Rows for `write_base`, and for a delta.
class generated_rows : public base_source {
public:
  generated_rows(const floats& vectors, std::size_t dimension)
      : vectors_(&vectors), dimension_(dimension) {}

  std::size_t row_count() const override {
    return vectors_->size() / dimension_;
  }
  std::size_t live_count() const override { return row_count(); }
  result<std::span<const std::byte>> vector(row_number row) override {
    return std::as_bytes(
        std::span(vectors_->data() + row * dimension_, dimension_));
  }
  result<std::optional<base_row>> record(row_number row) override {
    id_ = std::to_string(row);
    text_ = R"({"__id__":")" + id_ + R"(","__created_at__":1})";
    return std::optional(base_row{id_, text_});
  }
  std::vector<std::pair<row_number, row_number>> planned_moves() override {
    return {};
  }

private:
  const floats* vectors_;
  std::size_t dimension_;
  std::string id_;
  std::string text_;
};

class scratch_directory {
public:
  scratch_directory()
      : path_((std::filesystem::temp_directory_path() / "callboard-XXXXXX")
                  .string()) {
    if (::mkdtemp(path_.data()) == nullptr)
      throw std::runtime_error("cannot make a directory " + path_);
    home_ = need(posix_io().open_directory(path_, false));
  }
  scratch_directory(const scratch_directory&) = delete;
  scratch_directory& operator=(const scratch_directory&) = delete;
  ~scratch_directory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  directory& operator*() const { return *home_; }

private:
  std::string path_;
  std::unique_ptr<directory> home_;
};

std::shared_ptr<const base> make_base(directory& home, std::uint64_t epoch,
                                      std::size_t dimension,
                                      base_source& source) {
  const auto descriptor =
      need(write_base(home, store_id{}, epoch,
                      static_cast<std::uint32_t>(dimension), 0600, source));
  return need(base::open(posix_io(), home, descriptor, map_mode::shared));
}

/// The same rows twice: in a mapped file, and in memory.
struct views {
  snapshot_ptr mapped;
  snapshot_ptr memory;
};

views make_views(directory& home, const floats& vectors,
                 std::size_t dimension) {
  generated_rows source(vectors, dimension);
  const auto full = make_base(home, 1, dimension, source);
  const floats no_vectors;
  generated_rows no_rows(no_vectors, dimension);
  const auto empty = make_base(home, 2, dimension, no_rows);
  const auto no_delta = std::make_shared<delta>(dimension);
  const auto rows = std::make_shared<delta>(dimension);
  for (row_number row = 0; row < source.row_count(); ++row)
    rows->append(std::to_string(row), "{}", *source.vector(row));
  const auto alive = full->initial_liveness();
  return {std::make_shared<const snapshot>(full, no_delta, 0, alive, 1, 0),
          std::make_shared<const snapshot>(empty, rows, rows->row_count(),
                                           alive, 1, 0)};
}

/// Memory in huge pages, where the system gives them.
class huge_buffer {
public:
  explicit huge_buffer(std::size_t size)
      : size_((size + alignment - 1) / alignment * alignment),
        words_(
            static_cast<std::uint64_t*>(std::aligned_alloc(alignment, size_))) {
    if (words_ == nullptr)
      throw std::bad_alloc();
    ::madvise(words_, size_, MADV_HUGEPAGE);
    std::fill_n(words_, size_ / sizeof(*words_), 1);
  }
  huge_buffer(const huge_buffer&) = delete;
  huge_buffer& operator=(const huge_buffer&) = delete;
  ~huge_buffer() { std::free(words_); }

  const std::uint64_t* words() const noexcept { return words_; }

private:
  static constexpr std::size_t alignment = std::size_t{2} << 20;
  std::size_t size_;
  std::uint64_t* words_;
};

/// The same rows and queries for faiss and for `search`.
class contest {
public:
  explicit contest(const options& chosen)
      : dimension_(chosen.dimension),
        vectors_(clustered(chosen.rows, dimension_, 1)),
        queries_(clustered(query_count, dimension_, 2)),
        views_(make_views(*scratch_, vectors_, dimension_)),
        index_(static_cast<row>(dimension_)),
        scores_(query_count * top_k),
        rows_(query_count * top_k) {
    index_.add(static_cast<row>(chosen.rows), vectors_.data());
  }

  const views& rows() const noexcept { return views_; }

  /// Whether all answers so far were those of faiss, asked before.
  bool equal() const noexcept { return equal_; }

  void ask_faiss(std::size_t first, std::size_t count) {
    index_.search(static_cast<row>(count), queries_.data() + first * dimension_,
                  top_k, scores_.data() + first * top_k,
                  rows_.data() + first * top_k);
  }

  void ask_faiss_with_blas(std::size_t query) {
    const auto before = faiss::distance_compute_blas_threshold;
    faiss::distance_compute_blas_threshold = 1;
    ask_faiss(query, 1);
    faiss::distance_compute_blas_threshold = before;
  }

  void ask(const snapshot_ptr& view, std::size_t query) {
    const std::span vector(queries_.data() + query * dimension_, dimension_);
    check(need(search(*view, vector, {top_k, -2})), query);
  }

  void ask_batch(const snapshot_ptr& view, std::size_t count) {
    const std::span batch(queries_.data(), count * dimension_);
    const auto answers = need(search_batch(*view, batch, {top_k, -2}));
    for (std::size_t i = 0; i < count; ++i)
      check(answers[i], i);
  }

private:
  using row = faiss::Index::idx_t;

  /// The same rows, but for those whose scores are nearly that of the last.
  void check(const std::vector<scored_row>& ours, std::size_t query) {
    const auto* rows = rows_.data() + query * top_k;
    const auto* scores = scores_.data() + query * top_k;
    const auto expected = static_cast<std::size_t>(
        std::count_if(rows, rows + top_k, [](row each) { return each >= 0; }));
    equal_ &= ours.size() == expected;
    for (std::size_t i = 0; equal_ && i < expected; ++i) {
      const bool border =
          ours[i].score <= scores[expected - 1] + score_tolerance;
      const bool found =
          std::find(rows, rows + top_k, row{ours[i].row}) != rows + top_k;
      equal_ = (found || border)
               && std::abs(ours[i].score - scores[i]) <= score_tolerance;
    }
  }

  std::size_t dimension_;
  floats vectors_;
  floats queries_;
  scratch_directory scratch_;
  views views_;
  faiss::IndexFlatIP index_;
  /// What faiss answered last to each query.
  floats scores_;
  std::vector<row> rows_;
  bool equal_ = true;
};

/// One thing whose time is taken.
struct subject {
  std::string name;
  /// How often it reads all vectors from memory; 0: unknown.
  int passes;
  std::size_t queries;
  std::function<void(std::size_t round)> run;
  std::vector<double> milliseconds{};

  double median() const {
    auto sorted = milliseconds;
    std::sort(sorted.begin(), sorted.end());
    return sorted[sorted.size() / 2];
  }
};

/// Each round runs every subject once: a disturbance hits all of them.
void measure(std::vector<subject>& subjects, std::size_t rounds) {
  using clock = std::chrono::steady_clock;
  for (std::size_t round = 0; round <= rounds; ++round)
    for (auto& each : subjects) {
      const auto start = clock::now();
      each.run(round);
      const std::chrono::duration<double, std::milli> taken =
          clock::now() - start;
      if (round > 0) // the first one warms up
        each.milliseconds.push_back(taken.count());
    }
}

const subject& named(const std::vector<subject>& subjects,
                     std::string_view name) {
  return *std::find_if(subjects.begin(), subjects.end(),
                       [&](const auto& each) { return each.name == name; });
}

void print_header(const options& chosen) {
#ifdef __OPTIMIZE__
  const char* build = "optimized";
#else
  const char* build = "NOT OPTIMIZED";
#endif
  std::printf("processor  %s, kernels for %s\n"
              "compiler   %s, %s\n"
              "data       %zu rows x %zu float32 (%.0f MB), 500 clusters, "
              "seed %u, top %zu\n"
              "method     one thread, median of %zu interleaved rounds\n\n",
              processor().c_str(), HWY_DYNAMIC_DISPATCH(target_name)(),
              __VERSION__, build, chosen.rows, chosen.dimension,
              static_cast<double>(chosen.rows * chosen.dimension * 4) / 1e6,
              seed, top_k, chosen.rounds);
}

void print_table(const std::vector<subject>& subjects, double bytes) {
  std::printf("%-34s %9s %9s %9s %8s\n", "", "ms", "fastest", "ms/query",
              "GB/s");
  for (const auto& each : subjects) {
    const auto ms = each.median();
    const auto fastest =
        *std::min_element(each.milliseconds.begin(), each.milliseconds.end());
    std::printf("%-34s %9.3f %9.3f", each.name.c_str(), ms, fastest);
    if (each.queries > 0)
      std::printf(" %9.3f", ms / static_cast<double>(each.queries));
    else
      std::printf(" %9s", "");
    if (each.passes > 0)
      std::printf(" %8.1f", each.passes * bytes / ms / 1e6);
    std::printf("\n");
  }
}

void print_ratio(const std::vector<subject>& subjects, std::string_view slow,
                 std::string_view fast) {
  std::printf("%-26s / %-32s %6.2f\n", std::string(slow).c_str(),
              std::string(fast).c_str(),
              named(subjects, slow).median() / named(subjects, fast).median());
}

std::vector<subject> make_subjects(contest& both, const huge_buffer& buffer,
                                   std::size_t bytes) {
  const auto& mapped = both.rows().mapped;
  const auto& memory = both.rows().memory;
  // The vectors' bytes in the mapped file, from the first aligned one on.
  const auto begin =
      reinterpret_cast<std::uintptr_t>(mapped->base_rows().vectors());
  const auto* words =
      reinterpret_cast<const std::uint64_t*>((begin + 63) / 64 * 64);
  auto read = [](const std::uint64_t* from, std::size_t size) {
    volatile auto sum = HWY_DYNAMIC_DISPATCH(read_all)(from, size);
    static_cast<void>(sum);
  };
  return {
      {"read mapped file", 1, 0, [=](std::size_t) { read(words, bytes - 64); }},
      {"read huge pages", 1, 0,
       [=, &buffer](std::size_t) { read(buffer.words(), bytes); }},
      {"faiss, 1 query", 1, 1,
       [&](std::size_t round) { both.ask_faiss(round % query_count, 1); }},
      {"search mapped file, 1 query", 1, 1,
       [&](std::size_t round) { both.ask(mapped, round % query_count); }},
      {"search memory, 1 query", 1, 1,
       [&](std::size_t round) { both.ask(memory, round % query_count); }},
      {"faiss with BLAS, 1 query", 0, 1,
       [&](std::size_t round) {
         both.ask_faiss_with_blas(round % query_count);
       }},
      {"faiss, 32 queries", 0, 32, [&](std::size_t) { both.ask_faiss(0, 32); }},
      {"search mapped file, 32 queries", 1, 32,
       [&](std::size_t) { both.ask_batch(mapped, 32); }},
      {"faiss, 128 queries", 0, 128,
       [&](std::size_t) { both.ask_faiss(0, 128); }},
      {"search mapped file, 128 queries", 1, 128,
       [&](std::size_t) { both.ask_batch(mapped, 128); }},
  };
}

int run(const options& chosen) {
  const auto bytes = chosen.rows * chosen.dimension * sizeof(float);
  ::omp_set_num_threads(1);
  print_header(chosen);

  contest both(chosen);
  const huge_buffer buffer(bytes);
  auto subjects = make_subjects(both, buffer, bytes);
  measure(subjects, chosen.rounds);
  print_table(subjects, static_cast<double>(bytes));

  std::printf("\nhow many times as long\n");
  print_ratio(subjects, "faiss, 1 query", "search mapped file, 1 query");
  print_ratio(subjects, "faiss, 1 query", "search memory, 1 query");
  print_ratio(subjects, "faiss with BLAS, 1 query",
              "search mapped file, 1 query");
  print_ratio(subjects, "faiss, 32 queries", "search mapped file, 32 queries");
  print_ratio(subjects, "faiss, 128 queries",
              "search mapped file, 128 queries");
  std::printf("\nshare of the memory's bandwidth\n");
  print_ratio(subjects, "read mapped file", "search mapped file, 1 query");
  print_ratio(subjects, "read huge pages", "search memory, 1 query");
  std::printf("\nanswers %s those of faiss\n",
              both.equal() ? "equal" : "DIFFER FROM");
  return both.equal() ? 0 : 1;
}

} // namespace

} // namespace callboard::bench

int main(int argc, char** argv) {
  callboard::bench::options chosen;
  CLI::App app("Exact queries beside bare faiss and the memory's bandwidth");
  app.add_option("--rows", chosen.rows)->check(CLI::PositiveNumber);
  app.add_option("--dimension", chosen.dimension)->check(CLI::PositiveNumber);
  app.add_option("--rounds", chosen.rounds)->check(CLI::PositiveNumber);
  app.add_flag("--smoke", chosen.smoke, "Tiny: only whether it works");
  CLI11_PARSE(app, argc, argv);
  if (chosen.smoke) {
    chosen.rows = 2000;
    chosen.dimension = 64;
    chosen.rounds = 1;
  }
  try {
    return callboard::bench::run(chosen);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

#endif
