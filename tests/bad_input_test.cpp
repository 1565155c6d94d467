#include "core/bytes.hpp"
#include "core/manifest.hpp"
#include "tests/support/store_fixture.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cstring>

using namespace callboard;
using namespace callboard::test;

namespace fs = std::filesystem;

namespace {

/// A store whose base is `base-2`, with three commits since in `log-2`.
struct sample {
  sample() {
    process here;
    auto handle = here.open(options());
    put(*handle, many("a", 3));
    need(handle->checkpoint(compaction::none));
    note(*handle);
    put(*handle, {{"a1", 2}, {"b", 1}});
    note(*handle);
    take_out(*handle, {"a2"});
    note(*handle);
    put(*handle, {{"c", 1}});
    note(*handle);
    handle.reset();
    untouched = all_files(place.path());
  }

  store_options options() const { return options_for(place.path()); }
  fs::path file(const std::string& name) const {
    return private_path(place.path(), name);
  }
  void note(const store& handle) {
    states.push_back(contents(handle));
    log_bytes.push_back(fs::file_size(file("log-2")));
  }

  /// That the store cannot be opened, for the reason that `path` is bad, and
  /// that nothing changes.
  void check_refused(const fs::path& path,
                     std::vector<errc> codes = {errc::corrupt}) const {
    const auto before = all_files(place.path());
    process later;
    const auto reason = failure_of(later.try_open(options()));
    CAPTURE(reason);
    CHECK(std::find(codes.begin(), codes.end(), reason.code) != codes.end());
    CHECK(contains(reason.message, path.string()));
    CHECK(all_files(place.path()) == before);
  }

  /// The same; the file is then put back.
  void check_refused_with(const std::string& name, const std::string& content,
                          std::vector<errc> codes = {errc::corrupt}) const {
    const auto path = file(name);
    const auto good = read_file(path);
    write_file(path, content);
    check_refused(path, std::move(codes));
    write_file(path, good);
  }

  /// That the store is whole and goes on.
  void check_sound(const versions& expected) const {
    process later;
    auto handle = later.open(options());
    CHECK(contents(*handle) == expected);
    need(handle->verify());
    put(*handle, {{"more", 1}});
    process after;
    CHECK(contents(*after.open(options())) == changed(expected, {{"more", 1}}));
  }

  quick_directory place;
  std::vector<versions> states;
  std::vector<std::uint64_t> log_bytes;
  std::map<std::string, std::string> untouched;
};

/// Row by row: right or refused. Nothing in between.
void check_rows_are_right_or_refused(const snapshot& view) {
  view.for_each_row([&](row_number row) {
    const auto record = view.record(row);
    const auto vector = view.vector(row);
    const std::string id(view.id(row));
    if (record) {
      const bool is_right =
          *record == record_of(id, 1) || *record == record_of(id, 2);
      REQUIRE(is_right);
    } else {
      REQUIRE(record.error().code == errc::corrupt);
    }
    if (!vector) {
      REQUIRE(vector.error().code == errc::corrupt);
      return true;
    }
    bool is_right = false;
    for (const auto version : {1, 2}) {
      const auto expected = vector_of(id, version);
      is_right |=
          std::memcmp(expected.data(), vector->data(), vector->size()) == 0;
    }
    REQUIRE(is_right);
    return true;
  });
}

/// `bytes` with the value at `offset` replaced and the last 8 bytes made its
/// checksum again.
template <class T>
std::string resealed(std::string bytes, std::size_t offset, T value) {
  auto place = std::as_writable_bytes(std::span(bytes));
  store_at(place, offset, value);
  const auto body = place.first(place.size() - 8);
  store_at(place, body.size(), checksum(body));
  return bytes;
}

/// A log's frame: what the format says, written by code of its own.
std::string make_frame(const std::string& log, std::uint32_t type,
                       std::uint64_t payload_bytes, std::uint64_t sequence,
                       std::uint64_t link, std::uint32_t operations,
                       const std::string& payload) {
  const auto salt = load<std::uint64_t>(as_bytes(log), 32);
  std::string out(64, '\0');
  auto place = std::as_writable_bytes(std::span(out));
  std::memcpy(out.data(), "CBFR", 4);
  store_at(place, 4, type);
  store_at(place, 8, payload_bytes);
  store_at(place, 16, sequence);
  store_at(place, 24, std::uint64_t{1});
  store_at(place, 32, link);
  store_at(place, 40, checksum(as_bytes(payload), salt));
  store_at(place, 48, operations);
  store_at(place, 56, checksum(place.first(56), salt));
  out += payload;
  out.resize((out.size() + 7) / 8 * 8, '\0');
  return out;
}

} // namespace

