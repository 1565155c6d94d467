#pragma once

#include "simulation/disk.hpp"

#include <optional>
#include <string_view>
#include <utility>
#include <vector>

/// Paths on a simulated disk; all of them start at its root.
namespace callboard::simulation {

/// The components that name something, in order.
inline std::vector<std::string_view> components(std::string_view path) {
  std::vector<std::string_view> out;
  while (!path.empty()) {
    const auto slash = path.find('/');
    const auto part = path.substr(0, slash);
    if (part == "..") {
      if (!out.empty())
        out.pop_back();
    } else if (!part.empty() && part != ".") {
      out.push_back(part);
    }
    path.remove_prefix(slash == path.npos ? path.size() : slash + 1);
  }
  return out;
}

/// Whether it can be the name of a file in its directory.
inline bool is_component(std::string_view name) {
  using namespace std::string_view_literals;
  return !name.empty() && name != "." && name != ".."
         && name.find_first_of("/\0"sv) == name.npos;
}

inline std::optional<disk::inode_number> find(const disk& files,
                                              std::string_view path) {
  auto found = std::optional(disk::root);
  for (const auto part : components(path)) {
    if (!found || !files.is_directory(*found))
      return std::nullopt;
    found = files.find(*found, part);
  }
  return found;
}

/// The directory and the name in it.
inline std::pair<std::string_view, std::string_view>
split(std::string_view path) {
  const auto slash = path.rfind('/');
  if (slash == path.npos)
    return {"", path};
  return {path.substr(0, slash), path.substr(slash + 1)};
}

} // namespace callboard::simulation
