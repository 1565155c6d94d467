#include "cli/stats_text.hpp"

#include "cli/output.hpp"
#include "core/json_text.hpp"

#include <cstdint>
#include <string_view>
#include <vector>

namespace callboard::cli {
namespace {

struct stat_line {
  std::string_view key;
  std::string_view label;
  std::uint64_t value;
};

std::vector<stat_line> lines_of(const handle_stats& stats) {
  const auto& store = stats.store;
  const auto& import = stats.opened.import;
  return {
      {"rows", "rows", store.live_rows},
      {"holes", "holes", store.hole_rows},
      {"dimension", "dimension", store.dimension},
      {"generation", "generation", store.generation},
      {"base_epoch", "base", store.base_epoch},
      {"base_generation", "base's generation", store.base_generation},
      {"drop_epoch", "drops", store.drop_epoch},
      {"base_bytes", "bytes in base", store.base_bytes},
      {"log_bytes", "bytes in log", store.log_bytes},
      {"delta_bytes", "bytes of memory", store.delta_bytes},
      {"pending_upserts", "pending upserts", stats.pending_upserts},
      {"pending_deletes", "pending deletes", stats.pending_deletes},
      {"pending_bytes", "pending bytes", stats.pending_bytes},
      {"cut_bytes", "torn bytes cut", stats.opened.cut_bytes},
      {"removed_temporaries", "old temporaries removed",
       stats.opened.removed_temporaries},
      {"import_orphan_vectors", "import: vectors left out",
       import.orphan_vectors},
      {"import_duplicate_ids", "import: duplicate ids", import.duplicate_ids},
      {"import_records_without_id", "import: records without id",
       import.records_without_id},
      {"import_records_to_embed", "import: records embedded anew",
       import.records_to_embed},
      {"import_records_without_vector", "import: records left out",
       import.records_without_vector},
  };
}

/// The table shows what is usual only if it is not zero.
bool is_shown(const stat_line& line) {
  const bool is_main = line.key == "rows" || line.key == "generation"
                       || line.key == "dimension"
                       || line.key.ends_with("_bytes");
  return line.value != 0
         || (is_main && !line.key.starts_with("pending")
             && !line.key.starts_with("cut"));
}

} // namespace

std::string stats_json(const handle_stats& stats) {
  std::string text =
      R"({"model": )" + json_text::encode_string(stats.store.model);
  for (const auto& line : lines_of(stats))
    text += ", " + json_text::encode_string(line.key) + ": "
            + std::to_string(line.value);
  return text + "}";
}

std::string stats_table(const handle_stats& stats) {
  constexpr std::size_t label_columns = 29;
  const auto add = [](std::string& text, std::string_view label,
                      std::string_view value) {
    text += label;
    text.append(label_columns - label.size(), ' ');
    text += value;
    text += '\n';
  };
  std::string text;
  add(text, "model",
      stats.store.model.empty() ? "(not recorded)"
                                : fit_columns(stats.store.model, 0));
  for (const auto& line : lines_of(stats)) {
    if (is_shown(line))
      add(text, line.label, grouped(line.value));
  }
  text.pop_back();
  return text;
}

} // namespace callboard::cli
