#include "kernel/factor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "base/random.h"

namespace pare {
namespace {

std::vector<float> positive(i64 n, std::uint64_t seed) {
  Random random(seed);
  std::vector<double> x(static_cast<std::size_t>(n * (n + 5)));
  for (double& v : x) v = random.normal();
  std::vector<float> g(static_cast<std::size_t>(n * n));
  for (i64 i = 0; i < n; i++)
    for (i64 j = 0; j <= i; j++) {
      double sum = 0;
      for (i64 t = 0; t < n + 5; t++)
        sum += x[static_cast<std::size_t>(t * n + i)] * x[static_cast<std::size_t>(t * n + j)];
      g[static_cast<std::size_t>(i * n + j)] = g[static_cast<std::size_t>(j * n + i)] =
          static_cast<float>(sum / static_cast<double>(n));
    }
  return g;
}

TEST(Factor, CholeskyAndItsInverseGiveTheMatrixBack) {
  for (i64 n : {1, 2, 127, 128, 129, 300}) {
    const std::vector<float> g = positive(n, 1);
    std::vector<double> a(g.begin(), g.end()), floor(static_cast<std::size_t>(n)), first;
    const std::vector<double> start = a;
    for (int threads : {1, 3}) {
      Pool pool(threads);
      a = start;
      const Matrix<double> m{a.data(), n, n};
      ASSERT_FALSE(cholesky(m, floor, pool));
      for (i64 i = 0; i < n; i++)
        for (i64 j = i; j < n; j++) {
          double sum = 0;
          for (i64 k = 0; k <= i; k++) sum += m.row(k)[i] * m.row(k)[j];
          // Backward error of the factorization: n + 1 roundings of |V^T| |V|, whose diagonal is
          // A's.
          const double size = std::sqrt(start[static_cast<std::size_t>(i * n + i)] *
                                        start[static_cast<std::size_t>(j * n + j)]);
          ASSERT_NEAR(sum, start[static_cast<std::size_t>(i * n + j)],
                      static_cast<double>(100 * (n + 1)) * 0x1p-53 * size);
        }
      const std::vector<double> v = a;
      invert_transposed(m, pool);
      for (i64 i = 0; i < n; i += 7)
        for (i64 j = 0; j < n; j += 5) {
          double product = 0;  // Z V^T = 1
          for (i64 k = j; k <= i; k++)
            product += m.row(i)[k] * v[static_cast<std::size_t>(j * n + k)];
          ASSERT_NEAR(product, i == j ? 1 : 0, 1e-8) << n << " " << i << " " << j;
        }
      if (first.empty()) first = a;
      for (i64 i = 0; i < n; i++)
        for (i64 j = 0; j <= i; j++)
          ASSERT_EQ(a[static_cast<std::size_t>(i * n + j)],
                    first[static_cast<std::size_t>(i * n + j)]);
    }
  }
}

// U^T U H = 1 for the reordered H with its addition.
TEST(Factor, InverseFactorIsThatOfTheReorderedMatrix) {
  const i64 n = 150;
  const std::vector<float> g = positive(n, 2);
  std::vector<i64> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  std::reverse(order.begin() + 10, order.end());
  std::swap(order[0], order[140]);
  std::vector<double> added(static_cast<std::size_t>(n), 0.125);
  added[5] = 0.5;
  Pool pool(2);
  InverseFactor factor;
  ASSERT_FALSE(InverseFactor::make({g.data(), n, n}, order, added, pool, factor));
  std::vector<float> u(static_cast<std::size_t>(n * n));
  factor.rows(0, n, {u.data(), n, n});
  const auto h = [&](i64 i, i64 j) {
    const i64 a = order[static_cast<std::size_t>(i)], b = order[static_cast<std::size_t>(j)];
    return g[static_cast<std::size_t>(a * n + b)] +
           (a == b ? added[static_cast<std::size_t>(a)] : 0.0);
  };
  std::vector<double> inverse(static_cast<std::size_t>(n * n));
  for (i64 i = 0; i < n; i++)
    for (i64 j = 0; j < n; j++)
      for (i64 k = 0; k <= std::min(i, j); k++)
        inverse[static_cast<std::size_t>(i * n + j)] +=
            static_cast<double>(u[static_cast<std::size_t>(k * n + i)]) *
            u[static_cast<std::size_t>(k * n + j)];
  for (i64 i = 0; i < n; i++)
    for (i64 j = 0; j < n; j++) {
      double sum = 0;
      for (i64 k = 0; k < n; k++) sum += inverse[static_cast<std::size_t>(i * n + k)] * h(k, j);
      ASSERT_NEAR(sum, i == j ? 1 : 0, 2e-5);  // U is rounded to floats, H's condition is below 100
    }
  std::vector<float> some(static_cast<std::size_t>(3 * (n - 20)));
  factor.rows(20, 23, {some.data(), 3, n - 20});
  for (i64 i = 0; i < 3; i++)
    for (i64 j = 0; j < n - 20; j++)
      ASSERT_EQ(some[static_cast<std::size_t>(i * (n - 20) + j)],
                u[static_cast<std::size_t>((20 + i) * n + 20 + j)]);
}

TEST(Factor, FailuresNameTheColumn) {
  Pool pool(1);
  const i64 n = 200;
  std::vector<float> ones(static_cast<std::size_t>(n * n), 1.0f);  // rank one
  std::vector<i64> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  std::vector<double> added(static_cast<std::size_t>(n), 0.0);
  InverseFactor factor;
  const auto failure = InverseFactor::make({ones.data(), n, n}, order, added, pool, factor);
  ASSERT_TRUE(failure);
  EXPECT_EQ(failure->row, n - 2);  // the last column stands, the one before it adds nothing
  EXPECT_NEAR(failure->pivot, 0, 1e-12);
  added.assign(static_cast<std::size_t>(n), 0.01);
  EXPECT_FALSE(InverseFactor::make({ones.data(), n, n}, order, added, pool, factor));
  ones[static_cast<std::size_t>(7 * n + 7)] = std::nanf("");
  const auto bad = InverseFactor::make({ones.data(), n, n}, order, added, pool, factor);
  ASSERT_TRUE(bad);
  EXPECT_EQ(bad->row, 7);
}

}  // namespace
}  // namespace pare
