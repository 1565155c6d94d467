#pragma once

#include "core/store.hpp"

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

/// What is promised: what one store and its handles may show.
///
/// A row is its version: no two upserts of a story have the same one, and its
/// text, vector and relation follow from id and version.
namespace callboard::test {

// -- Promises -----------------------------------------------------------------

/// A promise was not kept. Ends the story.
struct violation : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <class Text>
void require(bool held, const Text& promise) {
  if (!held)
    throw violation(std::string(promise));
}

// -- Rows ---------------------------------------------------------------------

inline constexpr std::string_view working_directory = "/data";
inline constexpr std::size_t dimension = 4;
inline constexpr int absent = 0;

/// The version of each id that is there.
using rows = std::map<std::string, int>;

/// All ids of a store, awkward ones too; the last two are those of entities.
const std::vector<std::string>& all_ids();
inline constexpr std::size_t entity_count = 2;
/// What traces call an id: one letter. Is the name of an entity.
std::string label_of(const std::string& id);

/// What is embedded. Is also what people see in traces.
std::string content_of(const std::string& id, int version);
std::string list_of(const rows& state);
std::string list_of(const std::vector<std::string>& ids);

/// The members of a record that a user gives.
std::string record_of(const std::string& id, int version);
/// The same without a text: no commit can take it.
std::string record_without_text(int version);
/// Of a record that the store shows.
int version_in(std::string_view record);
/// The same; all of it must be the row's.
int version_in(const std::string& id, std::string_view record);
int version_of(const rows& state, const std::string& id);

/// Whether a relation that ends at `name` is in that version's record.
bool has_end(int version, const std::string& name);
const std::vector<std::string>& all_ends();

// -- One handle ---------------------------------------------------------------

/// How much of what a handle shows a change takes away.
enum class removal : std::uint8_t {
  /// It is an upsert, or a removal of a row that was there.
  certain,
  /// There may have been no row: then it only takes back what is pending.
  perhaps_void,
  /// It leaves what is pending, and takes away the row, if there was one.
  row_only,
  /// Any of it.
  unknown,
};

/// A change that a handle was asked for.
struct change {
  std::string id;
  int version = absent;
  std::uint64_t sent = 0;
  std::optional<std::uint64_t> acknowledged = std::nullopt;
  removal reach = removal::certain;
};

/// A commit, or a drop, of a handle.
struct turning_point {
  enum class kind : std::uint8_t { commit, finalize, drop };
  kind what = kind::commit;
  std::uint64_t sent = 0;
  /// How many changes were sent before.
  std::size_t changes = 0;
  std::optional<std::uint64_t> over;
  bool succeeded = false;
};

/// When a read was asked for, and what it shows at least: `own`, what the
/// handle has shown before, and, if no job of the handle comes in the way, all
/// that is acknowledged.
struct read_terms {
  std::uint64_t asked = 0;
  std::uint64_t own = 0;
  std::uint64_t at_rest = 0;
  std::size_t jobs_started = 0;
};

/// What a handle may show of one id besides what is committed.
struct own_changes {
  std::set<int> possible;
  /// Nothing but one of those.
  bool is_certain = false;

  bool allows(int version, int committed) const {
    return possible.count(version) > 0 || (!is_certain && version == committed);
  }
};

/// What one handle was asked for, and what it has shown.
struct handle_book {
  std::vector<change> changes;
  std::vector<turning_point> points;
  /// Changes below this may have been discarded or rejected.
  std::size_t loose_until = 0;
  /// The handle has shown this generation.
  std::uint64_t floor = 0;
  /// Changes, commits and the like, for which reads may have to wait.
  std::size_t jobs_under_way = 0;
  std::size_t jobs_started = 0;

  void begin_job();
  void end_job() { --jobs_under_way; }
  void has_shown(std::uint64_t generation);

  /// What the handle may show to who asked at step `asked`.
  own_changes own_of(const std::string& id, std::uint64_t asked) const;
  /// Whether a query may leave out a committed row.
  bool may_hide(const std::string& id, std::uint64_t asked) const;
  bool has_unsettled_removal(const std::string& id) const;

