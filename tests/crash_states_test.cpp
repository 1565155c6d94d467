#include "core/bytes.hpp"
#include "core/manifest.hpp"
#include "simulation/machine.hpp"
#include "simulation/random_source.hpp"
#include "tests/support/store_script.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

/// Every operation of the reference script is a point where processes die or
/// the power fails, under each model of what is lost then.
///
///   CALLBOARD_CRASH_STATES  how many states to check, about (20,000 if not
///                           set); with fewer, not every sync fails once
///   --rng-seed              which ones; printed, so that a run can be repeated

using namespace callboard;
using namespace callboard::test;
using simulation::loss_model;
using simulation::machine;
using simulation::moment;

namespace {

/// A row of the table of crash points in docs/design.md.
namespace crash_row {
const std::string creation_before = "creation, before MANIFEST is renamed";
const std::string creation_after = "creation, after";
const std::string w1_w2 = "W1, W2";
const std::string w3_part = "W3, in part";
const std::string w3_killed = "W3, whole, killed";
const std::string w3_power = "W3, whole, power cut";
const std::string w4 = "W4";
const std::string w5 = "W5";
const std::string w4_fails = "W4 fails";
const std::string k1 = "K1";
const std::string k2 = "K2";
const std::string k3 = "K3";
const std::string k4 = "K4";
const std::string k5_k6 = "K5, K6";
const std::string k7_k8 = "K7, K8";
const std::string k9 = "K9, in part";
const std::string drop_frame = "DROP frame";
const std::string relocate = "relocate, between K6 and K8";
const std::string recovery = "recovery itself";
const std::vector<std::string> all = {creation_before,
                                      creation_after,
                                      w1_w2,
                                      w3_part,
                                      w3_killed,
                                      w3_power,
                                      w4,
                                      w5,
                                      w4_fails,
                                      k1,
                                      k2,
                                      k3,
                                      k4,
                                      k5_k6,
                                      k7_k8,
                                      k9,
                                      drop_frame,
                                      relocate,
                                      recovery};
} // namespace crash_row

/// What opening had to do.
namespace recovery_rule {
const std::string creates = "creates the store";
const std::string takes_over_first = "takes over a pair as a new store";
const std::string takes_over = "takes over a pair";
const std::string replays_logs = "replays several logs";
const std::string cuts = "cuts a torn tail";
const std::string keeps = "keeps a commit that nobody answered";
const std::string publishes = "publishes";
const std::string rewrites = "writes fresh files";
const std::vector<std::string> all = {
    creates, takes_over_first, takes_over, replays_logs, cuts,
    keeps,   publishes,        rewrites};
} // namespace recovery_rule

using counts = std::map<std::string, std::size_t>;

std::string missing_from(const counts& found,
                         const std::vector<std::string>& wanted) {
  std::string out;
  for (const auto& each : wanted)
    if (!found.contains(each))
      out += "[" + each + "] ";
  return out;
}

bool is_in_private(const simulation::operation& what, std::string_view prefix) {
  return what.directory.ends_with(".callboard")
         && what.name.starts_with(prefix);
}

/// Follows the steps of a store's calls by what they do to files, and tells
/// which row of the table a crash now belongs to.
class step_tracker {
public:
  explicit step_tracker(const store_script& script) : script_(&script) {}

  /// `what` has been done.
  void note(const simulation::operation& what, bool index_exists) {
    using k = simulation::operation_kind;
    start_over_if_new();
    if (what.kind == k::rename && what.target_name == "MANIFEST") {
      if (++roots_ == 3)
        roots_ = 1;
      is_base_begun_ = false;
      published_ = removed_ = 0;
    } else if (what.kind == k::rename) {
      const bool is_meta = what.target_name.ends_with(".meta.json");
      moved_meta_first_ = ++published_ == 1 && is_meta && index_exists;
    } else if (what.kind == k::remove && is_in_private(what, "")) {
      ++removed_;
    } else if (what.kind == k::create_file && is_in_private(what, "base-")) {
      is_base_begun_ = true;
    } else if (is_in_private(what, "log-")) {
      is_log_made_ |= what.kind == k::create_file;
      is_frame_written_ |= what.kind == k::append;
      is_frame_durable_ |= is_frame_written_ && what.kind == k::sync_data;
    } else if (what.kind == k::announce) {
      is_announced_ = is_frame_durable_;
    }
  }