// -- Files of the private directory -------------------------------------------

TEST_CASE("A MANIFEST of any other size is refused") {
  const sample s;
  const auto good = read_file(s.file("MANIFEST"));
  for (std::size_t size = 0; size < good.size(); ++size)
    s.check_refused_with("MANIFEST", good.substr(0, size));
  s.check_refused_with("MANIFEST", good + '\0');
  s.check_refused_with("MANIFEST", good + good);
  s.check_refused_with("MANIFEST", std::string(manifest_bytes_max, '\0'));
  s.check_refused_with("MANIFEST", std::string(1 << 20, 'x'));
  s.check_sound(s.states.back());
}

TEST_CASE("A MANIFEST with hostile values is refused") {
  const sample s;
  const auto good = read_file(s.file("MANIFEST"));
  constexpr auto huge = ~std::uint64_t{0};
  for (const std::size_t offset : {72, 80, 104, 112, 136}) { // sizes and counts
    CAPTURE(offset);
    const auto path = s.file("MANIFEST");
    for (const auto value : {huge, huge / 16, std::uint64_t{1} << 31}) {
      write_file(path, resealed(good, offset, value));
      process later;
      CHECK(failure_of(later.try_open(s.options())).code == errc::corrupt);
    }
    write_file(path, good);
  }
  for (const std::size_t offset : {64, 160, 164}) // dimension, model, logs
    for (const std::uint32_t value : {0U, 65U, ~0U, 1U << 29}) {
      CAPTURE(offset, value);
      if (offset == 160 && value == 0)
        continue; // so it is
      s.check_refused_with("MANIFEST", resealed(good, offset, value),
                           {errc::corrupt, errc::dimension_mismatch});
    }
  for (const std::size_t offset : {68, 120, 124}) { // metric, order, moves
    CAPTURE(offset);
    s.check_refused_with("MANIFEST", resealed(good, offset, 2U));
  }
  // Row counts that fit the size of the index file only modulo 2^64.
  auto wrapping = resealed(good, 104, huge / 16 + 1);
  wrapping = resealed(wrapping, 72, std::uint64_t{45});
  s.check_refused_with("MANIFEST", wrapping);
  CHECK(all_files(s.place.path()) == s.untouched);
}

TEST_CASE("Files of a newer version are refused and kept") {
  const sample s;
  s.check_refused_with(
      "MANIFEST", resealed(read_file(s.file("MANIFEST")), 8, std::uint32_t{4}),
      {errc::unsupported_format});
  const auto log = read_file(s.file("log-2"));
  s.check_refused_with("log-2",
                       resealed(log.substr(0, 64), 8, std::uint32_t{2})
                           + log.substr(64),
                       {errc::unsupported_format});
}

TEST_CASE("A file of the store that is missing is named") {
  const sample s;
  for (const auto* name : {"log-2", "base-2.index", "base-2.meta"}) {
    CAPTURE(name);
    const auto path = s.file(name);
    const auto content = read_file(path);
    fs::remove(path);
    s.check_refused(path);
    write_file(path, content);
  }
}

TEST_CASE("What is no regular file is refused") {
  const sample s;
  const auto name = GENERATE(values<std::string>(
      {"MANIFEST", "log-2", "base-2.index", "base-2.meta", "LOCK"}));
  const bool is_link = GENERATE(true, false);
  CAPTURE(name, is_link);
  quick_directory elsewhere;
  const auto path = s.file(name);
  const auto content = read_file(path);
  fs::rename(path, elsewhere / name);
  if (is_link)
    fs::create_symlink(elsewhere / name, path);
  else
    fs::create_directory(path);
  process later;
  const auto reason = failure_of(later.try_open(s.options()));
  CHECK(reason.code == errc::io_failure);
  CHECK(contains(reason.message, path.string()));
  CHECK(read_file(elsewhere / name) == content);
}

