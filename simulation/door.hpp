#pragma once

#include "core/io.hpp"

#include <memory>

namespace callboard::simulation {

struct process_state;

/// The operating system as one simulated process sees it. Answers as
/// `posix_io` does for root.
std::unique_ptr<io> make_door(std::shared_ptr<process_state> self);

} // namespace callboard::simulation
