#include "tests/torture/ledger.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <iterator>
#include <limits>
#include <unistd.h>
#include <utility>

namespace callboard::torture {

namespace {

constexpr std::string_view baseline_name = "baseline";

std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> out;
  while (!line.empty()) {
    const auto end = std::min(line.find(' '), line.size());
    if (end > 0)
      out.push_back(line.substr(0, end));
    line.remove_prefix(std::min(end + 1, line.size()));
  }
  return out;
}

template <class Number>
std::optional<Number> parse(std::string_view word) {
  Number out{};
  const auto end = word.data() + word.size();
  auto parsed = std::from_chars(word.data(), end, out);
  if (parsed.ec != std::errc{} || parsed.ptr != end)
    return std::nullopt;
  return out;
}

std::optional<operation> parse_operation(const entry& by, unsigned round,
                                         std::string_view word) {
  const auto colon = word.find(':');
  if (colon == std::string_view::npos)
    return std::nullopt;
  const auto number = parse<unsigned>(word.substr(0, colon));
  if (!number || *number >= id_count)
    return std::nullopt;
  word.remove_prefix(colon + 1);
  if (word == "-")
    return operation{*number, no_row};
  const auto counter = parse<unsigned>(word);
  if (!counter)
    return std::nullopt;
  return operation{*number, make_version({.round = round,
                                          .slot = by.slot,
                                          .incarnation = by.incarnation,
                                          .counter = *counter})};
}

failure bad_line(std::string_view why) {
  return {errc::corrupt, "a line of the ledger: " + std::string(why)};
}

failure system_failure(const std::string& what) {
  return {errc::io_failure, what + ": " + std::strerror(errno)};
}

} // namespace

std::string entry::describe() const {
  std::string out =
      "slot " + std::to_string(slot) + " incarnation "
      + std::to_string(incarnation) + " request " + std::to_string(serial)
      + ": " + (what == kind::drop ? "drop" : "commit") + " of store "
      + std::to_string(store) + " asked at " + std::to_string(asked_at);
  if (expected_generation)
    out += " expecting " + std::to_string(*expected_generation);
  if (how == fate::open)
    out += ", not answered";
  else
    out += std::string(how == fate::refused ? ", refused" : ", acknowledged")
           + " at " + std::to_string(answered_at);
  if (how == fate::acknowledged)
    out += " with generation " + std::to_string(generation) + " ("
           + std::to_string(discarded) + " discarded)";
  const auto upper = last == std::numeric_limits<std::uint64_t>::max()
                         ? std::string("any")
                         : std::to_string(last);
  return out + ", possible generations " + std::to_string(first) + " to "
         + upper + ", " + std::to_string(operations.size()) + " operations";
}

// -- the ledger ---------------------------------------------------------------

void ledger::begin_with(unsigned store, baseline state) {
  stores_[store].start = std::move(state);
}

result<void> ledger::take_line(unsigned round, unsigned slot,
                               unsigned incarnation, std::string_view line) {
  const auto words = words_of(line);
  if (words.size() < 2 || words[0].size() != 1 || slot >= ledger_slots)
    return bad_line(line);
  if (words[0] == "s") {
    const auto time = parse<std::int64_t>(words[1]);
    if (!time)
      return bad_line(line);
    starts_[{slot, incarnation}] = *time;
    newest_[slot] = nullptr;
    return {};
  }
  if (words[0] == "a" || words[0] == "f")
    return take_answer(slot, words);
  entry asked;
  asked.slot = slot;
  asked.incarnation = incarnation;
  return take_question(round, std::move(asked), words);
}

result<void> ledger::take_question(unsigned round, entry asked,
                                   std::span<const std::string_view> words) {
  const bool is_drop = words[0] == "d";
  if (!is_drop && (words[0] != "i" || words.size() < 6))
    return bad_line(words[0]);
  if (words.size() < 4)
    return bad_line("a question is too short");
  const auto serial = parse<unsigned>(words[1]);
  const auto store = parse<unsigned>(words[2]);
  const auto time = parse<std::int64_t>(words[3]);
  if (!serial || !store || *store >= store_count || !time)
    return bad_line("a question's numbers");
  asked.what = is_drop ? entry::kind::drop : entry::kind::commit;
  asked.serial = *serial;
  asked.store = *store;
  asked.asked_at = *time;
  if (!is_drop) {
    const auto pending_at = parse<std::int64_t>(words[4]);
    if (!pending_at)
      return bad_line("a question's second time");
    asked.pending_at = *pending_at;
    asked.expected_generation = parse<std::uint64_t>(words[5]);
    for (const auto& word : words.subspan(6)) {
      const auto change = parse_operation(asked, round, word);
      if (!change)
        return bad_line(word);
      asked.operations.push_back(*change);
    }
  }
  auto& added = entries_.emplace_back(std::move(asked));
  newest_[added.slot] = &added;
  auto& of = stores_[added.store];
  of.entries.push_back(&added);
  if (is_drop)
    of.drops.push_back(&added);
  for (const auto& change : added.operations)
    of.touches[change.number].push_back({&added, change.value});
  return {};
}

