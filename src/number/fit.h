// Fitting the parameters of groups: what lies between number/encode.cpp and the searches. Internal
// to the number layer.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "number/encode.h"

namespace pare::fitting {

constexpr float round_magic =
    12582912.0f;  // 1.5 * 2^23: adding and subtracting rounds to nearest even
constexpr float largest = 3.0e38f;

inline float round_even(float x) { return (x + round_magic) - round_magic; }

// Parameters of one group as the decoder will see them.
struct Params {
  float scale = 1, inverse = 1, min = 0;
  int zero = 0;
};

enum class Kind { integer, minimum, table };

inline Kind kind_of(const Scheme& s) {
  if (s.offset == Offset::minimum) return Kind::minimum;
  return info(s.code).integer ? Kind::integer : Kind::table;
}

struct Limits {
  float low, high;
};
inline Limits limits_of(Code code) {
  const int b = bits(code);
  if (info(code).name[0] == 'u') return {0.0f, static_cast<float>((1 << b) - 1)};
  return {static_cast<float>(-(1 << (b - 1))), static_cast<float>((1 << (b - 1)) - 1)};
}

// The value of the nearest code of a float code, already divided by the scale.
inline float nearest_value(Code code, float v) { return decode(code, encode(code, v)); }

// What a unit's groups are fitted with: a tile of values and a weight for each of its columns.
struct Tile {
  Matrix<const float> values;
  const float* weight = nullptr;  // per column, or null
};

// Sum of weight * (x - decode(snap(x)))^2 for integer codes under `inverse` and `scale`, cut to
// [low, high]. n need not be a multiple of anything; weight may be null.
double integer_error(const float* x, const float* weight, i64 n, float inverse, float scale,
                     float low, float high);
// The same for a tile under any code.
double tile_error(const Scheme&, const Tile&, const Params&);

struct Extent {
  float low = 0, high = 0;  // with zero between them
  float magnitude() const { return std::max(-low, high); }
};
Extent extent_of(const Tile&);

// The nearest scale that `code` can store; never zero or infinite for a positive scale.
float storable(Code code, float scale, std::uint32_t* stored = nullptr);

Params with_scale(Params, float scale);

// ggml's own formats are read by programs that take scales of either sign, which lets the larger
// end of a group have the larger end of the code; and as no later step can mend what their two
// levels of rounding lose, their search is worth more time.
bool k_quant(const Scheme&);

// Fits one group. A free scale is not rounded to its storage: a second level will do that.
enum class Scale { stored, free };
Params fit_group(const Scheme&, const Tile&, const FitOptions&, Scale);

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

  Choice search() const;
  Params at(const Choice&, int scale, int min) const;

 private:
  double error_of(std::size_t k, const Params&) const;
  Choice settle(float unit, float min_unit) const;
  std::pair<float, float> units_for(const Choice&) const;
};

}  // namespace pare::fitting
