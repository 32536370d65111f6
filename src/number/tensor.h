// A tensor as Pare holds it: a scheme, a shape, and planes stored apart.
//
// File formats that interleave planes (ggml blocks) or pack them otherwise (AWQ) are taken apart
// and put together at the file's edge; inside there is one layout:
//   codes         rows x row_bytes(scheme, cols); a row is a bit stream, element k at bit k*bits,
//                 least significant first (plain floats and 8-bit codes are simply arrays)
//   scales        (scale_rows, scale_cols), one element each in `scheme.scale`'s own width,
//   sub-byte
//                 codes in a whole byte
//   zeros         int8, same grid: Offset::zero (in the signed range of the code)
//   mins          as scales: Offset::minimum
//   super_scales  (scale_rows, ceil(scale_cols / super_count)) or one element; in `scheme.super`
//   super_mins    likewise, with Offset::minimum
//   mask          bitmask sparsity: bit k of row r set when the weight is kept; codes then hold all
//   weights
#pragma once

#include <span>
#include <vector>

#include "base/view.h"
#include "number/scheme.h"

namespace pare {

struct Tensor {
  Scheme scheme;
  std::vector<i64> shape;  // rank 1 (cols) or 2 (rows, cols) = (out, in)
  Blob codes, scales, zeros, mins, super_scales, super_mins, mask;

  i64 rows() const { return shape.size() < 2 ? 1 : shape[0]; }
  i64 cols() const { return shape.empty() ? 1 : shape.back(); }
  i64 count() const { return rows() * cols(); }
  i64 bytes() const;  // of all planes as held
};

// Planes have the sizes that scheme and shape demand (PARE_CHECK inside loaders; Error NU-001
// naming the plane when they come from a file).
void check(const Tensor&, std::string_view name);

// The definition of every scheme: scalar and obvious.
void decode_row(const Tensor&, i64 row, std::span<float> out);  // (cols)
void decode_range(const Tensor&, i64 row, i64 col0, i64 col1,
                  std::span<float> out);          // (col1 - col0)
std::vector<float> decode(const Tensor&);         // (rows, cols)
float scale_at(const Tensor&, i64 row, i64 col);  // the scale the decoder uses for that weight
float min_at(const Tensor&, i64 row, i64 col);
int zero_at(const Tensor&, i64 row, i64 col);
int code_at(const Tensor&, i64 row,
            i64 col);  // integer codes: the signed value; others: the pattern

// A plain tensor from floats, rounded to f32, f16 or bf16.
Tensor plain_tensor(std::span<const float> values, std::vector<i64> shape, Code code = Code::f32);

}  // namespace pare
