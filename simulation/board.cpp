#include "simulation/board.hpp"

#include "ipc/board_memory_source.hpp"
#include "ipc/process_board.hpp"
#include "ipc/shared_board.hpp"
#include "simulation/machine_state.hpp"
#include "simulation/path.hpp"

#include <algorithm>
#include <array>
#include <tuple>
#include <utility>

namespace callboard::simulation {

namespace {

// -- Memory -------------------------------------------------------------------

class simulated_area final : public board_area {
public:
  simulated_area(std::shared_ptr<process_state> self, disk::inode_number inode,
                 std::string path)
      : self_(std::move(self)), inode_(inode), path_(std::move(path)) {
    auto& computer = *self_->machine;
    number_ = computer.next_handle++;
    computer.handles[number_] = {self_->number, inode_};
    computer.files.hold(inode_);
    found_.status = computer.status_of(inode_);
    found_.is_own = true;
    std::array<std::byte, sizeof(found_.head)> head{};
    if (computer.read(inode_, 0, head) == head.size())
      found_.head = head;
  }

  simulated_area(const simulated_area&) = delete;
  simulated_area& operator=(const simulated_area&) = delete;
  ~simulated_area() override { self_->machine->close(number_); }

  const found_memory& found() const noexcept override { return found_; }

  result<void*> map(std::uint64_t size_bytes) override {
    operation what;
    what.kind = operation_kind::map;
    std::tie(what.directory, what.name) = split(path_);
    what.size_bytes = size_bytes;
    step now(*self_, what);
    if (!now.may_go_on())
      return now.refusal();
    if (now.is_partial())
      return now.finish_part();
    mapped_ =
        self_->machine->board_at(inode_).map(*self_->machine->board_memories);
    CALLBOARD_TRY(now.succeed());
    return static_cast<void*>(mapped_.get());
  }

private:
  std::shared_ptr<process_state> self_;
  disk::inode_number inode_;
  std::string path_;
  /// While it is open, nothing else gets its number.
  handle_number number_ = 0;
  found_memory found_;
  std::shared_ptr<board_memory> mapped_;
};

class simulated_memory final : public board_memory_source {
public:
  explicit simulated_memory(std::shared_ptr<process_state> self)
      : self_(std::move(self)) {}

  result<std::unique_ptr<board_area>>
  open(const std::string& path, const file_identity&, board_backing) override {
    operation what;
    what.kind = operation_kind::open_file;
    std::tie(what.directory, what.name) = split(path);
    step now(*self_, what);
    if (!now.may_go_on())
      return now.refusal();
    if (now.is_partial())
      return now.finish_part();
    const auto inode = find(self_->machine->files, path);
    if (!inode)
      return now.fail({errc::not_found, "it has no file any more"});
    auto opened = std::make_unique<simulated_area>(self_, *inode, path);
    CALLBOARD_TRY(now.succeed());
    return std::unique_ptr<board_area>(std::move(opened));
  }

  std::uint64_t process_number() const noexcept override {
    return self_->number;
  }

private:
  std::shared_ptr<process_state> self_;
};

// -- The board ----------------------------------------------------------------

/// Makes each change an operation of the process.
class simulated_notices final : public store_notices {
public:
  simulated_notices(std::shared_ptr<process_state> self,
                    std::shared_ptr<store_notices> real, std::string name)
      : self_(std::move(self)),
        real_(std::move(real)),
        name_(std::move(name)) {}

  std::uint64_t durable_sequence() const noexcept override {
    return real_->durable_sequence();
  }
  std::optional<std::uint64_t> poisoned_from() const noexcept override {
    return real_->poisoned_from();
  }
  bool covers_all_processes() const noexcept override {
    return real_->covers_all_processes();
  }

  void announce(std::uint64_t sequence) noexcept override {
    change(operation_kind::announce, sequence,
           [&] { real_->announce(sequence); });
  }
  void poison(std::uint64_t sequence) noexcept override {
    change(operation_kind::poison, sequence, [&] { real_->poison(sequence); });
  }
  void clear_poison() noexcept override {
    change(operation_kind::clear_poison, 0, [&] { real_->clear_poison(); });
  }
  void note_base_epoch(std::uint64_t epoch) noexcept override {
    if (self_->is_alive)
      real_->note_base_epoch(epoch);
  }

private:
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
  std::shared_ptr<store_notices> real_;
  std::string name_;
};

class simulated_board final : public notice_board {
public:
  simulated_board(std::shared_ptr<process_state> self, io& door)
      : self_(std::move(self)), memory_(self_) {
    if (self_->has_board)
      shared_ = std::make_unique<shared_board>(door, board_backing::file,
                                               memory_, local_);
  }

  std::shared_ptr<store_notices> attach(const store_address& address) override {
    auto attached = real().attach(address);
    if (self_->is_alive && !attached->covers_all_processes())
      ++self_->machine->unshared_attachments;
    return std::make_shared<simulated_notices>(self_, std::move(attached),
                                               address.namespace_name);
  }

  std::uint64_t announcements() const noexcept override {
    return real().announcements();
  }

  void wait(std::uint64_t seen, std::chrono::milliseconds timeout) override;

  void interrupt() noexcept override {
    is_interrupted_ = true;
    real().interrupt();
  }

private:
  notice_board& real() noexcept {
    return shared_ ? static_cast<notice_board&>(*shared_) : local_;
  }
  const notice_board& real() const noexcept {
    return shared_ ? static_cast<const notice_board&>(*shared_) : local_;
  }

  bool may_return(std::uint64_t seen) {
    return !self_->is_alive || announcements() != seen
           || std::exchange(is_interrupted_, false);
  }

  std::shared_ptr<process_state> self_;
  simulated_memory memory_;
  local_board local_;
  /// Null: the process has no shared memory.
  std::unique_ptr<shared_board> shared_;
  bool is_interrupted_ = false;
};

/// The real board looks what there is, and never sleeps: time passes here.
void simulated_board::wait(std::uint64_t seen,
                           std::chrono::milliseconds timeout) {
  constexpr std::chrono::milliseconds nothing{0};
  auto& computer = *self_->machine;
  const auto give_up = computer.steady + timeout;
  operation what;
  what.kind = operation_kind::pause;
  what.directory = "board:";
  what.process = self_->number;
  what.index = computer.next_operation;
  for (;;) {
    if (self_->is_alive)
      real().wait(seen, nothing);
    if (may_return(seen) || computer.steady >= give_up)
      return;
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

std::unique_ptr<notice_board> make_board(std::shared_ptr<process_state> self,
                                         io& door) {
  return std::make_unique<simulated_board>(std::move(self), door);
}

} // namespace callboard::simulation
