// HQQ, half-quadratic quantization: without data, the offset that a heavy-tailed error prefers.
//
// Few weights of a group are large, and their errors matter more than least squares would say, so
// the error is measured as a p-norm with p < 1: sum |w - w'|^p. The errors are split off as their
// own variable E, drawn to w - w' with a growing weight beta; for fixed codes the best E is a
// shrinkage of w - w', and for fixed E the best offset is a mean (Badri and Shaji 2023). The scale
// stays as fitted.
//
// Offsets are in the form x = scale * q - minimum, q from 0 (number/encode.h). HQQ's float zero
// point is minimum / scale; what is stored here is the minimum, or with an integer zero point its
// rounding. As in the published code rounds are judged by mean |w - w'|; since the store rounds,
// each offset is judged as stored and the best one kept: the result is never worse in that measure
// than the fitted group it starts from.
#include <algorithm>
#include <cmath>

#include "pass/quantize/solver_inputs.h"

namespace pare {
namespace {

// 1.5 * 2^23: adding and subtracting rounds to nearest even.
float round_even(float x) { return (x + 12582912.0f) - 12582912.0f; }

// One group: values of a row (or the rows of a block) that share scale and offset.
struct HqqGroup {
  Encoder& encoder;
  i64 row, col, rows, cols;
  const MatrixTask& task;
  float top;  // the largest q
  float scale = 0, inverse = 0;

  // f(w, scale * q) for every weight under a minimum.
  template <class F>
  void each(float minimum, const F& f) const {
    for (i64 r = row; r < row + rows; r++) {
      const float* w = task.weights.row(r) + col;
      for (i64 c = 0; c < cols; c++)
        f(w[c], scale * round_even(std::clamp((w[c] + minimum) * inverse, 0.0f, top)));
    }
  }

  double error(float minimum) const {
    double sum = 0;
    each(minimum, [&](float w, float product) { sum += std::abs(w - (product - minimum)); });
    return sum;
  }

  // The mean of scale * q - (w - E), E the shrunken errors: those up to `dead` shrink to nothing.
  float next(float minimum, double p, double beta) const {
    const float dead = static_cast<float>(std::pow(beta, -1 / (2 - p)));
    double sum = 0;
    each(minimum, [&](float w, float product) {
      sum += product - w;
      const float e = w - (product - minimum), size = std::abs(e);
      if (size > dead)
        sum += std::copysign(size - std::pow(static_cast<double>(size), p - 1) / beta, e);
    });
    return static_cast<float>(sum / static_cast<double>(rows * cols));
  }

  void solve(const HqqOptions& o) {
    scale = encoder.scale(row, col);
    if (!(scale > 0)) return;
    inverse = 1 / scale;
    float minimum = encoder.minimum(row, col), best = minimum;
    double least = error(best), beta = o.beta;
    for (int round = 0; round < o.rounds; round++, beta *= o.growth) {
      const float moved = next(minimum, o.p, beta);
      if (moved == minimum) break;
      minimum = moved;
      encoder.set_minimum(row, col, moved);
      const float stored = encoder.minimum(row, col);
      const double now = error(stored);
      if (now < least) least = now, best = stored;
    }
    encoder.set_minimum(row, col, best);
  }
};

void refuse_what_cannot_be(const MatrixTask& task, const HqqOptions& o) {
  if (task.scheme.offset == Offset::none)
    fail(Exit::usage, "QU-046",
         fmt::format("hqq moves the zero points of {}, and {} has none", task.name,
                     to_string(task.scheme)),
         {}, "add :asym or :min to the scheme, or use --method rtn");
  if (task.scheme.sparsity != Sparsity::dense)
    fail(Exit::usage, "QU-044",
         fmt::format("hqq moves the zeros of {} and would undo the pattern of {}", task.name,
                     to_string(task.scheme)),
         {}, "use --method rtn for this matrix");
  if (!(o.p > 0 && o.p <= 1) || !(o.beta > 0) || !(o.growth >= 1) || o.rounds < 0)
    fail(Exit::usage, "QU-047", "hqq needs 0 < p <= 1, beta > 0, growth >= 1, rounds >= 0",
         {{"p", fmt::format("{}", o.p)},
          {"beta", fmt::format("{}", o.beta)},
          {"growth", fmt::format("{}", o.growth)},
          {"rounds", fmt::format("{}", o.rounds)}});
}

}  // namespace

Solution solve_hqq(const MatrixTask& task, const HqqOptions& options, Pool& pool) {
  refuse_what_cannot_be(task, options);
  check_inputs(task);
  const Matrix<const float>& w = task.weights;
  Encoder encoder(task.scheme, w.rows, w.cols, task.fit, w);
  const i64 unit_rows = encoder.unit_rows(), unit_cols = encoder.unit_cols();
  const float top = static_cast<float>((1 << bits(task.scheme.code)) - 1);
  pool.run((w.rows + unit_rows - 1) / unit_rows, 1, [&](i64 begin, i64 end) {
    for (i64 row = begin * unit_rows; row < std::min(w.rows, end * unit_rows); row += unit_rows) {
      const i64 rows = std::min(unit_rows, w.rows - row);
      for (i64 col = 0; col < w.cols; col += unit_cols)
        encoder.fit(row, col,
                    {w.row(row) + col, rows, std::min(unit_cols, w.cols - col), w.stride});
      const i64 width = task.scheme.cols > 0 ? task.scheme.cols : w.cols;  // of a group
      for (i64 col = 0; col < w.cols; col += width)
        HqqGroup{encoder, row, col, rows, std::min(width, w.cols - col), task, top}.solve(options);
      for (i64 r = row; r < row + rows; r++)
        for (i64 c = 0; c < w.cols; c++) encoder.snap(r, c, w.row(r)[c]);
    }
  });
  return {encoder.finish(), {}, false};
}

}  // namespace pare
