// Sums of outer products (kernel/outer.inl) for the AVX-512 class: tiles of 8 x 48 floats or 8 x 24
// doubles, 24 registers of sums.
#include <immintrin.h>

#include "kernel/outer_panel.h"

namespace pare {
namespace {

using i64 = std::int64_t;
constexpr int tile_rows = 8, tile_vectors = 3;

struct F32 {
  using T = float;
  using V = __m512;
  static constexpr int L = 16;
  static V load(const T* p) { return _mm512_loadu_ps(p); }
  static void store(T* p, V v) { _mm512_storeu_ps(p, v); }
  static V set1(T x) { return _mm512_set1_ps(x); }
  static V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
};
struct F64 {
  using T = double;
  using V = __m512d;
  static constexpr int L = 8;
  static V load(const T* p) { return _mm512_loadu_pd(p); }
  static void store(T* p, V v) { _mm512_storeu_pd(p, v); }
  static V set1(T x) { return _mm512_set1_pd(x); }
  static V fma(V a, V b, V c) { return _mm512_fmadd_pd(a, b, c); }
};

void accumulate(float* c, __m512 v, bool subtract) {
  const __m512 old = _mm512_loadu_ps(c);
  _mm512_storeu_ps(c, subtract ? _mm512_sub_ps(old, v) : _mm512_add_ps(old, v));
}
void accumulate(double* c, __m512d v, bool subtract) {
  const __m512d old = _mm512_loadu_pd(c);
  _mm512_storeu_pd(c, subtract ? _mm512_sub_pd(old, v) : _mm512_add_pd(old, v));
}
void accumulate(double* c, __m512 v, bool subtract) {
  accumulate(c, _mm512_cvtps_pd(_mm512_castps512_ps256(v)), subtract);
  accumulate(c + 8, _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1)), subtract);
}

#include "kernel/outer.inl"

}  // namespace

void panel_f32_avx512(const PanelCall<float, float>& call) { panel<F32>(call); }
void panel_f32_f64_avx512(const PanelCall<float, double>& call) { panel<F32>(call); }
void panel_f64_avx512(const PanelCall<double, double>& call) { panel<F64>(call); }
void subtract_scaled_avx512(const float* x, float scale, i64 n, float* y) {
  subtract_row(x, scale, n, y);
}

}  // namespace pare
