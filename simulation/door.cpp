#include "simulation/door.hpp"

#include "simulation/machine_state.hpp"
#include "simulation/path.hpp"

#include <algorithm>
#include <system_error>
#include <utility>

namespace callboard::simulation {

namespace {

constexpr std::errc no_error{};

errc code_of(std::errc error) {
  switch (error) {
  case std::errc::no_space_on_device:
    return errc::no_space;
  case std::errc::permission_denied:
  case std::errc::operation_not_permitted:
    return errc::permission_denied;
  case std::errc::no_such_file_or_directory:
    return errc::not_found;
  default:
    return errc::io_failure;
  }
}

failure system_failure(const operation& what, std::errc error) {
  const auto code = std::make_error_code(error);
  return described(code_of(error), what,
                   code.message() + " (errno " + std::to_string(code.value())
                       + ')');
}

failure no_component(const operation& what) {
  return described(errc::invalid_argument, what,
                   "a name must be one path component, neither empty nor "
                   "\".\" nor \"..\"");
}

/// The first bytes of a file as it was.
class simulated_mapping final : public mapping {
public:
  simulated_mapping(std::shared_ptr<const disk::buffer> content,
                    std::size_t size) noexcept
      : content_(std::move(content)), size_(size) {}

  std::span<const std::byte> bytes() const noexcept override {
    return {content_->data(), size_};
  }

private:
  std::shared_ptr<const disk::buffer> content_;
  std::size_t size_;
};

/// A file or directory that a process has open.
class handle {
public:
  handle(std::shared_ptr<process_state> self, disk::inode_number inode,
         std::string directory, std::string name)
      : self_(std::move(self)),
        inode_(inode),
        directory_(std::move(directory)),
        name_(std::move(name)) {
    auto& computer = machine();
    number_ = computer.next_handle++;
    computer.handles[number_] = {self_->number, inode_};
    files().hold(inode_);
  }
  handle(const handle&) = delete;
  handle& operator=(const handle&) = delete;
  ~handle() {
    if (!self_->is_alive)
      return; // it was closed when the process died
    auto what = described_as(operation_kind::close);
    what.index = machine().next_operation;
    what.process = self_->number;
    machine().record(what, std::nullopt);
    machine().close(number_);
  }

  operation described_as(operation_kind kind) const {
    operation what;
    what.kind = kind;
    what.directory = directory_;
    what.name = name_;
    return what;
  }

  process_state& self() const { return *self_; }
  const std::shared_ptr<process_state>& shared_self() const { return self_; }
  machine_state& machine() const { return *self_->machine; }
  disk& files() const { return machine().files; }
  disk::inode_number inode() const { return inode_; }
  handle_number number() const { return number_; }
  const std::string& directory() const { return directory_; }

  /// Does `work`, which gives a `std::errc`, as one operation.
  template <class Work>
  result<void> perform(operation what, Work work) const {
    step now(self(), what);
    if (!now.may_go_on())
      return now.refusal();
    if (now.is_partial())
      return now.finish_part();
    if (const auto error = work(); error != no_error)
      return now.fail(system_failure(what, error));
    return now.succeed();
  }

private:
  std::shared_ptr<process_state> self_;
  disk::inode_number inode_;
  std::string directory_;
  std::string name_;
  handle_number number_ = 0;
};

// -- Files --------------------------------------------------------------------

class simulated_file final : public file {
public:
  simulated_file(const handle& place, disk::inode_number inode,
                 std::string_view name, bool is_writable)
      : handle_(place.shared_self(), inode, place.directory(),
                std::string(name)),
        is_writable_(is_writable) {}

  result<file_status> status() const override;
  result<std::size_t> read_at(std::uint64_t offset,
                              std::span<std::byte> buffer) const override;
  result<void> write_at(std::uint64_t offset,
                        std::span<const std::byte> data) override;
  result<void> append(std::uint64_t expected_offset,
                      std::span<const std::byte> data) override;
  result<void> truncate(std::uint64_t size_bytes) override;
  result<void> sync_data() override;
  result<void> sync() override;
  result<void> set_mode(std::uint32_t mode) override;
  result<std::unique_ptr<mapping>> map(std::uint64_t size_bytes,
                                       map_mode mode) const override;
  result<void> lock(std::uint64_t offset, lock_mode mode,
                    std::chrono::milliseconds timeout) override;
  void unlock(std::uint64_t offset) override;

private:
  operation described_as(operation_kind kind, std::uint64_t offset,
                         std::uint64_t size_bytes) const {
    auto what = handle_.described_as(kind);
    what.offset = offset;
    what.size_bytes = size_bytes;
    return what;
  }

