// Rotary frequencies with every published scaling.
//
// Su et al. 2021 (RoPE); Chen et al. 2023 (linear); bloc97 2023 (dynamic NTK); Peng et al. 2023
// (YaRN); Llama 3 (Dubey et al. 2024); Ding et al. 2024 (LongRoPE). The attention factor is derived
// by the family files.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "model/spec.h"

namespace pare {
namespace {

constexpr double tau = 2 * std::numbers::pi;

void llama3(const Rope& r, std::vector<double>& inverse) {
  const double original = static_cast<double>(r.original_positions);
  for (double& f : inverse) {
    const double wavelength = tau / f;
    if (wavelength < original / r.high_freq_factor) continue;
    if (wavelength > original / r.low_freq_factor) {
      f /= r.factor;
      continue;
    }
    const double s =
        (original / wavelength - r.low_freq_factor) / (r.high_freq_factor - r.low_freq_factor);
    f = (1 - s) * f / r.factor + s * f;
  }
}

void yarn(const Rope& r, std::vector<double>& inverse) {
  const double d = static_cast<double>(r.dims),
               original = static_cast<double>(r.original_positions);
  const auto corner = [&](double rotations) {
    return d * std::log(original / (tau * rotations)) / (2 * std::log(r.theta));
  };
  double low = corner(r.beta_fast), high = corner(r.beta_slow);
  if (r.truncate) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0);
  high = std::min(high, d - 1);
  if (low == high) high += 0.001;
  for (std::size_t i = 0; i < inverse.size(); i++) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    inverse[i] = inverse[i] / r.factor * ramp + inverse[i] * (1 - ramp);
  }
}

}  // namespace

bool rope_depends_on_length(const Rope& r) {
  return r.dims > 0 && (r.scaling == RopeScaling::dynamic || r.scaling == RopeScaling::longrope);
}

std::vector<double> rope_frequencies(const Rope& r, i64 length) {
  std::vector<double> inverse(static_cast<std::size_t>(r.dims / 2));
  const double d = static_cast<double>(r.dims);
  double theta = r.theta;
  if (r.scaling == RopeScaling::dynamic) {
    const double most = static_cast<double>(r.original_positions),
                 now = std::max(static_cast<double>(length), most);
    theta *= std::pow(r.factor * now / most - (r.factor - 1), d / (d - 2));
  }
  for (std::size_t i = 0; i < inverse.size(); i++)
    inverse[i] = std::pow(theta, -2.0 * static_cast<double>(i) / d);
  switch (r.scaling) {
    case RopeScaling::none:
    case RopeScaling::dynamic:
      break;
    case RopeScaling::linear:
      for (double& f : inverse) f /= r.factor;
      break;
    case RopeScaling::llama3:
      llama3(r, inverse);
      break;
    case RopeScaling::yarn:
      yarn(r, inverse);
      break;
    case RopeScaling::longrope: {
      const std::vector<double>& factor =
          length > r.original_positions ? r.long_factor : r.short_factor;
      PARE_CHECK(factor.size() == inverse.size());
      for (std::size_t i = 0; i < inverse.size(); i++) inverse[i] /= factor[i];
      break;
    }
  }
  return inverse;
}

}  // namespace pare
