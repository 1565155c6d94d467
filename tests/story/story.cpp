#include "tests/story/story.hpp"

#include "core/store.hpp"
#include "simulation/simulated_embedder.hpp"
#include "simulation/world.hpp"

#include <algorithm>
#include <cmath>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <set>
#include <stdexcept>
#include <vector>

namespace callboard::test {

using namespace simulation;
using namespace std::chrono_literals;

namespace {

constexpr std::size_t dimension = 4;
constexpr std::size_t id_count = 8;
constexpr int first_version = 1;
constexpr int absent = 0;

using rows = std::map<std::string, int>;

struct violation : std::runtime_error {
  using std::runtime_error::runtime_error;
};

void require(bool held, const std::string& promise) {
  if (!held)
    throw violation(promise);
}

std::string content_of(const std::string& id, int version) {
  return id + " " + std::to_string(version);
}

int version_in(std::string_view record) {
  const std::string_view key = "\"content\"";
  const auto at = record.find(key);
  require(at != std::string_view::npos, "every record is one that was given");
  const auto space = record.find(' ', record.find(':', at) + 3);
  return std::stoi(std::string(record.substr(space + 1)));
}

int version_of(const rows& state, const std::string& id) {
  const auto found = state.find(id);
  return found == state.end() ? absent : found->second;
}

/// A change that a handle was asked for.
struct change {
  std::string id;
  int version = absent;
  std::uint64_t sent = 0;
  std::optional<std::uint64_t> acknowledged;
  /// A removal of what may not have been there: that leaves no trace.
  bool may_be_void = false;
};

/// A commit, or a drop, of a handle.
struct turning_point {
  enum class kind { commit, finalize, drop };
  kind what = kind::commit;
  std::uint64_t sent = 0;
  /// How many changes were sent before.
  std::size_t changes = 0;
  std::optional<std::uint64_t> over;
  bool succeeded = false;
};

/// What a read shows at least: `own`, what the handle has shown before, and,
/// if no job of the handle comes in the way, all that is acknowledged.
struct read_floor {
  std::uint64_t own = 0;
  std::uint64_t at_rest = 0;
  std::size_t jobs_started = 0;
};

struct request {
  std::string name;
  std::function<bool()> is_over;
  std::function<void()> check;
};

struct user;

struct handle {
  user* owner = nullptr;
  std::optional<remote_store> writer;
  std::optional<remote_store> reader;
  std::vector<change> changes;
  std::vector<turning_point> points;
  /// Changes below this may have been discarded or rejected.
  std::size_t loose_until = 0;
  /// The handle has shown this generation.
  std::uint64_t floor = 0;
  std::size_t jobs_under_way = 0;
  std::size_t jobs_started = 0;
  struct watch {
    std::uint64_t number = 0;
    std::uint64_t last = 0;
    bool waits = false;
  };
  std::optional<watch> watched;
  bool is_starting_watch = false;
};

struct user {
  actor_process* process = nullptr;
  std::shared_ptr<simulated_embedder> model;
  std::vector<handle*> handles;
};

struct generation_record {
  /// Empty: not seen.
  std::optional<rows> state;
  std::optional<commit_event> event;
  std::uint64_t step = 0;
};

/// What a seed decides about its story.
struct plot {
  explicit plot(random_source& random) {
    const std::uint64_t rates[] = {0, 0, 600, 150};
    io_fault_rate = rates[random.below(4)];
    const std::uint64_t death_rates[] = {0, 0, 1500, 400};
    kill_rate = death_rates[random.below(4)];
    power_rate = death_rates[random.below(4)] * 2;
    embedding_fault_rate = random.one_in(3) ? 8 : 0;
    may_reject_texts = random.one_in(4);
    is_board_lossy = random.one_in(8);
    has_automatic_checkpoints = random.one_in(3);
    processes = 2 + random.below(2);
    turns = 30 + random.below(60);
    top_k = 2 + random.below(8);
    patience = 1 + random.below(40);
  }
  std::uint64_t io_fault_rate = 0;
  std::uint64_t kill_rate = 0;
  std::uint64_t power_rate = 0;
  std::uint64_t embedding_fault_rate = 0;
  bool may_reject_texts = false;
  /// Processes may not hear of commits.
  bool is_board_lossy = false;
  bool has_automatic_checkpoints = false;
  std::size_t processes = 2;
  std::size_t turns = 0;
  std::size_t top_k = 5;
  std::uint64_t patience = 0;

  bool is_calm() const {
    return io_fault_rate == 0 && kill_rate == 0 && power_rate == 0;
  }
};

class story {
public:
  story(std::uint64_t seed, story_totals& totals, std::size_t trace_steps)
      : totals_(totals),
        world_(seed, {.interleaving_rate = seed % 3 == 0 ? 0U : 20U}),
        random_(world_.random()),
        fault_random_(random_.bits()),
        plot_(random_) {
    if (trace_steps > 0)
      world_.keep_trace(trace_steps);
    world_.computer().on_fault(
        [this](const operation& what) { return fault_for(what); });
    world_.after_step([this] {
      observe();
      settle();
    });
  }

