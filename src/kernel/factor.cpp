// Blocked factorization: blocks of 128 on the diagonal by plain loops, everything else as sums of
// outer products.
//
// A triangular solve with a diagonal block is a product with its inverse. That is as accurate as
// the solve up to the condition of a 128 x 128 block, which doubles have digits to spare for.
#include "kernel/factor.h"

#include <algorithm>
#include <cmath>

#include "kernel/outer.h"

namespace pare {
namespace {

constexpr i64 block = 128;

Matrix<double> part(Matrix<double> a, i64 row, i64 col, i64 rows, i64 cols) {
  return {a.row(row) + col, rows, cols, a.stride};
}

// The upper Cholesky factor of a small block in place; the row whose pivot fails, or -1.
i64 factor_block(Matrix<double> a, const double* floor) {
  for (i64 j = 0; j < a.rows; j++) {
    double* top = a.row(j);
    if (!(top[j] > floor[j]) || !std::isfinite(top[j])) return j;
    const double root = std::sqrt(top[j]);
    top[j] = root;
    for (i64 k = j + 1; k < a.cols; k++) top[k] /= root;
    for (i64 i = j + 1; i < a.rows; i++) {
      const double factor = top[i];
      double* row = a.row(i);
      for (i64 k = i; k < a.cols; k++) row[k] -= factor * top[k];
    }
  }
  return -1;
}

// The inverse of an upper triangular block (rows, rows), zeros below.
std::vector<double> inverse_block(Matrix<const double> v) {
  const i64 n = v.rows;
  std::vector<double> inverse(static_cast<std::size_t>(n * n));
  for (i64 i = n - 1; i >= 0; i--) {
    double* row = inverse.data() + i * n;
    row[i] = 1;
    for (i64 k = i + 1; k < n; k++) {
      const double factor = v.row(i)[k];
      const double* below = inverse.data() + k * n;
      for (i64 j = k; j < n; j++) row[j] -= factor * below[j];
    }
    for (i64 j = i; j < n; j++) row[j] /= v.row(i)[i];
  }
  return inverse;
}

// inverse^T * b, for the inverse of a diagonal block.
std::vector<double> apply(const std::vector<double>& inverse, Matrix<const double> b, Pool& pool) {
  std::vector<double> out(static_cast<std::size_t>(b.rows * b.cols));
  if (!out.empty())
    outer(Outer::add, Matrix<double>(out.data(), b.rows, b.cols),
          Matrix<const double>(inverse.data(), b.rows, b.rows), b, false, pool);
  return out;
}

void put(const std::vector<double>& from, Matrix<double> to) {
  for (i64 r = 0; r < to.rows; r++) std::copy_n(from.data() + r * to.cols, to.cols, to.row(r));
}

}  // namespace

std::optional<PivotFailure> cholesky(Matrix<double> a, std::span<const double> floor, Pool& pool) {
  const i64 n = a.rows;
  PARE_CHECK(a.cols == n && static_cast<i64>(floor.size()) == n);
  for (i64 k = 0; k < n; k += block) {
    const i64 size = std::min(block, n - k), rest = n - k - size;
    const Matrix<double> corner = part(a, k, k, size, size);
    if (const i64 bad = factor_block(corner, floor.data() + k); bad >= 0)
      return PivotFailure{k + bad, corner.row(bad)[bad]};
    if (rest == 0) break;
    const Matrix<double> right = part(a, k, k + size, size, rest);
    put(apply(inverse_block(corner), right, pool), right);
    outer(Outer::subtract, part(a, k + size, k + size, rest, rest), right, right, true, pool);
  }
  return std::nullopt;
}

void invert_transposed(Matrix<double> v, Pool& pool) {
  const i64 n = v.rows;
  PARE_CHECK(v.cols == n);
  pool.run(n, 64, [&](i64 begin, i64 end) {
    for (i64 r = begin; r < end; r++) std::fill_n(v.row(r), r, 0.0);
  });
  // Z = V^-T solves V^T Z = 1 from the top: below the diagonal lies what is still to be solved for,
  // each finished row of blocks is taken out of those under it.
  for (i64 k = 0; k < n; k += block) {
    const i64 size = std::min(block, n - k), rest = n - k - size;
    const std::vector<double> inverse = inverse_block(part(v, k, k, size, size));
    std::vector<double> row(static_cast<std::size_t>(size * (k + size)));
    const Matrix<double> done{row.data(), size, k + size};
    put(apply(inverse, part(v, k, 0, size, k), pool), part(done, 0, 0, size, k));
    for (i64 i = 0; i < size; i++)
      for (i64 j = 0; j <= i; j++)
        done.row(i)[k + j] = inverse[static_cast<std::size_t>(j * size + i)];
    if (rest > 0)
      outer(Outer::subtract, part(v, k + size, 0, rest, k + size), part(v, k, k + size, size, rest),
            done, false, pool);
    put(row, part(v, k, 0, size, k + size));
  }
}

std::optional<PivotFailure> InverseFactor::make(Matrix<const float> matrix,
                                                std::span<const i64> order,
                                                std::span<const double> added, Pool& pool,
                                                InverseFactor& out) {
  const i64 n = matrix.rows;
  PARE_CHECK(matrix.cols == n && static_cast<i64>(order.size()) == n &&
             static_cast<i64>(added.size()) == n);
  out.n_ = n;
  out.lower_.resize(static_cast<std::size_t>(n * n));
  const Matrix<double> h{out.lower_.data(), n, n};
  std::vector<double> floor(static_cast<std::size_t>(n));
  const auto original = [&](i64 i) { return order[static_cast<std::size_t>(n - 1 - i)]; };
  pool.run(n, 16, [&](i64 begin, i64 end) {
    for (i64 i = begin; i < end; i++) {
      const float* from = matrix.row(original(i));
      for (i64 j = i; j < n; j++) h.row(i)[j] = from[original(j)];
      h.row(i)[i] += added[static_cast<std::size_t>(original(i))];
      floor[static_cast<std::size_t>(i)] = std::max(0.0, h.row(i)[i]) * 0x1p-23;
    }
  });
  if (const auto failure = cholesky(h, floor, pool))
    return PivotFailure{original(failure->row), failure->pivot};
  invert_transposed(h, pool);
  return std::nullopt;
}

void InverseFactor::rows(i64 begin, i64 end, Matrix<float> out) const {
  PARE_CHECK(out.rows == end - begin && out.cols == n_ - begin);
  for (i64 i = begin; i < end; i++) {
    const double* from = lower_.data() + (n_ - 1 - i) * n_;
    float* to = out.row(i - begin);
    for (i64 j = begin; j < i; j++) to[j - begin] = 0;
    for (i64 j = i; j < n_; j++) to[j - begin] = static_cast<float>(from[n_ - 1 - j]);
  }
}

}  // namespace pare
