#include "tests/support/faulty_io.hpp"

#include <algorithm>
#include <mutex>
#include <optional>
#include <unistd.h>
#include <utility>

namespace callboard::test {

std::string_view to_string(operation_kind kind) noexcept {
  switch (kind) {
  case operation_kind::open_file:
    return "open_file";
  case operation_kind::create_file:
    return "create_file";
  case operation_kind::open_directory:
    return "open_directory";
  case operation_kind::create_directory:
    return "create_directory";
  case operation_kind::read_at:
    return "read_at";
  case operation_kind::write_at:
    return "write_at";
  case operation_kind::append:
    return "append";
  case operation_kind::truncate:
    return "truncate";
  case operation_kind::sync_data:
    return "sync_data";
  case operation_kind::sync:
    return "sync";
  case operation_kind::set_mode:
    return "set_mode";
  case operation_kind::map:
    return "map";
  case operation_kind::lock:
    return "lock";
  case operation_kind::status:
    return "status";
  case operation_kind::list:
    return "list";
  case operation_kind::rename:
    return "rename";
  case operation_kind::link:
    return "link";
  case operation_kind::remove:
    return "remove";
  case operation_kind::sync_directory:
    return "sync_directory";
  }
  return "unknown";
}

bool is_mutation(operation_kind kind) noexcept {
  switch (kind) {
  case operation_kind::open_file:
  case operation_kind::open_directory:
  case operation_kind::read_at:
  case operation_kind::map:
  case operation_kind::status:
  case operation_kind::list:
    return false;
  default:
    return true;
  }
}

std::ostream& operator<<(std::ostream& out, const operation& what) {
  out << '#' << what.index << ' ' << to_string(what.kind) << ' ' << what.path;
  if (!what.target.empty())
    out << " -> " << what.target;
  return out << ", " << what.size_bytes << " bytes";
}

fault fault::fail(errc code) {
  return fail(failure{code, {}});
}

fault fault::fail(failure reason) {
  return {action::fail, std::move(reason), 0};
}

fault fault::cut_short(std::size_t bytes) {
  return {action::cut_short, {errc::no_space, {}}, bytes};
}

fault fault::exit(action when) {
  return {when, {}, 0};
}

/// The counter and the hook, common to everything that one `faulty_io` opened.
class faulty_io::control {
public:
  /// Does `work` as the hook wants it. `shortened(n)` does the first `n` bytes
  /// of it, where that has a meaning.
  template <class Work, class Shortened>
  auto perform(operation what, Work work, Shortened shortened)
      -> decltype(work()) {
    const auto size = static_cast<std::size_t>(what.size_bytes);
    auto decided = decide(std::move(what));
    switch (decided.what) {
    case fault::action::none:
      return work();
    case fault::action::cut_short:
      CALLBOARD_TRY(shortened(std::min(decided.bytes, size)));
      [[fallthrough]];
    case fault::action::fail:
      return std::move(decided.reason);
    case fault::action::exit_half:
      static_cast<void>(shortened(size / 2));
      [[fallthrough]];
    case fault::action::exit_before:
      ::_exit(exit_status);
    case fault::action::exit_after:
      break;
    }
    static_cast<void>(work());
    ::_exit(exit_status);
  }

  template <class Work>
  auto perform(operation what, Work work) -> decltype(work()) {
    return perform(std::move(what), std::move(work),
                   [](std::size_t) { return result<void>(); });
  }

  void set_hook(hook next) {
    const std::lock_guard guard(mutex_);
    hook_ = std::move(next);
  }

  std::vector<operation> operations() const {
    const std::lock_guard guard(mutex_);
    return operations_;
  }

  std::size_t operation_count() const {
    const std::lock_guard guard(mutex_);
    return operations_.size();
  }

  std::size_t fault_count() const {
    const std::lock_guard guard(mutex_);
    return fault_count_;
  }

  void set_wall_clock(std::int64_t seconds) {
    const std::lock_guard guard(mutex_);
    wall_clock_ = seconds;
  }

  std::optional<std::int64_t> wall_clock() const {
    const std::lock_guard guard(mutex_);
    return wall_clock_;
  }

  void stop_steady_clock(std::chrono::nanoseconds time) {
    const std::lock_guard guard(mutex_);
    steady_clock_ = time;
  }

  std::optional<std::chrono::nanoseconds> steady_clock() const {
    const std::lock_guard guard(mutex_);
    return steady_clock_;
  }

