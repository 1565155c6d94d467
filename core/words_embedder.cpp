#include "core/words_embedder.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <thread>
#include <xxhash.h>

namespace callboard {

namespace {

// All of these are part of the format: never change.
constexpr std::uint64_t word_seed = 0;
constexpr std::uint64_t pair_seed = 1;
constexpr std::uint64_t golden_ratio = 0x9E3779B97F4A7C15;
constexpr std::size_t places = 8;
constexpr std::size_t word_length_max = 6;
constexpr unsigned fraction_bits = 16;

constexpr std::string_view table_magic = "cbwords\n";
constexpr std::uint32_t table_version = 1;
constexpr std::size_t table_header_bytes = 24;
constexpr std::size_t table_entry_bytes = 12;
constexpr std::size_t table_checksum_bytes = 8;
constexpr std::size_t table_bytes_max =
    table_header_bytes + table_entry_bytes * word_frequencies::words_max
    + table_checksum_bytes;

/// Hashes waiting to be counted, 32 MB; counting them is one pass over the
/// table.
constexpr std::size_t pending_max = 4'000'000;

template <class Integer>
void put(std::string& out, Integer value) {
  for (std::size_t i = 0; i < sizeof(Integer); ++i)
    out.push_back(static_cast<char>(static_cast<unsigned char>(
        static_cast<std::uint64_t>(value) >> (8 * i))));
}

template <class Integer>
Integer get(std::string_view bytes, std::size_t offset) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < sizeof(Integer); ++i)
    value |= std::uint64_t{static_cast<unsigned char>(bytes[offset + i])}
             << (8 * i);
  return static_cast<Integer>(value);
}

enum class character_class { separator, letter, word_of_its_own };

struct character {
  std::size_t bytes = 1;
  character_class kind = character_class::letter;
};

character classify_three_bytes(unsigned char first, unsigned char second,
                               unsigned char third) noexcept {
  using enum character_class;
  if (first == 0xE2 && (second == 0x80 || second == 0x81))
    return {3, separator}; // U+2000-207F
  if (first == 0xE3 && second == 0x80)
    return {3, separator}; // U+3000-303F
  if (first == 0xEF && second == 0xBC
      && ((third >= 0x81 && third <= 0x8F) || (third >= 0x9A && third <= 0xA0)))
    return {3, separator}; // full-width ! to / and : to @
  if ((first == 0xE3 && second > 0x80) || (first >= 0xE4 && first <= 0xE9))
    return {3, word_of_its_own}; // U+3040-9FFF
  return {3, letter};
}

/// The character at the begin of `text`, which is not empty. Bytes that are
/// not UTF-8 are letters.
character classify(std::string_view text) noexcept {
  using enum character_class;
  auto at = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto first = at(0);
  if (first < 0x80) {
    const auto lower = first | 0x20;
    const bool is_letter =
        (lower >= 'a' && lower <= 'z') || (first >= '0' && first <= '9');
    return {1, is_letter ? letter : separator};
  }
  if (first == 0xC2 && text.size() >= 2)
    return {2, separator}; // U+0080-00BF
  if (first >= 0xE0 && first < 0xF0 && text.size() >= 3)
    return classify_three_bytes(first, at(1), at(2));
  if (first == 0xF0 && text.size() >= 4 && at(1) >= 0xA0)
    return {4, word_of_its_own}; // U+20000-3FFFF
  return {1, letter};
}

struct word {
  std::uint64_t hash = 0;
  std::size_t length_bytes = 0;
};

/// Calls `visit(word)` for each word of `text`, in order.
template <class Visitor>
void for_each_word(std::string_view text, Visitor&& visit) {
  std::string current;
  auto finish = [&] {
    if (current.empty())
      return;
    visit(word{XXH3_64bits_withSeed(current.data(), current.size(), word_seed),
               current.size()});
    current.clear();
  };
  for (std::size_t offset = 0; offset < text.size();) {
    const auto next = classify(text.substr(offset));
    if (next.kind != character_class::letter)
      finish();
    if (next.kind != character_class::separator)
      for (auto byte : text.substr(offset, next.bytes))
        current.push_back(byte >= 'A' && byte <= 'Z'
                              ? static_cast<char>(byte - 'A' + 'a')
                              : byte);
    if (next.kind == character_class::word_of_its_own)
      finish();
    offset += next.bytes;
  }
  finish();
}

std::uint64_t hash_of_pair(std::uint64_t first, std::uint64_t second) {
  std::array<unsigned char, 16> bytes;
  for (unsigned i = 0; i < 8; ++i) {
    bytes[i] = static_cast<unsigned char>(first >> (8 * i));
    bytes[i + 8] = static_cast<unsigned char>(second >> (8 * i));
  }
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), pair_seed);
}