  story(const story&) = delete;
  story& operator=(const story&) = delete;
  /// Models still ask the story what goes wrong.
  ~story() { world_.lose_power(loss_model::kill); }

  void tell() {
    for (std::size_t i = 0; i < plot_.processes; ++i)
      users_.emplace_back();
    for (auto& each : users_)
      start(each);
    for (std::size_t turn = 0; turn < plot_.turns; ++turn) {
      take_turn();
      ask_for_events();
      const auto steps = random_.below(plot_.patience + 1);
      for (std::uint64_t i = 0; i < steps; ++i)
        world_.step();
    }
    finish();
  }

  world& stage() { return world_; }

private:
  // -- Faults -----------------------------------------------------------------

  fault fault_for(const operation& what) {
    using kind = operation_kind;
    if (!faults_ || what.process == observer_number_)
      return fault::none();
    auto once_in = [&](std::uint64_t rate) {
      return rate > 0 && fault_random_.one_in(rate);
    };
    const auto when = static_cast<moment>(fault_random_.below(3));
    if (what.index >= safe_until_ && once_in(plot_.kill_rate)) {
      ++totals_.kills;
      return fault::kill(when);
    }
    if (what.index >= safe_until_ && once_in(plot_.power_rate)) {
      ++totals_.power_losses;
      power_failed_ = true;
      return fault::lose_power(when, fault_random_.one_in(2)
                                         ? loss_model::weakest
                                         : loss_model::ordered);
    }
    if (!once_in(plot_.io_fault_rate))
      return fault::none();
    switch (what.kind) {
    case kind::announce:
      return plot_.is_board_lossy ? count(fault::fail(errc::io_failure))
                                  : fault::none();
    case kind::poison:
    case kind::clear_poison:
    case kind::pause:
    case kind::unlock:
    case kind::close:
    case kind::status:
    case kind::list:
      return fault::none();
    case kind::append:
    case kind::write_at:
      return count(fault_random_.one_in(2)
                       ? fault::fail(errc::no_space)
                       : fault::cut_short(static_cast<std::size_t>(
                           fault_random_.below(what.size_bytes + 1))));
    case kind::sync:
    case kind::sync_data:
      // A process that dies between a failed sync and the poison leaves what
      // the engine cannot know of: see docs/design.md, "Commit".
      safe_until_ = what.index + 50;
      ++totals_.failed_syncs;
      return count(fault::fail(errc::io_failure));
    case kind::lock:
      return count(fault::fail(errc::busy));
    default:
      return count(fault::fail(errc::io_failure));
    }
  }

  fault count(fault out) {
    ++totals_.io_faults;
    return out;
  }

  embedding_fault embedding_fault_now() {
    if (!faults_ || plot_.embedding_fault_rate == 0
        || !fault_random_.one_in(plot_.embedding_fault_rate))
      return embedding_fault::none;
    ++totals_.embedding_faults;
    const embedding_fault kinds[] = {
        embedding_fault::failure, embedding_fault::rate_limit,
        embedding_fault::wrong_count, embedding_fault::wrong_dimension,
        embedding_fault::throws};
    // A text whose vector cannot be is rejected, too.
    if (plot_.may_reject_texts && fault_random_.one_in(2))
      return fault_random_.one_in(2) ? embedding_fault::rejected_text
                                     : embedding_fault::not_a_number;
    return kinds[fault_random_.below(std::size(kinds))];
  }

  // -- Processes --------------------------------------------------------------

  void start(user& who) {
    for (auto* each : who.handles)
      each->owner = nullptr;
    who.handles.clear();
    process_options how;
    how.has_board = !(plot_.is_board_lossy && random_.one_in(3));
    who.process = &world_.start_process(how);
    simulated_embedder_options model;
    model.concurrency = 1 + random_.below(2);
    model.batch_texts_max = 1 + random_.below(4);
    model.latency = std::chrono::milliseconds(random_.below(3) * 5);
    who.model =
        std::make_shared<simulated_embedder>(who.process->door(), model);
    who.model->on_batch([this] { return embedding_fault_now(); });
    open(who);
    if (random_.one_in(4))
      open(who);
  }

  void open(user& who) {
    if (!who.process->is_alive())
      return;
    auto opened =
        world_.open(*who.process,
                    {.working_directory = "/data",
                     .namespace_name = "rows",
                     .model = who.model,
                     .meta_fields = {"content"},
                     .threshold = -2,
                     .embedding_batch = 1 + random_.below(4),
                     .lock_timeout = 20ms,
                     .automatic_checkpoints = plot_.has_automatic_checkpoints});
    settle_power();
    if (!opened) {
      if (who.process->is_alive())
        check_error(opened.error(), "open");
      return;
    }
    handles_.emplace_back();
    auto& made = handles_.back();
    made.owner = &who;
    made.writer = *opened;
    made.reader = opened->another_sender();
    who.handles.push_back(&made);
    observe();
  }

