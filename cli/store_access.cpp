#include "cli/store_access.hpp"

#include "actors/embedder_spec.hpp"
#include "core/index_file.hpp"
#include "core/io.hpp"
#include "core/lightrag_pair.hpp"
#include "core/manifest.hpp"
#include "core/published_pair.hpp"
#include "core/record.hpp"

#include <spdlog/logger.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <chrono>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace callboard::cli {
namespace {

/// What a store's files say about its vectors; zero and empty if they do not.
struct stored_identity {
  std::size_t dimension = 0;
  std::string model;
};

/// Stands in where nothing is to be embedded.
class no_embedder : public embedder {
public:
  explicit no_embedder(stored_identity identity)
      : identity_(std::move(identity)) {}

  std::size_t dimension() const override { return identity_.dimension; }
  std::string name() const override { return identity_.model; }

  result<embedding_batch> embed(std::span<const std::string>,
                                embedding_context) override {
    return failure{errc::embedding_failed,
                   "there are texts to embed, but no embedder: name that of "
                   "the store with --embedder"};
  }

private:
  stored_identity identity_;
};

/// Up to `bytes_max` bytes from the beginning of a file.
result<std::vector<std::byte>> read_head(const file& source,
                                         std::size_t bytes_max) {
  std::vector<std::byte> bytes(bytes_max);
  CALLBOARD_TRY_ASSIGN(const auto count, source.read_at(0, bytes));
  bytes.resize(count);
  return bytes;
}

result<stored_identity> read_manifest(const directory& home) {
  CALLBOARD_TRY_ASSIGN(const auto source,
                       home.open_file("MANIFEST", open_mode::read));
  CALLBOARD_TRY_ASSIGN(const auto bytes,
                       read_head(*source, manifest_bytes_max));
  CALLBOARD_TRY_ASSIGN(const auto root,
                       decode_manifest(bytes, home.path() + "/MANIFEST"));
  return stored_identity{root.base.dimension, root.model};
}

result<stored_identity> read_index_header(const directory& home,
                                          const std::string& name) {
  CALLBOARD_TRY_ASSIGN(const auto source,
                       home.open_file(name, open_mode::read));
  CALLBOARD_TRY_ASSIGN(const auto status, source->status());
  CALLBOARD_TRY_ASSIGN(const auto bytes,
                       read_head(*source, index_header_bytes));
  CALLBOARD_TRY_ASSIGN(
      const auto header,
      decode_index_header(bytes, status.size_bytes, home.path() + "/" + name));
  return stored_identity{header.dimension, {}};
}

/// Empty if there is no such store. What is wrong with one is for those to
/// tell who open it.
result<std::optional<stored_identity>>
find_store(io& door, const store_arguments& arguments) {
  const auto& name = arguments.namespace_name;
  CALLBOARD_TRY(check_store_name(name_kind::workspace, arguments.workspace));
  CALLBOARD_TRY(check_store_name(name_kind::namespace_name, name));
  auto home = door.open_directory(arguments.directory, false);
  if (home && !arguments.workspace.empty())
    home = (*home)->open_directory(arguments.workspace, false);
  if (!home && home.error().code == errc::not_found)
    return std::optional<stored_identity>();
  if (!home)
    return std::move(home).error();

  const auto own = private_directory_name(name);
  if (const auto own_home = (*home)->open_directory(own, false)) {
    if (auto identity = read_manifest(**own_home))
      return std::optional(std::move(*identity));
    return std::optional(stored_identity{});
  }
  const auto index = published_index_name(name);
  if (auto identity = read_index_header(**home, index))
    return std::optional(std::move(*identity));
  for (const auto& file : {own, index, published_meta_name(name)}) {
    if ((*home)->status(file))
      return std::optional(stored_identity{});
  }
  return std::optional<stored_identity>();
}

/// How to make the embedder of this name, as far as a name tells: word
/// frequencies are looked for beside the store.
std::string specification_of(const std::string& model,
                             const std::string& directory) {
  const auto table = model.find("+idf-");
  if (table == std::string::npos)
    return model;
  return model.substr(0, table) + ",idf=" + directory + "/"
         + word_frequencies_name;
}

/// The embedder that a store was made with, if it can be made from its name.
result<std::shared_ptr<embedder>>
embedder_of_store(io& door, const stored_identity& stored,
                  const std::string& directory) {
  if (stored.model.empty())
    return failure{errc::invalid_argument,
                   "the store does not tell what its vectors are made with: "
                   "name it with --embedder"};
  auto made = make_embedder(specification_of(stored.model, directory), 0, door);
  if (made && (*made)->name() == stored.model)
    return made;
  return failure{errc::model_mismatch,
                 "the vectors of the store are made with "
                     + printable(stored.model)
                     + ": name that embedder with --embedder"};
}

result<std::shared_ptr<embedder>>
choose_embedder(io& door, const store_arguments& store,
                const std::optional<stored_identity>& stored, store_use use) {
  const auto& arguments = store.embedder;
  command_settings settings;
  settings.model_name = arguments.model;
  const bool is_named =
      !arguments.specification.empty() || arguments.dimension != 0;
  if (is_named || !stored || stored->dimension == 0)
    return make_embedder(arguments.specification.empty()
                             ? default_embedder
                             : arguments.specification,
                         arguments.dimension, door, settings);
  if (use == store_use::read)
    return std::shared_ptr<embedder>(std::make_shared<no_embedder>(*stored));
  return embedder_of_store(door, *stored, store.directory);
}

} // namespace

