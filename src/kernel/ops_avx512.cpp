// The element-wise operations (kernel/ops.inl) for this ISA class.
#include "kernel/ops.h"
#include "kernel/simd_avx512.h"

namespace pare {
namespace {

#include "kernel/ops.inl"

}  // namespace

extern const VectorOps vector_ops_avx512;
const VectorOps vector_ops_avx512 = {rms_norm, layer_norm,  activate,  add_scaled, rope,
                                     softcap,  log_sum_exp, magnitude, to_int8,    sum_int8};

}  // namespace pare