  void check_error(const failure& error, const std::string& name) {
    ++totals_.failed_requests;
    auto code = error.code;
    auto is_expected = code == errc::busy || code == errc::conflict
                       || code == errc::embedding_failed
                       || code == errc::timed_out;
    if (!plot_.is_calm())
      is_expected = is_expected || code == errc::io_failure
                    || code == errc::no_space || code == errc::broken;
    require(is_expected, "only what went wrong is told: " + name + " says "
                             + std::string(to_string(code)) + ": "
                             + error.message);
  }

  // -- What is committed ------------------------------------------------------

  /// Looks at the store as one more process does, with a sound disk.
  void observe() {
    settle_power();
    if (!observer_) {
      if (std::none_of(handles_.begin(), handles_.end(), [](const auto& each) {
            return each.owner && each.owner->process->is_alive();
          }))
        return;
      observer_process_ = world_.computer().start_process();
      observer_number_ = observer_process_->number();
      auto opened =
          store::open(observer_process_->door(), observer_process_->board(),
                      {.working_directory = "/data",
                       .namespace_name = "rows",
                       .dimension = dimension,
                       .model = "simulated",
                       .lock_timeout = 0ms});
      if (!opened) {
        require(opened.error().code == errc::busy,
                "a store can be opened: " + opened.error().message);
        return;
      }
      observer_ = std::move(*opened);
      observer_->keep_events(observer_->view()->generation());
      found_again();
      return;
    }
    auto probe = observer_->probe();
    if (probe->changed(observer_->view()->generation())
        || (plot_.is_board_lossy && probe->look_at_files()))
      look();
  }

  void look() {
    auto view = observer_->refresh();
    require(bool(view), "a sound process can read the store: "
                            + (view ? "" : view.error().message));
    for (auto& each : observer_->take_events()) {
      const auto generation = each.generation;
      require(generation > latest_, "generations rise");
      if (each.what == commit_event::kind::overflow) {
        // There may have been a drop.
        last_drop_step_ = world_.step_count();
        while (latest_ < generation)
          history_[++latest_] = {{}, {}, world_.step_count()};
        continue;
      }
      require(generation == latest_ + 1, "generations have no gaps");
      latest_ = generation;
      auto& record = history_[generation];
      record = {};
      record.step = world_.step_count();
      record.event = std::move(each);
      if (record.event->what == commit_event::kind::drop)
        saw_drop(generation);
      if (generation != (*view)->generation())
        ++totals_.unseen_generations;
    }
    require((*view)->generation() == latest_, "every generation has an event");
    auto& record = history_[latest_];
    auto state = read(**view);
    if (record.state) {
      require(*record.state == state, "a generation never changes");
      return;
    }
    record.state = std::move(state);
    world_.remark("generation " + std::to_string(latest_) + ":"
                  + list_of(*record.state));
    check_generation(latest_);
  }

  static rows read(const snapshot& view) {
    rows out;
    for (std::size_t i = 0; i < id_count; ++i) {
      const std::string id(1, static_cast<char>('a' + i));
      if (auto row = view.find(id)) {
        auto record = view.record(*row);
        require(bool(record), "a live row can be read");
        out[id] = version_in(*record);
      }
    }
    require(out.size() == view.live_count(), "only given ids are there");
    return out;
  }

  void settle_power() {
    if (!std::exchange(power_failed_, false))
      return;
    observer_.reset();
    observer_process_.reset();
    observer_number_ = 0;
  }

  /// The store after the machine has started again.
  void found_again() {
    const auto& view = *observer_->view();
    const auto generation = view.generation();
    require(generation >= acknowledged_,
            "what was acknowledged survives: generation "
                + std::to_string(acknowledged_) + " was, "
                + std::to_string(generation) + " is left");
    auto state = read(view);
    auto known = history_.find(generation);
    if (generation == acknowledged_ && known != history_.end()
        && known->second.state)
      require(*known->second.state == state,
              "what was acknowledged survives unchanged");
    history_.erase(history_.upper_bound(acknowledged_), history_.end());
    std::erase_if(forbidden_, [&](const auto& each) {
      return each.second > acknowledged_;
    });
    // What came in between nobody has seen.
    for (auto unseen = acknowledged_ + 1; unseen < generation; ++unseen)
      history_[unseen].step = world_.step_count();
    latest_ = generation;
    auto& record = history_[generation];
    record.state = std::move(state);
    record.step = world_.step_count();
    check_forbidden(generation);
  }

  void saw_drop(std::uint64_t generation) {
    ++totals_.drops;
    last_drop_step_ = world_.step_count();
    std::optional<std::uint64_t> asked;
    for (auto& each : handles_)
      for (auto& point : each.points)
        if (point.what == turning_point::kind::drop && !point.over)
          asked = std::min(asked.value_or(point.sent), point.sent);
    if (!asked)
      return;
    for (auto& each : handles_)
      for (auto& made : each.changes)
        if (made.version != absent && made.acknowledged
            && *made.acknowledged <= *asked)
          forbidden_.emplace(made.version, generation);
  }

  void check_forbidden(std::uint64_t generation) {
    for (const auto& [id, version] : *history_[generation].state) {
      auto found = forbidden_.find(version);
      require(found == forbidden_.end() || found->second >= generation,
              "what was asked for before a drop does not come back: "
                  + content_of(id, version) + " in generation "
                  + std::to_string(generation));
    }
  }

