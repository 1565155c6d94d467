#include "cli/event_text.hpp"

#include "cli/output.hpp"
#include "core/json_text.hpp"

#include <string_view>
#include <vector>

namespace callboard::cli {
namespace {

/// Part of the command's output: do not rename.
std::string_view name_of(commit_event::kind what) {
  switch (what) {
  case commit_event::kind::commit:
    return "commit";
  case commit_event::kind::drop:
    return "drop";
  case commit_event::kind::overflow:
    return "overflow";
  }
  return "unknown";
}

std::string ids_json(const std::vector<std::string>& ids) {
  std::string list = "[";
  for (const auto& id : ids) {
    if (list.size() > 1)
      list += ", ";
    list += json_text::encode_string(id);
  }
  return list + "]";
}

} // namespace

std::string event_json(const commit_event& event) {
  return "{\"event\": " + json_text::encode_string(name_of(event.what))
         + ", \"generation\": " + std::to_string(event.generation)
         + ", \"changed\": " + ids_json(event.changed)
         + ", \"removed\": " + ids_json(event.removed) + "}";
}

std::string event_line(const commit_event& event) {
  auto line = "generation " + std::to_string(event.generation) + ": ";
  switch (event.what) {
  case commit_event::kind::commit:
    return line + "changed " + grouped(event.changed.size()) + ", removed "
           + grouped(event.removed.size());
  case commit_event::kind::drop:
    return line + "dropped: all records are removed";
  case commit_event::kind::overflow:
    return line + "overflow: events are lost, anything may have changed";
  }
  return line;
}

} // namespace callboard::cli
