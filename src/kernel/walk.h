// Walks over one group of one row under several scales at once: what each would lose (GPTQ).
#pragma once

#include "base/view.h"
#include "kernel/isa.h"

namespace pare {

constexpr int walk_lanes = 16;
constexpr i64 walk_columns = 256;  // at most

// Lane c stores w as scale * q - minimum, with q = (w + minimum) * inverse, cut to [low, high] and
// rounded to the nearest even.
struct WalkLanes {
  float scale[walk_lanes], inverse[walk_lanes], minimum[walk_lanes];
  float low = 0, high = 0;
};

// Columns in order, each w_j stored and the later ones moved: w_k -= e_j * u_jk with
// e_j = (w_j - stored) / u_jj. error[c] = sum of e_j^2 of lane c. w (n), u (n, n), of which what
// lies below the diagonal is not read. Every operation is rounded by itself, so the bits are the
// same on every ISA.
void walk_errors(const float* w, Matrix<const float> u, const WalkLanes&, float* error,
                 unsigned isa = isa_here());

}  // namespace pare
