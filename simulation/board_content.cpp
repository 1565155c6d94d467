#include "simulation/board_content.hpp"

#include <algorithm>
#include <cstring>
#include <new>
#include <sys/mman.h>

namespace callboard::simulation {

namespace {

using word = board_slot::word;
constexpr std::size_t word_bytes = sizeof(std::uint64_t);
constexpr std::size_t head_words = 9; // and the word by which waiters wake
constexpr std::size_t slot_words = sizeof(board_slot) / word_bytes;
constexpr std::size_t name_words = sizeof(board_name) / word_bytes;
constexpr std::size_t first_slot = offsetof(board_memory, slots) / word_bytes;
constexpr std::size_t first_name = offsetof(board_memory, names) / word_bytes;

const std::uint64_t* words_in(const board_memory& memory) {
  return reinterpret_cast<const std::uint64_t*>(&memory);
}

std::uint64_t* words_in(board_memory& memory) {
  return reinterpret_cast<std::uint64_t*>(&memory);
}

/// Calls `use(first, count)` with the words that may not be zero. Names of
/// slots in which nothing is mean nothing.
template <class Use>
void for_each_used(const board_memory& memory, Use use) {
  use(std::size_t{0}, head_words);
  const auto* words = words_in(memory);
  for (std::size_t i = 0; i < board_slot_count; ++i) {
    const auto* slot = words + first_slot + i * slot_words;
    std::uint64_t any = 0;
    for (std::size_t each = 0; each < slot_words; ++each)
      any |= slot[each];
    if (any == 0)
      continue;
    use(first_slot + i * slot_words, slot_words);
    use(first_name + i * name_words, name_words);
  }
}

/// Pages that nobody touches take no memory, and no time.
board_memory* new_memory() {
  auto* mapped = ::mmap(nullptr, sizeof(board_memory), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED)
    throw std::bad_alloc();
  return static_cast<board_memory*>(mapped);
}

} // namespace

// -- Memory -------------------------------------------------------------------

board_memory_pool::~board_memory_pool() {
  for (auto* each : free_)
    ::munmap(each, sizeof(board_memory));
}

std::shared_ptr<board_memory> board_memory_pool::take() {
  board_memory* out = nullptr;
  {
    const std::lock_guard guard(mutex_);
    if (!free_.empty()) {
      out = free_.back();
      free_.pop_back();
    }
  }
  if (out == nullptr)
    out = new_memory();
  return {out, [pool = shared_from_this()](board_memory* memory) {
            pool->put_back(memory);
          }};
}

void board_memory_pool::put_back(board_memory* memory) {
  for_each_used(*memory, [memory](std::size_t first, std::size_t count) {
    std::fill_n(words_in(*memory) + first, count, 0);
  });
  const std::lock_guard guard(mutex_);
  free_.push_back(memory);
}

// -- Content ------------------------------------------------------------------

board_content::board_content(std::span<const std::byte> file) {
  used_words words;
  file = file.first(std::min(file.size(), sizeof(board_memory)));
  for (std::size_t i = 0; i * word_bytes < file.size(); ++i) {
    const auto bytes = file.subspan(i * word_bytes);
    std::uint64_t value = 0;
    std::memcpy(&value, bytes.data(), std::min(bytes.size(), word_bytes));
    if (value != 0)
      words.emplace_back(i, value);
  }
  kept_ = std::make_shared<const used_words>(std::move(words));
}

board_content::board_content(const board_content& other)
    : kept_(other.mapped_
                ? std::make_shared<const used_words>(words_of(*other.mapped_))
                : other.kept_) {}

board_content::used_words board_content::words_of(const board_memory& memory) {
  used_words out;
  const auto* words = words_in(memory);
  for_each_used(memory, [&](std::size_t first, std::size_t count) {
    for (auto i = first; i < first + count; ++i)
      if (words[i] != 0)
        out.emplace_back(i, words[i]);
  });
  return out;
}

std::shared_ptr<board_memory> board_content::map(board_memory_pool& pool) {
  if (!mapped_) {
    mapped_ = pool.take();
    for (const auto& [i, value] : *kept_)
      words_in(*mapped_)[i] = value;
  }
  return mapped_;
}

std::size_t board_content::read(std::uint64_t offset,
                                std::span<std::byte> into) const {
  if (offset >= sizeof(board_memory))
    return 0;
  const auto first = static_cast<std::size_t>(offset);
  into = into.first(std::min(into.size(), sizeof(board_memory) - first));
  if (mapped_) {
    const auto bytes = std::as_bytes(std::span(mapped_.get(), 1));
    std::ranges::copy(bytes.subspan(first, into.size()), into.begin());
    return into.size();
  }
  std::ranges::fill(into, std::byte{0});
  for (const auto& [i, value] : *kept_) {
    const auto bytes = std::as_bytes(std::span(&value, 1));
    for (std::size_t each = 0; each < bytes.size(); ++each)
      if (const auto place = i * word_bytes + each - first;
          place < into.size()) // of those before it wraps around
        into[place] = bytes[each];
  }
  return into.size();
}

void board_content::write(std::uint64_t offset, std::span<const std::byte> data,
                          board_memory_pool& pool) {
  if (offset >= sizeof(board_memory))
    return;
  const auto place = std::as_writable_bytes(std::span(map(pool).get(), 1))
                         .subspan(static_cast<std::size_t>(offset));
  std::copy_n(data.begin(), std::min(data.size(), place.size()), place.begin());
}

void board_content::lose_power(random_source& random) {
  auto words = mapped_ ? words_of(*mapped_) : *kept_;
  const auto what = random.below(3);
  if (what == 0)
    words.clear();
  if (what == 1)
    for (int i = 0; i < 64; ++i) {
      const auto value = random.bits();
      const auto place =
          random.one_in(8) ? random.below(head_words)
                           : first_slot + random.below(first_name - first_slot);
      words.emplace_back(place, value);
    }
  mapped_.reset();
  kept_ = std::make_shared<const used_words>(std::move(words));
}

} // namespace callboard::simulation
