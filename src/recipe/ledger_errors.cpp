// Predictions held against what was measured.
//
// Each figure that has both is one point; base and changed model are two. The median is taken as
// the correction, since one busy moment of a machine must not bend all predictions to come. What an
// older way to predict got wrong says nothing about the present one, so it is left out.
#include <algorithm>
#include <cmath>
#include <map>

#include "recipe/ledger.h"

namespace pare {
namespace {

// Nearest rank.
double quantile(std::vector<double>& values, double q) {
  std::sort(values.begin(), values.end());
  const double n = static_cast<double>(values.size());
  return values[static_cast<std::size_t>(std::clamp(std::ceil(q * n), 1.0, n)) - 1];
}

double median(std::vector<double>& values) {
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

bool ran_on(const RunRecord& run, const Machine& machine) {
  return run.machine.processor == machine.processor && run.machine.isa == machine.isa &&
         (machine.threads == 0 || run.machine.threads == machine.threads);
}

}  // namespace

PredictionErrors prediction_errors(Ledger& ledger, const Machine& machine) {
  PredictionErrors result;
  std::map<std::string, std::vector<double>> ratios;  // measured / predicted
  ledger.visit({}, [&](const RunRecord& run) {
    if (!ran_on(run, machine) || run.predictor.empty()) return;
    if (result.predictor.empty()) result.predictor = run.predictor;  // the newest comes first
    if (run.predictor != result.predictor) return;
    for (const ProofRow& f : run.figures)
      for (const auto& [measured, predicted] :
           {std::pair(f.base, f.predicted_base), std::pair(f.out, f.predicted_out)})
        if (measured && predicted && *measured > 0 && *predicted > 0)
          ratios[f.metric].push_back(*measured / *predicted);
  });
  for (auto& [metric, values] : ratios) {
    PredictionError e;
    e.metric = metric;
    e.points = static_cast<i64>(values.size());
    std::vector<double> errors;
    for (double r : values) errors.push_back(std::abs(1 / r - 1));
    e.median = median(errors);
    e.p90 = quantile(errors, 0.9);
    e.correction = median(values);
    result.metrics.push_back(e);
  }
  return result;
}

}  // namespace pare
