// GPTQ: rounding whose errors are made up for by the columns still to come.
//
// For a row w of the matrix and inputs with Gram matrix G, changing w by e costs e G e^T. Fix the
// columns in an order; when column j is stored as q, the best change of those after it is
// -(w_j - q) / U_jj * U_j,: with U the upper Cholesky factor of G^-1 (Frantar et al. 2022, after
// Hassibi and Stork 1993). Rows are independent. Columns are walked in blocks: within a block every
// step is applied at once, and what lies beyond gets a whole block's errors in one product
// (kernel/outer.h), so nearly all arithmetic is a dense product and the result has the same bits on
// every ISA with any number of threads.
//
// With ActOrder::fixed the order is by falling E[x^2] and groups are fitted to the original
// weights; with none, a group is fitted to its weights as they are when the walk arrives at its
// first column.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernel/factor.h"
#include "kernel/outer.h"
#include "pass/quantize/solver_inputs.h"

namespace pare {
namespace {

constexpr double most_damping = 1;
constexpr i64 rows_at_once = 8;

void refuse_what_cannot_be(const MatrixTask& task, const GptqOptions& options) {
  if (task.scheme.sparsity != Sparsity::dense)
    fail(Exit::usage, "QU-044",
         fmt::format("gptq moves every weight of {} and would undo the pattern of {}", task.name,
                     to_string(task.scheme)),
         {}, "use --method rtn for this matrix");
  if (task.inputs == nullptr || task.inputs->gram.empty() || task.inputs->tokens == 0)
    fail(Exit::usage, "QU-042",
         fmt::format("gptq needs the Gram matrix of the inputs of {}", task.name), {},
         "calibrate with Gram matrices, or use --method rtn or hqq");
  if (!(options.damping >= 0) || !std::isfinite(options.damping) || options.block < 1)
    fail(Exit::usage, "QU-045", "damping must be 0 or more, and blocks of one column or more",
         {{"damping", fmt::format("{}", options.damping)},
          {"block", fmt::format("{}", options.block)}});
}

std::vector<i64> column_order(const InputStatistics& inputs, ActOrder order) {
  std::vector<i64> columns(inputs.sum_square.size());
  std::iota(columns.begin(), columns.end(), 0);
  if (order == ActOrder::fixed)
    std::stable_sort(columns.begin(), columns.end(), [&](i64 a, i64 b) {
      return inputs.sum_square[static_cast<std::size_t>(a)] >
             inputs.sum_square[static_cast<std::size_t>(b)];
    });
  return columns;
}

// The factor with the least damping of the ladder (times ten each step) that lets it exist. False:
// none does.
bool factor(const MatrixTask& task, const GptqOptions& options, const std::vector<i64>& order,
            Pool& pool, InverseFactor& out, std::vector<std::string>& notes) {
  const Matrix<const float> gram = task.inputs->gram_view();
  double mean = 0;
  i64 dead = 0;
  for (i64 k = 0; k < gram.cols; k++) {
    mean += static_cast<double>(gram.row(k)[k]) / static_cast<double>(gram.cols);
    dead += gram.row(k)[k] == 0.0f;
  }
  if (dead > 0)
    notes.push_back(
        fmt::format("{} inputs are always zero: their weights are rounded to nearest", dead));
  std::vector<double> added(static_cast<std::size_t>(gram.cols));
  std::optional<PivotFailure> failure;
  double damping = options.damping;
  for (;;) {
    // A dead column is coupled to no other, so any diagonal serves.
    for (i64 k = 0; k < gram.cols; k++)
      added[static_cast<std::size_t>(k)] =
          gram.row(k)[k] == 0.0f ? std::max(1.0, std::abs(mean)) : damping * mean;
    failure = InverseFactor::make(gram, order, added, pool, out);
    if (!failure || damping >= most_damping) break;
    damping = std::min(most_damping, std::max(1e-4, 10 * damping));
  }
  if (failure) {
    notes.push_back(
        fmt::format("the Gram matrix of {} has no Cholesky factor even with damping {:g} (input "
                    "{}, pivot {:.3g}): "
                    "rounded to nearest with importances",
                    task.name, damping, failure->row, failure->pivot));
    return false;
  }
  if (damping != options.damping)
    notes.push_back(
        fmt::format("the Gram matrix of {} is nearly singular: damping raised from {:g} to {:g}",
                    task.name, options.damping, damping));
  return true;
}

// One walk over the columns of a matrix.
struct Walk {
  const MatrixTask& task;
  const std::vector<i64>& order;
  const InverseFactor& factor;
  Pool& pool;
  unsigned isa = isa_here();
  Encoder encoder;
  i64 rows, cols, unit_rows, unit_cols;
  bool fit_on_the_way;
  std::vector<float> importance;
  Panels<float> weights;  // (rows, cols) in the order of the walk
  std::vector<float> errors,
      u;  // of a block: (columns, rows); rows of U from the diagonal block on

  Walk(const MatrixTask& t, const GptqOptions& options, const std::vector<i64>& columns,
       const InverseFactor& inverse, Pool& team)
      : task(t),
        order(columns),
        factor(inverse),
        pool(team),
        encoder(t.scheme, t.weights.rows, t.weights.cols, t.fit, t.weights),
        rows(t.weights.rows),
        cols(t.weights.cols),
        unit_rows(encoder.unit_rows()),
        unit_cols(encoder.unit_cols()),
        // A unit as wide as the matrix is met before anything has moved.
        fit_on_the_way(options.order == ActOrder::none && unit_cols < cols),
        importance(importances(t)) {}

