// The inner loops of the roof, defined in the ISA files. Each returns something that depends on its
// work.
#pragma once

#include <cstdint>

namespace pare {

// Reads `bytes` (a multiple of 4096) in four adjacent streams, prefetching ahead.
std::uint64_t roof_read_avx2(const void* data, std::int64_t bytes);
std::uint64_t roof_read_avx512(const void* data, std::int64_t bytes);

// `rounds` rounds of multiply-adds in registers; roof_*_work operations (multiply-add = 2) a round.
float roof_f32_avx2(std::int64_t rounds);
float roof_int8_avx2(std::int64_t rounds);
float roof_f32_avx512(std::int64_t rounds);
float roof_bf16_avx512(std::int64_t rounds);
float roof_int8_avx512(std::int64_t rounds);
float roof_int8_amx(std::int64_t rounds);
float roof_bf16_amx(std::int64_t rounds);
constexpr double roof_chains =
    12;  // independent accumulators: enough to hide the latency of 4 or 5 cycles

}  // namespace pare