TEST_CASE("A private directory that is a symbolic link is refused") {
  const sample s;
  quick_directory elsewhere;
  const auto home = private_path(s.place.path());
  fs::rename(home, elsewhere / "home");
  fs::create_directory_symlink(elsewhere / "home", home);
  process later;
  const auto reason = failure_of(later.try_open(s.options()));
  CHECK(reason.code == errc::io_failure);
  CHECK(contains(reason.message, home.string()));
}

TEST_CASE("A base file of any other size is refused, a catalog made again") {
  const sample s;
  for (const auto* name : {"base-2.index", "base-2.meta"}) {
    const auto good = read_file(s.file(name));
    for (std::size_t size = 0; size < good.size(); size += 1 + size / 8) {
      CAPTURE(name, size);
      s.check_refused_with(name, good.substr(0, size));
    }
  }
  const auto catalog = read_file(s.file("base-2.catalog"));
  for (std::size_t size = 0; size < catalog.size(); size += 1 + size / 8) {
    CAPTURE(size);
    write_file(s.file("base-2.catalog"), catalog.substr(0, size));
    process later;
    CHECK(contents(*later.open(s.options())) == s.states.back());
    CHECK(read_file(s.file("base-2.catalog")) == catalog);
  }
  CHECK(all_files(s.place.path()) == s.untouched);
}

TEST_CASE("A flipped bit in a base is refused or repaired, never shown") {
  const sample s;
  for (const auto* name : {"base-2.index", "base-2.meta", "base-2.catalog"}) {
    const auto good = read_file(s.file(name));
    for (std::size_t byte = 0; byte < good.size(); ++byte) {
      CAPTURE(name, byte);
      write_file(s.file(name), with_flipped_bit(good, byte * 8 + byte % 8));
      process later;
      auto opened = later.try_open(s.options());
      if (!opened) {
        REQUIRE(opened.error().code != errc::not_found);
        REQUIRE(contains(opened.error().message, name));
      } else {
        check_rows_are_right_or_refused(*(*opened)->view());
        const bool is_repaired = read_file(s.file(name)) == good;
        REQUIRE((is_repaired || !(*opened)->verify()));
      }
      write_file(s.file(name), good);
    }
  }
  CHECK(all_files(s.place.path()) == s.untouched);
}

TEST_CASE("A base with a damaged row is never folded into a new one") {
  const sample s;
  const auto path = s.file("base-2.index");
  const auto damaged = with_flipped_bit(read_file(path), (45 + 1) * 8);
  write_file(path, damaged);
  process later;
  auto handle = later.open(s.options());
  const auto reason = failure_of(handle->checkpoint(compaction::none));
  CHECK(reason.code == errc::corrupt);
  CHECK(contains(reason.message, path.string()));
  CHECK(read_file(path) == damaged);
  CHECK(read_file(index_path(s.place.path())) == damaged);
  put(*handle, {{"a0", 2}}); // heals: the damaged row is gone
  need(handle->checkpoint(compaction::none));
  CHECK(read_published(s.place.path()).rows
        == changed(s.states.back(), {{"a0", 2}}));
}

TEST_CASE("A log whose header is damaged is refused") {
  const sample s;
  const auto good = read_file(s.file("log-2"));
  for (std::size_t size = 0; size < 64; ++size)
    s.check_refused_with("log-2", good.substr(0, size));
  s.check_refused_with("log-2", read_file(s.file("MANIFEST")));
  const auto resealed_header = [&](std::size_t offset, auto value) {
    return resealed(good.substr(0, 64), offset, value) + good.substr(64);
  };
  s.check_refused_with("log-2", resealed_header(16, std::uint64_t{7}));
  s.check_refused_with("log-2", resealed_header(24, std::uint64_t{0}));
  s.check_refused_with("log-2", resealed_header(40, std::uint32_t{8}));
}

