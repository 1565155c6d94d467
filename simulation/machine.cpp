#include "simulation/machine.hpp"

#include "simulation/board.hpp"
#include "simulation/door.hpp"
#include "simulation/machine_state.hpp"
#include "simulation/path.hpp"

#include <algorithm>
#include <iterator>
#include <stdexcept>
#include <utility>

namespace callboard::simulation {

// -- Locks --------------------------------------------------------------------

bool lock_table::acquire(handle_number who, disk::inode_number file,
                         std::uint64_t byte, lock_mode mode) {
  const place where{file, byte};
  if (const auto found = held_.find(where); found != held_.end())
    for (const auto& [holder, held] : found->second)
      if (holder != who
          && (mode == lock_mode::exclusive || held == lock_mode::exclusive))
        return false;
  held_[where][who] = mode;
  return true;
}

void lock_table::release(handle_number who, disk::inode_number file,
                         std::uint64_t byte) {
  const auto found = held_.find({file, byte});
  if (found == held_.end())
    return;
  found->second.erase(who);
  if (found->second.empty())
    held_.erase(found);
}

void lock_table::release_all(handle_number who) {
  for (auto each = held_.begin(); each != held_.end();) {
    each->second.erase(who);
    each = each->second.empty() ? held_.erase(each) : std::next(each);
  }
}

std::size_t lock_table::count() const {
  std::size_t out = 0;
  for (const auto& [where, holders] : held_)
    out += holders.size();
  return out;
}

// -- What processes share -----------------------------------------------------

board_content& machine_state::board_at(disk::inode_number file) {
  const auto found = boards.find(file);
  return found != boards.end()
             ? found->second
             : boards.emplace(file, board_content(*files.content(file)))
                   .first->second;
}

file_status machine_state::status_of(disk::inode_number file) const {
  auto out = files.status(file);
  if (boards.contains(file))
    out.size_bytes = sizeof(board_memory);
  return out;
}

std::size_t machine_state::read(disk::inode_number file, std::uint64_t offset,
                                std::span<std::byte> into) const {
  const auto board = boards.find(file);
  return board != boards.end() ? board->second.read(offset, into)
                               : files.read(file, offset, into);
}

std::errc machine_state::write(disk::inode_number file, std::uint64_t offset,
                               std::span<const std::byte> data) {
  const auto board = boards.find(file);
  if (board == boards.end())
    return files.write(file, offset, data, wall_ns());
  board->second.write(offset, data, *board_memories);
  return {};
}

/// Some files have not even their size.
void machine_state::lose_power_of_boards() {
  for (auto each = boards.begin(); each != boards.end();) {
    if (random.one_in(4)) {
      each = boards.erase(each);
    } else {
      each->second.lose_power(random);
      ++each;
    }
  }
}

void machine_state::close(handle_number number) {
  const auto found = handles.find(number);
  if (found == handles.end())
    return;
  locks.release_all(number);
  files.release(found->second.inode);
  handles.erase(found);
}

void machine_state::kill(process_state& which) {
  if (!std::exchange(which.is_alive, false))
    return;
  std::vector<handle_number> opened;
  for (const auto& [number, handle] : handles)
    if (handle.process == which.number)
      opened.push_back(number);
  for (const auto number : opened)
    close(number);
}

void machine_state::lose_power(loss_model model) {
  for (const auto& each : processes)
    if (const auto alive = each.lock())
      kill(*alive);
  processes.clear();
  unshared_attachments = 0;
  files.lose_power(model, random);
  if (model == loss_model::kill)
    return;
  lose_power_of_boards();
  ++boot;
}

void machine_state::record(const operation& what, std::optional<errc> outcome) {
  const auto mix = [this](auto value) {
    event_hash = mixed(event_hash, value);
  };
  mix(static_cast<std::uint64_t>(what.kind) << 32 | what.process);
  for (const auto text :
       {what.directory, what.name, what.target_directory, what.target_name}) {
    mix(std::uint64_t{text.size()});
    mix(text);
  }
  mix(what.offset);
  mix(what.size_bytes);
  mix(std::uint64_t{what.mode});
  mix(outcome ? static_cast<std::uint64_t>(*outcome) : 0);
  if (trace_max == 0)
    return;
  trace.push_back(to_string(what) + ": "
                  + std::string(outcome ? to_string(*outcome) : "done"));
  if (trace.size() > trace_max)
    trace.pop_front();
}

// -- One operation ------------------------------------------------------------

failure described(errc code, const operation& what, std::string_view why) {
  return {code, "cannot " + std::string(to_string(what.kind)) + " \""
                    + what.path() + "\": " + std::string(why)};
}

failure dead(const operation& what) {
  return described(errc::io_failure, what, "the process is dead");
}

failure injected(const operation& what, errc code) {
  return described(code, what, "made to fail by the test");
}

step::step(process_state& self, operation& what)
    : self_(self), machine_(*self.machine), what_(what) {
  what_.process = self.number;
  what_.index = machine_.next_operation;
  if (self.is_alive && machine_.yield)
    machine_.yield(what_);
  if (!self.is_alive) {
    refusal_ = dead(what_);
    return;
  }
  what_.index = machine_.next_operation++;
  if (machine_.policy)
    fault_ = machine_.policy(what_);
  if (fault_.what != fault::action::none && machine_.fault_observer)
    machine_.fault_observer(what_, fault_);
  if (!self.is_alive) {
    refusal_ = dead(what_);
  } else if (fault_.what == fault::action::fail) {
    refusal_ = fail(injected(what_, fault_.code));
  } else if (crashes(moment::before)) {
    crash();
    refusal_ = dead(what_);
  } else {
    machine_.observe(moment::before, what_);
  }
}

bool step::crashes(moment when) const noexcept {
  return (fault_.what == fault::action::kill
          || fault_.what == fault::action::lose_power)
         && fault_.when == when;
}

void step::crash() {
  machine_.record(what_, errc::closed);
  if (fault_.what == fault::action::kill)
    machine_.kill(self_);
  else
    machine_.lose_power(fault_.model);
}

bool step::is_partial() const noexcept {
  return fault_.what == fault::action::cut_short || crashes(moment::half);
}

std::size_t step::part_of(std::size_t size) const {
  if (fault_.what == fault::action::cut_short)
    return std::min(fault_.bytes, size);
  return static_cast<std::size_t>(machine_.random.below(size + 1));
}

failure step::finish_part() {
  if (fault_.what == fault::action::cut_short)
    return fail(injected(what_, fault_.code));
  crash();
  return dead(what_);
}

result<void> step::succeed() {
  if (crashes(moment::after)) {
    crash();
    return dead(what_);
  }
  machine_.record(what_, std::nullopt);
  machine_.observe(moment::after, what_);
  if (!self_.is_alive)
    return dead(what_);
  return {};
}

failure step::fail(failure reason) {
  machine_.record(what_, reason.code);
  return reason;
}

// -- Processes ----------------------------------------------------------------

process::process(std::shared_ptr<process_state> state)
    : state_(std::move(state)),
      door_(make_door(state_)),
      board_(make_board(state_, *door_)) {}

process::~process() {
  kill();
}

std::uint64_t process::number() const noexcept {
  return state_->number;
}

bool process::is_alive() const noexcept {
  return state_->is_alive;
}

void process::kill() {
  state_->machine->kill(*state_);
}

// -- The machine --------------------------------------------------------------

machine::machine(std::uint64_t seed) : machine(random_source(seed)) {}

machine::machine(random_source random)
    : state_(std::make_shared<machine_state>(std::move(random))) {}

machine::machine(std::shared_ptr<machine_state> state)
    : state_(std::move(state)) {}

machine::~machine() = default;
machine::machine(machine&&) noexcept = default;
machine& machine::operator=(machine&&) noexcept = default;

machine machine::clone(std::uint64_t seed) const {
  auto copy = std::make_shared<machine_state>(random_source(seed));
  copy->files = state_->files;
  copy->files.release_all();
  copy->boards = state_->boards;
  copy->board_memories = state_->board_memories;
  copy->steady = state_->steady;
  copy->wall = state_->wall;
  copy->boot = state_->boot;
  copy->keeper = state_->keeper;
  copy->next_process = state_->next_process;
  copy->next_handle = state_->next_handle;
  copy->next_operation = state_->next_operation;
  copy->event_hash = state_->event_hash;
  return machine(std::move(copy));
}

std::unique_ptr<process> machine::start_process(process_options options) {
  auto made = std::make_shared<process_state>();
  made->machine = state_;
  made->number = state_->next_process++;
  made->has_board = options.has_board;
  std::erase_if(state_->processes,
                [](const auto& each) { return each.expired(); });
  state_->processes.push_back(made);
  return std::make_unique<process>(std::move(made));
}

void machine::lose_power(loss_model model) {
  state_->lose_power(model);
}

std::chrono::nanoseconds machine::steady_clock() const noexcept {
  return state_->steady;
}

void machine::advance(std::chrono::nanoseconds duration) {
  state_->advance(duration);
}

void machine::set_wall_clock(std::int64_t seconds) {
  state_->wall = std::chrono::seconds(seconds);
}

void machine::set_file_system(file_system keeper) {
  state_->keeper = keeper;
}

void machine::on_yield(std::function<void(const operation&)> hook) {
  state_->yield = std::move(hook);
}

void machine::on_fault(std::function<fault(const operation&)> policy) {
  state_->policy = std::move(policy);
}

void machine::on_moment(
    std::function<void(moment, const operation&)> observer) {
  state_->observer = std::move(observer);
}

void machine::on_injected(
    std::function<void(const operation&, const fault&)> observer) {
  state_->fault_observer = std::move(observer);
}

std::uint64_t machine::operation_count() const noexcept {
  return state_->next_operation;
}

std::uint64_t machine::event_hash() const noexcept {
  return state_->event_hash;
}

void machine::keep_trace(std::size_t count) {
  state_->trace_max = count;
}

const std::deque<std::string>& machine::trace() const noexcept {
  return state_->trace;
}

std::size_t machine::lock_count() const noexcept {
  return state_->locks.count();
}

std::uint64_t machine::unshared_attachments() const noexcept {
  return state_->unshared_attachments;
}

std::size_t machine::unsynced_count() const {
  return state_->files.unsynced_count();
}

std::uint64_t machine::disk_fingerprint() const {
  return state_->files.fingerprint();
}

// -- Files, past all processes ------------------------------------------------

std::optional<std::string> machine::read_file(std::string_view path) const {
  const auto found = find(state_->files, path);
  if (!found || state_->files.is_directory(*found))
    return std::nullopt;
  std::string out(state_->status_of(*found).size_bytes, '\0');
  (void)state_->read(*found, 0, std::as_writable_bytes(std::span(out)));
  return out;
}

std::optional<file_status> machine::status(std::string_view path) const {
  const auto found = find(state_->files, path);
  if (!found)
    return std::nullopt;
  return state_->status_of(*found);
}

void machine::write_file(std::string_view path, std::string_view content) {
  const auto refuse = [path](std::string_view why) {
    throw std::invalid_argument("cannot write \"" + std::string(path)
                                + "\": " + std::string(why));
  };
  auto& files = state_->files;
  const auto [parent, name] = split(path);
  if (!is_component(name))
    refuse("it does not end with a name");
  const auto directory = find(files, parent);
  if (!directory || !files.is_directory(*directory))
    refuse("there is no such directory");
  if (content.size() > disk::file_bytes_max)
    refuse("no file may be as large");
  const auto before = files.find(*directory, name);
  if (before && files.is_directory(*before))
    refuse("it is a directory");
  if (before)
    (void)files.remove(*directory, name);
  const auto made = state_->made(
      files.create_file(*directory, name, 0600, state_->wall_ns()));
  (void)files.write(made, 0, std::as_bytes(std::span(content)),
                    state_->wall_ns());
  files.sync(made);
  files.sync_directory(*directory);
}

void machine::remove_file(std::string_view path) {
  const auto [parent, name] = split(path);
  if (const auto directory = find(state_->files, parent)) {
    (void)state_->files.remove(*directory, name);
    state_->files.sync_directory(*directory);
  }
}

std::vector<std::string> machine::list(std::string_view path) const {
  const auto found = find(state_->files, path);
  if (!found || !state_->files.is_directory(*found))
    return {};
  return state_->files.names(*found);
}

} // namespace callboard::simulation
