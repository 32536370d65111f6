// Factors of symmetric matrices in double, by blocks, on any number of threads with the same bits
// on every ISA (kernel/outer.h).
#pragma once

#include <optional>
#include <span>

#include "base/pool.h"
#include "base/view.h"
#include "kernel/panels.h"

namespace pare {

struct PivotFailure {
  i64 row = 0;
  double pivot = 0;  // what was left of the diagonal; not above the floor, or not finite
};

// A = V^T V, V upper triangular with a positive diagonal, written over the upper triangle of A (n,
// n); what lies below the diagonal is neither read nor kept. A pivot must exceed floor[row].
std::optional<PivotFailure> cholesky(Matrix<double> a, std::span<const double> floor, Pool&);

// The inverse of an upper triangular V, transposed: V^-T is lower triangular and is written over
// the lower triangle (diagonal included) of the same memory; what lies above is not kept.
void invert_transposed(Matrix<double> v, Pool&);

// U, upper triangular, with (H)^-1 = U^T U for H = the rows and columns `order` of a symmetric
// matrix, plus `added` (by original column) on its diagonal. This is the factor that GPTQ walks
// along: row i of U, divided by its diagonal, says how later columns make up for an error in
// column order[i] when all before are fixed.
//
// H = R R^T with R upper triangular gives U = R^-1 at the cost of one factorization and one
// triangular inverse, 2/3 n^3 operations; with the order reversed that is cholesky() and
// invert_transposed(). Memory: n^2 doubles.
class InverseFactor {
 public:
  // A pivot counts as zero below 2^-23 of its diagonal: the matrix is kept in floats, and less is
  // their noise. The failure's row is then a column of `matrix`.
  static std::optional<PivotFailure> make(Matrix<const float> matrix, std::span<const i64> order,
                                          std::span<const double> added, Pool&, InverseFactor& out);

  // Rows [begin, end), columns [begin, n) of U, rounded to floats: (end - begin, n - begin).
  void rows(i64 begin, i64 end, Matrix<float> out) const;
  double diagonal(i64 i) const {  // of U
    const i64 k = n_ - 1 - i;
    return lower_[static_cast<std::size_t>(k * n_ + k)];
  }
  i64 size() const { return n_; }

 private:
  i64 n_ = 0;
  Panels<double> lower_;  // U read backwards
};

}  // namespace pare
