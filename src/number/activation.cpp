// Activations to 8 bits, at run time.
//
// Symmetric, rounding to nearest even; the scale is the largest magnitude over the largest code,
// for a token, a group of its columns or the whole tensor. The formula is that of
// compressed-tensors' dynamic schemes but for the divisor: the largest code (127), so that no input
// is clipped.
#include <algorithm>
#include <cmath>

#include "number/encode.h"

namespace pare {
namespace {

float magnitude(const float* x, i64 n) {
  float top = 0;
  for (i64 i = 0; i < n; i++) top = std::max(top, std::abs(x[i]));
  return top;
}

void quantize_run(const float* x, i64 n, Code code, float scale, std::uint8_t* to) {
  const float inverse = scale > 0 ? 1.0f / scale : 0.0f;
  if (!info(code).integer) {
    for (i64 i = 0; i < n; i++) to[i] = static_cast<std::uint8_t>(encode(code, x[i] * inverse));
    return;
  }
  const float top = top_code(code);
  for (i64 i = 0; i < n; i++) {
    const float q = std::nearbyint(std::clamp(x[i] * inverse, -top, top));
    to[i] =
        static_cast<std::uint8_t>(static_cast<std::int8_t>(q));  // int4 too is kept in a whole byte
  }
}

}  // namespace

float top_code(Code code) {
  return info(code).integer ? static_cast<float>((1 << (bits(code) - 1)) - 1) : info(code).max;
}

void quantize_activations(Matrix<const float> x, const Activation& a, float static_scale,
                          Matrix<std::uint8_t> codes, Matrix<float> scales) {
  PARE_CHECK(a.per != Activation::Per::none && codes.rows == x.rows && codes.cols == x.cols);
  const float top = top_code(a.code);
  float whole = static_scale;
  if (a.per == Activation::Per::tensor && !a.is_static) {
    whole = 0;
    for (i64 r = 0; r < x.rows; r++) whole = std::max(whole, magnitude(x.row(r), x.cols));
    whole /= top;
  }
  const i64 group = a.per == Activation::Per::group ? a.group : std::max<i64>(1, x.cols);
  for (i64 r = 0; r < x.rows; r++)
    for (i64 c = 0, g = 0; c < x.cols; c += group, g++) {
      const i64 n = std::min(group, x.cols - c);
      const float scale =
          a.per == Activation::Per::tensor ? whole : magnitude(x.row(r) + c, n) / top;
      scales.row(r)[g] = scale;
      quantize_run(x.row(r) + c, n, a.code, scale, codes.row(r) + c);
    }
}

void simulate_activations(Matrix<const float> x, const Activation& a, float static_scale,
                          Matrix<float> out) {
  const i64 group = a.per == Activation::Per::group ? a.group : std::max<i64>(1, x.cols);
  const i64 groups = (x.cols + group - 1) / group;
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(x.rows * x.cols));
  std::vector<float> scales(static_cast<std::size_t>(x.rows * groups));
  quantize_activations(x, a, static_scale, {codes.data(), x.rows, x.cols},
                       {scales.data(), x.rows, groups});
  for (i64 r = 0; r < x.rows; r++)
    for (i64 c = 0; c < x.cols; c++) {
      const std::uint8_t stored = codes[static_cast<std::size_t>(r * x.cols + c)];
      const float value = info(a.code).integer
                              ? static_cast<float>(static_cast<std::int8_t>(stored))
                              : decode(a.code, stored);
      out.row(r)[c] = value * scales[static_cast<std::size_t>(r * groups + c / group)];
    }
}

}  // namespace pare
