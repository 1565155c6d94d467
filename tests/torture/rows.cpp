#include "tests/torture/rows.hpp"

#include <nlohmann/json.hpp>

#include <charconv>
#include <cmath>
#include <cstdio>

namespace callboard::torture {

namespace {

constexpr std::string_view id_prefix = "row-";
constexpr std::string_view version_mark = " is at ";

std::uint64_t hash_of(std::string_view text) {
  std::uint64_t hash = 0xcbf2'9ce4'8422'2325U;
  for (unsigned char byte : text)
    hash = (hash ^ byte) * 0x0000'0100'0000'01b3U;
  return hash;
}

std::uint64_t scrambled(std::uint64_t value) {
  value += 0x9e37'79b9'7f4a'7c15U;
  value = (value ^ (value >> 30U)) * 0xbf58'476d'1ce4'e5b9U;
  value = (value ^ (value >> 27U)) * 0x94d0'49bb'1331'11ebU;
  return value ^ (value >> 31U);
}

/// Most rows are short, some are long.
std::string filler_of(unsigned number, version value) {
  auto state = scrambled(value ^ (std::uint64_t{number} << 40U));
  const std::size_t length = state % 8 == 0 ? state % 4000 : state % 100;
  std::string out;
  while (out.size() < length) {
    state = scrambled(state);
    out += static_cast<char>('a' + state % 26);
  }
  return out;
}

std::optional<version> version_in(std::string_view content) {
  auto mark = content.find(version_mark);
  if (mark == std::string_view::npos)
    return std::nullopt;
  const auto begin = content.data() + mark + version_mark.size();
  version value = no_row;
  auto end = std::from_chars(begin, content.data() + content.size(), value, 16);
  if (end.ec != std::errc{} || value == no_row)
    return std::nullopt;
  return value;
}

} // namespace

version make_version(const version_parts& parts) {
  return std::uint64_t{parts.round} << 52U | std::uint64_t{parts.slot} << 48U
         | std::uint64_t{parts.incarnation} << 32U | parts.counter;
}

version_parts parts_of(version value) {
  return {.round = static_cast<unsigned>(value >> 52U),
          .slot = static_cast<unsigned>(value >> 48U & 0xfU),
          .incarnation = static_cast<unsigned>(value >> 32U & 0xffffU),
          .counter = static_cast<unsigned>(value & 0xffff'ffffU)};
}

std::string to_text(version value) {
  if (value == no_row)
    return "no row";
  auto parts = parts_of(value);
  return std::to_string(parts.round) + '.' + std::to_string(parts.slot) + '.'
         + std::to_string(parts.incarnation) + '.'
         + std::to_string(parts.counter);
}

std::string id_of(unsigned number) {
  auto digits = std::to_string(number);
  return std::string(id_prefix) + std::string(3 - digits.size(), '0') + digits;
}

std::optional<unsigned> number_of(std::string_view id) {
  if (!id.starts_with(id_prefix))
    return std::nullopt;
  unsigned number = 0;
  const auto end = id.data() + id.size();
  auto parsed = std::from_chars(id.data() + id_prefix.size(), end, number);
  if (parsed.ec != std::errc{} || parsed.ptr != end || number >= id_count
      || id_of(number) != id)
    return std::nullopt;
  return number;
}

std::string content_of(unsigned number, version value) {
  char digits[17] = {};
  std::snprintf(digits, sizeof digits, "%llx",
                static_cast<unsigned long long>(value));
  return id_of(number) + std::string(version_mark) + digits + ' '
         + filler_of(number, value);
}

std::string record_of(unsigned number, version value) {
  return nlohmann::json{{"content", content_of(number, value)}}.dump();
}

std::vector<float> vector_of(std::string_view content) {
  auto state = hash_of(content);
  std::vector<double> values;
  double square = 0;
  for (std::size_t i = 0; i < vector_dimension; ++i) {
    state = scrambled(state);
    values.push_back(static_cast<double>(state >> 40U) - 8'388'607.5);
    square += values.back() * values.back();
  }
  std::vector<float> out;
  for (auto value : values)
    out.push_back(static_cast<float>(value / std::sqrt(square)));
  return out;
}

result<version> recognize(std::string_view id, std::string_view content,
                          std::span<const float> vector) {
  const auto who = "row '" + std::string(id) + "': ";
  const auto number = number_of(id);
  if (!number)
    return failure{errc::corrupt, who + "nobody has used this id"};
  const auto value = version_in(content);
  if (!value || content_of(*number, *value) != content)
    return failure{errc::corrupt, who + "this is not its content: '"
                                      + std::string(content.substr(0, 200))
                                      + "'"};
  const auto expected = vector_of(content);
  if (vector.size() != expected.size())
    return failure{errc::corrupt, who + "its vector has "
                                      + std::to_string(vector.size())
                                      + " components"};
  for (std::size_t i = 0; i < expected.size(); ++i)
    if (!(std::abs(vector[i] - expected[i]) < 1e-5F))
      return failure{errc::corrupt,
                     who + "component " + std::to_string(i)
                         + " of its vector is " + std::to_string(vector[i])
                         + ", but that of version " + to_text(*value) + " is "
                         + std::to_string(expected[i])};
  return *value;
}

result<embedding_batch>
content_embedder::embed(std::span<const std::string> texts, embedding_context) {
  embedding_batch out;
  for (const auto& text : texts) {
    auto vector = vector_of(text);
    out.vectors.insert(out.vectors.end(), vector.begin(), vector.end());
  }
  return out;
}

} // namespace callboard::torture
