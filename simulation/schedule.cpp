#include "simulation/schedule.hpp"

#include "core/record.hpp"

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

namespace callboard::simulation {

namespace {

/// Takes what is before `separator`, or all, from the front of `text`.
std::string_view take_until(char separator, std::string_view& text) {
  const auto end = std::min(text.find(separator), text.size());
  const auto taken = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return taken;
}

std::optional<std::uint64_t> number_in(std::string_view text) {
  std::uint64_t number = 0;
  const auto* end = text.data() + text.size();
  const auto read = std::from_chars(text.data(), end, number);
  if (read.ec != std::errc{} || read.ptr != end)
    return std::nullopt;
  return number;
}

/// "7", "7-9" or "7-".
std::optional<draw_ranges::range> range_in(std::string_view text) {
  const auto is_single = text.find('-') == std::string_view::npos;
  const auto begin = number_in(take_until('-', text));
  if (!begin || *begin == draw_ranges::no_end)
    return std::nullopt;
  if (is_single)
    return draw_ranges::range{*begin, *begin + 1};
  if (text.empty())
    return draw_ranges::range{*begin, draw_ranges::no_end};
  const auto last = number_in(text);
  if (!last || *last < *begin || *last == draw_ranges::no_end)
    return std::nullopt;
  return draw_ranges::range{*begin, *last + 1};
}

bool is_stream_name(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char each) {
    return (each >= 'a' && each <= 'z') || (each >= '0' && each <= '9')
           || each == '_';
  });
}

failure unreadable(std::string_view text, std::string_view part) {
  return {errc::invalid_argument,
          printable(text) + " is no schedule, because of " + printable(part)
              + ": give a seed, and calm draws like in "
                "\"17:events=100-350,900-\""};
}

std::string text_of(const draw_ranges& ranges) {
  std::string out;
  for (const auto& each : ranges.all()) {
    out += out.empty() ? "" : ",";
    out += std::to_string(each.begin);
    if (each.end == draw_ranges::no_end)
      out += "-";
    else if (each.end > each.begin + 1)
      out.append("-").append(std::to_string(each.end - 1));
  }
  return out;
}

} // namespace

schedule::schedule(std::uint64_t seed)
    : seed_(seed), records_(std::make_shared<records>()) {}

result<schedule> schedule::parse(std::string_view text) {
  auto rest = text;
  const auto first = take_until(':', rest);
  const auto seed = number_in(first);
  if (!seed || text.ends_with(':'))
    return unreadable(text, first);
  schedule out(*seed);
  while (!rest.empty()) {
    const auto part = take_until(':', rest);
    auto ranges = part;
    const auto name = take_until('=', ranges);
    if (!is_stream_name(name) || ranges.empty() || ranges.ends_with(','))
      return unreadable(text, part);
    while (!ranges.empty()) {
      const auto which = range_in(take_until(',', ranges));
      if (!which)
        return unreadable(text, part);
      out.calm(name, *which);
    }
  }
  return out;
}

random_source schedule::stream(std::string_view name) const {
  auto& record = (*records_)[std::string(name)];
  if (!record) {
    record = std::make_shared<draw_record>();
    if (const auto found = calm_.find(name); found != calm_.end())
      record->calm = found->second;
  }
  return {mixed(random_source(seed_).bits(), name), record};
}

void schedule::calm(std::string_view stream, draw_ranges::range which) {
  calm_[std::string(stream)].add(which);
  *this = again();
}

schedule schedule::again() const {
  auto out = *this;
  out.records_ = std::make_shared<records>();
  return out;
}

schedule::draw_counts schedule::draws() const {
  draw_counts out;
  for (const auto& [name, record] : *records_)
    out.emplace(name, record->draws);
  return out;
}

const draw_ranges& schedule::lively(std::string_view stream) const {
  static const draw_ranges none;
  const auto found = records_->find(stream);
  return found == records_->end() ? none : found->second->lively;
}

std::uint64_t schedule::lively_draws() const {
  std::uint64_t out = 0;
  for (const auto& [name, record] : *records_)
    out += record->lively.count_in({});
  return out;
}

std::string to_string(const schedule& which) {
  auto out = std::to_string(which.seed());
  for (const auto& [name, ranges] : which.calm_draws())
    if (!ranges.all().empty())
      out.append(":").append(name).append("=").append(text_of(ranges));
  return out;
}

std::ostream& operator<<(std::ostream& out, const schedule& which) {
  return out << to_string(which);
}

} // namespace callboard::simulation
