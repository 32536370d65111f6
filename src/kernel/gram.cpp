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

// Tiles on and above the diagonal, in the order in which they lie in memory.
struct TileGrid {
  i64 n, edge = ceil_div(n, outer_tile);

  i64 count() const { return edge * (edge + 1) / 2; }
  static i64 elements() { return outer_tile * outer_tile; }
  std::pair<i64, i64> at(i64 tile) const {  // its first row and column
    i64 row = 0;
    while (tile >= edge - row) tile -= edge - row++;
    return {row * outer_tile, (row + tile) * outer_tile};
  }
};

// The product of the waiting tokens' columns [row0, ..) and [col0, ..) into a tile.
void add_tile(const PanelKernel<float, double>& kernel, const float* panels, i64 depth, i64 n,
              i64 row0, i64 col0, double* tile) {
  const i64 w = kernel.width;
  const i64 row1 = std::min(n, row0 + outer_tile), col1 = std::min(n, col0 + outer_tile);
  for (i64 col = col0; col < col1; col += w)
    for (i64 row = row0; row < row1; row += w) {
      if (row > col) break;
      kernel.run({panels + row * outer_depth, panels + col * outer_depth, depth,
                  tile + (row - row0) * outer_tile + (col - col0), outer_tile,
                  static_cast<int>(std::min(w, n - row)), static_cast<int>(std::min(w, n - col)),
                  false});
    }
}

}  // namespace

GramSum::GramSum(i64 n, unsigned isa) : n_(n), isa_(isa) {
  PARE_CHECK(n > 0);
  const i64 w = panel_kernel<float, double>(isa).width;
  panels_.resize(static_cast<std::size_t>(ceil_div(n, w) * w * outer_depth));
  sums_.resize(static_cast<std::size_t>(TileGrid{n}.count() * TileGrid::elements()));
}

i64 GramSum::bytes(i64 n) {
  return 8 * TileGrid{n}.count() * TileGrid::elements() + 4 * outer_depth * ceil_div(n, 48) * 48;
}

void GramSum::add(Matrix<const float> x, Pool& pool) {
  PARE_CHECK(x.cols == n_);
  const i64 w = panel_kernel<float, double>(isa_).width;
  for (i64 row = 0; row < x.rows;) {
    const i64 count = std::min(outer_depth - waiting_, x.rows - row);
    // Small additions stay on one thread: waking another costs more.
    const i64 grain = std::max<i64>(1, (i64{1} << 16) / (w * count));
    pool.run(ceil_div(n_, w), grain, [&](i64 begin, i64 end) {
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
  const PanelKernel<float, double> kernel = panel_kernel<float, double>(isa_);
  const TileGrid grid{n_};
  pool.share(grid.count(), [&](i64 t) {
    const auto [row, col] = grid.at(t);
    add_tile(kernel, panels_.data(), waiting_, n_, row, col, sums_.data() + t * grid.elements());
  });
  waiting_ = 0;
}

// use(tile, row0, col0, sums) for every tile with the waiting tokens added, on any thread.
template <class F>
void GramSum::each_tile(Pool& pool, const F& use) const {
  const PanelKernel<float, double> kernel = panel_kernel<float, double>(isa_);
  const TileGrid grid{n_};
  pool.run(grid.count(), 1, [&](i64 begin, i64 end) {
    std::vector<double> tile;
    for (i64 t = begin; t < end; t++) {
      const auto [row, col] = grid.at(t);
      tile.assign(sums_.data() + t * grid.elements(), sums_.data() + (t + 1) * grid.elements());
      if (waiting_ > 0) add_tile(kernel, panels_.data(), waiting_, n_, row, col, tile.data());
      use(t, row, col, tile.data());
    }
  });
}

std::vector<float> GramSum::mean(Pool& pool) const {
  std::vector<float> out(static_cast<std::size_t>(n_ * n_));
  if (tokens_ == 0) return out;
  each_tile(pool, [&](i64, i64 row0, i64 col0, const double* tile) {
    for (i64 i = row0; i < std::min(n_, row0 + outer_tile); i++)
      for (i64 j = std::max(i, col0); j < std::min(n_, col0 + outer_tile); j++)
        out[static_cast<std::size_t>(j * n_ + i)] = out[static_cast<std::size_t>(i * n_ + j)] =
            static_cast<float>(tile[(i - row0) * outer_tile + j - col0] /
                               static_cast<double>(tokens_));
  });
  return out;
}

double GramSum::inner(Matrix<const float> g, Pool& pool) const {
  PARE_CHECK(g.rows == n_ && g.cols == n_);
  std::vector<double> parts(static_cast<std::size_t>(TileGrid{n_}.count()));
  each_tile(pool, [&](i64 t, i64 row0, i64 col0, const double* tile) {
    double sum = 0;
    for (i64 i = row0; i < std::min(n_, row0 + outer_tile); i++)
      for (i64 j = std::max(i, col0); j < std::min(n_, col0 + outer_tile); j++)
        sum += (i == j ? 1.0 : 2.0) * tile[(i - row0) * outer_tile + j - col0] *
               static_cast<double>(g.row(i)[j]);
    parts[static_cast<std::size_t>(t)] = sum;
  });
  double total = 0;
  for (double part : parts) total += part;
  return total;
}

}  // namespace pare