TEST_CASE("A frame that is well sealed but hostile is refused or cut") {
  const sample s;
  const auto log = read_file(s.file("log-2")).substr(0, 64);
  const auto link = load<std::uint64_t>(as_bytes(log), 56);
  const auto sequence = load<std::uint64_t>(as_bytes(log), 24) + 1;
  auto operation_of = [](std::uint8_t kind, std::uint16_t id_bytes,
                         std::uint32_t record_bytes) {
    std::string out(8, '\0');
    auto place = std::as_writable_bytes(std::span(out));
    store_at(place, 0, kind);
    store_at(place, 2, id_bytes);
    store_at(place, 4, record_bytes);
    return out + "idid";
  };
  SECTION("whose operations are not what the count says") {
    const auto removal_of_id = operation_of(2, 4, 0);
    const auto payload = GENERATE_COPY(
        std::string(), operation_of(9, 4, 0), operation_of(0, 4, 0),
        operation_of(2, 5, 0), operation_of(2, 65535, 0), operation_of(2, 4, 1),
        operation_of(2, 4, ~0U), operation_of(1, 4, 0),
        removal_of_id.substr(0, 7), removal_of_id + removal_of_id,
        removal_of_id + "xxxx");
    s.check_refused_with(
        "log-2",
        log + make_frame(log, 1, payload.size(), sequence, link, 1, payload));
    s.check_refused_with(
        "log-2",
        log + make_frame(log, 1, payload.size(), sequence, link, ~0U, payload));
  }
  SECTION("whose type is unknown") {
    s.check_refused_with("log-2",
                         log + make_frame(log, 3, 0, sequence, link, 0, ""),
                         {errc::unsupported_format});
  }
  SECTION(
      "that does not continue what is before it, or is longer than the log") {
    constexpr auto huge = ~std::uint64_t{0};
    auto payload = operation_of(2, 2, 0); // of a0
    payload.replace(8, 4, std::string("a0\0\0", 4));
    const auto size = payload.size();
    auto frame_of = [&](std::uint64_t payload_bytes, std::uint64_t number,
                        std::uint64_t linked) {
      return make_frame(log, 1, payload_bytes, number, linked, 1, payload);
    };
    const auto frame = GENERATE_COPY(
        frame_of(size, sequence, link + 1), frame_of(size, sequence - 1, link),
        frame_of(huge, sequence, link), frame_of(huge - 63, sequence, link),
        frame_of(std::uint64_t{256} << 20, sequence, link),
        frame_of(size + 5, sequence, link), frame_of(size - 4, sequence, link));
    write_file(s.file("log-2"), log + frame);
    s.check_sound(s.states.front());
  }
  SECTION("that leaves out one before it") {
    s.check_refused_with(
        "log-2", log + make_frame(log, 1, 0, sequence + 1, link, 0, ""));
  }
}

TEST_CASE("Commits that vanish from a log in use are noticed") {
  const sample s;
  process here;
  auto handle = here.open(s.options());
  put(*handle, {{"d", 1}});
  fs::resize_file(s.file("log-2"), s.log_bytes[2]);
  CHECK(failure_of(try_put(*handle, {{"e", 1}})).code == errc::corrupt);
  auto options = s.options();
  CHECK(failure_of(here.try_open(options)).code == errc::corrupt);
  options.salvage = true;
  auto salvaged = here.open(options);
  CHECK(contents(*salvaged) == s.states[2]);
  // What was announced before the loss is not announced again.
  CHECK(put(*salvaged, {{"f", 1}}).generation > handle->view()->generation());
  salvaged.reset();
  auto later = here.open(s.options());
  CHECK(contents(*later) == changed(s.states[2], {{"f", 1}}));
  put(*later, {{"g", 1}});
}

TEST_CASE("Older files that were copied over a store in use are noticed") {
  const sample s;
  quick_directory backup;
  copy_tree(private_path(s.place.path()), backup / "home");
  process here;
  auto handle = here.open(s.options());
  put(*handle, {{"d", 1}});
  need(handle->checkpoint(compaction::none));
  const auto seen = contents(*handle);
  for (const auto& name : private_files(s.place.path()))
    if (name != "LOCK")
      fs::remove(s.file(name));
  for (const auto& each : fs::directory_iterator(backup / "home"))
    if (each.path().filename() != "LOCK")
      fs::copy(each.path(), s.file(each.path().filename()));
  CHECK(failure_of(handle->refresh()).code == errc::corrupt);
  CHECK(contents(*handle) == seen);
}

// -- Salvage ------------------------------------------------------------------

