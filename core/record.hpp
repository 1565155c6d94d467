#pragma once

#include "core/json_text.hpp"
#include "core/result.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// Records in LightRAG's shape, and the ids and names that go with them.
///
/// A record is one JSON object on one line: `__id__`, `__created_at__` (whole
/// seconds), then the store's meta fields as the caller wrote them. Text in
/// C++ strings is as core/json_text.hpp describes, lone surrogates included.
///
/// Threads: all functions are thread-safe.
namespace callboard {

inline constexpr std::size_t id_bytes_max = 1024;
inline constexpr std::size_t record_bytes_max = 16u << 20;

/// Arrays and objects that may be open at once in a record, itself included.
/// In a meta file, which is an object of records, it is one more.
inline constexpr std::size_t record_depth_max = 32;

/// What a file system allows for one name; the limit of workspaces.
inline constexpr std::size_t name_bytes_max = 255;

/// The longest name derived from a namespace must fit `name_bytes_max`:
/// `faiss_index_<namespace>.index.meta.json.tmp.<48 bytes>`, where Python
/// LightRAG fills the 48 with process, thread and time.
inline constexpr std::size_t namespace_bytes_max =
    name_bytes_max - std::string_view("faiss_index_").size()
    - std::string_view(".index.meta.json.tmp.").size() - 48;

/// `prefix` and the lower-case hexadecimal MD5 of `content`. Each lone
/// surrogate is hashed as "?", as LightRAG does.
/// Throws `std::runtime_error` if the system's OpenSSL refuses MD5.
std::string compute_mdhash_id(std::string_view content,
                              std::string_view prefix = "");

/// LightRAG's id of the entity called `name`, exactly so spelled.
std::string entity_id(std::string_view name);

/// LightRAG's id of a text chunk.
std::string chunk_id(std::string_view content);

/// The ids of a relation between two entities. It is stored under `id`,
/// whichever end is named first; `reverse_id` is what older data may be under,
/// so whoever replaces a relation removes both.
struct relation_id_pair {
  std::string id;
  std::string reverse_id;
};
relation_id_pair relation_ids(std::string_view a, std::string_view b);

/// The fields LightRAG keeps in the store `namespace_name`.
std::vector<std::string> default_meta_fields(std::string_view namespace_name);

/// Whether `id` can be a record's: not empty, `id_bytes_max`, well-formed.
/// Errors: `invalid_argument`, `too_large`.
result<void> check_id(std::string_view id);

enum class name_kind : std::uint8_t { workspace, namespace_name };

/// Whether `name` can be the name of a workspace (empty is one) or a
/// namespace: one path component, printable, short enough, and such that no
/// two stores share a file.
/// Errors: `invalid_argument`, `too_large`.
result<void> check_store_name(name_kind kind, std::string_view name);

/// The record of `id` from `input`, the text of a JSON object: its members
/// that are in `meta_fields`, in that order, values byte for byte (but for
/// line breaks between tokens). Of a repeated key the last one counts. The
/// store's own `__id__`, `__created_at__`, `__vector__` are never taken.
/// Errors: `invalid_argument`, `too_large`.
result<std::string> make_record(std::string_view id, std::int64_t created_at,
                                std::string_view input,
                                std::span<const std::string> meta_fields);

/// The value of the member `name`, as it stands in the text of a valid
/// object; of several the last. Empty if there is none. A part of `object`.
std::optional<std::string_view> member(std::string_view object,
                                       std::string_view name);

/// The same, decoded; empty also if the value is not a string.
std::optional<std::string> string_member(std::string_view object,
                                         std::string_view name);

/// What a query answers for `record`: its members without `__vector__`, then
/// `id` (its `__id__`), `distance` if there is one (finite) and `created_at`
/// (its `__created_at__`); each replaces a member of that name. A record that
/// lacks the reserved fields has null there.
std::string result_row(std::string_view record,
                       std::optional<float> distance = std::nullopt);

/// `text` for a message: quoted, at most about `bytes_max` bytes of it,
/// control characters and invalid bytes as escapes.
std::string printable(std::string_view text, std::size_t bytes_max = 80);

} // namespace callboard
