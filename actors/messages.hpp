#pragma once

#include "actors/caf_compat.hpp"
#include "actors/requests.hpp"
#include "actors/work.hpp"
#include "core/snapshot.hpp"
#include "core/store.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

/// The catalogue: every message of every actor, and who answers what.
///
/// Messages are values that stay in this process. A receiver may take what is
/// in them: nobody else has it.
namespace callboard {

// -- to a storage actor; operations are those of `client` ---------------------

/// All records are taken or, on an error, none. Embeds nothing.
struct upsert_request {
  std::vector<upsert_item> items;
};

/// One text, embedded ahead of all documents. The answer has one list.
struct query_text_request {
  std::string text;
  query_options options;
};

/// One vector; the answer has one list.
struct query_vector_request {
  std::vector<float> vector;
  query_options options;
};

/// Any number of vectors of the store's dimension, one after the other; the
/// answer has a list for each.
struct query_batch_request {
  std::vector<float> vectors;
  query_options options;
};

/// Pending first, then committed; one answer per id, in order.
struct get_request {
  std::vector<std::string> ids;
};

/// One answer per id that is there, in the order of first mention.
struct get_vectors_request {
  std::vector<std::string> ids;
};

struct remove_request {
  std::vector<std::string> ids;
};

struct remove_entity_request {
  std::string name;
};

struct remove_relation_request {
  std::string name;
};

/// Requests without `expected_generation` that arrive during a commit share
/// the next one. What is pending goes into one commit of the store; only what
/// an imported pair has brought may take several, each all or nothing: then
/// those before one that failed are done, and a request with
/// `expected_generation` is refused (`too_large`).
struct commit_request {
  std::optional<std::uint64_t> expected_generation;
};

struct finalize_request {};

/// Waits for commits and checkpoints under way; what comes after it waits.
struct drop_request {};

/// Waits for a checkpoint under way. Requests that wait share the next one.
struct checkpoint_request {
  compaction how = compaction::automatic;
};

/// Begins to keep events for the sender; ends with `unwatch_request`, or with
/// the sender if it is an actor.
struct watch_request {
  watch_options options;
};

/// Waits for the next event of a watch; the answer is empty if none came in
/// time. At most one such request per watch may be waiting (`busy`); an unknown
/// number is an `invalid_argument`.
struct next_event_request {
  std::uint64_t number = 0;
  std::chrono::milliseconds timeout{};
};

/// Who waits for the next event of the watch is answered `closed`.
struct unwatch_request {
  std::uint64_t number = 0;
};

/// Answered, with the view's generation, when it has reached `generation`;
/// `timed_out` if not in time.
struct await_generation_request {
  std::uint64_t generation = 0;
  std::chrono::milliseconds timeout{};
};

struct pending_request {};
struct snapshot_request {};
struct stats_request {};
struct verify_request {};

/// Owns one handle on a store: its uncommitted changes and its view. Handles
/// requests in order of arrival, but lets nobody wait for what he does not
/// need: reads are answered while a commit is under way.
using storage_actor = typed<reply<void>(upsert_request),            //
                            reply<hit_lists>(query_text_request),   //
                            reply<hit_lists>(query_vector_request), //
                            reply<hit_lists>(query_batch_request),  //
                            reply<optional_rows>(get_request),      //
                            reply<std::vector<id_vector>>(get_vectors_request),
                            reply<void>(remove_request),            //
                            reply<void>(remove_entity_request),     //
                            reply<void>(remove_relation_request),   //
                            reply<commit_result>(commit_request),   //
                            reply<commit_result>(finalize_request), //
                            reply<void>(drop_request),              //
                            reply<void>(checkpoint_request),        //
                            reply<watch_start>(watch_request),      //
                            reply<optional_event>(next_event_request),
                            reply<void>(unwatch_request), //
                            reply<std::uint64_t>(await_generation_request),
                            reply<std::vector<std::string>>(pending_request),
                            reply<snapshot_ptr>(snapshot_request), //
                            reply<handle_stats>(stats_request),    //
                            reply<void>(verify_request)>;

// -- to an embedder pool ------------------------------------------------------

/// Owns the calls to one embedder.
using embedder_pool_actor = typed<reply<embedding_batch>(embed_request)>;

// -- to worker pools ----------------------------------------------------------

/// Work that blocks; answered when it has run.
struct run_request {
  std::shared_ptr<job> work;
};

using io_pool_actor = typed<reply<void>(run_request)>;

using search_pool_actor = typed<reply<hit_lists>(search_request)>;

} // namespace callboard

CALLBOARD_LOCAL_MESSAGE(callboard::upsert_request)
CALLBOARD_LOCAL_MESSAGE(callboard::query_text_request)
CALLBOARD_LOCAL_MESSAGE(callboard::query_vector_request)
CALLBOARD_LOCAL_MESSAGE(callboard::query_batch_request)
CALLBOARD_LOCAL_MESSAGE(callboard::get_request)
CALLBOARD_LOCAL_MESSAGE(callboard::get_vectors_request)
CALLBOARD_LOCAL_MESSAGE(callboard::remove_request)
CALLBOARD_LOCAL_MESSAGE(callboard::remove_entity_request)
CALLBOARD_LOCAL_MESSAGE(callboard::remove_relation_request)
CALLBOARD_LOCAL_MESSAGE(callboard::commit_request)
CALLBOARD_LOCAL_MESSAGE(callboard::finalize_request)
CALLBOARD_LOCAL_MESSAGE(callboard::drop_request)
CALLBOARD_LOCAL_MESSAGE(callboard::checkpoint_request)
CALLBOARD_LOCAL_MESSAGE(callboard::watch_request)
CALLBOARD_LOCAL_MESSAGE(callboard::next_event_request)
CALLBOARD_LOCAL_MESSAGE(callboard::unwatch_request)
CALLBOARD_LOCAL_MESSAGE(callboard::await_generation_request)
CALLBOARD_LOCAL_MESSAGE(callboard::pending_request)
CALLBOARD_LOCAL_MESSAGE(callboard::snapshot_request)
CALLBOARD_LOCAL_MESSAGE(callboard::stats_request)
CALLBOARD_LOCAL_MESSAGE(callboard::verify_request)
CALLBOARD_LOCAL_MESSAGE(callboard::embed_request)
CALLBOARD_LOCAL_MESSAGE(callboard::run_request)
CALLBOARD_LOCAL_MESSAGE(callboard::search_request)
