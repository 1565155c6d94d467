#include "core/record.hpp"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <stdexcept>

namespace callboard {
namespace {

using json_text::surrogates;

constexpr std::string_view id_field = "__id__";
constexpr std::string_view created_at_field = "__created_at__";
constexpr std::string_view vector_field = "__vector__";

bool is_reserved(std::string_view field) {
  return field == id_field || field == created_at_field
         || field == vector_field;
}

bool is_surrogate(char32_t character) {
  return character >= 0xD800 && character < 0xE000;
}

/// Which are dangerous in names and logs: C0, DEL and C1.
bool is_control(char32_t character) {
  return character < 0x20 || (character >= 0x7F && character < 0xA0);
}

/// `text` with a "?" for each surrogate, as Python's `errors="replace"`.
std::string without_surrogates(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const auto character = json_text::first_code_point(text);
    const auto bytes = std::max<std::size_t>(character.bytes, 1);
    if (is_surrogate(character.value))
      out += '?';
    else
      out += text.substr(0, bytes);
    text.remove_prefix(bytes);
  }
  return out;
}

/// Only text with this byte can hold surrogates.
bool may_have_surrogates(std::string_view text) {
  return text.find('\xED') != std::string_view::npos;
}

std::string md5_hexadecimal(std::string_view bytes) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int digest_bytes = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), digest.data(), &digest_bytes,
                 EVP_md5(), nullptr)
      != 1)
    throw std::runtime_error("OpenSSL refuses MD5, which LightRAG's ids are "
                             "made with: enable its default provider");
  std::string out;
  for (unsigned int i = 0; i < digest_bytes; ++i)
    out += {digits[digest[i] >> 4], digits[digest[i] & 0xF]};
  return out;
}

bool has_control_characters(std::string_view name) {
  while (!name.empty()) {
    const auto character = json_text::first_code_point(name);
    if (is_control(character.value))
      return true;
    name.remove_prefix(std::max<std::size_t>(character.bytes, 1));
  }
  return false;
}

/// Why `name` cannot be one component of a path; empty if it can.
std::string_view path_component_fault(std::string_view name) {
  if (name == "." || name == "..")
    return "is a directory reference";
  if (name.find_first_of("/\\") != std::string_view::npos)
    return "has a path separator";
  if (!json_text::valid_utf8(name, surrogates::refused))
    return "is not valid UTF-8";
  if (has_control_characters(name))
    return "has control characters";
  return {};
}

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

/// Whether a directory called `workspace` could be taken for a file or the
/// private directory of a store in the working directory.
bool looks_like_store_file(std::string_view workspace) {
  return workspace.starts_with("faiss_index_")
         && (contains(workspace, ".index")
             || workspace.ends_with(".callboard"));
}

/// Whether the files of `namespace_name` look like another store's temporary
/// files, `faiss_index_x.index.tmp.*`, which are removed when they are old.
bool looks_like_debris(std::string_view namespace_name) {
  return contains(namespace_name, ".index.tmp")
         || contains(namespace_name, ".index.meta.json.tmp");
}

constexpr std::string_view separator = ", ";

void append_member(std::string& object, std::string_view raw_key,
                   std::string_view raw_value) {
  if (object.size() > 1)
    object += separator;
  object.append(raw_key).append(": ").append(raw_value);
}

/// A value that fits on one line. Strings have no raw line breaks.
std::string one_line(std::string_view raw_value) {
  const bool is_split =
      raw_value.find_first_of("\n\r") != std::string_view::npos;
  return is_split ? json_text::compact(raw_value) : std::string(raw_value);
}

/// The values `input` has for `fields`, in their order; absent ones empty.
result<std::vector<std::optional<std::string_view>>>
values_of(std::string_view input, std::span<const std::string> fields) {
  std::vector<std::optional<std::string_view>> values(fields.size());
  const auto take = [&](std::string_view key, std::string_view value,
                        std::string_view) -> result<void> {
    const auto field = std::find(fields.begin(), fields.end(), key);
    if (field != fields.end() && !is_reserved(key))
      values[static_cast<std::size_t>(field - fields.begin())] = value;
    return {};
  };
  const json_text::rules how{.depth_max = record_depth_max,
                             .error = errc::invalid_argument};
  CALLBOARD_TRY(json_text::for_each_member(input, take, how));
  return values;
}

void append_escape(std::string& out, unsigned char byte) {
  constexpr std::string_view digits = "0123456789abcdef";
  out += {'\\', 'x', digits[byte >> 4], digits[byte & 0xF]};
}

} // namespace

std::string compute_mdhash_id(std::string_view content,
                              std::string_view prefix) {
  return std::string(prefix)
         + (may_have_surrogates(content)
                ? md5_hexadecimal(without_surrogates(content))
                : md5_hexadecimal(content));
}

std::string entity_id(std::string_view name) {
  return compute_mdhash_id(name, "ent-");
}

std::string chunk_id(std::string_view content) {
  return compute_mdhash_id(content, "chunk-");
}

relation_id_pair relation_ids(std::string_view a, std::string_view b) {
  // Bytes of UTF-8 sort as code points do, which is how Python sorts.
  const auto [first, second] = std::minmax(a, b);
  const auto id_of = [](std::string_view from, std::string_view to) {
    return compute_mdhash_id(std::string(from) + std::string(to), "rel-");
  };
  return {id_of(first, second), id_of(second, first)};
}

