#pragma once

namespace callboard::cli {

/// From now on SIGINT and SIGTERM only ask to stop; a second one ends the
/// process as usual.
void catch_interrupts();

/// Whether somebody asked to stop.
bool is_interrupted() noexcept;

} // namespace callboard::cli
