#pragma once

#include "core/result.hpp"
#include "core/snapshot.hpp"
#include "core/store.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

/// What the power-loss test writes, and what it may find afterwards.
///
/// Every transaction has a number of its own, its *version*, from which follows
/// all that it does; every row names the version that wrote it, and all its
/// bytes follow from that and its id.
namespace callboard::test {

inline constexpr std::uint32_t power_loss_dimension = 64;
inline constexpr std::size_t power_loss_ids = 200;

/// Names a transaction; 0: no row.
using row_version = std::uint64_t;
/// What a store holds: who wrote each id last.
using row_versions = std::array<row_version, power_loss_ids>;

struct transaction {
  struct change {
    std::size_t id = 0;
    bool removes = false;
  };
  row_version version = 0;
  /// Removes everything; then there are no changes.
  bool drops = false;
  std::vector<change> changes;
};

transaction make_transaction(std::uint64_t seed, row_version version);
std::vector<commit_operation> operations_of(const transaction& what);
void perform(const transaction& what, row_versions& rows);

/// The rows of `view`. Errors: `corrupt` if bytes of a row do not belong
/// together.
result<row_versions> contents_of(const snapshot& view);

/// What a LightRAG reader would find in the published pair: nothing where a
/// file is missing. Errors: as above; also files that are damaged.
result<row_versions> published_contents(const std::string& directory,
                                        const std::string& namespace_name);

/// What the processes could tell of one power-on time.
struct evidence {
  struct commit {
    row_version version = 0;
    std::uint64_t generation = 0;
  };
  std::vector<commit> acknowledged;
  /// Begun, but without an answer before the power went.
  std::vector<row_version> unanswered;
  /// The newest generation that anybody has shown.
  std::uint64_t shown = 0;
};

struct verdict {
  std::uint64_t lost = 0;
  std::uint64_t torn = 0;
  std::string explanation;
  bool good() const noexcept { return lost == 0 && torn == 0; }
};

/// One store's past, as it must be.
class store_history {
public:
  explicit store_history(std::uint64_t seed) : seed_(seed) {}

  /// Whether a store that is at `generation` and holds `found` is what
  /// `before` can have become: all that was acknowledged or shown, in the order
  /// of its generations, and in the gaps whole unanswered transactions. Then
  /// that is the past from now on.
  verdict judge(const evidence& before, std::uint64_t generation,
                const row_versions& found);

  /// Whether a published pair with these rows is a state of the past, no older
  /// than the pair that was seen last.
  verdict judge_published(const row_versions& found);

private:
  /// The states from `known()` on, if these commits follow.
  std::vector<row_versions>
  replay(const std::vector<row_version>& commits) const;
  /// The newest generation whose state is certain.
  std::uint64_t known() const noexcept { return states_.size() - 1; }

  std::uint64_t seed_;
  /// By generation.
  std::vector<row_versions> states_{row_versions{}};
  std::uint64_t published_ = 0;
};

} // namespace callboard::test