  std::string row(const machine& now, moment when,
                  const simulation::operation& next) {
    start_over_if_new();
    switch (phase_) {
    case phase::open:
      return now.status(simulated_private_path("MANIFEST"))
                 ? crash_row::creation_after
                 : crash_row::creation_before;
    case phase::commit:
      return row_of_commit(when, next);
    case phase::drop:
      return is_frame_durable_ && roots_ == 0 ? crash_row::drop_frame : "";
    case phase::checkpoint:
      return row_of_checkpoint();
    case phase::other:
      break;
    }
    return "";
  }

private:
  void start_over_if_new() {
    if (calls_ == script_->call_count())
      return;
    *this = step_tracker(*script_);
    phase_ = script_->at();
    calls_ = script_->call_count();
  }

  std::string row_of_commit(moment when,
                            const simulation::operation& next) const {
    if (next.kind == simulation::operation_kind::append && when == moment::half)
      return crash_row::w3_part;
    if (is_announced_)
      return crash_row::w5;
    if (is_frame_durable_)
      return crash_row::w4;
    return is_frame_written_ ? crash_row::w3_killed : crash_row::w1_w2;
  }

  std::string row_of_checkpoint() const {
    if (roots_ == 0)
      return is_log_made_ ? crash_row::k1 : "";
    if (roots_ == 1 && published_ == 0 && removed_ == 0)
      return is_base_begun_ ? crash_row::k3 : crash_row::k2;
    if (removed_ > 0)
      return crash_row::k9;
    if (published_ == 0)
      return crash_row::k4;
    if (published_ == 1)
      return moved_meta_first_ ? crash_row::relocate : crash_row::k5_k6;
    return crash_row::k7_k8;
  }

  const store_script* script_;
  phase phase_ = phase::open;
  std::size_t calls_ = 0;
  int roots_ = 0;
  int published_ = 0;
  int removed_ = 0;
  bool moved_meta_first_ = false;
  bool is_base_begun_ = false;
  bool is_log_made_ = false;
  bool is_frame_written_ = false;
  bool is_frame_durable_ = false;
  bool is_announced_ = false;
};

/// A moment at which everything may stop.
struct crash_point {
  machine computer;
  knowledge known;
  std::string row;
  std::string where;
  /// A sync has failed, and who knows of it has not said so yet: dies he now,
  /// nobody can know that the pages that look clean are not on the disk.
  bool hides_failed_sync = false;
};

/// Runs the script and keeps its crash points.
class rehearsal {
public:
  rehearsal(std::uint64_t seed, script_options options)
      : computer_(seed), script_(computer_, options), steps_(script_) {}

  machine& computer() { return computer_; }
  store_script& script() { return script_; }
  std::vector<crash_point>& points() { return points_; }

  /// Keeps points only while this says so.
  std::function<bool()> wanted = [] { return true; };
  std::function<bool()> hides_failed_sync = [] { return false; };

  void run() {
    script_.on_moment = [this](moment when, const simulation::operation& what) {
      note(when, what);
    };
    script_.run();
    script_.on_moment = {};
    keep("", "at the end");
  }

private:
  void note(moment when, const simulation::operation& what) {
    if (!simulation::is_mutation(what.kind))
      return;
    if (when == moment::after) {
      steps_.note(what, computer_
                            .status(std::string(simulated_place)
                                    + "/faiss_index_chunks.index")
                            .has_value());
      if (what.kind != simulation::operation_kind::announce)
        return; // as before the next one
    }
    static constexpr std::string_view names[] = {"before ", "half of ",
                                                 "after "};
    if (wanted())
      keep(steps_.row(computer_, when, what),
           std::string(names[static_cast<int>(when)]) + to_string(what));
  }

  void keep(std::string row, std::string where) {
    points_.push_back({computer_.clone(0), script_.known(), std::move(row),
                       std::move(where), hides_failed_sync()});
  }

  machine computer_;
  store_script script_;
  step_tracker steps_;
  std::vector<crash_point> points_;
};

/// What a run has seen.
struct tally {
  std::size_t states = 0;
  std::set<std::uint64_t> disks;
  counts rows;
  counts rules;
};

std::string text_of(const versions& rows) {
  std::string out;
  for (const auto& [id, version] : rows)
    out += id + '=' + std::to_string(version) + ' ';
  return out;
}

/// How many logs MANIFEST names.
std::size_t log_count(const machine& computer) {
  const auto path = simulated_private_path("MANIFEST");
  const auto bytes = computer.read_file(path);
  if (!bytes)
    return 0;
  const auto root = decode_manifest(as_bytes(*bytes), path);
  return root ? root->logs.size() : 0;
}

std::optional<file_identity> published_identity(const machine& computer) {
  const auto found = computer.status(std::string(simulated_place)
                                     + "/faiss_index_chunks.index");
  return found ? std::optional(found->identity) : std::nullopt;
}

/// One way in which everything stopped, and what comes of it.
class aftermath {
public:
  aftermath(const crash_point& point, loss_model model, std::uint64_t seed,
            tally& seen)
      : point_(point),
        model_(model),
        random_(seed),
        computer_(point.computer.clone(random_.bits())),
        seen_(seen) {}

