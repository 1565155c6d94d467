#include "tests/torture/published.hpp"

#include <nlohmann/json.hpp>

#include <array>
#include <charconv>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>

namespace callboard::torture {

namespace {

constexpr std::size_t header_bytes = 45;
constexpr std::size_t row_bytes = vector_dimension * sizeof(float);

std::optional<std::string> content_of_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in)
    return std::nullopt;
  return std::string{std::istreambuf_iterator<char>(in), {}};
}

template <class Number>
Number number_at(const std::string& bytes, std::size_t offset) {
  Number out;
  std::memcpy(&out, bytes.data() + offset, sizeof out);
  return out;
}

failure damaged(const std::string& why) {
  return {errc::corrupt, "the published pair: " + why};
}

/// The number of rows.
result<std::size_t> check_index(const std::string& index) {
  if (index.size() < header_bytes || !index.starts_with("IxFI"))
    return damaged("the index file has no header");
  const auto rows = number_at<std::uint64_t>(index, 8);
  if (number_at<std::uint32_t>(index, 4) != vector_dimension
      || number_at<std::uint64_t>(index, 37) != rows * vector_dimension
      || index.size() != header_bytes + rows * row_bytes)
    return damaged("the index file's header says " + std::to_string(rows)
                   + " rows, but it has " + std::to_string(index.size())
                   + " bytes");
  return static_cast<std::size_t>(rows);
}

/// Readers skip rows that the index file does not have.
result<void> take_row(const std::string& index, std::size_t rows,
                      const std::string& key, const nlohmann::json& record,
                      versions& out) {
  std::size_t row = 0;
  const auto end = key.data() + key.size();
  if (std::from_chars(key.data(), end, row).ptr != end || key.empty())
    return damaged("the key '" + key + "' is no row number");
  if (row >= rows)
    return {};
  std::array<float, vector_dimension> vector{};
  std::memcpy(vector.data(), index.data() + header_bytes + row * row_bytes,
              row_bytes);
  const auto id = record.value("__id__", std::string());
  auto value = recognize(id, record.value("content", std::string()), vector);
  if (!value)
    return damaged("entry " + key + ", " + value.error().message);
  if (!out.emplace(*number_of(id), *value).second)
    return damaged("entry " + key + ": there is another one of " + id);
  return {};
}

} // namespace

result<std::optional<versions>>
read_published(const std::filesystem::path& directory,
               std::string_view namespace_name) {
  const auto name = "faiss_index_" + std::string(namespace_name) + ".index";
  const auto index = content_of_file(directory / name);
  const auto meta = content_of_file(directory / (name + ".meta.json"));
  if (!index || !meta)
    return std::optional<versions>();
  CALLBOARD_TRY_ASSIGN(const auto rows, check_index(*index));
  const auto records = nlohmann::json::parse(*meta, nullptr, false);
  if (!records.is_object())
    return damaged("the meta file is not a JSON object");
  versions out;
  for (const auto& [key, record] : records.items())
    if (record.is_object())
      CALLBOARD_TRY(take_row(*index, rows, key, record, out));
    else
      return damaged("entry " + key + " is no record");
  return std::optional<versions>(std::move(out));
}

} // namespace callboard::torture
