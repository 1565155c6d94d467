#include "cli/commands.hpp"
#include "cli/input_options.hpp"
#include "cli/interrupt.hpp"
#include "cli/output.hpp"
#include "cli/progress.hpp"
#include "cli/store_access.hpp"
#include "core/record.hpp"

#include <array>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace callboard::cli {
namespace {

/// Vectors, ids and records of one commit.
constexpr std::size_t commit_bytes = std::size_t{64} << 20;

struct ingest_arguments {
  store_arguments store;
  input_arguments input;
  std::vector<std::string> fields;
  std::size_t commit_every = 2000;
  bool is_strict = false;
  bool is_not_finalized = false;
};

struct ingest_counts {
  std::uint64_t stored = 0;
  std::uint64_t skipped = 0;
  /// Records whose id came before; the last one counts.
  std::uint64_t repeated = 0;
  std::uint64_t commits = 0;
  std::uint64_t generation = 0;
};

/// Stores records, commit by commit.
class ingester {
public:
  ingester(opened_store& store, const ingest_arguments& arguments,
           progress& shown)
      : store_(store), arguments_(arguments), progress_(shown) {}

  /// Takes a record and commits when there are enough.
  result<void> add(located_record found) {
    if (!found.record)
      return skip(found.where, found.record.error());
    auto& [id, record] = *found.record;
    const auto bytes = id.size() + record.size()
                       + store_.options.model->dimension() * sizeof(float);
    if (!items_.empty() && bytes_ + bytes > commit_bytes)
      CALLBOARD_TRY(commit());
    if (!seen_.insert(std::hash<std::string>()(id)).second)
      ++counts_.repeated;
    places_.insert_or_assign(id, std::move(found.where));
    items_.push_back({std::move(id), std::move(record), {}});
    bytes_ += bytes;
    return items_.size() < arguments_.commit_every ? result<void>() : commit();
  }

  /// Commits what is pending. Records that the store refuses are skipped.
  result<void> commit() {
    if (items_.empty())
      return {};
    CALLBOARD_TRY(upsert());
    CALLBOARD_TRY_ASSIGN(const auto done, store_.handle.commit());
    counts_.stored += done.committed;
    counts_.commits += done.committed > 0 ? 1 : 0;
    counts_.generation = done.generation;
    CALLBOARD_TRY(skip_failed(done.failed));
    items_.clear();
    places_.clear();
    bytes_ = 0;
    return {};
  }

  result<void> finalize() {
    CALLBOARD_TRY_ASSIGN(const auto done, store_.handle.finalize());
    counts_.generation = done.generation;
    return {};
  }

  const ingest_counts& counts() const noexcept { return counts_; }
  std::size_t pending() const noexcept { return items_.size(); }
  bool is_stopped_by_input() const noexcept { return is_stopped_by_input_; }

private:
  result<void> skip(const std::string& where, const failure& reason) {
    progress_.clear();
    if (arguments_.is_strict) {
      is_stopped_by_input_ = true;
      return failure{reason.code, where + ": " + reason.message};
    }
    ++counts_.skipped;
    note("skipped: " + where + ": " + reason.message);
    return {};
  }

  result<void> upsert() {
    // All or nothing: if something is wrong, find out which.
    auto done = store_.handle.upsert(items_);
    if (done || !is_of_record(done.error()))
      return done;
    for (const auto& item : items_) {
      done = store_.handle.upsert(item.id, item.record);
      if (!done && !is_of_record(done.error()))
        return done;
      if (!done)
        CALLBOARD_TRY(skip(places_[item.id], done.error()));
    }
    return {};
  }

  static bool is_of_record(const failure& reason) {
    return reason.code == errc::invalid_argument
           || reason.code == errc::too_large;
  }

  result<void> skip_failed(const std::vector<record_failure>& failed) {
    if (failed.empty())
      return {};
    for (const auto& [id, reason] : failed)
      CALLBOARD_TRY(skip(places_[id], reason));
    // They would stay pending. A new handle has nothing pending, and unlike a
    // delete it leaves what was stored under their ids before.
    CALLBOARD_TRY_ASSIGN(store_.handle, store_.actors->open(store_.options));
    return {};
  }

  opened_store& store_;
  const ingest_arguments& arguments_;
  progress& progress_;

