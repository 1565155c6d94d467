#pragma once

#include "core/result.hpp"
#include "tests/torture/rows.hpp"

#include <filesystem>
#include <optional>
#include <string_view>

namespace callboard::torture {

/// What a LightRAG reader sees of a store: the rows of its published pair, read
/// by code that has nothing in common with the library's. The index file is
/// read first, as LightRAG does. Empty while there is no whole pair yet.
/// Errors: `corrupt`, for what would make it start empty or show a record with
///         another row's vector.
result<std::optional<versions>>
read_published(const std::filesystem::path& directory,
               std::string_view namespace_name);

} // namespace callboard::torture
