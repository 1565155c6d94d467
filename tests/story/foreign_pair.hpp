#pragma once

#include "simulation/machine.hpp"
#include "simulation/random_source.hpp"
#include "tests/story/model.hpp"
#include "tests/story/observer.hpp"

#include <string>

/// What another program does to a store's files.
namespace callboard::test {

/// Which of the two files: LightRAG writes one after the other.
enum class foreign_files : std::uint8_t { both, index, meta };

/// Writes a pair as LightRAG does: rows in any order, some of them twice (the
/// last one counts), vectors without a record, records without an id.
void write_foreign_pair(simulation::machine& computer,
                        simulation::random_source& random,
                        const store_place& place, const rows& state,
                        foreign_files which);

/// The directory that the published files are in.
std::string directory_of(const store_place& place);

enum class damaged_part : std::uint8_t { log, manifest, catalog, base };

/// Changes a byte of a file: of the log, in a commit that another one follows.
/// False if there is no such place.
bool damage(simulation::machine& computer, const store_place& place,
            damaged_part what);

} // namespace callboard::test
