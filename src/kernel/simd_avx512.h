// Vectors of the AVX-512 class: the few operations that the kernels are written in. Internal
// linkage only; include it in files with the ISA's suffix and nowhere else.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace pare {
namespace {

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"

using V = __m512;
using I = __m512i;
constexpr int L = 16;

V load(const float* p) { return _mm512_loadu_ps(p); }
void store(float* p, V v) { _mm512_storeu_ps(p, v); }
V set1(float x) { return _mm512_set1_ps(x); }
V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
V mul(V a, V b) { return _mm512_mul_ps(a, b); }
V add(V a, V b) { return _mm512_add_ps(a, b); }
V sub(V a, V b) { return _mm512_sub_ps(a, b); }
float sum(V v) { return _mm512_reduce_add_ps(v); }

using D = __m512d;
constexpr int DL = 8;
D load(const double* p) { return _mm512_loadu_pd(p); }
void store(double* p, D v) { _mm512_storeu_pd(p, v); }
D set1(double x) { return _mm512_set1_pd(x); }
D fma(D a, D b, D c) { return _mm512_fmadd_pd(a, b, c); }
D add(D a, D b) { return _mm512_add_pd(a, b); }
D sub(D a, D b) { return _mm512_sub_pd(a, b); }
D low_half(V v) { return _mm512_cvtps_pd(_mm512_castps512_ps256(v)); }
D high_half(V v) { return _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1)); }

void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }

float half_to_float(std::uint16_t h) { return _cvtsh_ss(h); }
float bf16_to_float(std::uint16_t h) {
  return _mm_cvtss_f32(
      _mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(static_cast<unsigned>(h) << 16))));
}

V value_f16(const void* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
}
V widen_bf16(__m256i h) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
V value_bf16(const void* p) {
  return widen_bf16(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
}
V value_i8(const void* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))));
}
V value_e4m3(const void* p) {
  // The seven magnitude bits moved to the top of a float have a bias 120 too small; subnormals
  // follow.
  const I b = _mm512_cvtepu8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  const I magnitude = _mm512_slli_epi32(_mm512_and_si512(b, _mm512_set1_epi32(0x7f)), 20);
  const I sign = _mm512_slli_epi32(_mm512_and_si512(b, _mm512_set1_epi32(0x80)), 24);
  return _mm512_mul_ps(_mm512_castsi512_ps(_mm512_or_si512(magnitude, sign)),
                       _mm512_set1_ps(0x1p120f));
}
// Field [Shift, Shift + Bits) of each byte, counted from 0.
template <int Shift, int Bits>
V value_field(const void* p) {
  I b = _mm512_cvtepu8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  if constexpr (Shift > 0) b = _mm512_srli_epi32(b, Shift);
  if constexpr (Bits < 8) b = _mm512_and_si512(b, _mm512_set1_epi32((1 << Bits) - 1));
  return _mm512_cvtepi32_ps(b);
}
V value_e5m2(const void* p) {
  return _mm512_cvtph_ps(
      _mm256_slli_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128(static_cast<const __m128i*>(p))), 8));
}
// Rounded to nearest even; |v| below 128.
void store_int8(std::int8_t* p, V v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v)));
}
// Adds 64 int8, each with 128 more, to 64-bit lanes.
I add_offset_bytes(I lanes, const void* p) {
  const I offset = _mm512_xor_si512(_mm512_loadu_si512(p), _mm512_set1_epi8(-128));
  return _mm512_add_epi64(lanes, _mm512_sad_epu8(offset, _mm512_setzero_si512()));
}

V max(V a, V b) { return _mm512_max_ps(a, b); }
V min(V a, V b) { return _mm512_min_ps(a, b); }
V div(V a, V b) { return _mm512_div_ps(a, b); }
V abs(V a) { return _mm512_abs_ps(a); }
V with_sign(V magnitude, V sign) {
  return _mm512_or_ps(magnitude, _mm512_and_ps(sign, _mm512_set1_ps(-0.0f)));
}
V round(V a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
V power_of_two(V integer) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(integer), _mm512_set1_epi32(127)), 23));
}
float largest(V v) { return _mm512_reduce_max_ps(v); }

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
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, limit, _CMP_LT_OQ), above, below);
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

// 16 rows of 16 lanes become columns.
void transpose(I (&r)[16]) {
  I t[16];
  for (int i = 0; i < 16; i += 4) {
    const I a = _mm512_unpacklo_epi32(r[i], r[i + 1]), b = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    const I c = _mm512_unpacklo_epi32(r[i + 2], r[i + 3]),
            d = _mm512_unpackhi_epi32(r[i + 2], r[i + 3]);
    t[i] = _mm512_unpacklo_epi64(a, c);
    t[i + 1] = _mm512_unpackhi_epi64(a, c);
    t[i + 2] = _mm512_unpacklo_epi64(b, d);
    t[i + 3] = _mm512_unpackhi_epi64(b, d);
  }
  for (int i = 0; i < 4; i++) {  // quarter q of t[4 j + i] is rows 4 j.. of column 4 q + i
    const I a = _mm512_shuffle_i32x4(t[i], t[4 + i], 0x44),
            b = _mm512_shuffle_i32x4(t[8 + i], t[12 + i], 0x44);
    const I c = _mm512_shuffle_i32x4(t[i], t[4 + i], 0xee),
            d = _mm512_shuffle_i32x4(t[8 + i], t[12 + i], 0xee);
    r[i] = _mm512_shuffle_i32x4(a, b, 0x88);
    r[4 + i] = _mm512_shuffle_i32x4(a, b, 0xdd);
    r[8 + i] = _mm512_shuffle_i32x4(c, d, 0x88);
    r[12 + i] = _mm512_shuffle_i32x4(c, d, 0xdd);
  }
}

void transpose(V (&r)[16]) {
  I bits[16];
  for (int i = 0; i < 16; i++) bits[i] = _mm512_castps_si512(r[i]);
  transpose(bits);
  for (int i = 0; i < 16; i++) r[i] = _mm512_castsi512_ps(bits[i]);
}

#pragma GCC diagnostic pop

}  // namespace
}  // namespace pare
