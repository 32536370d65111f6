// Fitting one group.
//
// Fitting minimizes the weighted squared error over a one-parameter family of ranges: the full
// range shrunk by a factor. A coarse scan and a fine scan around its best point cost about 24
// evaluations a group, each a few vector operations a weight; a final least-squares step moves the
// scale to the optimum of the codes just found. The scale is rounded to its storage before any code
// is chosen, so what is snapped is what is decoded. The search goes back to the "mse" observers of
// the GPTQ code (Frantar et al. 2022) and to ggml's k-quants.
#include "number/fit.h"

#include <algorithm>
#include <cstring>

namespace pare::fitting {
namespace {

using V4 = float __attribute__((vector_size(16)));

V4 select(V4 a, V4 b, decltype(V4{} < V4{}) mask) {  // mask ? a : b
  return mask ? a : b;
}

}  // namespace

double integer_error(const float* x, const float* weight, i64 n, float inverse, float scale,
                     float low, float high) {
  const V4 vi = V4{} + inverse, vs = V4{} + scale, vl = V4{} + low, vh = V4{} + high,
           magic = V4{} + round_magic;
  double total = 0;
  i64 i = 0;
  while (i + 4 <= n) {
    V4 sum = {};
    const i64 stop = std::min(n - 3, i + 4096);
    for (; i < stop; i += 4) {
      V4 v;
      std::memcpy(&v, x + i, sizeof v);
      V4 q = v * vi;
      q = select(q, vl, q > vl);
      q = select(q, vh, q < vh);
      q = (q + magic) - magic;
      const V4 e = v - q * vs;
      V4 square = e * e;
      if (weight != nullptr) {
        V4 w;
        std::memcpy(&w, weight + i, sizeof w);
        square = square * w;
      }
      sum = sum + square;
    }
    total += static_cast<double>(sum[0] + sum[1]) + static_cast<double>(sum[2] + sum[3]);
  }
  for (; i < n; i++) {
    const float q = round_even(std::clamp(x[i] * inverse, low, high));
    const float e = x[i] - q * scale;
    total += static_cast<double>(e) * e * (weight != nullptr ? weight[i] : 1.0f);
  }
  return total;
}

double tile_error(const Scheme& s, const Tile& t, const Params& p) {
  const Kind kind = kind_of(s);
  const Limits range = limits_of(s.code);
  double total = 0;
  for (i64 r = 0; r < t.values.rows; r++) {
    const float* x = t.values.row(r);
    const i64 n = t.values.cols;
    if (kind == Kind::integer) {
      const float zero = static_cast<float>(p.zero);
      total +=
          integer_error(x, t.weight, n, p.inverse, p.scale, range.low - zero, range.high - zero);
      continue;
    }
    for (i64 i = 0; i < n; i++) {
      float got = 0;
      if (kind == Kind::minimum) {
        const float q =
            std::clamp(round_even((x[i] + p.min) * p.inverse), 0.0f, range.high - range.low);
        got = p.scale * q - p.min;
      } else {
        got = nearest_value(s.code, x[i] * p.inverse) * p.scale;
      }
      const double e = static_cast<double>(x[i]) - got;
      total += e * e * (t.weight != nullptr ? t.weight[i] : 1.0f);
    }
  }
  return total;
}

Extent extent_of(const Tile& t) {
  Extent e;
  for (i64 r = 0; r < t.values.rows; r++)
    for (float x : t.values.span(r)) {
      if (x < e.low) e.low = x;
      if (x > e.high) e.high = x;
    }
  e.low = std::max(e.low, -largest);
  e.high = std::min(e.high, largest);
  return e;
}

namespace {

// The extent that holds `percentile` of the magnitudes.
Extent clipped_extent(const Tile& t, double percentile) {
  std::vector<float> magnitudes;
  for (i64 r = 0; r < t.values.rows; r++)
    for (float x : t.values.span(r)) magnitudes.push_back(std::isfinite(x) ? std::abs(x) : largest);
  Extent e = extent_of(t);
  if (magnitudes.empty()) return e;
  const std::size_t k = static_cast<std::size_t>(
      std::clamp(std::ceil(percentile / 100 * static_cast<double>(magnitudes.size())) - 1, 0.0,
                 static_cast<double>(magnitudes.size() - 1)));
  std::nth_element(magnitudes.begin(), magnitudes.begin() + static_cast<std::ptrdiff_t>(k),
                   magnitudes.end());
  return {std::max(e.low, -magnitudes[k]), std::min(e.high, magnitudes[k])};
}

}  // namespace

float storable(Code code, float scale, std::uint32_t* stored) {
  if (scale < 0) {
    const float value = -storable(code, -scale);
    if (stored != nullptr) *stored = encode(code, value);
    return value;
  }
  std::uint32_t pattern = encode(code, scale);
  float value = decode(code, pattern);
  if (!(value > 0)) {
    pattern = code == Code::e8m0 ? 0 : 1;  // the smallest positive value of every scale code
    value = decode(code, pattern);
  } else if (!std::isfinite(value)) {
    value = info(code).max;
    pattern = encode(code, value);
  }
  if (stored != nullptr) *stored = pattern;
  return value;
}

Params with_scale(Params p, float scale) {
  p.scale = scale;
  p.inverse = scale != 0 ? 1.0f / scale : 0.0f;
  if (!std::isfinite(p.inverse)) p.inverse = std::copysign(largest, scale);
  return p;
}

namespace {

// Parameters for an extent, before the scale is rounded to its storage.
Params params_of(const Scheme& s, const Extent& e) {
  const Limits range = limits_of(s.code);
  Params p;
  if (s.offset == Offset::none) {
    const float top = info(s.code).integer ? range.high : info(s.code).max;
    return with_scale(p, e.magnitude() / top);
  }
  const float width = e.high - e.low;
  p = with_scale(p, std::isfinite(width) ? width / (range.high - range.low) : largest / range.high);
  p.min = -e.low;
  return p;
}

void set_zero(const Scheme& s, const Extent& e, Params& p) {
  if (s.offset != Offset::zero) return;
  const Limits range = limits_of(s.code);
  p.zero = static_cast<int>(
      std::clamp(round_even(std::clamp(range.low - e.low * p.inverse, -4096.0f, 4096.0f)),
                 range.low, range.high));
}

// The scale that minimizes the error of the codes just chosen: sum(w x q) / sum(w q q).
float least_squares(const Scheme& s, const Tile& t, const Params& p) {
  const Limits range = limits_of(s.code);
  const float zero = static_cast<float>(p.zero);
  double xq = 0, qq = 0;
  for (i64 r = 0; r < t.values.rows; r++)
    for (i64 i = 0; i < t.values.cols; i++) {
      const float x = t.values.row(r)[i];
      const double w = t.weight != nullptr ? t.weight[i] : 1.0f;
      const float q =
          info(s.code).integer
              ? round_even(std::clamp(x * p.inverse, range.low - zero, range.high - zero))
              : nearest_value(s.code, x * p.inverse);
      xq += w * x * q;
      qq += w * q * q;
    }
  return qq > 0 && xq * p.scale > 0 ? static_cast<float>(xq / qq) : p.scale;
}

// Best scale and minimum for the codes just chosen: weighted linear regression of x on q.
bool regress(const Scheme& s, const Tile& t, const Params& p, Params& out) {
  const Limits range = limits_of(s.code);
  double sw = 0, sq = 0, sx = 0, sqq = 0, sxq = 0;
  for (i64 r = 0; r < t.values.rows; r++)
    for (i64 i = 0; i < t.values.cols; i++) {
      const double x = t.values.row(r)[i], w = t.weight != nullptr ? t.weight[i] : 1.0f;
      const double q = std::clamp(round_even((t.values.row(r)[i] + p.min) * p.inverse), 0.0f,
                                  range.high - range.low);
      sw += w, sq += w * q, sx += w * x, sqq += w * q * q, sxq += w * x * q;
    }
  const double d = sw * sqq - sq * sq;
  if (d <= 0) return false;
  double scale = (sw * sxq - sq * sx) / d, low = (sqq * sx - sq * sxq) / d;
  if (s.second_level && low > 0) {  // stored minima are unsigned there
    low = 0;
    scale = sqq > 0 ? sxq / sqq : scale;
  }
  if (!(scale > 0)) return false;
  out = with_scale(p, static_cast<float>(scale));
  out.min = static_cast<float>(-low);
  return true;
}
bool of_ggml(const Scheme& s) {
  return k_quant(s) || (s.grouping == Grouping::group && s.cols == 32 && s.scale == Code::f16);
}

}  // namespace

bool k_quant(const Scheme& s) {
  return s.second_level && s.super_count > 0 &&
         (s.scale == Code::int6 || s.scale == Code::int8 || s.scale == Code::uint6 ||
          s.scale == Code::uint4);
}

Params fit_group(const Scheme& s, const Tile& t, const FitOptions& o, Scale rounding) {
  const auto store = [&](float scale) {
    return rounding == Scale::stored ? storable(s.scale, scale) : scale;
  };
  const Extent full = extent_of(t);
  if (!(full.magnitude() > 0)) {
    Params p = with_scale({}, s.code == Code::iq4nl ? 0.0f : 1.0f);
    return p;
  }
  const auto at = [&](const Extent& e, float sign = 1) {
    Params p = params_of(s, e);
    p = with_scale(p, store(sign * p.scale));
    set_zero(s, e, p);
    return p;
  };
  if (o.range == Range::absmax) return at(full);
  if (o.range == Range::percentile) return at(clipped_extent(t, o.percentile));

  Params best = at(full);
  double best_error = tile_error(s, t, best);
  const auto consider = [&](const Params& p) {
    const double error = tile_error(s, t, p);
    if (error < best_error) {
      best_error = error;
      best = p;
    }
    return error;
  };
  // The optimum of the codes that p gives.
  const auto consider_optimum = [&](const Params& p) {
    if (s.offset != Offset::minimum) {
      consider(with_scale(p, store(least_squares(s, t, p))));
    } else if (Params q; regress(s, t, p, q)) {
      consider(with_scale(q, store(q.scale)));
    }
  };
  const bool coarse_scale = bits(s.scale) < 16 && !s.second_level;
  if (coarse_scale) {  // powers of two and e4m3: try the neighbours above too
    for (float factor : {2.0f, 1.5f, 1.25f, 0.75f, 0.5f, 0.25f})
      consider(at({full.low * factor, full.high * factor}));
    return best;
  }
  // The lowest useful range: about 2.5 standard deviations matter at few bits, nearly all at many.
  const int b = bits(s.code);
  const float lowest = b >= 8 ? 0.80f : b >= 5 ? 0.60f : b == 4 ? 0.45f : 0.25f;
  const float highest = s.offset == Offset::none && info(s.code).integer
                            ? 1.0f + 0.5f / limits_of(s.code).high
                            : 1.0f;
  const int coarse = std::max(4, o.steps / 5), fine = std::max(2, o.steps / 10);
  const bool thorough = of_ggml(s) && s.offset != Offset::zero;
  const auto search = [&](float sign) {
    double error = consider(at(full, sign));
    float best_factor = 1;
    const auto scan = [&](float from, float to, int count) {
      for (int k = 0; k < count; k++) {
        const float f =
            from + (to - from) * (static_cast<float>(k) + 0.5f) / static_cast<float>(count);
        const Params p = at({full.low * f, full.high * f}, sign);
        const double e = consider(p);
        if (e < error) {
          error = e;
          best_factor = f;
        }
        if (thorough) consider_optimum(p);
      }
    };
    scan(lowest, highest, coarse);
    const float step = (highest - lowest) / static_cast<float>(coarse);
    scan(best_factor - step, best_factor + step, fine);
  };
  search(1);
  if (thorough && s.offset == Offset::none) search(-1);
  consider_optimum(best);
  return best;
}

}  // namespace pare::fitting
