#pragma once

#include "tests/history/journal.hpp"

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace callboard::history {

/// What the journals add up to.
struct judgement {
  /// Commits that were acknowledged, or that others have seen.
  std::size_t transactions = 0;
  /// Of them, those whose process was killed before it was told.
  std::size_t unacknowledged = 0;
  std::size_t drops = 0;
  std::size_t conflicts = 0;
  std::size_t discarded = 0;
  std::size_t reads = 0;
  std::size_t events = 0;
  std::size_t overflows = 0;
  /// Whatever no order of transactions explains, with the evidence.
  std::vector<std::string> violations;
};

/// Whether `journals`, all of a run whose stores were empty at first, are what
/// the stores promise:
///
/// - Each generation is one transaction. They are applied one after the other,
///   by rising generation, to a plain map; what anybody saw of a generation is
///   that map.
/// - No update is lost: whoever has counted up "counter-<..>" or appended to
///   "list-<..>" has written what was there before, and one more.
/// - A commit that expected generation g is g + 1; a conflict was one.
/// - What was asked for before a drop is not committed after it, and only that
///   is discarded.
/// - What a process sees never goes back, and has its own commits in it.
/// - Who looks, or commits, after a commit was acknowledged comes after it.
/// - Events are those of all commits, in order, but for what an overflow says
///   was left out.
///
/// A commit whose process was killed is there, once, if events or reads show
/// it, or if nothing else can be its generation.
///
/// Values begin with the transaction that wrote them; then, after ':', that of
/// a counter has its number, that of a list the number of elements it has shed
/// and, after another ':', the elements, with ',' between them.
judgement judge(std::span<const journal> journals);

} // namespace callboard::history
