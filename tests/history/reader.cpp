#include "tests/history/roles.hpp"
#include "tests/history/values.hpp"
#include "tests/torture/ledger.hpp"

#include <memory>
#include <string_view>
#include <utility>
#include <vector>

namespace callboard::history {

namespace {

/// Reads of newer snapshots, until an old one is read again.
constexpr unsigned reads_while_kept = 64;

id_set ids_of(const std::vector<std::string>& ids) {
  return {ids.begin(), ids.end()};
}

std::string_view kind_of(const commit_event& event) {
  switch (event.what) {
  case commit_event::kind::drop:
    return "drop";
  case commit_event::kind::overflow:
    return "overflow";
  case commit_event::kind::commit:
    break;
  }
  return "commit";
}

/// One store, and what was seen of it.
class observer {
public:
  observer(unsigned store, journal_file& journal,
           std::unique_ptr<session> opened)
      : store_(std::to_string(store)),
        journal_(journal),
        session_(std::move(opened)) {}

  session& store() { return *session_; }

  result<void> watch() {
    CALLBOARD_TRY_ASSIGN(const auto generation, session_->watch());
    journal_.add_line("watch " + store_ + ' ' + std::to_string(generation));
    return {};
  }

  /// Answers whether there was something new. Writes it down then, or if it is
  /// the end.
  result<bool> look(bool is_end);

  result<void> wait() {
    return session_->wait(last_ ? last_->generation() : 0);
  }

  void end() {
    journal_.add_line("end " + store_ + ' '
                      + std::to_string(last_->generation()));
  }

private:
  result<void> write_events(std::uint64_t generation);
  result<void> look_at_kept();

  std::string store_;
  journal_file& journal_;
  std::unique_ptr<session> session_;
  snapshot_ptr last_;
  snapshot_ptr kept_;
  unsigned reads_ = 0;
};

result<bool> observer::look(bool is_end) {
  const auto begun_at = torture::monotonic_ns();
  CALLBOARD_TRY_ASSIGN(const auto view, session_->refresh());
  const auto generation = view->generation();
  if (last_ && last_->generation() == generation && !is_end)
    return false;
  CALLBOARD_TRY(write_events(generation));
  CALLBOARD_TRY_ASSIGN(const auto seen, contents(*view));
  journal_.add_line("read " + store_ + ' ' + std::to_string(begun_at) + ' '
                    + std::to_string(generation) + ' ' + to_text(seen));
  last_ = view;
  if (reads_++ % reads_while_kept == 0) {
    CALLBOARD_TRY(look_at_kept());
  }
  return true;
}

result<void> observer::write_events(std::uint64_t generation) {
  CALLBOARD_TRY_ASSIGN(const auto events, session_->events(generation));
  for (const auto& each : events)
    journal_.add_line("event " + store_ + ' ' + std::to_string(each.generation)
                      + ' ' + std::string(kind_of(each)) + ' '
                      + to_text(ids_of(each.changed)) + ' '
                      + to_text(ids_of(each.removed)));
  return {};
}

/// A snapshot never changes, whatever has become of the store.
result<void> observer::look_at_kept() {
  const auto old = std::exchange(kept_, last_);
  if (!old)
    return {};
  CALLBOARD_TRY_ASSIGN(const auto seen, contents(*old));
  journal_.add_line("again " + store_ + ' ' + std::to_string(old->generation())
                    + ' ' + to_text(seen));
  return {};
}

result<std::vector<observer>> open_stores(connection& stores,
                                          journal_file& journal) {
  std::vector<observer> out;
  for (unsigned store = 0; store < store_count; ++store) {
    CALLBOARD_TRY_ASSIGN(auto opened, stores.open(store));
    out.emplace_back(store, journal, std::move(opened));
  }
  return out;
}

result<void> observe(connection& stores, journal_file& journal,
                     const progress& shared) {
  CALLBOARD_TRY_ASSIGN(auto observers, open_stores(stores, journal));
  for (auto& each : observers) {
    CALLBOARD_TRY(each.watch());
  }
  for (std::size_t turn = 0;; ++turn) {
    // What is there when it is told to stop, it must see.
    const bool is_end = shared.readers_stop.load();
    bool is_new = false;
    for (auto& each : observers) {
      CALLBOARD_TRY_ASSIGN(const bool seen, each.look(is_end));
      is_new = is_new || seen;
    }
    if (is_end)
      break;
    if (!is_new) {
      CALLBOARD_TRY(observers[turn % observers.size()].wait());
    }
  }
  for (auto& each : observers)
    each.end();
  return {};
}

} // namespace

result<void> read(const assignment& who, progress& shared) {
  return with_journal(
      who, "reader", [&](journal_file& journal) -> result<void> {
        CALLBOARD_TRY_ASSIGN(const auto stores,
                             connect(store_directory(who.directory), who.how));
        return observe(*stores, journal, shared);
      });
}

result<void> read_at_the_end(const assignment& who) {
  return with_journal(who, "judge", [&](journal_file& journal) -> result<void> {
    CALLBOARD_TRY_ASSIGN(const auto stores,
                         connect(store_directory(who.directory), who.how));
    CALLBOARD_TRY_ASSIGN(auto observers, open_stores(*stores, journal));
    for (auto& each : observers) {
      CALLBOARD_TRY(each.store().verify());
      CALLBOARD_TRY(each.look(true));
    }
    return {};
  });
}

} // namespace callboard::history
