#include "tests/history/values.hpp"

#include "core/record.hpp"
#include "tests/torture/rows.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>

namespace callboard::history {

namespace {

constexpr std::string_view counter_prefix = "counter-";
constexpr std::string_view list_prefix = "list-";
constexpr std::int64_t list_elements_max = 24;

std::uint64_t number_in(std::string_view text) {
  std::uint64_t out = 0;
  std::from_chars(text.data(), text.data() + text.size(), out);
  return out;
}

/// What is between the given ':' and the next one.
std::string_view part(std::string_view value, int number) {
  for (; number > 0; --number)
    value.remove_prefix(std::min(value.find(':'), value.size() - 1) + 1);
  return value.substr(0, value.find(':'));
}

std::string appended(std::string_view before, std::string_view transaction) {
  std::uint64_t shed = 0;
  std::string elements;
  if (!before.empty()) {
    shed = number_in(part(before, 1));
    elements = part(before, 2);
    const auto count = std::count(elements.begin(), elements.end(), ',') + 1;
    if (count >= list_elements_max) {
      shed += static_cast<std::uint64_t>(count);
      elements.clear();
    }
  }
  if (!elements.empty())
    elements += ',';
  return std::to_string(shed) + ':' + elements + std::string(transaction);
}

bool same_vectors(std::span<const std::byte> found,
                  const std::vector<float>& right) {
  if (found.size() != right.size() * sizeof(float))
    return false;
  for (std::size_t i = 0; i < right.size(); ++i) {
    float component = 0;
    std::memcpy(&component, found.data() + i * sizeof component,
                sizeof component);
    if (!(std::abs(component - right[i]) < 1e-5F))
      return false;
  }
  return true;
}

result<std::string> value_at(const snapshot& view, row_number row) {
  const auto id = view.id(row);
  CALLBOARD_TRY_ASSIGN(const auto record, view.record(row));
  CALLBOARD_TRY_ASSIGN(const auto vector, view.vector(row));
  const auto content = string_member(record, "content").value_or("");
  const auto value = content.substr(std::min(id.size() + 1, content.size()));
  if (value.empty() || content != content_of(id, value)
      || string_member(record, "__id__") != id)
    return failure{errc::corrupt, "row " + std::string(id)
                                      + " has a record that is not its own: "
                                      + std::string(record)};
  if (!same_vectors(vector, vector_of(id, value)))
    return failure{errc::corrupt, "row " + std::string(id)
                                      + " has a vector that is not of its "
                                        "record: "
                                      + std::string(record)};
  return value;
}

} // namespace

std::string transaction_name(unsigned process, std::uint64_t number) {
  return std::to_string(process) + '.' + std::to_string(number);
}

std::optional<std::string> next_value(std::string_view id,
                                      std::string_view before,
                                      std::string_view transaction) {
  const auto writer = std::string(transaction) + ':';
  if (id.starts_with(counter_prefix))
    return writer
           + std::to_string((before.empty() ? 0 : number_in(part(before, 1)))
                            + 1);
  if (id.starts_with(list_prefix))
    return writer + appended(before, transaction);
  return std::nullopt;
}

std::string content_of(std::string_view id, std::string_view value) {
  return std::string(id) + ' ' + std::string(value);
}

std::string record_of(std::string_view id, std::string_view value) {
  return R"({"content": ")" + content_of(id, value) + R"("})";
}

std::vector<float> vector_of(std::string_view id, std::string_view value) {
  return torture::vector_of(content_of(id, value));
}

result<std::string> value_in(const snapshot& view, const std::string& id) {
  const auto row = view.find(id);
  return row ? value_at(view, *row) : result<std::string>(std::string());
}

result<rows> contents(const snapshot& view) {
  rows out;
  std::optional<failure> wrong;
  std::size_t count = 0;
  view.for_each_row([&](row_number row) {
    ++count;
    auto value = value_at(view, row);
    if (!value)
      wrong = value.error();
    else
      out[std::string(view.id(row))] = *value;
    return !wrong;
  });
  if (wrong)
    return *wrong;
  if (count != out.size() || count != view.live_count())
    return failure{errc::corrupt,
                   "a snapshot of generation "
                       + std::to_string(view.generation()) + " shows "
                       + std::to_string(count) + " rows with "
                       + std::to_string(out.size()) + " ids, but counts "
                       + std::to_string(view.live_count())};
  return out;
}

} // namespace callboard::history
