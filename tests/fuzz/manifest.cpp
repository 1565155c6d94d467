/// A MANIFEST that anybody may have written. The input is the file.
#include "core/manifest.hpp"

#include "tests/fuzz/support.hpp"

namespace callboard::fuzz {
namespace {

constexpr std::size_t fixed_bytes = 168;
constexpr std::size_t checksum_bytes = 8;
constexpr std::size_t smallest = fixed_bytes + 8 + checksum_bytes;

void check_manifest(std::span<const std::byte> input) {
  const allocation_meter memory;
  const auto root = decode_manifest(input, "MANIFEST");
  memory.require_at_most(2, input.size(), std::size_t{4} << 10);
  if (!root)
    return;
  require(std::ranges::equal(encode_manifest(*root), input),
          "a manifest that is read is what would be written");
}

/// Makes the lengths and the checksum of `root` right; returns its size.
std::size_t seal(std::span<std::byte> root) {
  const auto size = root.size() / 8 * 8;
  root = root.first(size);
  const auto room = size - fixed_bytes - checksum_bytes;
  const auto logs = std::clamp<std::uint32_t>(
      load<std::uint32_t>(root, 164), 1, static_cast<std::uint32_t>(room / 8));
  const auto model_room = static_cast<std::uint32_t>(room - 8 * logs);
  const auto model_bytes = load<std::uint32_t>(root, 160);
  std::ranges::copy(as_bytes("CBMANIF1"), root.begin());
  store_at(root, 8, std::uint32_t{2});
  store_at(root, 12, static_cast<std::uint32_t>(size));
  if (round_up(model_bytes, 8) != model_room)
    store_at(root, 160, model_room);
  store_at(root, 164, logs);
  store_at(root, size - checksum_bytes,
           checksum(root.first(size - checksum_bytes)));
  return size;
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
  const bool can_be_sealed =
      size >= smallest && size <= callboard::manifest_bytes_max;
  if (can_be_sealed && random() % 8 != 0)
    size = seal(as_output(data, size));
  return size;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  callboard::fuzz::check_manifest(callboard::fuzz::as_input(data, size));
  return 0;
}
