"""The ways in which mutate.py breaks callboard, and the programs that are to find each of them.

A mutant's old text occurs exactly once in its file. `found_by` names programs, the cheapest and
most telling first; "program: tests" runs only those tests (as Catch2 selects them).
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Program:
    name: str
    target: str
    command: tuple
    environment: dict = field(default_factory=dict, hash=False)
    limit_seconds: int = 300
    is_catch: bool = True
    # How its output tells what it had looked at when it failed, and what that is.
    counted: str = ""
    unit: str = ""


@dataclass(frozen=True)
class Mutant:
    name: str
    file: str
    old: str
    new: str
    found_by: tuple


def catch(name, *arguments, **others):
    command = (f"{{build}}/tests/{name}_tests", "--abort", "--reporter", "xml", *arguments)
    return Program(others.pop("called", name), f"{name}_tests", command, **others)


SIMULATION = Program("simulation", "callboard_simulation_program",
                     ("{build}/tests/callboard_simulation", "--seeds", "3000", "--no-reduce"),
                     is_catch=False, limit_seconds=120, counted=r"\bseeds=(\d+)", unit="seed")
CRASH = catch("crash", "Whatever a crash*", environment={"CALLBOARD_CRASH_STATES": "20000"},
              limit_seconds=180, counted=r", state (\d+)", unit="state")

PROGRAMS = {each.name: each for each in (
    SIMULATION, CRASH, catch("core"), catch("store"), catch("recovery"), catch("processes"),
    catch("ipc"), catch("actors"), catch("conformance"),
    catch("crash", "Whichever*", called="failing calls"))}

# What most mutants of the engine are shown to.
ENGINE = ("simulation", "crash", "store", "recovery")

MUTANTS = (
    # -- The log ---------------------------------------------------------------
    Mutant("the payload of a frame is not compared with its checksum", "core/commit_log.cpp",
           """\
  if (count != out.payload.size()
      || checksum(out.payload, salt_) != header->payload_checksum)
""", """\
  if (count != out.payload.size())
""", ENGINE),
    Mutant("the header of a frame is not compared with its checksum", "core/commit_log.cpp",
           "  if (header.header_checksum != checksum(bytes.first(56), salt)\n      || header",
           "  if (header", ENGINE),
    Mutant("the link of a frame to the one before is not looked at", "core/commit_log.cpp",
           " || header->link != link_)", ")", ("store: A frame*", *ENGINE)),
    Mutant("a frame that leaves out a sequence is accepted", "core/commit_log.cpp",
           "header->sequence != sequence_ + 1 ||", "header->sequence <= sequence_ ||",
           ("store: A frame*", *ENGINE)),
    Mutant("a torn frame is taken for a whole one", "core/commit_log.cpp",
           """\
  if (size < offset_ + frame_header_bytes + stored)
    return std::optional<frame>{};
  frame out;
  out.type = static_cast<frame_type>(header->type);
  out.sequence = header->sequence;
  out.fence = header->fence;
  out.operation_count = header->operation_count;
  out.payload.resize(header->payload_bytes);
  CALLBOARD_TRY_ASSIGN(
      count, file_->read_at(offset_ + frame_header_bytes, out.payload));
  if (count != out.payload.size()
      || checksum(out.payload, salt_) != header->payload_checksum)
    return std::optional<frame>{};
""", """\
  frame out;
  out.type = static_cast<frame_type>(header->type);
  out.sequence = header->sequence;
  out.fence = header->fence;
  out.payload.resize(header->payload_bytes);
  CALLBOARD_TRY_ASSIGN(
      count, file_->read_at(offset_ + frame_header_bytes, out.payload));
  if (count != out.payload.size())
    out.payload.clear();
  else if (checksum(out.payload, salt_) != header->payload_checksum)
    return std::optional<frame>{};
  else
    out.operation_count = header->operation_count;
  stored = std::min(stored, size - offset_ - frame_header_bytes);
