#include "tests/fuzz/small_base.hpp"

#include "core/catalog.hpp"
#include "core/index_file.hpp"

#include <array>
#include <optional>

namespace callboard::fuzz {

namespace {

constexpr row_number row_total = 12;

/// The last rows have copies of their vectors in the holes.
constexpr std::pair<row_number, row_number> moves[] = {{11, 2}, {10, 6}};

bool is_hole(row_number row) {
  return std::ranges::any_of(
      moves, [row](const auto& move) { return move.second == row; });
}

/// The row whose vector is stored in `row`.
row_number origin_of(row_number row) {
  for (const auto& [from, to] : moves)
    if (to == row)
      return from;
  return row;
}

class small_source final : public base_source {
public:
  std::size_t row_count() const override { return row_total; }
  std::size_t live_count() const override {
    return row_total - std::size(moves);
  }

  result<std::span<const std::byte>> vector(row_number row) override {
    vector_ = {static_cast<float>(origin_of(row)), 0.5f, -1.0f};
    return std::as_bytes(std::span<const float>(vector_));
  }

  result<std::optional<base_row>> record(row_number row) override {
    if (is_hole(row))
      return std::optional<base_row>();
    id_ = "row-" + std::to_string(row);
    record_ = R"({"__id__": ")" + id_ + R"(", "__created_at__": 1700000000)";
    if (row % 2 == 1)
      record_ += R"(, "src_id": "a", "tgt_id": ")"
                 + std::string(1, static_cast<char>('b' + row % 3)) + '"';
    record_ += R"(, "content": "text"})";
    return std::optional(base_row{id_, record_});
  }

  std::vector<std::pair<row_number, row_number>> planned_moves() override {
    return {std::begin(moves), std::end(moves)};
  }

private:
  std::array<float, small_base::dimension> vector_{};
  std::string id_;
  std::string record_;
};

std::vector<std::byte> bytes_of(const std::string& text) {
  const auto bytes = as_bytes(text);
  return {bytes.begin(), bytes.end()};
}

small_base make() {
  small_base out;
  desk place;
  small_source source;
  store_id store{};
  store.fill(std::byte{0x5a});
  out.descriptor = need(write_base(place.home(), store, small_base::epoch,
                                   small_base::dimension, 0600, source));
  out.index = bytes_of(place.read(base_index_name(small_base::epoch)));
  out.meta = bytes_of(place.read(base_meta_name(small_base::epoch)));
  out.catalog = bytes_of(place.read(base_catalog_name(small_base::epoch)));
  const auto planned = source.planned_moves();
  const auto catalog_with = [&](const decltype(planned)& some) {
    return need(build_catalog(
        out.descriptor,
        std::span<const std::byte>(out.index).subspan(index_header_bytes),
        as_text(out.meta), some));
  };
  out.catalog_without_moves = catalog_with({});
  for (std::size_t i = 0; i < planned.size(); ++i) {
    auto fewer = planned;
    fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(i));
    out.catalogs_less_a_move.push_back(catalog_with(fewer));
  }
  return out;
}

} // namespace

const small_base& small_base::get() {
  static const small_base made = make();
  return made;
}

void small_base::write_to(desk& place) const {
  place.write(base_index_name(epoch), index);
  place.write(base_meta_name(epoch), meta);
  place.write(base_catalog_name(epoch), catalog);
}

} // namespace callboard::fuzz
