// Products of many float inputs with weights whose codes bf16 holds, for the AMX class.
//
// An f32 input is the sum of three bf16 terms without any error, and so is the product of a term
// with a code; sums are f32, as elsewhere. Three products of bf16 tiles are still several times
// faster than one in f32. Rows of weights are turned, two columns of a row beside two of the next,
// which all inputs share.
//
// Columns come in pieces whose weights stay in the second-level cache while all inputs pass; sums
// of a piece's groups are scaled and added to y.
#include <algorithm>

#include "kernel/rows.h"
#include "kernel/simd_avx512.h"
#include "kernel/tiles_amx.h"
#include "kernel/unrolled.h"

namespace pare {
namespace {

using i64 = std::int64_t;
using u8 = std::uint8_t;
using u16 = std::uint16_t;
constexpr int height = terms_rows;
constexpr i64 step = 32;  // columns; a group is a multiple

#include "kernel/scale.inl"

// The upper halves of 32 floats, in order.
I upper_halves(V first, V second) {
  return reinterpret_cast<I>(_mm512_cvtne2ps_pbh(second, first));
}

// Codes of 32 columns as bf16.
template <int kind>
I codes_of(const u8* row, i64 k, I table) {
  if constexpr (kind == Packed::bf16) return _mm512_loadu_si512(row + 2 * k);
  if constexpr (kind == Packed::i8) return upper_halves(value_i8(row + k), value_i8(row + k + 16));
  if constexpr (kind == Packed::e4m3)
    return upper_halves(value_e4m3(row + k), value_e4m3(row + k + 16));
  if constexpr (kind == Packed::e5m2)
    return upper_halves(value_e5m2(row + k), value_e5m2(row + k + 16));
  // A byte holds two columns: the lower half the first. One lane looks both up.
  const I pair =
      _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row + k / 2)));
  const I both = _mm512_and_si512(_mm512_or_si512(pair, _mm512_slli_epi32(pair, 12)),
                                  _mm512_set1_epi32(0x000f000f));
  return _mm512_permutexvar_epi16(both, table);
}

// Both halves hold the sixteen values, so an index of four bits is enough.
I table_of(const Packed& w) {
  const V values = load(w.table);
  return upper_halves(values, values);
}

// Columns [begin, end) of 16 rows: (columns / 2, 16, 2).
template <int kind>
void turn_sixteen(const Packed& w, i64 row, i64 rows, i64 begin, i64 end, u16* to) {
  const I table = kind == Packed::nib4 ? table_of(w) : _mm512_setzero_si512();
  for (i64 k = begin; k < end; k += 32, to += 32 * side) {
    I r[16];
    for (int i = 0; i < 16; i++)
      r[i] = i < rows ? codes_of<kind>(w.codes + (row + i) * w.row_bytes, k, table)
                      : _mm512_setzero_si512();
    transpose(r);
    for (int i = 0; i < 16; i++) _mm512_store_si512(to + 32 * i, r[i]);
  }
}

// A piece of the columns of some rows.
struct Piece {
  u16* codes;            // (16 rows each, columns / 2, 16, 2)
  float* scales;         // of the groups from `group` on: (groups, height)
  float* bias;           // the same, or null
  float *sums, *totals;  // of a block; of two tiles of inputs with all rows
  i64 row, begin, end, group;
  int rows;
};

template <int kind>
void turn(const Packed& w, Piece& p) {
  for (int r = 0; r < p.rows; r += side)
    turn_sixteen<kind>(w, p.row + r, p.rows - r, p.begin, p.end, p.codes + r * (p.end - p.begin));
  p.group = p.begin / w.group;
  for (i64 g = p.group; g * w.group < p.end; g++)
    for (int r = 0; r < height; r++) {
      const i64 from = (p.row + r) * w.groups + g, to = (g - p.group) * height + r;
      p.scales[to] = r < p.rows ? scale_of(w, from) : 0;
      if (p.bias != nullptr) p.bias[to] = r < p.rows ? w.bias[from] : 0;
    }
}

