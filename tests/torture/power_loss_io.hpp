#pragma once

#include "core/io.hpp"

#include <cstdint>
#include <string>

namespace callboard::test {

enum class syncing : std::uint8_t {
  real,
  /// Syncs of files and directories do nothing and succeed.
  pretended,
};

/// The operating system of a machine whose boots the test counts.
/// Threads: thread-safe.
class machine_io final : public io {
public:
  machine_io(syncing syncs, std::uint64_t boot)
      : syncs_(syncs), boot_id_("boot-" + std::to_string(boot)) {}

  result<std::unique_ptr<directory>> open_directory(std::string_view path,
                                                    bool create) override;
  std::int64_t wall_clock_seconds() override;
  std::chrono::nanoseconds steady_clock() override;
  void pause(std::chrono::milliseconds duration) override;
  std::uint64_t random_bits() override;
  std::string boot_id() override { return boot_id_; }

private:
  syncing syncs_;
  std::string boot_id_;
};

} // namespace callboard::test