  /// False if the steady clock is not stopped.
  bool advance_steady_clock(std::chrono::nanoseconds duration) {
    const std::lock_guard guard(mutex_);
    if (!steady_clock_)
      return false;
    *steady_clock_ += duration;
    return true;
  }

private:
  fault decide(operation what) {
    const std::lock_guard guard(mutex_);
    what.index = operations_.size();
    const auto& noted = operations_.emplace_back(std::move(what));
    auto decided = hook_ ? hook_(noted) : fault::none();
    if (decided.what == fault::action::none)
      return decided;
    ++fault_count_;
    if (decided.reason.message.empty())
      decided.reason.message = "injected fault in "
                               + std::string(to_string(noted.kind)) + " of \""
                               + noted.path + '"';
    return decided;
  }

  mutable std::mutex mutex_;
  // Protected by mutex_:
  hook hook_;
  std::vector<operation> operations_;
  std::size_t fault_count_ = 0;
  std::optional<std::int64_t> wall_clock_;
  std::optional<std::chrono::nanoseconds> steady_clock_;
};

class faulty_io::faulty_file final : public file {
public:
  faulty_file(std::unique_ptr<file> base, std::string path,
              std::shared_ptr<control> shared)
      : base_(std::move(base)),
        path_(std::move(path)),
        control_(std::move(shared)) {}

  result<file_status> status() const override {
    return control_->perform(described(operation_kind::status),
                             [&] { return base_->status(); });
  }

  result<std::size_t> read_at(std::uint64_t offset,
                              std::span<std::byte> buffer) const override {
    return control_->perform(described(operation_kind::read_at, buffer.size()),
                             [&] { return base_->read_at(offset, buffer); });
  }

  result<void> write_at(std::uint64_t offset,
                        std::span<const std::byte> data) override {
    return control_->perform(
        described(operation_kind::write_at, data.size()),
        [&] { return base_->write_at(offset, data); },
        [&](std::size_t n) { return base_->write_at(offset, data.first(n)); });
  }

  result<void> append(std::uint64_t expected_offset,
                      std::span<const std::byte> data) override {
    return control_->perform(
        described(operation_kind::append, data.size()),
        [&] { return base_->append(expected_offset, data); },
        [&](std::size_t n) {
          return base_->append(expected_offset, data.first(n));
        });
  }

  result<void> truncate(std::uint64_t size_bytes) override {
    return control_->perform(described(operation_kind::truncate, size_bytes),
                             [&] { return base_->truncate(size_bytes); });
  }

  result<void> sync_data() override {
    return control_->perform(described(operation_kind::sync_data),
                             [&] { return base_->sync_data(); });
  }

  result<void> sync() override {
    return control_->perform(described(operation_kind::sync),
                             [&] { return base_->sync(); });
  }

  result<void> set_mode(std::uint32_t mode) override {
    return control_->perform(described(operation_kind::set_mode),
                             [&] { return base_->set_mode(mode); });
  }

  result<std::unique_ptr<mapping>> map(std::uint64_t size_bytes,
                                       map_mode mode) const override {
    return control_->perform(described(operation_kind::map, size_bytes),
                             [&] { return base_->map(size_bytes, mode); });
  }

  result<void> lock(std::uint64_t offset, lock_mode mode,
                    std::chrono::milliseconds timeout) override {
    return control_->perform(described(operation_kind::lock), [&] {
      return base_->lock(offset, mode, timeout);
    });
  }

  void unlock(std::uint64_t offset) override { base_->unlock(offset); }

private:
  operation described(operation_kind kind, std::uint64_t size_bytes = 0) const {
    return {0, kind, path_, {}, size_bytes};
  }

  std::unique_ptr<file> base_;
  std::string path_;
  std::shared_ptr<control> control_;
};

class faulty_io::faulty_directory final : public directory {
public:
  faulty_directory(std::unique_ptr<directory> base,
                   std::shared_ptr<control> shared)
      : base_(std::move(base)), control_(std::move(shared)) {}

  const std::string& path() const noexcept override { return base_->path(); }

  result<std::unique_ptr<file>> open_file(std::string_view name,
                                          open_mode mode) const override {
    const bool creates =
        mode == open_mode::create || mode == open_mode::create_empty;
    const auto what = described(creates ? operation_kind::create_file
                                        : operation_kind::open_file,
                                name);
    return control_->perform(what, [&]() -> result<std::unique_ptr<file>> {
      CALLBOARD_TRY_ASSIGN(auto opened, base_->open_file(name, mode));
      return std::unique_ptr<file>(std::make_unique<faulty_file>(
          std::move(opened), what.path, control_));
    });
  }

  result<std::unique_ptr<directory>>
  open_directory(std::string_view name, bool create) const override {
    return opened_by(
        described(create ? operation_kind::create_directory
                         : operation_kind::open_directory,
                  name),
        [&] { return base_->open_directory(name, create); }, control_);
  }

  result<file_status> status(std::string_view name) const override {
    return control_->perform(described(operation_kind::status, name),
                             [&] { return base_->status(name); });
  }

