#include "core/fold.hpp"

#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <utility>

namespace callboard {

namespace {

using moves = std::vector<std::pair<row_number, row_number>>;

/// Live rows that were committed since the base, in the order of the log.
std::vector<row_number> live_rows_since_base(const snapshot& view) {
  std::vector<row_number> out;
  auto first = view.base_rows().row_count();
  for (auto row = first; row < view.row_count(); ++row)
    if (view.alive().test(static_cast<row_number>(row)))
      out.push_back(static_cast<row_number>(row));
  return out;
}

class no_rows : public base_source {
public:
  std::size_t row_count() const override { return 0; }
  std::size_t live_count() const override { return 0; }
  result<std::span<const std::byte>> vector(row_number) override {
    return failure{errc::invalid_argument, "an empty base has no rows"};
  }
  result<std::optional<base_row>> record(row_number) override {
    return std::optional<base_row>{};
  }
  moves planned_moves() override { return {}; }
};

/// Common part: new row `n` shows the old row `source(n)`.
class view_source : public base_source {
public:
  explicit view_source(snapshot_ptr view) : view_(std::move(view)) {}

  std::size_t live_count() const override { return view_->live_count(); }

protected:
  std::span<const std::byte> unchecked_base_vector(row_number row) const {
    auto bytes = view_->dimension() * sizeof(float);
    return {view_->base_rows().vectors() + row * bytes, bytes};
  }

  result<std::optional<base_row>> record_of(row_number old_row) {
    CALLBOARD_TRY_ASSIGN(auto text, view_->record(old_row));
    return std::optional{base_row{view_->id(old_row), text}};
  }

  snapshot_ptr view_;
};

class extended_rows : public view_source {
public:
  extended_rows(snapshot_ptr view, std::uint64_t row_floor, bool copy)
      : view_source(std::move(view)),
        since_base_(live_rows_since_base(*view_)),
        first_new_(view_->base_rows().row_count()),
        zeros_(view_->dimension() * sizeof(float)) {
    if (!since_base_.empty())
      first_new_ = std::max<std::size_t>(first_new_, row_floor);
    for (auto [from, to] : view_->base_rows().planned_moves())
      if (view_->alive().test(from))
        moves_.emplace_back(from, to);
    if (copy && moves_.empty())
      plan_moves();
  }

  std::size_t row_count() const override {
    return first_new_ + since_base_.size();
  }

  result<std::span<const std::byte>> vector(row_number row) override {
    if (auto copied = copies_.find(row); copied != copies_.end())
      return view_->vector(copied->second);
    if (auto old_row = old_row_of(row))
      return view_->vector(*old_row);
    if (row < view_->base_rows().row_count())
      return unchecked_base_vector(row);
    return std::span<const std::byte>{zeros_};
  }

  result<std::optional<base_row>> record(row_number row) override {
    if (auto old_row = old_row_of(row))
      return record_of(*old_row);
    return std::optional<base_row>{};
  }

  moves planned_moves() override { return moves_; }

private:
  /// Empty: a hole.
  std::optional<row_number> old_row_of(row_number row) const {
    if (row >= first_new_)
      return since_base_[row - first_new_];
    if (row < view_->base_rows().row_count() && view_->alive().test(row))
      return row;
    return std::nullopt;
  }

  /// Pairs the last live rows with the first holes. A hole must be one in the
  /// published meta file, too: else a reader of the new index and the old meta
  /// would see a wrong vector.
  void plan_moves() {
    auto published = view_->base_rows().initial_liveness();
    auto is_hole = [&](row_number row) {
      return !view_->alive().test(row) && !published.test(row);
    };
    auto base_rows = static_cast<row_number>(view_->base_rows().row_count());
    auto from = static_cast<row_number>(row_count());
    row_number to = 0;
    while (from > 0) {
      --from;
      auto old_row = old_row_of(from);
      if (!old_row)
        continue;
      while (to < base_rows && to < from && !is_hole(to))
        ++to;
      if (to >= base_rows || to >= from)
        return;
      moves_.emplace_back(from, to);
      copies_.emplace(to, *old_row);
      ++to;
    }
  }

  std::vector<row_number> since_base_;
  /// The number of the first of them.
  std::size_t first_new_;
  std::vector<std::byte> zeros_;
  moves moves_;
  /// Hole -> old row whose vector is written there.
  std::unordered_map<row_number, row_number> copies_;
};

class relocated_rows : public view_source {
public:
  explicit relocated_rows(snapshot_ptr view) : view_source(std::move(view)) {
    for (auto [from, to] : view_->base_rows().planned_moves())
      if (view_->alive().test(from) && same_vector(from, to)) {
        old_rows_.emplace(to, from);
        moved_.emplace(from, to);
      }
    view_->for_each_row([&](row_number row) {
      auto moved = moved_.find(row);
      auto place = moved == moved_.end() ? row : moved->second;
      row_count_ = std::max<std::size_t>(row_count_, place + std::size_t{1});
      return true;
    });
  }

  std::size_t row_count() const override { return row_count_; }

  result<std::span<const std::byte>> vector(row_number row) override {
    if (auto old_row = old_row_of(row))
      return view_->vector(*old_row);
    return unchecked_base_vector(row);
  }

  result<std::optional<base_row>> record(row_number row) override {
    if (auto old_row = old_row_of(row))
      return record_of(*old_row);
    return std::optional<base_row>{};
  }

  moves planned_moves() override { return {}; }

private:
  /// Empty: a hole.
  std::optional<row_number> old_row_of(row_number row) const {
    if (auto moved = old_rows_.find(row); moved != old_rows_.end())
      return moved->second;
    if (!view_->alive().test(row) || moved_.contains(row))
      return std::nullopt;
    return row;
  }

  bool same_vector(row_number left, row_number right) const {
    auto bytes = unchecked_base_vector(left);
    return std::memcmp(bytes.data(), unchecked_base_vector(right).data(),
                       bytes.size())
           == 0;
  }

  std::size_t row_count_ = 0;
  /// New place -> old row, and back.
  std::unordered_map<row_number, row_number> old_rows_;
  std::unordered_map<row_number, row_number> moved_;
};

} // namespace

fold_outlook look_ahead(const snapshot& view) {
  fold_outlook out;
  auto since_base = live_rows_since_base(view).size();
  out.row_count = view.base_rows().row_count() + since_base;
  out.hole_count = out.row_count - view.live_count();
  out.rows_since_base = since_base > 0;
  return out;
}

std::unique_ptr<base_source> fold(snapshot_ptr view, fold_kind kind,
                                  std::uint64_t row_floor) {
  switch (kind) {
  case fold_kind::clear:
    return std::make_unique<no_rows>();
  case fold_kind::relocate:
    return std::make_unique<relocated_rows>(std::move(view));
  case fold_kind::extend_and_copy:
    return std::make_unique<extended_rows>(std::move(view), row_floor, true);
  case fold_kind::extend:
    break;
  }
  return std::make_unique<extended_rows>(std::move(view), row_floor, false);
}

} // namespace callboard
