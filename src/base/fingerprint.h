// A hash of bytes for comparing what was with what is; not against malice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace pare {

std::uint64_t fingerprint(std::span<const std::byte> bytes, std::uint64_t seed = 0);
std::uint64_t fingerprint(std::string_view text, std::uint64_t seed = 0);

}  // namespace pare
