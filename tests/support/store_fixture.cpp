#include "tests/support/store_fixture.hpp"

#include "core/record.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/stat.h>
#include <unistd.h>

namespace callboard::test {

namespace fs = std::filesystem;

namespace {

constexpr std::int64_t created_at = 1'700'000'000;
constexpr std::size_t index_header_size = 45;

std::string text_of(const std::string& id, int version) {
  return "text of " + id + ", version " + std::to_string(version);
}

template <class T>
T value_at(const std::string& bytes, std::size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

template <class T>
void add_value(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

/// The version of the row `id`, if its record and vector belong together.
int version_of(const std::string& id, std::string_view record,
               std::string_view vector) {
  INFO("id " << id << ", record " << record);
  const auto json = nlohmann::json::parse(record);
  REQUIRE(json.at("__id__").get<std::string>() == id);
  const auto version = static_cast<int>(
      json.at("__created_at__").get<std::int64_t>() - created_at);
  REQUIRE(json.at("content").get<std::string>() == text_of(id, version));
  const auto expected = vector_of(id, version);
  REQUIRE(vector.size() == expected.size() * sizeof(float));
  const bool is_its_own =
      std::memcmp(vector.data(), expected.data(), vector.size()) == 0;
  REQUIRE(is_its_own);
  return version;
}

std::string_view text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string read_with_stdio(const fs::path& path) {
  std::FILE* opened = std::fopen(path.c_str(), "rb");
  if (opened == nullptr)
    FAIL("cannot read " << path);
  std::string out;
  char buffer[4096];
  while (const auto count = std::fread(buffer, 1, sizeof(buffer), opened))
    out.append(buffer, count);
  std::fclose(opened);
  return out;
}

/// As LightRAG writes: beside, then renamed over.
void replace_file(const fs::path& path, const std::string& content) {
  const fs::path temporary = path.string() + ".tmp.test";
  write_file(temporary, content);
  fs::rename(temporary, path);
}

} // namespace

std::vector<float> vector_of(const std::string& id, int version) {
  auto state = std::hash<std::string>()(id) + 977U * unsigned(version);
  std::vector<float> out(store_dimension);
  double squares = 0;
  for (auto& each : out) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    each = static_cast<float>(state >> 40) / 16777216.0f - 0.5f;
    squares += double{each} * each;
  }
  for (auto& each : out)
    each = static_cast<float>(each / std::sqrt(squares));
  return out;
}

std::string record_of(const std::string& id, int version) {
  const nlohmann::ordered_json input = {{"content", text_of(id, version)}};
  const std::vector<std::string> fields = {"content"};
  return need(make_record(id, created_at + version, input.dump(), fields));
}

commit_operation upsert(const std::string& id, int version,
                        std::uint64_t drop_epoch) {
  commit_operation out;
  out.id = id;
  out.record = record_of(id, version);
  out.vector = vector_of(id, version);
  out.drop_epoch = drop_epoch;
  return out;
}

commit_operation removal(const std::string& id, std::uint64_t drop_epoch) {
  commit_operation out;
  out.what = commit_operation::kind::remove;
  out.id = id;
  out.drop_epoch = drop_epoch;
  return out;
}

result<commit_outcome> try_put(store& target, const versions& rows) {
  std::vector<commit_operation> operations;
  for (const auto& [id, version] : rows)
    operations.push_back(upsert(id, version));
  return target.commit(operations);
}

commit_outcome put(store& target, const versions& rows) {
  return need(try_put(target, rows));
}

commit_outcome take_out(store& target, const std::vector<std::string>& ids) {
  std::vector<commit_operation> operations;
  for (const auto& id : ids)
    operations.push_back(removal(id));
  return need(target.commit(operations));
}

versions changed(versions rows, const versions& changes) {
  for (const auto& [id, version] : changes)
    rows[id] = version;
  return rows;
}

versions without(versions rows, const std::vector<std::string>& ids) {
  for (const auto& id : ids)
    rows.erase(id);
  return rows;
}

versions many(const std::string& prefix, int count, int version) {
  versions out;
  for (int i = 0; i < count; ++i)
    out[prefix + std::to_string(i)] = version;
  return out;
}

versions contents(const snapshot& view) {
  versions out;
  view.for_each_row([&](row_number row) {
    const std::string id(view.id(row));
    const auto record = need(view.record(row));
    const auto vector = need(view.vector(row));
    REQUIRE(view.find(id) == row);
    const auto version = version_of(id, record, text(vector));
    REQUIRE(out.emplace(id, version).second);
    return true;
  });
  REQUIRE(out.size() == view.live_count());
  return out;
}

versions contents(const store& source) {
  return contents(*source.view());
}

published_rows read_published(const std::string& index, const std::string& meta,
                              strictness how) {
  REQUIRE(index.size() >= index_header_size);
  REQUIRE(index.substr(0, 4) == "IxFI");
  REQUIRE(value_at<std::int32_t>(index, 4) == int{store_dimension});
  published_rows out;
  out.total = value_at<std::uint64_t>(index, 8);
  REQUIRE(value_at<std::int64_t>(index, 16) == 1 << 20);
  REQUIRE(value_at<std::int64_t>(index, 24) == 1 << 20);
  REQUIRE(value_at<std::uint8_t>(index, 32) == 1);
  REQUIRE(value_at<std::int32_t>(index, 33) == 0);
  REQUIRE(value_at<std::uint64_t>(index, 37) == out.total * store_dimension);
  constexpr auto vector_size = store_dimension * sizeof(float);
  REQUIRE(index.size() == index_header_size + out.total * vector_size);
  const auto rows = nlohmann::json::parse(meta);
  REQUIRE(rows.is_object());
  for (const auto& [key, record] : rows.items()) {
    const auto number = std::stoull(key);
    REQUIRE(std::to_string(number) == key);
    if (number >= out.total) {
      INFO("row " << key << " of " << out.total);
      REQUIRE(how == strictness::between_steps);
      continue;
    }
    const auto id = record.at("__id__").get<std::string>();
    const auto vector = std::string_view(index).substr(
        index_header_size + number * vector_size, vector_size);
    out.numbers[id] = number;
    const auto version = version_of(id, record.dump(), vector);
    REQUIRE(out.rows.emplace(id, version).second);
  }
  return out;
}

published_rows read_published(const fs::path& place, strictness how,
                              std::string_view namespace_name) {
  const auto index = index_path(place, namespace_name);
  if (!fs::exists(index))
    return {};
  return read_published(read_with_stdio(index),
                        read_with_stdio(meta_path(place, namespace_name)), how);
}

void write_foreign_pair(const fs::path& place, const versions& rows) {
  std::string index = "IxFI";
  add_value(index, std::int32_t{store_dimension});
  add_value(index, std::uint64_t{rows.size()});
  add_value(index, std::int64_t{1} << 20);
  add_value(index, std::int64_t{1} << 20);
  add_value(index, std::uint8_t{1});
  add_value(index, std::int32_t{0});
  add_value(index, std::uint64_t{rows.size() * store_dimension});
  nlohmann::ordered_json meta = nlohmann::ordered_json::object();
  for (const auto& [id, version] : rows) {
    meta[std::to_string(meta.size())] = {
        {"__id__", id},
        {"__created_at__", created_at + version},
        {"content", text_of(id, version)}};
    for (const auto each : vector_of(id, version))
      add_value(index, each);
  }
  fs::create_directories(place);
  replace_file(index_path(place), index);
  replace_file(meta_path(place), meta.dump());
}

fs::path index_path(const fs::path& place, std::string_view namespace_name) {
  return place / ("faiss_index_" + std::string(namespace_name) + ".index");
}

fs::path meta_path(const fs::path& place, std::string_view namespace_name) {
  return index_path(place, namespace_name).string() + ".meta.json";
}

fs::path private_path(const fs::path& place, std::string_view name) {
  const auto home =
      place / ("faiss_index_" + std::string(store_namespace) + ".callboard");
  return name.empty() ? home : home / name;
}

struct test_board::announcement_count {
  void add() {
    const std::lock_guard guard(mutex);
    ++value;
    changed.notify_all();
  }