/// log2 of `value`, at least 1, in 1/65536, rounded down. In integers, because
/// libraries' logarithms differ in the last bits.
std::uint32_t fixed_log2(std::uint64_t value) noexcept {
  const auto exponent = static_cast<unsigned>(std::bit_width(value)) - 1;
  auto mantissa = (value << (63 - exponent)) >> 32; // [2^31, 2^32)
  std::uint32_t out = exponent;
  for (unsigned i = 0; i < fraction_bits; ++i) {
    mantissa = (mantissa * mantissa) >> 31;
    const auto bit = static_cast<std::uint32_t>(mantissa >> 32);
    mantissa >>= bit;
    out = out << 1 | bit;
  }
  return out;
}

std::uint32_t rarity(std::uint64_t documents_with_it,
                     std::uint64_t documents) noexcept {
  // At least one document: an empty table must not make all weights zero.
  const auto all = std::max<std::uint64_t>(documents, 1);
  return fixed_log2(all + documents_with_it + 1)
         - fixed_log2(documents_with_it + 1);
}

/// `weight` times the square root of `count`. IEEE 754 defines the root to the
/// last bit, so this too is the same everywhere.
std::uint64_t damped(std::uint64_t weight, std::uint64_t count) noexcept {
  if (count == 1)
    return weight;
  const auto root = static_cast<std::uint64_t>(
      std::sqrt(static_cast<double>(count)) * (1u << fraction_bits));
  return (weight * root) >> fraction_bits;
}

std::string checksum_digits(std::uint64_t checksum) {
  std::string out;
  for (int shift = 28; shift >= 0; shift -= 4)
    out.push_back("0123456789abcdef"[checksum >> shift & 15]);
  return out;
}

/// Checks sizes and checksum of a table of frequencies; the number of words.
result<std::size_t> check_table(std::string_view bytes,
                                std::string_view where) {
  auto damaged = [&](std::string_view what) {
    return failure{errc::corrupt, "The word frequencies in "
                                      + std::string(where)
                                      + " are damaged: " + std::string(what)
                                      + ". Train them again."};
  };
  if (bytes.size() < table_header_bytes + table_checksum_bytes
      || !bytes.starts_with(table_magic))
    return damaged("this is no such file");
  if (const auto version = get<std::uint32_t>(bytes, 8);
      version != table_version)
    return failure{errc::unsupported_format,
                   "The word frequencies in " + std::string(where)
                       + " have format version " + std::to_string(version)
                       + "; this program reads version 1."};
  const std::size_t count = get<std::uint32_t>(bytes, 12);
  if (count > word_frequencies::words_max
      || bytes.size() - table_header_bytes - table_checksum_bytes
             != count * table_entry_bytes)
    return damaged("its size is wrong");
  const auto content = bytes.size() - table_checksum_bytes;
  if (XXH3_64bits(bytes.data(), content) != get<std::uint64_t>(bytes, content))
    return damaged("its checksum is wrong");
  return count;
}

} // namespace

// -- word_frequencies --------------------------------------------------------

void word_frequencies::add(std::string_view text) {
  const auto first = pending_.size();
  for_each_word(text, [&](const word& w) { pending_.push_back(w.hash); });
  const auto begin = pending_.begin() + static_cast<std::ptrdiff_t>(first);
  std::sort(begin, pending_.end());
  pending_.erase(std::unique(begin, pending_.end()), pending_.end());
  ++document_count_;
  if (pending_.size() < pending_max)
    return;
  entries_ = keep_most_frequent(merged(), words_tracked_max);
  pending_.clear();
}

std::vector<word_frequencies::entry> word_frequencies::merged() const {
  auto hashes = pending_;
  std::sort(hashes.begin(), hashes.end());
  std::vector<entry> out;
  out.reserve(entries_.size() + hashes.size());
  auto old = entries_.begin();
  for (auto hash = hashes.begin(); hash != hashes.end();) {
    for (; old != entries_.end() && old->hash < *hash; ++old)
      out.push_back(*old);
    const auto end = std::upper_bound(hash, hashes.end(), *hash);
    auto documents = static_cast<std::uint64_t>(end - hash);
    if (old != entries_.end() && old->hash == *hash)
      documents += (old++)->documents;
    constexpr std::uint64_t most = std::numeric_limits<std::uint32_t>::max();
    out.push_back(
        {*hash, static_cast<std::uint32_t>(std::min(documents, most))});
    hash = end;
  }
  out.insert(out.end(), old, entries_.end());
  return out;
}

