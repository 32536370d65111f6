// Products with packed matrices: one text, compiled for each ISA.
//
// The including file defines, in its anonymous namespace: V (L floats), I (L 32-bit integers) and
// the small functions used below. Everything here has internal linkage.
//
// Vector (one input): rows are streamed four at a time, so that each input vector is loaded once
// for four products, and the block after next is prefetched. Codes become floats in registers:
// 4-bit codes by table look-up of eight shifts of one load, which is why inputs come transposed
// (LinearKernel::order). Matrix (a few inputs): a few rows are decoded to floats in the first-level
// cache and multiplied by blocks of inputs. Many inputs: kernel/linear_tiles.inl. Each output is
// sums of fused multiply-adds over k in a fixed order, so it does not depend on how rows or inputs
// are split.

using i64 = std::int64_t;
using u8 = std::uint8_t;

#include "kernel/scale.inl"

struct ScaleReader {
  const Packed& w;
  float at(i64 row, i64 g) const { return scale_of(w, row * w.groups + g); }
  // The scales of a chunk's lanes: lane i gets scale g + index[i].
  V lanes(i64 row, i64 g, I index) const {
    const i64 k = row * w.groups + g;
    switch (w.scale_kind) {
      case Packed::scale_f32:
        return spread_f32(static_cast<const float*>(w.scales) + k, index);
      case Packed::scale_f16:
        return spread_f16(static_cast<const std::uint16_t*>(w.scales) + k, index);
      case Packed::scale_bf16:
        return spread_bf16(static_cast<const std::uint16_t*>(w.scales) + k, index);
      default:
        return set1(1.0f);
    }
  }
};

// Which scale each lane of a step takes: one for all where groups are whole steps.
struct LaneScales {
  bool whole;
  I index;
  LaneScales(const Packed& w, i64 step, i64 weights_a_lane)
      : whole(w.group % step == 0), index(lane_index(whole ? step * L : w.group, weights_a_lane)) {}
};

i64 least(i64 a, i64 b) { return a < b ? a : b; }

template <int kind>
constexpr i64 width() {
  return kind == Packed::f32 ? 4 : kind == Packed::f16 || kind == Packed::bf16 ? 2 : 1;
}

template <int kind>
V value(const u8* at) {
  if constexpr (kind == Packed::f32)
    return load(reinterpret_cast<const float*>(at));
  else if constexpr (kind == Packed::f16)
    return value_f16(at);
  else if constexpr (kind == Packed::bf16)
    return value_bf16(at);
  else if constexpr (kind == Packed::e4m3)
    return value_e4m3(at);
  else if constexpr (kind == Packed::e5m2)
    return value_e5m2(at);
  else
    return value_i8(at);
}

float bias_term(const Packed& w, i64 row, const float* sums) {
  if (w.bias == nullptr) return 0;
  const float* bias = w.bias + row * w.groups;
  float total = 0;
  for (i64 g = 0; g < w.groups; g++) total += bias[g] * sums[g];
  return total;
}

// --- one input
// ---------------------------------------------------------------------------------------

template <int kind, int R>
void vector_block(const PackedCall& c, i64 row) {
  const Packed& w = *c.w;
  const ScaleReader scales{w};
  const u8* at[R];
  V total[R];
  for (int r = 0; r < R; r++) {
    at[r] = w.codes + (row + r) * w.row_bytes;
    total[r] = set1(0.0f);
  }
  const i64 ahead = 4 * w.row_bytes;
  for (i64 g = 0; g < w.groups; g++) {
    const i64 end = least(w.in_padded, (g + 1) * w.group);
    V even[R], odd[R];
    for (int r = 0; r < R; r++) even[r] = odd[r] = set1(0.0f);
    i64 k = g * w.group;
    for (; k + 2 * L <= end; k += 2 * L) {
      const V x0 = load(c.x + k), x1 = load(c.x + k + L);
      for (int r = 0; r < R; r++) {
        const u8* p = at[r] + k * width<kind>();
        prefetch(p + ahead);
        even[r] = fma(value<kind>(p), x0, even[r]);
        odd[r] = fma(value<kind>(p + L * width<kind>()), x1, odd[r]);
      }
    }
    for (; k < end; k += L) {
      const V x0 = load(c.x + k);
      for (int r = 0; r < R; r++)
        even[r] = fma(value<kind>(at[r] + k * width<kind>()), x0, even[r]);
    }
    for (int r = 0; r < R; r++)
      total[r] = fma(add(even[r], odd[r]), set1(scales.at(row + r, g)), total[r]);
  }
  for (int r = 0; r < R; r++) c.y[row + r] = sum(total[r]) - bias_term(w, row + r, c.sums);
}

