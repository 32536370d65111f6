// GPTQ: rounding whose errors are made up for by the columns still to come.
//
// For a row w of the matrix and inputs with Gram matrix G, changing w by e costs e G e^T. Fix the
// columns in an order; when column j is stored as q, the best change of those after it is
// -(w_j - q) / U_jj * U_j,: with U the upper Cholesky factor of G^-1 (Frantar et al. 2022, after
// Hassibi and Stork 1993). Here the factor is made; gptq_walk.cpp goes along it.
#include <cmath>

#include "pass/quantize/gptq_walk.h"
#include "pass/quantize/solver_inputs.h"

namespace pare {
namespace {

constexpr double most_damping = 1;
constexpr const char* order_words[] = {"none", "fixed", "groups"};

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
  if (!(options.damping >= 0) || !std::isfinite(options.damping) || options.block < 1 ||
      options.polish < 0)
    fail(Exit::usage, "QU-045",
         "damping and polish must be 0 or more, and blocks of one column or more",
         {{"damping", fmt::format("{}", options.damping)},
          {"polish", fmt::format("{}", options.polish)},
          {"block", fmt::format("{}", options.block)}});
}

// The factor with the least damping of the ladder (times ten each step) that lets it exist. False:
// none does.
bool factor(const MatrixTask& task, const GptqOptions& options, const std::vector<i64>& order,
            Pool& pool, Damped& out, std::vector<std::string>& notes) {
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
  out.added.resize(static_cast<std::size_t>(gram.cols));
  std::optional<PivotFailure> failure;
  double damping = options.damping;
  for (;;) {
    // A dead column is coupled to no other, so any diagonal serves.
    for (i64 k = 0; k < gram.cols; k++)
      out.added[static_cast<std::size_t>(k)] =
          gram.row(k)[k] == 0.0f ? std::max(1.0, std::abs(mean)) : damping * mean;
    failure = InverseFactor::make(gram, order, out.added, pool, out.inverse);
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

}  // namespace

std::string to_string(ActOrder order) { return order_words[static_cast<int>(order)]; }

std::optional<ActOrder> act_order_of(const std::string& word) {
  for (ActOrder order : {ActOrder::none, ActOrder::fixed, ActOrder::groups})
    if (word == to_string(order)) return order;
  return std::nullopt;
}

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
  Encoder encoder(task.scheme, task.weights.rows, task.weights.cols, task.fit, task.weights);
  const Route route = route_of(*task.inputs, options.order, encoder.unit_cols());
  Damped gram;
  if (!factor(task, options, route.columns, pool, gram, notes)) {
    Solution solution = solve_rtn(task, pool);
    solution.notes = std::move(notes);
    solution.degraded = true;
    return solution;
  }
  return {go_along(task, options, route, gram, std::move(encoder), pool), std::move(notes), false};
}

}  // namespace pare
