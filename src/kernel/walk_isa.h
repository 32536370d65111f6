// The walk of each ISA. Internal to the kernel layer.
#pragma once

#include "kernel/walk.h"

namespace pare {

#if defined(__x86_64__)
void walk_avx2(const float* w, Matrix<const float> u, const WalkLanes&, float* error);
void walk_avx512(const float* w, Matrix<const float> u, const WalkLanes&, float* error);
#endif

}  // namespace pare
