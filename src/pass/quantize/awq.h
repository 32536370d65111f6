// AWQ (Lin et al. 2023, arXiv:2306.00978): inputs that matter are given finer codes by scaling
// their columns up before rounding; then the range of each group is clipped where that helps.
#pragma once

#include "pass/quantize/scales.h"
#include "pass/quantize/solver.h"

namespace pare {

struct AwqOptions {
  int points = 20;        // ratios i / points, i < points
  bool plain = true;      // s = mean|x|^r
  bool duo = true;        // s = mean|x|^r / mean|w|^(1-r)
  bool stored = true;     // also where the division must be stored (Absorb::stored)
  i64 sample_rows = 256;  // candidates are tried on so many rows of each matrix, spread evenly
  int clip_points = 10;   // ranges max (1 - i / (2 clip_points)), i < clip_points
};

// The best scale of every group of a block, by the output error over all calibration tokens. The
// statistics are those of the inputs as the block has them now. Notes say what was chosen or why
// nothing was. Same bits for any pool.
std::vector<ScaleChoice> awq_scales(const BlockValues&, const Spec&, i64 block, const Statistics&,
                                    const MatrixTargets&, const AwqOptions&, Pool&);

// Weights whose magnitudes are clamped, group by group of each row, where the rounded result then
// has a smaller error. Queries and keys are left as they are (their error passes a softmax), and so
// are schemes whose scales span rows.
struct Clipped {
  std::vector<float> weights;    // (out, in)
  double before = 0, after = 0;  // sum over groups of e^T G e, relative to that of the weights
  i64 groups = 0;                // clamped
  std::string note;              // why nothing was tried
};
Clipped awq_clip(const MatrixTask&, const AwqOptions&, Pool&);

}  // namespace pare
