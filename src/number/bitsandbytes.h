// Between our planes and those of bitsandbytes: NF4 and FP4 with plain or doubly quantized absmax,
// and int8 with one absmax a row; to the bit in docs/interchange.md.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "number/raw_plane.h"

namespace pare {

// What "weight.quant_state.bitsandbytes__nf4" says, checked. Error NU-036 names the field.
struct Bnb4State {
  Code code = Code::nf4;
  i64 rows = 0, cols = 0, block = 64;
  bool nested = false;
  i64 nested_block = 256;
  float nested_offset = 0;
};
Bnb4State parse_bnb4_state(const RawPlane&);

// None when the layout holds a matrix of this scheme with the values it has.
std::optional<Misfit> bnb4_misfit(const Scheme&, i64 rows, i64 cols);
std::optional<Misfit> bnb8_misfit(const Scheme&, i64 rows, i64 cols);

// `dtype`: of the dense model, "bfloat16". Suffixes: "weight", "weight.absmax",
// "weight.quant_map", "weight.nested_absmax", "weight.nested_quant_map",
// "weight.quant_state.bitsandbytes__nf4". The absmax are written doubly quantized when that form
// holds them exactly, else as they are.
std::vector<RawPlane> plan_bnb4(const Scheme&, i64 rows, i64 cols, const std::string& dtype);
std::vector<RawPlane> to_bnb4(const Tensor&, const std::string& dtype);

// The scheme of what is read: absmax become scales in f32 (doubly quantized ones are multiplied
// out as bitsandbytes does); blocks that cross the end of a row are cut there.
Scheme bnb4_scheme(const Bnb4State&);
Tensor from_bnb4(const std::vector<RawPlane>& planes, const Bnb4State&);

// Suffixes "weight", "SCB", "weight_format". A weight is code * SCB / 127. Error NU-037: a scale
// that no SCB gives.
std::vector<RawPlane> plan_bnb8(i64 rows, i64 cols);
std::vector<RawPlane> to_bnb8(const Tensor&);
Tensor from_bnb8(const std::vector<RawPlane>& planes, i64 rows, i64 cols);

}  // namespace pare
