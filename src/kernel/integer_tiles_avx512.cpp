// Integer products with many inputs, for the AVX-512 class.
//
// 48 rows of weights become unsigned bytes, four of a row beside four of the next, so that a lane
// of vpdpbusd is an output of its own: nothing is summed across lanes, four inputs are one
// broadcast, and the offset that made the weights unsigned is taken out by the sums of the inputs.
// What turning the weights costs is shared by all inputs. Sums of a group are exact; they are
// scaled in float, or, where a row has one scale, rounded once.
#include <algorithm>
#include <cstring>

#include "kernel/rows.h"
#include "kernel/simd_avx512.h"
#include "kernel/unrolled.h"

namespace pare {
namespace {

using i64 = std::int64_t;
using u8 = std::uint8_t;
constexpr int height = tile_rows, quad = 4 * height;  // bytes of four columns of all rows

struct Tile {
  u8* bytes;      // (in / 4, height, 4)
  float* scales;  // (groups, height)
  float* bias;    // the same, or null
  int offset;     // of the bytes
  i64 row;
  int rows;
};

template <int kind>
void turn_sixteen(const Packed& w, i64 row, int rows, u8* to) {
  const I zero = _mm512_setzero_si512(), flip = _mm512_set1_epi8(-128), mask = _mm512_set1_epi8(15);
  constexpr i64 chunk = kind == Packed::nib4 ? 128 : 64;
  for (i64 k = 0; k < w.in_padded; k += chunk, to += chunk / 4 * quad) {
    I low[16], high[16];
    for (int r = 0; r < 16; r++) {
      const u8* p = w.codes + (row + r) * w.row_bytes + (kind == Packed::nib4 ? k / 2 : k);
      const I bytes = r < rows ? _mm512_loadu_si512(p) : zero;
      if constexpr (kind == Packed::nib4) {
        low[r] = _mm512_and_si512(bytes, mask);
        high[r] = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), mask);
      } else {
        low[r] = _mm512_xor_si512(bytes, flip);
      }
    }
    transpose(low);
    if constexpr (kind == Packed::nib4) transpose(high);
    for (int i = 0; i < 16; i++) {
      if constexpr (kind == Packed::nib4) {
        _mm512_store_si512(to + 2 * i * quad, low[i]);
        _mm512_store_si512(to + (2 * i + 1) * quad, high[i]);
      } else {
        _mm512_store_si512(to + i * quad, low[i]);
      }
    }
  }
}

#include "kernel/scale.inl"

template <int kind>
Tile turn(const PackedCall& c, i64 row, int rows) {
  const Packed& w = *c.w;
  Tile t{};
  t.bytes = reinterpret_cast<u8*>(c.tile);
  t.scales = reinterpret_cast<float*>(t.bytes + w.in_padded * height);
  t.bias = w.bias == nullptr ? nullptr : t.scales + w.groups * height;
  t.offset = kind == Packed::nib4 ? static_cast<int>(-w.table[0]) : 128;
  t.row = row;
  t.rows = rows;
  for (int r = 0; r < rows; r += 16)
    turn_sixteen<kind>(w, row + r, std::min(16, rows - r), t.bytes + 4 * r);
  for (i64 g = 0; g < w.groups; g++)
    for (int r = 0; r < height; r++) {
      const i64 k = (row + r) * w.groups + g;
      t.scales[g * height + r] = r < rows ? scale_of(w, k) : 0;
      if (t.bias != nullptr) t.bias[g * height + r] = r < rows ? w.bias[k] : 0;
    }
  return t;
}

// float(v * scale), rounded once
V scaled(I v, const float* scale) {
  const auto half = [](__m256i n, const float* s) {
    return _mm512_cvtpd_ps(
        _mm512_mul_pd(_mm512_cvtepi32_pd(n), _mm512_cvtps_pd(_mm256_loadu_ps(s))));
  };
  return _mm512_insertf32x8(_mm512_castps256_ps512(half(_mm512_castsi512_si256(v), scale)),
                            half(_mm512_extracti64x4_epi64(v, 1), scale + 8), 1);
}

// Adds the products of columns [k, end) of 16 * vectors rows and N inputs to `sums`, input by
// input.
template <int vectors, int N>
[[gnu::always_inline]] inline void add_products(const Tile& t, const std::int8_t* const (&x)[N],
                                                i64 k, i64 end, I (&sums)[N * vectors]) {
  const u8* at = t.bytes + k / 4 * quad;
  for (; k < end; k += 4, at += quad) {
    I a[vectors];
    unrolled<vectors>([&](auto v) { a[v] = _mm512_load_si512(at + 64 * v); });
    unrolled<N>([&](auto n) {
      std::int32_t four;
      std::memcpy(&four, x[n] + k, 4);
      const I b = _mm512_set1_epi32(four);
      unrolled<vectors>([&](auto v) {
        sums[n * vectors + v] = _mm512_dpbusd_epi32(sums[n * vectors + v], a[v], b);
      });
    });
  }
}

