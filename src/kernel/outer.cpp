// The scalar truth of outer products, packing, and the split among threads.
//
// A and B are copied into panels first, 256 rows at a time: what a tile reads then lies in one
// piece, in the first two caches, and edges are padded. C is cut into tiles of 192 x 192; threads
// take tiles, so no element has two writers.
#include "kernel/outer.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernel/outer_panel.h"
#include "kernel/panels.h"

namespace pare {
namespace {

constexpr int scalar_width = 8;

template <class T, class C>
void panel_scalar(const PanelCall<T, C>& call) {
  for (int i = 0; i < call.rows; i++)
    for (int j = 0; j < call.cols; j++) {
      T sum = 0;
      for (i64 k = 0; k < call.depth; k++)
        sum = std::fma(call.a[k * scalar_width + i], call.b[k * scalar_width + j], sum);
      C& c = call.c[i * call.stride + j];
      c = call.subtract ? c - static_cast<C>(sum) : c + static_cast<C>(sum);
    }
}

// Rows [0, depth) of x as panels (panels, depth, width).
template <class T>
Panels<T> pack(Matrix<const T> x, i64 row, i64 depth, i64 width, Pool& pool) {
  const i64 panels = ceil_div(x.cols, width);
  Panels<T> packed(static_cast<std::size_t>(panels * depth * width));
  pool.run(panels, 4, [&](i64 begin, i64 end) {
    for (i64 k = 0; k < depth; k++)
      for (i64 p = begin; p < end; p++)
        std::copy_n(x.row(row + k) + p * width, std::min(width, x.cols - p * width),
                    packed.data() + (p * depth + k) * width);
  });
  return packed;
}

template <class T>
struct Job {
  PanelKernel<T, T> kernel;
  Matrix<T> c;
  const T *a, *b;  // panels
  i64 depth;
  bool subtract, upper;

  void tile(i64 row0, i64 col0) const {
    const i64 w = kernel.width;
    const i64 row1 = std::min(c.rows, row0 + outer_tile),
              col1 = std::min(c.cols, col0 + outer_tile);
    for (i64 col = col0; col < col1; col += w)
      for (i64 row = row0; row < row1; row += w) {
        if (upper && row > col) break;
        kernel.run({a + row * depth, b + col * depth, depth, c.row(row) + col, c.stride,
                    static_cast<int>(std::min(w, row1 - row)),
                    static_cast<int>(std::min(w, col1 - col)), subtract});
      }
  }
};

template <class T>
void outer_any(Outer op, Matrix<T> c, Matrix<const T> a, Matrix<const T> b, bool upper, Pool& pool,
               unsigned isa) {
  PARE_CHECK(a.rows == b.rows && a.cols == c.rows && b.cols == c.cols);
  std::vector<std::pair<i64, i64>> tiles;
  for (i64 row = 0; row < c.rows; row += outer_tile)
    for (i64 col = upper ? row : 0; col < c.cols; col += outer_tile) tiles.emplace_back(row, col);
  const PanelKernel<T, T> kernel = panel_kernel<T, T>(isa);
  const bool same = a.data == b.data && a.cols == b.cols && a.stride == b.stride;
  for (i64 k = 0; k < a.rows; k += outer_depth) {
    const i64 depth = std::min(outer_depth, a.rows - k);
    const Panels<T> left = pack(a, k, depth, kernel.width, pool);
    const Panels<T> right = same ? Panels<T>() : pack(b, k, depth, kernel.width, pool);
    const Job<T> job{
        kernel, c, left.data(), same ? left.data() : right.data(), depth, op == Outer::subtract,
        upper};
    pool.share(static_cast<i64>(tiles.size()), [&](i64 t) {
      job.tile(tiles[static_cast<std::size_t>(t)].first, tiles[static_cast<std::size_t>(t)].second);
    });
  }
}

}  // namespace

template <>
PanelKernel<float, float> panel_kernel(unsigned isa) {
#if defined(__x86_64__)
  if (isa & isa_avx512) return {48, panel_f32_avx512};
  if (isa & isa_avx2) return {24, panel_f32_avx2};
#endif
  (void)isa;
  return {scalar_width, panel_scalar<float, float>};
}
template <>
PanelKernel<float, double> panel_kernel(unsigned isa) {
#if defined(__x86_64__)
  if (isa & isa_avx512) return {48, panel_f32_f64_avx512};
  if (isa & isa_avx2) return {24, panel_f32_f64_avx2};
#endif
  (void)isa;
  return {scalar_width, panel_scalar<float, double>};
}
template <>
PanelKernel<double, double> panel_kernel(unsigned isa) {
#if defined(__x86_64__)
  if (isa & isa_avx512) return {24, panel_f64_avx512};
  if (isa & isa_avx2) return {12, panel_f64_avx2};
#endif
  (void)isa;
  return {scalar_width, panel_scalar<double, double>};
}

void outer(Outer op, Matrix<float> c, Matrix<const float> a, Matrix<const float> b, bool upper,
           Pool& pool, unsigned isa) {
  outer_any(op, c, a, b, upper, pool, isa);
}
void outer(Outer op, Matrix<double> c, Matrix<const double> a, Matrix<const double> b, bool upper,
           Pool& pool, unsigned isa) {
  outer_any(op, c, a, b, upper, pool, isa);
}

void subtract_scaled(const float* x, float scale, i64 n, float* y, unsigned isa) {
#if defined(__x86_64__)
  if (isa & isa_avx512) return subtract_scaled_avx512(x, scale, n, y);
  if (isa & isa_avx2) return subtract_scaled_avx2(x, scale, n, y);
#endif
  (void)isa;
  for (i64 i = 0; i < n; i++) y[i] = std::fma(-scale, x[i], y[i]);
}

}  // namespace pare
