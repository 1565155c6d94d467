#pragma once

#include "core/store.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace callboard::test {

/// What a test makes a store do; shared by all stores of one opener.
struct store_script {
  /// Asked before each of the calls; a failure is returned instead.
  std::function<std::optional<failure>()> on_refresh;
  std::function<std::optional<failure>()> on_commit;
  std::function<std::optional<failure>()> on_begin_checkpoint;
  std::function<std::optional<failure>()> on_drop;
  bool checkpoint_is_due = false;
  /// Taken with the store's own.
  std::vector<commit_event> more_events;

  bool keeps_events = false;
  /// Of each call of `keep_events`.
  std::vector<std::uint64_t> kept_after;
  std::vector<callboard::patience> checkpoint_waits;
  int opened = 0;
  int commits = 0;
  int checkpoints = 0;
};

/// A real store that follows a script.
class store_wrapper : public store {
public:
  store_wrapper(std::unique_ptr<store> inner,
                std::shared_ptr<store_script> script)
      : inner_(std::move(inner)), script_(std::move(script)) {
    ++script_->opened;
  }

  const open_report& report() const override { return inner_->report(); }
  std::vector<record_to_embed> take_records_to_embed() override {
    return inner_->take_records_to_embed();
  }
  snapshot_ptr view() const override { return inner_->view(); }
  std::shared_ptr<const change_probe> probe() const override {
    return inner_->probe();
  }
  result<snapshot_ptr> refresh() override {
    CALLBOARD_TRY(ask(script_->on_refresh));
    return inner_->refresh();
  }
  void keep_events(std::uint64_t after) override {
    script_->keeps_events = true;
    script_->kept_after.push_back(after);
    inner_->keep_events(after);
  }
  void keep_no_events() override {
    script_->keeps_events = false;
    inner_->keep_no_events();
  }
  std::vector<commit_event> take_events() override {
    auto out = inner_->take_events();
    for (auto& each : std::exchange(script_->more_events, {}))
      out.push_back(std::move(each));
    return out;
  }
  result<commit_outcome>
  commit(std::span<const commit_operation> operations,
         std::optional<std::uint64_t> expected_generation) override {
    ++script_->commits;
    CALLBOARD_TRY(ask(script_->on_commit));
    return inner_->commit(operations, expected_generation);
  }
  bool checkpoint_due() const override {
    return script_->checkpoint_is_due || inner_->checkpoint_due();
  }
  bool published() const override { return inner_->published(); }
  result<std::unique_ptr<checkpoint_job>>
  begin_checkpoint(compaction how, callboard::patience wait) override {
    ++script_->checkpoints;
    script_->checkpoint_waits.push_back(wait);
    CALLBOARD_TRY(ask(script_->on_begin_checkpoint));
    return inner_->begin_checkpoint(how, wait);
  }
  result<snapshot_ptr>
  finish_checkpoint(std::unique_ptr<checkpoint_job> job) override {
    return inner_->finish_checkpoint(std::move(job));
  }
  result<snapshot_ptr> checkpoint(compaction how) override {
    return inner_->checkpoint(how);
  }
  result<snapshot_ptr> drop() override {
    CALLBOARD_TRY(ask(script_->on_drop));
    return inner_->drop();
  }
  store_stats stats() const override { return inner_->stats(); }
  result<void> verify() override { return inner_->verify(); }

private:
  static result<void> ask(const std::function<std::optional<failure>()>& hook) {
    if (hook)
      if (auto reason = hook())
        return *reason;
    return {};
  }

  std::unique_ptr<store> inner_;
  std::shared_ptr<store_script> script_;
};

} // namespace callboard::test