  void fit_unit(i64 row, i64 col, const float* values, i64 stride) {
    const i64 n = std::min(unit_cols, cols - col);
    encoder.fit(row, col, {values, std::min(unit_rows, rows - row), n, stride},
                std::span<const float>(importance)
                    .subspan(static_cast<std::size_t>(col), static_cast<std::size_t>(n)));
  }

  void fit_all() {
    pool.run((rows + unit_rows - 1) / unit_rows, 1, [&](i64 begin, i64 end) {
      for (i64 row = begin * unit_rows; row < std::min(rows, end * unit_rows); row += unit_rows)
        for (i64 col = 0; col < cols; col += unit_cols)
          fit_unit(row, col, task.weights.row(row) + col, task.weights.stride);
    });
  }

  void arrange() {
    weights.resize(static_cast<std::size_t>(rows * cols));
    pool.run(rows, 16, [&](i64 begin, i64 end) {
      for (i64 r = begin; r < end; r++)
        for (i64 j = 0; j < cols; j++)
          weights[static_cast<std::size_t>(r * cols + j)] =
              task.weights.row(r)[order[static_cast<std::size_t>(j)]];
    });
  }

  // Columns [from, to) of a few rows within the block [first, last). A step of one row waits for
  // its rounding; the other rows' steps fill that time.
  void walk_rows(i64 begin, i64 end, i64 from, i64 to, i64 first, i64 last) {
    for (i64 j = from; j < to; j++) {
      const float* step = u.data() + (j - first) * (cols - first);  // zero before its diagonal
      const float diagonal = step[j - first];
      // From a whole vector on: the columns before j + 1 in it are stored already or get zero.
      const i64 start = (j + 1 - first) / 16 * 16;
      for (i64 row = begin; row < end; row++) {
        float* w = weights.data() + row * cols;
        const float stored = encoder.snap(row, order[static_cast<std::size_t>(j)], w[j]);
        const float error = (w[j] - stored) / diagonal;
        errors[static_cast<std::size_t>((j - first) * rows + row)] = error;
        if (error != 0)
          subtract_scaled(step + start, error, last - first - start, w + first + start, isa);
      }
    }
  }

  // Rows [begin, end), which are whole units where units are fitted on the way.
  void walk_block(i64 begin, i64 end, i64 first, i64 last) {
    for (i64 from = first; from < last;) {
      i64 to = last;
      if (fit_on_the_way) {
        to = std::min(last, (from / unit_cols + 1) * unit_cols);
        if (from % unit_cols == 0)
          for (i64 row = begin; row < end; row += unit_rows)
            fit_unit(row, from, weights.data() + row * cols + from, cols);
      }
      for (i64 row = begin; row < end; row += rows_at_once)
        walk_rows(row, std::min(end, row + rows_at_once), from, to, first, last);
      from = to;
    }
  }

  // Blocks end where a unit starts that reaches beyond them, so that all of its weights are current
  // when it is fitted.
  i64 block_end(i64 first, i64 block) const {
    i64 last = std::min(cols, first + block);
    if (!fit_on_the_way || last == cols) return last;
    if (unit_cols <= block) return std::max(first + unit_cols, last / unit_cols * unit_cols);
    return std::min(last, (first / unit_cols + 1) * unit_cols);
  }

  Tensor run(i64 block) {
    arrange();
    if (!fit_on_the_way) fit_all();
    for (i64 first = 0; first < cols;) {
      const i64 last = block_end(first, block), size = last - first;
      u.resize(static_cast<std::size_t>(size * (cols - first)));
      factor.rows(first, last, {u.data(), size, cols - first});
      errors.assign(static_cast<std::size_t>(size * rows), 0.0f);
      const i64 team = fit_on_the_way ? unit_rows : 1;
      pool.run((rows + team - 1) / team, 1, [&](i64 begin, i64 end) {
        walk_block(begin * team, std::min(rows, end * team), first, last);
      });
      if (last < cols)
        outer(Outer::subtract, {weights.data() + last, rows, cols - last, cols},
              Matrix<const float>(errors.data(), size, rows),
              Matrix<const float>(u.data() + size, size, cols - last, cols - first), false, pool,
              isa);
      first = last;
    }
    return encoder.finish();
  }
};

}  // namespace

Solution solve_gptq(const MatrixTask& task, const GptqOptions& options, Pool& pool) {
  refuse_what_cannot_be(task, options);
  check_inputs(task);
  if (task.scheme.plain()) {
    Solution solution = solve_rtn(task, pool);
    solution.notes.push_back(
        fmt::format("{} is a plain format: rounded to nearest", to_string(task.scheme)));
    return solution;
  }
  std::vector<std::string> notes;
  const std::vector<i64> order = column_order(*task.inputs, options.order);
  InverseFactor inverse;
  if (!factor(task, options, order, pool, inverse, notes)) {
    Solution solution = solve_rtn(task, pool);
    solution.notes = std::move(notes);
    solution.degraded = true;
    return solution;
  }
  Walk walk(task, options, order, inverse, pool);
  return {walk.run(options.block), std::move(notes), false};
}

}  // namespace pare
