// Element-wise operations on rows of floats, one table per ISA, and their scalar truth.
#pragma once

#include "base/view.h"
#include "kernel/isa.h"

namespace pare {

enum class Act : std::uint8_t { silu, gelu, gelu_tanh, relu, relu2 };

// All functions work on n floats; y may be x.
struct VectorOps {
  // y = x * rsqrt(mean(x^2) + eps) * (weight + plus); plus = 0, or 1 for Gemma's offset norms
  void (*rms_norm)(const float* x, const float* weight, float plus, float eps, i64 n, float* y);
  // y = (x - mean) * rsqrt(var + eps) * weight + bias; bias may be null
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float eps, i64 n,
                     float* y);
  // y = act(gate) * up, or act(gate) when up is null
  void (*activate)(Act, const float* gate, const float* up, i64 n, float* y);
  // y = x + scale * add
  void (*add)(const float* x, const float* add, float scale, i64 n, float* y);
  // Rotates the first `dims` floats of x in place; cosine and sine have dims / 2 entries.
  // interleaved: pairs (2i, 2i + 1), else (i, i + dims / 2)
  void (*rope)(float* x, const float* cosine, const float* sine, i64 dims, bool interleaved);
  // y = cap * tanh(x / cap)
  void (*softcap)(const float* x, float cap, i64 n, float* y);
  // returns ln(sum(exp(x)))
  double (*log_sum_exp)(const float* x, i64 n);
  // the largest |x|; 0 of none
  float (*magnitude)(const float* x, i64 n);
  // y = x * inverse, not beyond +-top (<= 127), rounded to nearest even
  void (*to_int8)(const float* x, float inverse, float top, i64 n, std::int8_t* y);
  i64 (*sum_int8)(const std::int8_t* x, i64 n);
};

const VectorOps& vector_ops(unsigned isa);  // the best table for these classes
const VectorOps& vector_ops_reference();    // scalar, double accumulation

}  // namespace pare
