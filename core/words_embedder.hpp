#pragma once

#include "core/embedder.hpp"
#include "core/io.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace callboard {

/// In how many documents of a collection each word occurs. Rare words tell
/// more about a text than common ones: given such a table, a `words_embedder`
/// of few dimensions finds about a quarter more (see there). Train it on the
/// texts to be stored, or on a sample: a few thousand are enough.
///
/// Format:    little-endian, one file:
///
///     offset  0  8 bytes  magic "cbwords\n"
///             8  u32      version, 1
///            12  u32      n, how many words follow; at most `words_max`
///            16  u64      documents
///            24  u64[n]   hashes of words, rising, none twice
///    24 +  8 n  u32[n]    documents with that word: `documents_min` or more,
///                         at most the number of documents (or of u32)
///    24 + 12 n  u64       XXH3 of all bytes before
///
///            The hash of a word is that of `words_embedder`. A reader refuses
///            everything else as `corrupt`, other versions as
///            `unsupported_format`.
/// Threads:   `const` functions may run at once, `add` has one caller.
/// Errors:    values; `add` cannot fail.
class word_frequencies {
public:
  /// Words in a saved table. If there are more, the most frequent stay.
  static constexpr std::size_t words_max = 1'000'000;
  /// Words remembered while training. Of more, the rarest are forgotten.
  static constexpr std::size_t words_tracked_max = 4'000'000;
  /// Words of fewer documents are not saved: they count as new.
  static constexpr std::uint32_t documents_min = 2;

  /// Counts one document.
  void add(std::string_view text);

  /// Documents added, those of a loaded table included.
  std::uint64_t document_count() const noexcept { return document_count_; }

  /// The bytes of the file. A table of no documents is valid.
  std::string encode() const;
  /// `where` names the bytes in messages.
  static result<word_frequencies> decode(std::string_view bytes,
                                         std::string_view where);

  /// Writes the file `name`, durable and whole or not at all. Uses
  /// `name` + ".new" on the way; one writer per name at a time.
  result<void> save(directory& home, std::string_view name) const;

  /// Reads what `save` wrote. More documents may be added.
  static result<word_frequencies> load(const directory& home,
                                       std::string_view name);

private:
  friend class words_embedder;

  struct entry {
    std::uint64_t hash = 0;
    std::uint32_t documents = 0;
  };

  std::vector<entry> merged() const;
  /// Merged entries as far as they are saved.
  std::vector<entry> significant() const;
  static std::vector<entry> keep_most_frequent(std::vector<entry> entries,
                                               std::size_t count);

  std::uint64_t document_count_ = 0;
  std::vector<entry> entries_;         // by hash
  std::vector<std::uint64_t> pending_; // a hash per document and word
};

/// Embeds texts by the words in them, without a model: each word, and each
/// pair of neighbouring words at half the weight, is a fixed pseudo-random
/// direction, and a text is the weighted sum of its words' directions. The
/// cosine of two texts is then, about, how many of their words (by weight)
/// they share.
///
/// Good for: search by keywords, near-duplicates, trying things out, tests.
/// Needs no download and no training, embeds some 100,000 short texts a second
/// and core, and gives the same bits on every machine and compiler.
/// Cannot: synonyms, meaning, inflection ("mice" is not "mouse"), typing
/// errors, upper and lower case or accents outside of ASCII, word order beyond
/// pairs. Where that matters use a model.
///
/// Measured with 600 topics over 37,457 Bible verses, nDCG@10 (BM25: 0.45):
/// 256 dimensions 0.34, with a table 0.43, with one trained on 3,000 of the
/// verses 0.42; 1,024 dimensions 0.44, with a table 0.45. Long texts need more
/// of them: asked with six words in a row for the right one of 3,746 passages
/// of ten verses, 256 dimensions name it first in 18 % of the cases, 1,024 in
/// 35 %.
///
/// The projection is part of the stored data's format and never changes under
/// the names that `name` gives:
///   - A word is a longest run of ASCII letters (lower-cased), digits and
///     characters beyond ASCII, but U+0080-00BF, U+2000-207F, U+3000-303F and
///     the full-width forms of ASCII punctuation up to "@" separate words, and
///     each character of U+3040-9FFF and U+20000-3FFFF is a word of its own
///     (Chinese and Japanese have no spaces).
///   - Its hash is XXH3 of its bytes, seed 0; that of a pair is XXH3 of both
///     words' hashes, little-endian, seed 1.
///   - Weights are integers, in 1/65536. Of a word: without a table its length
///     in bytes, at most 6 (short words tend to be common); with one log2((n +
///     m + 1) / (m + 1)), when m of n documents have it. Of a pair: a quarter
///     of the sum of its words' weights. What occurs t times in a text counts
///     sqrt(t)-fold.
///   - Hash h has 8 places: with z = splitmix64's output function of h + (i +
///     1) * 0x9E3779B97F4A7C15, place i is the upper half of z scaled to
///     [i * d / 8, (i + 1) * d / 8), negative if z is odd.
///
/// Rejects: texts without a word ("has no words").
/// Limits:  about 64 bytes of memory per word of a text while it is embedded.
/// Threads: immutable.
class words_embedder : public embedder {
public:
  static constexpr std::size_t dimension_min = 8;
  static constexpr std::size_t dimension_max = 65'536;
  static constexpr std::size_t dimension_default = 256;

  /// Weighs words by their length. Fails with `invalid_argument` if
  /// `dimension` is outside of the limits.
  static result<std::shared_ptr<words_embedder>>
  create(std::size_t dimension = dimension_default);

  /// Weighs words by `frequencies` (copied).
  static result<std::shared_ptr<words_embedder>>
  create(std::size_t dimension, const word_frequencies& frequencies);

  std::size_t dimension() const override { return dimension_; }

  /// "words:256", or with a table "words:256+idf-" and 8 hexadecimal
  /// digits of the table's checksum.
  std::string name() const override { return name_; }

  /// As many as the machine has hardware threads.
  std::size_t concurrency() const override;
  std::size_t batch_texts_max() const override { return 256; }

  /// Never fails as a whole. The context makes no difference.
  result<embedding_batch> embed(std::span<const std::string> texts,
                                embedding_context context) override;

private:
  struct feature {
    std::uint64_t hash = 0;
    std::uint64_t weight = 0; // in 1/65536
    bool operator<(const feature& other) const noexcept;
  };

  explicit words_embedder(std::size_t dimension);
  static result<void> check(std::size_t dimension);

  std::uint64_t word_weight(std::uint64_t hash,
                            std::size_t length_bytes) const noexcept;
  std::vector<feature> features_of(std::string_view text) const;
  void project(std::uint64_t hash, std::uint64_t weight,
               std::span<std::int64_t> sums) const noexcept;

  std::size_t dimension_;
  std::string name_;
  bool has_table_ = false;
  std::uint32_t new_word_weight_ = 0;
  std::vector<std::uint64_t> table_hashes_; // rising
  std::vector<std::uint32_t> table_weights_;
};

} // namespace callboard
