// Outlier columns.
//
// The reference decides at run time: a column is an outlier of a batch when any of its tokens
// reaches the threshold there. Here the columns are chosen once, from all tokens of a calibration,
// and their weights are kept in 16 bits, as the paper has it (the library of today decodes them
// from int8). So a product does not depend on what else is in its batch, and the kernel need not
// look for outliers; a column that first exceeds the threshold after calibration is quantized like
// any other.
//
// A value that is not finite counts as an outlier: nothing should share a scale with it.
#include "pass/quantize/outliers.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace pare {

std::vector<std::int32_t> outlier_columns(const InputStatistics& in, float threshold) {
  std::vector<std::int32_t> columns;
  if (!(threshold > 0)) return columns;
  for (i64 k = 0; k < in.size(); k++)
    if (!(in.max_abs[static_cast<std::size_t>(k)] < threshold))
      columns.push_back(static_cast<std::int32_t>(k));
  return columns;
}

Code split_outliers(BlockValues& values, const std::string& name,
                    std::span<const std::int32_t> columns) {
  PARE_CHECK(!values.contains(name + ".outlier_index") && !values.contains(name + ".permutation"));
  if (columns.empty()) return Code::f16;
  const auto found = values.find(name + ".weight");
  PARE_CHECK(found != values.end());
  const Matrix<float> w = found->second.matrix();
  const i64 n = static_cast<i64>(columns.size());
  std::vector<float> taken;
  float top = 0;
  for (i64 r = 0; r < w.rows; r++)
    for (std::int32_t k : columns) {
      PARE_CHECK(k >= 0 && k < w.cols);
      taken.push_back(std::exchange(w.row(r)[k], 0.0f));
      top = std::max(top, std::abs(taken.back()));
    }
  const Code code = top <= info(Code::f16).max ? Code::f16 : Code::bf16;
  values[name + ".outlier_weight"] = {{w.rows, n}, decode(plain_tensor(taken, {w.rows, n}, code))};
  values[name + ".outlier_index"] = {{n}, std::vector<float>(columns.begin(), columns.end())};
  return code;
}

float static_activation_scale(const InputStatistics& in, const Activation& a, double percentile) {
  float top = 0;
  if (percentile >= 100) {
    for (float x : in.max_abs) top = std::max(top, x);
  } else {
    std::vector<float> magnitudes;
    for (float x : in.sample) magnitudes.push_back(std::abs(x));
    if (magnitudes.empty())
      fail(Exit::usage, "QU-030", "a percentile of activations needs a sample of tokens",
           {{"percentile", fmt::format("{}", percentile)}},
           "collect the statistics again, or take the largest magnitude (percentile 100)");
    const double rank = std::ceil(percentile / 100 * static_cast<double>(magnitudes.size())) - 1;
    const auto nth = magnitudes.begin() + static_cast<std::ptrdiff_t>(std::max(rank, 0.0));
    std::nth_element(magnitudes.begin(), nth, magnitudes.end());
    top = *nth;
  }
  const float code =
      info(a.code).integer ? static_cast<float>((1 << (bits(a.code) - 1)) - 1) : info(a.code).max;
  const float scale = top / code;
  return scale > 0 && std::isfinite(scale) ? scale : 1.0f;
}

}  // namespace pare
