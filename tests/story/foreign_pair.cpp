#include "tests/story/foreign_pair.hpp"

#include "core/published_pair.hpp"
#include "simulation/simulated_embedder.hpp"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

namespace callboard::test {

namespace {

template <class T>
void add_value(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

/// A row of the index, and its record if it has one.
struct foreign_row {
  std::optional<std::string> record;
  std::vector<float> vector;
};

std::string json_of(const std::string& id) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string out = "\"";
  for (const auto each : id) {
    const auto byte = static_cast<unsigned char>(each);
    if (byte >= 0x20 && byte != '"' && byte != '\\')
      out += each;
    else
      out.append("\\u00").append({digits[byte / 16], digits[byte % 16]});
  }
  return out + "\"";
}

foreign_row row_of(const std::string& id, int version) {
  constexpr std::string_view created = "\"__created_at__\": 1700000000, ";
  auto record = record_of(id, version).substr(1);
  return {"{\"__id__\": " + json_of(id) + ", " + std::string(created) + record,
          simulation::simulated_vector(content_of(id, version), dimension)};
}

std::string index_of(const std::vector<foreign_row>& all) {
  std::string out = "IxFI";
  add_value(out, static_cast<std::int32_t>(dimension));
  add_value(out, std::uint64_t{all.size()});
  add_value(out, std::int64_t{1} << 20);
  add_value(out, std::int64_t{1} << 20);
  add_value(out, std::uint8_t{1});
  add_value(out, std::int32_t{0});
  add_value(out, std::uint64_t{all.size() * dimension});
  for (const auto& row : all)
    for (const auto each : row.vector)
      add_value(out, each);
  return out;
}

std::string meta_of(const std::vector<foreign_row>& all) {
  std::string out = "{";
  for (std::size_t i = 0; i < all.size(); ++i)
    if (all[i].record)
      out += (out.size() > 1 ? ", \"" : "\"") + std::to_string(i)
             + "\": " + *all[i].record;
  return out + "}";
}

/// What LightRAG leaves behind beside the rows that count.
std::vector<foreign_row> leftovers(simulation::random_source& random,
                                   const rows& state) {
  std::vector<foreign_row> out;
  const auto vector = simulation::simulated_vector("left over", dimension);
  if (random.below(4) == 1)
    out.push_back({{}, vector});
  if (random.below(8) == 1)
    out.push_back({"{\"content\": \"without an id\"}", vector});
  if (!state.empty() && random.below(4) == 1)
    out.push_back(row_of(state.begin()->first, state.begin()->second));
  return out;
}

} // namespace

std::string directory_of(const store_place& place) {
  const std::string root(working_directory);
  return place.workspace.empty() ? root : root + "/" + place.workspace;
}

void write_foreign_pair(simulation::machine& computer,
                        simulation::random_source& random,
                        const store_place& place, const rows& state,
                        foreign_files which) {
  auto all = leftovers(random, state);
  const auto first = static_cast<std::ptrdiff_t>(all.size());
  for (const auto& [id, version] : state)
    all.push_back(row_of(id, version));
  for (auto i = all.size(); i-- > static_cast<std::size_t>(first) + 1;)
    std::swap(all[i],
              all[static_cast<std::size_t>(first)
                  + random.below(i + 1 - static_cast<std::size_t>(first))]);
  const auto index =
      directory_of(place) + "/faiss_index_" + place.namespace_name + ".index";
  if (which != foreign_files::meta)
    computer.write_file(index, index_of(all));
  if (which != foreign_files::index)
    computer.write_file(index + ".meta.json", meta_of(all));
}

// -- Damage -------------------------------------------------------------------

namespace {

constexpr std::size_t log_bytes_before_frames = 64;
constexpr std::size_t frame_header_bytes = 64;

/// The file that is `prefix`, the highest epoch, and `suffix`.
std::optional<std::string> newest(const simulation::machine& computer,
                                  const std::string& home,
                                  std::string_view prefix,
                                  std::string_view suffix) {
  std::optional<std::uint64_t> highest;
  for (const auto& name : computer.list(home))
    if (const auto epoch = epoch_in(name, prefix, suffix))
      highest = std::max(highest.value_or(0), *epoch);
  if (!highest)
    return std::nullopt;
  return home + "/" + std::string(prefix) + std::to_string(*highest)
         + std::string(suffix);
}

std::vector<std::size_t> frames_of(const std::string& log) {
  std::vector<std::size_t> out;
  auto at = log_bytes_before_frames;
  while (at + frame_header_bytes <= log.size()
         && log.compare(at, 4, "CBFR") == 0) {
    out.push_back(at);
    std::uint64_t payload = 0;
    std::memcpy(&payload, log.data() + at + 8, sizeof(payload));
    at += frame_header_bytes + (payload + 7) / 8 * 8;
  }
  return out;
}

bool change_byte(simulation::machine& computer, const std::string& path,
                 std::size_t at) {
  auto content = computer.read_file(path).value_or("");
  if (at >= content.size())
    return false;
  content[at] = static_cast<char>(content[at] ^ 1);
  computer.write_file(path, content);
  return true;
}

bool damage_log(simulation::machine& computer, const std::string& path) {
  const auto frames = frames_of(computer.read_file(path).value_or(""));
  return frames.size() >= 2
         && change_byte(computer, path,
                        frames[(frames.size() - 1) / 2] + frame_header_bytes);
}

} // namespace

bool damage(simulation::machine& computer, const store_place& place,
            damaged_part what) {
  const auto home =
      directory_of(place) + "/" + private_directory_name(place.namespace_name);
  if (what == damaged_part::manifest)
    return change_byte(computer, home + "/MANIFEST", 40);
  const auto is_base = what == damaged_part::base;
  const auto name =
      what == damaged_part::log
          ? newest(computer, home, "log-", "")
          : newest(computer, home, "base-", is_base ? ".index" : ".catalog");
  if (!name)
    return false;
  // Bytes of the first vector; of the catalog's rows.
  if (what == damaged_part::log)
    return damage_log(computer, *name);
  return change_byte(computer, *name, is_base ? 47 : 200);
}

} // namespace callboard::test
