#pragma once

#include "actors/client.hpp"
#include "core/result.hpp"

#include <CLI/App.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

/// The options that say which store a command works on, and how.
namespace callboard::cli {

/// How much the command tells, and in which form.
struct message_arguments {
  bool as_json = false;
  bool is_verbose = false;
  bool is_quiet = false;
};

struct embedder_arguments {
  /// Empty: that of the store; `default_embedder` for a new one.
  std::string specification;
  /// 0: not given.
  std::size_t dimension = 0;
  std::string model;
};

struct store_arguments {
  std::string directory;
  std::string workspace;
  std::string namespace_name = "chunks";
  embedder_arguments embedder;
  double lock_timeout_seconds = 30;
  bool has_network_files = false;
  message_arguments messages;
};

inline constexpr const char* default_embedder = "words";

/// Where the word frequencies of a working directory's stores are looked for.
inline constexpr const char* word_frequencies_name = "words.idf";

void add_message_options(CLI::App& command, message_arguments& arguments);
/// Accepts numbers of seconds from 0 to `maximum`.
CLI::Validator seconds_range(double maximum);
/// With those of `add_message_options`.
void add_store_options(CLI::App& command, store_arguments& arguments);

/// A handle and the runtime that serves it.
struct opened_store {
  std::unique_ptr<runtime> actors;
  open_options options;
  client handle;
};

enum class store_use : std::uint8_t {
  /// Needs no vectors of new texts: without a named embedder it is opened
  /// with none.
  read,
  /// Embeds.
  embed,
  /// Embeds; the store is made if it is missing.
  create,
};

/// What a runtime of this command is started with.
runtime_options make_runtime_options(const message_arguments& arguments);

/// Opens a store. `options` holds what `arguments` do not.
/// Errors: those of `runtime::open`; `not_found` for a missing store, of which
///         then nothing is made.
result<opened_store> open_store(const store_arguments& arguments, store_use use,
                                open_options options = {});

} // namespace callboard::cli