  std::uint64_t size() const {
    return handle_.files().status(handle_.inode()).size_bytes;
  }

  template <class Work>
  result<void> sync_with(operation_kind kind, Work work);
  result<void> write_in_parts(step& now, const operation& what,
                              std::span<const std::byte> data);
  std::errc put(std::uint64_t offset, std::span<const std::byte> data);

  handle handle_;
  bool is_writable_;
};

result<file_status> simulated_file::status() const {
  file_status out;
  CALLBOARD_TRY(
      handle_.perform(described_as(operation_kind::status, 0, 0), [&] {
        out = handle_.machine().status_of(handle_.inode());
        return no_error;
      }));
  return out;
}

result<std::size_t> simulated_file::read_at(std::uint64_t offset,
                                            std::span<std::byte> buffer) const {
  std::size_t count = 0;
  CALLBOARD_TRY(handle_.perform(
      described_as(operation_kind::read_at, offset, buffer.size()), [&] {
        count = handle_.machine().read(handle_.inode(), offset, buffer);
        return no_error;
      }));
  return count;
}

std::errc simulated_file::put(std::uint64_t offset,
                              std::span<const std::byte> data) {
  return handle_.machine().write(handle_.inode(), offset, data);
}

/// All of it, unless only a part is to be done; if somebody watches, with a
/// stop on the way.
result<void> simulated_file::write_in_parts(step& now, const operation& what,
                                            std::span<const std::byte> data) {
  if (!is_writable_ && !data.empty())
    return now.fail(system_failure(what, std::errc::bad_file_descriptor));
  auto offset = what.offset;
  if (now.is_partial()) {
    (void)put(offset, data.first(now.part_of(data.size())));
    return now.finish_part();
  }
  if (now.is_watched() && !data.empty()) {
    const auto part = now.part_of(data.size());
    (void)put(offset, data.first(part));
    now.half_done();
    offset += part;
    data = data.subspan(part);
  }
  if (const auto error = put(offset, data); error != no_error)
    return now.fail(system_failure(what, error));
  return now.succeed();
}

result<void> simulated_file::write_at(std::uint64_t offset,
                                      std::span<const std::byte> data) {
  auto what = described_as(operation_kind::write_at, offset, data.size());
  step now(handle_.self(), what);
  if (!now.may_go_on())
    return now.refusal();
  return write_in_parts(now, what, data);
}

result<void> simulated_file::append(std::uint64_t expected_offset,
                                    std::span<const std::byte> data) {
  auto what =
      described_as(operation_kind::append, expected_offset, data.size());
  step now(handle_.self(), what);
  if (!now.may_go_on())
    return now.refusal();
  if (size() != expected_offset)
    return now.fail(described(
        errc::broken, what,
        "it should have " + std::to_string(expected_offset) + " bytes, but has "
            + std::to_string(size()) + ": something else wrote to it"));
  return write_in_parts(now, what, data);
}

result<void> simulated_file::truncate(std::uint64_t size_bytes) {
  return handle_.perform(
      described_as(operation_kind::truncate, 0, size_bytes), [&] {
        if (!is_writable_)
          return std::errc::invalid_argument;
        return handle_.files().resize(handle_.inode(), size_bytes,
                                      handle_.machine().wall_ns());
      });
}

template <class Work>
result<void> simulated_file::sync_with(operation_kind kind, Work work) {
  auto what = described_as(kind, 0, 0);
  step now(handle_.self(), what);
  if (!now.may_go_on()) {
    if (handle_.self().is_alive)
      handle_.files().fail_sync(handle_.inode());
    return now.refusal();
  }
  if (now.is_partial())
    return now.finish_part();
  work();
  return now.succeed();
}

result<void> simulated_file::sync_data() {
  return sync_with(operation_kind::sync_data,
                   [&] { handle_.files().sync_data(handle_.inode()); });
}

result<void> simulated_file::sync() {
  return sync_with(operation_kind::sync,
                   [&] { handle_.files().sync(handle_.inode()); });
}

result<void> simulated_file::set_mode(std::uint32_t mode) {
  auto what = described_as(operation_kind::set_mode, 0, 0);
  what.mode = mode;
  return handle_.perform(what, [&] {
    handle_.files().set_mode(handle_.inode(), mode & 07777u);
    return no_error;
  });
}

result<std::unique_ptr<mapping>> simulated_file::map(std::uint64_t size_bytes,
                                                     map_mode) const {
  auto what = described_as(operation_kind::map, 0, size_bytes);
  step now(handle_.self(), what);
  if (!now.may_go_on())
    return now.refusal();
  if (now.is_partial())
    return now.finish_part();
  if (size() < size_bytes)
    return now.fail(described(errc::corrupt, what,
                              "it should have at least "
                                  + std::to_string(size_bytes)
                                  + " bytes, but has " + std::to_string(size())
                                  + ": it was cut or replaced"));
  auto mapped = std::make_unique<simulated_mapping>(
      handle_.files().content(handle_.inode()),
      static_cast<std::size_t>(size_bytes));
  CALLBOARD_TRY(now.succeed());
  return std::unique_ptr<mapping>(std::move(mapped));
}

result<void> simulated_file::lock(std::uint64_t offset, lock_mode mode,
                                  std::chrono::milliseconds timeout) {
  constexpr std::chrono::nanoseconds poll = std::chrono::milliseconds(1);
  auto what = described_as(operation_kind::lock, offset, 0);
  step now(handle_.self(), what);
  if (!now.may_go_on())
    return now.refusal();
  if (now.is_partial())
    return now.finish_part();
  if (mode == lock_mode::exclusive && !is_writable_)
    return now.fail(system_failure(what, std::errc::bad_file_descriptor));
  auto& computer = handle_.machine();
  auto patience =
      std::chrono::nanoseconds(std::clamp<std::chrono::milliseconds>(
          timeout, {}, std::chrono::hours(24 * 365)));
  while (!computer.locks.acquire(handle_.number(), handle_.inode(), offset,
                                 mode)) {
    if (patience.count() == 0)
      return now.fail(described(errc::busy, what,
                                "byte " + std::to_string(offset)
                                    + " is held by somebody else; waited "
                                    + std::to_string(timeout.count()) + " ms"));
    const auto pause = computer.yield ? std::min(poll, patience) : patience;
    computer.advance(pause);
    patience -= pause;
    what.is_repeated = true;
    if (computer.yield)
      computer.yield(what);
    if (!handle_.self().is_alive)
      return dead(what);
  }
  return now.succeed();
}

void simulated_file::unlock(std::uint64_t offset) {
  auto what = described_as(operation_kind::unlock, offset, 0);
  step now(handle_.self(), what);
  if (!handle_.self().is_alive)
    return;
  handle_.machine().locks.release(handle_.number(), handle_.inode(), offset);
  if (now.may_go_on())
    (void)(now.is_partial() ? result<void>(now.finish_part()) : now.succeed());
}

// -- Directories --------------------------------------------------------------

class simulated_directory final : public directory {
public:
  simulated_directory(std::shared_ptr<process_state> self,
                      disk::inode_number inode, std::string path)
      : handle_(std::move(self), inode, std::move(path), "") {}

