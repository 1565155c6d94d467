#include "core/snapshot.hpp"

#include "core/record.hpp"

#include <algorithm>
#include <bit>
#include <string>
#include <utility>

namespace callboard {

snapshot::snapshot(std::shared_ptr<const base> base_rows,
                   std::shared_ptr<const delta> rows, std::size_t delta_rows,
                   liveness alive, std::uint64_t generation,
                   std::uint64_t drop_epoch)
    : base_(std::move(base_rows)),
      delta_(std::move(rows)),
      delta_blocks_(delta_->blocks()),
      delta_rows_(delta_rows),
      alive_(std::move(alive)),
      generation_(generation),
      drop_epoch_(drop_epoch) {}

std::optional<row_number> snapshot::find(std::string_view id) const {
  auto row = std::optional<row_number>{};
  if (auto found = delta_->find(id, delta_rows_))
    row = static_cast<row_number>(base_->row_count() + *found);
  else
    row = base_->find(id);
  if (!row || !alive_.test(*row))
    return std::nullopt;
  return row;
}

std::string_view snapshot::id(row_number row) const noexcept {
  if (in_base(row))
    return base_->id(row);
  return delta::row_in(*delta_blocks_,
                       static_cast<row_number>(row - base_->row_count()))
      .id;
}

result<std::string_view> snapshot::record(row_number row) const {
  if (in_base(row))
    return base_->record(row);
  return std::string_view{
      delta::row_in(*delta_blocks_,
                    static_cast<row_number>(row - base_->row_count()))
          .record};
}

result<std::span<const std::byte>> snapshot::vector(row_number row) const {
  if (in_base(row))
    return base_->vector(row);
  auto number = static_cast<row_number>(row - base_->row_count());
  return std::span{delta::vector_in(*delta_blocks_, number, dimension()),
                   dimension() * sizeof(float)};
}

std::vector<row_block> snapshot::blocks() const {
  std::vector<row_block> out;
  if (base_->row_count() > 0)
    out.push_back({base_->vectors(), 0, base_->row_count()});
  for (const auto& block : *delta_blocks_) {
    if (block->first >= delta_rows_)
      break;
    auto count = std::min(block->capacity, delta_rows_ - block->first);
    auto first = static_cast<row_number>(base_->row_count() + block->first);
    out.push_back({block->vectors, first, count});
  }
  return out;
}

void snapshot::for_each_row(
    const std::function<bool(row_number)>& visit) const {
  for (std::size_t first = 0; first < row_count();
       first += liveness::chunk_rows) {
    const auto* words = alive_.words(first / liveness::chunk_rows);
    if (words == nullptr)
      continue;
    for (std::size_t i = 0; i < liveness::chunk_words; ++i)
      for (auto word = words[i]; word != 0; word &= word - 1) {
        auto bit = static_cast<std::size_t>(std::countr_zero(word));
        if (!visit(static_cast<row_number>(first + i * 64 + bit)))
          return;
      }
  }
}

result<std::vector<row_number>>
snapshot::rows_with(indexed_field field, std::string_view value) const {
  std::vector<row_number> candidates;
  auto keep = [&](row_number row) {
    if (alive_.test(row))
      candidates.push_back(row);
  };
  base_->for_each_posting(field, value, keep);
  delta_->for_each_posting(field, value, delta_rows_, [&](row_number row) {
    keep(static_cast<row_number>(base_->row_count() + row));
  });
  std::vector<row_number> out;
  auto name = indexed_field_names[static_cast<std::size_t>(field)];
  for (auto row : candidates) {
    CALLBOARD_TRY_ASSIGN(auto text, record(row));
    if (string_member(text, name) == value)
      out.push_back(row);
  }
  return out;
}

snapshot_ptr snapshot::without(std::span<const std::string> ids) const {
  auto copy = std::shared_ptr<snapshot>(new snapshot(*this));
  for (const auto& id : ids)
    if (auto row = copy->find(id))
      copy->alive_.clear(*row);
  return copy;
}

} // namespace callboard