  /// Where a read of now starts to look.
  std::uint64_t floor_of(const read_terms& terms) const;

private:
  bool is_settled(std::size_t index, std::uint64_t asked) const;
  bool may_be_taken(const change& made) const;
};

// -- One store ----------------------------------------------------------------

/// What is known of one generation.
struct generation_record {
  /// Empty: not seen.
  std::optional<rows> state;
  std::optional<commit_event> event;
  std::uint64_t step = 0;
};

/// Every generation of a store, as one more process has seen it.
class store_model {
public:
  /// Of a new handle; stays.
  handle_book& add_handle();
  const std::list<handle_book>& handles() const { return handles_; }

  std::uint64_t latest() const { return latest_; }
  /// The highest generation that was answered to anybody.
  std::uint64_t acknowledged() const { return acknowledged_; }
  void acknowledge(std::uint64_t generation);
  const std::map<std::uint64_t, generation_record>& generations() const {
    return history_;
  }

  // -- What is seen, in the order of generations ------------------------------

  /// What a commit has changed; its state may never be seen.
  void saw_event(commit_event event, std::uint64_t step);
  /// The rows of the latest generation, and the generation of the base that
  /// they come from. True if that is news.
  bool saw_state(rows state, std::uint64_t base_generation);
  /// What a process finds that opens the store, after all others have died.
  /// `are_commits_whole`: nothing of a commit can have been refused.
  void found(std::uint64_t generation, rows state, std::uint64_t step,
             bool are_commits_whole);
  /// A version that somebody has been asked to store, or may find.
  void give(const std::string& id, int version) { given_[version] = id; }
  /// From now on, these rows of somebody else's may become the base of the
  /// store, with our changes since the base before on top.
  void expect_foreign(rows foreign);
  bool may_be_foreign() const { return foreign_.has_value(); }
  /// The rows that are published, if they are known.
  std::optional<rows> base_state() const;
  std::uint64_t base_generation() const {
    return last_ ? last_->base_generation : 0;
  }

  bool was_drop_asked() const;

  /// Whether all changes of one commit came together.
  void check_all_or_nothing(std::uint64_t generation) const;

  // -- Questions --------------------------------------------------------------

  /// Whether the row had this version in a generation that was the newest one
  /// at `from_step` or later, up to generation `until`.
  bool was_seen(const std::string& id, int version, std::uint64_t from_step,
                std::uint64_t until) const;

  /// Whether `fits` is true of the version of the row in each generation since
  /// `floor`.
  template <class Fits>
  bool was_always(const std::string& id, std::uint64_t floor, Fits fits) const {
    auto each = history_.lower_bound(floor);
    if (each == history_.end())
      return false;
    for (; each != history_.end(); ++each)
      if (!each->second.state || !fits(version_of(*each->second.state, id)))
        return false;
    return true;
  }

private:
  /// The last generation of which all is known.
  struct sight {
    std::uint64_t generation = 0;
    std::uint64_t base_generation = 0;
    rows state;
    std::uint64_t step = 0;
  };

  void saw_drop(std::uint64_t generation);
  void check_given(const rows& state) const;
  void check_taken_over(const rows& state) const;
  void check_survivors(const generation_record& durable, const rows& state,
                       std::uint64_t generation) const;
  void check_wholeness(const rows& before, const rows& state,
                       std::uint64_t generation) const;
  /// The highest generation that was answered or shown to anybody.
  std::uint64_t durable() const;
  bool was_changed_since_base(const std::string& id) const;
  bool may_be_new(const std::string& id, int version) const;
  bool may_be_dropped_since(std::uint64_t step) const;
  void skip_to(std::uint64_t generation, std::uint64_t step);
  void check_forbidden(std::uint64_t generation) const;
  void check_together(int version, std::uint64_t generation) const;
  void check_together(const handle_book& made_by, const change& seen,
                      std::uint64_t generation) const;

  std::list<handle_book> handles_;
  std::map<std::uint64_t, generation_record> history_;
  std::uint64_t latest_ = 0;
  std::uint64_t acknowledged_ = 0;
  std::uint64_t last_drop_step_ = 0;
  /// Versions that a drop has overtaken, and its generation.
  std::map<int, std::uint64_t> forbidden_;
  std::map<int, std::string> given_;
  std::optional<sight> last_;
  std::optional<rows> foreign_;
};

} // namespace callboard::test
