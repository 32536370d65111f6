// Fitting groups whose scales and minima are themselves codes under one unit.
//
// Each group is fitted alone first; then, for given units, the codes of scale and minimum are taken
// by error among the nearest and their neighbours, and the units by least squares over all groups,
// in turn until nothing improves.
#include <algorithm>

#include "number/fit.h"

namespace pare::fitting {

double SuperGroup::error_of(std::size_t k, const Params& p) const {
  if (kind_of(s) != Kind::minimum) return tile_error(s, tiles[k], p);
  float shifted[256];  // x + m = u q
  const Matrix<const float>& x = tiles[k].values;
  PARE_CHECK(x.cols <= 256);
  for (i64 i = 0; i < x.cols; i++) shifted[i] = x.data[i] + p.min;
  const Limits range = limits_of(s.code);
  return integer_error(shifted, tiles[k].weight, x.cols, p.inverse, p.scale, 0,
                       range.high - range.low);
}

Params SuperGroup::at(const Choice& c, int scale, int min) const {
  Params p = with_scale({}, static_cast<float>(scale) * c.unit);
  p.min = static_cast<float>(min) * c.min_unit;
  return p;
}

// The codes of scales and minima for given units: the nearest and their neighbours, by error.
SuperGroup::Choice SuperGroup::settle(float unit, float min_unit) const {
  const Limits range = limits_of(s.scale);
  const auto code = [&](float x, float u) {
    return u == 0 ? 0 : static_cast<int>(round_even(std::clamp(x / u, range.low, range.high)));
  };
  const int reach = s.offset == Offset::minimum ? 1 : 0;
  Choice c{unit, min_unit, {}, {}, 0};
  for (std::size_t k = 0; k < tiles.size(); k++) {
    c.scales.push_back(0);
    c.mins.push_back(0);
    if (raw[k].scale == 0 || unit == 0) continue;
    const int s0 = code(raw[k].scale, unit), m0 = code(raw[k].min, min_unit);
    double best = std::numeric_limits<double>::infinity();
    for (int sc = s0 - 1; sc <= s0 + 1; sc++)
      for (int mn = m0 - reach; mn <= m0 + reach; mn++) {
        if (static_cast<float>(sc) < range.low || static_cast<float>(sc) > range.high ||
            (reach > 0 && (mn < 0 || static_cast<float>(mn) > range.high)))
          continue;
        const double error = error_of(k, at(c, sc, mn));
        if (!(error < best)) continue;
        best = error;
        c.scales[k] = sc;
        c.mins[k] = mn;
      }
    c.error += best;
  }
  return c;
}

// The units that are best for the codes of c: least squares over all groups.
std::pair<float, float> SuperGroup::units_for(const Choice& c) const {
  double aa = 0, ab = 0, bb = 0, xa = 0, xb = 0;
  const Limits range = limits_of(s.code);
  for (std::size_t k = 0; k < tiles.size(); k++) {
    const Params p = at(c, c.scales[k], c.mins[k]);
    for (i64 i = 0; i < tiles[k].values.cols; i++) {
      const float x = tiles[k].values.data[i];
      const double w = tiles[k].weight != nullptr ? tiles[k].weight[i] : 1.0f;
      const float q =
          kind_of(s) == Kind::minimum
              ? round_even(std::clamp((x + p.min) * p.inverse, 0.0f, range.high - range.low))
          : kind_of(s) == Kind::integer
              ? round_even(std::clamp(x * p.inverse, range.low, range.high))
              : nearest_value(s.code, x * p.inverse);
      const double a = static_cast<double>(c.scales[k]) * q, b = c.mins[k];
      aa += w * a * a, ab += w * a * b, bb += w * b * b, xa += w * x * a, xb += w * x * b;
    }
  }
  if (s.offset != Offset::minimum || bb == 0)
    return {aa > 0 ? static_cast<float>(xa / aa) : c.unit, c.min_unit};
  const double d = aa * bb - ab * ab;
  if (!(d > 0)) return {c.unit, c.min_unit};
  return {static_cast<float>((xa * bb - xb * ab) / d), static_cast<float>((xa * ab - xb * aa) / d)};
}

SuperGroup::Choice SuperGroup::search() const {
  const Limits range = limits_of(s.scale);
  float top = 0, top_min = 0;
  for (const Params& p : raw) {
    if (std::abs(p.scale) > std::abs(top)) top = p.scale;
    top_min = std::max(top_min, p.min);
  }
  if (top == 0) return settle(0, 0);
  const auto round = [&](float unit) { return unit == 0 ? 0 : storable(s.super, unit); };
  const float end = range.low < 0 ? range.low : range.high;  // of the larger magnitude
  const auto start = [&](float factor) {
    return settle(round(factor * top / end), round(factor * std::max(0.0f, top_min) / range.high));
  };
  Choice best = start(1);
  for (float factor : {0.94f, 1.06f})
    if (Choice c = start(factor); c.error < best.error) best = std::move(c);
  for (int round_trip = 0; round_trip < 4; round_trip++) {
    const auto [unit, min_unit] = units_for(best);
    if (min_unit < 0 || unit * best.unit <= 0) break;
    Choice c = settle(round(unit), round(min_unit));
    if (!(c.error < best.error)) break;
    best = std::move(c);
  }
  return best;
}

}  // namespace pare::fitting