  const std::string& path() const noexcept override {
    return handle_.directory();
  }

  result<std::unique_ptr<file>> open_file(std::string_view name,
                                          open_mode mode) const override;
  result<std::unique_ptr<directory>> open_directory(std::string_view name,
                                                    bool create) const override;
  result<file_status> status(std::string_view name) const override;
  result<std::vector<std::string>> list() const override;
  result<void> rename(std::string_view from, std::string_view to) override;
  result<void> link(std::string_view from, directory& target,
                    std::string_view to) override;
  result<void> remove(std::string_view name) override;
  result<void> sync() override;
  result<file_system> kept_by() const override {
    return handle_.machine().keeper;
  }

private:
  operation described_as(operation_kind kind, std::string_view name) const {
    auto what = handle_.described_as(kind);
    what.name = name;
    return what;
  }

  std::string path_of(std::string_view name) const {
    return path().ends_with('/') ? path() + std::string(name)
                                 : path() + '/' + std::string(name);
  }

  std::errc make_file(std::string_view name, open_mode mode,
                      disk::inode_number& found) const;

  handle handle_;
};

/// Finds or makes the file; empties it if asked to.
std::errc simulated_directory::make_file(std::string_view name, open_mode mode,
                                         disk::inode_number& found) const {
  auto& files = handle_.files();
  const auto now = handle_.machine().wall_ns();
  const bool creates =
      mode == open_mode::create || mode == open_mode::create_empty;
  const auto there = files.find(handle_.inode(), name);
  if (!there && (!creates || files.is_removed(handle_.inode())))
    return std::errc::no_such_file_or_directory;
  found = there ? *there
                : handle_.machine().made(
                    files.create_file(handle_.inode(), name, 0600, now));
  if (files.is_directory(found))
    return std::errc::is_a_directory;
  if (mode == open_mode::create_empty && files.status(found).size_bytes != 0)
    return files.resize(found, 0, now);
  return no_error;
}

result<std::unique_ptr<file>>
simulated_directory::open_file(std::string_view name, open_mode mode) const {
  const bool creates =
      mode == open_mode::create || mode == open_mode::create_empty;
  const auto what = described_as(
      creates ? operation_kind::create_file : operation_kind::open_file, name);
  if (!is_component(name))
    return no_component(what);
  std::unique_ptr<file> opened;
  CALLBOARD_TRY(handle_.perform(what, [&] {
    disk::inode_number found = 0;
    const auto error = make_file(name, mode, found);
    if (error == no_error)
      opened = std::make_unique<simulated_file>(handle_, found, name,
                                                mode != open_mode::read);
    return error;
  }));
  return opened;
}

result<std::unique_ptr<directory>>
simulated_directory::open_directory(std::string_view name, bool create) const {
  const auto what = described_as(create ? operation_kind::create_directory
                                        : operation_kind::open_directory,
                                 name);
  if (!is_component(name))
    return no_component(what);
  std::unique_ptr<directory> opened;
  CALLBOARD_TRY(handle_.perform(what, [&] {
    auto& files = handle_.files();
    auto found = files.find(handle_.inode(), name);
    if (!found && (!create || files.is_removed(handle_.inode())))
      return std::errc::no_such_file_or_directory;
    if (!found)
      found = handle_.machine().made(files.create_directory(
          handle_.inode(), name, 0700, handle_.machine().wall_ns()));
    if (!files.is_directory(*found))
      return std::errc::not_a_directory;
    opened = std::make_unique<simulated_directory>(handle_.shared_self(),
                                                   *found, path_of(name));
    return no_error;
  }));
  return opened;
}

result<file_status> simulated_directory::status(std::string_view name) const {
  const auto what = described_as(operation_kind::status, name);
  if (!is_component(name))
    return no_component(what);
  file_status out;
  CALLBOARD_TRY(handle_.perform(what, [&] {
    const auto found = handle_.files().find(handle_.inode(), name);
    if (!found)
      return std::errc::no_such_file_or_directory;
    out = handle_.machine().status_of(*found);
    return no_error;
  }));
  return out;
}

result<std::vector<std::string>> simulated_directory::list() const {
  std::vector<std::string> out;
  CALLBOARD_TRY(handle_.perform(described_as(operation_kind::list, ""), [&] {
    out = handle_.files().names(handle_.inode());
    return no_error;
  }));
  return out;
}

result<void> simulated_directory::rename(std::string_view from,
                                         std::string_view to) {
  auto what = described_as(operation_kind::rename, from);
  what.target_directory = path();
  what.target_name = to;
  if (!is_component(from) || !is_component(to))
    return no_component(what);
  return handle_.perform(
      what, [&] { return handle_.files().rename(handle_.inode(), from, to); });
}

result<void> simulated_directory::link(std::string_view from, directory& target,
                                       std::string_view to) {
  auto what = described_as(operation_kind::link, from);
  what.target_directory = target.path();
  what.target_name = to;
  auto* place = dynamic_cast<simulated_directory*>(&target);
  if (place == nullptr)
    return described(errc::invalid_argument, what,
                     "the target directory is not of this io");
  if (!is_component(from) || !is_component(to))
    return no_component(what);
  return handle_.perform(what, [&] {
    return handle_.files().link(handle_.inode(), from, place->handle_.inode(),
                                to);
  });
}

result<void> simulated_directory::remove(std::string_view name) {
  const auto what = described_as(operation_kind::remove, name);
  if (!is_component(name))
    return no_component(what);
  return handle_.perform(
      what, [&] { return handle_.files().remove(handle_.inode(), name); });
}

result<void> simulated_directory::sync() {
  return handle_.perform(described_as(operation_kind::sync_directory, ""), [&] {
    handle_.files().sync_directory(handle_.inode());
    return no_error;
  });
}

// -- The operating system -----------------------------------------------------

std::string without_trailing_slashes(std::string_view path) {
  while (path.size() > 1 && path.ends_with('/'))
    path.remove_suffix(1);
  return std::string(path);
}

class simulated_system final : public io {
public:
  explicit simulated_system(std::shared_ptr<process_state> self)
      : self_(std::move(self)) {}