std::vector<std::string> default_meta_fields(std::string_view namespace_name) {
  if (namespace_name == "entities")
    return {"entity_name", "source_id", "content", "file_path"};
  if (namespace_name == "relationships")
    return {"src_id", "tgt_id", "source_id", "content", "file_path"};
  if (namespace_name == "chunks")
    return {"full_doc_id", "content", "file_path"};
  return {"content"};
}

result<void> check_id(std::string_view id) {
  if (id.empty())
    return failure{errc::invalid_argument,
                   "a record's id is empty: ids have 1 to "
                       + std::to_string(id_bytes_max) + " bytes"};
  if (id.size() > id_bytes_max)
    return failure{errc::too_large,
                   "the id " + printable(id) + " has "
                       + std::to_string(id.size()) + " bytes: at most "
                       + std::to_string(id_bytes_max) + " are allowed"};
  if (!json_text::valid_utf8(id, surrogates::allowed))
    return failure{errc::invalid_argument,
                   "the id " + printable(id)
                       + " is not valid UTF-8: encode it first"};
  return {};
}

result<void> check_store_name(name_kind kind, std::string_view name) {
  const bool is_workspace = kind == name_kind::workspace;
  if (name.empty() && is_workspace)
    return {};
  const std::string subject =
      (is_workspace ? "the workspace name " : "the namespace ")
      + printable(name);
  const auto bytes_max = is_workspace ? name_bytes_max : namespace_bytes_max;
  if (name.size() > bytes_max)
    return failure{errc::too_large,
                   subject + " has " + std::to_string(name.size())
                       + " bytes: at most " + std::to_string(bytes_max)
                       + " are allowed"};
  auto fault = name.empty() ? "is empty" : path_component_fault(name);
  if (fault.empty() && is_workspace && looks_like_store_file(name))
    fault = "begins with faiss_index_ and goes on like a file of a store";
  if (fault.empty() && !is_workspace && looks_like_debris(name))
    fault = "contains .index.tmp or .index.meta.json.tmp, like temporary "
            "files of a store";
  if (fault.empty())
    return {};
  return failure{errc::invalid_argument,
                 subject + " " + std::string(fault)
                     + ": choose a printable name without '/' and '\\', "
                       "other than '.' and '..'"};
}

result<std::string> make_record(std::string_view id, std::int64_t created_at,
                                std::string_view input,
                                std::span<const std::string> meta_fields) {
  CALLBOARD_TRY(check_id(id));
  auto values = values_of(input, meta_fields);
  if (!values)
    return failure{values.error().code, "the record " + printable(id) + ": "
                                            + values.error().message};
  std::string record = "{";
  append_member(record, json_text::encode_string(id_field),
                json_text::encode_string(id));
  append_member(record, json_text::encode_string(created_at_field),
                std::to_string(created_at));
  for (std::size_t i = 0; i < meta_fields.size(); ++i) {
    if (const auto& value = (*values)[i])
      append_member(record, json_text::encode_string(meta_fields[i]),
                    one_line(*value));
  }
  record += '}';
  if (record.size() > record_bytes_max)
    return failure{errc::too_large,
                   "the record " + printable(id) + " has "
                       + std::to_string(record.size()) + " bytes: at most "
                       + std::to_string(record_bytes_max) + " are allowed"};
  return record;
}

std::optional<std::string_view> member(std::string_view object,
                                       std::string_view name) {
  std::optional<std::string_view> found;
  const auto look = [&](std::string_view key, std::string_view value,
                        std::string_view) -> result<void> {
    if (key == name)
      found = value;
    return {};
  };
  if (!json_text::for_each_member(
          object, look, {.depth_max = json_text::open_containers_max}))
    return std::nullopt;
  return found;
}

std::optional<std::string> string_member(std::string_view object,
                                         std::string_view name) {
  const auto raw = member(object, name);
  if (!raw)
    return std::nullopt;
  auto text = json_text::decode_string(*raw);
  if (!text)
    return std::nullopt;
  return std::move(*text);
}

std::string result_row(std::string_view record, std::optional<float> distance) {
  std::string row = "{";
  row.reserve(record.size() + 128);
  std::string_view id = "null";
  std::string_view created_at = "null";
  const auto copy = [&](std::string_view key, std::string_view value,
                        std::string_view raw_key) -> result<void> {
    if (key == id_field)
      id = value;
    if (key == created_at_field)
      created_at = value;
    const bool is_replaced = key == vector_field || key == "id"
                             || key == "created_at"
                             || (key == "distance" && distance);
    if (!is_replaced)
      append_member(row, raw_key, value);
    return {};
  };
  static_cast<void>(json_text::for_each_member(
      record, copy, {.depth_max = json_text::open_containers_max}));
  append_member(row, R"("id")", id);
  if (distance)
    append_member(row, R"("distance")", json_text::from_float(*distance));
  append_member(row, R"("created_at")", created_at);
  row += '}';
  return row;
}

std::string printable(std::string_view text, std::size_t bytes_max) {
  std::string out = "\"";
  std::size_t used = 0;
  while (used < text.size()) {
    const auto character = json_text::first_code_point(text.substr(used));
    const auto bytes = std::max<std::size_t>(character.bytes, 1);
    if (used + bytes > bytes_max)
      break;
    const bool is_escaped = character.bytes == 0 || is_control(character.value)
                            || is_surrogate(character.value);
    for (const char byte : text.substr(used, bytes)) {
      if (is_escaped)
        append_escape(out, static_cast<unsigned char>(byte));
      else
        out += byte;
    }
    used += bytes;
  }
  out += used < text.size() ? "\"..." : "\"";
  return out;
}

} // namespace callboard