std::vector<word_frequencies::entry>
word_frequencies::keep_most_frequent(std::vector<entry> entries,
                                     std::size_t count) {
  if (entries.size() <= count)
    return entries;
  auto more_frequent = [](const entry& a, const entry& b) {
    return a.documents != b.documents ? a.documents > b.documents
                                      : a.hash < b.hash;
  };
  std::nth_element(entries.begin(),
                   entries.begin() + static_cast<std::ptrdiff_t>(count),
                   entries.end(), more_frequent);
  entries.resize(count);
  std::sort(entries.begin(), entries.end(),
            [](const entry& a, const entry& b) { return a.hash < b.hash; });
  return entries;
}

std::vector<word_frequencies::entry> word_frequencies::significant() const {
  auto entries = merged();
  std::erase_if(entries,
                [](const entry& e) { return e.documents < documents_min; });
  return keep_most_frequent(std::move(entries), words_max);
}

std::string word_frequencies::encode() const {
  const auto entries = significant();
  std::string out(table_magic);
  out.reserve(table_header_bytes + entries.size() * table_entry_bytes
              + table_checksum_bytes);
  put(out, table_version);
  put(out, static_cast<std::uint32_t>(entries.size()));
  put(out, document_count_);
  for (const auto& e : entries)
    put(out, e.hash);
  for (const auto& e : entries)
    put(out, e.documents);
  put(out, static_cast<std::uint64_t>(XXH3_64bits(out.data(), out.size())));
  return out;
}

result<word_frequencies> word_frequencies::decode(std::string_view bytes,
                                                  std::string_view where) {
  CALLBOARD_TRY_ASSIGN(const std::size_t count, check_table(bytes, where));
  word_frequencies out;
  out.document_count_ = get<std::uint64_t>(bytes, 16);
  out.entries_.resize(count);
  const auto documents_at = table_header_bytes + count * sizeof(std::uint64_t);
  for (std::size_t i = 0; i < count; ++i) {
    auto& e = out.entries_[i];
    e.hash = get<std::uint64_t>(bytes, table_header_bytes + i * 8);
    e.documents = get<std::uint32_t>(bytes, documents_at + i * 4);
    if ((i > 0 && e.hash <= out.entries_[i - 1].hash)
        || e.documents < documents_min || e.documents > out.document_count_)
      return failure{errc::corrupt,
                     "The word frequencies in " + std::string(where)
                         + " are damaged: word " + std::to_string(i)
                         + " is out of order or its count "
                           "impossible. Train them again."};
  }
  // Weights are computed with sums of counts: they must not overflow.
  if (out.document_count_ > std::numeric_limits<std::uint64_t>::max() / 4)
    return failure{errc::corrupt, "The word frequencies in "
                                      + std::string(where)
                                      + " are damaged: the number of documents "
                                        "is impossible. Train them again."};
  return out;
}

result<void> word_frequencies::save(directory& home,
                                    std::string_view name) const {
  const auto bytes = encode();
  const auto temporary = std::string(name) + ".new";
  auto write = [&]() -> result<void> {
    CALLBOARD_TRY_ASSIGN(auto out,
                         home.open_file(temporary, open_mode::create_empty));
    CALLBOARD_TRY(out->write_at(0, std::as_bytes(std::span(bytes))));
    CALLBOARD_TRY(out->sync());
    return home.rename(temporary, name);
  };
  if (auto written = write(); !written) {
    // Debris does no harm; the first error is the one to tell.
    static_cast<void>(home.remove(temporary));
    return written;
  }
  return home.sync();
}

result<word_frequencies> word_frequencies::load(const directory& home,
                                                std::string_view name) {
  const auto where = home.path() + "/" + std::string(name);
  CALLBOARD_TRY_ASSIGN(auto in, home.open_file(name, open_mode::read));
  CALLBOARD_TRY_ASSIGN(const file_status status, in->status());
  if (status.size_bytes > table_bytes_max)
    return failure{errc::corrupt,
                   "The file " + where + " is too large ("
                       + std::to_string(status.size_bytes)
                       + " bytes) to be a table of word frequencies."};
  std::string bytes(static_cast<std::size_t>(status.size_bytes), '\0');
  CALLBOARD_TRY_ASSIGN(
      const std::size_t size,
      in->read_at(0, std::as_writable_bytes(std::span(bytes))));
  return decode(std::string_view(bytes).substr(0, size), where);
}

// -- words_embedder ----------------------------------------------------------

