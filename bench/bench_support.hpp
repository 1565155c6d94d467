#pragma once

#include "core/commit_log.hpp"
#include "core/embedder.hpp"
#include "core/io.hpp"
#include "core/record.hpp"
#include "core/search.hpp"
#include "core/store.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

/// What all benches use. Errors are exceptions: a bench that fails ends.
namespace callboard::bench {

template <class T>
T need(result<T> outcome) {
  if (!outcome)
    throw std::runtime_error(outcome.error().message);
  if constexpr (!std::is_void_v<T>)
    return std::move(outcome).value();
}

// -- rows and stores ----------------------------------------------------------

inline commit_operation random_row(std::string id, std::uint32_t dimension,
                                   std::mt19937_64& random) {
  static const std::vector<std::string> fields = {"content", "file_path"};
  std::normal_distribution<float> component;
  commit_operation out;
  out.vector.resize(dimension);
  for (auto& value : out.vector)
    value = component(random);
  need(normalize(out.vector, "a generated vector"));
  auto text = std::string(300, 'a' + static_cast<char>(random() % 26));
  out.record = need(make_record(
      id, 1'700'000'000,
      R"({"content": ")" + text + R"(", "file_path": "bench"})", fields));
  out.id = std::move(id);
  return out;
}

inline std::vector<commit_operation> random_rows(std::size_t first,
                                                 std::size_t count,
                                                 std::uint32_t dimension,
                                                 std::mt19937_64& random) {
  std::vector<commit_operation> out;
  for (std::size_t i = 0; i < count; ++i)
    out.push_back(
        random_row("row-" + std::to_string(first + i), dimension, random));
  return out;
}

inline std::vector<std::byte>
frame_bytes(const std::vector<commit_operation>& operations) {
  std::vector<std::byte> out(frame_header_bytes);
  for (const auto& operation : operations)
    encode_operation(operation, out);
  return out;
}

inline store_options where(const std::string& directory,
                           std::uint32_t dimension) {
  store_options out;
  out.working_directory = directory;
  out.namespace_name = "bench";
  out.dimension = dimension;
  return out;
}

/// Gives an empty store `rows` rows, all of them in its base.
inline void fill(store& target, std::size_t rows, std::uint32_t dimension,
                 std::uint64_t seed) {
  constexpr std::size_t commit_rows = 5'000;
  std::mt19937_64 random(seed);
  for (std::size_t first = 0; first < rows; first += commit_rows)
    need(target.commit(random_rows(first, std::min(commit_rows, rows - first),
                                   dimension, random)));
  need(target.checkpoint(compaction::none));
}

/// Only says how long vectors are: nothing is embedded here.
class no_model : public embedder {
public:
  explicit no_model(std::size_t dimension) : dimension_(dimension) {}
  std::size_t dimension() const override { return dimension_; }
  result<embedding_batch> embed(std::span<const std::string>,
                                embedding_context) override {
    return failure{errc::embedding_failed, "there is no model"};
  }

private:
  std::size_t dimension_;
};

/// The least that a durable commit of these bytes can cost: an append and a
/// fdatasync, to a file beside the store's.
class bare_log {
public:
  explicit bare_log(const std::string& directory)
      : home_(need(posix_io().open_directory(directory, true))),
        file_(need(home_->open_file("bare", open_mode::create_empty))) {}

  void append(std::span<const std::byte> bytes) {
    need(file_->append(offset_, bytes));
    need(file_->sync_data());
    offset_ += bytes.size();
  }

private:
  std::unique_ptr<directory> home_;
  std::unique_ptr<file> file_;
  std::uint64_t offset_ = 0;
};

// -- the machine --------------------------------------------------------------

inline std::string processor() {
  std::ifstream information("/proc/cpuinfo");
  for (std::string line; std::getline(information, line);)
    if (line.starts_with("model name"))
      return line.substr(line.find(':') + 2);
  return "unknown";
}

inline void print_machine(std::uint64_t seed) {
  std::printf("processor: %s, %u threads\ncompiler: %s, seed: %llu\n",
              processor().c_str(), std::thread::hardware_concurrency(),
              __VERSION__, static_cast<unsigned long long>(seed));
}

/// Kilobytes by name, from /proc/self/smaps_rollup.
inline std::map<std::string, double> memory_of_this_process() {
  std::map<std::string, double> out;
  std::ifstream rollup("/proc/self/smaps_rollup");
  for (std::string line; std::getline(rollup, line);)
    if (auto colon = line.find(':'); colon != std::string::npos)
      out[line.substr(0, colon)] = std::atof(line.c_str() + colon + 1);
  return out;
}

} // namespace callboard::bench
