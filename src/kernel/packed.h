// Packed: a matrix laid out for the vector rows. Plain data, shared by the packer and the ISA
// files.
//
//   y[r] = sum_g ( scale[r][g] * sum_k value[r][k] x[k] - bias[r][g] * sum_k x[k] ),  k in group g
//
// Values are codes of one of a few kinds; every integer code of at most 4 bits and every 4-bit
// table is `nib4` (sixteen values looked up), other integers are `i8`. Groups of second-level
// schemes and of blocks get their effective scale. So few kernels serve every scheme, and the bytes
// streamed stay those of the scheme but for 2- and 3-bit codes (4 bits) and 5- to 7-bit codes (8
// bits).
#pragma once

#include <cstdint>

namespace pare {

struct Packed {
  enum Kind : std::int32_t { f32, f16, bf16, e4m3, e5m2, i8, nib4 };
  enum ScaleKind : std::int32_t { scale_none, scale_f32, scale_f16, scale_bf16 };
  Kind kind;
  ScaleKind scale_kind;
  std::int64_t in, in_padded, out;  // in_padded: a multiple of 128; padding has code 0 and x 0
  std::int64_t group, groups;       // weights a scale covers within a row, scales a row
  std::int64_t row_bytes;           // of codes
  const std::uint8_t* codes;        // (out, row_bytes)
  const void* scales;               // (out, groups) in scale_kind
  const float* bias;                // (out, groups) or null
  float table[16];                  // nib4: value of a pattern
};

// One call of a row of the kernel table: outputs [row0, row1) for every input of the batch.
struct PackedCall {
  const Packed* w;
  // Inputs in the order the kernel asked for (arrange): (batch, x_stride) floats, or int8 codes.
  const float* x;
  const std::int8_t* codes;
  const std::uint16_t*
      terms;          // or each input as three bf16 rows, x_stride apart, that add up to it
  const float* sums;  // (batch, groups): sums of x over the weight groups (of codes, for integers)
  const float* code_scales;  // (batch): scale of a token's codes
  float* y;                  // (batch, y_stride)
  std::int64_t batch, x_stride, y_stride, row0, row1;
  float* tile;  // scratch of at least tile_floats(in_padded), at a cache line
};
constexpr std::int64_t tile_rows = 48;
constexpr std::int64_t piece_columns = 1024;               // decoded and turned at a time
constexpr std::int64_t piece_stride = piece_columns + 16;  // not all rows in the same cache set

// Of products of terms: sums of a block, totals of two tiles of inputs, codes as bf16, and scales
// and biases of the groups that a piece touches.
constexpr std::int64_t terms_rows = 288;
constexpr std::int64_t terms_groups = piece_columns / 64 + 1;
constexpr std::int64_t terms_tile_floats =
    4 * 16 * 16 + terms_rows * (2 * 16 + piece_columns / 2 + 2 * terms_groups);

constexpr std::int64_t tile_floats(std::int64_t in_padded) {
  const std::int64_t whole = tile_rows * in_padded;
  const std::int64_t pieces = tile_rows * piece_columns + 16 * piece_stride;
  const std::int64_t most = whole > pieces ? whole : pieces;
  return most > terms_tile_floats ? most : terms_tile_floats;
}

}  // namespace pare
