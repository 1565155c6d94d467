#include "tests/torture/role.hpp"

#include "core/record.hpp"
#include "tests/torture/published.hpp"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <span>

namespace callboard::torture {

namespace {

constexpr int first_exit_status = 40;

/// Published files may be in a reader's hands this long while they change.
constexpr auto reader_grace = std::chrono::seconds(5);

std::uint64_t seed_of(const assignment& who) {
  std::seed_seq mixer{static_cast<std::uint32_t>(who.seed),
                      static_cast<std::uint32_t>(who.seed >> 32U), who.round,
                      who.slot, who.incarnation};
  std::array<std::uint32_t, 2> out{};
  mixer.generate(out.begin(), out.end());
  return std::uint64_t{out[0]} << 32U | out[1];
}

/// There is no process without its pulse.
pulse_board board_of(const assignment& who) {
  auto out = pulse_board::open(pulse_file(who.directory));
  if (!out) {
    std::cerr << out.error().message << '\n';
    std::exit(2);
  }
  return std::move(out).value();
}

std::array<float, vector_dimension> floats_of(std::span<const std::byte> from) {
  std::array<float, vector_dimension> out{};
  std::memcpy(out.data(), from.data(), std::min(from.size(), sizeof out));
  return out;
}

} // namespace

std::filesystem::path store_directory(const std::filesystem::path& run) {
  return run / "stores";
}

std::string namespace_of(unsigned store) {
  return store == 0 ? "left" : "right";
}

std::filesystem::path ledger_directory(const std::filesystem::path& run,
                                       unsigned round) {
  return run / ("ledger-" + std::to_string(round));
}

std::filesystem::path pulse_file(const std::filesystem::path& run) {
  return run / "pulse";
}

std::filesystem::path finding_file(const assignment& who) {
  return who.directory
         / ("finding-" + std::to_string(who.round) + "-"
            + std::to_string(who.slot) + "-" + std::to_string(who.incarnation));
}

int exit_status(finding::kind what) {
  return first_exit_status + static_cast<int>(what);
}

std::optional<finding::kind> finding_of(int exit_status) {
  const int kind = exit_status - first_exit_status;
  if (kind < 0 || kind > static_cast<int>(finding::kind::hung))
    return std::nullopt;
  return static_cast<finding::kind>(kind);
}

role::role(assignment who)
    : who_(std::move(who)),
      random_(seed_of(who_)),
      pulses_(board_of(who_)),
      pulse_(pulses_.of(who_.slot)),
      ledger_(ledger_directory(who_.directory, who_.round), who_.round) {
  begin(step::starting);
}

void role::begin(step what) {
  pulse_.at.store(what, std::memory_order_relaxed);
  pulse_.beats.fetch_add(1, std::memory_order_relaxed);
}

void role::fail(const finding& found) {
  std::ofstream(finding_file(who_))
      << "slot " << who_.slot << " incarnation " << who_.incarnation
      << " of round " << who_.round << ", while " << to_string(pulse_.at.load())
      << ": " << to_string(found.what) << ": " << found.text << '\n';
  // No destructor: nothing may hide or change what was found.
  std::_Exit(exit_status(found.what));
}

void role::fail(const failure& why, const std::string& what) {
  const bool waited = why.code == errc::busy || why.code == errc::timed_out;
  fail(finding{waited ? finding::kind::hung : finding::kind::torn,
               what + " failed: " + std::string(to_string(why.code)) + ": "
                   + why.message});
}

void role::open_stores() {
  begin(step::opening);
  runtime_ = need(runtime::start(), "the start of the runtime");
  for (unsigned number = 0; number < store_count; ++number) {
    begin(step::opening);
    stores_[number] = open_store(number);
  }
  pulse_.is_ready.store(true);
}

client role::open_store(unsigned store) {
  open_options options;
  options.working_directory = store_directory(who_.directory).string();
  options.namespace_name = namespace_of(store);
  options.model = std::make_shared<content_embedder>();
  options.meta_fields = {"content"};
  options.threshold = -2;
  options.lock_timeout = std::chrono::seconds(20);
  options.reader_grace = reader_grace;
  return need(runtime_->open(options), "to open a store");
}

void role::close_stores() {
  for (auto& each : stores_)
    each.reset();
  runtime_.reset();
}

const ledger& role::known() {
  begin(step::reading_ledger);
  return *need(ledger_.read(), "to read the ledger");
}

seen_state role::look(unsigned store) {
  begin(step::reading_snapshot);
  const auto view = need(stores_[store]->snapshot(), "a snapshot");
  check(check_growth(store, generations_[store], view->generation()));
  generations_[store] = view->generation();
  if (view->drop_epoch() < drops_[store])
    fail(finding{finding::kind::lost,
                 "store " + std::to_string(store) + " had been dropped "
                     + std::to_string(drops_[store]) + " times and then "
                     + std::to_string(view->drop_epoch()) + " times"});
  drops_[store] = view->drop_epoch();
  begin(step::reading_rows);
  return contents(store, *view);
}

seen_state role::check_store(unsigned store) {
  const auto acknowledged = known().acknowledged_generation(store);
  auto seen = look(store);
  check(check_freshness(store, acknowledged, seen.generation));
  check(check_state(known(), seen));
  return seen;
}

seen_state role::contents(unsigned store, const snapshot& view) {
  seen_state out{.store = store, .generation = view.generation(), .rows = {}};
  view.for_each_row([&](row_number row) {
    const auto id = view.id(row);
    const auto record = need(view.record(row), "to read a record");
    const auto vector = need(view.vector(row), "to read a vector");
    const auto value =
        need(recognize(id, string_member(record, "content").value_or(""),
                       floats_of(vector)),
             "a row of generation " + std::to_string(view.generation()));
    if (!out.rows.emplace(*number_of(id), value).second)
      fail(finding{finding::kind::torn,
                   "a snapshot has two rows of " + std::string(id)});
    return true;
  });
  if (out.rows.size() != view.live_count())
    fail(finding{finding::kind::torn,
                 "a snapshot counts " + std::to_string(view.live_count())
                     + " rows, but shows " + std::to_string(out.rows.size())});
  return out;
}

version role::recognize_record(const std::string& id,
                               const std::string& record) {
  const auto content = string_member(record, "content").value_or("");
  return need(recognize(id, content, vector_of(content)), "a record");
}

void role::check_hit(unsigned store, const hit& best, unsigned number,
                     version value) {
  if (recognize_record(best.id, best.record) == value
      && best.id == id_of(number) && best.distance > 0.9999F
      && best.distance < 1.0001F)
    return;
  fail(finding{finding::kind::lost,
               "store " + std::to_string(store) + ": a query for the vector of "
                   + id_of(number) + " with version " + to_text(value)
                   + " found first " + best.id + " with distance "
                   + std::to_string(best.distance) + ": " + best.record});
}

void role::check_queries(unsigned store, std::size_t count) {
  const auto before = look(store);
  if (before.rows.empty())
    return;
  std::vector<std::pair<unsigned, version>> asked;
  std::vector<float> vectors;
  for (std::size_t i = 0; i < count; ++i) {
    const auto chosen =
        *std::next(before.rows.begin(),
                   static_cast<std::ptrdiff_t>(below(before.rows.size())));
    const auto vector = vector_of(content_of(chosen.first, chosen.second));
    asked.emplace_back(chosen);
    vectors.insert(vectors.end(), vector.begin(), vector.end());
  }
  begin(step::querying);
  const auto lists = need(
      stores_[store]->query_batch(std::move(vectors), {.top_k = 3}), "a query");
  const auto after = look(store);
  for (std::size_t i = 0; i < asked.size(); ++i) {
    const auto [number, value] = asked[i];
    const auto still = after.rows.find(number);
    // A version that is gone never comes back.
    if (still == after.rows.end() || still->second != value)
      continue;
    if (lists[i].empty())
      fail(finding{finding::kind::lost,
                   "a query found nothing, but there is " + id_of(number)});
    check_hit(store, lists[i].front(), number, value);
  }
}

void role::check_published(unsigned store) {
  begin(step::reading_published_pair);
  const auto begun = std::chrono::steady_clock::now();
  const auto seen =
      read_published(store_directory(who_.directory), namespace_of(store));
  // Slower readers than the grace allows for may see anything.
  if (std::chrono::steady_clock::now() - begun > reader_grace / 2)
    return;
  const auto rows = need(seen, "to read the published pair");
  const auto& explained = known();
  for (const auto& [number, value] : rows.value_or(versions())) {
    const auto touches = explained.touches_of(store, number);
    if (std::none_of(touches.begin(), touches.end(),
                     [value = value](const ledger::touch& each) {
                       return each.value == value;
                     })
        && parts_of(value).round == who_.round)
      fail(finding{finding::kind::torn,
                   "the published pair of store " + std::to_string(store)
                       + " shows version " + to_text(value) + " of "
                       + id_of(number) + ", which nobody has committed"});
  }
}

} // namespace callboard::torture
