// Gram sums: tokens are packed as they come, and a full chain of 256 is multiplied with itself.
//
// Only the upper triangle exists, as rows of blocks, so that doubles need no more memory than a
// full matrix of floats. Threads take tiles of 192 x 192.
#include "kernel/gram.h"

#include <algorithm>

#include "kernel/outer.h"
#include "kernel/outer_panel.h"

namespace pare {
namespace {

i64 up(i64 a, i64 b) { return (a + b - 1) / b; }

// Elements before block row b.
i64 offset_of(i64 n, i64 b) { return outer_tile * (b * n - outer_tile * (b * (b - 1) / 2)); }

i64 elements(i64 n) {
  const i64 last = up(n, outer_tile) - 1;
  return offset_of(n, last) + (n - last * outer_tile) * (n - last * outer_tile);
}

// The product of the waiting tokens' columns [row0, ..) and [col0, ..), one tile each, into sums.
void add_tile(const PanelKernel<float, double>& kernel, const float* panels, i64 depth, i64 n,
              i64 row0, i64 col0, double* sums, i64 stride) {
  const i64 w = kernel.width;
  const i64 row1 = std::min(n, row0 + outer_tile), col1 = std::min(n, col0 + outer_tile);
  for (i64 col = col0; col < col1; col += w)
    for (i64 row = row0; row < row1; row += w) {
      if (row > col) break;
      kernel.run({panels + row * outer_depth, panels + col * outer_depth, depth,
                  sums + (row - row0) * stride + (col - row0), stride,
                  static_cast<int>(std::min(w, n - row)), static_cast<int>(std::min(w, n - col)),
                  false});
    }
}

}  // namespace

GramSum::GramSum(i64 n, unsigned isa) : n_(n), isa_(isa) {
  PARE_CHECK(n > 0);
  const i64 w = panel_kernel<float, double>(isa).width;
  panels_.resize(static_cast<std::size_t>(up(n, w) * w * outer_depth));
  sums_.resize(static_cast<std::size_t>(elements(n)));
}

i64 GramSum::bytes(i64 n) { return 8 * elements(n) + 4 * outer_depth * up(n, 48) * 48; }

void GramSum::add(Matrix<const float> x, Pool& pool) {
  PARE_CHECK(x.cols == n_);
  const i64 w = panel_kernel<float, double>(isa_).width;
  for (i64 row = 0; row < x.rows;) {
    const i64 count = std::min(outer_depth - waiting_, x.rows - row);
    // Small additions stay on one thread: waking another costs more.
    const i64 grain = std::max<i64>(1, (i64{1} << 16) / (w * count));
    pool.run(up(n_, w), grain, [&](i64 begin, i64 end) {
      for (i64 k = 0; k < count; k++)
        for (i64 p = begin; p < end; p++)
          std::copy_n(x.row(row + k) + p * w, std::min(w, n_ - p * w),
                      panels_.data() + (p * outer_depth + waiting_ + k) * w);
    });
    row += count;
    waiting_ += count;
    if (waiting_ == outer_depth) flush(pool);
  }
  tokens_ += x.rows;
}

void GramSum::flush(Pool& pool) {
  std::vector<std::pair<i64, i64>> tiles;
  for (i64 row = 0; row < n_; row += outer_tile)
    for (i64 col = row; col < n_; col += outer_tile) tiles.emplace_back(row, col);
  const PanelKernel<float, double> kernel = panel_kernel<float, double>(isa_);
  pool.run(static_cast<i64>(tiles.size()), 1, [&](i64 begin, i64 end) {
    for (i64 t = begin; t < end; t++) {
      const auto [row, col] = tiles[static_cast<std::size_t>(t)];
      add_tile(kernel, panels_.data(), waiting_, n_, row, col,
               sums_.data() + offset_of(n_, row / outer_tile), n_ - row);
    }
  });
  waiting_ = 0;
}

std::vector<float> GramSum::mean(Pool& pool) const {
  std::vector<float> out(static_cast<std::size_t>(n_ * n_));
  if (tokens_ == 0) return out;
  const PanelKernel<float, double> kernel = panel_kernel<float, double>(isa_);
  const double count = static_cast<double>(tokens_);
  pool.run(up(n_, outer_tile), 1, [&](i64 begin, i64 end) {
    for (i64 b = begin; b < end; b++) {
      const i64 row0 = b * outer_tile, row1 = std::min(n_, row0 + outer_tile), stride = n_ - row0;
      const double* from = sums_.data() + offset_of(n_, b);
      std::vector<double> sums(from, from + (row1 - row0) * stride);
      if (waiting_ > 0)
        for (i64 col = row0; col < n_; col += outer_tile)
          add_tile(kernel, panels_.data(), waiting_, n_, row0, col, sums.data(), stride);
      for (i64 i = row0; i < row1; i++)
        for (i64 j = i; j < n_; j++)
          out[static_cast<std::size_t>(j * n_ + i)] = out[static_cast<std::size_t>(i * n_ + j)] =
              static_cast<float>(sums[static_cast<std::size_t>((i - row0) * stride + j - row0)] /
                                 count);
    }
  });
  return out;
}

}  // namespace pare
