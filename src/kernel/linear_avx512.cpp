// The product rows for the AVX-512 class (F BW DQ VL VNNI BF16 VBMI).
//
// Sixteen-entry tables fit one register, so a 4-bit code costs a shift, a permute and a
// multiply-add for sixteen weights. Integer products use vpdpbusd: unsigned times signed bytes, so
// inputs are offset by 128 and the weights' sums take the offset back out, in integers.
#include "kernel/rows.h"
#include "kernel/simd_avx512.h"
#include "kernel/unrolled.h"

namespace pare {
namespace {

constexpr int block_rows = 4, block_inputs = 6, integer_row_block = 4;
constexpr int block_vectors = 3, tile_inputs = 8;

I lane_index(std::int64_t group, std::int64_t weights_a_lane) {
  alignas(64) std::int32_t index[L];
  for (int i = 0; i < L; i++) index[i] = static_cast<std::int32_t>(i * weights_a_lane / group);
  return _mm512_load_si512(index);
}
V spread_f32(const float* p, I index) {
  return _mm512_permutexvar_ps(index, _mm512_castps256_ps512(_mm256_loadu_ps(p)));
}
V spread_f16(const std::uint16_t* p, I index) {
  return _mm512_permutexvar_ps(index, _mm512_castps256_ps512(_mm256_cvtph_ps(
                                          _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))));
}
V spread_bf16(const std::uint16_t* p, I index) {
  const __m256i wide = _mm256_slli_epi32(
      _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16);
  return _mm512_permutexvar_ps(index, _mm512_castps256_ps512(_mm256_castsi256_ps(wide)));
}

using Table = V;
Table load_table(const float* t) { return _mm512_loadu_ps(t); }
I load_bits(const void* p) { return _mm512_loadu_si512(p); }
V lookup(Table t, I bits) {
  return _mm512_permutexvar_ps(bits, t);
}  // the low four bits of a lane count
I next_nibble(I bits) { return _mm512_srli_epi32(bits, 4); }

constexpr std::int64_t nib4_step = 128, i8_step = 64;
struct WeightBytes {
  I low, high;
};
I zero_bits() { return _mm512_setzero_si512(); }
V to_float(I v) { return _mm512_cvtepi32_ps(v); }
std::int64_t sum_integers(I v) { return _mm512_reduce_add_epi32(v); }

template <int kind>
WeightBytes load_weights(const std::uint8_t* p) {
  const I bytes = _mm512_loadu_si512(p);
  if constexpr (kind == Packed::nib4) {
    const I mask = _mm512_set1_epi8(15);
    return {_mm512_and_si512(bytes, mask), _mm512_and_si512(_mm512_srli_epi16(bytes, 4), mask)};
  } else {
    return {bytes, bytes};
  }
}

// nib4: patterns are unsigned, inputs (even elements of 128, then odd) signed. i8: inputs made
// unsigned.
template <int kind>
I integer_step(I acc, const WeightBytes& w, const std::int8_t* x, std::int64_t k) {
  if constexpr (kind == Packed::nib4) {
    acc = _mm512_dpbusd_epi32(acc, w.low, _mm512_loadu_si512(x + k));
    return _mm512_dpbusd_epi32(acc, w.high, _mm512_loadu_si512(x + k + 64));
  } else {
    return _mm512_dpbusd_epi32(
        acc, _mm512_xor_si512(_mm512_loadu_si512(x + k), _mm512_set1_epi8(static_cast<char>(0x80))),
        w.low);
  }
}

I minus(I a, I b) { return _mm512_sub_epi32(a, b); }
// i8: the inputs are 128 too large, lane by lane.
template <int kind>
I excess_step(I excess, const WeightBytes& w) {
  if constexpr (kind == Packed::nib4)
    return excess;
  else
    return _mm512_dpbusd_epi32(excess, _mm512_set1_epi8(static_cast<char>(0x80)), w.low);
}

#include "kernel/linear.inl"
#include "kernel/linear_tiles.inl"

}  // namespace

void linear_f32_avx512_vector(const PackedCall& c) { run_vector<Packed::f32>(c); }
void linear_f32_avx512_matrix(const PackedCall& c) { run_matrix<Packed::f32>(c); }
void linear_f32_avx512_tiles(const PackedCall& c) { run_tiles<Packed::f32>(c); }
void linear_f16_avx512_vector(const PackedCall& c) { run_vector<Packed::f16>(c); }
void linear_f16_avx512_matrix(const PackedCall& c) { run_matrix<Packed::f16>(c); }
void linear_f16_avx512_tiles(const PackedCall& c) { run_tiles<Packed::f16>(c); }
void linear_bf16_avx512_vector(const PackedCall& c) { run_vector<Packed::bf16>(c); }
void linear_bf16_avx512_matrix(const PackedCall& c) { run_matrix<Packed::bf16>(c); }
void linear_bf16_avx512_tiles(const PackedCall& c) { run_tiles<Packed::bf16>(c); }
void linear_e4m3_avx512_vector(const PackedCall& c) { run_vector<Packed::e4m3>(c); }
void linear_e4m3_avx512_matrix(const PackedCall& c) { run_matrix<Packed::e4m3>(c); }
void linear_e4m3_avx512_tiles(const PackedCall& c) { run_tiles<Packed::e4m3>(c); }
void linear_e5m2_avx512_vector(const PackedCall& c) { run_vector<Packed::e5m2>(c); }
void linear_e5m2_avx512_matrix(const PackedCall& c) { run_matrix<Packed::e5m2>(c); }
void linear_e5m2_avx512_tiles(const PackedCall& c) { run_tiles<Packed::e5m2>(c); }
void linear_i8_avx512_vector(const PackedCall& c) { run_vector<Packed::i8>(c); }
void linear_i8_avx512_matrix(const PackedCall& c) { run_matrix<Packed::i8>(c); }
void linear_i8_avx512_tiles(const PackedCall& c) { run_tiles<Packed::i8>(c); }
void linear_nib4_avx512_vector(const PackedCall& c) { run_vector<Packed::nib4>(c); }
void linear_nib4_avx512_matrix(const PackedCall& c) { run_matrix<Packed::nib4>(c); }
void linear_nib4_avx512_tiles(const PackedCall& c) { run_tiles<Packed::nib4>(c); }
void linear_i8_avx512_integers(const PackedCall& c) { run_integers<Packed::i8>(c); }
void linear_nib4_avx512_integers(const PackedCall& c) { run_integers<Packed::nib4>(c); }

}  // namespace pare
