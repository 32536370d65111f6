// What the methods that choose scales (awq.h, smoothquant.h) share: what will become of each
// matrix, a choice, and how it is applied.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/pool.h"
#include "kernel/linear.h"
#include "number/encode.h"
#include "pass/quantize/block.h"

namespace pare {

// How a matrix will be stored and its inputs quantized. A matrix that has no target, or a plain
// float scheme of 16 bits and more, is left alone and adds no error.
struct MatrixTarget {
  Scheme scheme;
  Activation activation;
  FitOptions fit;
};
using MatrixTargets = std::map<std::string, MatrixTarget, std::less<>>;  // "blocks.3.attn.q"
bool rounds(const MatrixTarget&);

// The scale of one group. Errors are relative mean squares of the outputs, summed over the members
// that have a target. Where no scale at all was among the candidates, `after` is at most `before`.
struct ScaleChoice {
  ScaleGroup group;
  std::vector<float> scale;      // (in), shareable; empty: none is applied
  double before = 0, after = 0;  // error without and with the scale
  std::string note;              // "ratio 0.35, duo", "alpha 0.6", "no statistics"
};

// Applies the choices in order: values, Linear::input_scaled, and the statistics of what the
// matrices will then read.
void apply_choices(const std::vector<ScaleChoice>&, i64 block, BlockValues&, Spec&, Statistics&);

// Statistics of x / s.
void scale_statistics(InputStatistics&, const std::vector<float>& s);

// What quantize() and decode() make of `weights`. importance per column or empty. Same bits for any
// pool.
std::vector<float> round_trip(Matrix<const float> weights, const Scheme&, const FitOptions&,
                              std::span<const float> importance, Pool&);

// `limit` rows of a matrix spread evenly over it, in whole units of rows that share a scale; all
// rows when one scale spans them. (rows, in)
std::vector<float> even_rows(Matrix<const float> weights, const Scheme&, i64 limit);

// Mean squares of the inputs divided by s^2, as importances: empty without statistics. s may be
// empty: ones.
std::vector<float> importances(const InputStatistics*, std::span<const float> s);

// Mean square of outputs over the tokens of a calibration, without a forward pass: a row e of
// weights gives E[(e x)^2] = e^T G e with the Gram matrix G of the inputs, or, where only E[x^2]
// was kept, with its diagonal. Of all columns, or of [begin, begin + count) as if the others were
// zero.
class OutputNorm {
 public:
  // The statistics must outlive it.
  explicit OutputNorm(const InputStatistics&, Pool&);
  OutputNorm(const InputStatistics&, i64 begin, i64 count);  // used on one thread
  // One number a row; e (rows, in or count). Same bits for any pool; null: the calling thread.
  std::vector<double> rows(Matrix<const float> e, Pool*) const;
  double total(Matrix<const float> e, Pool*) const;

 private:
  i64 count_ = 0;
  std::vector<float> diagonal_;
  PackedLinear gram_;
};

}  // namespace pare
