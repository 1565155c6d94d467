#pragma once

#include "actors/client.hpp"
#include "core/store.hpp"
#include "ipc/shared_board.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <functional>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "bench/bench_support.hpp"

/// The stores and processes of the bench with many processes. Errors are
/// exceptions: a bench that fails ends.
namespace callboard::bench {

inline constexpr std::uint64_t seed = 20'260'102;
inline constexpr auto patience_max = std::chrono::seconds(60);

/// On the clock that all processes have in common.
inline std::int64_t now_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

/// `share` of `values` are at most this.
inline double quantile(std::vector<double> values, double share) {
  if (values.empty())
    throw std::runtime_error("nothing was measured");
  auto index = static_cast<std::size_t>(
      share * static_cast<double>(values.size() - 1) + 0.5);
  auto place = values.begin() + static_cast<std::ptrdiff_t>(index);
  std::nth_element(values.begin(), place, values.end());
  return *place;
}

inline void print_quantiles(const char* what, const std::vector<double>& values,
                            const char* expected) {
  std::printf("  %-42s %10.1f %10.1f %10.1f   %s\n", what,
              quantile(values, 0.5), quantile(values, 0.99),
              quantile(values, 1), expected);
}

inline void print_head(const char* title) {
  std::printf("\n%s\n  %-42s %10s %10s %10s   %s\n", title, "", "p50", "p99",
              "max", "expected");
}

// -- rows and stores ----------------------------------------------------------

/// A store without actors, and the board that tells other processes of it.
class opened_store {
public:
  opened_store(const std::string& directory, std::uint32_t dimension)
      : board_(posix_io()) {
    store_ = need(store::open(posix_io(), board_, where(directory, dimension)));
  }
  store* operator->() const { return store_.get(); }
  store& operator*() const { return *store_; }
  notice_board& board() { return board_; }

private:
  shared_board board_;
  std::unique_ptr<store> store_;
};

/// A store of `rows` rows, all of them in its base. Its bytes.
inline std::uint64_t fill_store(const std::string& directory, std::size_t rows,
                                std::uint32_t dimension) {
  opened_store out(directory, dimension);
  fill(*out, rows, dimension, seed);
  return out->stats().base_bytes;
}

/// A runtime and one handle.
struct opened_client {
  opened_client(const std::string& directory, std::uint32_t dimension,
                notice_board* board = nullptr)
      : actors(start(board)), handle(open(directory, dimension)) {}

  static std::unique_ptr<runtime> start(notice_board* board) {
    runtime_options chosen;
    chosen.board = board;
    return need(runtime::start(chosen));
  }
  client open(const std::string& directory, std::uint32_t dimension) {
    open_options chosen;
    chosen.working_directory = directory;
    chosen.namespace_name = "bench";
    chosen.model = std::make_shared<no_model>(dimension);
    chosen.automatic_checkpoints = false; // not what is measured
    return need(actors->open(chosen));
  }

  std::unique_ptr<runtime> actors;
  client handle;
};

inline std::uint64_t commit_row(client& handle, commit_operation row) {
  upsert_item item;
  item.id = std::move(row.id);
  item.record = std::move(row.record);
  item.vector = std::move(row.vector);
  need(handle.upsert({std::move(item)}));
  return need(handle.commit()).generation;
}

// -- processes ----------------------------------------------------------------

/// A `Content` that this process and its children share.
template <class Content>
class shared_mapping {
public:
  shared_mapping()
      : place_(::mmap(nullptr, sizeof(Content), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0)) {
    if (place_ == MAP_FAILED)
      throw std::runtime_error("no shared memory");
    content_ = new (place_) Content;
  }
  shared_mapping(const shared_mapping&) = delete;
  shared_mapping& operator=(const shared_mapping&) = delete;
  ~shared_mapping() { ::munmap(place_, sizeof(Content)); }
  Content* operator->() const { return content_; }
  Content& operator*() const { return *content_; }

private:
  void* place_;
  Content* content_;
};

/// Children of this process, which has no threads. They end with it.
class crew {
public:
  crew() = default;
  crew(const crew&) = delete;
  crew& operator=(const crew&) = delete;
  ~crew() {
    for (auto id : ids_) {
      ::kill(id, SIGKILL);
      ::waitpid(id, nullptr, 0);
    }
  }

  void start(const std::function<void()>& work) {
    std::fflush(nullptr);
    auto id = ::fork();
    if (id < 0)
      throw std::runtime_error("cannot fork");
    if (id > 0) {
      ids_.push_back(id);
      return;
    }
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    try {
      work();
      std::fflush(nullptr);
      ::_exit(0);
    } catch (const std::exception& problem) {
      std::fprintf(stderr, "multi_process_bench: %s\n", problem.what());
      ::_exit(1);
    }
  }

  void wait() {
    for (; !ids_.empty(); ids_.pop_back()) {
      int status = 0;
      ::waitpid(ids_.back(), &status, 0);
      if (status != 0)
        throw std::runtime_error("a process of the measurement failed");
    }
  }

private:
  std::vector<pid_t> ids_;
};

inline void wait_until(const std::function<bool()>& done) {
  auto deadline = std::chrono::steady_clock::now() + patience_max;
  while (!done()) {
    if (std::chrono::steady_clock::now() > deadline)
      throw std::runtime_error("a process of the measurement is missing");
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

} // namespace callboard::bench
