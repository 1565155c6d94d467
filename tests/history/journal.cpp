#include "tests/history/journal.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <fcntl.h>
#include <fstream>
#include <iterator>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace callboard::history {

namespace {

/// Cuts off what is before the first `separator`, and that.
std::string_view cut(std::string_view& text, char separator) {
  const auto end = std::min(text.find(separator), text.size());
  const auto out = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return out;
}

template <class Number>
bool read_number(std::string_view text, Number& out) {
  const auto end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, out);
  return parsed.ec == std::errc{} && parsed.ptr == end;
}

bool read_expected(std::string_view text, std::optional<std::uint64_t>& out) {
  return text == "-" || read_number(text, out.emplace());
}

constexpr std::array<std::pair<std::string_view, entry::kind>, 7> kinds{{
    {"try", entry::kind::attempt},
    {"drop", entry::kind::drop},
    {"read", entry::kind::read},
    {"again", entry::kind::read_again},
    {"watch", entry::kind::watch},
    {"end", entry::kind::end},
    {"bad", entry::kind::bad},
}};

constexpr std::array<std::pair<std::string_view, entry::kind>, 3> events{{
    {"commit", entry::kind::event_commit},
    {"drop", entry::kind::event_drop},
    {"overflow", entry::kind::event_overflow},
}};

constexpr std::array<std::pair<std::string_view, entry::outcome>, 4> outcomes{{
    {"ok", entry::outcome::committed},
    {"conflict", entry::outcome::conflict},
    {"discarded", entry::outcome::discarded},
    {"busy", entry::outcome::busy},
}};

template <class Table>
auto look_up(const Table& table, std::string_view word)
    -> std::optional<decltype(table.begin()->second)> {
  for (const auto& [name, value] : table)
    if (name == word)
      return value;
  return std::nullopt;
}

/// What follows the word that names the kind.
bool read_rest(entry& out, std::string_view rest) {
  if (out.what == entry::kind::bad) {
    out.text = rest;
    return true;
  }
  if (!read_number(cut(rest, ' '), out.store))
    return false;
  const bool is_change =
      out.what == entry::kind::attempt || out.what == entry::kind::drop;
  if (is_change && !read_number(cut(rest, ' '), out.number))
    return false;
  if ((is_change || out.what == entry::kind::read)
      && !read_number(cut(rest, ' '), out.begun_at))
    return false;
  if (out.what == entry::kind::attempt) {
    if (!read_expected(cut(rest, ' '), out.expected_generation))
      return false;
    out.changed = cut(rest, ' ');
    out.removed = cut(rest, ' ');
    return rest.empty() || read_number(rest, out.known_generation.emplace());
  }
  if (out.what == entry::kind::drop)
    return true;
  const bool is_right = read_number(cut(rest, ' '), out.generation);
  out.changed = cut(rest, ' ');
  return is_right;
}

std::optional<entry> read_event(std::string_view rest) {
  entry out;
  if (!read_number(cut(rest, ' '), out.store)
      || !read_number(cut(rest, ' '), out.generation))
    return std::nullopt;
  const auto what = look_up(events, cut(rest, ' '));
  if (!what)
    return std::nullopt;
  out.what = *what;
  out.changed = cut(rest, ' ');
  out.removed = cut(rest, ' ');
  return out;
}

/// Of the entry before.
bool read_outcome(entry& of, entry::outcome end, std::string_view rest) {
  of.end = end;
  return (of.what == entry::kind::attempt || of.what == entry::kind::drop)
         && read_number(cut(rest, ' '), of.ended_at)
         && (end != entry::outcome::committed
             || read_number(cut(rest, ' '), of.generation));
}

bool read_line(journal& out, std::size_t number, std::string_view line) {
  const auto word = cut(line, ' ');
  if (const auto end = look_up(outcomes, word))
    return !out.entries.empty() && read_outcome(out.entries.back(), *end, line);
  std::optional<entry> read;
  if (word == "event") {
    read = read_event(line);
  } else if (const auto what = look_up(kinds, word)) {
    read.emplace().what = *what;
    if (!read_rest(*read, line))
      return false;
  }
  if (!read)
    return false;
  read->line = number;
  out.entries.push_back(std::move(*read));
  return true;
}

} // namespace

std::string to_text(const rows& values) {
  std::string out;
  for (const auto& [id, value] : values)
    out.append(id).append(1, '=').append(value).append(1, ';');
  return out.empty() ? "-" : out;
}

std::string to_text(const id_set& ids) {
  std::string out;
  for (const auto& id : ids)
    out.append(id).append(1, ';');
  return out.empty() ? "-" : out;
}

rows rows_in(std::string_view text) {
  rows out;
  while (!text.empty() && text != "-") {
    auto value = cut(text, ';');
    const auto id = cut(value, '=');
    out[std::string(id)] = value;
  }
  return out;
}

id_set ids_in(std::string_view text) {
  id_set out;
  while (!text.empty() && text != "-")
    out.emplace(cut(text, ';'));
  return out;
}

result<journal> parse_journal(std::string name, unsigned process,
                              std::string_view text) {
  journal out{.name = std::move(name), .process = process, .entries = {}};
  std::size_t number = 0;
  while (text.find('\n') != std::string_view::npos) {
    const auto line = cut(text, '\n');
    if (!read_line(out, ++number, line))
      return failure{errc::corrupt, out.name + ", line "
                                        + std::to_string(number)
                                        + ": is no line of a journal: "
                                        + std::string(line.substr(0, 200))};
  }
  return out;
}

result<std::vector<journal>>
read_journals(const std::filesystem::path& directory) {
  std::vector<std::filesystem::path> paths;
  std::error_code failed;
  for (const auto& each :
       std::filesystem::directory_iterator(directory, failed))
    paths.push_back(each.path());
  if (failed)
    return failure{errc::io_failure,
                   directory.string() + ": " + failed.message()};
  std::sort(paths.begin(), paths.end());
  std::vector<journal> out;
  for (const auto& path : paths) {
    unsigned process = 0;
    const auto number = path.stem().extension().string();
    std::ifstream in(path, std::ios::binary);
    if (number.empty()
        || !read_number(std::string_view(number).substr(1), process) || !in)
      return failure{errc::io_failure, path.string() + ": is no journal"};
    const std::string text{std::istreambuf_iterator<char>(in), {}};
    CALLBOARD_TRY_ASSIGN(
        auto read, parse_journal(path.filename().string(), process, text));
    out.push_back(std::move(read));
  }
  return out;
}

journal_file::journal_file(const std::filesystem::path& path)
    : descriptor_(
        ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600)) {
  if (descriptor_ < 0)
    throw std::system_error(errno, std::generic_category(), path.string());
}

journal_file::~journal_file() {
  ::close(descriptor_);
}

void journal_file::add_line(std::string line) {
  line += '\n';
  std::string_view rest = line;
  while (!rest.empty()) {
    const auto count = ::write(descriptor_, rest.data(), rest.size());
    if (count < 0 && errno != EINTR)
      throw std::system_error(errno, std::generic_category(), "a journal");
    rest.remove_prefix(static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
  }
}

} // namespace callboard::history
