#pragma once

#include "actors/requests.hpp"
#include "tests/story/model.hpp"
#include "tests/story/observer.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

/// Compares what is answered with what is promised. All throw `violation`.
namespace callboard::test {

/// What is asked of whom.
struct read {
  store_observer& store;
  handle_book& book;
  read_terms terms;
};

/// Own changes of the handle, else rows of one generation.
void check_get(const read& asked, const std::vector<std::string>& ids,
               const optional_rows& found);
void check_vectors(const read& asked, const std::vector<std::string>& ids,
                   const std::vector<id_vector>& found);

/// The text whose vector was looked for, and how.
struct search_terms {
  std::vector<std::string> texts;
  std::size_t top_k = 1;
  std::optional<double> threshold = std::nullopt;
};
/// A list for each text, all of one generation: what brute force finds there,
/// less what the handle has deleted.
void check_queries(const read& asked, const search_terms& terms,
                   const hit_lists& found);

/// One generation, less what the handle has deleted.
void check_snapshot(const read& asked, const snapshot& found);
void check_pending(const read& asked, const std::vector<std::string>& ids);
void check_stats(const read& asked, const handle_stats& found);

void check_commit(store_observer& store, handle_book& book,
                  const turning_point& point, const commit_result& made,
                  std::optional<std::uint64_t> expected);

/// An event that follows one of generation `last`.
/// If it is one, somebody else has committed.
void check_conflict(store_observer& store, const failure& error,
                    std::optional<std::uint64_t> expected);
void check_event(store_observer& store, handle_book& book, std::uint64_t last,
                 const commit_event& event);

} // namespace callboard::test
