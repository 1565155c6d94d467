#pragma once

#include "core/embedder.hpp"

#include <chrono>
#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

namespace callboard {

struct command_embedder_options {
  /// What `/bin/sh -c` runs.
  std::string command;

  /// Components of the program's vectors: 1 to 65,536.
  std::size_t dimension = 0;

  /// See `embedder::name`. Empty: stores do not check the model.
  std::string name;

  /// How long one batch may take, the program's start included. Then its
  /// process group is killed.
  std::chrono::milliseconds time_limit = std::chrono::seconds(120);

  /// Longest answer, beside 32 bytes for each number asked for.
  std::size_t answer_bytes_max = std::size_t{64} << 20;
};

/// Lets an external program embed. Asked on its standard input, one line of
/// JSON a batch:
///
///     {"texts": ["...", ...], "context": "document"}    (or "query")
///
/// it answers on its standard output with one line, in the order of the texts:
///
///     {"vectors": [[0.1, ...], ...]}    or    {"error": "why not"}
///
/// Requests are ASCII: everything else is escaped (a lone surrogate as one
/// `\ud800`-style escape). Standard error is that of this process. The program
/// is started at the first use, in a process group of its own, and asked one
/// batch at a time; it should run until its standard input ends. If it has
/// died since the last call it is started again; if it dies while it answers
/// the call fails, and the next one starts it.
///
/// Ownership: owns the program. The destructor closes its standard input,
///            gives it a second to finish and kills what is left of its group.
/// Threads:   thread-safe; calls wait for each other.
/// Errors:    `embedding_failed`: the program cannot be started, died, took too
///            long, reported an error or answered something else than the
///            vectors asked for (in number, dimension, or not finite). After
///            all but a reported error it is killed, because its next line of
///            output might belong to this request.
class command_embedder : public embedder {
public:
  /// Does not start the program yet.
  explicit command_embedder(command_embedder_options options);
  ~command_embedder() override;

  std::size_t dimension() const override { return options_.dimension; }
  std::string name() const override { return options_.name; }

  result<embedding_batch> embed(std::span<const std::string> texts,
                                embedding_context context) override;

private:
  class program;

  result<void> start();
  /// The line that answers `request`.
  result<std::string> ask(std::string_view request, std::size_t answer_max,
                          std::chrono::steady_clock::time_point deadline);
  failure stop_with(std::string what);

  const command_embedder_options options_;
  std::mutex mutex_;
  std::unique_ptr<program> program_; // protected by mutex_
};

} // namespace callboard
