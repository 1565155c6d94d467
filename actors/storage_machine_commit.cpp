#include "actors/storage_machine.hpp"
#include "core/record.hpp"

#include <spdlog/logger.h>

#include <algorithm>

/// How a handle's changes reach the disk: commits, checkpoints and drops.
namespace callboard {

namespace {

/// A compaction takes up to three checkpoints, and one that finds nothing.
constexpr int compaction_rounds = 4;

/// Why `change` cannot be committed, if so. Records of an imported pair may be
/// larger than those that `make_record` makes.
std::optional<failure> refusal(const pending_change& change,
                               const rejections& made) {
  if (auto rejected = made.find(change.get()); rejected != made.end())
    return rejected->second;
  if (change->record.size() > record_bytes_max)
    return failure{errc::too_large,
                   "the record " + printable(change->id) + " has "
                       + std::to_string(change->record.size())
                       + " bytes; at most " + std::to_string(record_bytes_max)
                       + ": replace or delete it"};
  return std::nullopt;
}

class write_checkpoint_job : public job {
public:
  explicit write_checkpoint_job(std::shared_ptr<checkpoint_run> run)
      : run_(std::move(run)) {}

  void run() override { outcome_ = store_session::write_checkpoint(*run_); }

  const result<void>& outcome() const { return outcome_; }

private:
  std::shared_ptr<checkpoint_run> run_;
  result<void> outcome_;
};

} // namespace

// -- commits ------------------------------------------------------------------

void storage_machine::commit(std::optional<std::uint64_t> expected_generation,
                             answer<commit_result> done) {
  change(false,
         [this, expected_generation, done = std::move(done)](const freshness&) {
           commits_.push_back({expected_generation, done});
           start_commit();
         });
}

void storage_machine::start_commit() {
  while (!commit_ && !commits_.empty()) {
    commit_.emplace();
    commit_->expected_generation = commits_.front().expected_generation;
    join_commit();
    begin_commit();
  }
}

/// What is expected holds for all that is pending, or for nothing of it.
void storage_machine::begin_commit() {
  commit_->batch = pending_.take();
  if (commit_->batch.is_last || !commit_->expected_generation) {
    make_batch();
    return;
  }
  pending_.put_back();
  auto refused = std::move(*commit_);
  commit_.reset();
  for (auto& done : refused.group)
    done(failure{errc::too_large,
                 "more is pending than one commit takes, and one that expects "
                 "a generation cannot be split: commit without that first"});
}

void storage_machine::make_batch() {
  std::vector<pending_change> upserts;
  for (const auto& each : commit_->batch.changes)
    if (each->what == commit_operation::kind::upsert)
      upserts.push_back(each);
  vectors_.make(upserts, [this](result<rejections> made) {
    write_batch(std::move(made));
  });
}

/// Who expects a generation wants to be the only one to follow it.
void storage_machine::join_commit() {
  do {
    commit_->group.push_back(std::move(commits_.front().done));
    commits_.pop_front();
  } while (!commits_.empty() && !commit_->expected_generation
           && !commits_.front().expected_generation);
}

void storage_machine::write_batch(result<rejections> made) {
  if (!made) {
    end_commit(std::move(made).error());
    return;
  }
  auto& changes = commit_->batch.changes;
  std::erase_if(changes, [&](const pending_change& each) {
    auto refused = refusal(each, *made);
    if (refused)
      commit_->done.failed.push_back({each->id, std::move(*refused)});
    return refused.has_value();
  });
  lane_.run_on_store<commit_outcome>(
      store_access::write,
      [changes, expected = commit_->expected_generation](store& current) {
        std::vector<commit_operation> operations;
        operations.reserve(changes.size());
        for (const auto& each : changes)
          operations.push_back(*each);
        return current.commit(operations, expected);
      },
      [this](result<commit_outcome> outcome) {
        end_commit(std::move(outcome));
      });
}

/// Goes on with the next batch, if there is one: on an error, those before it
/// are committed.
void storage_machine::end_commit(result<commit_outcome> outcome) {
  if (outcome) {
    commit_->done.generation = outcome->generation;
    commit_->done.committed += outcome->committed;
    commit_->done.discarded += outcome->discarded;
    pending_.committed(commit_->batch);
    rebuild_view();
    if (setup_.options.automatic_checkpoints && state_.checkpoint_due
        && !checkpoint_ && !next_checkpoint_ && !drop_)
      wish_checkpoint({.how = compaction::automatic, .wait = patience::none});
    if (!commit_->batch.is_last) {
      commit_->batch = pending_.take_rest(commit_->batch);
      make_batch();
      return;
    }
  } else {
    pending_.put_back();
  }
  auto ended = std::move(*commit_);
  commit_.reset();
  for (auto& done : ended.group) {
    if (outcome)
      done(ended.done);
    else
      done(outcome.error());
  }
  start_commit();
  start_drop();
}

void storage_machine::finalize(answer<commit_result> done) {
  commit(std::nullopt,
         [this, done = std::move(done)](result<commit_result> committed) {
           if (!committed || state_.published) {
             done(std::move(committed));
             return;
           }
           checkpoint_wish wish{.how = compaction::automatic};
           wish.waiters.push_back([done, committed = std::move(*committed)](
                                      result<void> published) {
             if (published)
               done(committed);
             else
               done(failure{published.error().code,
                            "all is committed, but the pair could not be "
                            "published: "
                                + published.error().message});
           });
           wish_checkpoint(std::move(wish));
         });
}

// -- checkpoints --------------------------------------------------------------

void storage_machine::checkpoint(compaction how, answer<void> done) {
  change(false, [this, how, done = std::move(done)](const freshness&) {
    wish_checkpoint(
        {.how = how, .rounds = compaction_rounds, .waiters = {done}});
  });
}

/// Wishes that wait are granted together, by the most thorough of them.
void storage_machine::wish_checkpoint(checkpoint_wish wish) {
  if (!next_checkpoint_) {
    next_checkpoint_ = std::move(wish);
  } else {
    next_checkpoint_->how = std::max(next_checkpoint_->how, wish.how);
    next_checkpoint_->rounds = std::max(next_checkpoint_->rounds, wish.rounds);
    next_checkpoint_->wait = std::max(next_checkpoint_->wait, wish.wait);
    for (auto& each : wish.waiters)
      next_checkpoint_->waiters.push_back(std::move(each));
  }
  start_checkpoint();
}

void storage_machine::start_checkpoint() {
  if (checkpoint_ || !next_checkpoint_)
    return;
  checkpoint_ = std::exchange(next_checkpoint_, std::nullopt);
  begin_checkpoint_round();
}

void storage_machine::begin_checkpoint_round() {
  using run_ptr = std::shared_ptr<checkpoint_run>;
  --checkpoint_->rounds;
  lane_.run<run_ptr>(
      [how = checkpoint_->how,
       wait = checkpoint_->wait](store_session& session) {
        return session.begin_checkpoint(how, wait);
      },
      [this](result<run_ptr> begun) {
        if (begun)
          write_checkpoint(std::move(*begun));
        else
          end_checkpoint(std::move(begun).error());
      });
}

void storage_machine::write_checkpoint(std::shared_ptr<checkpoint_run> run) {
  auto writing = std::make_shared<write_checkpoint_job>(run);
  services_.run(writing, job_pace::slow,
                [this, writing, run](result<void> ran) {
                  auto outcome = ran ? writing->outcome() : ran;
                  if (outcome)
                    finish_checkpoint_round(run);
                  else
                    end_checkpoint(std::move(outcome));
                });
}

void storage_machine::finish_checkpoint_round(
    std::shared_ptr<checkpoint_run> run) {
  lane_.run<bool>(
      [run](store_session& session) { return session.finish_checkpoint(*run); },
      [this](result<bool> has_new_base) {
        if (has_new_base && *has_new_base && checkpoint_->rounds > 0)
          begin_checkpoint_round();
        else if (has_new_base)
          end_checkpoint({});
        else
          end_checkpoint(std::move(has_new_base).error());
      });
}

void storage_machine::end_checkpoint(result<void> outcome) {
  auto waiters = std::move(checkpoint_->waiters);
  checkpoint_.reset();
  for (auto& done : waiters)
    done(outcome);
  // `busy`: somebody else is at it.
  if (!outcome && waiters.empty() && outcome.error().code != errc::busy)
    setup_.log->warn("{}/{}: no checkpoint: {}", setup_.options.workspace,
                     setup_.options.namespace_name, outcome.error().message);
  start_checkpoint();
  start_drop();
}

// -- drop ---------------------------------------------------------------------

void storage_machine::drop(answer<void> done) {
  change(false, [this, done = std::move(done)](const freshness&) {
    drop_ = done;
    start_drop();
  });
}

void storage_machine::start_drop() {
  if (!drop_ || drop_is_running_ || commit_ || !commits_.empty() || checkpoint_
      || next_checkpoint_)
    return;
  drop_is_running_ = true;
  lane_.run_on_store<snapshot_ptr>(
      store_access::write, [](store& current) { return current.drop(); },
      [this](result<snapshot_ptr> dropped) {
        drop_is_running_ = false;
        auto done = std::exchange(drop_, nullptr);
        if (dropped) {
          pending_.clear();
          rebuild_view();
          done({});
        } else {
          done(std::move(dropped).error());
        }
        pump_changes();
      });
}

} // namespace callboard