bool words_embedder::feature::operator<(const feature& other) const noexcept {
  return hash != other.hash ? hash < other.hash : weight < other.weight;
}

words_embedder::words_embedder(std::size_t dimension)
    : dimension_(dimension), name_("words:" + std::to_string(dimension)) {}

result<void> words_embedder::check(std::size_t dimension) {
  if (dimension >= dimension_min && dimension <= dimension_max)
    return {};
  return failure{errc::invalid_argument,
                 "The embedder \"words\" cannot have dimension "
                     + std::to_string(dimension) + "; choose "
                     + std::to_string(dimension_min) + " to "
                     + std::to_string(dimension_max) + "."};
}

result<std::shared_ptr<words_embedder>>
words_embedder::create(std::size_t dimension) {
  CALLBOARD_TRY(check(dimension));
  return std::shared_ptr<words_embedder>(new words_embedder(dimension));
}

result<std::shared_ptr<words_embedder>>
words_embedder::create(std::size_t dimension,
                       const word_frequencies& frequencies) {
  CALLBOARD_TRY_ASSIGN(auto out, create(dimension));
  const auto bytes = frequencies.encode();
  out->name_ += "+idf-"
                + checksum_digits(get<std::uint64_t>(
                    bytes, bytes.size() - table_checksum_bytes));
  out->has_table_ = true;
  out->new_word_weight_ = rarity(0, frequencies.document_count());
  for (const auto& e : frequencies.significant()) {
    out->table_hashes_.push_back(e.hash);
    out->table_weights_.push_back(
        rarity(e.documents, frequencies.document_count()));
  }
  return out;
}

std::size_t words_embedder::concurrency() const {
  return std::max(1u, std::thread::hardware_concurrency());
}

std::uint64_t
words_embedder::word_weight(std::uint64_t hash,
                            std::size_t length_bytes) const noexcept {
  if (!has_table_)
    return std::uint64_t{std::min(length_bytes, word_length_max)}
           << fraction_bits;
  const auto found =
      std::lower_bound(table_hashes_.begin(), table_hashes_.end(), hash);
  if (found == table_hashes_.end() || *found != hash)
    return new_word_weight_;
  return table_weights_[static_cast<std::size_t>(found
                                                 - table_hashes_.begin())];
}

std::vector<words_embedder::feature>
words_embedder::features_of(std::string_view text) const {
  std::vector<feature> out;
  feature previous;
  for_each_word(text, [&](const word& w) {
    const feature current{w.hash, word_weight(w.hash, w.length_bytes)};
    if (!out.empty())
      out.push_back({hash_of_pair(previous.hash, current.hash),
                     (previous.weight + current.weight) / 4});
    out.push_back(current);
    previous = current;
  });
  std::sort(out.begin(), out.end());
  return out;
}

void words_embedder::project(std::uint64_t hash, std::uint64_t weight,
                             std::span<std::int64_t> sums) const noexcept {
  for (std::size_t i = 0; i < places; ++i) {
    auto z = hash + (i + 1) * golden_ratio;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    z ^= z >> 31;
    const auto begin = i * dimension_ / places;
    const auto width = (i + 1) * dimension_ / places - begin;
    const auto place = begin + ((z >> 32) * width >> 32);
    const auto value = static_cast<std::int64_t>(weight);
    sums[place] += (z & 1) != 0 ? -value : value;
  }
}

result<embedding_batch>
words_embedder::embed(std::span<const std::string> texts, embedding_context) {
  embedding_batch out;
  out.vectors.resize(texts.size() * dimension_);
  // Sums of integers do not depend on their order, so the result is the same
  // whatever a compiler makes of it.
  std::vector<std::int64_t> sums(dimension_);
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const auto features = features_of(texts[i]);
    std::fill(sums.begin(), sums.end(), 0);
    for (auto at = features.begin(); at != features.end();) {
      const auto end = std::find_if(at, features.end(), [&](const feature& f) {
        return f.hash != at->hash;
      });
      project(at->hash,
              damped(at->weight, static_cast<std::uint64_t>(end - at)), sums);
      at = end;
    }
    if (features.empty())
      out.rejected.push_back({i, "The text has no words."});
    else if (std::all_of(sums.begin(), sums.end(),
                         [](std::int64_t sum) { return sum == 0; }))
      out.rejected.push_back({i, "The text's words cancel each other out; use "
                                 "a larger dimension."});
    for (std::size_t k = 0; k < dimension_; ++k)
      out.vectors[i * dimension_ + k] =
          static_cast<float>(static_cast<double>(sums[k]) / 65536.0);
  }
  return out;
}

} // namespace callboard