result<void> ledger::take_answer(unsigned slot,
                                 std::span<const std::string_view> words) {
  auto* asked = newest_[slot];
  const auto serial = parse<unsigned>(words[1]);
  if (asked == nullptr || serial != asked->serial || words.size() < 3)
    return bad_line("an answer without its question");
  const auto time = parse<std::int64_t>(words[2]);
  if (!time)
    return bad_line("an answer's time");
  asked->answered_at = *time;
  if (words[0] == "f") {
    asked->how = entry::fate::refused;
    return {};
  }
  const auto generation =
      words.size() > 4 ? parse<std::uint64_t>(words[3]) : std::nullopt;
  const auto discarded =
      words.size() > 4 ? parse<std::size_t>(words[4]) : std::nullopt;
  if (!generation || !discarded)
    return bad_line("an acknowledgement's numbers");
  asked->how = entry::fate::acknowledged;
  asked->generation = *generation;
  asked->discarded = *discarded;
  auto& of = stores_[asked->store];
  of.answers.push_back({asked->answered_at, asked->generation});
  if (asked->what == entry::kind::commit) {
    of.questions.push_back({asked->asked_at, asked->generation});
    of.commits.emplace(asked->generation, asked);
  }
  return {};
}

void ledger::order_moments(history& of) {
  const auto by_time = [](const moment& left, const moment& right) {
    return left.time < right.time;
  };
  // The running maximum and minimum leave the order by time as it is, and
  // survive being computed again when later moments have been added.
  std::sort(of.answers.begin(), of.answers.end(), by_time);
  for (std::size_t i = 1; i < of.answers.size(); ++i)
    of.answers[i].generation =
        std::max(of.answers[i].generation, of.answers[i - 1].generation);
  std::sort(of.questions.begin(), of.questions.end(), by_time);
  for (auto i = of.questions.size(); i-- > 1;)
    of.questions[i - 1].generation =
        std::min(of.questions[i - 1].generation, of.questions[i].generation);
}

void ledger::settle() {
  for (auto& of : stores_) {
    order_moments(of);
    for (auto* each : of.entries)
      settle(of, *each);
  }
}

void ledger::settle(const history& of, entry& each) const {
  if (each.how == entry::fate::refused)
    return;
  const bool answered = each.how == entry::fate::acknowledged;
  each.certain = answered && each.discarded == 0;
  if (answered && each.what == entry::kind::commit) {
    each.first = each.last = each.generation;
    return;
  }
  each.first = acknowledged_before(each.store, each.asked_at) + 1;
  each.last =
      answered ? each.generation : std::numeric_limits<std::uint64_t>::max();
  const auto next = starts_.find({each.slot, each.incarnation + 1});
  if (answered || next == starts_.end())
    return;
  const auto after = std::upper_bound(
      of.questions.begin(), of.questions.end(), next->second,
      [](std::int64_t time, const moment& asked) { return time < asked.time; });
  if (after != of.questions.end())
    each.last = after->generation - 1;
}

std::uint64_t ledger::acknowledged_before(unsigned store,
                                          std::int64_t time) const {
  const auto& of = stores_[store];
  const auto end = std::lower_bound(
      of.answers.begin(), of.answers.end(), time,
      [](const moment& answer, std::int64_t at) { return answer.time < at; });
  return end == of.answers.begin()
             ? of.start.generation
             : std::max(of.start.generation, std::prev(end)->generation);
}

std::uint64_t ledger::acknowledged_generation(unsigned store) const {
  return acknowledged_before(store, std::numeric_limits<std::int64_t>::max());
}

std::size_t ledger::acknowledged_commits() const {
  std::size_t out = 0;
  for (const auto& of : stores_)
    out += of.questions.size();
  return out;
}

std::vector<const entry*> ledger::entries_of(unsigned store) const {
  std::vector<const entry*> out;
  for (const auto* each : stores_[store].entries)
    if (each->how != entry::fate::refused)
      out.push_back(each);
  return out;
}

std::vector<ledger::touch> ledger::touches_of(unsigned store,
                                              unsigned number) const {
  const auto& of = stores_[store];
  const auto begun = of.start.rows.find(number);
  std::vector<touch> out{
      {nullptr, begun == of.start.rows.end() ? no_row : begun->second}};
  for (const auto& each : of.touches[number])
    if (each.by->how != entry::fate::refused)
      out.push_back(each);
  for (const auto* each : of.drops)
    if (each->how != entry::fate::refused)
      out.push_back({each, no_row});
  return out;
}

const entry* ledger::commit_of(unsigned store, std::uint64_t generation) const {
  const auto found = stores_[store].commits.find(generation);
  return found == stores_[store].commits.end() ? nullptr : found->second;
}

// -- its files ----------------------------------------------------------------

