#include "tests/torture/power_loss_io.hpp"

#include <utility>

namespace callboard::test {

namespace {

class unsynced_file final : public file {
public:
  explicit unsynced_file(std::unique_ptr<file> base) : base_(std::move(base)) {}

  result<file_status> status() const override { return base_->status(); }
  result<std::size_t> read_at(std::uint64_t offset,
                              std::span<std::byte> buffer) const override {
    return base_->read_at(offset, buffer);
  }
  result<void> write_at(std::uint64_t offset,
                        std::span<const std::byte> data) override {
    return base_->write_at(offset, data);
  }
  result<void> append(std::uint64_t expected_offset,
                      std::span<const std::byte> data) override {
    return base_->append(expected_offset, data);
  }
  result<void> truncate(std::uint64_t size_bytes) override {
    return base_->truncate(size_bytes);
  }
  result<void> sync_data() override { return {}; }
  result<void> sync() override { return {}; }
  result<void> set_mode(std::uint32_t mode) override {
    return base_->set_mode(mode);
  }
  result<std::unique_ptr<mapping>> map(std::uint64_t size_bytes,
                                       map_mode mode) const override {
    return base_->map(size_bytes, mode);
  }
  result<void> lock(std::uint64_t offset, lock_mode mode,
                    std::chrono::milliseconds timeout) override {
    return base_->lock(offset, mode, timeout);
  }
  void unlock(std::uint64_t offset) override { base_->unlock(offset); }

private:
  std::unique_ptr<file> base_;
};

class unsynced_directory final : public directory {
public:
  explicit unsynced_directory(std::unique_ptr<directory> base)
      : base_(std::move(base)) {}

  const std::string& path() const noexcept override { return base_->path(); }
  result<std::unique_ptr<file>> open_file(std::string_view name,
                                          open_mode mode) const override {
    CALLBOARD_TRY_ASSIGN(auto opened, base_->open_file(name, mode));
    return std::unique_ptr<file>(
        std::make_unique<unsynced_file>(std::move(opened)));
  }
  result<std::unique_ptr<directory>>
  open_directory(std::string_view name, bool create) const override {
    CALLBOARD_TRY_ASSIGN(auto opened, base_->open_directory(name, create));
    return std::unique_ptr<directory>(
        std::make_unique<unsynced_directory>(std::move(opened)));
  }
  result<file_status> status(std::string_view name) const override {
    return base_->status(name);
  }
  result<std::vector<std::string>> list() const override {
    return base_->list();
  }
  result<void> rename(std::string_view from, std::string_view to) override {
    return base_->rename(from, to);
  }
  result<void> link(std::string_view from, directory& target,
                    std::string_view to) override {
    auto* decorated = dynamic_cast<unsynced_directory*>(&target);
    return base_->link(from, decorated != nullptr ? *decorated->base_ : target,
                       to);
  }
  result<void> remove(std::string_view name) override {
    return base_->remove(name);
  }
  result<void> sync() override { return {}; }
  result<file_system> kept_by() const override { return base_->kept_by(); }

private:
  std::unique_ptr<directory> base_;
};

} // namespace

result<std::unique_ptr<directory>>
machine_io::open_directory(std::string_view path, bool create) {
  CALLBOARD_TRY_ASSIGN(auto opened, posix_io().open_directory(path, create));
  if (syncs_ == syncing::real)
    return opened;
  return std::unique_ptr<directory>(
      std::make_unique<unsynced_directory>(std::move(opened)));
}

std::int64_t machine_io::wall_clock_seconds() {
  return posix_io().wall_clock_seconds();
}

std::chrono::nanoseconds machine_io::steady_clock() {
  return posix_io().steady_clock();
}

void machine_io::pause(std::chrono::milliseconds duration) {
  posix_io().pause(duration);
}

std::uint64_t machine_io::random_bits() {
  return posix_io().random_bits();
}

} // namespace callboard::test