  /// Whether the row had this version in a generation that was the newest one
  /// at `from_step` or later, up to generation `until`.
  bool was_seen(const std::string& id, int version, std::uint64_t from_step,
                std::uint64_t until) const {
    for (auto each = history_.begin();
         each != history_.end() && each->first <= until; ++each) {
      const auto next = std::next(each);
      if (next != history_.end() && next->second.step < from_step)
        continue;
      const auto& state = each->second.state;
      if (!state || version_of(*state, id) == version)
        return true;
    }
    return false;
  }

  void check_generation(std::uint64_t generation) {
    check_forbidden(generation);
    const auto& record = history_[generation];
    // Who does not hear of a drop in time may lose part of his changes to it.
    if (!record.event || plot_.may_reject_texts || plot_.is_board_lossy)
      return;
    // All or nothing: with one change of a handle came all before it.
    for (const auto& id : record.event->changed) {
      const auto version = version_of(*record.state, id);
      for (const auto& each : handles_) {
        auto at = std::find_if(
            each.changes.begin(), each.changes.end(), [&](const auto& made) {
              return version != absent && made.version == version;
            });
        if (at == each.changes.end())
          continue;
        std::map<std::string, const change*> last;
        for (auto made = each.changes.begin(); made != at; ++made)
          last[made->id] = &*made;
        for (const auto& [other, made] : last)
          require(other == id || made->may_be_void
                      || made->sent <= last_drop_step_
                      || static_cast<std::size_t>(made - each.changes.data())
                             < each.loose_until
                      || was_seen(other, made->version, made->sent, generation)
                      || was_overtaken(each, *made, *at),
                  "a commit is all or nothing: generation "
                      + std::to_string(generation) + " has "
                      + content_of(id, version) + " without "
                      + content_of(other, made->version));
      }
    }
  }

  /// A change that came later took the place of `made`, in the same commit.
  static bool was_overtaken(const handle& who, const change& made,
                            const change& until) {
    return std::any_of(
        who.changes.begin(), who.changes.end(), [&](const auto& each) {
          return &each > &made && each.id == made.id && &each != &until;
        });
  }

  // -- Turns ------------------------------------------------------------------

  std::string random_id() {
    return std::string(1, static_cast<char>('a' + random_.below(id_count)));
  }

  void take_turn() {
    settle_power();
    auto& who = users_[random_.below(users_.size())];
    if (!who.process->is_alive()) {
      start(who);
      return;
    }
    if (faults_ && plot_.kill_rate > 0 && random_.one_in(60)) {
      ++totals_.kills;
      world_.kill(*who.process);
      return;
    }
    if (faults_ && plot_.power_rate > 0 && random_.one_in(100)
        && world_.computer().operation_count() >= safe_until_) {
      ++totals_.power_losses;
      power_failed_ = true;
      world_.lose_power(random_.one_in(2) ? loss_model::weakest
                                          : loss_model::ordered);
      return;
    }
    if (random_.one_in(40))
      who.process->hang_embedder(true);
    else if (random_.one_in(4))
      who.process->hang_embedder(false);
    if (who.handles.empty()) {
      open(who);
      return;
    }
    act(*who.handles[random_.below(who.handles.size())]);
  }

  /// Which handle, for the trace.
  std::string by(const handle& at) const {
    const auto place = std::find_if(handles_.begin(), handles_.end(),
                                    [&](const auto& e) { return &e == &at; });
    return " by handle "
           + std::to_string(std::distance(handles_.begin(), place))
           + " of process " + std::to_string(at.writer->process().number());
  }

  static std::string list_of(const rows& state) {
    std::string out;
    for (const auto& [id, version] : state)
      out += " " + content_of(id, version);
    return out;
  }

  static std::string list_of(const std::vector<std::string>& ids) {
    std::string out;
    for (const auto& each : ids)
      out += " " + each;
    return out;
  }

  void ask_for_events() {
    for (auto& who : users_)
      for (auto* at : who.handles)
        if (who.process->is_alive() && at->watched && random_.one_in(3))
          watch(*at);
  }

  void act(handle& at) {
    switch (random_.below(20)) {
    case 0:
    case 1:
    case 2:
    case 3:
      return upsert(at);
    case 4:
    case 5:
      return remove(at);
    case 6:
    case 7:
    case 8:
    case 9:
      return commit(at, random_.one_in(4));
    case 10:
      return random_.one_in(2) ? finalize(at) : checkpoint(at);
    case 11:
      return random_.one_in(3) ? drop(at) : upsert(at);
    case 12:
    case 13:
    case 14:
      return get(at);
    case 15:
    case 16:
      return query(at);
    case 17:
    case 18:
      return watch(at);
    default:
      return await(at);
    }
  }

