/// Writes the seeds that the fuzzers start from.
/// Usage: make_corpus <directory>: makes a directory in it for each fuzzer.
#include "core/commit_log.hpp"
#include "core/index_file.hpp"
#include "core/manifest.hpp"
#include "tests/fuzz/small_base.hpp"
#include "tests/fuzz/support.hpp"

#include <cstdio>
#include <filesystem>
#include <fstream>

namespace callboard::fuzz {
namespace {

using bytes = std::vector<std::byte>;

class corpus {
public:
  explicit corpus(std::filesystem::path place) : place_(std::move(place)) {}

  void add(std::string_view fuzzer, std::string_view name,
           std::span<const std::byte> content) const {
    const auto home = place_ / fuzzer;
    std::filesystem::create_directories(home);
    std::ofstream out(home / name, std::ios::binary | std::ios::trunc);
    out << as_text(content);
    out.close();
    require(out.good(), "the seed can be written");
  }
  void add(std::string_view fuzzer, std::string_view name,
           std::string_view content) const {
    add(fuzzer, name, as_bytes(content));
  }

private:
  std::filesystem::path place_;
};

void add_logs(const corpus& to) {
  desk place;
  constexpr std::uint32_t dimension = 3;
  need(log_cursor::create(place.home(), 1, 10, 77, dimension));
  const auto content = [&] { return place.read(log_name(1)); };
  to.add("log", "empty", content());
  auto log = need(log_cursor::open(place.home(), 1, dimension));
  bytes payload;
  const commit_operation upsert{
      commit_operation::kind::upsert, "a", R"({"__id__": "a"})", {1, 0, 0}};
  const commit_operation removal{commit_operation::kind::remove, "b", "", {}};
  encode_operation(upsert, payload);
  encode_operation(removal, payload);
  need(log.append(frame_type::commit, 0, 2, payload));
  to.add("log", "one_commit", content());
  need(log.append(frame_type::drop, 11, 0, {}));
  need(log.append(frame_type::commit, 12, 2, payload));
  to.add("log", "commits_and_drop", content());
  to.add("log", "torn", content().substr(0, content().size() - 20));
  auto damaged = content();
  damaged[log_header_bytes + 3] ^= 1;
  to.add("log", "damaged", damaged);
}

void add_bases(const corpus& to) {
  const auto& sound = small_base::get();
  to.add("catalog", "sound", sound.catalog);
  to.add("catalog", "one_move_less", sound.catalogs_less_a_move.front());
  for (const std::uint8_t flags : {0, 2}) {
    bytes out;
    append_value(out, static_cast<std::uint16_t>(sound.index.size()));
    append_value(out, static_cast<std::uint16_t>(sound.meta.size()));
    append_value(out, static_cast<std::uint8_t>(sound.descriptor.live_count));
    append_value(out, flags);
    append_bytes(out, sound.index);
    append_bytes(out, sound.meta);
    append_bytes(out, sound.catalog);
    to.add("base", flags == 0 ? "with_catalog" : "without_catalog", out);
  }
}

void add_manifests(const corpus& to) {
  manifest root;
  root.base = small_base::get().descriptor;
  root.number = 3;
  root.logs = {2};
  to.add("manifest", "one_log", encode_manifest(root));
  root.model = "a model";
  root.logs = {2, 5, 6};
  root.meta_first = true;
  root.moves_planned_at = 1'700'000'000;
  root.row_floor = 12;
  root.row_floor_since = 1'700'000'001;
  root.durable_sequence = 9;
  to.add("manifest", "everything", encode_manifest(root));
}

void add_meta_files(const corpus& to) {
  // Dimension 2 and six rows, of which row 3 is not finite.
  const std::string head{'\x01', '\x06'};
  to.add("meta", "empty", head + "{}");
  to.add("meta", "rows",
         head
             + R"({"0": {"__id__": "a", "__created_at__": 1}, )"
               R"("2": {"__id__": 5, "src_id": "a", "tgt_id": "b"}})");
  to.add(
      "meta", "own_vectors",
      head
          + R"({"1": {"__id__": "a", "__vector__": [3, 4]}, )"
            R"("7": {"__id__": "b", "__vector__": ["0.5", 1e-3]}, )"
            R"("20": {"__id__": "c", "__vector__": [1, 0], "content": ""}})");
  to.add("meta", "to_embed",
         head
             + R"({"3": {"__id__": "a", "content": "text"}, )"
               R"("9": {"__id__": "b", "content": "x"}, "4": {}})");
  to.add("meta", "decisions",
         head
             + R"({"0": {"__id__": "a"}, "1": {"__id__": "a"}, )"
               R"("2": {"no": 1}, "2": {"__id__": "\ud800"}})");
  to.add("meta", "lines", head + "{\n\"0\": {\n\"__id__\": \"a\\u00e9\"\n}\n}");
}

void add_texts(const corpus& to) {
  to.add("json", "object", R"({"a": [1, -2.5e3, "\u00e9\ud800", null]})");
  to.add("json", "tokens", R"([NaN, Infinity, -Infinity, true, false])");
  to.add("json", "spaces", " {\t\"a\" :\r\n[ ] , \"a\":{ } } ");
  to.add("json", "vector",
         R"([0.25, "1.5", -3, 1e-40, 123456789012345678901])");
  to.add("json", "text", "\"\xc3\xa9 \xf0\x9f\x98\x80 \\\"\\n\"");
  // 200 bytes for the longest line.
  to.add(
      "messages", "session",
      "\xc8{\"op\": \"open\", \"a\": 1}\n{\"op\": \"upsert\", \"id\": \"x\", "
      "\"record\": {\"content\": \"y\"}}\n{\"op\": \"query\", \"k\": 5, "
      "\"vector\": [1, 0]}\n");
  to.add("messages", "lists",
         "\xc8{\"ids\": [\"a\", \"b\"], \"k\": 1e3}\n\n{}");
  to.add("messages", "short_lines", "\x03{}\n{\"a\": 1}\n{}");
}

void add_boards(const corpus& to) {
  const auto add = [&](std::string_view name, std::uint32_t size,
                       std::initializer_list<std::uint8_t> kinds) {
    bytes out;
    append_value(out, size);
    append_value(out, static_cast<std::uint8_t>(kinds.size()));
    for (const auto kind : kinds) {
      append_value(out, kind);
      append_value(out, std::uint8_t{0});
      append_value(out, std::uint16_t{2});
      append_value(out, std::uint64_t{5});
    }
    for (std::uint8_t store = 0; store < 4; ++store) {
      append_value(out, store);
      append_value(out, std::uint64_t{200});
    }
    to.add("board", name, out);
  };
  add("sound", 0, {});
  add("garbage", 6, {1, 2, 3});
  add("other_words", 0, {4, 5, 6});
  add("head", 0, {0});
  add("full", 6, {7, 5, 6});
  add("short", 8 * 4096 + 7, {});
}

} // namespace
} // namespace callboard::fuzz

int main(int count, char** arguments) {
  using namespace callboard::fuzz;
  if (count != 2) {
    std::fprintf(stderr, "usage: make_corpus <directory>\n");
    return 2;
  }
  const corpus to(arguments[1]);
  add_logs(to);
  add_bases(to);
  add_manifests(to);
  add_meta_files(to);
  add_texts(to);
  add_boards(to);
  return 0;
}
