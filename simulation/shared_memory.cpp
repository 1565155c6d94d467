#include "simulation/shared_memory.hpp"

#include "simulation/machine_state.hpp"

#include <algorithm>
#include <utility>

namespace callboard::simulation {

void shared_memory::announce(const store_id& id, std::uint64_t sequence) {
  auto& durable = stores[id].durable_sequence;
  durable = std::max(durable, sequence);
  ++announcements;
}

void shared_memory::poison(const store_id& id, std::uint64_t sequence) {
  auto& poisoned = stores[id].poisoned_from;
  poisoned = poisoned ? std::min(*poisoned, sequence) : sequence;
}

namespace {

class simulated_notices final : public store_notices {
public:
  simulated_notices(std::shared_ptr<process_state> self,
                    const store_address& address)
      : self_(std::move(self)),
        id_(address.id),
        name_(address.namespace_name) {}

  std::uint64_t durable_sequence() const noexcept override {
    return words().durable_sequence;
  }
  std::optional<std::uint64_t> poisoned_from() const noexcept override {
    return words().poisoned_from;
  }
  bool covers_all_processes() const noexcept override {
    return self_->has_board;
  }

  void announce(std::uint64_t sequence) noexcept override {
    change(operation_kind::announce, sequence,
           [&] { self_->memory().announce(id_, sequence); });
  }
  void poison(std::uint64_t sequence) noexcept override {
    change(operation_kind::poison, sequence,
           [&] { self_->memory().poison(id_, sequence); });
  }
  void clear_poison() noexcept override {
    change(operation_kind::clear_poison, 0,
           [&] { self_->memory().stores[id_].poisoned_from.reset(); });
  }
  void note_base_epoch(std::uint64_t epoch) noexcept override {
    if (self_->is_alive)
      self_->memory().stores[id_].base_epoch = epoch;
  }

private:
  shared_memory::store_words words() const {
    const auto& stores = self_->memory().stores;
    const auto found = stores.find(id_);
    return found == stores.end() ? shared_memory::store_words{} : found->second;
  }

  template <class Work>
  void change(operation_kind kind, std::uint64_t sequence, Work work) {
    operation what;
    what.kind = kind;
    what.directory = "board:";
    what.name = name_;
    what.offset = sequence;
    step now(*self_, what);
    if (!now.may_go_on())
      return;
    if (now.is_partial()) {
      (void)now.finish_part();
      return;
    }
    work();
    (void)now.succeed();
  }

  std::shared_ptr<process_state> self_;
  store_id id_;
  std::string name_;
};

class simulated_board final : public notice_board {
public:
  explicit simulated_board(std::shared_ptr<process_state> self)
      : self_(std::move(self)) {}

  std::shared_ptr<store_notices> attach(const store_address& address) override {
    return std::make_shared<simulated_notices>(self_, address);
  }

  std::uint64_t announcements() const noexcept override {
    return self_->memory().announcements;
  }

  void wait(std::uint64_t seen, std::chrono::milliseconds timeout) override;

  void interrupt() noexcept override { self_->is_interrupted = true; }

private:
  bool may_return(std::uint64_t seen) {
    return !self_->is_alive || announcements() != seen
           || std::exchange(self_->is_interrupted, false);
  }

  std::shared_ptr<process_state> self_;
};

void simulated_board::wait(std::uint64_t seen,
                           std::chrono::milliseconds timeout) {
  constexpr std::chrono::nanoseconds nothing{0};
  auto& computer = *self_->machine;
  const auto give_up = computer.steady + timeout;
  operation what;
  what.kind = operation_kind::pause;
  what.directory = "board:";
  what.process = self_->number;
  what.index = computer.next_operation;
  while (!may_return(seen) && computer.steady < give_up) {
    if (!computer.yield) {
      computer.advance(give_up - computer.steady);
      return;
    }
    const auto before = computer.steady;
    computer.yield(what);
    what.is_repeated = true;
    if (computer.steady == before)
      computer.advance(std::clamp<std::chrono::nanoseconds>(
          give_up - before, nothing, std::chrono::milliseconds(1)));
  }
}

} // namespace

std::unique_ptr<notice_board> make_board(std::shared_ptr<process_state> self) {
  return std::make_unique<simulated_board>(std::move(self));
}

} // namespace callboard::simulation
