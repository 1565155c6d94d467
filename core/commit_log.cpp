#include "core/commit_log.hpp"

#include "core/bytes.hpp"
#include "core/record.hpp"

#include <algorithm>
#include <array>
#include <limits>

namespace callboard {

namespace {

constexpr std::string_view log_magic = "CBLOGFL1";
constexpr std::string_view frame_magic = "CBFR";
constexpr std::uint32_t version = 1;
constexpr std::size_t operation_header_bytes = 8;
constexpr std::size_t scan_bytes = std::size_t{1} << 20;

struct frame_header {
  std::uint32_t type = 0;
  std::uint64_t payload_bytes = 0;
  std::uint64_t sequence = 0;
  std::uint64_t fence = 0;
  std::uint64_t link = 0;
  std::uint64_t payload_checksum = 0;
  std::uint32_t operation_count = 0;
  std::uint64_t header_checksum = 0;
};

std::array<std::byte, frame_header_bytes>
encode_frame_header(frame_header& header, std::uint64_t salt) {
  std::array<std::byte, frame_header_bytes> out{};
  std::ranges::copy(as_bytes(frame_magic), out.begin());
  store_at(out, 4, header.type);
  store_at(out, 8, header.payload_bytes);
  store_at(out, 16, header.sequence);
  store_at(out, 24, header.fence);
  store_at(out, 32, header.link);
  store_at(out, 40, header.payload_checksum);
  store_at(out, 48, header.operation_count);
  header.header_checksum = checksum(std::span{out}.first(56), salt);
  store_at(out, 56, header.header_checksum);
  return out;
}

/// Empty if the bytes are no valid header of this log.
std::optional<frame_header>
decode_frame_header(std::span<const std::byte> bytes, std::uint64_t salt) {
  if (bytes.size() < frame_header_bytes
      || as_text(bytes.first(frame_magic.size())) != frame_magic)
    return std::nullopt;
  frame_header header;
  header.type = load<std::uint32_t>(bytes, 4);
  header.payload_bytes = load<std::uint64_t>(bytes, 8);
  header.sequence = load<std::uint64_t>(bytes, 16);
  header.fence = load<std::uint64_t>(bytes, 24);
  header.link = load<std::uint64_t>(bytes, 32);
  header.payload_checksum = load<std::uint64_t>(bytes, 40);
  header.operation_count = load<std::uint32_t>(bytes, 48);
  header.header_checksum = load<std::uint64_t>(bytes, 56);
  if (header.header_checksum != checksum(bytes.first(56), salt)
      || header.payload_bytes > commit_bytes_max)
    return std::nullopt;
  return header;
}

failure damaged_log(const std::string& path, std::string_view what) {
  return {errc::corrupt,
          path + ": " + std::string{what}
              + "; the store was not touched: restore it from a backup, or "
                "open it with salvage to cut the log there"};
}

/// Takes `count` bytes off the front of `rest`, or fails.
result<std::span<const std::byte>> take(std::span<const std::byte>& rest,
                                        std::size_t count) {
  if (count > rest.size())
    return failure{errc::corrupt, "an operation is longer than its frame"};
  auto taken = rest.first(count);
  rest = rest.subspan(count);
  return taken;
}

} // namespace

std::string log_name(std::uint64_t epoch) {
  return "log-" + std::to_string(epoch);
}

void encode_operation(const commit_operation& operation,
                      std::vector<std::byte>& payload) {
  append_value(payload, operation.what);
  append_value(payload, std::uint8_t{0});
  append_value(payload, static_cast<std::uint16_t>(operation.id.size()));
  append_value(payload, static_cast<std::uint32_t>(operation.record.size()));
  append_bytes(payload, as_bytes(operation.id));
  append_bytes(payload, as_bytes(operation.record));
  pad_to(payload, 4);
  append_bytes(payload, std::as_bytes(std::span{operation.vector}));
}

result<void>
for_each_operation(const frame& transaction, std::uint32_t dimension,
                   const std::function<void(const operation_view&)>& visit) {
  auto rest = std::span<const std::byte>{transaction.payload};
  for (std::uint32_t i = 0; i < transaction.operation_count; ++i) {
    CALLBOARD_TRY_ASSIGN(auto head, take(rest, operation_header_bytes));
    auto kind = load<std::uint8_t>(head, 0);
    auto id_bytes = load<std::uint16_t>(head, 2);
    auto record_bytes = load<std::uint32_t>(head, 4);
    if (kind != 1 && kind != 2)
      return failure{errc::corrupt, "an operation of an unknown kind"};
    operation_view view;
    view.what = static_cast<commit_operation::kind>(kind);
    CALLBOARD_TRY_ASSIGN(auto id, take(rest, id_bytes));
    CALLBOARD_TRY_ASSIGN(auto record, take(rest, record_bytes));
    auto used = operation_header_bytes + id_bytes + record_bytes;
    CALLBOARD_TRY(take(rest, round_up(used, 4) - used));
    view.id = as_text(id);
    view.record = as_text(record);
    if (view.what == commit_operation::kind::upsert) {
      CALLBOARD_TRY_ASSIGN(view.vector, take(rest, dimension * sizeof(float)));
    }
    visit(view);
  }
  if (!rest.empty())
    return failure{errc::corrupt, "a frame is longer than its operations"};
  return {};
}

result<void> log_cursor::create(directory& home, std::uint64_t epoch,
                                std::uint64_t base_sequence, std::uint64_t salt,
                                std::uint32_t dimension) {
  std::array<std::byte, log_header_bytes> header{};
  std::ranges::copy(as_bytes(log_magic), header.begin());
  store_at(header, 8, version);
  store_at(header, 12, static_cast<std::uint32_t>(log_header_bytes));
  store_at(header, 16, epoch);
  store_at(header, 24, base_sequence);
  store_at(header, 32, salt);
  store_at(header, 40, dimension);
  store_at(header, 56, checksum(std::span{header}.first(56)));
  CALLBOARD_TRY_ASSIGN(
      auto log, home.open_file(log_name(epoch), open_mode::create_empty));
  CALLBOARD_TRY(log->append(0, header));
  return log->sync();
}

result<log_cursor> log_cursor::open(const directory& home, std::uint64_t epoch,
                                    std::uint32_t dimension) {
  auto name = log_name(epoch);
  auto path = home.path() + "/" + name;
  log_cursor log;
  CALLBOARD_TRY_ASSIGN(log.file_, home.open_file(name, open_mode::read_write));
  std::array<std::byte, log_header_bytes> header{};
  CALLBOARD_TRY_ASSIGN(auto count, log.file_->read_at(0, header));
  auto link = load<std::uint64_t>(header, 56);
  if (count != header.size()
      || as_text(std::span{header}.first(log_magic.size())) != log_magic
      || link != checksum(std::span{header}.first(56)))
    return damaged_log(path, "the header is damaged");
  if (load<std::uint32_t>(header, 8) != version)
    return failure{errc::unsupported_format,
                   path + ": written by a newer version of callboard"};
  if (load<std::uint64_t>(header, 16) != epoch
      || load<std::uint32_t>(header, 40) != dimension)
    return damaged_log(path, "the header is that of another log");
  log.path_ = std::move(path);
  log.epoch_ = epoch;
  log.base_sequence_ = load<std::uint64_t>(header, 24);
  log.salt_ = load<std::uint64_t>(header, 32);
  log.sequence_ = log.base_sequence_;
  log.offset_ = log_header_bytes;
  log.link_ = link;
  return log;
}

result<std::uint64_t> log_cursor::file_bytes() const {
  CALLBOARD_TRY_ASSIGN(auto status, file_->status());
  return status.size_bytes;
}

result<std::optional<frame>> log_cursor::next() {
  std::array<std::byte, frame_header_bytes> bytes{};
  CALLBOARD_TRY_ASSIGN(auto count, file_->read_at(offset_, bytes));
  auto header = decode_frame_header(std::span{bytes}.first(count), salt_);
  if (!header || header->sequence != sequence_ + 1 || header->link != link_)
    return std::optional<frame>{};
  CALLBOARD_TRY_ASSIGN(auto size, file_bytes());
  auto stored = round_up(header->payload_bytes, 8);
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
  if (out.type != frame_type::commit && out.type != frame_type::drop)
    return failure{errc::unsupported_format,
                   path_
                       + ": a frame of an unknown type: written by a newer "
                         "version of callboard"};
  offset_ += frame_header_bytes + stored;
  sequence_ = header->sequence;
  link_ = header->header_checksum;
  return std::optional{std::move(out)};
}

result<bool> log_cursor::valid_frame_follows() const {
  CALLBOARD_TRY_ASSIGN(auto size, file_bytes());
  std::vector<std::byte> window(scan_bytes + frame_header_bytes);
  for (auto start = offset_; start < size; start += scan_bytes) {
    CALLBOARD_TRY_ASSIGN(auto count, file_->read_at(start, window));
    auto bytes = std::span<const std::byte>{window}.first(count);
    for (std::size_t i = 0;
         i < scan_bytes && i + frame_header_bytes <= bytes.size(); i += 8) {
      auto header = decode_frame_header(bytes.subspan(i), salt_);
      if (header && header->sequence > sequence_ + 1)
        return true;
    }
  }
  return false;
}

result<void> log_cursor::append(frame_type type, std::uint64_t fence,
                                std::uint32_t operation_count,
                                std::span<const std::byte> payload) {
  frame_header header;
  header.type = static_cast<std::uint32_t>(type);
  header.payload_bytes = payload.size();
  header.sequence = sequence_ + 1;
  header.fence = fence;
  header.link = link_;
  header.payload_checksum = checksum(payload, salt_);
  header.operation_count = operation_count;
  std::vector<std::byte> out;
  out.reserve(frame_header_bytes + round_up(payload.size(), 8));
  append_bytes(out, encode_frame_header(header, salt_));
  append_bytes(out, payload);
  pad_to(out, 8);
  CALLBOARD_TRY(file_->append(offset_, out));
  offset_ += out.size();
  sequence_ = header.sequence;
  link_ = header.header_checksum;
  return {};
}

result<void> log_cursor::cut(std::uint64_t offset) {
  return file_->truncate(offset);
}

result<void> log_cursor::sync() {
  return file_->sync_data();
}

result<void> log_cursor::copy_tail(directory& home,
                                   std::string_view name) const {
  CALLBOARD_TRY_ASSIGN(auto copy,
                       home.open_file(name, open_mode::create_empty));
  CALLBOARD_TRY_ASSIGN(auto size, file_bytes());
  std::vector<std::byte> buffer(scan_bytes);
  for (auto from = offset_; from < size;) {
    CALLBOARD_TRY_ASSIGN(auto count, file_->read_at(from, buffer));
    if (count == 0)
      break;
    CALLBOARD_TRY(copy->append(from - offset_, std::span{buffer}.first(count)));
    from += count;
  }
  CALLBOARD_TRY(copy->sync());
  return home.sync();
}

} // namespace callboard