  result<std::vector<std::string>> list() const override {
    return control_->perform(operation{0, operation_kind::list, path(), {}, 0},
                             [&] { return base_->list(); });
  }

  result<void> rename(std::string_view from, std::string_view to) override {
    auto what = described(operation_kind::rename, from);
    what.target = joined(path(), to);
    return control_->perform(std::move(what),
                             [&] { return base_->rename(from, to); });
  }

  result<void> link(std::string_view from, directory& target,
                    std::string_view to) override {
    auto what = described(operation_kind::link, from);
    what.target = joined(target.path(), to);
    auto* decorated = dynamic_cast<faulty_directory*>(&target);
    auto& place = decorated != nullptr ? *decorated->base_ : target;
    return control_->perform(std::move(what),
                             [&] { return base_->link(from, place, to); });
  }

  result<void> remove(std::string_view name) override {
    return control_->perform(described(operation_kind::remove, name),
                             [&] { return base_->remove(name); });
  }

  result<void> sync() override {
    return control_->perform(
        operation{0, operation_kind::sync_directory, path(), {}, 0},
        [&] { return base_->sync(); });
  }

  result<file_system> kept_by() const override { return base_->kept_by(); }

  /// Performs `open`, which gives a directory, and decorates what it gave.
  template <class Open>
  static result<std::unique_ptr<directory>>
  opened_by(operation what, Open open, const std::shared_ptr<control>& shared) {
    return shared->perform(
        std::move(what), [&]() -> result<std::unique_ptr<directory>> {
          CALLBOARD_TRY_ASSIGN(auto opened, open());
          return std::unique_ptr<directory>(
              std::make_unique<faulty_directory>(std::move(opened), shared));
        });
  }

private:
  static std::string joined(std::string_view place, std::string_view name) {
    return std::string(place) + '/' + std::string(name);
  }

  operation described(operation_kind kind, std::string_view name) const {
    return {0, kind, joined(path(), name), {}, 0};
  }

  std::unique_ptr<directory> base_;
  std::shared_ptr<control> control_;
};

faulty_io::faulty_io(io& base)
    : base_(base), control_(std::make_shared<control>()) {}

faulty_io::~faulty_io() = default;

void faulty_io::set_hook(hook next) {
  control_->set_hook(std::move(next));
}

void faulty_io::exit_at(std::size_t index, moment when) {
  auto action = fault::action::exit_before;
  if (when == moment::half)
    action = fault::action::exit_half;
  else if (when == moment::after)
    action = fault::action::exit_after;
  set_hook([index, action](const operation& what) {
    return what.index == index ? fault::exit(action) : fault::none();
  });
}

void faulty_io::fail_at(std::size_t index, errc code, persistence how) {
  set_hook([index, code, how](const operation& what) {
    const bool hit = what.index == index
                     || (what.index > index && how == persistence::persistent);
    return hit ? fault::fail(code) : fault::none();
  });
}

void faulty_io::fail_from(operation_kind kind, errc code, persistence how,
                          std::size_t nth) {
  std::size_t seen = 0;
  set_hook([kind, code, how, nth, seen](const operation& what) mutable {
    if (what.kind != kind)
      return fault::none();
    const auto number = seen++;
    const bool hit =
        number == nth || (number > nth && how == persistence::persistent);
    return hit ? fault::fail(code) : fault::none();
  });
}

std::vector<operation> faulty_io::operations() const {
  return control_->operations();
}

std::size_t faulty_io::operation_count() const {
  return control_->operation_count();
}

std::size_t faulty_io::fault_count() const {
  return control_->fault_count();
}

void faulty_io::set_wall_clock(std::int64_t seconds) {
  control_->set_wall_clock(seconds);
}

void faulty_io::stop_steady_clock() {
  control_->stop_steady_clock(base_.steady_clock());
}

result<std::unique_ptr<directory>>
faulty_io::open_directory(std::string_view path, bool create) {
  operation what;
  what.kind = create ? operation_kind::create_directory
                     : operation_kind::open_directory;
  what.path = path;
  return faulty_directory::opened_by(
      std::move(what), [&] { return base_.open_directory(path, create); },
      control_);
}

std::int64_t faulty_io::wall_clock_seconds() {
  const auto stopped = control_->wall_clock();
  return stopped ? *stopped : base_.wall_clock_seconds();
}

std::chrono::nanoseconds faulty_io::steady_clock() {
  const auto stopped = control_->steady_clock();
  return stopped ? *stopped : base_.steady_clock();
}

void faulty_io::pause(std::chrono::milliseconds duration) {
  if (!control_->advance_steady_clock(duration))
    base_.pause(duration);
}

std::uint64_t faulty_io::random_bits() {
  return base_.random_bits();
}

std::string faulty_io::boot_id() {
  return base_.boot_id();
}

} // namespace callboard::test
