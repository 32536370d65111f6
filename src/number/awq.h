// Between our planes and AWQ's GEMM layout (qweight, qzeros, scales), as AutoAWQ stores it; to the
// bit in docs/interchange.md.
#pragma once

#include <optional>
#include <vector>

#include "number/raw_plane.h"

namespace pare {

// None when the layout holds a matrix of this scheme with the values it has.
std::optional<Misfit> awq_misfit(const Scheme&, i64 rows, i64 cols);

std::vector<RawPlane> plan_awq(const Scheme&, i64 rows, i64 cols);  // without data
std::vector<RawPlane> to_awq(const Tensor&);  // Error NU-033: a scale that f16 does not have

// The inverse: int4 with zero points; groups, or one scale a row. Scales keep the file's type.
Tensor from_awq(const std::vector<RawPlane>& planes, const Scheme&, i64 rows, i64 cols);

}  // namespace pare
