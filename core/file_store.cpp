#include "core/file_store.hpp"

#include "core/bytes.hpp"
#include "core/catalog.hpp"
#include "core/index_file.hpp"
#include "core/json_text.hpp"
#include "core/record.hpp"

#include <spdlog/logger.h>
#include <spdlog/sinks/null_sink.h>

#include <algorithm>
#include <limits>
#include <map>
#include <set>
#include <utility>

namespace callboard {

namespace {

constexpr std::uint64_t no_limit = std::numeric_limits<std::uint64_t>::max();
/// Where a log is poisoned of which all frames can be believed.
constexpr std::uint64_t beyond_all_frames = no_limit - 1;
/// How often a base that vanishes while it is read is looked for anew.
constexpr int load_attempts_max = 50;
/// How long opening waits for a writer before it goes on as a reader.
constexpr auto open_lock_timeout = std::chrono::milliseconds(500);
/// How long a reader without a board waits for a pause between commits.
constexpr auto expose_lock_timeout = std::chrono::milliseconds(50);
/// How long a writer waits for a checkpoint to end if the log must be replaced
/// first. It may be this handle's own, which ends only after the writer.
constexpr auto rewrite_lock_timeout = std::chrono::seconds(1);

failure inconsistent(std::string path, std::string_view what) {
  return {errc::corrupt,
          std::move(path) + ": " + std::string{what}
              + "; the store was not touched: restore it from a backup, or "
                "open it with salvage to keep what is before the damage"};
}

/// What the log could not give back, or no checkpoint could fold.
result<void> check_operation(const commit_operation& operation,
                             std::uint32_t dimension) {
  CALLBOARD_TRY(check_id(operation.id));
  if (operation.what == commit_operation::kind::remove) {
    if (operation.record.empty() && operation.vector.empty())
      return {};
    return failure{errc::invalid_argument,
                   "the removal of " + printable(operation.id)
                       + " has a record or a vector: leave them empty"};
  }
  auto of = "the record of " + printable(operation.id);
  if (operation.record.empty())
    return failure{errc::invalid_argument, of + " is empty"};
  if (operation.record.size() > record_bytes_max)
    return failure{errc::too_large,
                   of + " has " + std::to_string(operation.record.size())
                       + " bytes; at most " + std::to_string(record_bytes_max)};
  if (operation.vector.size() != dimension)
    return failure{errc::dimension_mismatch,
                   "the vector of " + printable(operation.id) + " has "
                       + std::to_string(operation.vector.size())
                       + " components; the store's have "
                       + std::to_string(dimension)};
  return {};
}

} // namespace

namespace {

/// As `file::lock`; an exclusive `writer` lock is waited for in a line of one.
result<void> take(io& door, file& opened, store_lock which, lock_mode mode,
                  std::chrono::milliseconds timeout) {
  auto byte = static_cast<std::uint64_t>(which);
  if (which != store_lock::writer || mode != lock_mode::exclusive)
    return opened.lock(byte, mode, timeout);
  constexpr auto line = static_cast<std::uint64_t>(store_lock::next_writer);
  auto start = door.steady_clock();
  CALLBOARD_TRY(opened.lock(line, lock_mode::exclusive, timeout));
  auto waited = std::chrono::duration_cast<std::chrono::milliseconds>(
      door.steady_clock() - start);
  auto locked = opened.lock(
      byte, mode, std::max(timeout - waited, std::chrono::milliseconds(0)));
  opened.unlock(line);
  return locked;
}

} // namespace

result<held_lock> held_lock::acquire(io& door, const directory& home,
                                     store_lock which, lock_mode mode,
                                     std::chrono::milliseconds timeout) {
  // LOCK is never replaced by us. If somebody else did it, two processes could
  // each hold "the" lock: only one on the file that has the name counts.
  for (int attempt = 0; attempt < 10; ++attempt) {
    CALLBOARD_TRY_ASSIGN(auto opened,
                         home.open_file("LOCK", open_mode::create));
    CALLBOARD_TRY(take(door, *opened, which, mode, timeout));
    CALLBOARD_TRY_ASSIGN(auto held, opened->status());
    auto named = home.status("LOCK");
    if (named && named->identity == held.identity)
      return held_lock{std::move(opened)};
  }
  return failure{errc::io_failure,
                 home.path()
                     + "/LOCK: somebody keeps replacing this file; "
                       "leave it alone"};
}

class file_store::files_probe final : public change_probe {
public:
  files_probe(std::unique_ptr<directory> home,
              std::shared_ptr<store_notices> notices,
              std::shared_ptr<seen_files> seen)
      : home_(std::move(home)),
        notices_(std::move(notices)),
        seen_(std::move(seen)) {}

  bool changed(std::uint64_t generation) const override {
    if (notices_->durable_sequence() > generation
        || seen_->outdated.load(std::memory_order_acquire))
      return true;
    return !notices_->covers_all_processes() && look_at_files();
  }