  void check() {
    computer_.lose_power(model_);
    ++seen_.states;
    seen_.disks.insert(computer_.disk_fingerprint());
    note_row();
    check_published(strictness::between_steps);
    if (random_.one_in(3))
      crash_in_recovery();
    const auto found = recover();
    // What was shown is durable, whoever had written it.
    if ((has_lost_power() || !point_.hides_failed_sync) && random_.one_in(2))
      computer_.lose_power(random_.one_in(2) ? loss_model::ordered
                                             : loss_model::weakest);
    go_on(found);
  }

private:
  bool has_lost_power() const { return model_ != loss_model::kill; }

  void note_row() {
    if (point_.row == crash_row::w3_killed && has_lost_power())
      ++seen_.rows[crash_row::w3_power];
    else if (!point_.row.empty())
      ++seen_.rows[point_.row];
    if (!point_.known.refused.empty())
      ++seen_.rows[crash_row::w4_fails];
  }

  void check_published(strictness how) {
    if (point_.known.is_published_pair_torn)
      return;
    const auto shown = read_published(computer_, how).rows;
    const auto is_allowed =
        point_.known.allows_published(shown) || is_state_once_recovered(shown);
    INFO("published: " << text_of(shown));
    REQUIRE(is_allowed);
  }

  /// Recovery publishes what it had to write to fresh files.
  bool is_state_once_recovered(const versions& shown) const {
    return has_recovered_ && point_.known.allows(shown, has_lost_power());
  }

  std::unique_ptr<store> open(simulation::process& self) {
    auto opened = store::open(self.door(), self.board(), simulated_options());
    return need(std::move(opened));
  }

  void crash_in_recovery() {
    ++seen_.rows[crash_row::recovery];
    has_recovered_ = true;
    for (auto rounds = 1 + random_.below(2); rounds > 0; --rounds) {
      auto self = computer_.start_process();
      auto left = random_.below(rounds == 1 ? 120 : 40);
      const auto when = static_cast<moment>(random_.below(3));
      computer_.on_fault([&](const simulation::operation& what) {
        if (!simulation::is_mutation(what.kind) || left-- != 0)
          return simulation::fault::none();
        return has_lost_power() ? simulation::fault::lose_power(when, model_)
                                : simulation::fault::kill(when);
      });
      (void)store::open(self->door(), self->board(), simulated_options());
      computer_.on_fault({});
      self->kill();
      check_published(strictness::between_steps);
    }
  }

  versions recover() {
    const auto published_before = published_identity(computer_);
    const auto root_before =
        computer_.read_file(simulated_private_path("MANIFEST"));
    const auto logs = log_count(computer_);
    auto self = computer_.start_process();
    const auto handle = open(*self);
    has_recovered_ = true;
    const auto found = contents(*handle);
    INFO("found: " << text_of(found)
                   << "; acknowledged: " << text_of(point_.known.acknowledged));
    REQUIRE(point_.known.allows(found, has_lost_power()));
    REQUIRE(handle->view()->generation() >= point_.known.generation);
    REQUIRE(computer_.lock_count() == 0);
    check_published(strictness::complete);
    need(handle->verify());

    const auto& report = handle->report();
    auto& rules = seen_.rules;
    rules[recovery_rule::creates] += report.created;
    rules[recovery_rule::takes_over_first] += report.imported && !root_before;
    rules[recovery_rule::takes_over] += report.imported && root_before;
    rules[recovery_rule::cuts] += report.cut_bytes > 0;
    rules[recovery_rule::replays_logs] += logs > 1;
    rules[recovery_rule::keeps] +=
        point_.row.starts_with("W") && found != point_.known.acknowledged;
    rules[recovery_rule::publishes] +=
        root_before && published_before != published_identity(computer_);
    rules[recovery_rule::rewrites] +=
        root_before
        && computer_.read_file(simulated_private_path("MANIFEST"))
               != root_before;
    return found;
  }

  /// The store is as good as new.
  void go_on(const versions& found) {
    const auto more = changed(found, {{"more", 1}});
    {
      auto self = computer_.start_process();
      const auto handle = open(*self);
      REQUIRE(contents(*handle) == found);
      put(*handle, {{"more", 1}});
    }
    computer_.lose_power(model_);
    auto self = computer_.start_process();
    const auto handle = open(*self);
    REQUIRE(contents(*handle) == more);
    need(handle->checkpoint(compaction::none));
    REQUIRE(read_published(computer_, strictness::complete).rows == more);
    need(handle->verify());
  }

