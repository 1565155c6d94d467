#include "tests/history/session.hpp"

#include "actors/client.hpp"
#include "core/record.hpp"
#include "ipc/shared_board.hpp"
#include "tests/history/values.hpp"
#include "tests/torture/rows.hpp"

#include <chrono>
#include <utility>

namespace callboard::history {

namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr auto short_wait = milliseconds(20);
/// How long what is there already may take to be told.
constexpr auto patience = seconds(60);
/// Nobody reads the published pair, so that it may change at once.
constexpr auto reader_grace = seconds(0);

const std::vector<std::string>& meta_fields() {
  static const std::vector<std::string> out{"content"};
  return out;
}

std::string namespace_of(unsigned store) {
  return "store" + std::to_string(store);
}

class engine_session final : public session {
public:
  engine_session(notice_board& board, std::unique_ptr<store> opened)
      : board_(board), store_(std::move(opened)) {}

  result<snapshot_ptr> refresh() override {
    seen_ = board_.announcements();
    return store_->refresh();
  }
  result<commit_answer>
  commit(const change& what,
         std::optional<std::uint64_t> expected_generation) override;
  result<void> forget() override { return {}; }
  result<void> checkpoint() override {
    CALLBOARD_TRY(store_->checkpoint(compaction::automatic));
    return {};
  }
  result<std::uint64_t> drop() override {
    CALLBOARD_TRY_ASSIGN(const auto view, store_->drop());
    return view->generation();
  }
  result<std::uint64_t> watch() override {
    const auto generation = store_->view()->generation();
    store_->keep_events(generation);
    return generation;
  }
  result<std::vector<commit_event>> events(std::uint64_t) override {
    return store_->take_events();
  }
  result<void> wait(std::uint64_t) override {
    board_.wait(seen_, short_wait);
    return {};
  }
  result<void> verify() override { return store_->verify(); }

private:
  notice_board& board_;
  std::unique_ptr<store> store_;
  std::uint64_t seen_ = 0;
};

result<commit_answer>
engine_session::commit(const change& what,
                       std::optional<std::uint64_t> expected_generation) {
  constexpr std::int64_t created_at = 1;
  std::vector<commit_operation> operations;
  for (const auto& [id, value] : what.written) {
    CALLBOARD_TRY_ASSIGN(
        auto record,
        make_record(id, created_at, record_of(id, value), meta_fields()));
    operations.push_back({.what = commit_operation::kind::upsert,
                          .id = id,
                          .record = std::move(record),
                          .vector = vector_of(id, value),
                          .drop_epoch = what.drop_epoch});
  }
  for (const auto& id : what.removed)
    operations.push_back({.what = commit_operation::kind::remove,
                          .id = id,
                          .record = {},
                          .vector = {},
                          .drop_epoch = what.drop_epoch});
  CALLBOARD_TRY_ASSIGN(const auto done,
                       store_->commit(operations, expected_generation));
  return commit_answer{done.generation, done.committed, done.discarded};
}

class engine_connection final : public connection {
public:
  explicit engine_connection(std::filesystem::path directory)
      : directory_(std::move(directory)), board_(posix_io()) {}

  result<std::unique_ptr<session>> open(unsigned number) override {
    store_options options;
    options.working_directory = directory_.string();
    options.namespace_name = namespace_of(number);
    options.dimension = torture::vector_dimension;
    options.model = torture::content_embedder().name();
    options.reader_grace = reader_grace;
    CALLBOARD_TRY_ASSIGN(auto opened,
                         store::open(posix_io(), board_, std::move(options)));
    return std::unique_ptr<session>(
        std::make_unique<engine_session>(board_, std::move(opened)));
  }

private:
  std::filesystem::path directory_;
  shared_board board_;
};

class client_session final : public session {
public:
  client_session(runtime& actors, open_options options, client handle)
      : runtime_(actors),
        options_(std::move(options)),
        handle_(std::move(handle)) {}