template <int R>
void vector_block_nib4(const PackedCall& c, i64 row, const LaneScales& lanes) {
  const Packed& w = *c.w;
  const ScaleReader scales{w};
  const Table table = load_table(w.table);
  constexpr i64 chunk = 8 * L;
  const bool whole = lanes.whole;  // a group is whole chunks; else a chunk is whole groups
  const I index = lanes.index;
  const i64 step = whole ? 0 : chunk / w.group;
  const u8* at[R];
  V total[R], part[R];
  for (int r = 0; r < R; r++) {
    at[r] = w.codes + (row + r) * w.row_bytes;
    total[r] = part[r] = set1(0.0f);
  }
  const i64 ahead = 4 * w.row_bytes;
  i64 g = 0, group_end = w.group;
  for (i64 k = 0; k < w.in_padded; k += chunk) {
    I bits[R];
    for (int r = 0; r < R; r++) {
      bits[r] = load_bits(at[r] + k / 2);
      prefetch(at[r] + k / 2 + ahead);
    }
    const float* x = c.x + k;
    for (int s = 0; s < 8; s++) {
      const V xs = load(x + s * L);
      for (int r = 0; r < R; r++) {
        part[r] = fma(lookup(table, bits[r]), xs, part[r]);
        bits[r] = next_nibble(bits[r]);
      }
    }
    if (whole) {
      if (k + chunk < group_end && k + chunk < w.in_padded) continue;
      for (int r = 0; r < R; r++) total[r] = fma(part[r], set1(scales.at(row + r, g)), total[r]);
      g++;
      group_end += w.group;
    } else {
      for (int r = 0; r < R; r++)
        total[r] = fma(part[r], scales.lanes(row + r, g, index), total[r]);
      g += step;
    }
    for (int r = 0; r < R; r++) part[r] = set1(0.0f);
  }
  for (int r = 0; r < R; r++) c.y[row + r] = sum(total[r]) - bias_term(w, row + r, c.sums);
}

template <int kind>
void run_vector(const PackedCall& c) {
  i64 row = c.row0;
  if constexpr (kind == Packed::nib4) {
    const LaneScales lanes(*c.w, 8 * L, 8);
    for (; row + 4 <= c.row1; row += 4) vector_block_nib4<4>(c, row, lanes);
    for (; row < c.row1; row++) vector_block_nib4<1>(c, row, lanes);
  } else {
    for (; row + 4 <= c.row1; row += 4) vector_block<kind, 4>(c, row);
    for (; row < c.row1; row++) vector_block<kind, 1>(c, row);
  }
}

// --- a few inputs
// -------------------------------------------------------------------------------------

// Columns [begin, end) of a row to floats; begin and end are whole chunks of 128.
template <int kind>
void decode_columns(const Packed& w, i64 row, i64 begin, i64 end, const LaneScales& lanes,
                    float* to) {
  const ScaleReader scales{w};
  const u8* at = w.codes + row * w.row_bytes;
  const float* bias = w.bias == nullptr ? nullptr : w.bias + row * w.groups;
  if constexpr (kind == Packed::nib4) {
    const Table table = load_table(w.table);
    constexpr i64 chunk = 8 * L;
    const bool whole = lanes.whole;
    const I index = lanes.index;
    for (i64 k = begin; k < end; k += chunk) {
      const i64 g = k / w.group;
      const V scale = whole ? set1(scales.at(row, g)) : scales.lanes(row, g, index);
      const V shift = bias == nullptr ? set1(0.0f)
                      : whole         ? set1(bias[g])
                                      : spread_f32(bias + g, index);
      I bits = load_bits(at + k / 2);
      for (int s = 0; s < 8; s++) {
        store(to + k - begin + s * L, sub(mul(lookup(table, bits), scale), shift));
        bits = next_nibble(bits);
      }
    }
  } else {
    for (i64 k = begin; k < end;) {
      const i64 g = k / w.group;
      const V scale = set1(scales.at(row, g)), shift = set1(bias == nullptr ? 0.0f : bias[g]);
      for (const i64 stop = least(end, (g + 1) * w.group); k < stop; k += L)
        store(to + k - begin, sub(mul(value<kind>(at + k * width<kind>()), scale), shift));
    }
  }
}

