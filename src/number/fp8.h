// Between our planes and FP8 checkpoints in the form of DeepSeek-V3: e4m3 codes and one f32
// multiplier a block, which the files call weight_scale_inv.
#pragma once

#include <optional>
#include <vector>

#include "number/raw_plane.h"

namespace pare {

// None when the layout holds a matrix of this scheme with the values it has: e4m3 in blocks of
// 128 x 128, which is what consumers take.
std::optional<Misfit> fp8_misfit(const Scheme&, i64 rows, i64 cols);

std::vector<RawPlane> plan_fp8(const Scheme&, i64 rows, i64 cols);  // without data
std::vector<RawPlane> to_fp8(const Tensor&);

// The inverse, for blocks of any size and one scale a tensor; `scale` names the plane of scales
// ("weight_scale_inv", "weight_scale"). Scales keep the file's type.
Tensor from_fp8(const std::vector<RawPlane>& planes, const Scheme&, const std::string& scale,
                i64 rows, i64 cols);

}  // namespace pare
