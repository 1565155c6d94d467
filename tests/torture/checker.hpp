#pragma once

#include "core/store.hpp"
#include "tests/torture/ledger.hpp"
#include "tests/torture/rows.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <string>

/// Judges what a process has seen by what the ledger says. Each check answers
/// the first thing that is wrong, with what is needed to understand it.
namespace callboard::torture {

struct finding {
  enum class kind : std::uint8_t {
    /// What was acknowledged is not there.
    lost,
    /// Something is there that nobody has put there so.
    torn,
    /// Somebody waits for what does not come.
    hung,
  };
  kind what = kind::torn;
  std::string text;
};

std::string_view to_string(finding::kind kind) noexcept;

using verdict = std::optional<finding>;

/// A store as a process has seen it.
struct seen_state {
  unsigned store = 0;
  std::uint64_t generation = 0;
  versions rows;
};

/// Whether every row of `seen` is what the entries up to that generation
/// explain, and every commit is in it as a whole. `known` must have been read
/// after the state was.
verdict check_state(const ledger& known, const seen_state& seen);

/// Whether a state that was asked for when `acknowledged` was known may have
/// this generation.
verdict check_freshness(unsigned store, std::uint64_t acknowledged,
                        std::uint64_t generation);

/// Whether a generation may follow another one in the same process.
verdict check_growth(unsigned store, std::uint64_t before,
                     std::uint64_t generation);

/// Whether the acknowledgements contradict each other: generations are given
/// once, rise with time, and follow the expected ones; and what was pending
/// when a drop was asked for is not committed after it.
verdict check_acknowledgements(const ledger& known, unsigned store);

/// Whether the entries account for all generations up to `generation`, that of
/// a state that was seen when all processes were dead.
verdict check_account(const ledger& known, unsigned store,
                      std::uint64_t generation);

/// Whether an entry explains `event`. `known` must have been read after it.
verdict check_event(const ledger& known, unsigned store,
                    const commit_event& event);

/// Whether `event` may follow one with generation `previous`.
verdict check_event_order(unsigned store, std::uint64_t previous,
                          const commit_event& event);

/// Whether `events`, all those between the two states, lead from `before` to
/// `after`.
verdict check_events(const seen_state& before,
                     std::span<const commit_event> events,
                     const seen_state& after);

} // namespace callboard::torture
