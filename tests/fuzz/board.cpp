/// A board that anybody may have written. The input changes a sound board, and
/// then uses it: see `apply` and `use`.
#include "ipc/board_page.hpp"
#include "ipc/shared_board.hpp"
#include "tests/fuzz/support.hpp"

#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <optional>
#include <sys/mman.h>
#include <unistd.h>

namespace callboard::fuzz {
namespace {

constexpr std::size_t board_bytes = sizeof(board_memory);
constexpr std::size_t changes_max = 64;
constexpr std::size_t address_count = 4;

/// The second is made anew under the name of the first; the others have names
/// of their own.
store_address address_number(std::size_t number,
                             const std::string& working_directory) {
  store_address out;
  out.id.fill(static_cast<std::byte>(number + 1));
  out.working_directory = working_directory;
  out.workspace = number < 2 ? "" : "workspace";
  out.namespace_name = number < 3 ? "chunks" : "entities";
  return out;
}

/// The board's file, sound when it was made, and a map of it to change it by.
class board_file {
public:
  board_file() {
    auto name =
        (std::filesystem::temp_directory_path() / "callboard-fuzz-XXXXXX")
            .string();
    require(::mkdtemp(name.data()) != nullptr, "there is a directory");
    place_ = name;
    {
      shared_board made(posix_io());
      for (const std::size_t number : {0u, 2u})
        made.attach(address_number(number, place_))->announce(100 + number);
    }
    const auto path = place_ / std::string(board_file_name);
    descriptor_ = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    auto* mapped = ::mmap(nullptr, board_bytes, PROT_READ | PROT_WRITE,
                          MAP_SHARED, descriptor_, 0);
    require(mapped != MAP_FAILED, "the board can be mapped");
    bytes_ = {static_cast<std::byte*>(mapped), board_bytes};
    sound_.assign(bytes_.begin(), bytes_.end());
  }
  board_file(const board_file&) = delete;
  board_file& operator=(const board_file&) = delete;
  ~board_file() {
    ::munmap(bytes_.data(), bytes_.size());
    ::close(descriptor_);
    std::error_code ignored;
    std::filesystem::remove_all(place_, ignored);
  }

  std::string directory() const { return place_.string(); }

  /// Requires, as for `resize`: the file has its whole size.
  std::span<std::byte> bytes() const { return bytes_; }
  std::uint64_t word(std::size_t offset) const {
    return load<std::uint64_t>(bytes_, offset);
  }

  void resize(std::size_t size) {
    require(::ftruncate(descriptor_, static_cast<off_t>(size)) == 0,
            "a file can get any size");
    is_whole_ = size == board_bytes;
  }
  bool is_whole() const { return is_whole_; }

  /// Sound, and of the right size, again.
  void restore() {
    if (!is_whole_) {
      resize(0);
      require(::posix_fallocate(descriptor_, 0, board_bytes) == 0, "room");
      is_whole_ = true;
    }
    std::ranges::copy(sound_, bytes_.begin());
  }

private:
  std::filesystem::path place_;
  int descriptor_ = -1;
  std::span<std::byte> bytes_;
  std::vector<std::byte> sound_;
  bool is_whole_ = true;
};

struct known_store {
  store_address address;
  board_store_keys keys;
  board_name name;
  std::uint64_t hash;