// Scaled sums of a group's columns are added to totals, or where a piece begins or ends, to y.
struct Scaling {
  const PackedCall* c = nullptr;
  const Piece* p = nullptr;
  i64 g = 0;
  bool first = false, last = false, ends = false;  // of the piece; the group ends
  const float* sums = nullptr;                     // of a block
  float* totals = nullptr;
  void operator()(int v, i64 input, i64 count, i64 at) const;
};

void Scaling::operator()(int v, i64 input, i64 count, i64 at) const {
  const i64 groups = c->w->groups, from = (g - p->group) * height + side * v;
  const V scale = load(p->scales + from);
  const bool biased = ends && p->bias != nullptr;
  if (!first && !last && !biased) {  // most often, where groups are small
    for (i64 n = 0; n < count; n++, at += side)
      store(totals + at, fma(load(sums + at), scale, load(totals + at)));
    return;
  }
  const V bias = biased ? load(p->bias + from) : set1(0.0f);
  const auto mask = static_cast<__mmask16>((1u << std::min(side, p->rows - side * v)) - 1);
  float* y = c->y + input * c->y_stride + p->row + side * v;
  for (i64 n = 0; n < count; n++, at += side, y += c->y_stride) {
    V total = set1(0.0f);
    if (!first)
      total = load(totals + at);
    else if (p->begin > 0)
      total = _mm512_maskz_loadu_ps(mask, y);
    total = fma(load(sums + at), scale, total);
    if (biased) total = fma(bias, set1(-c->sums[(input + n) * groups + g]), total);
    if (last)
      _mm512_mask_storeu_ps(y, mask, total);
    else
      store(totals + at, total);
  }
}

// Where the operands of some tiles of sums begin: the first terms of inputs, and weights.
struct Operands {
  const u16 *x0, *x1;
  i64 x_bytes, term;  // from an input to the next; from a term to the next, in halves
  const u16 *w0, *w1;
};

// The sums of so many columns; meanwhile other sums are scaled.
template <int inputs, int vectors>
void multiply(const Operands& o, i64 columns, Waiting<Scaling>& waiting, float* sums) {
  const int portions = static_cast<int>(all_portions * step / columns + 1);
  clear_sums<inputs, vectors>();
  for (i64 k = 0; k < columns; k += step) {
    _tile_loadd(6, o.w0 + side * k, 64);
    if constexpr (vectors > 1) _tile_loadd(7, o.w1 + side * k, 64);
    unrolled<3>([&](auto term) __attribute__((always_inline)) {
      const i64 at = k + term * o.term;
      _tile_loadd(4, o.x0 + at, o.x_bytes);
      _tile_dpbf16ps(0, 4, 6);
      if constexpr (vectors > 1) _tile_dpbf16ps(2, 4, 7);
      if constexpr (inputs > 1) {
        _tile_loadd(5, o.x1 + at, o.x_bytes);
        _tile_dpbf16ps(1, 5, 6);
      }
      if constexpr (inputs > 1 && vectors > 1) _tile_dpbf16ps(3, 5, 7);
    });
    waiting.scale(portions);
  }
  waiting.scale(all_portions);
  store_sums<inputs, vectors>(sums);
}

// Columns [k, end), of one group, of one or two tiles of inputs with all rows of p.
template <int inputs>
void multiply_rows(const PackedCall& c, const Cut& cut, const Piece& p, i64 tile, i64 k, i64 end,
                   Waiting<Scaling>& waiting) {
  const Packed& w = *c.w;
  const i64 input = 3 * c.x_stride, sixteen = side * (p.end - p.begin), g = k / w.group;
  Operands o{c.terms + cut.first(tile) * input + k,
             c.terms + cut.first(tile + inputs - 1) * input + k,
             2 * input,
             c.x_stride,
             p.codes + side * (k - p.begin),
             p.codes + side * (k - p.begin) + sixteen};
  Scaling scaling{&c,           &p,           g,
                  k == p.begin, end == p.end, end == std::min(w.in_padded, (g + 1) * w.group),
                  p.sums,       p.totals};
  for (int v = 0; v * side < p.rows; v += 2) {
    const int vectors = p.rows - v * side > side ? 2 : 1;
    if (vectors == 2)
      multiply<inputs, 2>(o, end - k, waiting, p.sums);
    else
      multiply<inputs, 1>(o, end - k, waiting, p.sums);
    scaling.totals = p.totals + v * inputs * square;
    waiting.begin({tile, inputs, v, vectors}, scaling);
    o.w0 += 2 * sixteen;
    o.w1 += 2 * sixteen;
  }
}

