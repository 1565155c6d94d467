#pragma once

#include "actors/requests.hpp"
#include "actors/work.hpp"
#include "core/store.hpp"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace callboard {

/// The watches of one handle: what each has not been told yet, and who waits
/// for more. Watches share events; each counts those it keeps against its own
/// limit, and keeps one `overflow` instead when they would exceed it.
///
/// Threads: belongs to one actor.
class watch_list {
public:
  /// `settled` gets the number of each wait that has been answered.
  explicit watch_list(std::function<void(std::uint64_t)> settled)
      : settled_(std::move(settled)) {}
  watch_list(const watch_list&) = delete;
  watch_list& operator=(const watch_list&) = delete;

  bool empty() const noexcept { return watches_.empty(); }

  /// A watch that gets what is published from now on.
  watch_start add(watch_options options, std::uint64_t generation);
  /// Ends a watch, if there is one; who waits for it is answered `closed`.
  void remove(std::uint64_t number);

  /// Answers with the oldest event or an error. False: there is no event yet,
  /// and `done` is kept as the wait number `wait`.
  bool next(std::uint64_t number, std::uint64_t wait,
            answer<optional_event> done);
  /// Answers a wait, unless that is done already, with nothing or an error.
  void give_up(std::uint64_t number, std::uint64_t wait,
               const result<void>& status);
  /// Answers all waits with `reason`.
  void fail_waits(const failure& reason);

  /// By rising generation.
  void publish(std::vector<commit_event> events);

private:
  using event_ptr = std::shared_ptr<const commit_event>;
  struct waiting {
    std::uint64_t number = 0;
    answer<optional_event> done;
  };
  struct watch {
    std::size_t bytes_max = 0;
    std::deque<event_ptr> events = {};
    std::size_t bytes = 0;
    std::optional<waiting> waits = std::nullopt;
  };

  static void keep(watch& into, const event_ptr& event, std::size_t bytes);
  void settle(watch& waited, result<optional_event> value);

  std::function<void(std::uint64_t)> settled_;
  std::map<std::uint64_t, watch> watches_;
  std::uint64_t next_number_ = 1;
};

} // namespace callboard
