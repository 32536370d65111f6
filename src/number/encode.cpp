// fit and snap.
//
// Fitting minimizes the weighted squared error over a one-parameter family of ranges: the full
// range shrunk by a factor. A coarse scan and a fine scan around its best point cost about 24
// evaluations a group, each a few vector operations a weight; a final least-squares step moves the
// scale to the optimum of the codes just found. The scale is rounded to its storage before any code
// is chosen, so what is snapped is what is decoded. The search goes back to the "mse" observers of
// the GPTQ code (Frantar et al. 2022) and to ggml's k-quants.
#include "number/encode.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace pare {
namespace {

using V4 = float __attribute__((vector_size(16)));

constexpr float round_magic =
    12582912.0f;  // 1.5 * 2^23: adding and subtracting rounds to nearest even
constexpr float largest = 3.0e38f;

i64 up(i64 a, i64 b) { return (a + b - 1) / b; }
float round_even(float x) { return (x + round_magic) - round_magic; }

// Parameters of one group as the decoder will see them.
struct Params {
  float scale = 1, inverse = 1, min = 0;
  int zero = 0;
};

enum class Kind { integer, minimum, table };

Kind kind_of(const Scheme& s) {
  if (s.offset == Offset::minimum) return Kind::minimum;
  return info(s.code).integer ? Kind::integer : Kind::table;
}

struct Limits {
  float low, high;
};
Limits limits_of(Code code) {
  const int b = bits(code);
  if (info(code).name[0] == 'u') return {0.0f, static_cast<float>((1 << b) - 1)};
  return {static_cast<float>(-(1 << (b - 1))), static_cast<float>((1 << (b - 1)) - 1)};
}

// The value of the nearest code of a float code, already divided by the scale.
float nearest_value(Code code, float v) { return decode(code, encode(code, v)); }

V4 select(V4 a, V4 b, decltype(V4{} < V4{}) mask) {  // mask ? a : b
  return mask ? a : b;
}

// Sum of weight * (x - decode(snap(x)))^2 for integer codes. n need not be a multiple of anything.
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

// What a unit's groups are fitted with: a tile of values and a weight for each of its columns.
struct Tile {
  Matrix<const float> values;
  const float* weight = nullptr;  // per column, or null
};

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

struct Extent {
  float low = 0, high = 0;  // with zero between them
  float magnitude() const { return std::max(-low, high); }
};

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

// The nearest scale that `code` can store; never zero or infinite for a positive scale.
float storable(Code code, float scale, std::uint32_t* stored = nullptr) {
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

// ggml's own formats are read by programs that take scales of either sign, which lets the larger
// end of a group have the larger end of the code; and as no later step can mend what their two
// levels of rounding lose, their search is worth more time.
bool k_quant(const Scheme& s) {
  return s.second_level && s.super_count > 0 &&
         (s.scale == Code::int6 || s.scale == Code::int8 || s.scale == Code::uint6 ||
          s.scale == Code::uint4);
}
bool of_ggml(const Scheme& s) {
  return k_quant(s) || (s.grouping == Grouping::group && s.cols == 32 && s.scale == Code::f16);
}

// Fits one group. `store` rounds a scale to what will be stored.
template <class Store>
Params fit_group(const Scheme& s, const Tile& t, const FitOptions& o, const Store& store) {
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

// ---- two levels ----

// The groups under one second-level scale, each as it would be fitted alone, and the codes of their
// scales and minima.
struct SuperGroup {
  const Scheme& s;
  std::vector<Tile> tiles;
  std::vector<Params> raw;  // scale 0: all weights are zero

  struct Choice {
    float unit = 0, min_unit = 0;
    std::vector<int> scales, mins;
    double error = std::numeric_limits<double>::infinity();
  };

  double error_of(std::size_t k, const Params& p) const {
    if (kind_of(s) != Kind::minimum) return tile_error(s, tiles[k], p);
    float shifted[256];  // x + m = u q
    const Matrix<const float>& x = tiles[k].values;
    PARE_CHECK(x.cols <= 256);
    for (i64 i = 0; i < x.cols; i++) shifted[i] = x.data[i] + p.min;
    const Limits range = limits_of(s.code);
    return integer_error(shifted, tiles[k].weight, x.cols, p.inverse, p.scale, 0,
                         range.high - range.low);
  }

  Params at(const Choice& c, int scale, int min) const {
    Params p = with_scale({}, static_cast<float>(scale) * c.unit);
    p.min = static_cast<float>(min) * c.min_unit;
    return p;
  }

  // The codes of scales and minima for given units: the nearest and their neighbours, by error.
  Choice settle(float unit, float min_unit) const {
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
  std::pair<float, float> units_for(const Choice& c) const {
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
    return {static_cast<float>((xa * bb - xb * ab) / d),
            static_cast<float>((xa * ab - xb * aa) / d)};
  }

  Choice search() const {
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
      return settle(round(factor * top / end),
                    round(factor * std::max(0.0f, top_min) / range.high));
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
};

}  // namespace

struct Encoder::State {
  Scheme s;
  i64 rows = 0, cols = 0, group_rows = 0, group_cols = 0, code_row_bytes = 0;
  FitOptions options;
  std::vector<std::uint8_t> codes, scales, mins, super_scales, super_mins, mask;
  std::vector<std::int8_t> zeros;
  std::vector<Params> params;
  float tensor_super = 0;  // of a second level that spans the tensor
  bool finished = false;

  static i64 width(Code code) { return bits(code) >= 16 ? bits(code) / 8 : 1; }

  i64 group_index(i64 row, i64 col) const {
    const i64 r = s.grouping == Grouping::tensor  ? 0
                  : s.grouping == Grouping::block ? row / s.rows
                                                  : row;
    const i64 c = s.grouping == Grouping::group || s.grouping == Grouping::block ? col / s.cols : 0;
    return r * group_cols + c;
  }

  static void put(std::vector<std::uint8_t>& plane, Code code, i64 index, std::uint32_t stored) {
    std::memcpy(plane.data() + index * width(code), &stored, static_cast<std::size_t>(width(code)));
  }

  void set_scale(i64 group, Params p) {
    if (p.scale == 0) {  // a group of zeros under a code without a zero
      put(scales, s.scale, group, 0);
      params[static_cast<std::size_t>(group)] = p;
      return;
    }
    std::uint32_t stored = 0;
    p = with_scale(p, storable(s.scale, p.scale, &stored));
    put(scales, s.scale, group, stored);
    if (s.offset == Offset::zero)
      zeros[static_cast<std::size_t>(group)] = static_cast<std::int8_t>(p.zero);
    if (s.offset == Offset::minimum) {
      const std::uint32_t min = encode(s.scale, p.min);
      p.min = decode(s.scale, min);
      put(mins, s.scale, group, min);
    }
    params[static_cast<std::size_t>(group)] = p;
  }

  void set_minimum(i64 group, i64 row, i64 col, float minimum) {
    Params& p = params[static_cast<std::size_t>(group)];
    const Limits range = limits_of(s.code);
    if (s.offset == Offset::zero) {
      const float steps = std::clamp(minimum * p.inverse, 0.0f, range.high - range.low);
      p.zero = static_cast<int>(range.low + round_even(steps));
      zeros[static_cast<std::size_t>(group)] = static_cast<std::int8_t>(p.zero);
      return;
    }
    float unit = 1;
    if (s.second_level) {
      const i64 super = s.super_count == 0
                            ? 0
                            : row * up(group_cols, s.super_count) + col / s.cols / s.super_count;
      std::uint32_t stored = 0;
      std::memcpy(&stored, super_mins.data() + super * width(s.super),
                  static_cast<std::size_t>(width(s.super)));
      unit = decode(s.super, stored);
      minimum = unit > 0 ? std::clamp(minimum / unit, 0.0f, limits_of(s.scale).high) : 0;
    }
    const std::uint32_t stored = encode(s.scale, minimum);
    p.min = decode(s.scale, stored) * unit;
    put(mins, s.scale, group, stored);
  }

  // Groups [first, first + n) of one row share second-level scales: fit each freely, then round
  // together.
  void fit_k_quant(i64 row, i64 col, Tile tile, i64 first) {
    std::vector<float> own;  // without importances larger weights count for more, as in ggml
    if (tile.weight == nullptr) {
      double square = 0;
      for (float x : tile.values.span(0)) square += static_cast<double>(x) * x;
      const float rms =
          static_cast<float>(std::sqrt(square / static_cast<double>(tile.values.cols)));
      for (float x : tile.values.span(0)) own.push_back(rms + std::abs(x));
      if (std::isfinite(square) && square > 0) tile.weight = own.data();
    }
    SuperGroup group{s, {}, {}};
    for (i64 begin = 0; begin < tile.values.cols; begin += s.cols) {
      const i64 n = std::min(s.cols, tile.values.cols - begin);
      const Tile t{{tile.values.data + begin, 1, n, tile.values.stride},
                   tile.weight != nullptr ? tile.weight + begin : nullptr};
      const bool zero = !(extent_of(t).magnitude() > 0);
      group.tiles.push_back(t);
      group.raw.push_back(zero ? with_scale({}, 0)
                               : fit_group(s, t, options, [](float scale) { return scale; }));
    }
    const SuperGroup::Choice c = group.search();
    const i64 super = row * up(group_cols, s.super_count) + col / s.cols / s.super_count;
    put(super_scales, s.super, super, encode(s.super, c.unit));
    if (s.offset == Offset::minimum) put(super_mins, s.super, super, encode(s.super, c.min_unit));
    for (std::size_t k = 0; k < c.scales.size(); k++) {
      const i64 g = first + static_cast<i64>(k);
      put(scales, s.scale, g, encode(s.scale, static_cast<float>(c.scales[k])));
      if (s.offset == Offset::minimum)
        put(mins, s.scale, g, encode(s.scale, static_cast<float>(c.mins[k])));
      params[static_cast<std::size_t>(g)] = group.at(c, c.scales[k], c.mins[k]);
    }
  }

  void fit_super(i64 row, i64 col, const Tile& tile, i64 first) {
    if (k_quant(s) && s.offset != Offset::zero && s.cols <= 256 && options.range == Range::mse)
      return fit_k_quant(row, col, tile, first);
    const i64 n = up(tile.values.cols, s.cols);
    std::vector<Params> raw(static_cast<std::size_t>(n));
    std::vector<bool> zero(static_cast<std::size_t>(n));
    float top = 0, top_min = 0;
    const auto part = [&](i64 k) {
      const i64 begin = k * s.cols, end = std::min(tile.values.cols, begin + s.cols);
      return Tile{{tile.values.data + begin, 1, end - begin, tile.values.stride},
                  tile.weight != nullptr ? tile.weight + begin : nullptr};
    };
    for (i64 k = 0; k < n; k++) {
      const Tile t = part(k);
      Params& p = raw[static_cast<std::size_t>(k)];
      zero[static_cast<std::size_t>(k)] = !(extent_of(t).magnitude() > 0);
      p = fit_group(s, t, options, [](float scale) { return scale; });
      if (zero[static_cast<std::size_t>(k)]) p = with_scale({}, 0);
      top = std::max(top, p.scale);
      top_min = std::max(top_min, p.min);
    }
    const float most = s.scale == Code::e4m3 ? 448.0f : limits_of(s.scale).high;
    const i64 super =
        s.super_count == 0 ? 0 : row * up(group_cols, s.super_count) + col / s.cols / s.super_count;
    float unit = tensor_super;
    if (s.super_count != 0) {
      std::uint32_t stored = 0;
      unit = top > 0 ? storable(s.super, top / most, &stored) : 0;
      put(super_scales, s.super, super, stored);
    }
    float min_unit = 0;
    if (s.offset == Offset::minimum) {
      std::uint32_t stored = 0;
      if (top_min > 0) min_unit = storable(s.super, top_min / most, &stored);
      put(super_mins, s.super, super, stored);
    }
    for (i64 k = 0; k < n; k++) {
      Params p = raw[static_cast<std::size_t>(k)];
      std::uint32_t stored = encode(s.scale, 0.0f);
      if (!zero[static_cast<std::size_t>(k)] && unit > 0) {
        stored = encode(s.scale, std::min(p.scale / unit, most));
        if (!(decode(s.scale, stored) > 0))
          stored = encode(s.scale, s.scale == Code::e4m3 ? 0x1p-9f : 1.0f);
      }
      p = with_scale(p, decode(s.scale, stored) * unit);
      put(scales, s.scale, first + k, stored);
      if (s.offset == Offset::minimum) {
        const std::uint32_t min =
            min_unit > 0 ? encode(s.scale, std::min(p.min / min_unit, most)) : 0;
        p.min = decode(s.scale, min) * min_unit;
        put(mins, s.scale, first + k, min);
      }
      if (s.offset == Offset::zero)
        zeros[static_cast<std::size_t>(first + k)] = static_cast<std::int8_t>(p.zero);
      params[static_cast<std::size_t>(first + k)] = p;
    }
  }

  void put_code(i64 row, i64 col, std::uint32_t pattern) {
    std::uint8_t* data = codes.data() + row * code_row_bytes;
    const int b = bits(s.code);
    if (b == 8) {
      data[col] = static_cast<std::uint8_t>(pattern);
    } else if (b == 4) {
      const int shift = 4 * static_cast<int>(col & 1);
      data[col / 2] = static_cast<std::uint8_t>((data[col / 2] & ~(15 << shift)) |
                                                (static_cast<int>(pattern) << shift));
    } else {
      for (int k = 0; k < b; k++) {  // a code may straddle bytes
        const i64 bit = col * b + k;
        const std::uint8_t one = static_cast<std::uint8_t>(1u << (bit % 8));
        std::uint8_t& byte = data[bit / 8];
        byte = static_cast<std::uint8_t>((pattern >> k) & 1 ? byte | one : byte & ~one);
      }
    }
  }

  float snap(i64 row, i64 col, float want) {
    const Params& p = params[static_cast<std::size_t>(group_index(row, col))];
    const Limits range = limits_of(s.code);
    if (std::isnan(want)) want = 0;  // integers have no other word for it
    // Under a scale of 0 an infinity, or a sum that overflows, makes a NaN again.
    const auto number = [](float x) { return std::isnan(x) ? 0.0f : x; };
    switch (kind_of(s)) {
      case Kind::integer: {
        const float zero = static_cast<float>(p.zero);
        const float q =
            round_even(std::clamp(number(want * p.inverse), range.low - zero, range.high - zero));
        put_code(
            row, col,
            static_cast<std::uint32_t>(static_cast<int>(q) + p.zero -
                                       (s.code == Code::int8 ? 0 : static_cast<int>(range.low))) &
                ((1u << bits(s.code)) - 1));
        return q * p.scale;
      }
      case Kind::minimum: {
        const float q = round_even(
            std::clamp(number((want + p.min) * p.inverse), 0.0f, range.high - range.low));
        put_code(row, col, static_cast<std::uint32_t>(q) ^ (s.code == Code::int8 ? 0x80u : 0u));
        return p.scale * q - p.min;
      }
      case Kind::table:
        break;
    }
    const std::uint32_t pattern = encode(s.code, want * p.inverse);
    put_code(row, col, pattern);
    return decode(s.code, pattern) * p.scale;
  }
};

Encoder::Encoder(const Scheme& scheme, i64 rows, i64 cols, const FitOptions& options,
                 Matrix<const float> whole)
    : state_(std::make_shared<State>()) {
  check(scheme);
  PARE_CHECK(!scheme.plain() && rows > 0 && cols > 0);
  State& st = *state_;
  st.s = scheme;
  st.rows = rows;
  st.cols = cols;
  st.options = options;
  st.code_row_bytes = row_bytes(scheme, cols);
  st.group_rows = scale_rows(scheme, rows);
  st.group_cols = scale_cols(scheme, cols);
  const std::size_t groups = static_cast<std::size_t>(st.group_rows * st.group_cols);
  st.codes.resize(static_cast<std::size_t>(rows * st.code_row_bytes));
  st.scales.resize(groups * static_cast<std::size_t>(State::width(scheme.scale)));
  st.params.resize(groups);
  if (scheme.offset == Offset::zero) st.zeros.resize(groups);
  if (scheme.offset == Offset::minimum) st.mins.resize(st.scales.size());
  if (scheme.second_level) {
    const i64 supers = scheme.super_count == 0 ? 1 : rows * up(st.group_cols, scheme.super_count);
    st.super_scales.resize(static_cast<std::size_t>(supers * State::width(scheme.super)));
    if (scheme.offset == Offset::minimum) st.super_mins.resize(st.super_scales.size());
    if (scheme.super_count == 0) {
      PARE_CHECK(whole.rows == rows && whole.cols == cols);
      const float top = extent_of({whole, nullptr}).magnitude();
      const float most = scheme.scale == Code::e4m3 ? 448.0f : limits_of(scheme.scale).high;
      const float code_top =
          info(scheme.code).integer ? limits_of(scheme.code).high : info(scheme.code).max;
      std::uint32_t stored = 0;
      float unit = storable(scheme.super, top > 0 ? top / (most * code_top) : 1.0f);
      // Checkpoints keep the reciprocal of an f32 scale; a value that is one comes back unchanged.
      const float twice = 1.0f / (1.0f / unit);
      if (scheme.super == Code::f32 && twice > 0 && std::isfinite(twice)) unit = twice;
      st.tensor_super = storable(scheme.super, unit, &stored);
      State::put(st.super_scales, scheme.super, 0, stored);
    }
  }
}

i64 Encoder::unit_rows() const {
  const Scheme& s = state_->s;
  return s.grouping == Grouping::tensor ? state_->rows : s.grouping == Grouping::block ? s.rows : 1;
}

i64 Encoder::unit_cols() const {
  const Scheme& s = state_->s;
  switch (s.grouping) {
    case Grouping::group:
      return std::min(state_->cols,
                      s.second_level && s.super_count > 0 ? s.cols * s.super_count : s.cols);
    case Grouping::block:
      return s.cols;
    default:
      return state_->cols;
  }
}

void Encoder::fit(i64 row, i64 col, Matrix<const float> values, std::span<const float> importance) {
  State& st = *state_;
  PARE_CHECK(row % unit_rows() == 0 && col % unit_cols() == 0);
  PARE_CHECK(importance.empty() || static_cast<i64>(importance.size()) == values.cols);
  const Tile tile{values, importance.empty() ? nullptr : importance.data()};
  const i64 group = st.group_index(row, col);
  if (st.s.second_level) return st.fit_super(row, col, tile, group);
  st.set_scale(group, fit_group(st.s, tile, st.options,
                                [&](float scale) { return storable(st.s.scale, scale); }));
}

float Encoder::snap(i64 row, i64 col, float want) { return state_->snap(row, col, want); }

float Encoder::scale(i64 row, i64 col) const {
  return state_->params[static_cast<std::size_t>(state_->group_index(row, col))].scale;
}

float Encoder::minimum(i64 row, i64 col) const {
  const Params& p = state_->params[static_cast<std::size_t>(state_->group_index(row, col))];
  return state_->s.offset == Offset::zero
             ? p.scale * (static_cast<float>(p.zero) - limits_of(state_->s.code).low)
             : p.min;
}

void Encoder::set_minimum(i64 row, i64 col, float minimum) {
  PARE_CHECK(state_->s.offset != Offset::none);
  state_->set_minimum(state_->group_index(row, col), row, col, minimum);
}

Tensor Encoder::finish() {
  State& st = *state_;
  PARE_CHECK(!st.finished);
  st.finished = true;
  Tensor t;
  t.scheme = st.s;
  t.shape = {st.rows, st.cols};
  t.codes = blob_of(std::move(st.codes));
  t.scales = blob_of(std::move(st.scales));
  t.zeros = blob_of(std::move(st.zeros));
  t.mins = blob_of(std::move(st.mins));
  t.super_scales = blob_of(std::move(st.super_scales));
  t.super_mins = blob_of(std::move(st.super_mins));
  return t;
}

namespace {

void refuse_sparsity(const Scheme& scheme) {
  if (scheme.sparsity == Sparsity::bitmask)
    fail(Exit::usage, "NU-020",
         "a bitmask needs a pass that prunes; quantization alone keeps every weight");
}

// Rows of `source` are drawn through `row_at` so that decoding and quantizing share one row of
// floats.
template <class RowAt>
Tensor quantize_rows(i64 rows, i64 cols, const Scheme& scheme, const FitOptions& options,
                     std::span<const float> importance, Pool* pool, Matrix<const float> whole,
                     const RowAt& row_at) {
  Encoder encoder(scheme, rows, cols, options, whole);
  const i64 unit_rows = encoder.unit_rows(), unit_cols = encoder.unit_cols();
  const auto work = [&](i64 begin, i64 end) {
    std::vector<float> buffer(static_cast<std::size_t>(unit_rows * cols));
    for (i64 unit = begin; unit < end; unit++) {
      const i64 row0 = unit * unit_rows, row1 = std::min(rows, row0 + unit_rows);
      for (i64 r = row0; r < row1; r++) row_at(r, buffer.data() + (r - row0) * cols);
      for (i64 c = 0; c < cols; c += unit_cols) {
        const i64 n = std::min(unit_cols, cols - c);
        encoder.fit(row0, c, {buffer.data() + c, row1 - row0, n, cols},
                    importance.empty() ? importance
                                       : importance.subspan(static_cast<std::size_t>(c),
                                                            static_cast<std::size_t>(n)));
        for (i64 r = row0; r < row1; r++)
          for (i64 k = c; k < c + n; k++)
            encoder.snap(r, k, buffer[static_cast<std::size_t>((r - row0) * cols + k)]);
      }
    }
  };
  const i64 units = up(rows, unit_rows);
  if (pool != nullptr)
    pool->run(units, 1, work);
  else
    work(0, units);
  return encoder.finish();
}

}  // namespace

Tensor quantize(Matrix<const float> weights, const Scheme& scheme, const FitOptions& options,
                std::span<const float> importance, Pool* pool) {
  if (scheme.plain()) {
    std::vector<float> flat;
    for (i64 r = 0; r < weights.rows; r++)
      flat.insert(flat.end(), weights.row(r), weights.row(r) + weights.cols);
    if (bits(scheme.code) >= 16)
      return plain_tensor(flat, {weights.rows, weights.cols}, scheme.code);
    std::vector<std::uint8_t> codes(flat.size());
    for (std::size_t i = 0; i < flat.size(); i++)
      codes[i] = static_cast<std::uint8_t>(encode(scheme.code, flat[i]));
    Tensor t;
    t.scheme = scheme;
    t.shape = {weights.rows, weights.cols};
    t.codes = blob_of(std::move(codes));
    return t;
  }
  refuse_sparsity(scheme);
  return quantize_rows(weights.rows, weights.cols, scheme, options, importance, pool, weights,
                       [&](i64 r, float* to) { std::copy_n(weights.row(r), weights.cols, to); });
}

Tensor requantize(const Tensor& source, const Scheme& scheme, const FitOptions& options,
                  std::span<const float> importance, Pool* pool) {
  const i64 rows = source.rows(), cols = source.cols();
  const bool needs_whole = scheme.plain() || (scheme.second_level && scheme.super_count == 0);
  if (needs_whole) {
    const std::vector<float> flat = decode(source);
    return quantize({flat.data(), rows, cols}, scheme, options, importance, pool);
  }
  refuse_sparsity(scheme);
  return quantize_rows(rows, cols, scheme, options, importance, pool, {}, [&](i64 r, float* to) {
    decode_row(source, r, {to, static_cast<std::size_t>(cols)});
  });
}

}  // namespace pare
