#include "simulation/world.hpp"

#include "actors/board_watcher.hpp"
#include "actors/embedder_pool.hpp"
#include "actors/manual_scheduler.hpp"

#include <caf/scheduled_actor.hpp>
#include <spdlog/logger.h>

#include <algorithm>
#include <cstdlib>
#include <cxxabi.h>
#include <deque>
#include <iterator>
#include <list>
#include <typeinfo>

namespace callboard::simulation {

/// What an actor gets that sends requests for code that is not an actor.
struct call_message {
  std::function<void(caf::event_based_actor*)> begin;
};

} // namespace callboard::simulation

CALLBOARD_LOCAL_MESSAGE(callboard::simulation::call_message)

namespace callboard::simulation {

namespace {

using std::chrono::nanoseconds;

caf::scheduled_actor& actor_of(caf::resumable* job) {
  return dynamic_cast<caf::scheduled_actor&>(*job);
}

/// Sends requests for the test, in order.
class sender : public caf::event_based_actor {
public:
  using caf::event_based_actor::event_based_actor;
  const char* name() const override { return "sender"; }
  caf::behavior make_behavior() override {
    return {[this](const call_message& call) { call.begin(this); }};
  }
};

/// What one sender has put into a mailbox, in order.
struct lane {
  struct letter {
    /// How many of all senders' came before.
    std::size_t place = 0;
    caf::mailbox_element_ptr content;
  };
  caf::actor_control_block* sender;
  std::deque<letter> letters;
};

/// Takes the first letter of a lane out of lanes that are sorted by those.
caf::mailbox_element_ptr take_letter(std::list<lane>& lanes,
                                     std::list<lane>::iterator from) {
  auto taken = std::move(from->letters.front().content);
  from->letters.pop_front();
  if (from->letters.empty()) {
    lanes.erase(from);
    return taken;
  }
  const auto place = from->letters.front().place;
  const auto behind =
      std::find_if(std::next(from), lanes.end(), [&](const auto& each) {
        return each.letters.front().place > place;
      });
  lanes.splice(behind, lanes, from);
  return taken;
}

/// Puts what waits in a mailbox into another order, but keeps that of each
/// sender. The calm order is that in which it came.
void shuffle(caf::scheduled_actor& owner, random_source& random) {
  using queue_of = caf::scheduled_actor;
  auto& mailbox = owner.mailbox();
  if (mailbox.closed() || mailbox.blocked())
    return;
  mailbox.fetch_more();
  auto& queue =
      std::get<queue_of::normal_queue_index>(mailbox.queue().queues());
  const auto size = queue.total_task_size();
  if (size < 2)
    return;
  std::list<lane> lanes;
  queue.inc_deficit(size + 1);
  for (std::size_t place = 0; auto next = queue.next(); ++place) {
    auto* from = next->sender.get();
    auto found =
        std::find_if(lanes.begin(), lanes.end(),
                     [&](const auto& each) { return each.sender == from; });
    if (found == lanes.end())
      found = lanes.emplace(lanes.end(), lane{from, {}});
    found->letters.push_back({place, std::move(next)});
  }
  while (!lanes.empty()) {
    const auto chosen = lanes.size() > 1 ? random.below(lanes.size()) : 0;
    queue.push_back(take_letter(
        lanes, std::next(lanes.begin(), static_cast<std::ptrdiff_t>(chosen))));
  }
}

/// The name of a type for people, of another text the text.
std::string readable(std::string_view type_name) {
  const std::unique_ptr<char, void (*)(void*)> text(
      abi::__cxa_demangle(std::string(type_name).c_str(), nullptr, nullptr,
                          nullptr),
      std::free);
  return text ? text.get() : std::string(type_name);
}

/// The type of the message that the actor will get next.
std::string next_message(caf::scheduled_actor& owner) {
  auto& mailbox = owner.mailbox();
  if (mailbox.closed() || mailbox.blocked())
    return "starts";
  auto* next = mailbox.peek();
  if (next == nullptr || next->content().empty())
    return "starts";
  const auto& [number, type] = next->content().type(0);
  return type != nullptr ? type->name() : std::to_string(number);
}

} // namespace

// -- A process ----------------------------------------------------------------

struct actor_process::parts {
  std::unique_ptr<process> self;
  std::shared_ptr<bool> is_alive = std::make_shared<bool>(true);
  std::unique_ptr<runtime::implementation> actors;
  std::vector<storage_actor> stores;
  std::vector<caf::actor> senders;
  std::vector<caf::actor> spawned;
  /// It is in the middle of something.
  bool is_running = false;
  bool embedder_hangs = false;
  std::uint64_t announcements_seen = 0;
  nanoseconds files_due{};