  bool look_at_files() const override {
    if (!files_differ())
      return false;
    seen_->outdated.store(true, std::memory_order_release);
    return true;
  }

private:
  bool files_differ() const {
    auto root = home_->status("MANIFEST");
    auto log = home_->status(log_name(seen_->log_epoch));
    return !root || !log || root->identity.inode != seen_->manifest_inode
           || root->modified_ns != seen_->manifest_modified_ns
           || log->size_bytes != seen_->log_bytes;
  }

  std::unique_ptr<directory> home_;
  std::shared_ptr<store_notices> notices_;
  std::shared_ptr<seen_files> seen_;
};

result<std::unique_ptr<store>> store::open(io& door, notice_board& board,
                                           store_options options) {
  return file_store::open(door, board, std::move(options));
}

file_store::file_store(io& door, notice_board& board, store_options options)
    : door_(door), board_(board), options_(std::move(options)) {
  if (!options_.log)
    options_.log = std::make_shared<spdlog::logger>(
        "callboard", std::make_shared<spdlog::sinks::null_sink_mt>());
}

result<std::unique_ptr<store>> file_store::open(io& door, notice_board& board,
                                                store_options options) {
  CALLBOARD_TRY(check_store_name(name_kind::workspace, options.workspace));
  CALLBOARD_TRY(
      check_store_name(name_kind::namespace_name, options.namespace_name));
  if (options.dimension < 1 || options.dimension > dimension_max)
    return failure{errc::invalid_argument,
                   "dimension " + std::to_string(options.dimension)
                       + " is outside 1 to " + std::to_string(dimension_max)};
  if (options.model.size() > model_bytes_max)
    return failure{errc::invalid_argument,
                   "the embedding model's name is longer than "
                       + std::to_string(model_bytes_max) + " bytes"};
  std::unique_ptr<file_store> self{
      new file_store(door, board, std::move(options))};
  CALLBOARD_TRY(self->open_directories());
  std::unique_ptr<file> ignored;
  auto root = self->read_manifest(ignored);
  if (!root && root.error().code == errc::not_found) {
    CALLBOARD_TRY(self->create());
  } else if (!root) {
    return std::move(root).error();
  }
  CALLBOARD_TRY(self->recover());
  CALLBOARD_TRY(self->settle_publication());
  CALLBOARD_TRY(self->load_records_to_embed());
  CALLBOARD_TRY_ASSIGN(
      auto probe_home,
      self->outside_->open_directory(
          private_directory_name(self->options_.namespace_name), false));
  self->probe_ = std::make_shared<files_probe>(std::move(probe_home),
                                               self->notices_, self->seen_);
  return std::unique_ptr<store>{std::move(self)};
}

result<void> file_store::open_directories() {
  CALLBOARD_TRY_ASSIGN(outside_,
                       door_.open_directory(options_.working_directory, true));
  CALLBOARD_TRY(check_file_system());
  if (!options_.workspace.empty()) {
    CALLBOARD_TRY_ASSIGN(auto workspace,
                         outside_->open_directory(options_.workspace, true));
    CALLBOARD_TRY(outside_->sync());
    outside_ = std::move(workspace);
  }
  report_.removed_temporaries =
      remove_orphan_temporaries(door_, *outside_, options_.namespace_name);
  CALLBOARD_TRY_ASSIGN(
      home_, outside_->open_directory(
                 private_directory_name(options_.namespace_name), true));
  pair_.emplace(door_, *outside_, *home_, options_.namespace_name);
  return {};
}

result<void> file_store::check_file_system() const {
  CALLBOARD_TRY_ASSIGN(const auto keeper, outside_->kept_by());
  if (keeper == file_system::network && !options_.network_files)
    return failure{errc::invalid_argument,
                   outside_->path()
                       + ": is on a network file system, where locks and "
                         "shared memory do not hold between machines: choose a "
                         "local directory or, if one machine alone uses this "
                         "one, set `network_files` (--network-files)"};
  if (keeper == file_system::program)
    options_.log->warn("{}: is kept by a program (FUSE); what it makes of "
                       "locks and syncs is not known",
                       outside_->path());
  return {};
}

/// The first MANIFEST: of an empty store, or of a LightRAG pair taken over.
/// A crash before it is renamed into place leaves debris, which is never
/// written to: published files may be links to it.
result<void> file_store::create() {
  // Others must not publish, nor take the pair over again, before we are done.
  CALLBOARD_TRY_ASSIGN(auto checkpointer, lock(store_lock::checkpoint));
  CALLBOARD_TRY_ASSIGN(auto held, lock(store_lock::create));
  std::unique_ptr<file> ignored;
  if (auto root = read_manifest(ignored);
      root || root.error().code != errc::not_found)
    return root ? result<void>{} : result<void>{std::move(root).error()};
  CALLBOARD_TRY_ASSIGN(auto first_epoch, epoch_after_debris());
  CALLBOARD_TRY_ASSIGN(auto imported,
                       read_lightrag_pair(*outside_, options_.namespace_name,
                                          options_.dimension));
  report_.created = imported.source->row_count() == 0;
  report_.imported = !report_.created;
  report_.import = imported.report;
  CALLBOARD_TRY(keep_records_to_embed(imported.to_embed));
  if (!imported.report.lossless() || !imported.to_embed.empty()) {
    CALLBOARD_TRY(pair_->set_aside(first_epoch));
  }
  store_id id;
  for (std::size_t i = 0; i < id.size(); i += 8)
    store_at(std::span{id}, i, door_.random_bits());
  manifest root;
  CALLBOARD_TRY_ASSIGN(root.base,
                       write_base(*home_, id, first_epoch, options_.dimension,
                                  pair_->file_mode(), *imported.source));
  CALLBOARD_TRY(log_cursor::create(*home_, first_epoch, 0, door_.random_bits(),
                                   options_.dimension));
  root.logs = {first_epoch};
  root.model = options_.model;
  CALLBOARD_TRY(home_->sync());
  CALLBOARD_TRY(write_manifest(std::move(root)));
  CALLBOARD_TRY(outside_->sync());
  return pair_->publish(root_);
}

/// The first epoch that no file in the private directory has. Fails if one of
/// the files holds commits: then this is no new store but one that lost its
/// MANIFEST.
result<std::uint64_t> file_store::epoch_after_debris() const {
  std::uint64_t highest = 0;
  CALLBOARD_TRY_ASSIGN(auto names, home_->list());
  for (const auto& name : names) {
    auto found = classify(name);
    highest = std::max(highest, found.epoch);
    if (found.what != private_file::kind::log)
      continue;
    CALLBOARD_TRY_ASSIGN(auto status, home_->status(name));
    if (status.size_bytes > log_header_bytes)
      return failure{errc::corrupt,
                     path_of("MANIFEST") + ": is missing, but " + name
                         + " holds commits; the store was not touched: "
                           "restore MANIFEST from a backup, or move "
                         + home_->path()
                         + " away to go on with the published pair alone"};
  }
  return highest + 1;
}

/// Loads the state and, unless a writer is at work, heals the log's tail.
result<void> file_store::recover() {
  // Who made the private directory may have died before this.
  CALLBOARD_TRY(outside_->sync());
  auto held = held_lock::acquire(door_, *home_, store_lock::writer,
                                 lock_mode::exclusive, open_lock_timeout);
  if (!held) {
    if (held.error().code != errc::busy)
      return std::move(held).error();
    CALLBOARD_TRY(load(reach::durable));
    // A board that was made since the machine started knows of no commit yet.
    seen_->outdated.store(true, std::memory_order_release);
    CALLBOARD_TRY(refresh());
    ++fence_;
    return {};
  }
  CALLBOARD_TRY(load(reach::everything));
  CALLBOARD_TRY(heal_tail());
  ++fence_;
  update_view();
  return {};
}

result<void> file_store::check_identity(const manifest& root) const {
  if (root.base.dimension != options_.dimension)
    return failure{
        errc::dimension_mismatch,
        "Dimension mismatch: " + path_of("MANIFEST") + " has dimension "
            + std::to_string(root.base.dimension)
            + ", but the embedder expects dimension "
            + std::to_string(options_.dimension)
            + ": open the store with the embedding model it was made with"};
  if (!root.model.empty() && !options_.model.empty()
      && root.model != options_.model)
    return failure{errc::model_mismatch,
                   "the store in " + home_->path()
                       + " was made with the embedding model '" + root.model
                       + "', not '" + options_.model
                       + "': vectors of two models cannot be compared"};
  return {};
}

std::vector<record_to_embed> file_store::take_records_to_embed() {
  return std::exchange(to_embed_, {});
}

/// Records that came without a vector are in no base and no log until somebody
/// has embedded and committed them: a file of their own, one record a line,
/// keeps them until then, along with those that wait already.
result<void> file_store::keep_records_to_embed(
    std::span<const record_to_embed> records) const {
  if (records.empty())
    return {};
  CALLBOARD_TRY_ASSIGN(auto waiting, waiting_records());
  std::set<std::string_view> newer;
  for (const auto& each : records)
    newer.insert(each.id);
  std::erase_if(waiting,
                [&](const auto& each) { return newer.contains(each.id); });
  waiting.insert(waiting.end(), records.begin(), records.end());
  return write_waiting_records(waiting);
}

result<void> file_store::write_waiting_records(
    std::span<const record_to_embed> records) const {
  std::string lines;
  for (const auto& each : records)
    lines += each.record + '\n';
  CALLBOARD_TRY_ASSIGN(auto opened, home_->open_file(unembedded_temporary_name,
                                                     open_mode::create_empty));
  CALLBOARD_TRY(opened->append(0, as_bytes(lines)));
  CALLBOARD_TRY(opened->sync());
  CALLBOARD_TRY(home_->rename(unembedded_temporary_name, unembedded_name));
  return home_->sync();
}

std::optional<file_identity> file_store::waiting_file() const {
  auto status = home_->status(unembedded_name);
  return status ? std::optional{status->identity} : std::nullopt;
}

result<void> file_store::load_records_to_embed() {
  seen_waiting_file_ = waiting_file();
  CALLBOARD_TRY_ASSIGN(to_embed_, waiting_records());
  std::erase_if(to_embed_, [this](const auto& each) {
    return view_->find(each.id).has_value();
  });
  return {};
}

/// What the file keeps; nothing if there is none.
result<std::vector<record_to_embed>> file_store::waiting_records() const {
  std::vector<record_to_embed> out;
  auto opened = home_->open_file(unembedded_name, open_mode::read);
  if (!opened && opened.error().code == errc::not_found)
    return out;
  if (!opened)
    return std::move(opened).error();
  CALLBOARD_TRY_ASSIGN(auto status, (*opened)->status());
  CALLBOARD_TRY_ASSIGN(auto kept,
                       (*opened)->map(status.size_bytes, map_mode::copied));
  auto rest = as_text(kept->bytes());
  while (!rest.empty()) {
    auto line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (!json_text::validate(line))
      return inconsistent(path_of(unembedded_name), "a record is damaged");
    auto raw_id = member(line, "__id__");
    auto id = raw_id ? parse_id(*raw_id) : std::nullopt;
    if (id)
      out.push_back({std::move(*id), std::string{line}});
  }
  return out;
}

/// Those of `operations` with records that wait no more: somebody has
/// committed, removed or replaced them since they were handed out.
result<std::set<const commit_operation*>> file_store::settled_by_others(
    std::span<const commit_operation> operations) const {
  std::set<const commit_operation*> out;
  if (std::ranges::none_of(operations, &commit_operation::was_waiting))
    return out;
  CALLBOARD_TRY_ASSIGN(const auto waiting, waiting_records());
  std::map<std::string_view, std::string_view> records;
  for (const auto& each : waiting)
    records.emplace(each.id, each.record);
  for (const auto& operation : operations) {
    if (!operation.was_waiting)
      continue;
    auto found = records.find(operation.id);
    if (found == records.end() || found->second != operation.record
        || view_->find(operation.id))
      out.insert(&operation);
  }
  return out;
}

/// Records that are in the store now, or that `operations` has removed, wait no
/// more: whoever opens the store next must not bring them back.
result<void>
file_store::strike_out(std::span<const commit_operation> operations,
                       const std::set<const commit_operation*>& overtaken) {
  // Who replaced or removed it since may have died before that was durable.
  if (auto found = waiting_file(); found != seen_waiting_file_) {
    CALLBOARD_TRY(home_->sync());
    seen_waiting_file_ = found;
  }
  if (!seen_waiting_file_)
    return {};
  CALLBOARD_TRY_ASSIGN(auto waiting, waiting_records());
  std::set<std::string_view> settled;
  for (const auto& operation : operations)
    if (operation.drop_epoch >= state_->drop_epoch()
        && !overtaken.contains(&operation))
      settled.insert(operation.id);
  auto struck = std::erase_if(waiting, [&](const auto& each) {
    return settled.contains(each.id) || view_->find(each.id);
  });
  if (waiting.empty()) {
    CALLBOARD_TRY(home_->remove(unembedded_name));
    return home_->sync();
  }
  return struck == 0 ? result<void>{} : write_waiting_records(waiting);
}

// -- the root -----------------------------------------------------------------

std::string file_store::path_of(std::string_view name) const {
  return home_->path() + "/" + std::string{name};
}

result<manifest>
file_store::read_manifest(std::unique_ptr<file>& opened) const {
  CALLBOARD_TRY_ASSIGN(opened, home_->open_file("MANIFEST", open_mode::read));
  std::vector<std::byte> bytes(manifest_bytes_max + 1);
  CALLBOARD_TRY_ASSIGN(auto count, opened->read_at(0, bytes));
  return decode_manifest(std::span{bytes}.first(count), path_of("MANIFEST"));
}

result<void> file_store::write_manifest(manifest next) {
  next.number = root_.number + 1;
  if (next.model.empty())
    next.model = options_.model;
  constexpr std::string_view temporary = "MANIFEST.tmp";
  {
    CALLBOARD_TRY_ASSIGN(auto opened,
                         home_->open_file(temporary, open_mode::create_empty));
    CALLBOARD_TRY(opened->append(0, encode_manifest(next)));
    CALLBOARD_TRY(opened->sync());
  }
  CALLBOARD_TRY(home_->rename(temporary, "MANIFEST"));
  CALLBOARD_TRY(home_->sync());
  root_file_.reset(); // the state has yet to follow
  root_ = std::move(next);
  return {};
}

bool file_store::manifest_replaced() const {
  if (!root_file_)
    return true;
  auto held = root_file_->status();
  auto named = home_->status("MANIFEST");
  return !held || !named || held->identity != named->identity;
}

// -- following others ---------------------------------------------------------

/// The last sequence that may be believed. To be asked for before MANIFEST is
/// looked at: what is announced after that was replaced is in another log.
std::uint64_t file_store::limit(reach how_far) const {
  auto announced = std::max(durable_, notices_->durable_sequence());
  auto out = how_far == reach::everything ? no_limit : announced;
  if (auto poisoned = notices_->poisoned_from())
    return std::min(out, *poisoned - 1);
  return out;
}

result<void> file_store::load(reach how_far) {
  for (int attempt = 0;; ++attempt) {
    auto loaded = load_once(how_far);
    // Files vanish when a checkpoint in another process replaces the base
    // between our reading MANIFEST and opening them.
    if (loaded || loaded.error().code != errc::not_found)
      return loaded;
    if (attempt == load_attempts_max)
      return inconsistent(home_->path(), loaded.error().message
                                             + ", although the store needs it");
  }
}

result<void> file_store::load_once(reach how_far) {
  const auto last = notices_ ? limit(how_far) : 0;
  std::unique_ptr<file> opened;
  CALLBOARD_TRY_ASSIGN(auto root, read_manifest(opened));
  CALLBOARD_TRY(check_identity(root));
  if (!notices_) {
    notices_ = board_.attach({.id = root.base.store,
                              .working_directory = options_.working_directory,
                              .workspace = options_.workspace,
                              .namespace_name = options_.namespace_name});
    return load_once(how_far);
  }
  CALLBOARD_TRY(settle_root(how_far));
  CALLBOARD_TRY_ASSIGN(auto base_rows,
                       base::open(door_, *home_, root.base, options_.base_map));
  applied_state state{std::move(base_rows), root.base_sequence,
                      root.drop_epoch};
  durable_ = std::max({durable_, root.base_sequence, root.durable_sequence});
  events_.skip_to(root.base_sequence);
  CALLBOARD_TRY(replay(state, root, std::max(last, root.durable_sequence)));
  if (state_ && state.sequence() < state_->sequence())
    return failure{errc::corrupt, path_of("MANIFEST")
                                      + ": the store went back from generation "
                                      + std::to_string(state_->sequence())
                                      + " to "
                                      + std::to_string(state.sequence())
                                      + ": were older files copied over it?"};
  root_ = std::move(root);
  root_file_ = std::move(opened);
  state_.emplace(std::move(state));
  // What is beyond the durable is shown when it was synced.
  if (how_far == reach::durable) {
    durable_ = std::max(durable_, state_->sequence());
    update_view();
  }
  return {};
}

/// Applies all logs of `root`, in order, up to the sequence `last`; leaves
/// `log_` there.
result<void> file_store::replay(applied_state& state, const manifest& root,
                                std::uint64_t last) {
  auto dimension = root.base.dimension;
  sealed_log_bytes_ = 0;
  CALLBOARD_TRY_ASSIGN(auto log,
                       log_cursor::open(*home_, root.logs.front(), dimension));
  for (std::size_t i = 0; i < root.logs.size(); ++i) {
    if (log.base_sequence() != state.sequence())
      return inconsistent(path_of(log.name()),
                          "does not continue what is before it");
    if (i + 1 == root.logs.size()) {
      CALLBOARD_TRY(replay_log(state, log, last));
      log_.emplace(std::move(log));
      break;
    }
    CALLBOARD_TRY_ASSIGN(auto next,
                         log_cursor::open(*home_, root.logs[i + 1], dimension));
    CALLBOARD_TRY(replay_log(state, log, next.base_sequence()));
    if (state.sequence() != next.base_sequence()) {
      if (!options_.salvage)
        return inconsistent(path_of(log.name()), "commits are missing");
      CALLBOARD_TRY(salvage_tail(log));
      for (auto later = i + 1; later < root.logs.size(); ++later) {
        CALLBOARD_TRY_ASSIGN(
            auto lost, log_cursor::open(*home_, root.logs[later], dimension));
        CALLBOARD_TRY(salvage_tail(lost));
      }
      log_.emplace(std::move(log));
      break;
    }
    sealed_log_bytes_ += log.offset();
    log = std::move(next);
  }
  return {};
}

result<void> file_store::replay_log(applied_state& state, log_cursor& log,
                                    std::uint64_t limit) {
  while (log.sequence() < limit) {
    CALLBOARD_TRY_ASSIGN(auto transaction, log.next());
    if (!transaction)
      break;
    fence_ = std::max(fence_, transaction->fence);
    if (auto applied = state.apply(*transaction); !applied)
      return applied.error().code == errc::broken
                 ? std::move(applied)
                 : inconsistent(path_of(log.name()), applied.error().message);
    events_.record(*transaction, options_.dimension);
  }
  return {};
}

/// Catches up with MANIFEST: a rotated log, or a new base.
result<void> file_store::follow(reach how_far) {
  if (!manifest_replaced())
    return is_root_durable_ ? result<void>{} : settle_root(how_far);
  std::unique_ptr<file> opened;
  CALLBOARD_TRY_ASSIGN(auto next, read_manifest(opened));
  if (next.base.epoch != state_->base_rows()->descriptor().epoch) {
    // What the base has swallowed cannot be told commit by commit: ask the log
    // that is still open, whether it has its name or not.
    if (events_.is_recording())
      (void)replay_log(*state_, *log_, next.base_sequence);
    return load(how_far);
  }
  CALLBOARD_TRY(settle_root(how_far));
  root_ = std::move(next);
  root_file_ = std::move(opened);
  auto stepped = step_through_logs(how_far);
  if (!stepped && stepped.error().code == errc::not_found)
    stepped = load(how_far); // the base was replaced meanwhile
  if (!stepped)
    root_file_.reset();
  return stepped;
}

/// Before anything is written that only the MANIFEST just read leads to: who
/// renamed it into place may have died before it was durable.
result<void> file_store::settle_root(reach how_far) {
  is_root_durable_ = false;
  if (how_far != reach::everything)
    return {};
  CALLBOARD_TRY(home_->sync());
  is_root_durable_ = true;
  return {};
}

result<void> file_store::step_through_logs(reach how_far) {
  for (auto epoch : root_.logs) {
    if (epoch <= log_->epoch())
      continue;
    CALLBOARD_TRY_ASSIGN(auto next,
                         log_cursor::open(*home_, epoch, root_.base.dimension));
    // A log is sealed only when everything in it is durable.
    CALLBOARD_TRY(replay_log(*state_, *log_, next.base_sequence()));
    if (state_->sequence() != next.base_sequence())
      return load(how_far);
    durable_ = std::max(durable_, next.base_sequence());
    sealed_log_bytes_ += log_->offset();
    log_.emplace(std::move(next));
  }
  return {};
}

result<void> file_store::drain(reach how_far) {
  return replay_log(*state_, *log_, limit(how_far));
}

result<snapshot_ptr> file_store::refresh() {
  auto outdated = seen_->outdated.exchange(false, std::memory_order_acq_rel);
  const auto last = limit(reach::durable);
  CALLBOARD_TRY(follow(reach::durable));
  CALLBOARD_TRY(replay_log(*state_, *log_, last));
  // A catch-up that failed may have applied what nobody has synced.
  if (state_->sequence() > std::max(last, durable_)) {
    // A second sync of such a log would seem to succeed.
    if (broken_ || notices_->poisoned_from())
      return view_;
    CALLBOARD_TRY(sync_log());
  }
  // Known here, too: the board that told it may be emptied.
  durable_ = std::max(durable_, state_->sequence());
  if (outdated || !notices_->covers_all_processes()) {
    CALLBOARD_TRY(expose_unannounced());
  }
  update_view();
  return view_;
}

void file_store::keep_events(std::uint64_t after) {
  events_.start(after);
  // A refresh that failed half-way has applied more than the view shows.
  events_.skip_to(state_->sequence());
}

std::vector<commit_event> file_store::take_events() {
  return events_.take(view_->generation());
}

/// Frame n + 1 is written only after frame n was synced: every frame that a
/// valid one follows is durable.
result<void> file_store::drain_followed() {
  for (;;) {
    auto here = log_->where();
    CALLBOARD_TRY_ASSIGN(auto first, log_->next());
    if (!first)
      return {};
    auto second = log_->next();
    log_->rewind(here);
    CALLBOARD_TRY(second);
    if (!*second)
      return {};
    durable_ = std::max(durable_, first->sequence);
    CALLBOARD_TRY(replay_log(*state_, *log_, first->sequence));
  }
}

/// Frames that no board announced may come from a process that this board does
/// not cover, or that died. Whoever shows a frame to a user guarantees that it
/// is durable: so, while no writer is at work, sync the log and only then read
/// on.
result<void> file_store::expose_unannounced() {
  CALLBOARD_TRY_ASSIGN(auto size, log_->file_bytes());
  if (size <= log_->offset() || notices_->poisoned_from())
    return {};
  CALLBOARD_TRY(drain_followed());
  auto held = held_lock::acquire(door_, *home_, store_lock::writer,
                                 lock_mode::shared, expose_lock_timeout);
  if (!held)
    return held.error().code == errc::busy
               ? result<void>{}
               : result<void>{std::move(held).error()};
  CALLBOARD_TRY(follow(reach::durable));
  CALLBOARD_TRY(sync_log());
  auto drained = drain(reach::everything);
  // Also what was applied before an error: it was synced.
  durable_ = std::max(durable_, state_->sequence());
  notices_->announce(durable_);
  return drained;
}

/// Publishes the state to `view` and to the probe.
void file_store::update_view() {
  if (!view_ || view_->generation() != state_->sequence()
      || &view_->base_rows() != state_->base_rows().get())
    view_ = state_->snapshot();
  if (auto root = root_file_->status()) {
    seen_->manifest_inode = root->identity.inode;
    seen_->manifest_modified_ns = root->modified_ns;
  }
  seen_->log_epoch = log_->epoch();
  seen_->log_bytes = log_->offset(); // not what may be behind: it was not read
}

// -- writing ------------------------------------------------------------------

result<held_lock> file_store::lock(store_lock which) const {
  auto held = held_lock::acquire(door_, *home_, which, lock_mode::exclusive,
                                 options_.lock_timeout);
  if (!held && held.error().code == errc::busy)
    options_.log->warn("{}: {}", home_->path(), held.error().message);
  return held;
}

result<void> file_store::check_writable() const {
  if (!broken_)
    return {};
  return failure{errc::broken,
                 "a sync of " + home_->path()
                     + " failed: this handle writes no more; open the store "
                       "again"};
}

/// W2: reads to the end of the log and repairs its tail.
result<void> file_store::catch_up() {
  CALLBOARD_TRY(follow(reach::everything));
  CALLBOARD_TRY(drain(reach::everything));
  CALLBOARD_TRY(heal_tail());
  update_view();
  return {};
}

/// Cuts what a dead writer left unfinished, and makes durable what it left
/// complete.
result<void> file_store::heal_tail() {
  if (notices_->poisoned_from() || salvaged_)
    return {};
  CALLBOARD_TRY_ASSIGN(auto size, log_->file_bytes());
  auto torn = size > log_->offset();
  auto lost = size < log_->offset()
              || notices_->durable_sequence() > state_->sequence();
  if (torn || lost) {
    // Frame n + 1 is written only after frame n was durable: a later valid
    // frame, or an announcement, proves that this is damage.
    CALLBOARD_TRY_ASSIGN(auto damaged, log_->valid_frame_follows());
    if (damaged || lost) {
      if (options_.salvage)
        return salvage_tail(*log_);
      return inconsistent(
          path_of(log_->name()),
          "damaged at byte " + std::to_string(log_->offset())
              + (lost ? ": acknowledged commits are missing; were older files "
                        "copied over it?"
                      : ""));
    }
    CALLBOARD_TRY(log_->cut(log_->offset()));
    report_.cut_bytes += size - log_->offset();
    options_.log->warn("{}: cut {} bytes of an interrupted commit",
                       path_of(log_->name()), size - log_->offset());
  }
  auto known = std::max(durable_, notices_->durable_sequence());
  if (torn || state_->sequence() > known) {
    CALLBOARD_TRY(sync_log());
  }
  durable_ = state_->sequence();
  notices_->announce(durable_);
  return {};
}

result<void> file_store::salvage_tail(const log_cursor& log) {
  salvaged_ = true;
  auto name = log.name() + ".salvaged-" + std::to_string(log.offset());
  options_.log->warn("{}: damaged at byte {}; what follows is kept as {}",
                     path_of(log.name()), log.offset(), name);
  return log.copy_tail(*home_, name);
}

/// After a failed sync nobody may trust the log's file: the kernel forgets
/// which pages it could not write. What can be read of it goes to fresh files;
/// it may have been acknowledged, by this process or another.
result<void> file_store::sync_log() {
  auto synced = log_->sync();
  if (synced)
    return {};
  notices_->poison(beyond_all_frames);
  broken_ = true;
  return failure{errc::broken, std::move(synced).error().message
                                   + "; nothing of it was acknowledged; "
                                     "open the store again"};
}

bool file_store::needs_rewrite() const {
  return notices_->poisoned_from().has_value() || salvaged_
         || state_->drop_epoch() != root_.drop_epoch;
}

result<held_lock> file_store::enter_writer() {
  CALLBOARD_TRY(check_writable());
  {
    CALLBOARD_TRY_ASSIGN(auto writer, lock(store_lock::writer));
    CALLBOARD_TRY(catch_up());
    if (!needs_rewrite())
      return writer;
  }
  CALLBOARD_TRY_ASSIGN(
      auto checkpointer,
      held_lock::acquire(door_, *home_, store_lock::checkpoint,
                         lock_mode::exclusive,
                         std::min<std::chrono::milliseconds>(
                             options_.lock_timeout, rewrite_lock_timeout)));
  CALLBOARD_TRY_ASSIGN(auto writer, lock(store_lock::writer));
  CALLBOARD_TRY(catch_up());
  if (needs_rewrite()) {
    CALLBOARD_TRY(rewrite());
  }
  return writer;
}

result<commit_outcome>
file_store::commit(std::span<const commit_operation> operations,
                   std::optional<std::uint64_t> expected_generation) {
  if (operations.size() > commit_operations_max)
    return failure{errc::too_large,
                   "a commit of " + std::to_string(operations.size())
                       + " changes; at most "
                       + std::to_string(commit_operations_max)};
  for (const auto& operation : operations)
    CALLBOARD_TRY(check_operation(operation, options_.dimension));
  CALLBOARD_TRY_ASSIGN(auto writer, enter_writer()); // W1, W2
  if (expected_generation && *expected_generation != state_->sequence())
    return failure{errc::conflict, "expected generation "
                                       + std::to_string(*expected_generation)
                                       + ", but the store is at "
                                       + std::to_string(state_->sequence())};
  CALLBOARD_TRY_ASSIGN(const auto overtaken, settled_by_others(operations));
  commit_outcome out;
  std::vector<std::byte> payload;
  for (const auto& operation : operations) {
    // W0: what was asked for before a drop must not come back after it.
    if (operation.drop_epoch < state_->drop_epoch()
        || overtaken.contains(&operation)) {
      ++out.discarded;
      continue;
    }
    encode_operation(operation, payload);
    ++out.committed;
  }
  if (payload.size() > commit_bytes_max)
    return failure{errc::too_large,
                   "a commit of " + std::to_string(payload.size())
                       + " bytes; at most " + std::to_string(commit_bytes_max)};
  if (state_->row_count() + out.committed > row_count_max)
    return failure{errc::too_large,
                   "the store is full: " + std::to_string(row_count_max)
                       + " rows at most"};
  if (out.committed > 0) {
    auto count = static_cast<std::uint32_t>(out.committed);
    CALLBOARD_TRY(append_frame(frame_type::commit, count, std::move(payload)));
  }
  if (out.committed > 0)
    if (auto struck = strike_out(operations, overtaken); !struck)
      options_.log->warn("{}", struck.error().message); // it is committed
  out.view = view_;
  out.generation = view_->generation();
  return out;
}

/// W3 to W6: the frame is durable, applied and announced.
result<void> file_store::append_frame(frame_type type,
                                      std::uint32_t operation_count,
                                      std::vector<std::byte> payload) {
  CALLBOARD_TRY(write_frame(type, operation_count, payload));
  frame transaction;
  transaction.type = type;
  transaction.sequence = log_->sequence();
  transaction.fence = fence_;
  transaction.operation_count = operation_count;
  transaction.payload = std::move(payload);
  durable_ = transaction.sequence;
  notices_->announce(durable_); // first: others wait for it
  CALLBOARD_TRY(state_->apply(transaction));
  events_.record(transaction, options_.dimension);
  update_view();
  return {};
}

/// W3, W4. On an error the log is as before, as far as that can be had.
result<void> file_store::write_frame(frame_type type,
                                     std::uint32_t operation_count,
                                     std::span<const std::byte> payload) {
  auto before = log_->where();
  auto written = log_->append(type, fence_, operation_count, payload);
  if (written)
    written = sync_log(); // W4, the commit point
  if (!written) {
    log_->rewind(before);
    // If it cannot be cut: the next writer cuts a torn frame, but must not
    // believe a whole one.
    if (!log_->cut(before.offset) && broken_)
      notices_->poison(before.sequence + 1);
  }
  return written;
}

// -- questions ----------------------------------------------------------------

store_stats file_store::stats() const {
  store_stats out;
  // A refresh that failed half way has left a state beyond the view.
  out.generation = view_->generation();
  out.base_epoch = root_.base.epoch;
  out.base_generation = root_.base_sequence;
  out.drop_epoch = view_->drop_epoch();
  out.dimension = root_.base.dimension;
  out.model = root_.model;
  out.live_rows = view_->live_count();
  out.hole_rows = view_->row_count() - view_->live_count();
  out.base_bytes = root_.base.index_bytes + root_.base.meta_bytes;
  out.log_bytes = sealed_log_bytes_ + log_->offset();
  out.delta_bytes = state_->delta_rows().memory_bytes();
  return out;
}

result<void> file_store::verify() {
  for (int attempt = 0;; ++attempt) {
    CALLBOARD_TRY(refresh());
    auto verified = verify_once();
    // A checkpoint in another process replaces what is being read.
    if (verified || !manifest_replaced() || attempt == load_attempts_max)
      return verified;
  }
}

result<void> file_store::verify_once() {
  CALLBOARD_TRY(state_->base_rows()->verify());
  auto sealed = sealed_log_bytes_;
  auto position = std::move(log_);
  applied_state again{state_->base_rows(), root_.base_sequence,
                      root_.drop_epoch};
  auto replayed = replay(again, root_, state_->sequence());
  log_ = std::move(position);
  sealed_log_bytes_ = sealed;
  CALLBOARD_TRY(std::move(replayed));
  if (again.sequence() < state_->sequence())
    return inconsistent(path_of(log_->name()),
                        "commits that were read before are not there any more");
  CALLBOARD_TRY_ASSIGN(auto published, pair_->examine(root_));
  if (published == published_pair::state::foreign
      || published == published_pair::state::half_foreign)
    return failure{errc::conflict,
                   outside_->path() + "/"
                       + published_index_name(options_.namespace_name)
                       + ": written by somebody else since the last "
                         "checkpoint; open the store again to take it over"};
  return {};
}

} // namespace callboard