// R rows of the tile by N inputs; one accumulator each.
template <int R, int N>
void multiply_block(const PackedCall& c, const float* const* rows, i64 row, i64 input) {
  V acc[R][N];
  for (int r = 0; r < R; r++)
    for (int n = 0; n < N; n++) acc[r][n] = set1(0.0f);
  const float* x[N];
  for (int n = 0; n < N; n++) x[n] = c.x + (input + n) * c.x_stride;
  for (i64 k = 0; k < c.w->in_padded; k += L) {
    V a[R];
    for (int r = 0; r < R; r++) a[r] = load(rows[r] + k);
    for (int n = 0; n < N; n++) {
      const V b = load(x[n] + k);
      for (int r = 0; r < R; r++) acc[r][n] = fma(a[r], b, acc[r][n]);
    }
  }
  for (int r = 0; r < R; r++)
    for (int n = 0; n < N; n++) c.y[(input + n) * c.y_stride + row + r] = sum(acc[r][n]);
}

template <int R>
void multiply_rows(const PackedCall& c, const float* const* rows, i64 row) {
  i64 n = 0;
  for (; n + block_inputs <= c.batch; n += block_inputs)
    multiply_block<R, block_inputs>(c, rows, row, n);
  for (; n + 2 <= c.batch; n += 2) multiply_block<R, 2>(c, rows, row, n);
  for (; n < c.batch; n++) multiply_block<R, 1>(c, rows, row, n);
}

template <int kind, int R>
void multiply_decoded(const PackedCall& c, i64 row, const LaneScales& lanes) {
  const Packed& w = *c.w;
  const float* rows[R];
  for (int r = 0; r < R; r++) {
    if (kind == Packed::f32 && w.scale_kind == Packed::scale_none) {
      rows[r] = reinterpret_cast<const float*>(w.codes + (row + r) * w.row_bytes);
    } else {
      float* to = c.tile + r * w.in_padded;
      decode_columns<kind>(w, row + r, 0, w.in_padded, lanes, to);
      rows[r] = to;
    }
  }
  multiply_rows<R>(c, rows, row);
}

template <int kind>
void run_matrix(const PackedCall& c) {
  const LaneScales lanes(*c.w, 8 * L, 8);
  i64 row = c.row0;
  for (; row + block_rows <= c.row1; row += block_rows)
    multiply_decoded<kind, block_rows>(c, row, lanes);
  for (; row < c.row1; row++) multiply_decoded<kind, 1>(c, row, lanes);
}

// --- integer inputs
// ----------------------------------------------------------------------------------

// What is subtracted from a row's sum for an input: per_group[g] * sums[g] over the groups.
template <int kind>
void corrections_of(const PackedCall& c, i64 row, float* per_group) {
  const Packed& w = *c.w;
  const ScaleReader scales{w};
  const float offset = kind == Packed::nib4 ? -w.table[0] : 0.0f;  // patterns count from 0
  for (i64 g = 0; g < w.groups; g++)
    per_group[g] =
        scales.at(row, g) * offset + (w.bias == nullptr ? 0.0f : w.bias[row * w.groups + g]);
}

float correction(const Packed& w, const float* per_group, const float* sums) {
  float total = 0;
  for (i64 g = 0; g < w.groups; g++) total += per_group[g] * sums[g];
  return total;
}

