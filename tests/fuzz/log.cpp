/// A log that anybody may have written: which of its frames are believed.
/// The input is the file.
#include "core/commit_log.hpp"
#include "core/index_file.hpp"
#include "tests/fuzz/support.hpp"

#include <optional>

namespace callboard::fuzz {
namespace {

constexpr std::size_t sealed_bytes = 56; // of either kind of header
constexpr std::size_t window_bytes = std::size_t{1} << 20;

using bytes_view = std::span<const std::byte>;

std::uint64_t word(bytes_view bytes, std::size_t offset) {
  return load<std::uint64_t>(bytes, offset);
}

/// A second opinion on frames, by docs/design.md, "Log".
struct expectation {
  bytes_view log;
  std::uint64_t salt;
  std::uint64_t offset = log_header_bytes;
  std::uint64_t sequence;
  std::uint64_t link;

  explicit expectation(bytes_view from)
      : log(from),
        salt(word(from, 32)),
        sequence(word(from, 24)),
        link(word(from, 56)) {}

  bool is_header(std::uint64_t at) const {
    if (at > log.size() || log.size() - at < frame_header_bytes)
      return false;
    const auto header = log.subspan(at, frame_header_bytes);
    return as_text(header.first(4)) == "CBFR"
           && word(header, 56) == checksum(header.first(sealed_bytes), salt)
           && word(header, 8) <= commit_bytes_max;
  }

  /// The payload of the frame at the position.
  std::optional<bytes_view> frame() const {
    if (!is_header(offset))
      return std::nullopt;
    const auto header = log.subspan(offset, frame_header_bytes);
    const auto size = word(header, 8);
    const auto rest = log.subspan(offset + frame_header_bytes);
    if (word(header, 16) != sequence + 1 || word(header, 32) != link
        || round_up(size, 8) > rest.size()
        || checksum(rest.first(size), salt) != word(header, 40))
      return std::nullopt;
    return rest.first(size);
  }

  void step(bytes_view payload) {
    link = word(log, offset + sealed_bytes);
    offset += frame_header_bytes + round_up(payload.size(), 8);
    ++sequence;
  }

