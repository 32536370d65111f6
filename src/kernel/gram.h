// Gram matrices: the sum of x x^T over the inputs x of a matrix, from calibration.
//
// Products are floats, fused, in chains of 256 tokens; the chains' sums are added in double. A
// chain's rounding error is at most 256 * 2^-24 = 1.5e-5 of sum |x_i x_j| and in practice near its
// root, 1e-6, and does not grow with the number of tokens. Tokens are counted into chains of 256 in
// the order they come, however a caller cuts them, and every element is one chain, so the bits
// depend neither on the cuts, nor on threads, nor on the ISA.
#pragma once

#include <vector>

#include "base/pool.h"
#include "base/view.h"
#include "kernel/isa.h"
#include "kernel/panels.h"

namespace pare {

class GramSum {
 public:
  explicit GramSum(i64 n, unsigned isa = isa_here());

  // x (tokens, n). Values that are not finite end up in the sum; its user must look.
  void add(Matrix<const float> x, Pool&);

  i64 tokens() const { return tokens_; }
  i64 size() const { return n_; }
  // (n, n), both triangles, divided by tokens (zeros without tokens). Later additions go on as if
  // it had not been asked for.
  std::vector<float> mean(Pool&) const;

  // Sum over i, j of the sum of x x^T times g, for a symmetric g (n, n). In double.
  double inner(Matrix<const float> g, Pool&) const;

  // Memory of the sums: half a matrix of doubles, about that of the floats of mean().
  static i64 bytes(i64 n);

 private:
  void flush(Pool&);
  template <class F>
  void each_tile(Pool&, const F& use) const;

  i64 n_, tokens_ = 0, waiting_ = 0;
  unsigned isa_;
  Panels<float> panels_;  // (panels, 256, width): tokens that wait for their chain to fill
  Panels<double> sums_;   // block row b (192 rows): columns from 192 b on
};

}  // namespace pare
