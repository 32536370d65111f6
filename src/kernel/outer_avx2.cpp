// Sums of outer products (kernel/outer.inl) for the AVX2 class: tiles of 4 x 24 floats or 4 x 12
// doubles, 12 registers of sums.
#include "kernel/outer_panel.h"
#include "kernel/simd_avx2.h"

namespace pare {
namespace {

using i64 = std::int64_t;
constexpr int tile_rows = 4, tile_vectors = 3;

#include "kernel/outer.inl"

}  // namespace

void panel_f32_avx2(const PanelCall<float, float>& call) { panel<F32>(call); }
void panel_f32_f64_avx2(const PanelCall<float, double>& call) { panel<F32>(call); }
void panel_f64_avx2(const PanelCall<double, double>& call) { panel<F64>(call); }
void subtract_scaled_avx2(const float* x, float scale, i64 n, float* y) {
  subtract_row(x, scale, n, y);
}

}  // namespace pare