  caf::scheduler::test_coordinator& scheduler() {
    return manual_scheduler(actors->system());
  }

  bool may_run() const { return actors && !is_running; }

  bool is_runnable(caf::resumable* job) const {
    return !embedder_hangs
           || std::string_view(actor_of(job).name()) != embedding_worker_name;
  }

  bool has_timer_until(nanoseconds now) {
    const auto& timers = scheduler().clock().schedule();
    return !timers.empty() && timers.begin()->first.time_since_epoch() <= now;
  }

  std::size_t add_sender() {
    senders.push_back(actors->system().spawn<sender>());
    return senders.size() - 1;
  }
};

actor_process::actor_process(std::unique_ptr<process> self,
                             runtime_options options)
    : parts_(std::make_unique<parts>()) {
  options.door = &self->door();
  options.board = &self->board();
  parts_->self = std::move(self);
  parts_->actors = std::make_unique<runtime::implementation>(
      std::move(options), spawn_mode::shared_thread);
}

actor_process::~actor_process() = default;

std::uint64_t actor_process::number() const noexcept {
  return parts_->self->number();
}

bool actor_process::is_alive() const noexcept {
  return *parts_->is_alive && parts_->self->is_alive();
}

io& actor_process::door() noexcept {
  return parts_->self->door();
}

caf::actor_system& actor_process::system() noexcept {
  return parts_->actors->system();
}

void actor_process::adopt(caf::actor spawned) {
  parts_->spawned.push_back(std::move(spawned));
}

void actor_process::hang_embedder(bool hangs) noexcept {
  parts_->embedder_hangs = hangs;
}

// -- A store ------------------------------------------------------------------

remote_store remote_store::another_sender() const {
  auto out = *this;
  if (*is_alive_)
    out.sender_ = process_->parts_->add_sender();
  return out;
}

storage_actor remote_store::actor() const {
  return process_->parts_->stores[number_];
}

void remote_store::begin(begin_request how) const {
  auto& parts = *process_->parts_;
  caf::anon_send(parts.senders[sender_],
                 call_message{[how = std::move(how), process = process_,
                               number = number_](caf::event_based_actor* self) {
                   how(self, process->parts_->stores[number]);
                 }});
}

// -- The world ----------------------------------------------------------------

/// Marks a process that is in the middle of something.
class world::running {
public:
  running(world& owner, actor_process& which)
      : owner_(owner), which_(*which.parts_) {
    which_.is_running = true;
    ++owner_.depth_;
  }
  running(const running&) = delete;
  running& operator=(const running&) = delete;
  ~running() {
    which_.is_running = false;
    --owner_.depth_;
  }

private:
  world& owner_;
  actor_process::parts& which_;
};

world::world(const schedule& by, world_options options)
    : options_(options),
      random_(by.stream("events")),
      test_random_(by.stream("choices")),
      computer_(by.stream("machine")),
      hash_(by.seed()) {
  if (options_.interleaving_interval > 0)
    computer_.on_yield([this](const operation&) { yield(); });
  computer_.on_injected([this](const operation& what, const fault& injected) {
    tell(to_string(what) + " " + to_string(injected), 0);
  });
}

world::~world() {
  for (const auto& each : processes_)
    each->parts_->self->kill();
  bury_the_dead();
}

actor_process& world::start_process(process_options options) {
  static const auto silent = std::make_shared<spdlog::logger>("simulation");
  runtime_options chosen;
  chosen.io_threads = options_.io_threads;
  chosen.search_threads = options_.search_threads;
  chosen.log = silent;
  processes_.push_back(std::unique_ptr<actor_process>(
      new actor_process(computer_.start_process(options), std::move(chosen))));
  auto& made = *processes_.back();
  made.parts_->files_due = computer_.steady_clock() + file_look_interval;
  made.parts_->announcements_seen = made.parts_->self->board().announcements();
  set_clocks();
  return made;
}

void world::kill(actor_process& which) {
  if (which.is_alive()) {
    which.parts_->self->kill();
    tell("killed", which.number());
  }
  bury_the_dead();
}

void world::lose_power(loss_model model) {
  computer_.lose_power(model);
  tell("power lost, " + std::string(to_string(model)), 0);
  bury_the_dead();
}

void world::stop(actor_process& which) {
  if (!which.is_alive() || !which.parts_->may_run())
    return;
  tell("stopped", which.number());
  end(which);
}

/// Ends the actors of dead processes, but not while they are running.
void world::bury_the_dead() {
  for (const auto& each : processes_) {
    auto& parts = *each->parts_;
    if (parts.self->is_alive())
      continue;
    *parts.is_alive = false;
    if (depth_ == 0 && parts.actors)
      end(*each);
  }
}

/// What the process's actors still want to do, a dead one's door refuses.
void world::end(actor_process& which) {
  auto& parts = *which.parts_;
  *parts.is_alive = false;
  {
    running now(*this, which);
    parts.self->board().interrupt(); // as `~board_thread`
    auto& scheduler = parts.scheduler();
    for (auto* own : {&parts.senders, &parts.spawned}) {
      for (const auto& each : *own) {
        caf::anon_send_exit(each, caf::exit_reason::kill);
        while (scheduler.prioritize(each))
          scheduler.try_run_once();
      }
      own->clear();
    }
    parts.stores.clear();
    parts.actors.reset();
  }
  parts.self->kill();
}

result<remote_store> world::open(actor_process& where, open_options options) {
  auto opened = [&]() -> result<storage_actor> {
    if (!where.is_alive())
      return closed_failure();
    set_clocks();
    running now(*this, where);
    return where.parts_->actors->open_storage(std::move(options));
  }();
  if (!where.is_alive()) {
    opened = closed_failure();
    bury_the_dead();
  }
  CALLBOARD_TRY_ASSIGN(auto actor, std::move(opened));
  auto& parts = *where.parts_;
  parts.stores.push_back(std::move(actor));
  return remote_store(where, parts.stores.size() - 1, parts.add_sender(),
                      parts.is_alive);
}

/// Actors must see the time that the doors show.
void world::set_clocks() {
  using point = caf::actor_clock::time_point;
  const auto now =
      std::chrono::duration_cast<point::duration>(computer_.steady_clock());
  for (const auto& each : processes_)
    if (each->parts_->actors)
      each->parts_->scheduler().clock().current_time = point(now);
}

void world::step() {
  set_clocks();
  if (!take_step(true))
    pass_time();
  ++step_count_;
  bury_the_dead();
  if (after_step_)
    after_step_();
}

/// While a process does something that other processes may see half done.
void world::yield() {
  if (depth_ == 0 || depth_ > depth_max
      || !random_.one_in(options_.interleaving_interval))
    return;
  set_clocks();
  const auto steps = 1 + random_.below(12);
  for (std::uint64_t i = 0; i < steps; ++i)
    if (!take_step(false))
      break;
}

/// One thing that can happen now, if there is any.
bool world::take_step(bool may_pass_time) {
  if (may_pass_time && options_.haste_interval > 0
      && random_.one_in(options_.haste_interval)) {
    advance(std::chrono::microseconds(random_.below(20'000)));
    set_clocks();
  }
  const auto now = computer_.steady_clock();
  auto& chances = chances_[std::min(depth_, depth_max)];
  chances.clear();
  for (const auto& each : processes_) {
    auto& parts = *each->parts_;
    if (!parts.may_run() || !parts.self->is_alive())
      continue;
    if (parts.has_timer_until(now))
      chances.push_back({chance::kind::timer, each.get()});
    if (parts.files_due <= now)
      chances.push_back({chance::kind::look_at_files, each.get()});
    else if (parts.self->board().announcements() != parts.announcements_seen)
      chances.push_back({chance::kind::look, each.get()});
    const auto& jobs = parts.scheduler().jobs;
    for (std::size_t i = 0; i < jobs.size(); ++i)
      if (parts.is_runnable(jobs[i]))
        chances.push_back({chance::kind::actor, each.get(), i});
  }
  if (chances.empty())
    return false;
  take(chances[random_.below(chances.size())]);
  return true;
}

void world::take(chance chosen) {
  switch (chosen.what) {
  case chance::kind::actor:
    run_actor(*chosen.where, chosen.job);
    break;
  case chance::kind::timer:
    fire_timers(*chosen.where);
    break;
  case chance::kind::look:
    look(*chosen.where, false);
    break;
  case chance::kind::look_at_files:
    look(*chosen.where, true);
    break;
  }
}

void world::fire_timers(actor_process& where) {
  running now(*this, where);
  note("timer", where.number(), 0, "");
  where.parts_->scheduler().clock().advance_time({});
}

void world::run_actor(actor_process& where, std::size_t job) {
  running now(*this, where);
  auto& jobs = where.parts_->scheduler().jobs;
  const auto chosen = jobs.begin() + static_cast<std::ptrdiff_t>(job);
  std::rotate(jobs.begin(), chosen, chosen + 1);
  auto& actor = actor_of(jobs.front());
  shuffle(actor, random_);
  note(actor.name(), where.number(), actor.id(), next_message(actor));
  where.parts_->scheduler().try_run_once();
}

/// As `board_thread` does.
void world::look(actor_process& where, bool at_files) {
  running now(*this, where);
  note(at_files ? "look at files" : "look", where.number(), 0, "");
  auto& parts = *where.parts_;
  auto& board = parts.self->board();
  board.wait(parts.announcements_seen, {});
  parts.announcements_seen = board.announcements();
  if (at_files)
    parts.files_due = computer_.steady_clock() + file_look_interval;
  parts.actors->watcher().look(at_files);
}

std::optional<nanoseconds> world::next_timer() const {
  std::optional<nanoseconds> next;
  for (const auto& each : processes_) {
    auto& parts = *each->parts_;
    if (!parts.may_run())
      continue;
    auto at = parts.files_due;
    const auto& timers = parts.scheduler().clock().schedule();
    if (!timers.empty())
      at = std::min<nanoseconds>(at, timers.begin()->first.time_since_epoch());
    next = next ? std::min(*next, at) : at;
  }
  return next;
}

void world::pass_time() {
  const auto now = computer_.steady_clock();
  const auto next = next_timer();
  advance(next ? std::max<nanoseconds>(*next - now, nanoseconds(1))
               : nanoseconds(std::chrono::milliseconds(1)));
}

void world::advance(nanoseconds duration) {
  note("time passes", 0, static_cast<std::uint64_t>(duration.count()), "");
  computer_.advance(duration);
}

bool world::is_idle() const {
  return std::all_of(
      processes_.begin(), processes_.end(), [](const auto& each) {
        auto& parts = *each->parts_;
        if (!parts.actors)
          return true;
        const auto& jobs = parts.scheduler().jobs;
        return std::none_of(jobs.begin(), jobs.end(),
                            [&](auto* job) { return parts.is_runnable(job); })
               && parts.self->board().announcements()
                      == parts.announcements_seen;
      });
}

// -- What happened ------------------------------------------------------------

std::uint64_t world::event_hash() const noexcept {
  return hash_ ^ computer_.event_hash();
}

void world::keep_trace(std::size_t count) {
  trace_max_ = count;
}

void world::note(std::string_view what, std::uint64_t process,
                 std::uint64_t actor, std::string_view detail) {
  hash_ = mixed(mixed(hash_, what), detail);
  hash_ = mixed(mixed(hash_, process), actor);
  if (trace_max_ == 0)
    return;
  std::string line = "step ";
  line += std::to_string(step_count_);
  line += ", ";
  line.append(2 * depth_, ' ');
  if (process > 0)
    line.append("process ").append(std::to_string(process)).append(": ");
  line += what;
  if (actor > 0)
    line.append(" ").append(std::to_string(actor));
  if (!detail.empty())
    line.append(" gets ").append(readable(detail));
  trace_.push_back(std::move(line));
  if (trace_.size() > trace_max_)
    trace_.pop_front();
}

/// What is kept however long ago it was.
void world::tell(std::string_view what, std::uint64_t process) {
  note(what, process, 0, "");
  if (trace_max_ > 0)
    remarks_.push_back(trace_.back());
}

} // namespace callboard::simulation
