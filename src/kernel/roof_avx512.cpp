// Peak loops of the AVX-512 class.
#include <immintrin.h>

#include "kernel/roof_loops.h"

namespace pare {

std::uint64_t roof_read_avx512(const void* data, std::int64_t bytes) {
  const char* p = static_cast<const char*>(data);
  const std::int64_t stream = bytes / 4;
  __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
  for (std::int64_t i = 0; i < stream; i += 64) {
    for (int s = 0; s < 4; s++) _mm_prefetch(p + s * stream + i + 1024, _MM_HINT_T1);
    a = _mm512_xor_si512(a, _mm512_loadu_si512(p + i));
    b = _mm512_xor_si512(b, _mm512_loadu_si512(p + stream + i));
    c = _mm512_xor_si512(c, _mm512_loadu_si512(p + 2 * stream + i));
    d = _mm512_xor_si512(d, _mm512_loadu_si512(p + 3 * stream + i));
  }
  a = _mm512_xor_si512(_mm512_xor_si512(a, b), _mm512_xor_si512(c, d));
  return static_cast<std::uint64_t>(_mm512_reduce_add_epi64(a));
}

float roof_f32_avx512(std::int64_t rounds) {
  __m512 acc[12];
#pragma GCC unroll 12
  for (__m512& v : acc) v = _mm512_set1_ps(1.0f);
  const __m512 x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(1e-3f);
  for (std::int64_t i = 0; i < rounds; i++)
#pragma GCC unroll 12
    for (__m512& v : acc) {
      v = _mm512_fmadd_ps(v, x, y);
      __asm__ volatile("" : "+v"(v));  // keeps equal chains apart
    }
  __m512 sum = _mm512_setzero_ps();
#pragma GCC unroll 12
  for (const __m512& v : acc) sum = _mm512_add_ps(sum, v);
  return _mm512_reduce_add_ps(sum);
}

float roof_bf16_avx512(std::int64_t rounds) {
  __m512 acc[12];
#pragma GCC unroll 12
  for (__m512& v : acc) v = _mm512_setzero_ps();
  const __m512bh x = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.5f), _mm512_set1_ps(0.25f));
  for (std::int64_t i = 0; i < rounds; i++)
#pragma GCC unroll 12
    for (__m512& v : acc) {
      v = _mm512_dpbf16_ps(v, x, x);
      __asm__ volatile("" : "+v"(v));  // keeps equal chains apart
    }
  __m512 sum = _mm512_setzero_ps();
#pragma GCC unroll 12
  for (const __m512& v : acc) sum = _mm512_add_ps(sum, v);
  return _mm512_reduce_add_ps(sum);
}

float roof_int8_avx512(std::int64_t rounds) {
  __m512i acc[12];
#pragma GCC unroll 12
  for (__m512i& v : acc) v = _mm512_setzero_si512();
  const __m512i x = _mm512_set1_epi8(3);
  for (std::int64_t i = 0; i < rounds; i++)
#pragma GCC unroll 12
    for (__m512i& v : acc) {
      v = _mm512_dpbusd_epi32(v, x, x);
      __asm__ volatile("" : "+v"(v));
    }
  __m512i sum = _mm512_setzero_si512();
#pragma GCC unroll 12
  for (const __m512i& v : acc) sum = _mm512_add_epi32(sum, v);
  return static_cast<float>(_mm512_reduce_add_epi32(sum));
}

}  // namespace pare