  template <class T, class Check>
  void expect(std::string name, awaited<T> answer, Check check) {
    const auto number = ++request_count_;
    ++totals_.requests;
    world_.remark("request " + std::to_string(number) + ": " + name);
    requests_.push_back(
        {name + ", asked at step " + std::to_string(world_.step_count()),
         [answer] { return answer.is_over(); },
         [this, number, name, answer, check] {
           if (answer.is_lost()) {
             ++totals_.lost_requests;
             return;
           }
           const auto& value = answer.value();
           world_.remark("answer " + std::to_string(number)
                         + (value ? "" : ": " + value.error().message));
           if (!value)
             check_error(value.error(), name);
           check(value);
         }});
  }

  void settle() {
    for (auto each = requests_.begin(); each != requests_.end();) {
      if (!each->is_over()) {
        ++each;
        continue;
      }
      auto over = std::move(*each);
      each = requests_.erase(each);
      over.check();
    }
  }

  void upsert(handle& at) {
    upsert_request request;
    const auto first = at.changes.size();
    for (auto n = 1 + random_.below(3); n > 0; --n) {
      const auto id = random_id();
      const auto version = next_version_++;
      const auto content = content_of(id, version);
      upsert_item item{.id = id,
                       .record = "{\"content\": \"" + content + "\"}"};
      if (random_.one_in(3))
        item.vector = simulated_vector(content, dimension);
      request.items.push_back(std::move(item));
      at.changes.push_back({id, version, world_.step_count(), {}});
    }
    std::string name = "upsert";
    for (auto i = first; i < at.changes.size(); ++i)
      name += " " + content_of(at.changes[i].id, at.changes[i].version);
    changes_sent(at, first, name + by(at),
                 at.writer->send<void>(std::move(request)));
  }

  /// In each generation since `floor`.
  bool was_there(const std::string& id, std::uint64_t floor) const {
    auto first = history_.lower_bound(floor);
    return first != history_.end()
           && std::all_of(first, history_.end(), [&](const auto& each) {
                return each.second.state
                       && version_of(*each.second.state, id) != absent;
              });
  }

  void remove(handle& at) {
    const auto id = random_id();
    at.changes.push_back({id, absent, world_.step_count(), {}, true});
    const auto floor = floor_for_read(at);
    changes_sent(at, at.changes.size() - 1, "remove " + id + by(at),
                 at.writer->send<void>(remove_request{{id}}), floor);
  }

  void changes_sent(handle& at, std::size_t first, const std::string& name,
                    awaited<void> answer, read_floor floor = {}) {
    const auto end = at.changes.size();
    begin_job(at);
    expect(name, std::move(answer),
           [this, &at, first, end, floor](const auto& value) {
             --at.jobs_under_way;
             if (auto& removed = at.changes[first]; removed.version == absent)
               removed.may_be_void = !was_there(removed.id, floor.own);
             for (auto i = first; i < end; ++i)
               if (value)
                 at.changes[i].acknowledged = world_.step_count();
               else
                 at.loose_until = std::max(at.loose_until, i + 1);
           });
  }

  static void begin_job(handle& at) {
    ++at.jobs_under_way;
    ++at.jobs_started;
  }

  std::size_t turning(handle& at, turning_point::kind what) {
    begin_job(at);
    at.points.push_back(
        {what, world_.step_count(), at.changes.size(), {}, false});
    return at.points.size() - 1;
  }

  void turned(handle& at, std::size_t point, bool succeeded) {
    --at.jobs_under_way;
    at.points[point].over = world_.step_count();
    at.points[point].succeeded = succeeded;
  }

  void commit(handle& at, bool has_expectation) {
    std::optional<std::uint64_t> expected;
    if (has_expectation)
      expected = latest_;
    committing(at, turning_point::kind::commit, "commit" + by(at),
               at.writer->send<commit_result>(commit_request{expected}),
               expected);
  }

  void finalize(handle& at) {
    ++totals_.checkpoints;
    committing(at, turning_point::kind::finalize, "finalize" + by(at),
               at.writer->send<commit_result>(finalize_request{}), {});
  }

  void committing(handle& at, turning_point::kind what, const std::string& name,
                  awaited<commit_result> answer,
                  std::optional<std::uint64_t> expected) {
    const auto point = turning(at, what);
    expect(name, std::move(answer),
           [this, &at, point, expected](const auto& value) {
             turned(at, point, bool(value));
             // How its commit ended is known only if it was published.
             if (!value
                 && at.points[point].what == turning_point::kind::finalize)
               at.loose_until = at.changes.size();
             if (value)
               check_commit(at, at.points[point], *value, expected);
           });
  }

