// The tensors of a module as a file holds them, and the words with which a layout declines.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "number/tensor.h"

namespace pare {

// One tensor of a module: "<module>.<suffix>". dtype is a safetensors name.
struct RawPlane {
  std::string suffix;  // "weight_packed"
  std::string dtype;   // "I32"
  std::vector<i64> shape;
  Blob bytes;
};

const RawPlane* find_plane(const std::vector<RawPlane>&, std::string_view suffix);

// The bytes of a plane with the type and number of elements of `want`. Error NU-030.
Blob demand_plane(const std::vector<RawPlane>&, const RawPlane& want);

// Why a layout cannot hold a matrix without changing a value.
struct Misfit {
  std::string found, need;
  std::string scheme;  // one that would fit, for `pare quantize --weights`; may be empty
};

// Columns that share a scale, the whole row for one scale a row or a tensor.
i64 group_columns(const Scheme&, i64 cols);

// Scales as another file has them: one for each (row, group of `group` columns), so blocks,
// whole-tensor and two-level scales spread out. (rows, groups)
std::vector<float> spread_scales(const Tensor&, i64 group);
// The same transposed (groups, rows), in f16. Error NU-033: a value that f16 does not have.
Blob f16_scales_by_group(const Tensor&, i64 group);

// (rows, cols) elements of `width` bytes to (cols, rows).
Blob turn_plane(const Blob&, i64 rows, i64 cols, std::size_t width);

// F32, F16 or BF16 of a float code.
std::string float_name(Code);

}  // namespace pare