template <int kind>
constexpr i64 integer_weights = kind == Packed::nib4 ? nib4_step : i8_step;  // of a step

// R rows by N inputs.
template <int kind, int R, int N, bool one_group>
void integer_block(const PackedCall& c, i64 row, i64 input, const LaneScales& lanes,
                   const float* corr) {
  const Packed& w = *c.w;
  const ScaleReader scales{w};
  constexpr i64 step = integer_weights<kind>;
  const bool whole = lanes.whole;
  const I index = lanes.index;
  I acc[R][N];
  V total[R][N];
  I excess[R];  // what the offset of the inputs adds to every sum of the row
  for (int r = 0; r < R; r++) excess[r] = zero_bits();
  for (int r = 0; r < R; r++)
    for (int n = 0; n < N; n++) acc[r][n] = zero_bits(), total[r][n] = set1(0.0f);
  i64 g = 0, group_end = w.group;
  for (i64 k = 0; k < w.in_padded; k += step) {
    for (int r = 0; r < R; r++) {
      const u8* p = w.codes + (row + r) * w.row_bytes + (kind == Packed::nib4 ? k / 2 : k);
      if (N == 1) prefetch(p + R * w.row_bytes);
      const WeightBytes a = load_weights<kind>(p);
      excess[r] = excess_step<kind>(excess[r], a);
      for (int n = 0; n < N; n++)
        acc[r][n] = integer_step<kind>(acc[r][n], a, c.codes + (input + n) * c.x_stride, k);
    }
    if (one_group) continue;
    if (whole && k + step < group_end && k + step < w.in_padded) continue;
    const i64 next = g + (whole ? 1 : step / w.group);
    for (int r = 0; r < R; r++) {
      const V scale = whole ? set1(scales.at(row + r, g)) : scales.lanes(row + r, g, index);
      for (int n = 0; n < N; n++) {
        total[r][n] = fma(to_float(minus(acc[r][n], excess[r])), scale,
                          total[r][n]);  // exact: a lane's sum in a group is below 2^24
        acc[r][n] = zero_bits();
      }
      excess[r] = zero_bits();
    }
    g = next;
    group_end += w.group;
  }
  for (int r = 0; r < R; r++)
    for (int n = 0; n < N; n++) {
      // One group: the whole row in 32-bit integers, then one rounding.
      const float whole_row = static_cast<float>(
          static_cast<double>(sum_integers(minus(acc[r][n], excess[r]))) * scales.at(row + r, 0));
      const float value = one_group ? whole_row : sum(total[r][n]);
      const float shift = correction(w, corr + r * w.groups, c.sums + (input + n) * w.groups);
      c.y[(input + n) * c.y_stride + row + r] = c.code_scales[input + n] * (value - shift);
    }
}

template <int kind, int R, bool one_group>
void integer_rows(const PackedCall& c, i64 row, const LaneScales& lanes) {
  float* corr = c.tile;  // (R, groups)
  for (int r = 0; r < R; r++) corrections_of<kind>(c, row + r, corr + r * c.w->groups);
  constexpr int many = one_group ? 4 : 2;  // the sums of groups need registers too
  i64 n = 0;
  for (; n + many <= c.batch; n += many)
    integer_block<kind, R, many, one_group>(c, row, n, lanes, corr);
  for (; n < c.batch; n++) integer_block<kind, R, 1, one_group>(c, row, n, lanes, corr);
}

template <int kind, bool one_group>
void run_integer_rows(const PackedCall& c) {
  const LaneScales lanes(*c.w, integer_weights<kind>,
                         kind == Packed::nib4 ? 8 : integer_weights<kind> / L);
  i64 row = c.row0;
  for (; row + integer_row_block <= c.row1; row += integer_row_block)
    integer_rows<kind, integer_row_block, one_group>(c, row, lanes);
  for (; row < c.row1; row++) integer_rows<kind, 1, one_group>(c, row, lanes);
}

template <int kind>
void run_integers(const PackedCall& c) {
  if (c.w->groups == 1)
    run_integer_rows<kind, true>(c);
  else
    run_integer_rows<kind, false>(c);
}
