// Integer products with many inputs, for the AMX class.
//
// One instruction multiplies 16 inputs with 16 rows of weights over 64 columns, 16384 products,
// and adds them to 32-bit sums. It wants four columns of a row of weights beside four of the next,
// so rows are turned as for AVX-512, but stay signed; what turning costs is shared by all inputs.
//
// Sums are exact, and scaled in the order of the AVX-512 tiles: same bits. A group
// is a multiple of 64 columns.
#include <algorithm>

#include "kernel/rows.h"
#include "kernel/simd_avx512.h"
#include "kernel/tiles_amx.h"

namespace pare {
namespace {

using i64 = std::int64_t;
using u8 = std::uint8_t;
constexpr int height = 2 * tile_rows;

#include "kernel/integer_tiles.inl"

// Where the operands of some tiles of sums begin.
struct Operands {
  const std::int8_t *x0, *x1;
  i64 x_stride;
  const u8 *w0, *w1;
};

// The exact sums of a group become totals, the last totals outputs. As the AVX-512 tiles do, so the
// bits are the same.
struct Scaling {
  const PackedCall* c = nullptr;
  const Tile* t = nullptr;
  i64 g = 0;
  const std::int32_t* sums = nullptr;  // of a block
  float* totals = nullptr;
  void operator()(int v, i64 input, i64 count, i64 at) const;
};

void Scaling::operator()(int v, i64 input, i64 count, i64 at) const {
  const i64 groups = c->w->groups, from = g * height + side * v;
  const V scale = load(t->scales + from);
  const auto exact = [&] { return _mm512_load_si512(sums + at); };
  if (g > 0 && g < groups - 1 && t->bias == nullptr) {  // most often, where groups are small
    for (i64 n = 0; n < count; n++, at += side)
      store(totals + at, fma(_mm512_cvtepi32_ps(exact()), scale, load(totals + at)));
    return;
  }
  const V bias = t->bias == nullptr ? set1(0.0f) : load(t->bias + from);
  const float *code_scales = c->code_scales + input, *input_sums = c->sums + input * groups + g;
  const auto mask = static_cast<__mmask16>((1u << std::min(side, t->rows - side * v)) - 1);
  float* y = c->y + input * c->y_stride + t->row + side * v;
  for (i64 n = 0; n < count; n++, at += side) {
    V total;
    if (groups == 1)
      total = scaled(exact(), t->scales + from);
    else
      total = fma(_mm512_cvtepi32_ps(exact()), scale, g == 0 ? set1(0.0f) : load(totals + at));
    if (t->bias != nullptr) total = fma(bias, set1(-input_sums[n * groups]), total);
    if (g < groups - 1)
      store(totals + at, total);
    else
      _mm512_mask_storeu_ps(y + n * c->y_stride, mask, mul(set1(code_scales[n]), total));
  }
}

constexpr i64 step = 64;  // columns

// The sums of columns [k, end); meanwhile other sums are scaled.
template <int inputs, int vectors>
void multiply(const Operands& o, i64 k, i64 end, Waiting<Scaling>& waiting, std::int32_t* sums) {
  const int portions = static_cast<int>(all_portions * step / (end - k) + 1);
  clear_sums<inputs, vectors>();
  for (; k < end; k += step) {
    _tile_loadd(4, o.x0 + k, o.x_stride);
    _tile_loadd(6, o.w0 + side * k, 64);
    _tile_dpbssd(0, 4, 6);
    if constexpr (inputs > 1) {
      _tile_loadd(5, o.x1 + k, o.x_stride);
      _tile_dpbssd(1, 5, 6);
    }
    if constexpr (vectors > 1) {
      _tile_loadd(7, o.w1 + side * k, 64);
      _tile_dpbssd(2, 4, 7);
    }
    if constexpr (inputs > 1 && vectors > 1) _tile_dpbssd(3, 5, 7);
    waiting.scale(portions);
  }
  waiting.scale(all_portions);
  store_sums<inputs, vectors>(sums);
}

// Group g of one or two tiles of inputs with all rows of t.
template <int inputs>
void multiply_rows(const PackedCall& c, const Cut& cut, const Tile& t, i64 tile, i64 g,
                   Waiting<Scaling>& waiting) {
  const i64 sixteen = side * c.w->in_padded;
  const i64 begin = g * c.w->group, end = std::min(c.w->in_padded, begin + c.w->group);
  std::int32_t* sums = reinterpret_cast<std::int32_t*>(t.behind);
  float* totals = t.behind + 4 * square;
  Operands o{c.codes + cut.first(tile) * c.x_stride,
             c.codes + cut.first(tile + inputs - 1) * c.x_stride, c.x_stride, t.bytes,
             t.bytes + sixteen};
  for (int v = 0; v * side < t.rows; v += 2) {
    const int vectors = t.rows - v * side > side ? 2 : 1;
    if (vectors == 2)
      multiply<inputs, 2>(o, begin, end, waiting, sums);
    else
      multiply<inputs, 1>(o, begin, end, waiting, sums);
    waiting.begin({tile, inputs, v, vectors}, {&c, &t, g, sums, totals});
    o.w0 += 2 * sixteen;
    o.w1 += 2 * sixteen;
    totals += 2 * inputs * square;
  }
}

template <int kind>
void run_tiles(const PackedCall& c) {
  const Cut cut(c.batch);
  configure(cut, step);
  for (i64 row = c.row0; row < c.row1; row += height) {
    const int rows = static_cast<int>(std::min<i64>(height, c.row1 - row));
    const Tile t = turn<kind>(c, row, rows, 0, {64, side * c.w->in_padded});
    settle_memory();
    Waiting<Scaling> waiting(cut);
    for (i64 tile = 0; tile < cut.tiles; tile += 2)
      for (i64 g = 0; g < c.w->groups; g++)
        if (tile + 1 < cut.tiles)
          multiply_rows<2>(c, cut, t, tile, g, waiting);
        else
          multiply_rows<1>(c, cut, t, tile, g, waiting);
    waiting.scale(all_portions);
  }
  _tile_release();
}

}  // namespace

void linear_i8_amx_integer_tiles(const PackedCall& c) { run_tiles<Packed::i8>(c); }
void linear_nib4_amx_integer_tiles(const PackedCall& c) { run_tiles<Packed::nib4>(c); }

}  // namespace pare
