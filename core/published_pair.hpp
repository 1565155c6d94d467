#pragma once

#include "core/io.hpp"
#include "core/manifest.hpp"
#include "core/result.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace callboard {

/// `faiss_index_<namespace>.callboard`, the private directory of a store.
std::string private_directory_name(std::string_view namespace_name);

/// The epoch in a name that is exactly `prefix`, an epoch as we write it, and
/// `suffix`, as in `epoch_in("base-7.index", "base-", ".index")`. Empty for all
/// other names: those files are not ours.
std::optional<std::uint64_t> epoch_in(std::string_view name,
                                      std::string_view prefix,
                                      std::string_view suffix);

/// What a file of the private directory is, by its name.
struct private_file {
  enum class kind : std::uint8_t {
    /// Part of a base, or a log: ours if MANIFEST names its epoch.
    base,
    log,
    /// Kept for somebody: files of a foreign pair, records without a vector,
    /// and what a salvage cut off.
    kept,
    /// Left behind by somebody who died while writing it.
    temporary,
    /// MANIFEST, LOCK, and what others may have put there.
    other,
  };
  kind what = kind::other;
  /// 0 if the name has none.
  std::uint64_t epoch = 0;
};
private_file classify(std::string_view name);

/// Where records of an imported pair wait that have no vector yet.
inline constexpr std::string_view unembedded_name = "unembedded";
inline constexpr std::string_view unembedded_temporary_name = "unembedded.tmp";

/// The two files that LightRAG readers see: links to one base's files in the
/// private directory.
///
/// Ownership: borrows the directories.
/// Threads:   not thread-safe.
class published_pair {
public:
  published_pair(io& door, directory& outside, directory& home,
                 std::string_view namespace_name);

  enum class state : std::uint8_t {
    /// Both files are those of the base.
    current,
    /// Missing, or of an older base of ours: an interrupted publication.
    outdated,
    /// Somebody else wrote both files.
    foreign,
    /// Somebody else wrote one of them.
    half_foreign,
  };

  /// Compares the published files with the base that `root` names and with
  /// older ones in the private directory.
  result<state> examine(const manifest& root);

  /// Rows of the published index file; 0 if there is none that can be read.
  std::uint64_t index_row_count() const;

  /// Permission bits of the published index file, or 0600 if there is none.
  std::uint32_t file_mode() const;

  /// Publishes the base that `root` names, one file after the other, each
  /// durably, in the order that keeps every mix harmless.
  result<void> publish(const manifest& root);

  /// Keeps links to whatever is published now as `foreign-<epoch>.*` in the
  /// private directory; under the next number that is free, if that is taken.
  result<void> set_aside(std::uint64_t epoch);

private:
  enum class owner : std::uint8_t { current, outdated, foreign };
  result<owner> owner_of(const std::string& published, std::string_view suffix,
                         const manifest& root);
  result<owner> owner_of_file(const std::string& published,
                              const file_status& there, std::string_view suffix,
                              const manifest& root);
  result<bool> is_copy_of(const std::string& published,
                          const std::string& private_name);
  result<bool> can_keep(const std::string& published,
                        const std::string& target);
  result<void> keep(const std::string& published, const std::string& target);
  result<void> replace(const std::string& published,
                       const std::string& private_name);

  io& door_;
  directory& outside_;
  directory& home_;
  std::string index_name_;
  std::string meta_name_;
};

} // namespace callboard