  void check_commit(handle& at, const turning_point& point,
                    const commit_result& made,
                    std::optional<std::uint64_t> expected) {
    ++totals_.commits;
    if (!observer_) {
      // All have died meanwhile; whoever comes next will see it.
      acknowledged_ = std::max(acknowledged_, made.generation);
      return;
    }
    catch_up(made.generation);
    if (expected && made.committed > 0)
      require(made.generation == *expected + 1,
              "a commit that expects a generation is the next one");
    require(made.generation <= latest_,
            "what is acknowledged is visible to a new reader: generation "
                + std::to_string(made.generation) + " of "
                + std::to_string(latest_));
    acknowledged_ = std::max(acknowledged_, made.generation);
    at.floor = std::max(at.floor, made.generation);
    if (made.discarded > 0 || !made.failed.empty())
      at.loose_until = at.changes.size();
    if (std::any_of(at.points.begin(), at.points.end(), [](const auto& each) {
          return each.what == turning_point::kind::finalize && !each.over;
        }))
      return; // what that has discarded is not known yet
    std::map<std::string, std::size_t> last;
    for (auto i = at.loose_until; i < point.changes; ++i)
      last[at.changes[i].id] = i;
    for (const auto& [id, index] : last) {
      auto found = at.changes[index].may_be_void;
      for (auto i = index; i < at.changes.size() && !found; ++i)
        found = at.changes[i].id == id
                && (was_seen(id, at.changes[i].version, at.changes[index].sent,
                             made.generation));
      require(found, "what is committed is there: "
                         + content_of(id, at.changes[index].version)
                         + " in generation " + std::to_string(made.generation));
    }
  }

  void drop(handle& at) {
    const auto point = turning(at, turning_point::kind::drop);
    expect("drop" + by(at), at.writer->send<void>(drop_request{}),
           [this, &at, point](const auto& value) {
             turned(at, point, bool(value));
             at.loose_until = at.changes.size();
           });
  }

  void checkpoint(handle& at) {
    begin_job(at);
    ++totals_.checkpoints;
    const auto how = static_cast<compaction>(random_.below(3));
    expect("checkpoint" + by(at),
           at.writer->send<void>(checkpoint_request{how}),
           [&at](const auto&) { --at.jobs_under_way; });
  }

  // -- Reads ------------------------------------------------------------------

  read_floor floor_for_read(const handle& at) const {
    const auto is_at_rest = at.jobs_under_way == 0
                            && !plot_.has_automatic_checkpoints
                            && !plot_.is_board_lossy;
    return {at.floor, is_at_rest ? std::max(at.floor, acknowledged_) : at.floor,
            at.jobs_started};
  }

  static std::uint64_t floor_of(const handle& at, const read_floor& floor) {
    return at.jobs_started == floor.jobs_started ? floor.at_rest : floor.own;
  }

  /// Frames that nobody has announced yet are shown to who looks at files.
  void catch_up(std::uint64_t generation) {
    if (observer_ && generation > latest_) {
      (void)observer_->probe()->look_at_files();
      look();
    }
  }

  /// The first generation from `floor` on of which `fits` is true.
  ///
  /// Nobody can say if all processes have died meanwhile.
  template <class Fits>
  void find_generation(handle& at, std::uint64_t floor, Fits fits,
                       const std::string& promise) {
    for (int attempt = 0; attempt < 2; ++attempt) {
      for (auto each = history_.lower_bound(floor); each != history_.end();
           ++each) {
        if (each->second.state && !fits(*each->second.state))
          continue;
        at.floor = std::max(at.floor, each->first);
        return;
      }
      if (history_.empty() || (floor == 0 && fits(rows{})))
        return;
      if (!observer_)
        return;
      (void)observer_->probe()->look_at_files();
      look();
    }
    require(false, promise + " (from generation " + std::to_string(floor)
                       + " on, until " + std::to_string(latest_) + ")");
  }

  /// What a handle may show of one id besides what is committed.
  struct own_changes {
    std::set<int> possible;
    /// Nothing but one of those.
    bool is_certain = false;
  };

  own_changes own_of(const handle& at, const std::string& id,
                     std::uint64_t asked) const {
    own_changes out;
    for (auto i = at.changes.size(); i-- > 0;) {
      const auto& made = at.changes[i];
      if (made.id != id)
        continue;
      const auto is_settled = std::any_of(
          at.points.begin(), at.points.end(), [&](const auto& point) {
            return point.changes > i && point.over && *point.over <= asked
                   && point.succeeded && i >= at.loose_until;
          });
      if (is_settled)
        break;
      out.possible.insert(made.version);
      if (!made.acknowledged || *made.acknowledged > asked)
        continue;
      if (made.may_be_void)
        break;
      const auto may_be_taken = std::any_of(
          at.points.begin(), at.points.end(), [&](const auto& point) {
            return !point.over || *point.over > made.sent;
          });
      if (!may_be_taken && i >= at.loose_until)
        out.is_certain = true;
      if (i >= at.loose_until)
        break;
    }
    return out;
  }

  void get(handle& at) {
    std::vector<std::string> ids;
    for (auto n = 1 + random_.below(3); n > 0; --n)
      ids.push_back(random_id());
    const auto floor = floor_for_read(at);
    const auto asked = world_.step_count();
    auto& from = random_.one_in(3) ? *at.writer : *at.reader;
    expect("get" + list_of(ids) + by(at),
           from.send<optional_rows>(get_request{ids}),
           [this, &at, ids, floor, asked](const auto& value) {
             if (value)
               check_get(at, ids, *value, floor_of(at, floor), asked);
           });
  }