  std::vector<upsert_item> items_;
  std::size_t bytes_ = 0;
  /// Where the pending records come from, by id.
  std::unordered_map<std::string, std::string> places_;
  /// Hashes of all ids so far: good enough to count.
  std::unordered_set<std::size_t> seen_;
  ingest_counts counts_;
  bool is_stopped_by_input_ = false;
};

std::string seconds_text(std::chrono::duration<double> seconds) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%.1f", seconds.count());
  return text.data();
}

std::string summary(const ingest_counts& counts,
                    std::chrono::duration<double> elapsed, bool as_json) {
  const auto seconds = seconds_text(elapsed);
  if (as_json)
    return "{\"records\": " + std::to_string(counts.stored)
           + ", \"skipped\": " + std::to_string(counts.skipped)
           + ", \"repeated\": " + std::to_string(counts.repeated)
           + ", \"commits\": " + std::to_string(counts.commits)
           + ", \"seconds\": " + seconds
           + ", \"generation\": " + std::to_string(counts.generation) + "}";
  auto text = "stored " + grouped(counts.stored) + " records in "
              + grouped(counts.commits) + " commits and " + seconds
              + " s; skipped " + grouped(counts.skipped);
  if (counts.repeated > 0)
    text += "; repeated ids " + grouped(counts.repeated);
  return text + "; generation " + std::to_string(counts.generation);
}

result<void> store_all(input_files& input, ingester& target, progress& shown) {
  for (;;) {
    CALLBOARD_TRY_ASSIGN(auto found, input.next());
    if (!found || is_interrupted())
      break;
    CALLBOARD_TRY(target.add(std::move(*found)));
    shown.update({.records = target.counts().stored + target.pending(),
                  .bytes = input.bytes_read(),
                  .bytes_total = input.bytes_total()});
  }
  if (is_interrupted())
    return {};
  return target.commit();
}

/// The status of an ingestion that was not stopped by an error.
exit_code end_of_ingest(const ingester& target) {
  if (is_interrupted())
    return exit_code::interrupted;
  return target.counts().skipped > 0 ? exit_code::incomplete
                                     : exit_code::success;
}

result<exit_code> run_ingest(const ingest_arguments& arguments) {
  const auto& messages = arguments.store.messages;
  catch_interrupts();
  open_options options;
  options.meta_fields = default_meta_fields(arguments.store.namespace_name);
  options.meta_fields.insert(options.meta_fields.end(),
                             arguments.fields.begin(), arguments.fields.end());
  CALLBOARD_TRY_ASSIGN(
      auto opened,
      open_store(arguments.store, store_use::create, std::move(options)));

  auto input = open_input(arguments.input, arguments.fields);
  progress shown(!messages.is_quiet);
  ingester target(opened, arguments, shown);
  auto done = store_all(input, target, shown);
  if (done && !is_interrupted() && !arguments.is_not_finalized)
    done = target.finalize();
  shown.clear();

  // Also after an error: what is committed stays.
  standard_output out;
  out.line(summary(target.counts(), shown.elapsed(), messages.as_json));
  CALLBOARD_TRY(out.flush());
  if (is_interrupted())
    note("interrupted; the last " + grouped(target.pending())
         + " records read are not stored");
  if (!done && target.is_stopped_by_input()) {
    report(done.error(), messages.as_json);
    return exit_code::bad_input;
  }
  CALLBOARD_TRY(std::move(done));
  return end_of_ingest(target);
}

} // namespace

void add_ingest(CLI::App& app, invocation& chosen) {
  auto arguments = std::make_shared<ingest_arguments>();
  auto* command = app.add_subcommand(
      "ingest", "Store the records of files, and make the store if it is "
                "missing. Interrupted, it keeps what it has committed");
  add_store_options(*command, arguments->store);
  add_input_options(*command, arguments->input);
  command
      ->add_option("--field", arguments->fields,
                   "Another field of the records to keep, beside the "
                   "namespace's own; may be repeated")
      ->allow_extra_args(false);
  command
      ->add_option("--commit-every", arguments->commit_every,
                   "Records per commit, at most")
      ->check(CLI::Range(std::size_t{1}, commit_operations_max))
      ->capture_default_str();
  command->add_flag("--strict", arguments->is_strict,
                    "Stop at the first record that cannot be stored, instead "
                    "of skipping it");
  command->add_flag("--no-finalize", arguments->is_not_finalized,
                    "Do not publish the pair of files that LightRAG reads");
  command->callback([&chosen, arguments] {
    chosen.run = [arguments] { return run_ingest(*arguments); };
    chosen.as_json = arguments->store.messages.as_json;
  });
}

} // namespace callboard::cli