// What the offset of the weights added for an input.
I excess(const PackedCall& c, const Tile& t, i64 input, i64 g) {
  const float sum = c.sums[input * c.w->groups + g];  // an integer
  return _mm512_set1_epi32(t.offset * static_cast<std::int32_t>(sum));
}

// Output: the scaled sum less the share of the bias, times the input's scale.
void put(const PackedCall& c, const Tile& t, i64 input, int v, V value) {
  const int left = std::min(16, t.rows - 16 * v);
  _mm512_mask_storeu_ps(c.y + input * c.y_stride + t.row + 16 * v,
                        static_cast<__mmask16>((1u << left) - 1),
                        mul(set1(c.code_scales[input]), value));
}

V less_bias(const PackedCall& c, const Tile& t, i64 input, i64 g, int v, V value) {
  if (t.bias == nullptr) return value;
  return fma(load(t.bias + g * height + 16 * v), set1(-c.sums[input * c.w->groups + g]), value);
}

// One scale a row. The sums rest in memory before they are scaled: registers for both there are
// not.
template <int vectors, int N>
void multiply_whole(const PackedCall& c, const Tile& t, i64 input) {
  const std::int8_t* x[N];
  for (int n = 0; n < N; n++) x[n] = c.codes + (input + n) * c.x_stride;
  I sums[N * vectors], rest[N * vectors];
  unrolled<N * vectors>([&](auto i) { sums[i] = _mm512_setzero_si512(); });
  add_products<vectors, N>(t, x, 0, c.w->in_padded, sums);
  unrolled<N * vectors>([&](auto i) { _mm512_store_si512(rest + i, sums[i]); });
  __asm__ volatile("" : : "r"(rest) : "memory");
  for (int n = 0; n < N; n++)
    for (int v = 0; v < vectors; v++) {
      const I exact = _mm512_sub_epi32(rest[n * vectors + v], excess(c, t, input + n, 0));
      put(c, t, input + n, v, less_bias(c, t, input + n, 0, v, scaled(exact, t.scales + 16 * v)));
    }
}

// A scale a group.
template <int vectors, int N>
void multiply_groups(const PackedCall& c, const Tile& t, i64 input) {
  const Packed& w = *c.w;
  const std::int8_t* x[N];
  for (int n = 0; n < N; n++) x[n] = c.codes + (input + n) * c.x_stride;
  V total[N * vectors];
  unrolled<N * vectors>([&](auto i) { total[i] = set1(0.0f); });
  for (i64 g = 0; g < w.groups; g++) {
    I sums[N * vectors];
    unrolled<N * vectors>([&](auto i) { sums[i] = _mm512_setzero_si512(); });
    add_products<vectors, N>(t, x, g * w.group, std::min(w.in_padded, (g + 1) * w.group), sums);
    unrolled<N * vectors>([&](auto i) {
      constexpr int n = i / vectors, v = i % vectors;
      const V exact = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums[i], excess(c, t, input + n, g)));
      total[i] = less_bias(c, t, input + n, g, v,
                           fma(exact, load(t.scales + g * height + 16 * v), total[i]));
    });
  }
  unrolled<N * vectors>([&](auto i) { put(c, t, input + i / vectors, i % vectors, total[i]); });
}

template <int vectors>
void multiply_tile(const PackedCall& c, const Tile& t) {
  i64 n = 0;
  if (c.w->groups == 1) {
    constexpr int many = 24 / vectors;  // registers of sums
    for (; n + many <= c.batch; n += many) multiply_whole<vectors, many>(c, t, n);
    for (; n + 2 <= c.batch; n += 2) multiply_whole<vectors, 2>(c, t, n);
    for (; n < c.batch; n++) multiply_whole<vectors, 1>(c, t, n);
  } else {
    constexpr int many = 12 / vectors;
    for (; n + many <= c.batch; n += many) multiply_groups<vectors, many>(c, t, n);
    for (; n < c.batch; n++) multiply_groups<vectors, 1>(c, t, n);
  }
}

template <int kind>
void run_tiles(const PackedCall& c) {
  for (i64 row = c.row0; row < c.row1; row += height) {
    const int rows = static_cast<int>(std::min<i64>(height, c.row1 - row));
    const Tile t = turn<kind>(c, row, rows);
    if (rows > 32)
      multiply_tile<3>(c, t);
    else if (rows > 16)
      multiply_tile<2>(c, t);
    else
      multiply_tile<1>(c, t);
  }
}

}  // namespace

void linear_i8_avx512_integer_tiles(const PackedCall& c) { run_tiles<Packed::i8>(c); }
void linear_nib4_avx512_integer_tiles(const PackedCall& c) { run_tiles<Packed::nib4>(c); }

}  // namespace pare
