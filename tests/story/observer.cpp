#include "tests/story/observer.hpp"

#include "simulation/simulated_embedder.hpp"

#include <chrono>
#include <cstring>
#include <utility>
#include <vector>

namespace callboard::test {

using namespace std::chrono_literals;

namespace {

bool has_own_vector(const std::string& id, int version,
                    std::span<const std::byte> bytes) {
  const auto expected =
      simulation::simulated_vector(content_of(id, version), dimension);
  std::vector<float> found(dimension);
  if (bytes.size() != dimension * sizeof(float))
    return false;
  std::memcpy(found.data(), bytes.data(), bytes.size());
  return is_close(found, expected);
}

} // namespace

bool is_close(const std::vector<float>& one, const std::vector<float>& other) {
  constexpr float tolerance = 1e-5F;
  for (std::size_t i = 0; i < one.size() && i < other.size(); ++i)
    if (std::abs(one[i] - other[i]) > tolerance)
      return false;
  return one.size() == other.size();
}

rows rows_of(const snapshot& view) {
  rows out;
  for (const auto& id : all_ids()) {
    const auto row = view.find(id);
    if (!row)
      continue;
    const auto record = view.record(*row);
    const auto vector = view.vector(*row);
    require(record && vector, "a live row can be read");
    const auto version = version_in(id, *record);
    require(has_own_vector(id, version, *vector),
            "a row has the vector of its text: " + content_of(id, version));
    out[id] = version;
  }
  require(out.size() == view.live_count(), "only given ids are there");
  return out;
}

std::string store_observer::name() const {
  return place_.workspace.empty() ? "" : " of " + place_.namespace_name;
}

void store_observer::observe() {
  if (!store_)
    return open();
  const auto probe = store_->probe();
  if (probe->changed(store_->view()->generation())
      || (faults_.may_be_deaf() && probe->look_at_files()))
    look();
}

void store_observer::open() {
  process_ = world_.computer().start_process();
  faults_.spare(process_->number());
  auto opened =
      store::open(process_->door(), process_->board(),
                  {.working_directory = std::string(working_directory),
                   .workspace = place_.workspace,
                   .namespace_name = place_.namespace_name,
                   .dimension = dimension,
                   .model = "simulated",
                   .lock_timeout = 0ms});
  if (!opened) {
    require(opened.error().code == errc::busy,
            "a store can be opened: " + opened.error().message);
    return;
  }
  store_ = std::move(*opened);
  const auto view = store_->view();
  store_->keep_events(view->generation());
  model_.found(view->generation(), rows_of(*view), world_.step_count(),
               faults_.keeps_commits_whole());
}

void store_observer::look() {
  auto view = store_->refresh();
  require(bool(view), "a sound process can read the store: "
                          + (view ? "" : view.error().message));
  for (auto& each : store_->take_events()) {
    if (each.generation != (*view)->generation())
      ++totals_.unseen_generations;
    model_.saw_event(std::move(each), world_.step_count());
  }
  const auto latest = model_.latest();
  require((*view)->generation() == latest, "every generation has an event");
  if (!model_.saw_state(rows_of(**view), store_->stats().base_generation))
    return;
  world_.remark("generation " + std::to_string(latest) + name() + ":"
                + list_of(*model_.generations().at(latest).state));
  if (faults_.keeps_commits_whole())
    model_.check_all_or_nothing(latest);
}

void store_observer::look_at_files() {
  if (!store_)
    return;
  (void)store_->probe()->look_at_files();
  look();
}

void store_observer::catch_up(std::uint64_t generation) {
  if (generation > model_.latest())
    look_at_files();
}

void store_observer::die() {
  store_.reset();
  process_.reset();
}

} // namespace callboard::test
