// Vectors of the AVX2 class: the few operations that the kernels are written in. Internal linkage
// only; include it in files with the ISA's suffix and nowhere else.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace pare {
namespace {

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"

using V = __m256;
using I = __m256i;
constexpr int L = 8;

V load(const float* p) { return _mm256_loadu_ps(p); }
void store(float* p, V v) { _mm256_storeu_ps(p, v); }
V set1(float x) { return _mm256_set1_ps(x); }
V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
V mul(V a, V b) { return _mm256_mul_ps(a, b); }
V add(V a, V b) { return _mm256_add_ps(a, b); }
V sub(V a, V b) { return _mm256_sub_ps(a, b); }
float sum(V v) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

using D = __m256d;
constexpr int DL = 4;
D load(const double* p) { return _mm256_loadu_pd(p); }
void store(double* p, D v) { _mm256_storeu_pd(p, v); }
D set1(double x) { return _mm256_set1_pd(x); }
D fma(D a, D b, D c) { return _mm256_fmadd_pd(a, b, c); }
D add(D a, D b) { return _mm256_add_pd(a, b); }
D sub(D a, D b) { return _mm256_sub_pd(a, b); }
D low_half(V v) { return _mm256_cvtps_pd(_mm256_castps256_ps128(v)); }
D high_half(V v) { return _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)); }

void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }

float half_to_float(std::uint16_t h) { return _cvtsh_ss(h); }
float bf16_to_float(std::uint16_t h) {
  return _mm_cvtss_f32(
      _mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(static_cast<unsigned>(h) << 16))));
}

__m128i low8(const void* p) { return _mm_loadl_epi64(static_cast<const __m128i*>(p)); }
V value_f16(const void* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p)));
}
V widen_bf16(__m128i h) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
V value_bf16(const void* p) { return widen_bf16(_mm_loadu_si128(static_cast<const __m128i*>(p))); }
V value_i8(const void* p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(low8(p))); }
V value_e4m3(const void* p) {
  const I b = _mm256_cvtepu8_epi32(low8(p));
  const I magnitude = _mm256_slli_epi32(_mm256_and_si256(b, _mm256_set1_epi32(0x7f)), 20);
  const I sign = _mm256_slli_epi32(_mm256_and_si256(b, _mm256_set1_epi32(0x80)), 24);
  return _mm256_mul_ps(_mm256_castsi256_ps(_mm256_or_si256(magnitude, sign)),
                       _mm256_set1_ps(0x1p120f));
}
// Field [Shift, Shift + Bits) of each byte, counted from 0.
template <int Shift, int Bits>
V value_field(const void* p) {
  I b = _mm256_cvtepu8_epi32(low8(p));
  if constexpr (Shift > 0) b = _mm256_srli_epi32(b, Shift);
  if constexpr (Bits < 8) b = _mm256_and_si256(b, _mm256_set1_epi32((1 << Bits) - 1));
  return _mm256_cvtepi32_ps(b);
}
V value_e5m2(const void* p) {
  return _mm256_cvtph_ps(_mm_slli_epi16(_mm_cvtepu8_epi16(low8(p)), 8));
}

// Rounded to nearest even; |v| below 128.
void store_int8(std::int8_t* p, V v) {
  const I n = _mm256_cvtps_epi32(v);
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(n), _mm256_extracti128_si256(n, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
}
// Adds 32 int8, each with 128 more, to 64-bit lanes.
I add_offset_bytes(I lanes, const void* p) {
  const I bytes = _mm256_loadu_si256(static_cast<const I*>(p));
  const I offset = _mm256_xor_si256(bytes, _mm256_set1_epi8(-128));
  return _mm256_add_epi64(lanes, _mm256_sad_epu8(offset, _mm256_setzero_si256()));
}

V max(V a, V b) { return _mm256_max_ps(a, b); }
V min(V a, V b) { return _mm256_min_ps(a, b); }
V div(V a, V b) { return _mm256_div_ps(a, b); }
V abs(V a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
V with_sign(V magnitude, V sign) {
  return _mm256_or_ps(magnitude, _mm256_and_ps(sign, _mm256_set1_ps(-0.0f)));
}
V round(V a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
V power_of_two(V integer) {
  return _mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(integer), _mm256_set1_epi32(127)), 23));
}
float largest(V v) {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

// exp(x), relative error below 2e-7 for x in [-87, 88]; 0 below, clamped above. Cephes-style: x = n
// ln 2 + r, a polynomial of degree 6 for e^r on |r| <= ln 2 / 2.
V exp(V x) {
  const V low = set1(-87.33654f);
  x = min(x, set1(88.37626f));
  const V bounded = max(x, low);
  const V n = round(mul(bounded, set1(1.44269504088896341f)));
  const V r = fma(n, set1(2.12194440e-4f), fma(n, set1(-0.693359375f), bounded));
  V p = set1(1.9875691500e-4f);
  p = fma(p, r, set1(1.3981999507e-3f));
  p = fma(p, r, set1(8.3334519073e-3f));
  p = fma(p, r, set1(4.1665795894e-2f));
  p = fma(p, r, set1(1.6666665459e-1f));
  p = fma(p, r, set1(5.0000001201e-1f));
  p = fma(mul(p, r), r, add(r, set1(1.0f)));
  return mul(p, power_of_two(n));
}

V choose_below(V a, V limit, V below, V above) {
  return _mm256_blendv_ps(above, below, _mm256_cmp_ps(a, limit, _CMP_LT_OQ));
}

// tanh(x): an odd polynomial near zero, where 1 - 2 / (e^2x + 1) would cancel (Cephes).
V tanh_of(V x) {
  const V a = abs(x);
  const V z = mul(a, a);
  V p = set1(-5.70498872745e-3f);
  p = fma(p, z, set1(2.06390887954e-2f));
  p = fma(p, z, set1(-5.37397155531e-2f));
  p = fma(p, z, set1(1.33314422036e-1f));
  p = fma(p, z, set1(-3.33332819422e-1f));
  const V small = fma(mul(p, z), a, a);
  const V large = sub(set1(1.0f), div(set1(2.0f), add(exp(add(a, a)), set1(1.0f))));
  return with_sign(choose_below(a, set1(0.625f), small, large), x);
}

// 8 rows of 8 lanes become columns.
void transpose(V (&r)[8]) {
  V t[8];
  for (int i = 0; i < 8; i += 4) {
    const V a = _mm256_unpacklo_ps(r[i], r[i + 1]), b = _mm256_unpackhi_ps(r[i], r[i + 1]);
    const V c = _mm256_unpacklo_ps(r[i + 2], r[i + 3]), d = _mm256_unpackhi_ps(r[i + 2], r[i + 3]);
    t[i] = _mm256_shuffle_ps(a, c, 0x44);
    t[i + 1] = _mm256_shuffle_ps(a, c, 0xee);
    t[i + 2] = _mm256_shuffle_ps(b, d, 0x44);
    t[i + 3] = _mm256_shuffle_ps(b, d, 0xee);
  }
  for (int i = 0; i < 4; i++) {
    r[i] = _mm256_permute2f128_ps(t[i], t[4 + i], 0x20);
    r[4 + i] = _mm256_permute2f128_ps(t[i], t[4 + i], 0x31);
  }
}

#pragma GCC diagnostic pop

}  // namespace
}  // namespace pare