  explicit known_store(store_address of)
      : address(std::move(of)), keys(address.id) {
    name.workspace_bytes = static_cast<std::uint16_t>(address.workspace.size());
    name.namespace_bytes =
        static_cast<std::uint16_t>(address.namespace_name.size());
    const auto text = address.workspace + address.namespace_name;
    text.copy(name.text.data(), text.size());
    hash = std::max<std::uint64_t>(
        1, checksum(std::as_bytes(std::span(&name, 1))));
  }
};

std::size_t slot_offset(std::uint64_t index) {
  return offsetof(board_memory, slots)
         + index % board_slot_count * sizeof(board_slot);
}

std::size_t name_offset(std::uint64_t index) {
  return offsetof(board_memory, names)
         + index % board_slot_count * sizeof(board_name);
}

/// One change: kind (1), store (1), place (2), value (8).
void apply(byte_source& input, board_file& board,
           std::span<const known_store> stores) {
  const auto kind = input.take<std::uint8_t>() % 8;
  const auto& store = stores[input.take<std::uint8_t>() % stores.size()];
  const auto place = input.take<std::uint16_t>();
  const auto value = input.take<std::uint64_t>();
  const auto near = store.hash + place / 8u % 8u;
  const auto field = slot_offset(near) + place % 8u * 8;
  const auto bytes = board.bytes();
  switch (kind) {
  case 0: // the head and the wake word
    store_at(bytes, place % 9u * 8, value);
    break;
  case 1: // a slot where the store may be
    store_at(bytes, field, value);
    break;
  case 2: // a name there
    store_at(bytes, name_offset(near) + place / 64u % 56u * 8, value);
    break;
  case 3: // anywhere
    store_at(bytes, value % (board_bytes / 8) * 8, value);
    break;
  case 4: // a sequence that is the store's own
    store_at(bytes, field, sequence_word(value, store.keys.check_key));
    break;
  case 5: // the store's words, or another's
    store_at(bytes, slot_offset(near), store.hash);
    store_at(bytes, slot_offset(near) + 8,
             stores[value % stores.size()].keys.store_word);
    break;
  case 6: // the store's name
    store_at(bytes, name_offset(near), store.name);
    break;
  default: // all slots around are taken by something
    for (std::uint64_t i = 0; i < place % 64u; ++i)
      store_at(bytes, slot_offset(store.hash + i), value);
    break;
  }
}

/// The sequence in a word, if its check is right.
std::uint64_t confirmed(std::uint64_t word, const board_store_keys& keys) {
  const auto sequence = word >> 16;
  return sequence_word(sequence, keys.check_key) == word ? sequence : 0;
}

struct known_notices {
  std::uint64_t durable = 0;
  std::uint64_t poisoned = 0;
};

/// By docs/design.md, "Board": what the board tells of a store. Empty if it
/// has no slot for it, so that nothing of it is promised.
std::optional<known_notices> expected_notices(const board_file& board,
                                              const board_head& head,
                                              const known_store& store) {
  if (!board.is_whole() || load<board_head>(board.bytes(), 0) != head)
    return std::nullopt;
  for (std::uint64_t step = 0; step < board_slot_count; ++step) {
    const auto slot = slot_offset(store.hash + step);
    const auto hash = board.word(slot);
    if (hash == 0)
      return known_notices{};
    const auto name = board.bytes().subspan(name_offset(store.hash + step),
                                            sizeof(board_name));
    if (hash != store.hash
        || !std::ranges::equal(name, std::as_bytes(std::span(&store.name, 1))))
      continue;
    if (board.word(slot + 8) != store.keys.store_word)
      return known_notices{};
    return known_notices{confirmed(board.word(slot + 16), store.keys),
                         confirmed(board.word(slot + 24), store.keys)};
  }
  return std::nullopt;
}

void require_notices(const store_notices& notices, const known_notices& known) {
  require(notices.durable_sequence() == known.durable,
          "a sequence is shown if and only if its check is right");
  require(notices.poisoned_from().value_or(0) == known.poisoned,
          "a poison is believed if and only if its check is right");
}

/// Announces, poisons and heals; the notices say so.
void use(store_notices& notices, known_notices known, std::uint64_t sequence) {
  const auto kept = std::min(sequence, board_sequence_max);
  notices.announce(sequence);
  known.durable = std::max(known.durable, kept);
  require_notices(notices, known);
  notices.poison(sequence);
  const auto poison = std::max<std::uint64_t>(kept, 1);
  known.poisoned =
      known.poisoned == 0 ? poison : std::min(known.poisoned, poison);
  require_notices(notices, known);
  notices.clear_poison();
  known.poisoned = 0;
  notices.note_base_epoch(sequence);
  require_notices(notices, known);
}

void check_attached(shared_board& board, const board_file& file,
                    const board_head& head, const known_store& store,
                    std::uint64_t sequence) {
  const auto expected = expected_notices(file, head, store);
  const auto notices = board.attach(store.address);
  if (expected) {
    require(notices->covers_all_processes(), "a store with a slot is heard");
    require_notices(*notices, *expected);
    use(*notices, *expected, sequence);
  } else if (notices->covers_all_processes()) {
    require_notices(*notices, {});
    use(*notices, {}, sequence);
  }
  notices->clear_poison();
  board.wait(board.announcements() + 1, {});
}

void check_reading(const board_file& file) {
  const allocation_meter memory;
  const auto entries = read_board(posix_io(), file.directory());
  memory.require_at_most(2, board_bytes, std::size_t{64} << 10);
  if (!entries)
    return;
  require(entries->size() <= board_slot_count, "as many as there are slots");
  for (const auto& each : *entries)
    require(each.workspace.size() + each.namespace_name.size() <= 444,
            "a name is in its slot");
}

std::vector<known_store> stores_of(const board_file& board) {
  std::vector<known_store> out;
  for (std::size_t number = 0; number < address_count; ++number)
    out.emplace_back(address_number(number, board.directory()));
  return out;
}

/// The input: size of the file and whether it is read (4), changes (1), the
/// changes, and then stores to attach (1) and sequences to announce (8).
void check_board(std::span<const std::byte> input) {
  static board_file board;
  static const auto stores = stores_of(board);
  static const auto head = load<board_head>(board.bytes(), 0);
  board.restore();
  byte_source source(input);
  const auto size = source.take<std::uint32_t>();
  const auto changes = source.take<std::uint8_t>() % (changes_max + 1);
  for (std::size_t i = 0; i < changes; ++i)
    apply(source, board, stores);
  if (size % 8 == 7)
    board.resize(size / 8 % (board_bytes + board_bytes / 4));
  if (size % 8 >= 6) // not always: it takes most of the time
    check_reading(board);
  shared_board opened(posix_io());
  while (!source.rest().empty()) {
    const auto& store = stores[source.take<std::uint8_t>() % stores.size()];
    check_attached(opened, board, head, store, source.take<std::uint64_t>());
    if (!board.is_whole())
      break; // it is now, but what is in it is not known
  }
}

} // namespace
} // namespace callboard::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  callboard::fuzz::check_board(callboard::fuzz::as_input(data, size));
  return 0;
}
