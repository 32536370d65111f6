// SHA-256 (FIPS 180-4), for manifests: the same file or not.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace pare {

class Sha256 {
 public:
  void add(std::span<const std::byte> bytes);
  std::string finish();  // 64 lower-case hexadecimal digits; once

 private:
  void block(const std::byte* bytes);

  std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::byte, 64> pending_{};
  std::uint64_t length_ = 0;
};

std::string sha256(std::span<const std::byte> bytes);

}  // namespace pare
