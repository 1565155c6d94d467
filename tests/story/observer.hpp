#pragma once

#include "simulation/world.hpp"
#include "tests/story/faults.hpp"
#include "tests/story/model.hpp"
#include "tests/story/story.hpp"

#include <cstdint>
#include <memory>
#include <string>

/// Who sees what is committed.
namespace callboard::test {

/// Which store of the simulated computer.
struct store_place {
  std::string workspace;
  std::string namespace_name;
};

/// One more process that has the store open, with a sound disk, and tells the
/// model of each generation.
class store_observer {
public:
  store_observer(simulation::world& world, fault_maker& faults,
                 story_totals& totals, store_place place)
      : world_(world),
        faults_(faults),
        totals_(totals),
        place_(std::move(place)) {}

  const store_place& place() const { return place_; }
  store_model& model() { return model_; }
  const store_model& model() const { return model_; }

  /// Opens the store, or sees what is new since.
  void observe();
  /// Frames that nobody has announced yet are shown to who looks at files.
  void look_at_files();
  void catch_up(std::uint64_t generation);
  /// All processes have died.
  void die();

  /// Nobody can say what is committed if all have died meanwhile.
  bool is_open() const { return store_ != nullptr; }

private:
  void open();
  void look();
  std::string name() const;

  simulation::world& world_;
  fault_maker& faults_;
  story_totals& totals_;
  store_place place_;
  store_model model_;
  std::unique_ptr<simulation::process> process_;
  std::unique_ptr<store> store_;
};

bool is_close(const std::vector<float>& one, const std::vector<float>& other);

/// The rows of a view, each checked to be whole.
rows rows_of(const snapshot& view);

} // namespace callboard::test
