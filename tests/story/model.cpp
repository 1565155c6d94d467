#include "tests/story/model.hpp"

#include "core/record.hpp"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <utility>

namespace callboard::test {

// -- Rows ---------------------------------------------------------------------

namespace {

constexpr std::string_view version_key = "\"version\": ";

/// A value as it is given, and as it is kept: byte for byte, whatever it is,
/// if it is on one line.
struct extra {
  std::string_view given;
  std::string_view kept = given;
};

constexpr extra extras[] = {
    {"null"},
    {"[1, -2.5e3, 0.1, 1e+16, [], {}]"},
    {"{\"nested\": [true, false, {\"deep\": [\"\\n\\\"\\\\\"]}]}"},
    {"[NaN, Infinity, -Infinity, 1180591620717411303424]"},
    {"\"\\ud83d\\ude00 \\u00e9 \\ud800 \\u0000\""},
    {"\"\xc3\xa9 \xf0\x9f\x98\x80\""},
    {"[ 1 , 2 ]"},
    {"{\"split\" :[1,\n\"a , b\"],\t\"n\":null }",
     "{\"split\": [1, \"a , b\"], \"n\": null}"}};

const extra& extra_of(int version) {
  return extras[static_cast<std::size_t>(version) % std::size(extras)];
}

std::string member_of(std::string_view name, const std::string& value) {
  return "\"" + std::string(name) + "\": \"" + value + "\", ";
}

/// Half a surrogate pair, and what a model gets for it.
constexpr std::string_view half_a_pair = "\xed\xa0\x80";
constexpr std::string_view replacement = "\xef\xbf\xbd";

bool has_half_a_pair(int version) {
  return version % 9 == 2;
}

/// Some are written with an escape.
std::string text_member(const std::string& id, int version) {
  auto content = content_of(id, version);
  if (has_half_a_pair(version))
    content.replace(content.size() - replacement.size(), replacement.size(),
                    "\\ud800");
  if (version % 5 != 1)
    return member_of("content", content);
  constexpr std::string_view digits = "0123456789abcdef";
  const auto first = static_cast<unsigned char>(content.front());
  return member_of("content", std::string("\\u00") + digits[first / 16]
                                  + digits[first % 16] + content.substr(1));
}

/// The ends of a version's relation; every fourth one has none.
std::pair<std::string, std::string> ends_of(int version) {
  const auto& ends = all_ends();
  const auto number = static_cast<std::size_t>(version);
  return {ends[number % ends.size()], ends[number / ends.size() % ends.size()]};
}

bool has_relation(int version) {
  return version % 4 != 0;
}

std::string rest_of_record(int version) {
  std::string out;
  if (has_relation(version)) {
    const auto [from, to] = ends_of(version);
    out += member_of("src_id", from) + member_of("tgt_id", to);
  }
  out.append("\"extra\": ").append(extra_of(version).given).append(", ");
  return out + std::string(version_key) + std::to_string(version) + "}";
}

} // namespace

const std::vector<std::string>& all_ids() {
  static const std::vector<std::string> ids = {
      "a",
      chunk_id("b \xed\xa0\x80"), // half a surrogate pair, as Python has them
      "c",
      "d \"\\\n\x01\xc3\xa9\xf0\x9f\x98\x80",
      relation_ids("e", "f").id,
      relation_ids("e", "f").reverse_id,
      entity_id("g"),
      entity_id("h")};
  return ids;
}

std::string label_of(const std::string& id) {
  for (std::size_t i = 0; i < all_ids().size(); ++i)
    if (id == all_ids()[i])
      return std::string(1, static_cast<char>('a' + i));
  return id;
}

const std::vector<std::string>& all_ends() {
  static const std::vector<std::string> ends = {"P", "Q", "R"};
  return ends;
}

bool has_end(int version, const std::string& name) {
  if (version == absent || !has_relation(version))
    return false;
  const auto [from, to] = ends_of(version);
  return from == name || to == name;
}

std::string content_of(const std::string& id, int version) {
  return label_of(id) + " " + std::to_string(version)
         + std::string(has_half_a_pair(version) ? replacement : "");
}

std::string list_of(const rows& state) {
  std::string out;
  for (const auto& [id, version] : state)
    out.append(" ").append(content_of(id, version));
  return out;
}

std::string list_of(const std::vector<std::string>& ids) {
  std::string out;
  for (const auto& each : ids)
    out.append(" ").append(label_of(each));
  return out;
}

std::string record_of(const std::string& id, int version) {
  return "{" + text_member(id, version) + rest_of_record(version);
}

std::string record_without_text(int version) {
  return "{\"content\": 0, " + rest_of_record(version);
}

int version_in(std::string_view record) {
  const auto at = record.rfind(version_key);
  int version = absent;
  if (at != std::string_view::npos)
    std::from_chars(record.data() + at + version_key.size(),
                    record.data() + record.size(), version);
  require(version != absent
              && record.find(extra_of(version).kept) != std::string_view::npos,
          "every record is one that was given");
  return version;
}

int version_in(const std::string& id, std::string_view record) {
  const auto version = version_in(record);
  auto content = content_of(id, version);
  if (has_half_a_pair(version))
    content.replace(content.size() - replacement.size(), replacement.size(),
                    half_a_pair);
  const auto ends = has_relation(version)
                        ? ends_of(version)
                        : std::pair<std::string, std::string>();
  require((string_member(record, "content") == content
           || member(record, "content") == "0")
              && string_member(record, "src_id").value_or("") == ends.first
              && string_member(record, "tgt_id").value_or("") == ends.second,
          "every record is whole: " + std::string(record));
  return version;
}

int version_of(const rows& state, const std::string& id) {
  const auto found = state.find(id);
  return found == state.end() ? absent : found->second;
}

// -- One handle ---------------------------------------------------------------

void handle_book::begin_job() {
  ++jobs_under_way;
  ++jobs_started;
}

void handle_book::has_shown(std::uint64_t generation) {
  floor = std::max(floor, generation);
}

/// A commit that took it has ended well, before `asked`.
bool handle_book::is_settled(std::size_t index, std::uint64_t asked) const {
  return std::any_of(points.begin(), points.end(), [&](const auto& point) {
    return point.changes > index && point.over && *point.over <= asked
           && point.succeeded;
  });
}

/// By a commit under way while it was asked for.
bool handle_book::may_be_taken(const change& made) const {
  return std::any_of(points.begin(), points.end(), [&](const auto& point) {
    return !point.over || *point.over > made.sent;
  });
}

own_changes handle_book::own_of(const std::string& id,
                                std::uint64_t asked) const {
  own_changes out;
  // What is under way may take back what is pending and leave no other trace.
  auto may_show_others = false;
  for (auto i = changes.size(); i-- > 0;) {
    const auto& made = changes[i];
    if (made.id != id || made.reach == removal::row_only)
      continue;
    if (i >= loose_until && is_settled(i, asked))
      break;
    out.possible.insert(made.version);
    const auto is_pending = made.acknowledged && *made.acknowledged <= asked;
    if (!is_pending || made.reach == removal::unknown) {
      may_show_others = may_show_others || made.reach != removal::certain;
      continue;
    }
    if (made.reach == removal::perhaps_void)
      break;
    if (i < loose_until)
      continue;
    out.is_certain = !may_show_others && !may_be_taken(made);
    break;
  }
  return out;
}

bool handle_book::may_hide(const std::string& id, std::uint64_t asked) const {
  for (std::size_t i = 0; i < changes.size(); ++i)
    if (changes[i].id == id && changes[i].version == absent
        && (i < loose_until || !is_settled(i, asked)))
      return true;
  return false;
}

bool handle_book::has_unsettled_removal(const std::string& id) const {
  return may_hide(id, ~std::uint64_t{0});
}

std::uint64_t handle_book::floor_of(const read_terms& terms) const {
  return jobs_started == terms.jobs_started ? terms.at_rest : terms.own;
}

// -- One store ----------------------------------------------------------------

handle_book& store_model::add_handle() {
  return handles_.emplace_back();
}

void store_model::acknowledge(std::uint64_t generation) {
  acknowledged_ = std::max(acknowledged_, generation);
}

void store_model::skip_to(std::uint64_t generation, std::uint64_t step) {
  while (latest_ < generation)
    history_[++latest_] = {{}, {}, step};
}

void store_model::saw_event(commit_event event, std::uint64_t step) {
  const auto generation = event.generation;
  require(generation > latest_, "generations rise");
  if (event.what == commit_event::kind::overflow) {
    // There may have been a drop.
    last_drop_step_ = step;
    skip_to(generation, step);
    return;
  }
  require(generation == latest_ + 1, "generations have no gaps");
  skip_to(generation, step);
  const auto is_drop = event.what == commit_event::kind::drop;
  history_[generation].event = std::move(event);
  if (is_drop)
    saw_drop(generation);
}

void store_model::saw_drop(std::uint64_t generation) {
  last_drop_step_ = history_[generation].step;
  std::optional<std::uint64_t> asked;
  for (const auto& each : handles_)
    for (const auto& point : each.points)
      if (point.what == turning_point::kind::drop && !point.over)
        asked = std::min(asked.value_or(point.sent), point.sent);
  if (!asked)
    return;
  // A foreign pair that is there may still be taken over if the drop fails
  // before it has replaced that: then its rows are not ours any more.
  const auto is_foreign = [this](const change& made) {
    return foreign_ && version_of(*foreign_, made.id) == made.version;
  };
  for (const auto& each : handles_)
    for (const auto& made : each.changes)
      if (made.version != absent && made.acknowledged
          && *made.acknowledged <= *asked && !is_foreign(made))
        forbidden_.emplace(made.version, generation);
}

bool store_model::saw_state(rows state, std::uint64_t base_generation) {
  auto& record = history_[latest_];
  const auto is_news = !record.state;
  require(is_news || *record.state == state, "a generation never changes");
  if (is_news) {
    check_given(state);
    if (!record.event && foreign_ && last_)
      check_taken_over(state);
    record.state = std::move(state);
    check_forbidden(latest_);
  }
  last_ = {latest_, base_generation, *record.state, record.step};
  return is_news;
}

void store_model::check_given(const rows& state) const {
  for (const auto& [id, version] : state) {
    const auto found = given_.find(version);
    require(found != given_.end() && found->second == id,
            "a store has only what was given to it");
  }
}

// -- Rows of somebody else's --------------------------------------------------

void store_model::expect_foreign(rows foreign) {
  for (const auto& [id, version] : foreign) {
    give(id, version);
    // Rows of before a drop that is not finished are published still: who
    // writes them again makes them its own.
    forbidden_.erase(version);
  }
  foreign_ = std::move(foreign);
}

/// Our changes since the base are on top of the foreign rows; what came at the
/// same time, and nobody has seen yet, on top of those.
void store_model::check_taken_over(const rows& state) const {
  if (may_be_dropped_since(last_->step))
    return;
  const auto here = " in generation " + std::to_string(latest_) + ", after"
                    + list_of(last_->state) + ", over" + list_of(*foreign_);
  std::set<bool> are_foreign;
  for (const auto& id : all_ids()) {
    const auto version = version_of(state, id);
    const auto ours = version_of(last_->state, id);
    const auto theirs = version_of(*foreign_, id);
    const auto is_theirs = version == theirs && !was_changed_since_base(id);
    const auto is_expected =
        version == ours || is_theirs || may_be_new(id, version);
    require(is_expected, "a foreign pair is taken over under our changes: "
                             + content_of(id, version) + here);
    if (ours != theirs && !was_changed_since_base(id)
        && !may_be_new(id, version))
      are_foreign.insert(is_theirs);
  }
  require(are_foreign.size() <= 1,
          "a foreign pair is taken over as a whole:" + list_of(state) + here);
}

std::optional<rows> store_model::base_state() const {
  const auto base = history_.find(base_generation());
  return base == history_.end() ? std::nullopt : base->second.state;
}

bool store_model::was_changed_since_base(const std::string& id) const {
  const auto has = [&](const std::vector<std::string>& ids) {
    return std::find(ids.begin(), ids.end(), id) != ids.end();
  };
  for (auto each = history_.upper_bound(last_->base_generation);
       each != history_.end() && each->first <= last_->generation; ++each)
    if (each->second.event
        && (has(each->second.event->changed)
            || has(each->second.event->removed)))
      return true;
  return false;
}

/// By a commit that nobody has seen.
bool store_model::may_be_new(const std::string& id, int version) const {
  if (version == absent)
    return std::any_of(handles_.begin(), handles_.end(), [&](const auto& each) {
      return each.has_unsettled_removal(id);
    });
  return std::none_of(history_.begin(), history_.end(), [&](const auto& each) {
    return each.second.state && version_of(*each.second.state, id) == version;
  });
}

bool store_model::may_be_dropped_since(std::uint64_t step) const {
  return std::any_of(handles_.begin(), handles_.end(), [&](const auto& each) {
    return std::any_of(each.points.begin(), each.points.end(),
                       [&](const auto& point) {
                         return point.what == turning_point::kind::drop
                                && (!point.over || *point.over >= step);
                       });
  });
}

bool store_model::was_drop_asked() const {
  return may_be_dropped_since(0);
}

// -- After a crash ------------------------------------------------------------

std::uint64_t store_model::durable() const {
  auto out = acknowledged_;
  for (const auto& each : handles_)
    out = std::max(out, each.floor);
  return out;
}

void store_model::found(std::uint64_t generation, rows state,
                        std::uint64_t step, bool are_commits_whole) {
  const auto survives = durable();
  require(generation >= survives,
          "what was acknowledged or shown survives: generation "
              + std::to_string(survives) + " was, " + std::to_string(generation)
              + " is left");
  history_.erase(history_.upper_bound(survives), history_.end());
  std::erase_if(forbidden_,
                [&](const auto& each) { return each.second > survives; });
  std::optional<rows> before;
  if (const auto known = history_.find(survives);
      known != history_.end() && known->second.state) {
    check_survivors(known->second, state, generation);
    before = known->second.state;
  }
  // What came in between nobody has seen.
  latest_ = std::min(latest_, survives);
  skip_to(generation, step);
  auto& record = history_[generation];
  record.state = std::move(state);
  record.step = step;
  check_given(*record.state);
  check_forbidden(generation);
  if (before && are_commits_whole)
    check_wholeness(*before, *record.state, generation);
  last_.reset();
}

/// What came later are commits that nobody was told of.
void store_model::check_survivors(const generation_record& durable,
                                  const rows& state,
                                  std::uint64_t generation) const {
  if (may_be_dropped_since(durable.step))
    return;
  const auto is_new = [&](const std::string& id, int version) {
    return generation > this->durable()
           && (may_be_new(id, version)
               || (foreign_ && version_of(*foreign_, id) == version));
  };
  for (const auto& id : all_ids())
    require(version_of(state, id) == version_of(*durable.state, id)
                || is_new(id, version_of(state, id)),
            "what was acknowledged or shown survives unchanged:"
                + list_of(*durable.state) + " were there, in generation "
                + std::to_string(generation) + " there are" + list_of(state));
}

void store_model::check_wholeness(const rows& before, const rows& state,
                                  std::uint64_t generation) const {
  for (const auto& [id, version] : state)
    if (version != version_of(before, id))
      check_together(version, generation);
}

void store_model::check_forbidden(std::uint64_t generation) const {
  for (const auto& [id, version] : *history_.at(generation).state) {
    const auto found = forbidden_.find(version);
    require(found == forbidden_.end() || found->second >= generation,
            "what was asked for before a drop does not come back: "
                + content_of(id, version) + " in generation "
                + std::to_string(generation));
  }
}

bool store_model::was_seen(const std::string& id, int version,
                           std::uint64_t from_step, std::uint64_t until) const {
  for (auto each = history_.begin();
       each != history_.end() && each->first <= until; ++each) {
    const auto next = std::next(each);
    if (next != history_.end() && next->second.step < from_step)
      continue;
    const auto& state = each->second.state;
    if (!state || version_of(*state, id) == version)
      return true;
  }
  return false;
}

void store_model::check_all_or_nothing(std::uint64_t generation) const {
  const auto& record = history_.at(generation);
  if (!record.event)
    return;
  for (const auto& id : record.event->changed) {
    const auto version = version_of(*record.state, id);
    if (version != absent)
      check_together(version, generation);
  }
}

void store_model::check_together(int version, std::uint64_t generation) const {
  for (const auto& each : handles_) {
    const auto seen =
        std::find_if(each.changes.begin(), each.changes.end(),
                     [&](const auto& made) { return made.version == version; });
    if (seen != each.changes.end())
      check_together(each, *seen, generation);
  }
}

/// With one change of a handle came all before it.
void store_model::check_together(const handle_book& made_by, const change& seen,
                                 std::uint64_t generation) const {
  const auto index_of = [&](const change& made) {
    return static_cast<std::size_t>(&made - made_by.changes.data());
  };
  std::map<std::string, const change*> last;
  for (const auto& made : made_by.changes)
    if (&made < &seen && made.reach != removal::row_only)
      last[made.id] = &made;
  // A change that came later took its place, in the same commit.
  const auto seen_at = history_.at(generation).step;
  const auto was_overtaken = [&](const change& made) {
    return std::any_of(made_by.changes.begin(), made_by.changes.end(),
                       [&](const auto& each) {
                         return &each > &made && each.id == made.id
                                && &each != &seen && each.sent <= seen_at;
                       });
  };
  // Nobody knows yet whether an unanswered request was refused.
  for (const auto& [other, made] : last)
    require(other == seen.id || made->reach != removal::certain
                || !made->acknowledged || made->sent <= last_drop_step_
                || index_of(*made) < made_by.loose_until
                || was_seen(other, made->version, made->sent, generation)
                || was_overtaken(*made),
            "a commit is all or nothing: generation "
                + std::to_string(generation) + " has "
                + content_of(seen.id, seen.version) + " without "
                + content_of(other, made->version));
}

} // namespace callboard::test
