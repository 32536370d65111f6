// Peak loops of the AVX2 class.
#include <immintrin.h>

#include "kernel/roof_loops.h"

namespace pare {

std::uint64_t roof_read_avx2(const void* data, std::int64_t bytes) {
  const char* p = static_cast<const char*>(data);
  const std::int64_t stream = bytes / 4;
  __m256i sum[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                    _mm256_setzero_si256()};
  for (std::int64_t i = 0; i < stream; i += 64)
    for (int s = 0; s < 4; s++) {
      const char* at = p + s * stream + i;
      _mm_prefetch(at + 1024, _MM_HINT_T1);
      sum[s] = _mm256_xor_si256(sum[s], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
      sum[s] =
          _mm256_xor_si256(sum[s], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at + 32)));
    }
  const __m256i all =
      _mm256_xor_si256(_mm256_xor_si256(sum[0], sum[1]), _mm256_xor_si256(sum[2], sum[3]));
  return static_cast<std::uint64_t>(_mm256_extract_epi64(all, 0) ^ _mm256_extract_epi64(all, 1) ^
                                    _mm256_extract_epi64(all, 2) ^ _mm256_extract_epi64(all, 3));
}

float roof_f32_avx2(std::int64_t rounds) {
  __m256 acc[12];
#pragma GCC unroll 12
  for (__m256& v : acc) v = _mm256_set1_ps(1.0f);
  const __m256 x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(1e-3f);
  for (std::int64_t i = 0; i < rounds; i++)
#pragma GCC unroll 12
    for (__m256& v : acc) {
      v = _mm256_fmadd_ps(v, x, y);
      __asm__ volatile("" : "+x"(v));  // keeps equal chains apart
    }
  __m256 sum = _mm256_setzero_ps();
#pragma GCC unroll 12
  for (const __m256& v : acc) sum = _mm256_add_ps(sum, v);
  return _mm256_cvtss_f32(sum);
}

float roof_int8_avx2(std::int64_t rounds) {
  __m256i acc[12];
#pragma GCC unroll 12
  for (__m256i& v : acc) v = _mm256_setzero_si256();
  const __m256i x = _mm256_set1_epi8(3), ones = _mm256_set1_epi16(1);
  for (std::int64_t i = 0; i < rounds; i++)
#pragma GCC unroll 12
    for (__m256i& v : acc) {
      __m256i pairs = _mm256_maddubs_epi16(x, x);
      __asm__ volatile("" : "+x"(pairs));
      v = _mm256_add_epi32(v, _mm256_madd_epi16(pairs, ones));
    }
  __m256i sum = _mm256_setzero_si256();
#pragma GCC unroll 12
  for (const __m256i& v : acc) sum = _mm256_add_epi32(sum, v);
  return static_cast<float>(_mm256_extract_epi32(sum, 0));
}

}  // namespace pare
