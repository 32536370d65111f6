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

#include "kernel/integer_tiles.inl"

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
  const int offset = kind == Packed::i8 ? 128 : stored_offset<kind>(*c.w);
  for (i64 row = c.row0; row < c.row1; row += height) {
    const int rows = static_cast<int>(std::min<i64>(height, c.row1 - row));
    const Tile t = turn<kind>(c, row, rows, offset, {quad, 64});
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
