// Between our planes and GPTQ's (qweight, qzeros, scales, g_idx), as AutoGPTQ and GPTQModel store
// them; to the bit in docs/interchange.md.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "number/raw_plane.h"

namespace pare {

// None when the layout holds a matrix of this scheme with the values it has.
std::optional<Misfit> gptq_misfit(const Scheme&, i64 rows, i64 cols);

// Names, dtypes and shapes without data.
std::vector<RawPlane> plan_gptq(const Scheme&, i64 rows, i64 cols);

// `permutation` (cols), or empty: column permutation[i] of the file is column i of the tensor, so
// g_idx[permutation[i]] = i / group. `v2`: zero points are stored as they are; else (v1) less one,
// and Error NU-034 names a zero point of 0. Error NU-033: a scale that f16 does not have.
std::vector<RawPlane> to_gptq(const Tensor&, std::span<const std::int32_t> permutation, bool v2);

// The columns of a file in the order of their groups, for `permuted`; empty when they are in it
// already. Errors: NU-032 an index outside the groups, or a group that is not `group` long.
std::vector<std::int32_t> group_order(std::span<const std::int32_t> g_idx, i64 group);

// The inverse. The scheme's grouping is group or channel; with Offset::none the file's zero points
// must all be the middle of the range (Error NU-035). Scales keep the file's type.
Tensor from_gptq(const std::vector<RawPlane>& planes, const Scheme&, i64 rows, i64 cols,
                 std::span<const std::int32_t> permutation, bool v2);

// The bit pattern order[i] of each row of codes becomes pattern i. (cols) entries, each a column.
Blob gather_codes(const Blob& codes, const Scheme&, i64 rows, std::span<const std::int32_t> order);

}  // namespace pare
