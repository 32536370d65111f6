// The product rows for the AVX2 class (with FMA and F16C).
//
// A sixteen-entry table takes two permutes and a blend. Integer products widen i8 to 16 bits
// (vpmaddwd is exact); 4-bit patterns are below 16, so vpmaddubsw cannot saturate: 2 * 15 * 128 <
// 2^15.
#include "kernel/rows.h"
#include "kernel/simd_avx2.h"
#include "kernel/unrolled.h"

namespace pare {
namespace {

constexpr int block_rows = 3, block_inputs = 4, integer_row_block = 2;
constexpr int block_vectors = 2, tile_inputs = 6;

I lane_index(std::int64_t group, std::int64_t weights_a_lane) {
  alignas(32) std::int32_t index[L];
  for (int i = 0; i < L; i++) index[i] = static_cast<std::int32_t>(i * weights_a_lane / group);
  return _mm256_load_si256(reinterpret_cast<const I*>(index));
}
V spread_f32(const float* p, I index) {
  return _mm256_permutevar8x32_ps(_mm256_loadu_ps(p), index);
}
V spread_f16(const std::uint16_t* p, I index) {
  return _mm256_permutevar8x32_ps(value_f16(p), index);
}
V spread_bf16(const std::uint16_t* p, I index) {
  return _mm256_permutevar8x32_ps(value_bf16(p), index);
}

struct Table {
  V low, high;
};
Table load_table(const float* t) { return {_mm256_loadu_ps(t), _mm256_loadu_ps(t + 8)}; }
I load_bits(const void* p) { return _mm256_loadu_si256(static_cast<const I*>(p)); }
V lookup(const Table& t,
         I bits) {  // a permute uses the low three bits; the fourth chooses between the halves
  return _mm256_blendv_ps(_mm256_permutevar8x32_ps(t.low, bits),
                          _mm256_permutevar8x32_ps(t.high, bits),
                          _mm256_castsi256_ps(_mm256_slli_epi32(bits, 28)));
}
I next_nibble(I bits) { return _mm256_srli_epi32(bits, 4); }

constexpr std::int64_t nib4_step = 64, i8_step = 16;
struct WeightBytes {
  I low, high;
};
I zero_bits() { return _mm256_setzero_si256(); }
V to_float(I v) { return _mm256_cvtepi32_ps(v); }
std::int64_t sum_integers(I v) {
  const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}

template <int kind>
WeightBytes load_weights(const std::uint8_t* p) {
  if constexpr (kind == Packed::nib4) {
    const I bytes = _mm256_loadu_si256(reinterpret_cast<const I*>(p)), mask = _mm256_set1_epi8(15);
    return {_mm256_and_si256(bytes, mask), _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask)};
  } else {
    const I wide = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return {wide, wide};
  }
}

template <int kind>
I integer_step(I acc, const WeightBytes& w, const std::int8_t* x, std::int64_t k) {
  if constexpr (kind == Packed::nib4) {
    // Inputs come as the even 64 and the odd 64 of 128 elements; this step is half of them.
    const std::int8_t* even = x + k / 128 * 128 + k % 128 / 2;
    const I ones = _mm256_set1_epi16(1);
    const I low = _mm256_maddubs_epi16(w.low, _mm256_loadu_si256(reinterpret_cast<const I*>(even)));
    const I high =
        _mm256_maddubs_epi16(w.high, _mm256_loadu_si256(reinterpret_cast<const I*>(even + 64)));
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(low, ones));
    return _mm256_add_epi32(acc, _mm256_madd_epi16(high, ones));
  } else {
    const I inputs = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + k)));
    return _mm256_add_epi32(acc, _mm256_madd_epi16(w.low, inputs));
  }
}

I minus(I a, I) { return a; }
template <int kind>
I excess_step(I excess, const WeightBytes&) {
  return excess;  // inputs stay signed here
}

#include "kernel/linear.inl"
#include "kernel/linear_tiles.inl"

}  // namespace

void linear_f32_avx2_vector(const PackedCall& c) { run_vector<Packed::f32>(c); }
void linear_f32_avx2_matrix(const PackedCall& c) { run_matrix<Packed::f32>(c); }
void linear_f32_avx2_tiles(const PackedCall& c) { run_tiles<Packed::f32>(c); }
void linear_f16_avx2_vector(const PackedCall& c) { run_vector<Packed::f16>(c); }
void linear_f16_avx2_matrix(const PackedCall& c) { run_matrix<Packed::f16>(c); }
void linear_f16_avx2_tiles(const PackedCall& c) { run_tiles<Packed::f16>(c); }
void linear_bf16_avx2_vector(const PackedCall& c) { run_vector<Packed::bf16>(c); }
void linear_bf16_avx2_matrix(const PackedCall& c) { run_matrix<Packed::bf16>(c); }
void linear_bf16_avx2_tiles(const PackedCall& c) { run_tiles<Packed::bf16>(c); }
void linear_e4m3_avx2_vector(const PackedCall& c) { run_vector<Packed::e4m3>(c); }
void linear_e4m3_avx2_matrix(const PackedCall& c) { run_matrix<Packed::e4m3>(c); }
void linear_e4m3_avx2_tiles(const PackedCall& c) { run_tiles<Packed::e4m3>(c); }
void linear_e5m2_avx2_vector(const PackedCall& c) { run_vector<Packed::e5m2>(c); }
void linear_e5m2_avx2_matrix(const PackedCall& c) { run_matrix<Packed::e5m2>(c); }
void linear_e5m2_avx2_tiles(const PackedCall& c) { run_tiles<Packed::e5m2>(c); }
void linear_i8_avx2_vector(const PackedCall& c) { run_vector<Packed::i8>(c); }
void linear_i8_avx2_matrix(const PackedCall& c) { run_matrix<Packed::i8>(c); }
void linear_i8_avx2_tiles(const PackedCall& c) { run_tiles<Packed::i8>(c); }
void linear_nib4_avx2_vector(const PackedCall& c) { run_vector<Packed::nib4>(c); }
void linear_nib4_avx2_matrix(const PackedCall& c) { run_matrix<Packed::nib4>(c); }
void linear_nib4_avx2_tiles(const PackedCall& c) { run_tiles<Packed::nib4>(c); }
void linear_i8_avx2_integers(const PackedCall& c) { run_integers<Packed::i8>(c); }
void linear_nib4_avx2_integers(const PackedCall& c) { run_integers<Packed::nib4>(c); }

}  // namespace pare
