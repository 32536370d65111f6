// Solvers: from one matrix of floats to its stored codes.
//
// A solver knows a scheme only through the Encoder's `fit` and `snap` (number/encode.h) and the
// inputs only through their statistics, so that every method serves every scheme. One file a
// method.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/pool.h"
#include "engine/statistics.h"
#include "number/encode.h"

namespace pare {

struct MatrixTask {
  std::string name;             // "blocks.3.attn.q", for messages
  Matrix<const float> weights;  // (out, in)
  Scheme scheme;
  FitOptions fit;
  const InputStatistics* inputs = nullptr;  // none: no data
};

struct Solution {
  Tensor tensor;
  std::vector<std::string>
      notes;  // what the report must say: "damping raised to 0.1", "rounded to nearest: ..."
  bool degraded = false;  // the method gave way to another; --strict fails
};

// Squares of the outputs, summed over rows and per token: tr(E G E^T) of the errors E = W -
// decode(stored) and tr(W G W^T) of the matrix; without a Gram matrix G is the diagonal of E[x^2],
// without statistics the identity. Sums in double (with a Gram matrix, products of rows are floats
// in chains of 256, kernel/gram.h). The relative error is their ratio; 0 / 0 is 0.
double output_loss(const MatrixTask&, const Tensor& stored, Pool&);
double output_power(const MatrixTask&, Pool&);
double relative_loss(double loss, double power);

// All solvers: Errors QU-040 for a weight and QU-041 for a statistic that is not finite, with the
// matrix and the place; QU-043 for statistics of another width.

// Rounding to nearest with importances E[x^2] when there are statistics.
Solution solve_rtn(const MatrixTask&, Pool&);

// GPTQ (Frantar et al. 2022, arXiv:2210.17323): columns in order, the error of each is made up by
// those that follow, through the Cholesky factor U of the inverse Gram matrix. Groups are fitted
// with importances 1 / U_jj^2. A column whose input is always zero is rounded to nearest. When the
// factor does not exist, damping is raised tenfold up to 1 (a note says so), and beyond that the
// matrix is rounded to nearest (degraded). Errors QU-042 (no Gram matrix), QU-044 (a sparse
// scheme), QU-045 (options out of range). The same bits on every ISA.
enum class ActOrder : std::uint8_t {
  none,    // columns as they lie; groups are fitted when the walk comes to them
  fixed,   // by falling E[x^2]; groups stay where they are, fitted before the walk (static groups)
  groups,  // group by group, by falling mean E[x^2], and within a group by falling E[x^2]; groups
           // are fitted when the walk comes to them
};
std::string to_string(ActOrder);
std::optional<ActOrder> act_order_of(const std::string& word);
struct GptqOptions {
  double damping =
      0.01;  // of the mean diagonal, added to it; raised by a ladder when the factor fails
  ActOrder order = ActOrder::groups;
  int polish = 4;   // sweeps of coordinate descent over the codes afterwards, at most
  i64 block = 128;  // columns updated together
};
Solution solve_gptq(const MatrixTask&, const GptqOptions&, Pool&);

// HQQ (Badri, Shaji 2023): without data, the zero point that minimises a p-norm of the error, from
// the scale that `fit` gives (Range::absmax is the published start). Errors QU-046 (a scheme
// without offset), QU-044 (a sparse scheme), QU-047 (options out of range).
struct HqqOptions {
  double p = 0.7, beta = 10, growth = 1.01;
  int rounds = 20;
};
Solution solve_hqq(const MatrixTask&, const HqqOptions&, Pool&);

}  // namespace pare