std::string ledger_file_name(unsigned slot, unsigned incarnation) {
  return "slot-" + std::to_string(slot) + "." + std::to_string(incarnation);
}

std::int64_t monotonic_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

result<ledger_file> ledger_file::open(const std::filesystem::path& path) {
  const int descriptor =
      ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  if (descriptor < 0)
    return system_failure("cannot open " + path.string());
  return ledger_file(descriptor);
}

ledger_file::ledger_file(ledger_file&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)),
      serial_(other.serial_) {}

ledger_file::~ledger_file() {
  if (descriptor_ >= 0)
    ::close(descriptor_);
}

result<void> ledger_file::append(const std::string& line) {
  const auto written = ::write(descriptor_, line.data(), line.size());
  if (written != static_cast<ssize_t>(line.size()))
    return system_failure("cannot write to the ledger");
  return {};
}

result<void> ledger_file::start() {
  return append("s " + std::to_string(monotonic_ns()) + '\n');
}

result<void>
ledger_file::ask_commit(unsigned store, std::int64_t begun_at,
                        std::int64_t pending_at,
                        std::optional<std::uint64_t> expected_generation,
                        std::span<const operation> operations) {
  std::string line = "i " + std::to_string(++serial_) + ' '
                     + std::to_string(store) + ' ' + std::to_string(begun_at)
                     + ' ' + std::to_string(pending_at) + ' ';
  line += expected_generation ? std::to_string(*expected_generation) : "-";
  for (const auto& each : operations)
    line +=
        ' ' + std::to_string(each.number) + ':'
        + (each.value == no_row ? "-"
                                : std::to_string(parts_of(each.value).counter));
  return append(line + '\n');
}

result<void> ledger_file::ask_drop(unsigned store) {
  return append("d " + std::to_string(++serial_) + ' ' + std::to_string(store)
                + ' ' + std::to_string(monotonic_ns()) + '\n');
}

result<void> ledger_file::acknowledge(std::uint64_t generation,
                                      std::size_t discarded) {
  return append("a " + std::to_string(serial_) + ' '
                + std::to_string(monotonic_ns()) + ' '
                + std::to_string(generation) + ' ' + std::to_string(discarded)
                + '\n');
}

result<void> ledger_file::refuse(std::string_view why) {
  return append("f " + std::to_string(serial_) + ' '
                + std::to_string(monotonic_ns()) + ' ' + std::string(why)
                + '\n');
}

result<const ledger*> ledger_reader::read() {
  if (!std::exchange(has_baseline_, true))
    CALLBOARD_TRY(read_baseline());
  for (unsigned slot = 0; slot < ledger_slots; ++slot)
    CALLBOARD_TRY(read_slot(slot));
  ledger_.settle();
  return &ledger_;
}

/// A file is complete once the next incarnation's is there.
result<void> ledger_reader::read_slot(unsigned slot) {
  auto& where = places_[slot];
  while (true) {
    const bool is_complete = std::filesystem::exists(
        directory_ / ledger_file_name(slot, where.incarnation + 1));
    CALLBOARD_TRY(read_lines(slot, where));
    if (!is_complete)
      return {};
    where = {where.incarnation + 1, 0};
  }
}

result<void> ledger_reader::read_lines(unsigned slot, place& where) {
  std::ifstream in(directory_ / ledger_file_name(slot, where.incarnation),
                   std::ios::binary);
  if (!in)
    return {}; // it has not started
  in.seekg(static_cast<std::streamoff>(where.offset));
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  std::size_t begin = 0;
  for (auto end = text.find('\n'); end != std::string::npos;
       end = text.find('\n', begin)) {
    CALLBOARD_TRY(
        ledger_.take_line(round_, slot, where.incarnation,
                          std::string_view(text).substr(begin, end - begin)));
    begin = end + 1;
  }
  where.offset += begin;
  return {};
}

result<void> ledger_reader::read_baseline() {
  std::ifstream in(directory_ / baseline_name);
  for (unsigned store = 0; store < store_count; ++store) {
    ledger::baseline state;
    std::size_t rows = 0;
    in >> state.generation >> rows;
    for (std::size_t i = 0; i < rows; ++i) {
      unsigned number = 0;
      version value = no_row;
      in >> number >> value;
      state.rows[number] = value;
    }
    if (!in)
      return failure{errc::corrupt, "the baseline of " + directory_.string()
                                        + " cannot be read"};
    ledger_.begin_with(store, std::move(state));
  }
  return {};
}

result<void>
write_baselines(const std::filesystem::path& directory,
                const std::array<ledger::baseline, store_count>& states) {
  std::ofstream out(directory / baseline_name, std::ios::trunc);
  for (const auto& state : states) {
    out << state.generation << ' ' << state.rows.size() << '\n';
    for (const auto& [number, value] : state.rows)
      out << number << ' ' << value << '\n';
  }
  out.close();
  if (!out)
    return failure{errc::io_failure,
                   "cannot write the baseline of " + directory.string()};
  return {};
}

} // namespace callboard::torture
