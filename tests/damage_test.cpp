#include "core/index_file.hpp"
#include "core/record.hpp"
#include "core/search.hpp"
#include "core/store.hpp"
#include "simulation/machine.hpp"
#include "tests/support/store_fixture.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cstring>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <vector>

/// Files that have rotted, or that somebody has cut or overwritten, on a
/// simulated machine: whatever is still shown is right.
using namespace callboard;
using namespace callboard::test;
using callboard::simulation::machine;
using callboard::simulation::random_source;

namespace {

/// Not a multiple of anything that a kernel likes, and more than it takes at
/// once.
constexpr std::uint32_t dimension = 67;
constexpr std::string_view place = "/store";
constexpr std::string_view home = "/store/faiss_index_relationships.callboard";
constexpr std::string_view index_name = "faiss_index_relationships.index";
constexpr std::string_view meta_name =
    "faiss_index_relationships.index.meta.json";

store_options options() {
  store_options out;
  out.working_directory = place;
  out.namespace_name = "relationships";
  out.dimension = dimension;
  out.model = "model";
  out.lock_timeout = std::chrono::milliseconds(0);
  out.reader_grace = std::chrono::seconds(0);
  return out;
}

std::vector<float> vector_for(const std::string& id, int version) {
  auto seed = std::uint64_t{0xcbf29ce484222325};
  for (const char each : id + ' ' + std::to_string(version))
    seed = (seed ^ static_cast<unsigned char>(each)) * 0x100000001b3;
  random_source random(seed);
  std::vector<float> out(dimension);
  for (auto& each : out)
    each = static_cast<float>(random.below(2001)) / 1000.0F - 1.0F;
  need(normalize(out, "a vector of the test"));
  return out;
}

/// Everything that JSON has, and in which readers of JSON like to differ.
std::string record_for(const std::string& id, int version) {
  const std::vector<std::string> fields = {"src_id", "tgt_id", "source_id",
                                           "content"};
  const auto input =
      R"({ "src_id" : "\"Zo\u00eb\" \ud83d\ude00", "tgt_id": ")" + id
      + R"(", "content": "tab\tquote\\ slash\/ \u0000 \ud800 é 😀 )"
      + std::to_string(version)
      + R"(", "source_id": [ 1, -0.5e-7, 1E+30, true, false, null, )"
        R"({"nested": {"deep": []}}, "" ], "left_out": {"x": 1}})";
  return need(make_record(id, 1'700'000'000 + version, input, fields));
}

struct row_content {
  std::string record;
  std::vector<float> vector;
};
using content = std::map<std::string, row_content>;

commit_operation put_row(const std::string& id, int version) {
  commit_operation out;
  out.id = id;
  out.record = record_for(id, version);
  out.vector = vector_for(id, version);
  out.drop_epoch = after_all_drops;
  return out;
}

/// A pair as LightRAG and older tools have written it: ids that are numbers,
/// records on several lines, with a vector of their own, without one, without
/// an id, of one id twice; vectors that no record names.
void write_old_pair(machine& computer) {
  std::string index;
  const auto header =
      encode_index_header({.dimension = dimension, .row_count = 6});
  index.append(reinterpret_cast<const char*>(header.data()), header.size());
  for (int row = 0; row < 6; ++row) {
    const auto vector = vector_for("old", row);
    index.append(reinterpret_cast<const char*>(vector.data()),
                 vector.size() * sizeof(float));
  }
  std::string own = "[";
  for (const auto each : vector_for("own", 1))
    own += (own.size() > 1 ? ", " : "") + std::to_string(each * 3);
  own += "]";
  const std::string meta =
      R"({"1": {"__id__": "old-1", "__created_at__": 1, "content": "one"},)"
      "\n"
      R"("0": {"__id__": 17, "__created_at__": 2, "content": "two"},)"
      R"("2": {"__id__": "twice", "content": "three"},)"
      R"("3": {"__id__": "twice", "content": "four"},)"
      R"("4": {"content": "nobody"},)"
      "\"7\": {\"__id__\": \"own\",\n \"content\": \"five\", \"__vector__\": "
      + own
      + R"(},"8": {"__id__": "later", "content": "six"},)"
        R"("9": {"__id__": "never", "file_path": "x"}})";
  computer.write_file(std::string(place) + "/" + std::string(index_name),
                      index);
  computer.write_file(std::string(place) + "/" + std::string(meta_name), meta);
}

content content_of(const snapshot& view) {
  content out;
  view.for_each_row([&](row_number row) {
    auto& each = out[std::string(view.id(row))];
    each.record = need(view.record(row));
    const auto bytes = need(view.vector(row));
    each.vector.resize(bytes.size() / sizeof(float));
    std::memcpy(each.vector.data(), bytes.data(), bytes.size());
    return true;
  });
  return out;
}

/// A machine with a store that has all there is: rows of an old pair, a base
/// with planned moves, holes and postings, records that wait for a vector, and
/// commits since.
struct rich_store {
  rich_store() : computer(1) {
    auto self = computer.start_process();
    need(self->door().open_directory(place, true));
    write_old_pair(computer);
    const auto handle =
        need(store::open(self->door(), self->board(), options()));
    REQUIRE(handle->report().imported);
    REQUIRE(handle->take_records_to_embed().size() == 1);
    for (int i = 0; i < 8; ++i)
      commit(*handle, {put_row("row " + std::to_string(i), 1)});
    commit(*handle, {removal("row 0"), removal("row 1"), put_row("row 2", 2)});
    // One checkpoint that nobody finishes: a second log.
    need(handle->begin_checkpoint(compaction::none, patience::lock_timeout));
    auto folded = need(
        handle->begin_checkpoint(compaction::forced, patience::lock_timeout));
    need(folded->write());
    need(handle->finish_checkpoint(std::move(folded)));
    commit(*handle, {put_row("row 3", 2), put_row("new 1", 1)});
    commit(*handle, {removal("row 4"), put_row("new 2", 1)});
    everything = content_of(*handle->view());
    for (const auto& name : {"row 3", "row 4"})
      older[name] = {record_for(name, 1), vector_for(name, 1)};
    REQUIRE(everything.at("row 2").record == record_for("row 2", 2));
    REQUIRE(everything.at("new 2").vector == vector_for("new 2", 1));
    REQUIRE(need(handle->view()->rows_with(indexed_field::src_id, "\"Zoë\" 😀"))
                .size()
            == 7);
    need(handle->verify());
  }

  static void commit(store& handle,
                     const std::vector<commit_operation>& operations) {
    need(handle.commit(operations));
  }

  machine computer;
  content everything;
  /// What rows of the log had replaced, or removed: shown again where the end
  /// of a log looks torn.
  content older;
};

/// Overwrites a file in place, past no process that has it open.
void overwrite(machine& computer, std::string_view directory,
               const std::string& name, const std::string& bytes) {
  const auto self = computer.start_process();
  const auto where = need(self->door().open_directory(directory, false));
  const auto opened = need(where->open_file(name, open_mode::read_write));
  need(opened->truncate(bytes.size()));
  need(opened->write_at(0, std::as_bytes(std::span(bytes))));
  need(opened->sync());
}

struct file_place {
  std::string_view directory;
  std::string name;
};

std::vector<file_place> files_of(const machine& computer) {
  std::vector<file_place> out;
  for (const auto& name : computer.list(home))
    if (name != "LOCK")
      out.push_back({home, name});
  return out;
}

/// What can happen to `bytes`, at about `count` places.
std::vector<std::string> damages(const std::string& bytes, std::size_t count,
                                 random_source& random) {
  std::vector<std::string> out;
  for (std::size_t i = 0; i < count && !bytes.empty(); ++i) {
    // Headers matter most.
    const auto limit =
        i % 3 == 0 ? std::min<std::size_t>(bytes.size(), 128) : bytes.size();
    const auto at = static_cast<std::size_t>(random.below(limit));
    out.push_back(bytes);
    auto& each = out.back();
    switch (i % 8) {
    case 6:
      each.resize(at);
      break;
    case 7:
      std::fill_n(each.begin() + static_cast<std::ptrdiff_t>(at),
                  std::min<std::size_t>(512, bytes.size() - at), '\0');
      break;
    default:
      each[at] = static_cast<char>(each[at] ^ (1 << random.below(8)));
    }
  }
  out.push_back(bytes + "garbage");
  out.emplace_back();
  return out;
}

/// Whether `code` says that something is wrong with files.
bool blames_files(errc code) {
  return code == errc::corrupt || code == errc::unsupported_format
         || code == errc::not_found || code == errc::dimension_mismatch
         || code == errc::model_mismatch || code == errc::io_failure;
}

void require_blame(const failure& problem) {
  INFO(to_string(problem.code) << ": " << problem.message);
  REQUIRE(blames_files(problem.code));
  REQUIRE_FALSE(problem.message.empty());
}

struct observation {
  std::size_t refused = 0;
  std::size_t shown = 0;
  std::size_t salvaged = 0;
  std::size_t unsound = 0;
};

class examination {
public:
  examination(const rich_store& whole, observation& seen)
      : whole_(whole), seen_(seen) {}

  /// Whatever is shown of the store on `computer` is what was committed.
  void check(machine& computer, bool may_lose_commits) {
    for (const bool salvages : {false, true}) {
      auto copy = computer.clone(7);
      auto self = copy.start_process();
      auto how = options();
      how.salvage = salvages;
      auto opened = store::open(self->door(), self->board(), how);
      if (!opened) {
        ++seen_.refused;
        require_blame(opened.error());
        continue;
      }
      ++(salvages ? seen_.salvaged : seen_.shown);
      check_shown(*(*opened)->view(), salvages || may_lose_commits);
      check_queries(*(*opened)->view());
      if (auto sound = (*opened)->verify(); !sound) {
        ++seen_.unsound;
        require_blame(sound.error());
      }
      go_on(copy, **opened, salvages || may_lose_commits);
    }
  }

private:
  void check_shown(const snapshot& view, bool may_lose_commits) {
    std::size_t count = 0;
    view.for_each_row([&](row_number row) {
      check_row(view, row);
      ++count;
      return true;
    });
    REQUIRE(count == view.live_count());
    for (const auto& [id, each] : whole_.everything) {
      const auto row = view.find(id);
      REQUIRE((row || may_lose_commits));
    }
  }

  void check_row(const snapshot& view, row_number row) {
    const std::string id(view.id(row));
    const auto record = view.record(row);
    const auto vector = view.vector(row);
    for (const auto* problem : {record ? nullptr : &record.error(),
                                vector ? nullptr : &vector.error()})
      if (problem != nullptr)
        require_blame(*problem);
    if (record)
      REQUIRE(is_known(id, [&](const row_content& known) {
        return known.record == *record;
      }));
    if (vector)
      REQUIRE(is_known(id, [&](const row_content& known) {
        return std::memcmp(vector->data(), known.vector.data(), vector->size())
               == 0;
      }));
  }

  bool is_known(const std::string& id,
                const std::function<bool(const row_content&)>& fits) const {
    for (const auto* state : {&whole_.everything, &whole_.older})
      if (const auto found = state->find(id);
          found != state->end() && fits(found->second))
        return true;
    return id == "more";
  }

  /// Rows that are found are found rightly.
  void check_queries(const snapshot& view) {
    constexpr std::size_t query_count = 5;
    std::vector<float> queries;
    for (std::size_t i = 0; i < query_count; ++i) {
      const auto each = vector_for("query", static_cast<int>(i));
      queries.insert(queries.end(), each.begin(), each.end());
    }
    const search_parameters all{.top_k = 100, .threshold = -2};
    const auto found = search_batch(view, queries, all);
    if (!found)
      return require_blame(found.error());
    for (std::size_t i = 0; i < query_count; ++i)
      for (const auto& hit : (*found)[i])
        check_hit(view, hit, queries.data() + i * dimension);
    const auto related = view.rows_with(indexed_field::src_id, "\"Zoë\" 😀");
    if (!related)
      return require_blame(related.error());
    for (const auto row : *related)
      check_row(view, row);
  }

  void check_hit(const snapshot& view, const scored_row& hit,
                 const float* query) {
    const std::string id(view.id(hit.row));
    REQUIRE(is_known(id, [&](const row_content& known) {
      const auto exact = inner_product(
          reinterpret_cast<const std::byte*>(query),
          reinterpret_cast<const std::byte*>(known.vector.data()), dimension);
      return std::abs(exact - hit.score) < 1e-5F;
    }));
  }

  /// No damage becomes sound because a checkpoint has written it again.
  void go_on(machine& computer, store& handle, bool may_lose_commits) {
    if (auto made = handle.commit(std::vector{put_row("more", 1)}); !made)
      return require_blame(made.error());
    if (auto folded = handle.checkpoint(compaction::forced); !folded)
      require_blame(folded.error());
    const auto later = computer.start_process();
    auto opened = store::open(later->door(), later->board(), options());
    if (!opened)
      return require_blame(opened.error());
    REQUIRE((*opened)->view()->find("more").has_value());
    check_shown(*(*opened)->view(), may_lose_commits);
  }

  const rich_store& whole_;
  observation& seen_;
};

constexpr std::size_t damages_per_file = 120;

} // namespace

TEST_CASE("Whatever part of a store is damaged, what is shown is right",
          "[damage]") {
  const rich_store whole;
  random_source random(Catch::rngSeed() + 1);
  CAPTURE(Catch::rngSeed());
  observation seen;
  for (const auto& [directory, name] : files_of(whole.computer)) {
    CAPTURE(name);
    const auto path = std::string(directory) + "/" + name;
    const auto bytes = whole.computer.read_file(path).value();
    for (const auto& damaged : damages(bytes, damages_per_file, random)) {
      auto computer = whole.computer.clone(random.bits());
      overwrite(computer, directory, name, damaged);
      computer.lose_power(simulation::loss_model::ordered);
      examination(whole, seen).check(computer, name.starts_with("log-"));
    }
    auto computer = whole.computer.clone(random.bits());
    computer.remove_file(path);
    examination(whole, seen).check(computer, name.starts_with("log-"));
  }
  std::cout << "damaged stores: " << seen.refused << " refused, " << seen.shown
            << " shown, " << seen.salvaged << " salvaged, " << seen.unsound
            << " found to be unsound\n";
  REQUIRE(seen.refused > 0);
  REQUIRE(seen.salvaged > 0);
  REQUIRE(seen.unsound > 0);
}

TEST_CASE("A foreign pair is taken over whole or refused, whatever part of it "
          "is damaged",
          "[damage]") {
  machine computer(1);
  {
    const auto self = computer.start_process();
    need(self->door().open_directory(place, true));
  }
  write_old_pair(computer);
  random_source random(Catch::rngSeed() + 2);
  CAPTURE(Catch::rngSeed());
  std::size_t taken = 0;
  std::size_t refused = 0;
  for (const auto name : {index_name, meta_name}) {
    CAPTURE(name);
    const auto path = std::string(place) + "/" + std::string(name);
    const auto bytes = computer.read_file(path).value();
    for (const auto& damaged : damages(bytes, 3 * damages_per_file, random)) {
      auto copy = computer.clone(random.bits());
      copy.write_file(path, damaged);
      auto self = copy.start_process();
      auto opened = store::open(self->door(), self->board(), options());
      if (!opened) {
        ++refused;
        require_blame(opened.error());
        REQUIRE(copy.read_file(path) == damaged);
        continue;
      }
      ++taken;
      need((*opened)->verify());
      const auto shown = content_of(*(*opened)->view());
      need((*opened)->checkpoint(compaction::none));
      const auto later = copy.start_process();
      const auto again =
          need(store::open(later->door(), later->board(), options()));
      REQUIRE(content_of(*again->view()).size() == shown.size());
    }
  }
  std::cout << "damaged pairs: " << refused << " refused, " << taken
            << " taken over\n";
  REQUIRE(refused > 0);
  REQUIRE(taken > 0);
}
