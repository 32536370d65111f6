// Sums of outer products (kernel/outer.inl) for the AVX2 class: tiles of 4 x 24 floats or 4 x 12
// doubles, 12 registers of sums.
#include <immintrin.h>

#include "kernel/outer_panel.h"

namespace pare {
namespace {

using i64 = std::int64_t;
constexpr int tile_rows = 4, tile_vectors = 3;

struct F32 {
  using T = float;
  using V = __m256;
  static constexpr int L = 8;
  static V load(const T* p) { return _mm256_loadu_ps(p); }
  static void store(T* p, V v) { _mm256_storeu_ps(p, v); }
  static V set1(T x) { return _mm256_set1_ps(x); }
  static V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
};
struct F64 {
  using T = double;
  using V = __m256d;
  static constexpr int L = 4;
  static V load(const T* p) { return _mm256_loadu_pd(p); }
  static void store(T* p, V v) { _mm256_storeu_pd(p, v); }
  static V set1(T x) { return _mm256_set1_pd(x); }
  static V fma(V a, V b, V c) { return _mm256_fmadd_pd(a, b, c); }
};

void accumulate(float* c, __m256 v, bool subtract) {
  const __m256 old = _mm256_loadu_ps(c);
  _mm256_storeu_ps(c, subtract ? _mm256_sub_ps(old, v) : _mm256_add_ps(old, v));
}
void accumulate(double* c, __m256d v, bool subtract) {
  const __m256d old = _mm256_loadu_pd(c);
  _mm256_storeu_pd(c, subtract ? _mm256_sub_pd(old, v) : _mm256_add_pd(old, v));
}
void accumulate(double* c, __m256 v, bool subtract) {
  accumulate(c, _mm256_cvtps_pd(_mm256_castps256_ps128(v)), subtract);
  accumulate(c + 4, _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)), subtract);
}

#include "kernel/outer.inl"

}  // namespace

void panel_f32_avx2(const PanelCall<float, float>& call) { panel<F32>(call); }
void panel_f32_f64_avx2(const PanelCall<float, double>& call) { panel<F32>(call); }
void panel_f64_avx2(const PanelCall<double, double>& call) { panel<F64>(call); }
void subtract_scaled_avx2(const float* x, float scale, i64 n, float* y) {
  subtract_row(x, scale, n, y);
}

}  // namespace pare
