// From floats to codes: `fit` decides a group's parameters, `snap` stores a value.
//
// These two are all that any solver (round to nearest, GPTQ, AWQ, ...) knows of a scheme.
#pragma once

#include <memory>
#include <optional>
#include <span>

#include "base/pool.h"
#include "number/tensor.h"

namespace pare {

enum class Range : std::uint8_t {
  absmax,      // the largest magnitude is representable (asym: minimum and maximum)
  mse,         // weighted least squares over shrunken ranges (the default)
  percentile,  // the `percentile`-th magnitude is representable, what lies beyond is clipped
};
struct FitOptions {
  Range range = Range::mse;
  double percentile = 99.9;  // in (0, 100]
  int steps = 64;            // candidates of the mse search
  bool operator==(const FitOptions&) const = default;
};

// Builds one tensor. Rows may be worked on by different threads; the same bits result in any order.
class Encoder {
 public:
  // Reserves the planes. A scheme whose second level spans the tensor (nvfp4) needs `whole`, the
  // matrix (rows, cols), before any fit; others ignore it.
  Encoder(const Scheme&, i64 rows, i64 cols, const FitOptions& = {},
          Matrix<const float> whole = {});

  // Parameters are decided together for a tile of unit_rows x unit_cols (edge tiles are smaller):
  // the group, or all groups under one second-level scale.
  i64 unit_rows() const;
  i64 unit_cols() const;

  // Decides and stores the parameters of the unit at (row, col), a multiple of the unit's size.
  // values (unit_rows, unit_cols) cut at the edges; importance per column of the tile, empty =
  // ones.
  void fit(i64 row, i64 col, Matrix<const float> values, std::span<const float> importance = {});

  // Stores the code nearest to `want` under the fitted parameters; returns what it decodes to.
  float snap(i64 row, i64 col, float want);

  // The fitted group of a weight in one form for both kinds of offset: x = scale * q - minimum, q
  // counted from 0 (a zero point z is a minimum of scale * (z - lowest code)).
  float scale(i64 row, i64 col) const;
  float minimum(i64 row, i64 col) const;
  // Replaces it after fit, rounded to what the scheme stores. Only for schemes with an offset.
  void set_minimum(i64 row, i64 col, float);
  // Where codes are evenly spaced and each group stands for itself: the least and greatest q of the
  // form above (from -2^(b-1) on without an offset).
  std::optional<std::pair<float, float>> even_codes() const;
  // Multiplies the scale and the minimum of such a group, rounded to what the scheme stores.
  void stretch(i64 row, i64 col, float factor);

  Tensor finish();  // once

 private:
  struct State;
  std::shared_ptr<State> state_;
};

// Round to nearest: fit every unit, snap every weight. importance per column (cols) or empty.
Tensor quantize(Matrix<const float> weights, const Scheme&, const FitOptions& = {},
                std::span<const float> importance = {}, Pool* pool = nullptr);

// Re-encodes row by row with bounded memory: decodes `source` (any scheme) and quantizes to
// `scheme`.
Tensor requantize(const Tensor& source, const Scheme&, const FitOptions& = {},
                  std::span<const float> importance = {}, Pool* pool = nullptr);

// Inputs of a product. codes (tokens, cols) int8 or e4m3 patterns; scales (tokens, groups), groups
// = 1 for per tensor and per token. Rounding to nearest even, symmetric: scale = absmax / max code
// (127, 448). A row of zeros gets scale 0 and codes 0. `static_scale` > 0 is used for static
// schemes.
float top_code(Code);  // the largest code of inputs: 127, 7, 448
void quantize_activations(Matrix<const float> x, const Activation&, float static_scale,
                          Matrix<std::uint8_t> codes, Matrix<float> scales);
// x after a round trip through its codes: the meaning of a simulated product. (tokens, cols)
void simulate_activations(Matrix<const float> x, const Activation&, float static_scale,
                          Matrix<float> out);

}  // namespace pare
