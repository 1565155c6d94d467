#pragma once

#include "core/embedder.hpp"
#include "core/io.hpp"

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace callboard {

/// What a `command:` embedder needs beyond its spec.
struct command_settings {
  /// The model's name, kept with stores. Empty: not checked.
  std::string model_name;
  std::chrono::milliseconds time_limit = std::chrono::seconds(120);
};

/// The embedder that `spec` names:
///
///     words                256 dimensions, or `dimension`
///     words:D              D dimensions, 8 to 65,536
///     words[:D],idf=FILE   weighs words by a file of `word_frequencies`
///     command:CMD          `/bin/sh -c CMD`; see `command_embedder`
///
/// `dimension` 0 means: not given. `command:` requires it; where the spec says
/// one too they must agree (`dimension_mismatch`). FILE is everything up to
/// the end of the spec and is read now.
///
/// Errors: `invalid_argument` with the forms above for anything else, and
///         those of `word_frequencies::load`.
result<std::shared_ptr<embedder>>
make_embedder(std::string_view spec, std::size_t dimension, io& door,
              const command_settings& settings = {});

} // namespace callboard