  void check_get(handle& at, const std::vector<std::string>& ids,
                 const optional_rows& found, std::uint64_t floor,
                 std::uint64_t asked) {
    ++totals_.reads;
    std::string shown;
    for (std::size_t i = 0; i < ids.size(); ++i)
      shown += " "
               + content_of(ids[i],
                            found[i] ? version_in(found[i]->record) : absent);
    const auto fits = [&](const rows& state) {
      for (std::size_t i = 0; i < ids.size(); ++i) {
        const auto version = found[i] ? version_in(found[i]->record) : absent;
        const auto own = own_of(at, ids[i], asked);
        if (!own.possible.count(version)
            && (own.is_certain || version_of(state, ids[i]) != version))
          return false;
      }
      return true;
    };
    find_generation(at, floor, fits,
                    "a handle shows its own changes and one generation:"
                        + shown);
  }

  void query(handle& at) {
    const auto text =
        content_of(random_id(), static_cast<int>(random_.below(200)));
    const query_options options{.top_k = plot_.top_k};
    const auto floor = floor_for_read(at);
    const auto asked = world_.step_count();
    auto& from = random_.one_in(3) ? *at.writer : *at.reader;
    auto answer = random_.one_in(2)
                      ? from.send<hit_lists>(query_text_request{text, options})
                      : from.send<hit_lists>(query_vector_request{
                          simulated_vector(text, dimension), options});
    expect("query " + text + by(at), answer,
           [this, &at, text, floor, asked](const auto& value) {
             if (value)
               check_query(at, text, value->at(0), floor_of(at, floor), asked);
           });
  }

  static double score(const std::string& one, const std::string& other) {
    const auto left = simulated_vector(one, dimension);
    const auto right = simulated_vector(other, dimension);
    double sum = 0;
    for (std::size_t i = 0; i < dimension; ++i)
      sum += double{left[i]} * double{right[i]};
    return sum;
  }

  void check_query(handle& at, const std::string& text,
                   const std::vector<hit>& hits, std::uint64_t floor,
                   std::uint64_t asked) {
    ++totals_.queries;
    std::string shown;
    for (const auto& each : hits)
      shown += " " + content_of(each.id, version_in(each.record));
    const auto fits = [&](const rows& state) {
      return is_exact(at, state, text, hits, asked);
    };
    find_generation(at, floor, fits,
                    "a query equals brute force on one generation, less what "
                    "the handle has deleted: "
                        + text + " finds" + shown);
  }

  bool is_exact(const handle& at, const rows& state, const std::string& text,
                const std::vector<hit>& hits, std::uint64_t asked) const {
    constexpr double tolerance = 1e-5;
    double worst = 2;
    std::set<std::string> found;
    for (const auto& each : hits) {
      const auto version = version_in(each.record);
      const auto exact = score(text, content_of(each.id, version));
      const auto own = own_of(at, each.id, asked);
      if (version_of(state, each.id) != version
          || std::abs(exact - double{each.distance}) > tolerance
          || double{each.distance} > worst + tolerance
          || (own.is_certain && own.possible == std::set<int>{absent})
          || !found.insert(each.id).second)
        return false;
      worst = double{each.distance};
    }
    for (const auto& [id, version] : state)
      if (!found.count(id) && !may_hide(at, id, asked)
          && (hits.size() < plot_.top_k
              || score(text, content_of(id, version)) > worst + tolerance))
        return false;
    return true;
  }

  static bool may_hide(const handle& at, const std::string& id,
                       std::uint64_t asked) {
    for (std::size_t i = 0; i < at.changes.size(); ++i) {
      if (at.changes[i].id != id || at.changes[i].version != absent)
        continue;
      const auto is_settled = std::any_of(
          at.points.begin(), at.points.end(), [&](const auto& point) {
            return point.changes > i && point.over && *point.over <= asked
                   && point.succeeded;
          });
      if (!is_settled || i < at.loose_until)
        return true;
    }
    return false;
  }

  // -- Waits ------------------------------------------------------------------

  void watch(handle& at) {
    if (at.is_starting_watch)
      return;
    if (!at.watched) {
      at.is_starting_watch = true;
      begin_job(at);
      const watch_options options{.buffer_bytes_max =
                                      random_.one_in(4) ? 150U : 1U << 20U};
      expect("watch" + by(at),
             at.reader->send<watch_start>(watch_request{options}),
             [&at](const auto& value) {
               at.is_starting_watch = false;
               --at.jobs_under_way;
               if (!value)
                 return;
               at.watched = {value->number, value->generation, false};
               at.floor = std::max(at.floor, value->generation);
             });
      return;
    }
    if (at.watched->waits)
      return;
    at.watched->waits = true;
    const std::chrono::milliseconds timeout(random_.below(3) * 300);
    expect("next_event" + by(at),
           at.reader->send<optional_event>(
               next_event_request{at.watched->number, timeout}),
           [this, &at](const auto& value) {
             at.watched->waits = false;
             if (value && *value)
               check_event(at, **value);
           });
  }