void add_message_options(CLI::App& command, message_arguments& arguments) {
  command.add_flag("--json", arguments.as_json,
                   "JSON for programs instead of text for people");
  auto* verbose = command.add_flag("-v,--verbose", arguments.is_verbose,
                                   "Tell what is done, on standard error");
  command
      .add_flag("-q,--quiet", arguments.is_quiet,
                "Only errors on standard error")
      ->excludes(verbose);
}

CLI::Validator seconds_range(double maximum) {
  // Unlike CLI::Range, refuses NaN.
  const auto check = [maximum](const std::string& text) {
    double seconds = 0;
    const bool is_good = CLI::detail::lexical_cast(text, seconds)
                         && seconds >= 0 && seconds <= maximum;
    return is_good ? std::string()
                   : "Value " + text + " is not from 0 to "
                         + std::to_string(static_cast<std::int64_t>(maximum));
  };
  return CLI::Validator(check, "SECONDS");
}

void add_store_options(CLI::App& command, store_arguments& arguments) {
  constexpr auto group = "Store";
  command
      .add_option("-d,--dir", arguments.directory,
                  "Working directory of the store")
      ->required()
      ->envname("CALLBOARD_DIR")
      ->group(group);
  command
      .add_option("-w,--workspace", arguments.workspace,
                  "Subdirectory of it (default: none)")
      ->group(group);
  command
      .add_option("-n,--namespace", arguments.namespace_name,
                  "Name of the store in it")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("-e,--embedder", arguments.embedder.specification,
                  "words:DIMENSION, words:DIMENSION,idf=FILE (see train), or "
                  "command:SHELL-COMMAND (default: words:DIMENSION as the "
                  "store has it, with the word frequencies that are in the "
                  "working directory as words.idf; for a new store words:256)")
      ->group(group);
  command
      .add_option("--dim", arguments.embedder.dimension,
                  "Dimension of the vectors; required for command:")
      ->check(CLI::Range(1u, dimension_max))
      ->group(group);
  command
      .add_option("--model", arguments.embedder.model,
                  "Name of the model behind command:, kept with the store and "
                  "compared when it is opened (default: not compared)")
      ->group(group);
  command
      .add_option("--lock-timeout", arguments.lock_timeout_seconds,
                  "Seconds to wait for another process's lock")
      ->check(seconds_range(86'400))
      ->capture_default_str()
      ->group(group);
  command
      .add_flag("--network-files", arguments.has_network_files,
                "Open a store on a network file system, which no other "
                "machine uses")
      ->group(group);
  add_message_options(command, arguments.messages);
}

runtime_options make_runtime_options(const message_arguments& arguments) {
  runtime_options options;
  options.log = std::make_shared<spdlog::logger>(
      "callboard", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  options.log->set_level(arguments.is_verbose ? spdlog::level::debug
                         : arguments.is_quiet ? spdlog::level::err
                                              : spdlog::level::warn);
  return options;
}

result<opened_store> open_store(const store_arguments& arguments, store_use use,
                                open_options options) {
  io& door = posix_io();
  CALLBOARD_TRY_ASSIGN(const auto stored, find_store(door, arguments));
  if (!stored && use != store_use::create)
    return failure{errc::not_found,
                   "there is no store " + printable(arguments.namespace_name)
                       + " in " + arguments.directory
                       + (arguments.workspace.empty() ? "" : "/")
                       + arguments.workspace};
  CALLBOARD_TRY_ASSIGN(options.model,
                       choose_embedder(door, arguments, stored, use));
  options.working_directory = arguments.directory;
  options.workspace = arguments.workspace;
  options.namespace_name = arguments.namespace_name;
  options.lock_timeout = std::chrono::duration_cast<std::chrono::milliseconds>(
      std::chrono::duration<double>(arguments.lock_timeout_seconds));
  options.network_files = arguments.has_network_files;
  CALLBOARD_TRY_ASSIGN(
      auto actors, runtime::start(make_runtime_options(arguments.messages)));
  CALLBOARD_TRY_ASSIGN(auto handle, actors->open(options));
  return opened_store{std::move(actors), std::move(options), std::move(handle)};
}

} // namespace callboard::cli
