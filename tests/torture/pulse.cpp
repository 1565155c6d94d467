#include "tests/torture/pulse.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <string>
#include <sys/mman.h>
#include <unistd.h>

namespace callboard::torture {

std::string_view to_string(step what) noexcept {
  switch (what) {
  case step::starting:
    return "starting";
  case step::opening:
    return "opening its stores";
  case step::reading_ledger:
    return "reading the ledger";
  case step::reading_snapshot:
    return "taking a snapshot";
  case step::reading_rows:
    return "reading rows";
  case step::querying:
    return "querying";
  case step::watching:
    return "watching";
  case step::awaiting:
    return "awaiting a generation";
  case step::upserting:
    return "upserting";
  case step::removing:
    return "removing";
  case step::committing:
    return "committing";
  case step::checkpointing:
    return "checkpointing";
  case step::finalizing:
    return "finalizing";
  case step::verifying:
    return "verifying";
  case step::dropping:
    return "dropping";
  case step::reading_published_pair:
    return "reading the published pair";
  }
  return "unknown";
}

result<pulse_board> pulse_board::open(const std::filesystem::path& path) {
  const auto failed = [&](std::string_view what) {
    return failure{errc::io_failure, std::string(what) + ' ' + path.string()
                                         + ": " + std::strerror(errno)};
  };
  const int descriptor =
      ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (descriptor < 0)
    return failed("cannot open");
  // All zero is a board on which nothing has happened.
  void* address = MAP_FAILED;
  if (::ftruncate(descriptor, sizeof(pulses)) == 0)
    address = ::mmap(nullptr, sizeof(pulses), PROT_READ | PROT_WRITE,
                     MAP_SHARED, descriptor, 0);
  const auto reason = errno;
  ::close(descriptor);
  errno = reason;
  if (address == MAP_FAILED)
    return failed("cannot map");
  return pulse_board(std::shared_ptr<pulses>(
      static_cast<pulses*>(address),
      [](pulses* mapped) { ::munmap(mapped, sizeof(pulses)); }));
}

} // namespace callboard::torture
