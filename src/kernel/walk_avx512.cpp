// Walks (kernel/walk.inl) for the AVX-512 class.
#include <cstdint>
#include <cstring>

#include "kernel/walk_isa.h"

namespace pare {
namespace {

#include "kernel/walk.inl"

}  // namespace

void walk_avx512(const float* w, Matrix<const float> u, const WalkLanes& lanes, float* error) {
  walk(w, u, lanes, error);
}

}  // namespace pare
