// Choices of scales, applied; and the round trip of a matrix through a scheme.
//
// Output errors come from products with the Gram matrix. It is symmetric, so the packed product
// y = G e of the engine's own kernels serves, with the rows of E as its batch.
//
// The round trip is quantize() and decode() without the planes between them: a search makes dozens
// of trips and keeps none, and `snap` already says what it decodes to.
#include "pass/quantize/scales.h"

#include <algorithm>

namespace pare {

bool rounds(const MatrixTarget& target) {
  return !target.scheme.plain() || bits(target.scheme.code) < 16;
}

void scale_statistics(InputStatistics& in, const std::vector<float>& s) {
  const i64 n = in.size();
  PARE_CHECK(static_cast<i64>(s.size()) == n);
  for (std::size_t k = 0; k < s.size(); k++) {
    const double factor = s[k];
    in.sum_abs[k] /= factor;
    in.sum_square[k] /= factor * factor;
    in.max_abs[k] /= s[k];
  }
  for (std::size_t i = 0; i < in.sample.size(); i++) in.sample[i] /= s[i % s.size()];
  for (i64 r = 0; r < n && !in.gram.empty(); r++)
    for (i64 k = 0; k < n; k++) {
      float& g = in.gram[static_cast<std::size_t>(r * n + k)];
      // The product of the scales is rounded once, so that the matrix stays symmetric.
      g = static_cast<float>(g / (static_cast<double>(s[static_cast<std::size_t>(r)]) *
                                  s[static_cast<std::size_t>(k)]));
    }
}

void apply_choices(const std::vector<ScaleChoice>& choices, i64 block, BlockValues& values,
                   Spec& spec, Statistics& statistics) {
  for (const ScaleChoice& choice : choices) {
    if (choice.scale.empty()) continue;
    apply_scale(values, spec, choice.group, block, choice.scale);
    note_stored(spec, choice.group);
    const auto found = statistics.inputs.find(choice.group.input);
    if (found != statistics.inputs.end()) scale_statistics(found->second, choice.scale);
  }
}

std::vector<float> importances(const InputStatistics* in, std::span<const float> s) {
  std::vector<float> weight;
  if (in == nullptr || in->tokens == 0) return weight;
  for (i64 k = 0; k < in->size(); k++) {
    const double factor = s.empty() ? 1.0 : s[static_cast<std::size_t>(k)];
    weight.push_back(static_cast<float>(in->mean_square(k) / (factor * factor)));
  }
  return weight;
}

std::vector<float> round_trip(Matrix<const float> weights, const Scheme& scheme,
                              const FitOptions& fit, std::span<const float> importance,
                              Pool& pool) {
  const i64 rows = weights.rows, cols = weights.cols;
  std::vector<float> out(static_cast<std::size_t>(rows * cols));
  if (scheme.plain()) return decode(quantize(weights, scheme, fit));
  Encoder encoder(scheme, rows, cols, fit, weights);
  const i64 high = encoder.unit_rows(), wide = encoder.unit_cols();
  pool.run((rows + high - 1) / high, 1, [&](i64 begin, i64 end) {
    for (i64 row = begin * high; row < std::min(rows, end * high); row += high)
      for (i64 col = 0; col < cols; col += wide) {
        const i64 h = std::min(high, rows - row), w = std::min(wide, cols - col);
        encoder.fit(row, col, {weights.row(row) + col, h, w, weights.stride},
                    importance.empty() ? importance
                                       : importance.subspan(static_cast<std::size_t>(col),
                                                            static_cast<std::size_t>(w)));
        for (i64 r = row; r < row + h; r++)
          for (i64 k = col; k < col + w; k++)
            out[static_cast<std::size_t>(r * cols + k)] = encoder.snap(r, k, weights.row(r)[k]);
      }
  });
  return out;
}

std::vector<float> even_rows(Matrix<const float> w, const Scheme& scheme, i64 limit) {
  const i64 unit = scheme.grouping == Grouping::block    ? scheme.rows
                   : scheme.grouping == Grouping::tensor ? w.rows
                                                         : 1;
  const i64 units = (w.rows + unit - 1) / unit;
  const i64 take = std::min(units, std::max<i64>(1, limit / unit));
  std::vector<float> rows;
  for (i64 i = 0; i < take; i++) {
    const i64 first = i * units / take * unit, last = std::min(w.rows, first + unit);
    for (i64 r = first; r < last; r++) rows.insert(rows.end(), w.row(r), w.row(r) + w.cols);
  }
  return rows;
}

namespace {

Tensor square_tensor(const float* data, i64 n) {
  Tensor t;
  t.shape = {n, n};
  t.codes = {nullptr, std::as_bytes(std::span(data, static_cast<std::size_t>(n * n)))};
  return t;
}

}  // namespace

OutputNorm::OutputNorm(const InputStatistics& in, Pool& pool) : count_(in.size()) {
  PARE_CHECK(in.tokens > 0);
  if (in.gram.empty())
    diagonal_ = importances(&in, {});
  else
    gram_ = PackedLinear(square_tensor(in.gram.data(), count_), {}, 0, isa_here(), pool);
}

OutputNorm::OutputNorm(const InputStatistics& in, i64 begin, i64 count) : count_(count) {
  PARE_CHECK(in.tokens > 0 && begin >= 0 && begin + count <= in.size());
  if (in.gram.empty()) {
    for (i64 k = begin; k < begin + count; k++)
      diagonal_.push_back(static_cast<float>(in.mean_square(k)));
    return;
  }
  std::vector<float> square(static_cast<std::size_t>(count * count));
  for (i64 r = 0; r < count; r++)
    std::copy_n(in.gram_view().row(begin + r) + begin, count, square.data() + r * count);
  Pool alone(1);
  gram_ = PackedLinear(plain_tensor(square, {count, count}), {}, 0, isa_here(), alone);
}

std::vector<double> OutputNorm::rows(Matrix<const float> e, Pool* pool) const {
  PARE_CHECK(e.cols == count_);
  std::vector<double> sums(static_cast<std::size_t>(e.rows));
  std::vector<float> product;
  if (diagonal_.empty()) {
    product.resize(static_cast<std::size_t>(e.rows * count_));
    const Matrix<float> y{product.data(), e.rows, count_};
    pool != nullptr ? gram_.apply(e, y, *pool) : gram_.apply(e, y);
  }
  for (i64 r = 0; r < e.rows; r++) {
    const float* x = e.row(r);
    double sum = 0;
    for (i64 k = 0; k < count_; k++)
      sum += static_cast<double>(x[k]) *
             (diagonal_.empty()
                  ? static_cast<double>(product[static_cast<std::size_t>(r * count_ + k)])
                  : static_cast<double>(x[k]) * diagonal_[static_cast<std::size_t>(k)]);
    sums[static_cast<std::size_t>(r)] = sum < 0 ? 0 : sum;  // rounding; a NaN stays
  }
  return sums;
}

double OutputNorm::total(Matrix<const float> e, Pool* pool) const {
  double sum = 0;
  for (double row : rows(e, pool)) sum += row;
  return sum;
}

}  // namespace pare
