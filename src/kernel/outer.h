// Sums of outer products, C += A^T B: the one product behind Gram matrices, Cholesky factors and
// the updates of GPTQ.
//
// An element of C is changed once for every 256 consecutive rows of A and B, by one chain of fused
// multiply-adds over them in their order. Tiles, threads and vectors only decide who computes it,
// so the bits are the same on every ISA, the scalar one included, with any number of threads.
#pragma once

#include "base/pool.h"
#include "base/view.h"
#include "kernel/isa.h"

namespace pare {

constexpr i64 outer_depth = 256;  // rows of A and B in one chain

enum class Outer : std::uint8_t { add, subtract };

// C (m, n) += or -= A^T B for A (k, m), B (k, n). With `upper` only elements on and above the
// diagonal of C are computed; some below it are changed too. C must not overlap A or B.
void outer(Outer, Matrix<float> c, Matrix<const float> a, Matrix<const float> b, bool upper, Pool&,
           unsigned isa = isa_here());
void outer(Outer, Matrix<double> c, Matrix<const double> a, Matrix<const double> b, bool upper,
           Pool&, unsigned isa = isa_here());

// y[i] = fma(-scale, x[i], y[i]): one row of such a sum, the same bits on every ISA.
// For many short rows ask isa_here() once: it reads the environment.
void subtract_scaled(const float* x, float scale, i64 n, float* y, unsigned isa = isa_here());

}  // namespace pare