  result<std::unique_ptr<directory>> open_directory(std::string_view path,
                                                    bool create) override;
  std::int64_t wall_clock_seconds() override {
    return std::chrono::floor<std::chrono::seconds>(machine().wall).count();
  }
  std::chrono::nanoseconds steady_clock() override { return machine().steady; }
  void pause(std::chrono::milliseconds duration) override;
  std::uint64_t random_bits() override { return machine().random.bits(); }
  std::string boot_id() override {
    return "boot-" + std::to_string(machine().boot);
  }

private:
  machine_state& machine() { return *self_->machine; }

  /// As mkdir -p; the new names are durable if `synced`.
  std::errc walk(std::string_view path, bool create, bool synced,
                 disk::inode_number& found);

  std::shared_ptr<process_state> self_;
};

std::errc simulated_system::walk(std::string_view path, bool create,
                                 bool synced, disk::inode_number& found) {
  auto& files = machine().files;
  found = disk::root;
  for (const auto part : components(path)) {
    if (!files.is_directory(found))
      return std::errc::not_a_directory;
    const auto next = files.find(found, part);
    if (!next && !create)
      return std::errc::no_such_file_or_directory;
    const auto parent = found;
    found = next ? *next
                 : machine().made(files.create_directory(parent, part, 0755,
                                                         machine().wall_ns()));
    if (create && synced) // who made it may have died before
      files.sync_directory(parent);
  }
  return files.is_directory(found) ? no_error : std::errc::not_a_directory;
}

result<std::unique_ptr<directory>>
simulated_system::open_directory(std::string_view path, bool create) {
  auto place = without_trailing_slashes(path);
  operation what;
  what.kind = create ? operation_kind::create_directory
                     : operation_kind::open_directory;
  what.directory = place;
  if (path.empty() || path.find('\0') != path.npos)
    return described(errc::invalid_argument, what,
                     "a path must not be empty or contain a NUL");
  step now(*self_, what);
  if (!now.may_go_on())
    return now.refusal();
  disk::inode_number found = 0;
  const bool is_partial = now.is_partial();
  const auto error = walk(place, create, !is_partial, found);
  if (is_partial)
    return now.finish_part();
  if (error != no_error)
    return now.fail(system_failure(what, error));
  auto opened = std::make_unique<simulated_directory>(self_, found, place);
  CALLBOARD_TRY(now.succeed());
  return std::unique_ptr<directory>(std::move(opened));
}

void simulated_system::pause(std::chrono::milliseconds duration) {
  operation what;
  what.kind = operation_kind::pause;
  what.directory = "clock";
  step now(*self_, what);
  if (!self_->is_alive)
    return;
  machine().advance(duration);
  if (now.may_go_on())
    (void)(now.is_partial() ? result<void>(now.finish_part()) : now.succeed());
}

} // namespace

std::unique_ptr<io> make_door(std::shared_ptr<process_state> self) {
  return std::make_unique<simulated_system>(std::move(self));
}

} // namespace callboard::simulation
