// The scalar truth of the element-wise operations, in double, and the choice of a table.
#include "kernel/ops.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace pare {
namespace {

void rms_norm(const float* x, const float* weight, float plus, float eps, i64 n, float* y) {
  double sum = 0;
  for (i64 i = 0; i < n; i++) sum += static_cast<double>(x[i]) * x[i];
  const double scale = 1.0 / std::sqrt(sum / static_cast<double>(n) + eps);
  for (i64 i = 0; i < n; i++)
    y[i] = static_cast<float>(x[i] * scale * (static_cast<double>(weight[i]) + plus));
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, i64 n,
                float* y) {
  double sum = 0, squares = 0;
  for (i64 i = 0; i < n; i++) sum += x[i];
  const double mean = sum / static_cast<double>(n);
  for (i64 i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
  const double scale = 1.0 / std::sqrt(squares / static_cast<double>(n) + eps);
  for (i64 i = 0; i < n; i++)
    y[i] = static_cast<float>((x[i] - mean) * scale * weight[i] +
                              (bias != nullptr ? static_cast<double>(bias[i]) : 0.0));
}

double act_of(Act act, double x) {
  switch (act) {
    case Act::silu:
      return x / (1 + std::exp(-x));
    case Act::gelu:
      return 0.5 * x * (1 + std::erf(x * 0.70710678118654752440));
    case Act::gelu_tanh:
      return 0.5 * x * (1 + std::tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x)));
    case Act::relu:
      return std::max(x, 0.0);
    case Act::relu2:
      return x > 0 ? x * x : 0;
  }
  PARE_CHECK(false);
}

void activate(Act act, const float* gate, const float* up, i64 n, float* y) {
  for (i64 i = 0; i < n; i++)
    y[i] = static_cast<float>(act_of(act, gate[i]) *
                              (up != nullptr ? static_cast<double>(up[i]) : 1.0));
}

void add_scaled(const float* x, const float* more, float scale, i64 n, float* y) {
  for (i64 i = 0; i < n; i++)
    y[i] = static_cast<float>(x[i] + static_cast<double>(more[i]) * scale);
}

void rope(float* x, const float* cosine, const float* sine, i64 dims, bool interleaved) {
  for (i64 i = 0; i < dims / 2; i++) {
    float &a = x[interleaved ? 2 * i : i], &b = x[interleaved ? 2 * i + 1 : i + dims / 2];
    const double p = a, q = b, c = cosine[i], s = sine[i];
    a = static_cast<float>(p * c - q * s);
    b = static_cast<float>(q * c + p * s);
  }
}

void softcap(const float* x, float cap, i64 n, float* y) {
  for (i64 i = 0; i < n; i++)
    y[i] = static_cast<float>(cap * std::tanh(static_cast<double>(x[i]) / cap));
}

double log_sum_exp(const float* x, i64 n) {
  const double top = *std::max_element(x, x + n);
  double sum = 0;
  for (i64 i = 0; i < n; i++) sum += std::exp(x[i] - top);
  return top + std::log(sum);
}

float magnitude(const float* x, i64 n) {
  float top = 0;
  for (i64 i = 0; i < n; i++) top = std::max(top, std::abs(x[i]));
  return top;
}

void to_int8(const float* x, float inverse, float top, i64 n, std::int8_t* y) {
  for (i64 i = 0; i < n; i++)
    y[i] = static_cast<std::int8_t>(std::nearbyint(std::clamp(x[i] * inverse, -top, top)));
}

i64 sum_int8(const std::int8_t* x, i64 n) { return std::accumulate(x, x + n, i64{0}); }

constexpr VectorOps scalar = {rms_norm, layer_norm,  activate,  add_scaled, rope,
                              softcap,  log_sum_exp, magnitude, to_int8,    sum_int8};

}  // namespace

#if defined(__x86_64__)
extern const VectorOps vector_ops_avx2, vector_ops_avx512;
#endif

const VectorOps& vector_ops_reference() { return scalar; }

const VectorOps& vector_ops(unsigned isa) {
#if defined(__x86_64__)
  if (isa & isa_avx512) return vector_ops_avx512;
  if (isa & isa_avx2) return vector_ops_avx2;
#endif
  (void)isa;
  return scalar;
}

}  // namespace pare