  const crash_point& point_;
  loss_model model_;
  simulation::random_source random_;
  machine computer_;
  tally& seen_;
  bool has_recovered_ = false;
};

constexpr std::size_t wanted_by_default = 20'000;

std::size_t wanted_states() {
  const char* said = std::getenv("CALLBOARD_CRASH_STATES");
  return said != nullptr ? std::strtoull(said, nullptr, 10) : wanted_by_default;
}

std::string_view name_of(loss_model model) {
  static constexpr std::string_view names[] = {"kill", "ordered", "weakest"};
  return names[static_cast<int>(model)];
}

void check_point(const crash_point& point, std::uint64_t seed, tally& seen) {
  const bool can_differ = point.computer.unsynced_count() > 0;
  const std::pair<loss_model, int> ways[] = {
      {loss_model::kill, 1},
      {loss_model::ordered, can_differ ? 2 : 1},
      {loss_model::weakest, can_differ ? 4 : 1}};
  simulation::random_source random(seed);
  for (const auto& [model, times] : ways)
    for (int i = 0; i < times; ++i) {
      INFO("crash " << point.where << ", row \"" << point.row << "\", model "
                    << name_of(model) << ", state " << seen.states);
      aftermath(point, model, random.bits(), seen).check();
    }
}

script_options options_of_round(std::uint64_t round) {
  script_options out;
  out.starts_with_foreign_pair = round % 2 == 1;
  out.is_second_on_board = round % 3 != 2;
  out.first_rows = 6 + static_cast<int>(round % 5);
  out.reader_rate = 2 + round % 4;
  return out;
}

void check_rehearsal(std::uint64_t seed, std::uint64_t round, tally& seen) {
  rehearsal all(seed, options_of_round(round));
  all.run();
  REQUIRE(all.script().failure_count() == 0);
  for (std::size_t i = 0; i < all.points().size(); ++i)
    check_point(all.points()[i], seed + i, seen);
}

enum class failing : std::uint8_t {
  any_sync,
  /// The sync of a commit, and the cut that should undo it.
  commit_and_cut,
};

bool is_sync(simulation::operation_kind kind) {
  using k = simulation::operation_kind;
  return kind == k::sync || kind == k::sync_data || kind == k::sync_directory;
}

/// The sync that comes after `nth` others fails; the script goes on, and then
/// everything stops. False: there is no such sync.
bool check_failed_sync(std::uint64_t seed, std::uint64_t round, std::size_t nth,
                       failing how, tally& seen) {
  using k = simulation::operation_kind;
  auto options = options_of_round(round);
  // Only the board keeps others from believing what a sync has not written.
  options.is_second_on_board = true;
  rehearsal some(seed, options);
  std::size_t syncs = 0;
  bool has_failed = false;
  std::size_t failed_call = 0;
  bool fails_cut = how == failing::commit_and_cut;
  std::string what_failed;
  some.computer().on_fault([&](const simulation::operation& what) {
    if (has_failed && what.kind == k::truncate
        && std::exchange(fails_cut, false))
      return simulation::fault::fail(errc::io_failure);
    const bool is_meant = how == failing::any_sync ? is_sync(what.kind)
                                                   : what.kind == k::sync_data;
    if (!is_meant || syncs++ != nth)
      return simulation::fault::none();
    has_failed = true;
    failed_call = some.script().call_count();
    what_failed = to_string(what);
    return simulation::fault::fail(errc::io_failure);
  });
  some.hides_failed_sync = [&] {
    return has_failed && some.script().call_count() == failed_call;
  };
  // The next ones, and some of those much later.
  std::size_t moments = 0;
  some.wanted = [&] {
    if (!has_failed)
      return false;
    ++moments;
    return moments <= 20 || moments % 61 == 0;
  };
  {
    INFO("failed sync " << nth << ": " << what_failed);
    some.run();
  }
  if (!has_failed)
    return false;
  for (std::size_t i = 0; i < some.points().size(); ++i) {
    INFO("failed sync " << nth << ": " << what_failed);
    check_point(some.points()[i], seed + 31 * nth + i, seen);
  }
  return true;
}

void print(const tally& seen, std::uint64_t seed) {
  std::cout << "crash states: " << seen.states << " (" << seen.disks.size()
            << " different disks), seed " << seed << '\n';
  for (const auto& [row, count] : seen.rows)
    std::cout << "  " << row << ": " << count << '\n';
  for (const auto& [rule, count] : seen.rules)
    std::cout << "  recovery " << rule << ": " << count << '\n';
}

} // namespace