  std::mutex mutex;
  std::condition_variable changed;
  // Protected by mutex:
  std::uint64_t value = 0;
  bool interrupted = false;
};

class test_board::notices final : public store_notices {
public:
  notices(bool covers_all, std::shared_ptr<announcement_count> count)
      : covers_all_(covers_all), count_(std::move(count)) {}

  std::uint64_t durable_sequence() const noexcept override {
    const std::lock_guard guard(mutex_);
    return durable_;
  }
  void announce(std::uint64_t sequence) noexcept override {
    {
      const std::lock_guard guard(mutex_);
      if (durable_ >= sequence)
        return;
      durable_ = sequence;
    }
    count_->add();
  }
  std::optional<std::uint64_t> poisoned_from() const noexcept override {
    const std::lock_guard guard(mutex_);
    return poisoned_;
  }
  void poison(std::uint64_t sequence) noexcept override {
    const std::lock_guard guard(mutex_);
    poisoned_ = poisoned_ ? std::min(*poisoned_, sequence) : sequence;
  }
  void clear_poison() noexcept override {
    const std::lock_guard guard(mutex_);
    poisoned_.reset();
  }
  void note_base_epoch(std::uint64_t) noexcept override {}
  bool covers_all_processes() const noexcept override { return covers_all_; }

private:
  const bool covers_all_;
  const std::shared_ptr<announcement_count> count_;
  mutable std::mutex mutex_;
  // Protected by mutex_:
  std::uint64_t durable_ = 0;
  std::optional<std::uint64_t> poisoned_;
};

test_board::test_board(bool covers_all)
    : covers_all_(covers_all), count_(std::make_shared<announcement_count>()) {}

std::shared_ptr<store_notices>
test_board::attach(const store_address& address) {
  const std::lock_guard guard(mutex_);
  auto& found = notices_[address.id];
  if (!found)
    found = std::make_shared<notices>(covers_all_, count_);
  return found;
}

std::uint64_t test_board::announcements() const noexcept {
  const std::lock_guard guard(count_->mutex);
  return count_->value;
}

void test_board::wait(std::uint64_t seen, std::chrono::milliseconds timeout) {
  std::unique_lock guard(count_->mutex);
  count_->changed.wait_for(guard, timeout, [&] {
    return count_->value != seen || count_->interrupted;
  });
  count_->interrupted = false;
}

void test_board::interrupt() noexcept {
  const std::lock_guard guard(count_->mutex);
  count_->interrupted = true;
  count_->changed.notify_all();
}

store_options options_for(const fs::path& place) {
  store_options out;
  out.working_directory = place.string();
  out.namespace_name = store_namespace;
  out.dimension = store_dimension;
  out.reader_grace = std::chrono::seconds(0);
  out.lock_timeout = std::chrono::milliseconds(20);
  return out;
}

quick_directory::quick_directory() {
  auto name = std::string("/dev/shm/callboard-test-XXXXXX");
  if (::mkdtemp(name.data()) == nullptr) {
    name = (fs::temp_directory_path() / "callboard-test-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr)
      FAIL("cannot make a directory for the test");
  }
  path_ = name;
}

quick_directory::~quick_directory() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

void copy_tree(const fs::path& from, const fs::path& to) {
  fs::remove_all(to);
  fs::create_directories(to);
  std::map<ino_t, fs::path> copied;
  for (const auto& each : fs::recursive_directory_iterator(from)) {
    const auto target = to / fs::relative(each.path(), from);
    if (each.is_directory()) {
      fs::create_directory(target);
      continue;
    }
    struct stat status {};
    REQUIRE(::lstat(each.path().c_str(), &status) == 0);
    const auto [place, is_new] = copied.emplace(status.st_ino, target);
    if (is_new)
      fs::copy_file(each.path(), target);
    else
      fs::create_hard_link(place->second, target);
  }
}

std::map<std::string, std::string> all_files(const fs::path& place) {
  std::map<std::string, std::string> out;
  for (const auto& each : fs::recursive_directory_iterator(place))
    if (!each.is_directory())
      out[fs::relative(each.path(), place).string()] = read_file(each.path());
  return out;
}

std::set<std::string> private_files(const fs::path& place) {
  std::set<std::string> out;
  for (const auto& each : fs::directory_iterator(private_path(place)))
    out.insert(each.path().filename().string());
  return out;
}

} // namespace callboard::test