template <int inputs>
void multiply_inputs(const PackedCall& c, const Cut& cut, const Piece& p, i64 tile,
                     Waiting<Scaling>& waiting) {
  const i64 group = c.w->group;
  for (i64 k = p.begin, end = 0; k < p.end; k = end) {
    end = std::min(p.end, (k / group + 1) * group);
    multiply_rows<inputs>(c, cut, p, tile, k, end, waiting);
  }
}

// In the scratch, as terms_tile_floats counts it.
Piece piece_in(const PackedCall& c) {
  Piece p{};
  p.sums = c.tile;
  p.totals = p.sums + 4 * square;
  p.codes = reinterpret_cast<u16*>(p.totals + 2 * side * height);
  p.scales = reinterpret_cast<float*>(p.codes + height * piece_columns);
  if (c.w->bias != nullptr) p.bias = p.scales + height * terms_groups;
  return p;
}

template <int kind>
void run_tiles(const PackedCall& c) {
  const Cut cut(c.batch);
  configure(cut, 2 * step);
  Piece p = piece_in(c);
  for (p.row = c.row0; p.row < c.row1; p.row += height) {
    p.rows = static_cast<int>(std::min<i64>(height, c.row1 - p.row));
    for (p.begin = 0; p.begin < c.w->in_padded; p.begin = p.end) {
      p.end = std::min(c.w->in_padded, p.begin + piece_columns);
      turn<kind>(*c.w, p);
      settle_memory();
      Waiting<Scaling> waiting(cut);
      for (i64 tile = 0; tile < cut.tiles; tile += 2)
        if (tile + 1 < cut.tiles)
          multiply_inputs<2>(c, cut, p, tile, waiting);
        else
          multiply_inputs<1>(c, cut, p, tile, waiting);
      waiting.scale(all_portions);
    }
  }
  _tile_release();
}

}  // namespace

// Each term is what is left, cut to its upper half: eight bits, with the sign of x, so that three
// hold all 24. Of an infinity nothing is left, and a NaN must not become one.
void split_terms_amx(const float* x, i64 n, i64 padded, u16* terms, i64 apart) {
  const I upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  for (i64 k = 0; k < padded; k += 16) {
    const i64 left = std::clamp<i64>(n - k, 0, 16);
    V rest = _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << left) - 1), x + k);
    const __mmask16 nan = _mm512_cmp_ps_mask(rest, rest, _CMP_UNORD_Q);
    const __mmask16 endless = _mm512_cmp_ps_mask(abs(rest), set1(__builtin_inff()), _CMP_NLT_UQ);
    for (int term = 0; term < 3; term++) {
      I bits = _mm512_and_si512(_mm512_castps_si512(rest), upper);
      if (term == 0) bits = _mm512_mask_or_epi32(bits, nan, bits, _mm512_set1_epi32(0x400000));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(terms + term * apart + k),
                          _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
      rest = _mm512_mask_mov_ps(sub(rest, _mm512_castsi512_ps(bits)), endless, set1(0.0f));
    }
  }
}

void linear_bf16_amx_tiles(const PackedCall& c) { run_tiles<Packed::bf16>(c); }
void linear_e4m3_amx_tiles(const PackedCall& c) { run_tiles<Packed::e4m3>(c); }
void linear_e5m2_amx_tiles(const PackedCall& c) { run_tiles<Packed::e5m2>(c); }
void linear_i8_amx_tiles(const PackedCall& c) { run_tiles<Packed::i8>(c); }
void linear_nib4_amx_tiles(const PackedCall& c) { run_tiles<Packed::nib4>(c); }

}  // namespace pare