TEST_CASE("Whatever a crash leaves is a store with all that was acknowledged",
          "[crash]") {
  const auto wanted = wanted_states();
  const std::uint64_t seed = Catch::rngSeed();
  CAPTURE(seed);
  tally seen;
  for (std::uint64_t round = 0; seen.states < wanted * 2 / 5; ++round) {
    CAPTURE(round);
    check_rehearsal(seed * 1'000'003 + round, round, seen);
  }
  const std::size_t stride = wanted < wanted_by_default ? 5 : 1;
  for (std::uint64_t round = 0; round == 0 || seen.states < wanted; ++round) {
    CAPTURE(round);
    for (const auto how : {failing::any_sync, failing::commit_and_cut})
      for (std::size_t nth = 0;; nth += stride)
        if (!check_failed_sync(seed * 1'000'003 + round, round, nth, how, seen))
          break;
  }
  print(seen, seed);
  CHECK(seen.states >= wanted);
  if (wanted < wanted_by_default)
    return; // too few to come everywhere
  CHECK(missing_from(seen.rows, crash_row::all) == "");
  counts reached = seen.rules;
  std::erase_if(reached, [](const auto& each) { return each.second == 0; });
  CHECK(missing_from(reached, recovery_rule::all) == "");
}

TEST_CASE("A script with the same seed does the same, operation by operation",
          "[crash]") {
  const auto hash_of = [](std::uint64_t seed) {
    rehearsal run(seed, options_of_round(1));
    run.run();
    return std::pair(run.computer().event_hash(),
                     run.computer().disk_fingerprint());
  };
  CHECK(hash_of(3) == hash_of(3));
  CHECK(hash_of(3) != hash_of(4));
}

// -- What no crash leaves -----------------------------------------------------

namespace {

/// A machine with a store in its place, and nobody at work.
struct quiet_store {
  quiet_store() : computer(1) {
    self = computer.start_process();
    const auto handle =
        need(store::open(self->door(), self->board(), simulated_options()));
    put(*handle, base);
    need(handle->checkpoint(compaction::none));
    put(*handle, {{"b", 1}});
    put(*handle, {{"c", 1}});
    for (const auto& name : computer.list(simulated_private_path("")))
      if (name.starts_with("log-"))
        log = simulated_private_path(name);
    computer.lose_power(loss_model::weakest);
  }

  result<std::unique_ptr<store>> open(bool salvage = false) {
    self = computer.start_process();
    auto options = simulated_options();
    options.salvage = salvage;
    return store::open(self->door(), self->board(), options);
  }

  void flip_bit(const std::string& path, std::size_t byte) {
    computer.write_file(path,
                        with_flipped_bit(*computer.read_file(path), byte * 8));
  }

  const versions base = many("a", 3);
  const versions whole = changed(base, {{"b", 1}, {"c", 1}});
  machine computer;
  std::unique_ptr<simulation::process> self;
  std::string log;
};

} // namespace

TEST_CASE("A damaged or missing MANIFEST is refused, and nothing is changed",
          "[crash]") {
  quiet_store place;
  const auto root = simulated_private_path("MANIFEST");
  SECTION("damaged") {
    place.flip_bit(root, 40);
  }
  SECTION("missing, while a log has commits") {
    place.computer.remove_file(root);
  }
  const auto before = place.computer.disk_fingerprint();
  CHECK(failure_of(place.open()).code == errc::corrupt);
  CHECK(place.computer.list(simulated_private_path("")).size() > 3);
  place.computer.lose_power(loss_model::kill);
  CHECK(place.computer.disk_fingerprint() == before);
}

TEST_CASE("A damaged log is refused, or salvaged if that is asked for",
          "[crash]") {
  quiet_store place;
  place.flip_bit(place.log, 64 + 70);
  CHECK(failure_of(place.open()).code == errc::corrupt);
  auto salvaged = need(place.open(true));
  CHECK(contents(*salvaged) == place.base);
  salvaged.reset();
  CHECK(contents(*need(place.open())) == place.base);
}

TEST_CASE("A catalog that is missing is made again", "[crash]") {
  quiet_store place;
  std::string catalog;
  for (const auto& name : place.computer.list(simulated_private_path("")))
    if (name.ends_with(".catalog"))
      catalog = simulated_private_path(name);
  place.computer.remove_file(catalog);
  CHECK(contents(*need(place.open())) == place.whole);
  CHECK(place.computer.read_file(catalog).has_value());
}
