#pragma once

#include "core/store.hpp"
#include "tests/support/faulty_io.hpp"
#include "tests/support/scratch_directory.hpp"

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

/// Stores whose every row can be recognized: record and vector of a row follow
/// from its id and version, so that a mix of two rows is noticed.
namespace callboard::test {

inline constexpr std::uint32_t store_dimension = 4;
inline constexpr std::string_view store_namespace = "chunks";

/// What a store holds: the version of each id.
using versions = std::map<std::string, int>;

std::vector<float> vector_of(const std::string& id, int version);
std::string record_of(const std::string& id, int version);

/// `drop_epoch` defaults to one that no drop overtakes.
inline constexpr std::uint64_t after_all_drops = ~std::uint64_t{0};
commit_operation upsert(const std::string& id, int version,
                        std::uint64_t drop_epoch = after_all_drops);
commit_operation removal(const std::string& id,
                         std::uint64_t drop_epoch = after_all_drops);

/// Upserts all of `rows`, or removes all of `ids`, in one commit.
result<commit_outcome> try_put(store& target, const versions& rows);
commit_outcome put(store& target, const versions& rows);
commit_outcome take_out(store& target, const std::vector<std::string>& ids);

/// `rows` with those of `changes` put over them.
versions changed(versions rows, const versions& changes);
versions without(versions rows, const std::vector<std::string>& ids);

/// "a0" to "a<count - 1>", say, all of one version.
versions many(const std::string& prefix, int count, int version = 1);

/// What `view` holds. Fails the test if a row's id, record and vector do not
/// belong together, or the view's counts or lookups contradict its rows.
versions contents(const snapshot& view);
versions contents(const store& source);

/// The published pair, read by code of its own.
struct published_rows {
  versions rows;
  /// Row numbers, by id.
  std::map<std::string, std::uint64_t> numbers;
  /// Rows of the index file.
  std::uint64_t total = 0;
};

/// Whether records may name rows that the index file has not (yet or any
/// more), as between the steps of a publication. LightRAG skips them.
enum class strictness : std::uint8_t { complete, between_steps };

/// What a LightRAG reader sees in these bytes of its two files. Fails the test
/// if they could make one start empty, or show a record with the vector of
/// another row.
published_rows read_published(const std::string& index, const std::string& meta,
                              strictness how);
/// The same, from files; no index file: nothing.
published_rows
read_published(const std::filesystem::path& place,
               strictness how = strictness::complete,
               std::string_view namespace_name = store_namespace);

/// Writes a pair as LightRAG does: one record and vector for each of `rows`,
/// in order; each file replaced by a new one.
void write_foreign_pair(const std::filesystem::path& place,
                        const versions& rows);

std::filesystem::path
index_path(const std::filesystem::path& place,
           std::string_view namespace_name = store_namespace);
std::filesystem::path
meta_path(const std::filesystem::path& place,
          std::string_view namespace_name = store_namespace);
/// A file of the private directory, or itself.
std::filesystem::path private_path(const std::filesystem::path& place,
                                   std::string_view name = "");

/// Notices in plain memory, one set for each store.
class test_board : public notice_board {
public:
  explicit test_board(bool covers_all = false);
  std::shared_ptr<store_notices> attach(const store_address& address) override;
  std::uint64_t announcements() const noexcept override;
  void wait(std::uint64_t seen, std::chrono::milliseconds timeout) override;
  void interrupt() noexcept override;

private:
  struct announcement_count;
  class notices;

  bool covers_all_;
  /// Shared with the notices, which may live longer.
  std::shared_ptr<announcement_count> count_;
  std::mutex mutex_;
  // Protected by mutex_:
  std::map<store_id, std::shared_ptr<store_notices>> notices_;
};

/// A process, as far as stores can tell: it has a board of its own, and what
/// it asks of the operating system can fail.
struct process {
  explicit process(bool covers_all = false) : board(covers_all) {}

  result<std::unique_ptr<store>> try_open(const store_options& options) {
    return store::open(disk, board, options);
  }
  std::unique_ptr<store> open(const store_options& options) {
    return need(try_open(options));
  }

  faulty_io disk;
  test_board board;
};

/// For `place`: short waits, and compaction without a grace period.
store_options options_for(const std::filesystem::path& place);

/// A directory for what is done so often that it should not wait for a disk:
/// in memory if the system allows, else as `scratch_directory`. Removed with
/// all that is in it.
class quick_directory {
public:
  quick_directory();
  quick_directory(const quick_directory&) = delete;
  quick_directory& operator=(const quick_directory&) = delete;
  ~quick_directory();

  const std::filesystem::path& path() const noexcept { return path_; }
  std::filesystem::path operator/(std::string_view name) const {
    return path_ / name;
  }

private:
  std::filesystem::path path_;
};

/// Makes `to` a copy of the directory `from` in which the same files are the
/// same file.
void copy_tree(const std::filesystem::path& from,
               const std::filesystem::path& to);

/// Every file under `place`, by relative path, with its content.
std::map<std::string, std::string>
all_files(const std::filesystem::path& place);

/// The names of the files in the private directory.
std::set<std::string> private_files(const std::filesystem::path& place);

} // namespace callboard::test

namespace Catch {

template <>
struct StringMaker<callboard::failure> {
  static std::string convert(const callboard::failure& what) {
    return std::string(callboard::to_string(what.code)) + ": " + what.message;
  }
};

template <>
struct StringMaker<callboard::errc> {
  static std::string convert(callboard::errc code) {
    return std::string(callboard::to_string(code));
  }
};

} // namespace Catch
