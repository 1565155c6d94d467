#include "tests/torture/power_loss_model.hpp"

#include "core/lightrag_pair.hpp"
#include "core/record.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <random>
#include <string_view>

namespace callboard::test {

namespace {

constexpr std::int64_t created_at = 1'700'000'000;
constexpr std::size_t index_header_bytes = 45;
constexpr std::string_view id_prefix = "row-";
constexpr std::string_view text_prefix = "version ";

std::string id_of(std::size_t id) {
  return std::string(id_prefix) + std::to_string(id);
}

std::optional<std::size_t> id_number(std::string_view id) {
  if (!id.starts_with(id_prefix))
    return std::nullopt;
  auto number = std::strtoull(std::string(id.substr(id_prefix.size())).c_str(),
                              nullptr, 10);
  if (number >= power_loss_ids || id_of(number) != id)
    return std::nullopt;
  return number;
}

std::uint64_t mixed(std::size_t id, row_version version) {
  return std::mt19937_64(version * 1'000'003 + id)();
}

std::string text_of(std::size_t id, row_version version) {
  return std::string(text_prefix) + std::to_string(version) + " of " + id_of(id)
         + " " + std::string(mixed(id, version) % 600, 'x');
}

std::string record_of(std::size_t id, row_version version) {
  static const std::vector<std::string> fields = {"content"};
  return make_record(id_of(id), created_at,
                     R"({"content": ")" + text_of(id, version) + R"("})",
                     fields)
      .value();
}

std::vector<float> vector_of(std::size_t id, row_version version) {
  std::mt19937_64 random(mixed(id, version));
  std::vector<float> out(power_loss_dimension);
  double squares = 0;
  for (auto& each : out) {
    each = static_cast<float>(random() >> 40) / 16777216.0f - 0.5f;
    squares += double{each} * each;
  }
  for (auto& each : out)
    each = static_cast<float>(each / std::sqrt(squares));
  return out;
}

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// The version that a record's content names, if the vector is of the same.
result<row_version> version_of(std::size_t id, std::string_view content,
                               std::string_view vector) {
  failure mixed_up{errc::corrupt, "the row " + id_of(id) + " with the content "
                                      + printable(content, 60)
                                      + " is not what anybody wrote"};
  if (!content.starts_with(text_prefix))
    return mixed_up;
  row_version version = std::strtoull(
      std::string(content.substr(text_prefix.size(), 20)).c_str(), nullptr, 10);
  auto expected = vector_of(id, version);
  if (version == 0 || content != text_of(id, version)
      || vector.size() != expected.size() * sizeof(float)
      || std::memcmp(vector.data(), expected.data(), vector.size()) != 0)
    return mixed_up;
  return version;
}

std::optional<std::string> file_content(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in)
    return std::nullopt;
  return std::string{std::istreambuf_iterator<char>(in), {}};
}

template <class T>
T value_at(const std::string& bytes, std::size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

/// The vectors of an index file.
result<std::string_view> vectors_of(const std::string& index) {
  if (index.size() < index_header_bytes || !index.starts_with("IxFI")
      || value_at<std::int32_t>(index, 4) != power_loss_dimension
      || value_at<std::uint64_t>(index, 8) * power_loss_dimension
                 * sizeof(float)
             != index.size() - index_header_bytes)
    return failure{errc::corrupt, "the published index file is damaged"};
  return std::string_view(index).substr(index_header_bytes);
}

std::size_t difference(const row_versions& a, const row_versions& b) {
  std::size_t out = 0;
  for (std::size_t id = 0; id < a.size(); ++id)
    out += a[id] != b[id] ? 1 : 0;
  return out;
}

/// Which of the unanswered transactions have left a trace that should not be,
/// and how many acknowledged rows are not as they should be.
verdict explain(const row_versions& expected, const row_versions& found,
                const evidence& before) {
  verdict out;
  for (std::size_t id = 0; id < found.size(); ++id) {
    if (expected[id] == found[id])
      continue;
    auto unanswered = [&](row_version version) {
      return std::ranges::count(before.unanswered, version) != 0;
    };
    (unanswered(found[id]) || unanswered(expected[id]) ? out.torn : out.lost)++;
    out.explanation = id_of(id) + " is of version " + std::to_string(found[id])
                      + ", expected " + std::to_string(expected[id]);
  }
  return out;
}

} // namespace

transaction make_transaction(std::uint64_t seed, row_version version) {
  std::mt19937_64 random(seed ^ (version * 0x9e3779b97f4a7c15ULL));
  transaction out;
  out.version = version;
  out.drops = random() % 150 == 0;
  if (out.drops)
    return out;
  auto kind = random() % 10;
  auto count = kind < 6   ? 1 + random() % 3
               : kind < 9 ? 4 + random() % 17
                          : 50 + random() % 101;
  auto first = random() % power_loss_ids;
  constexpr std::size_t stride = 7; // prime to the number of ids: no repeats
  for (std::size_t i = 0; i < count; ++i)
    out.changes.push_back(
        {(first + i * stride) % power_loss_ids, random() % 5 == 0});
  return out;
}

std::vector<commit_operation> operations_of(const transaction& what) {
  std::vector<commit_operation> out;
  for (const auto& change : what.changes) {
    auto& operation = out.emplace_back();
    operation.id = id_of(change.id);
    operation.drop_epoch = ~std::uint64_t{0}; // asked for after any drop
    if (change.removes) {
      operation.what = commit_operation::kind::remove;
      continue;
    }
    operation.record = record_of(change.id, what.version);
    operation.vector = vector_of(change.id, what.version);
  }
  return out;
}

void perform(const transaction& what, row_versions& rows) {
  if (what.drops)
    rows.fill(0);
  for (const auto& change : what.changes)
    rows[change.id] = change.removes ? 0 : what.version;
}

result<row_versions> contents_of(const snapshot& view) {
  row_versions out{};
  result<void> outcome;
  std::size_t count = 0;
  view.for_each_row([&](row_number row) {
    outcome = [&]() -> result<void> {
      auto id = id_number(view.id(row));
      if (!id || view.find(view.id(row)) != row || out[*id] != 0)
        return failure{errc::corrupt, "a row that nobody wrote, or twice: "
                                          + printable(view.id(row))};
      CALLBOARD_TRY_ASSIGN(auto record, view.record(row));
      CALLBOARD_TRY_ASSIGN(auto vector, view.vector(row));
      auto content = string_member(record, "content");
      CALLBOARD_TRY_ASSIGN(
          out[*id], version_of(*id, content.value_or(""), text_of(vector)));
      if (record != record_of(*id, out[*id]))
        return failure{errc::corrupt, "the record of " + id_of(*id)
                                          + " is not what was written"};
      return {};
    }();
    ++count;
    return outcome.has_value();
  });
  CALLBOARD_TRY(std::move(outcome));
  if (count != view.live_count())
    return failure{errc::corrupt, "the view's count is not that of its rows"};
  return out;
}

result<row_versions> published_contents(const std::string& directory,
                                        const std::string& namespace_name) {
  auto index =
      file_content(directory + "/" + published_index_name(namespace_name));
  auto meta =
      file_content(directory + "/" + published_meta_name(namespace_name));
  row_versions out{};
  if (!index || !meta)
    return out;
  CALLBOARD_TRY_ASSIGN(auto vectors, vectors_of(*index));
  auto records = nlohmann::json::parse(*meta, nullptr, false);
  if (!records.is_object())
    return failure{errc::corrupt, "the published meta file is damaged"};
  constexpr auto row_bytes = power_loss_dimension * sizeof(float);
  for (const auto& [key, record] : records.items()) {
    auto row = std::strtoull(key.c_str(), nullptr, 10);
    if ((row + 1) * row_bytes > vectors.size())
      continue; // as LightRAG does
    auto id = id_number(record.value("__id__", ""));
    if (!id || out[*id] != 0)
      return failure{errc::corrupt, "the published record of row " + key
                                        + " is nobody's, or a second one"};
    CALLBOARD_TRY_ASSIGN(
        out[*id], version_of(*id, record.value("content", ""),
                             vectors.substr(row * row_bytes, row_bytes)));
  }
  return out;
}

verdict store_history::judge(const evidence& before, std::uint64_t generation,
                             const row_versions& found) {
  verdict out;
  std::map<std::uint64_t, row_version> order;
  for (const auto& commit : before.acknowledged)
    if (commit.generation > generation) {
      ++out.lost;
    } else if (commit.generation <= known()
               || !order.emplace(commit.generation, commit.version).second) {
      return {0, 1,
              "generation " + std::to_string(commit.generation)
                  + " was given out twice"};
    }
  auto seen = std::max(known(), before.shown);
  if (generation < seen)
    out.lost = std::max<std::uint64_t>(out.lost, 1);
  if (!out.good()) {
    out.explanation = "the store is at generation " + std::to_string(generation)
                      + "; somebody was shown generation "
                      + std::to_string(seen) + ", and "
                      + std::to_string(out.lost) + " commits are missing";
    return out;
  }
  std::vector<std::uint64_t> gaps;
  for (auto each = known() + 1; each <= generation; ++each)
    if (!order.contains(each))
      gaps.push_back(each);
  if (gaps.size() > before.unanswered.size())
    return {0, gaps.size(), "there are commits that nobody made"};
  auto candidates = before.unanswered;
  std::ranges::sort(candidates);
  do {
    for (std::size_t i = 0; i < gaps.size(); ++i)
      order[gaps[i]] = candidates[i];
    std::vector<row_version> commits;
    for (const auto& [sequence, version] : order)
      commits.push_back(version);
    auto states = replay(commits);
    if (difference(states.back(), found) == 0) {
      states_.insert(states_.end(), states.begin() + 1, states.end());
      return {};
    }
    out = explain(states.back(), found, before);
  } while (std::ranges::next_permutation(candidates).found);
  return out;
}

std::vector<row_versions>
store_history::replay(const std::vector<row_version>& commits) const {
  std::vector<row_versions> out{states_.back()};
  for (auto version : commits) {
    out.push_back(out.back());
    perform(make_transaction(seed_, version), out.back());
  }
  return out;
}

verdict store_history::judge_published(const row_versions& found) {
  for (auto each = published_; each <= known(); ++each)
    if (states_[each] == found) {
      published_ = each;
      return {};
    }
  return {0, 1,
          "the published pair is no state from generation "
              + std::to_string(published_) + " to " + std::to_string(known())};
}

} // namespace callboard::test
