// Rounding to nearest with importances, the measure of every method, and what all solvers ask of
// their inputs.
#include <cmath>

#include "kernel/gram.h"
#include "pass/quantize/solver_inputs.h"

namespace pare {

void check_inputs(const MatrixTask& task) {
  const Matrix<const float>& w = task.weights;
  for (i64 r = 0; r < w.rows; r++)
    for (i64 c = 0; c < w.cols; c++)
      if (!std::isfinite(w.row(r)[c]))
        fail_input("QU-040", fmt::format("a weight of {} is not finite", task.name),
                   {{"row", fmt::format("{}", r)},
                    {"column", fmt::format("{}", c)},
                    {"found", fmt::format("{}", w.row(r)[c])}},
                   "the checkpoint is damaged or its training diverged; --skip leaves it as it is");
  if (task.inputs == nullptr) return;
  const InputStatistics& in = *task.inputs;
  if (static_cast<i64>(in.sum_square.size()) != w.cols)
    fail_input("QU-043", fmt::format("the statistics of {} are of another shape", task.name),
               {{"found", fmt::format("{} inputs", in.sum_square.size())},
                {"need", fmt::format("{}", w.cols)}},
               "calibrate the model that is to be quantized");
  const auto refuse = [&](i64 row, i64 col, double found) {
    fail_input("QU-041", fmt::format("the statistics of {} are not finite", task.name),
               {{"inputs", row == col ? fmt::format("{}", row) : fmt::format("{}, {}", row, col)},
                {"found", fmt::format("{}", found)}},
               "the model overflows on the calibration text, or the file of statistics is damaged");
  };
  for (i64 k = 0; k < w.cols; k++) {
    const double sum = in.sum_square[static_cast<std::size_t>(k)];
    if (!std::isfinite(sum) || sum < 0) refuse(k, k, sum);
  }
  if (in.gram.empty()) return;
  PARE_CHECK(static_cast<i64>(in.gram.size()) == w.cols * w.cols);
  for (i64 r = 0; r < w.cols; r++)
    for (i64 c = 0; c < w.cols; c++) {
      const float g = in.gram[static_cast<std::size_t>(r * w.cols + c)];
      if (!std::isfinite(g)) refuse(r, c, static_cast<double>(g));
    }
}

std::vector<float> importances(const MatrixTask& task) {
  std::vector<float> weight;
  if (task.inputs == nullptr || task.inputs->tokens == 0) return weight;
  for (i64 k = 0; k < task.weights.cols; k++)
    weight.push_back(static_cast<float>(task.inputs->mean_square(k)));
  return weight;
}

Solution solve_rtn(const MatrixTask& task, Pool& pool) {
  check_inputs(task);
  return {quantize(task.weights, task.scheme, task.fit, importances(task), &pool), {}, false};
}

namespace {

// Rows of W, or of W - decode(*stored), a few at a time.
template <class F>
void each_chunk(const MatrixTask& task, const Tensor* stored, Pool& pool, const F& use) {
  const Matrix<const float>& w = task.weights;
  constexpr i64 chunk = 256;
  std::vector<float> error(
      static_cast<std::size_t>(stored == nullptr ? 0 : std::min(chunk, w.rows) * w.cols));
  for (i64 row = 0; row < w.rows; row += chunk) {
    const i64 count = std::min(chunk, w.rows - row);
    if (stored == nullptr) {
      use(Matrix<const float>(w.row(row), count, w.cols, w.stride));
      continue;
    }
    pool.run(count, 1, [&](i64 begin, i64 end) {
      for (i64 r = begin; r < end; r++) {
        float* e = error.data() + r * w.cols;
        decode_row(*stored, row + r, {e, static_cast<std::size_t>(w.cols)});
        for (i64 c = 0; c < w.cols; c++) e[c] = w.row(row + r)[c] - e[c];
      }
    });
    use(Matrix<const float>(error.data(), count, w.cols));
  }
}

double weighted_squares(Matrix<const float> x, const std::vector<float>& weight) {
  double sum = 0;
  for (i64 r = 0; r < x.rows; r++)
    for (i64 c = 0; c < x.cols; c++) {
      const double v = static_cast<double>(x.row(r)[c]);
      sum +=
          v * v * (weight.empty() ? 1.0 : static_cast<double>(weight[static_cast<std::size_t>(c)]));
    }
  return sum;
}

// tr(X G X^T) of the matrix or of its errors: the inner product of X^T X, a Gram matrix of rows,
// with G.
double squares_of_outputs(const MatrixTask& task, const Tensor* stored, Pool& pool) {
  if (task.inputs != nullptr && !task.inputs->gram.empty()) {
    const Matrix<const float> gram = task.inputs->gram_view();
    GramSum sum(gram.cols);
    each_chunk(task, stored, pool, [&](Matrix<const float> x) { sum.add(x, pool); });
    const double squares = sum.inner(gram, pool);
    return squares < 0 ? 0 : squares;  // rounding may leave a zero a little below
  }
  const std::vector<float> weight = importances(task);
  double sum = 0;
  each_chunk(task, stored, pool,
             [&](Matrix<const float> x) { sum += weighted_squares(x, weight); });
  return sum;
}

}  // namespace

double output_loss(const MatrixTask& task, const Tensor& stored, Pool& pool) {
  PARE_CHECK(stored.rows() == task.weights.rows && stored.cols() == task.weights.cols);
  return squares_of_outputs(task, &stored, pool);
}

double output_power(const MatrixTask& task, Pool& pool) {
  return squares_of_outputs(task, nullptr, pool);
}

double relative_loss(double loss, double power) { return loss == 0 ? 0 : loss / power; }

}  // namespace pare