TEST_CASE("A salvage keeps what is before the damage and saves the rest") {
  const sample s;
  const std::size_t frame = GENERATE(0U, 1U, 2U);
  const auto offset = s.log_bytes[frame];
  const auto damaged =
      with_flipped_bit(read_file(s.file("log-2")), (offset + 64 + 9) * 8);
  write_file(s.file("log-2"), damaged);
  if (frame < 2) // else it is an interrupted commit, as far as one can tell
    s.check_refused(s.file("log-2"));
  auto options = s.options();
  options.salvage = true;
  process later;
  auto handle = later.open(options);
  CHECK(contents(*handle) == s.states[frame]);
  if (frame < 2) {
    const auto saved =
        read_file(s.file("log-2.salvaged-" + std::to_string(offset)));
    CHECK(saved == damaged.substr(offset));
  }
  handle.reset();
  s.check_sound(s.states[frame]);
  need(later.open(s.options())->checkpoint(compaction::forced));
  if (frame < 2)
    CHECK(fs::exists(s.file("log-2.salvaged-" + std::to_string(offset))));
  need(later.open(s.options())->drop());
  CHECK_FALSE(fs::exists(s.file("log-2.salvaged-" + std::to_string(offset))));
}

TEST_CASE("A salvage saves the logs behind a damaged one, too") {
  const sample s;
  process here;
  auto handle = here.open(s.options());
  need(handle->begin_checkpoint(compaction::none,
                                patience::lock_timeout)); // given up
  put(*handle, {{"d", 1}});
  handle.reset();
  const auto offset = s.log_bytes[1];
  const auto damaged =
      with_flipped_bit(read_file(s.file("log-2")), (offset + 3) * 8);
  write_file(s.file("log-2"), damaged);
  s.check_refused(s.file("log-2"));
  const auto behind = read_file(s.file("log-3"));
  auto options = s.options();
  options.salvage = true;
  process later;
  CHECK(contents(*later.open(options)) == s.states[1]);
  CHECK(read_file(s.file("log-2.salvaged-" + std::to_string(offset)))
        == damaged.substr(offset));
  CHECK(read_file(s.file("log-3.salvaged-64")) == behind.substr(64));
  s.check_sound(s.states[1]);
}

TEST_CASE("A sound store is opened for salvage as any other") {
  const sample s;
  auto options = s.options();
  options.salvage = true;
  process later;
  CHECK(contents(*later.open(options)) == s.states.back());
  CHECK(all_files(s.place.path()) == s.untouched);
}

// -- The published pair -------------------------------------------------------

namespace {

/// A pair by another writer, in an empty directory or over a store of ours.
struct foreign_sample {
  explicit foreign_sample(bool over_ours) {
    if (over_ours) {
      process here;
      put(*here.open(options_for(place.path())), many("ours", 3));
    }
    write_foreign_pair(place.path(), many("theirs", 3));
    index = read_file(index_path(place.path()));
    meta = read_file(meta_path(place.path()));
  }

  void check_refused(const fs::path& path, std::vector<errc> codes) const {
    const auto index_now = read_file(index_path(place.path()));
    const auto meta_now = read_file(meta_path(place.path()));
    process later;
    const auto reason = failure_of(later.try_open(options_for(place.path())));
    CAPTURE(reason);
    CHECK(std::find(codes.begin(), codes.end(), reason.code) != codes.end());
    CHECK(contains(reason.message, path.string()));
    CHECK(read_file(index_path(place.path())) == index_now);
    CHECK(read_file(meta_path(place.path())) == meta_now);
  }

  quick_directory place;
  std::string index;
  std::string meta;
};

template <class T>
std::string with_value(std::string bytes, std::size_t offset, T value) {
  std::memcpy(bytes.data() + offset, &value, sizeof(T));
  return bytes;
}

} // namespace

