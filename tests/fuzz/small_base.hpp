#pragma once

#include "core/base.hpp"
#include "tests/fuzz/support.hpp"

#include <cstddef>
#include <string>
#include <vector>

namespace callboard::fuzz {

/// A sound base with everything a base can have: rows, holes, repeated
/// postings, planned moves.
struct small_base {
  static constexpr std::uint64_t epoch = 1;
  static constexpr std::uint32_t dimension = 3;

  /// Made once; always the same.
  static const small_base& get();

  /// Makes its three files.
  void write_to(desk& place) const;

  base_descriptor descriptor;
  std::vector<std::byte> index;
  std::vector<std::byte> meta;
  std::vector<std::byte> catalog;
  /// What `base` makes of the pair if the catalog is lost.
  std::vector<std::byte> catalog_without_moves;
  /// The catalog with one planned move less: as right as the whole one.
  std::vector<std::vector<std::byte>> catalogs_less_a_move;
};

} // namespace callboard::fuzz