""", ENGINE),
    Mutant("a torn tail is not cut", "core/file_store.cpp",
           "    CALLBOARD_TRY(log_->cut(log_->offset()));\n", "", ENGINE),
    Mutant("damage in the middle of a log is cut like a torn tail", "core/file_store.cpp",
           "CALLBOARD_TRY_ASSIGN(auto damaged, log_->valid_frame_follows());",
           "auto damaged = false;", ("store", "recovery")),

    # -- What is durable, and when ---------------------------------------------
    Mutant("acknowledges before the sync", "core/file_store.cpp",
           "  if (written)\n    written = sync_log(); // W4, the commit point\n", "", ENGINE),
    Mutant("announces a commit before it is durable", "core/file_store.cpp",
           "  auto written = log_->append(type, fence_, operation_count, payload);\n",
           "  auto written = log_->append(type, fence_, operation_count, payload);\n"
           "  notices_->announce(before.sequence + 1);\n", ENGINE),
    Mutant("a reader shows what is not durable", "core/file_store.cpp",
           "auto out = how_far == reach::everything ? no_limit : announced;",
           "auto out = no_limit;", ENGINE),
    Mutant("a reader shows an unannounced commit without a sync", "core/file_store.cpp",
           "  CALLBOARD_TRY(sync_log());\n  CALLBOARD_TRY(drain(reach::everything));\n",
           "  CALLBOARD_TRY(drain(reach::everything));\n", ENGINE),
    Mutant("what a dead writer left unsynced is believed", "core/file_store.cpp",
           "  if (torn || state_->sequence() > known) {", "  if (false) {", ENGINE),
    Mutant("the files of a new base are not synced", "core/base.cpp",
           "    CALLBOARD_TRY(target_->set_mode(mode));\n    return target_->sync();",
           "    return target_->set_mode(mode);", ENGINE),
    Mutant("the directory is not synced after MANIFEST is renamed", "core/file_store.cpp",
           "  CALLBOARD_TRY(home_->rename(temporary, \"MANIFEST\"));\n"
           "  CALLBOARD_TRY(home_->sync());\n",
           "  CALLBOARD_TRY(home_->rename(temporary, \"MANIFEST\"));\n", ENGINE),
    Mutant("MANIFEST is renamed before its bytes are synced", "core/file_store.cpp",
           "    CALLBOARD_TRY(opened->append(0, encode_manifest(next)));\n"
           "    CALLBOARD_TRY(opened->sync());\n",
           "    CALLBOARD_TRY(opened->append(0, encode_manifest(next)));\n", ENGINE),
    Mutant("MANIFEST names a log before its name is durable", "core/file_store_checkpoint.cpp",
           "  CALLBOARD_TRY(home_->sync());\n  auto next = root_;\n  next.logs.push_back",
           "  auto next = root_;\n  next.logs.push_back", ENGINE),
    Mutant("what leads to a MANIFEST by a dead process is not synced", "core/file_store.cpp",
           "  CALLBOARD_TRY(home_->sync());\n  is_root_durable_ = true;",
           "  is_root_durable_ = true;", ENGINE),
    Mutant("the sync of a file does not reach the kernel", "core/posix_io.cpp",
           "    return checked(::fsync(descriptor_.get()), \"sync\");",
           "    return {};", ("core: each sync*",)),
    Mutant("the sync of a file's data does not reach the kernel", "core/posix_io.cpp",
           "    return checked(::fdatasync(descriptor_.get()), \"sync\");",
           "    return {};", ("core: each sync*",)),
    Mutant("the sync of a directory does not reach the kernel", "core/posix_io.cpp",
           "    if (::fsync(descriptor_.get()) != 0)\n      return system_failure(",
           "    if (false)\n      return system_failure(", ("core: each sync*",)),
    Mutant("the name of a new working directory is not synced", "core/posix_io.cpp",
           "  CALLBOARD_TRY(sync_parent(parent_of(path)));\n  return sync_parent(path);",
           "  return sync_parent(parent_of(path));", ("core: each sync*",)),

    # -- Failed syncs ----------------------------------------------------------
    Mutant("a log is not poisoned after a failed sync", "core/file_store.cpp",
           "  notices_->poison(beyond_all_frames);\n", "", ENGINE),
    Mutant("a frame that could not be cut is not poisoned", "core/file_store.cpp",
           "    if (!log_->cut(before.offset) && broken_)\n"
           "      notices_->poison(before.sequence + 1);\n",
           "    (void)log_->cut(before.offset);\n", ENGINE),
    Mutant("the poison is never cleared", "core/file_store_checkpoint.cpp",
           "  notices_->clear_poison();\n", "", ENGINE),
    Mutant("poisoned frames are read", "core/file_store.cpp",
           "  if (auto poisoned = notices_->poisoned_from())\n"
           "    return std::min(out, *poisoned - 1);\n", "", ENGINE),
    Mutant("a handle writes on after a failed sync", "core/file_store.cpp",
           "  broken_ = true;\n", "", ENGINE),

    # -- Locks -----------------------------------------------------------------
    Mutant("the writer's lock is not taken", "core/file_store.cpp",
           "  auto locked = opened.lock(\n"
           "      byte, mode, std::max(timeout - waited, std::chrono::milliseconds(0)));\n",
           "  auto locked = result<void>{};\n", ENGINE),
    Mutant("the checkpointer's lock is not taken", "core/file_store.cpp",
           "  if (which != store_lock::writer || mode != lock_mode::exclusive)\n",
           "  if (which == store_lock::checkpoint)\n    return {};\n"
           "  if (which != store_lock::writer || mode != lock_mode::exclusive)\n", ENGINE),
    Mutant("the writer's lock is never released after a conflict", "core/file_store.cpp",
           "  if (expected_generation && *expected_generation != state_->sequence())\n"
           "    return failure{errc::conflict,",
           "  if (expected_generation && *expected_generation != state_->sequence())\n"
           "    return (void)new held_lock(std::move(writer)), failure{errc::conflict,",
           ENGINE),
    Mutant("a lock counts on a file that has lost its name", "core/file_store.cpp",
           "    if (named && named->identity == held.identity)\n"
           "      return held_lock{std::move(opened)};",
           "    return held_lock{std::move(opened)};", ("store", "recovery", "processes")),
    Mutant("a forked child keeps its parent's locks", "core/posix_io.cpp",
           "      if (::dup3(nothing, number, O_CLOEXEC) < 0)\n        ::close(number);",
           "      (void)number;", ("core: [fork]",)),

    # -- Commits ---------------------------------------------------------------
    Mutant("what was asked for before a drop is committed", "core/file_store.cpp",
           "    if (operation.drop_epoch < state_->drop_epoch()\n        || overtaken",
           "    if (overtaken", ENGINE),
    Mutant("the generation that a commit expects is ignored", "core/file_store.cpp",
           "  if (expected_generation && *expected_generation != state_->sequence())",
           "  if (false)", ENGINE),
    Mutant("a removal leaves the row of the base", "core/applied_state.cpp",
           "    alive_.clear(*base_row);", "    (void)base_row;", ENGINE),
    Mutant("a snapshot changes under its reader", "core/liveness.cpp",
           "  if (!owned_[index]) {", "  if (!chunks_[index]) {", ENGINE),
    Mutant("a refresh does not raise the generation", "core/file_store.cpp",
           "    CALLBOARD_TRY(expose_unannounced());\n  }\n  update_view();\n",
           "    CALLBOARD_TRY(expose_unannounced());\n  }\n", ENGINE),
    Mutant("a newer change goes with the older one that was committed", "core/pending_buffer.cpp",
           "    if (position->change == change)", "    if (true)",
           ("simulation", "core: [pending]")),

    # -- Checkpoints -----------------------------------------------------------
    Mutant("names move with the index first", "core/published_pair.cpp",
           "  if (root.meta_first || first_publication)", "  if (first_publication)",
           ("store: A reader*", *ENGINE)),
    Mutant("the first publication begins with the index", "core/published_pair.cpp",
           "  if (root.meta_first || first_publication)", "  if (root.meta_first)", ENGINE),
    Mutant("rows are moved at once, without waiting for readers", "core/file_store_checkpoint.cpp",
           "         && door_.wall_clock_seconds() - root_.moves_planned_at\n"
           "                >= options_.reader_grace.count();", "         && true;",
           ("store: Compaction*",)),
    Mutant("a hole is filled that a published record still names", "core/fold.cpp",
           "!view_->alive().test(row) && !published.test(row);", "!view_->alive().test(row);",
           ("store", "recovery", "crash")),
    Mutant("numbers of removed rows are used again at once", "core/file_store_checkpoint.cpp",
           "  return passed < options_.reader_grace.count() ? root_.row_floor : 0;",
           "  return passed * 0;", ("store: No reader*",)),
    Mutant("the garbage collection removes a log in use", "core/file_store_checkpoint.cpp",
           "return std::ranges::find(root_.logs, found.epoch) != root_.logs.end();",
           "return false;", ENGINE),
    Mutant("the garbage collection removes what is kept for its owner",
           "core/file_store_checkpoint.cpp",
           "    case private_file::kind::kept:\n      return true;",
           "    case private_file::kind::kept:\n      return false;", ("store", "recovery")),
    Mutant("the catalog's hash table names the row before", "core/catalog.cpp",
           "slots[i] = {fingerprint, row + 1};", "slots[i] = {fingerprint, row == 0 ? 1 : row};",
           ENGINE),
    Mutant("a damaged record of the base is shown", "core/base.cpp",
           "  if (short_checksum(record) != entry.record_checksum)", "  if (false)",
           ("store", "core")),

    # -- Pairs of others -------------------------------------------------------
    Mutant("a foreign pair is overwritten", "core/file_store_checkpoint.cpp",
           "result<void> file_store::bring_publication_up_to_date() {\n"
           "  CALLBOARD_TRY_ASSIGN(auto published, look_at_publication());\n"
           "  if (published == published_pair::state::foreign)\n"
           "    return adopt_foreign_pair();\n",
           "result<void> file_store::bring_publication_up_to_date() {\n"
           "  CALLBOARD_TRY_ASSIGN(auto published, look_at_publication());\n", ENGINE),
    Mutant("a foreign pair is overwritten when a drop is finished",
           "core/file_store_checkpoint.cpp",
           "  CALLBOARD_TRY_ASSIGN(auto published, look_at_publication());\n"
           "  if (published == published_pair::state::foreign)\n"
           "    return adopt_foreign_pair();\n"
           "  return write_fresh_files(published);",
           "  CALLBOARD_TRY_ASSIGN(auto published, look_at_publication());\n"
           "  return write_fresh_files(published);", ENGINE),
    Mutant("half a foreign pair is overwritten at once", "core/file_store_checkpoint.cpp",
           "        || door_.steady_clock() >= give_up)", "        || true)", ("store",)),
    Mutant("what was committed here is lost when a foreign pair is taken over",
           "core/file_store_checkpoint.cpp", "append_operations(epoch, on_top)",
           "append_operations(epoch, {})", ENGINE),
    Mutant("a pair that was replaced meanwhile is taken for foreign", "core/published_pair.cpp",
           "    if (found != owner::foreign || attempt == replacements_max)\n", "    if (true)\n",
           ("processes: A store is sound*",)),

    # -- Queries ---------------------------------------------------------------
    Mutant("a query shows rows that are gone", "core/search.cpp",
           "    for_each_live_strip(view.alive(), block, strip_rows, score_strip);",
           "    for (std::size_t i = 0; i < block.count; i += strip_rows)\n"
           "      score_strip(block.first + static_cast<row_number>(i),\n"
           "                  std::min(strip_rows, block.count - i));",
           ("simulation", "core: [search]")),
    Mutant("a query answers one row more than asked for", "core/search.cpp",
           "    if (heap_.size() == count_) {", "    if (heap_.size() > count_) {",
           ("core: [search]",)),
    Mutant("the threshold is ignored", "core/search.cpp",
           "  std::erase_if(found, is_below);\n", "  (void)is_below;\n",
           ("core: [search]",)),
    Mutant("a score at the threshold is left out", "core/search.cpp",
           "return hit.score < threshold; };", "return hit.score <= threshold; };",
           ("core: [search]",)),
    Mutant("a vector without a direction is accepted", "core/search.cpp",
           "  if (!std::isnormal(square))", "  if (square < 0)", ("core: [search]",)),

    # -- Boards ----------------------------------------------------------------
    Mutant("a word of a board counts without its check", "ipc/board_page.cpp",
           "  return sequence_word(sequence, key) == word ? sequence : 0;", "  return sequence;",
           ("ipc",)),
    Mutant("a store made anew inherits the slot's sequences", "ipc/board_page.cpp",
           "  slot.store_word.store(0, std::memory_order_seq_cst);\n"
           "  for (auto* word : {&slot.durable, &slot.poisoned, &slot.base_epoch,",
           "  slot.store_word.store(0, std::memory_order_seq_cst);\n"
           "  for (auto* word : {&slot.base_epoch,", ("ipc",)),
    Mutant("a later announcement of an earlier commit lowers the sequence", "ipc/shared_board.cpp",
           "  while (sequence_in(known, keys_.check_key)\n"
           "         < sequence_in(next, keys_.check_key)) {", "  while (known != next) {",
           ("ipc",)),
    Mutant("a poison that condemns more is not told", "ipc/shared_board.cpp",
           "    if (worst != 0 && worst <= sequence)", "    if (worst != 0)", ("ipc",)),
    Mutant("an announcement wakes nobody", "ipc/shared_board.cpp",
           "  wake(page_->announcements());\n", "", ("ipc",)),
    Mutant("a board that was replaced goes unnoticed", "ipc/board_page.cpp",
           "  is_current_.store(named && named->identity == identity_,",
           "  is_current_.store(true,", ("ipc",)),

    # -- Handles ---------------------------------------------------------------
    Mutant("deletes of a handle are forgotten at a refresh", "actors/storage_machine.cpp",
           "  view_ = hidden.empty() ? state_.view : state_.view->without(hidden);",
           "  view_ = state_.view;", ("simulation", "actors: [machine]")),
    Mutant("a query shows what its handle has deleted", "actors/storage_machine.cpp",
           "done(search_request{view_, ", "done(search_request{state_.view, ",
           ("simulation", "actors: [machine]")),
    Mutant("a commit is answered before the store has it", "actors/storage_machine_commit.cpp",
           "  auto& changes = commit_->batch.changes;\n",
           "  auto& changes = commit_->batch.changes;\n"
           "  for (auto& done : std::exchange(commit_->group, {}))\n"
           "    done(commit_result{.generation = state_.view->generation() + 1,\n"
           "                       .committed = changes.size(),\n"
           "                       .discarded = 0,\n"
           "                       .failed = {}});\n", ("simulation", "actors: [machine]")),
    Mutant("a commit that waits for another one is never answered",
           "actors/storage_machine_commit.cpp", "  start_commit();\n  start_drop();\n",
           "  start_drop();\n", ("simulation", "actors: [machine]")),
    Mutant("a drop leaves what was pending", "actors/storage_machine_commit.cpp",
           "          pending_.clear();\n", "", ("simulation", "actors: [machine]")),
    Mutant("a wait for a generation ends one too early", "actors/storage_machine_watch.cpp",
           "    if (current->second.generation > reached)",
           "    if (current->second.generation > reached + 1)", ("simulation", "actors: [watch]")),
    Mutant("deadlines never fire", "actors/deadlines.cpp", "    node.mapped().expired();\n",
           "    (void)node;\n", ("simulation", "actors: [watch]")),

    # -- Events ----------------------------------------------------------------
    Mutant("events that were missed leave no overflow", "core/event_recorder.cpp",
           "  last_ = sequence;\n  add(overflow_at(sequence));", "  last_ = sequence;",
           ("simulation", "store: *event*")),
    Mutant("a store's events beyond its limit are lost", "core/event_recorder.cpp",
           "    event = overflow_at(event.generation);\n", "    return;\n",
           ("simulation", "store: *event*")),
    Mutant("a watch's events beyond its limit are lost", "actors/watch_list.cpp",
           "  into.events.push_back(std::move(overflow));\n", "  (void)overflow;\n",
           ("simulation", "actors: [watch]")),
    Mutant("a log that a checkpoint has folded is not told event by event",
           "core/file_store.cpp",
           "      (void)replay_log(*state_, *log_, next.base_sequence);", "      (void)0;",
           ("simulation", "store: *event*")),

    # -- Embedding -------------------------------------------------------------
    Mutant("rows of a failed batch are committed as zeros", "actors/vector_maker.cpp",
           "      for (auto& each : wanted_.at(change.get()))\n"
           "        each->failed = answered.error();\n",
           "      change->vector.assign(dimension_, 0.0F);\n",
           ("simulation", "actors: [machine]")),
    Mutant("too many vectors of a model are accepted", "actors/checked_embedder.cpp",
           "  if (floats != text_count * dimension)", "  if (floats < text_count * dimension)",
           ("simulation", "actors: [client]")),
    Mutant("NaN from a model is accepted", "actors/checked_embedder.cpp",
           "!done)\n      batch.rejected.push_back", "!done && done.error().message.empty())\n"
           "      batch.rejected.push_back", ("simulation", "actors: [client]")),
    Mutant("each request gets the first one's vectors", "actors/embedder_pool.cpp",
           "    first = last;\n", "", ("simulation", "actors: [embedder_pool]")),
    Mutant("queries wait behind documents", "actors/embedder_pool.cpp",
           "send_batch(queries_.empty() ? documents_ : queries_);",
           "send_batch(documents_.empty() ? queries_ : documents_);",
           ("actors: [embedder_pool]",)),
    Mutant("the queue of the embedder has no limit", "actors/embedder_pool.cpp",
           "    } else if (chosen.size() >= queue_max_) {", "    } else if (false) {",
           ("actors: [embedder_pool]",)),
    Mutant("the queue of a pool of workers has no limit", "actors/worker_pool.cpp",
           "    if (queue_.size() >= queue_max_) {", "    if (false) {",
           ("actors: [worker_pool]",)),
    Mutant("an embedder that stops answers nobody who waits", "actors/embedder_pool.cpp",
           "    promises_.close();\n", "", ("simulation", "actors: [embedder_pool]")),
)