  bool frame_follows() const {
    for (auto at = offset; at < log.size(); at += 8)
      if (is_header(at) && word(log, at + 16) > sequence + 1)
        return true;
    return false;
  }
};

bool is_inside(bytes_view part, bytes_view whole) {
  return part.empty()
         || (part.data() >= whole.data()
             && part.data() + part.size() <= whole.data() + whole.size());
}

void check_operations(const frame& read, std::uint32_t dimension) {
  std::uint32_t count = 0;
  const auto visit = [&](const operation_view& each) {
    ++count;
    require(is_inside(as_bytes(each.id), read.payload)
                && is_inside(as_bytes(each.record), read.payload)
                && is_inside(each.vector, read.payload),
            "an operation is a part of its frame");
    const auto floats =
        each.what == commit_operation::kind::upsert ? dimension : 0;
    require(each.vector.size() == floats * sizeof(float),
            "an upsert has a vector, a removal none");
  };
  const auto visited = for_each_operation(read, dimension, visit);
  require(!visited || count == read.operation_count,
          "a frame has as many operations as it says");
}

/// Reads all frames. False: the log is refused half way.
bool read_all(log_cursor& cursor, expectation& expected,
              std::uint32_t dimension) {
  for (;;) {
    const auto payload = expected.frame();
    const auto read = cursor.next();
    if (!read) {
      require(payload.has_value(), "only what is sealed can be refused");
      return false;
    }
    require(read->has_value() == payload.has_value(),
            "a frame is read if and only if its checksums are right");
    if (!payload)
      return true;
    require(std::ranges::equal((*read)->payload, *payload),
            "a frame is read as it was written");
    expected.step(*payload);
    require(cursor.offset() == expected.offset
                && cursor.sequence() == expected.sequence,
            "the position is behind the frame");
    check_operations(**read, dimension);
  }
}

/// What a writer does with a torn tail, and then a commit.
void check_appending(desk& place, log_cursor& cursor, std::uint64_t epoch,
                     std::uint32_t dimension) {
  const auto before = cursor.where();
  need(cursor.cut(before.offset));
  need(cursor.append(frame_type::drop, 7, 0, {}));
  auto again = need(log_cursor::open(place.home(), epoch, dimension));
  std::optional<frame> last;
  while (auto read = need(again.next()))
    last = std::move(read);
  require(last && last->sequence == before.sequence + 1 && last->fence == 7,
          "what is appended behind a cut is read");
  require(again.offset() == cursor.offset(), "and nothing behind it");
}

void check_log(bytes_view input) {
  std::uint64_t epoch = 1;
  std::uint32_t dimension = 3;
  if (input.size() >= log_header_bytes) {
    epoch = word(input, 16);
    const auto claimed = load<std::uint32_t>(input, 40);
    dimension = claimed <= dimension_max ? claimed : dimension;
  }
  desk place;
  place.write(log_name(epoch), input);
  const allocation_meter memory;
  auto cursor = log_cursor::open(place.home(), epoch, dimension);
  if (!cursor)
    return;
  require(word(input, 56) == checksum(input.first(sealed_bytes)),
          "a log is opened only if its header's checksum is right");
  expectation expected(input);
  if (!read_all(*cursor, expected, dimension))
    return;
  require(need(cursor->valid_frame_follows()) == expected.frame_follows(),
          "damage is told from a torn tail");
  memory.require_at_most(2, input.size(), 2 * window_bytes);
  if (expected.sequence < std::uint64_t{0} - 2)
    check_appending(place, *cursor, epoch, dimension);
}

/// Makes the checksums of `log` right, and mostly its lengths, links and
/// sequences, too.
void seal(std::span<std::byte> log, std::minstd_rand& random) {
  if (log.size() < log_header_bytes)
    return;
  const auto mostly = [&] { return random() % 16 != 0; };
  std::ranges::copy(as_bytes("CBLOGFL1"), log.begin());
  store_at(log, 8, std::uint32_t{1});
  store_at(log, 12, std::uint32_t{log_header_bytes});
  auto link = checksum(log.first(sealed_bytes));
  store_at(log, sealed_bytes, link);
  const auto salt = word(log, 32);
  auto sequence = word(log, 24);
  for (auto rest = log.subspan(log_header_bytes);
       rest.size() >= frame_header_bytes;) {
    const auto header = rest.first(frame_header_bytes);
    rest = rest.subspan(frame_header_bytes);
    const auto room = rest.size() / 8 * 8;
    auto size = std::min<std::uint64_t>(word(header, 8), room);
    if (!mostly())
      size -= std::min<std::uint64_t>(size, random() % 4);
    ++sequence;
    std::ranges::copy(as_bytes("CBFR"), header.begin());
    if (mostly())
      store_at(header, 8, size);
    if (mostly())
      store_at(header, 16, sequence);
    if (mostly())
      store_at(header, 32, link);
    store_at(header, 40, checksum(rest.first(size), salt));
    link = checksum(header.first(sealed_bytes), salt);
    store_at(header, sealed_bytes, link);
    rest = rest.subspan(round_up(size, 8));
  }
}

} // namespace
} // namespace callboard::fuzz

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data,
                                               std::size_t size,
                                               std::size_t max_size,
                                               unsigned seed) {
  using namespace callboard::fuzz;
  std::minstd_rand random(seed);
  size = LLVMFuzzerMutate(data, size, max_size);
  if (random() % 8 != 0)
    seal(as_output(data, size), random);
  // Damage in a log that is sound else.
  if (random() % 4 == 0 && size > 0)
    data[random() % size] ^= static_cast<std::uint8_t>(1u << random() % 8);
  return size;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  callboard::fuzz::check_log(callboard::fuzz::as_input(data, size));
  return 0;
}