  void check_event(handle& at, const commit_event& event) {
    ++totals_.events;
    catch_up(event.generation);
    auto& last = at.watched->last;
    const auto here =
        std::to_string(event.generation) + " after " + std::to_string(last);
    require(event.generation > last, "events come in rising order: " + here);
    at.floor = std::max(at.floor, event.generation);
    if (event.what == commit_event::kind::overflow) {
      ++totals_.overflows;
      last = event.generation;
      return;
    }
    require(event.generation == last + 1,
            "no event is lost without an overflow: " + here);
    last = event.generation;
    auto known = history_.find(event.generation);
    if (known == history_.end() || !known->second.event)
      return;
    require(known->second.event->changed == event.changed
                && known->second.event->removed == event.removed
                && known->second.event->what == event.what,
            "all watchers are told the same of generation " + here);
  }

  void await(handle& at) {
    const auto wanted = acknowledged_ + random_.below(2);
    const std::chrono::milliseconds timeout(random_.below(3) * 300);
    expect("await_generation" + by(at),
           at.reader->send<std::uint64_t>(
               await_generation_request{wanted, timeout}),
           [this, &at, wanted](const auto& value) {
             if (!value)
               return;
             require(*value >= wanted, "who awaits a generation sees it");
             catch_up(*value);
             at.floor = std::max(at.floor, *value);
           });
  }

  // -- The end ----------------------------------------------------------------

  void finish() {
    faults_ = false;
    for (auto& each : users_)
      if (each.process->is_alive())
        each.process->hang_embedder(false);
    const auto is_over = world_.run_until([this] { return requests_.empty(); });
    require(is_over, "every request is answered: "
                         + (is_over ? "" : requests_.front().name));
    for (auto& each : users_) {
      if (!each.process->is_alive())
        start(each);
      if (each.handles.empty())
        open(each);
      for (auto* at : each.handles)
        drain(*at);
    }
    observe();
    require(observer_ != nullptr, "a store can be opened");
    look();
    for (auto& each : users_)
      for (auto* at : each.handles)
        compare(*at);
    require(world_.computer().lock_count() == 0, "all locks are let go");
  }

  /// A store that is sound again takes commits again, soon.
  void drain(handle& at) {
    const auto before = totals_.commits;
    for (int attempt = 0; attempt < 5 && totals_.commits == before; ++attempt) {
      commit(at, false);
      require(world_.run_until([this] { return requests_.empty(); }),
              "every commit is answered");
    }
    require(totals_.commits > before, "a sound store can be written");
  }

  void compare(handle& at) {
    auto reached = world_.ask<std::uint64_t>(
        *at.reader, await_generation_request{acknowledged_, 10s});
    require(reached && *reached >= acknowledged_,
            "every handle gets to the latest generation");
    at.floor = std::max(at.floor, *reached);
    for (std::size_t i = 0; i < 4; ++i) {
      get(at);
      query(at);
    }
    require(world_.run_until([this] { return requests_.empty(); }),
            "every read is answered");
    auto sound = world_.ask<void>(*at.reader, verify_request{});
    require(bool(sound),
            "the store is sound: " + (sound ? "" : sound.error().message));
  }

  story_totals& totals_;
  world world_;
  random_source& random_;
  random_source fault_random_;
  plot plot_;
  bool faults_ = true;
  std::uint64_t safe_until_ = 0;
  bool power_failed_ = false;

  std::deque<user> users_;
  std::list<handle> handles_;
  std::list<request> requests_;
  std::size_t request_count_ = 0;
  int next_version_ = first_version;

  std::unique_ptr<process> observer_process_;
  std::unique_ptr<store> observer_;
  std::uint64_t observer_number_ = 0;
  std::map<std::uint64_t, generation_record> history_;
  std::uint64_t latest_ = 0;
  std::uint64_t acknowledged_ = 0;
  std::uint64_t last_drop_step_ = 0;
  /// Versions that a drop has overtaken, and its generation.
  std::map<int, std::uint64_t> forbidden_;
};

} // namespace

story_outcome tell_story(std::uint64_t seed, story_totals& totals,
                         std::size_t trace_steps) {
  story_outcome out;
  story told(seed, totals, trace_steps);
  try {
    told.tell();
  } catch (const violation& broken) {
    out.violation = broken.what();
  }
  ++totals.stories;
  totals.steps += told.stage().step_count();
  out.event_hash = told.stage().event_hash();
  for (const auto& each : told.stage().trace())
    out.trace += each + "\n";
  return out;
}

std::ostream& operator<<(std::ostream& out, const story_totals& totals) {
  return out << totals.stories << " stories, " << totals.steps << " steps, "
             << totals.requests << " requests (" << totals.failed_requests
             << " failed, " << totals.lost_requests << " died), "
             << totals.commits << " commits, " << totals.drops << " drops, "
             << totals.checkpoints << " checkpoints, " << totals.reads
             << " reads, " << totals.queries << " queries, " << totals.events
             << " events (" << totals.overflows << " overflows), "
             << totals.kills << " kills, " << totals.power_losses
             << " power losses, " << totals.io_faults << " I/O faults ("
             << totals.failed_syncs << " syncs), " << totals.embedding_faults
             << " embedding faults, " << totals.unseen_generations
             << " generations unseen";
}

} // namespace callboard::test
