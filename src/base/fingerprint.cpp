// Four lanes, so that the multiplications overlap.
#include "base/fingerprint.h"

#include <bit>
#include <cstring>

#include "base/random.h"

namespace pare {

std::uint64_t fingerprint(std::span<const std::byte> bytes, std::uint64_t seed) {
  std::uint64_t lane[4] = {mix64(seed), mix64(seed + 1), mix64(seed + 2), mix64(seed + 3)};
  std::size_t at = 0;
  for (; at + 32 <= bytes.size(); at += 32) {
    std::uint64_t word[4];
    std::memcpy(word, bytes.data() + at, sizeof word);
    for (int i = 0; i < 4; i++)
      lane[i] = std::rotl(lane[i] ^ word[i], 29) * 0x9e3779b97f4a7c15u + 0x94d049bb133111ebu;
  }
  std::uint64_t hash = bytes.size();
  for (std::uint64_t l : lane) hash = mix64(hash ^ l);
  for (; at < bytes.size(); at++) hash = mix64(hash ^ static_cast<std::uint64_t>(bytes[at]));
  return hash;
}

std::uint64_t fingerprint(std::string_view text, std::uint64_t seed) {
  return fingerprint(std::as_bytes(std::span(text)), seed);
}

}  // namespace pare
