// The walk of GPTQ over the columns of a matrix. Internal to gptq.cpp.
#pragma once

#include <vector>

#include "kernel/factor.h"
#include "pass/quantize/solver.h"

namespace pare {

// The columns in the order of the walk, and where in it the units of the scheme lie that are fitted
// when the walk arrives at them: none when all are fitted before it.
struct Route {
  struct Unit {
    i64 begin, end;  // places in the walk
    i64 col;         // its first column
  };
  std::vector<i64> columns;
  std::vector<Unit> units;
};
Route route_of(const InputStatistics&, ActOrder, i64 unit_cols);

// What is added to the diagonal of the Gram matrix, by column, and the factor of the inverse of the
// sum, by place in the walk.
struct Damped {
  std::vector<double> added;
  InverseFactor inverse;
};

// The encoder has fitted nothing yet.
Tensor go_along(const MatrixTask&, const GptqOptions&, const Route&, const Damped&, Encoder, Pool&);

}  // namespace pare