TEST_CASE("A foreign pair that is damaged is refused and kept") {
  const bool over_ours = GENERATE(true, false);
  const foreign_sample s(over_ours);
  const auto index = index_path(s.place.path());
  const auto meta = meta_path(s.place.path());
  const std::vector<errc> bad = {errc::corrupt, errc::unsupported_format};
  for (std::size_t size = 0; size < s.index.size(); size += 1 + size / 4) {
    CAPTURE(size);
    write_file(index, s.index.substr(0, size));
    s.check_refused(index, bad);
  }
  constexpr auto huge = ~std::uint64_t{0};
  for (const auto& hostile :
       {with_value(s.index, 0, std::uint32_t{0x46327849}),
        with_value(s.index, 8, huge), with_value(s.index, 8, huge / 16 + 4),
        with_value(s.index, 8, std::uint64_t{1} << 52),
        with_value(s.index, 33, 1), with_value(s.index, 37, huge),
        with_value(s.index, 37, std::uint64_t{1} << 40), s.index + "x"}) {
    write_file(index, hostile);
    s.check_refused(index, bad);
  }
  write_file(index, with_value(s.index, 4, 8));
  s.check_refused(index, {errc::dimension_mismatch, errc::corrupt});
  write_file(index, s.index);
  for (std::size_t size = 0; size < s.meta.size(); size += 1 + size / 4) {
    CAPTURE(size);
    write_file(meta, s.meta.substr(0, size));
    s.check_refused(meta, bad);
  }
  const auto record = R"({"__id__": "x", "content": "y"})";
  for (const auto* key : {"-1", "01", " 1", "1_0", "x", "", "1.0", "1e1"}) {
    CAPTURE(key);
    write_file(meta, std::string("{\"") + key + "\": " + record + "}");
    s.check_refused(meta, bad);
  }
  for (const auto& text :
       {std::string("[]"), std::string("null"), std::string("{\"0\": []}"),
        s.meta + "x", std::string(100'000, '['), s.meta + s.meta}) {
    write_file(meta, text);
    s.check_refused(meta, bad);
  }
  write_file(meta, s.meta);
  process later;
  auto handle = later.open(options_for(s.place.path()));
  CHECK(contents(*handle)
        == (over_ours ? changed(many("theirs", 3), many("ours", 3))
                      : many("theirs", 3)));
}

TEST_CASE("An index file whose meta file is missing is refused and kept") {
  const foreign_sample s(false);
  fs::remove(meta_path(s.place.path()));
  process later;
  const auto reason = failure_of(later.try_open(options_for(s.place.path())));
  CHECK(reason.code == errc::corrupt);
  CHECK(contains(reason.message, meta_path(s.place.path()).string()));
  CHECK(read_file(index_path(s.place.path())) == s.index);
  CHECK_FALSE(fs::exists(meta_path(s.place.path())));
}

TEST_CASE("A published file that is no regular file is refused") {
  const bool over_ours = GENERATE(true, false);
  const foreign_sample s(over_ours);
  quick_directory elsewhere;
  const bool is_index = GENERATE(true, false);
  const auto path =
      is_index ? index_path(s.place.path()) : meta_path(s.place.path());
  const auto target = elsewhere / "target";
  fs::rename(path, target);
  const auto content = read_file(target);
  if (GENERATE(true, false))
    fs::create_symlink(target, path);
  else
    fs::create_directory(path);
  process later;
  const auto reason = failure_of(later.try_open(options_for(s.place.path())));
  CHECK(reason.code == errc::io_failure);
  CHECK(contains(reason.message, path.string()));
  CHECK(read_file(target) == content);
  CHECK(fs::symlink_status(path).type() != fs::file_type::regular);
}

TEST_CASE("A foreign pair of another dimension is refused and kept") {
  quick_directory place;
  write_foreign_pair(place.path(), many("a", 3));
  const auto index = read_file(index_path(place.path()));
  auto options = options_for(place.path());
  options.dimension = 8;
  process here;
  const auto reason = failure_of(here.try_open(options));
  CHECK(reason.code == errc::dimension_mismatch);
  CHECK(read_file(index_path(place.path())) == index);
  CHECK(contents(*here.open(options_for(place.path()))) == many("a", 3));
}

TEST_CASE("Published files that vanish are published again") {
  const sample s;
  const bool index = GENERATE(true, false);
  const bool meta = GENERATE(true, false);
  if (index)
    fs::remove(index_path(s.place.path()));
  if (meta)
    fs::remove(meta_path(s.place.path()));
  process later;
  auto handle = later.open(s.options());
  CHECK(contents(*handle) == s.states.back());
  CHECK(read_published(s.place.path()).rows == s.states.front());
}