  result<snapshot_ptr> refresh() override { return handle_.snapshot(); }
  result<commit_answer>
  commit(const change& what,
         std::optional<std::uint64_t> expected_generation) override;
  result<void> forget() override {
    CALLBOARD_TRY_ASSIGN(handle_, runtime_.open(options_));
    return {};
  }
  result<void> checkpoint() override { return handle_.checkpoint(); }
  result<std::uint64_t> drop() override {
    return failure{errc::invalid_argument,
                   "a client does not tell the generation of its drop"};
  }
  result<std::uint64_t> watch() override {
    CALLBOARD_TRY_ASSIGN(events_, handle_.watch());
    newest_event_ = events_->generation();
    return newest_event_;
  }
  result<std::vector<commit_event>> events(std::uint64_t generation) override;
  result<void> wait(std::uint64_t generation) override {
    const auto reached = handle_.await_generation(generation + 1, short_wait);
    if (reached || reached.error().code == errc::timed_out)
      return {};
    return reached.error();
  }
  result<void> verify() override { return handle_.verify(); }

private:
  runtime& runtime_;
  open_options options_;
  client handle_;
  std::optional<subscription> events_;
  std::uint64_t newest_event_ = 0;
};

result<commit_answer>
client_session::commit(const change& what,
                       std::optional<std::uint64_t> expected_generation) {
  std::vector<upsert_item> items;
  for (const auto& [id, value] : what.written)
    items.push_back({.id = id,
                     .record = record_of(id, value),
                     .vector = vector_of(id, value)});
  CALLBOARD_TRY(handle_.upsert(std::move(items)));
  if (!what.removed.empty()) {
    CALLBOARD_TRY(handle_.remove({what.removed.begin(), what.removed.end()}));
  }
  CALLBOARD_TRY_ASSIGN(const auto done, handle_.commit(expected_generation));
  if (!done.failed.empty())
    return done.failed.front().reason;
  return commit_answer{done.generation, done.committed, done.discarded};
}

result<std::vector<commit_event>>
client_session::events(std::uint64_t generation) {
  std::vector<commit_event> out;
  while (events_ && newest_event_ < generation) {
    CALLBOARD_TRY_ASSIGN(auto event, events_->next(patience));
    if (!event)
      return failure{errc::timed_out,
                     "no event came after generation "
                         + std::to_string(newest_event_) + ", but "
                         + std::to_string(generation) + " is visible"};
    newest_event_ = event->generation;
    out.push_back(std::move(*event));
  }
  return out;
}

class client_connection final : public connection {
public:
  client_connection(std::filesystem::path directory,
                    std::unique_ptr<runtime> actors)
      : directory_(std::move(directory)), runtime_(std::move(actors)) {}

  result<std::unique_ptr<session>> open(unsigned store) override {
    open_options options;
    options.working_directory = directory_.string();
    options.namespace_name = namespace_of(store);
    options.model = std::make_shared<torture::content_embedder>();
    options.meta_fields = meta_fields();
    options.reader_grace = reader_grace;
    CALLBOARD_TRY_ASSIGN(auto handle, runtime_->open(options));
    return std::unique_ptr<session>(std::make_unique<client_session>(
        *runtime_, std::move(options), std::move(handle)));
  }

private:
  std::filesystem::path directory_;
  std::unique_ptr<runtime> runtime_;
};

} // namespace

result<std::unique_ptr<connection>>
connect(const std::filesystem::path& directory, access how) {
  if (how == access::engine)
    return std::unique_ptr<connection>(
        std::make_unique<engine_connection>(directory));
  runtime_options options;
  options.io_threads = 2;
  options.search_threads = 1;
  CALLBOARD_TRY_ASSIGN(auto actors, runtime::start(options));
  return std::unique_ptr<connection>(
      std::make_unique<client_connection>(directory, std::move(actors)));
}

} // namespace callboard::history
