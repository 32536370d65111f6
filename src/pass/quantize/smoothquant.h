// SmoothQuant (Xiao et al. 2022, arXiv:2211.10438): inputs whose magnitudes spoil the 8-bit codes
// of all others are divided by a scale, and the weights take it over.
#pragma once

#include "pass/quantize/scales.h"

namespace pare {

struct SmoothQuantOptions {
  double alpha = 0.5;  // share of the difficulty that the weights take, 0 to 1; below 0: searched
  int points = 20;     // of the search: i / points, i = 0 .. points, and no scale at all
  bool all = false;    // o and down too, not only what follows a norm
  i64 sample_rows = 256;  // of each matrix, for the errors
};

// The scale of every group of a block whose inputs will be quantized. Errors are those of the
// simulated products, inputs and weights both rounded, on the sample of tokens in the statistics;
// without a sample they are 0 and a search falls back to alpha 0.5. Same bits for any pool.
std::vector<ScaleChoice> smoothquant_scales(const BlockValues&, const Spec&, i64 block,
                                            const Statistics&, const MatrixTargets&,
                                            const SmoothQuantOptions&, Pool&);

}  // namespace pare
