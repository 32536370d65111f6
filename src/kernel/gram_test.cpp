#include "kernel/gram.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/random.h"
#include "kernel/outer.h"
#include "kernel/testing.h"

namespace pare {
namespace {

template <class T>
void expect_sums(i64 k, i64 m, i64 n, Outer op, double eps) {
  const auto a = normal<T>(k * m, 1), b = normal<T>(k * n, 2), start = normal<T>(m * n, 3);
  std::vector<T> first;
  for (unsigned isa : classes())
    for (int threads : {1, 3}) {
      Pool pool(threads);
      std::vector<T> c = start;
      outer(op, Matrix<T>(c.data(), m, n), Matrix<const T>(a.data(), k, m),
            Matrix<const T>(b.data(), k, n), false, pool, isa);
      if (first.empty()) first = c;
      ASSERT_EQ(c, first) << "ISA " << isa_name(isa) << ", " << threads << " threads";
    }
  for (i64 i = 0; i < m; i++)
    for (i64 j = 0; j < n; j++) {
      double want = start[static_cast<std::size_t>(i * n + j)], size = std::abs(want);
      for (i64 p = 0; p < k; p++) {
        const double product = static_cast<double>(a[static_cast<std::size_t>(p * m + i)]) *
                               static_cast<double>(b[static_cast<std::size_t>(p * n + j)]);
        want += op == Outer::add ? product : -product;
        size += std::abs(product);
      }
      // A chain of k fused steps: at most k roundings of half a unit each (the truth itself is a
      // sum of doubles).
      ASSERT_NEAR(first[static_cast<std::size_t>(i * n + j)], want,
                  static_cast<double>(k + 2) * (eps + 1e-16) * size);
    }
}

TEST(Outer, EveryIsaAndTeamGivesTheSameBitsNearTheTruth) {
  for (const auto& [k, m, n] :
       {std::array<i64, 3>{1, 1, 1}, {5, 7, 50}, {300, 60, 49}, {3, 200, 193}})
    for (Outer op : {Outer::add, Outer::subtract}) {
      expect_sums<float>(k, m, n, op, 0x1p-24);
      expect_sums<double>(k, m, n, op, 0x1p-53);
    }
}

TEST(Outer, TheUpperTriangleIsThatOfTheWhole) {
  const i64 k = 20, n = 230;
  const auto a = normal<double>(k * n, 4);
  const Matrix<const double> x{a.data(), k, n};
  for (unsigned isa : classes()) {
    Pool pool(2);
    std::vector<double> whole(static_cast<std::size_t>(n * n)), upper = whole;
    outer(Outer::add, {whole.data(), n, n}, x, x, false, pool, isa);
    outer(Outer::add, {upper.data(), n, n}, x, x, true, pool, isa);
    for (i64 i = 0; i < n; i++)
      for (i64 j = i; j < n; j++)
        ASSERT_EQ(upper[static_cast<std::size_t>(i * n + j)],
                  whole[static_cast<std::size_t>(i * n + j)]);
  }
}

TEST(Outer, OneRowIsTheSameOnEveryIsa) {
  for (i64 n = 1; n < 70; n++) {
    const auto x = normal<float>(n, 5), start = normal<float>(n, 6);
    std::vector<float> want = start;
    for (std::size_t i = 0; i < want.size(); i++) want[i] = std::fma(-0.37f, x[i], want[i]);
    for (unsigned isa : classes()) {
      std::vector<float> y = start;
      subtract_scaled(x.data(), 0.37f, n, y.data(), isa);
      ASSERT_EQ(y, want) << n << isa_name(isa);
    }
  }
}

std::vector<float> gram(const std::vector<float>& x, i64 n, i64 cut, int threads, unsigned isa) {
  Pool pool(threads);
  GramSum sum(n, isa);
  const i64 tokens = static_cast<i64>(x.size()) / n;
  for (i64 t = 0; t < tokens; t += cut)
    sum.add({x.data() + t * n, std::min(cut, tokens - t), n}, pool);
  EXPECT_EQ(sum.tokens(), tokens);
  return sum.mean(pool);
}

TEST(Gram, IsTheMeanOfProductsHoweverItIsCut) {
  for (const auto& [tokens, n] : {std::pair<i64, i64>{1, 1}, {700, 33}, {300, 250}, {256, 48}}) {
    const std::vector<float> x = normal<float>(tokens * n, 7);
    const std::vector<float> first = gram(x, n, tokens, 1, isa_here());
    for (unsigned isa : classes())
      for (i64 cut : {i64{37}, i64{256}, i64{1000}})
        ASSERT_EQ(gram(x, n, cut, 1 + static_cast<int>(cut % 3), isa), first)
            << isa_name(isa) << cut;
    for (i64 i = 0; i < n; i++)
      for (i64 j = 0; j < n; j++) {
        double want = 0, size = 0;
        for (i64 t = 0; t < tokens; t++) {
          const double p = static_cast<double>(x[static_cast<std::size_t>(t * n + i)]) *
                           x[static_cast<std::size_t>(t * n + j)];
          want += p, size += std::abs(p);
        }
        // Chains of 256 floats, then one rounding of the mean.
        ASSERT_NEAR(first[static_cast<std::size_t>(i * n + j)], want / static_cast<double>(tokens),
                    258 * 0x1p-24 * size / static_cast<double>(tokens));
        ASSERT_EQ(first[static_cast<std::size_t>(i * n + j)],
                  first[static_cast<std::size_t>(j * n + i)]);
      }
  }
}

TEST(Gram, TheMeanMayBeAskedForOnTheWay) {
  const i64 n = 20;
  const std::vector<float> x = normal<float>(600 * n, 8);
  Pool pool(2);
  GramSum sum(n);
  EXPECT_EQ(sum.mean(pool), std::vector<float>(static_cast<std::size_t>(n * n)));
  sum.add({x.data(), 100, n}, pool);
  EXPECT_EQ(sum.mean(pool), gram({x.begin(), x.begin() + 100 * n}, n, 100, 1, isa_here()));
  sum.add({x.data() + 100 * n, 500, n}, pool);
  EXPECT_EQ(sum.mean(pool), gram(x, n, 600, 1, isa_here()));
}

TEST(Gram, InnerProductWithASymmetricMatrix) {
  const i64 n = 200, tokens = 300;
  const std::vector<float> x = normal<float>(tokens * n, 9),
                           g = gram(normal<float>(50 * n, 10), n, 50, 1, isa_here());
  double first = 0;
  for (int threads : {1, 2, 3}) {
    Pool pool(threads);
    GramSum sum(n);
    sum.add({x.data(), tokens, n}, pool);
    const double got = sum.inner({g.data(), n, n}, pool);
    if (threads == 1) first = got;
    EXPECT_EQ(got, first);
  }
  double want = 0;  // sum over tokens of x^T g x
  for (i64 t = 0; t < tokens; t++)
    for (i64 i = 0; i < n; i++)
      for (i64 j = 0; j < n; j++)
        want += static_cast<double>(x[static_cast<std::size_t>(t * n + i)]) *
                x[static_cast<std::size_t>(t * n + j)] * g[static_cast<std::size_t>(i * n + j)];
  EXPECT_NEAR(first, want, std::abs(want) * 1e-5);
}

// A plain float sum of this many equal products would be off by a percent; the chains are not.
TEST(Gram, DoesNotDriftOverManyTokens) {
  const i64 n = 4, rows = 4096, repeats = 64;
  std::vector<float> x(static_cast<std::size_t>(rows * n), 1.1f);
  Pool pool(1);
  GramSum sum(n);
  for (i64 i = 0; i < repeats; i++) sum.add({x.data(), rows, n}, pool);
  EXPECT_EQ(sum.tokens(), rows * repeats);
  const double want = static_cast<double>(1.1f) * 1.1f;
  for (float g : sum.mean(pool)) EXPECT_NEAR(g, want, want * 2e-6);
}

}  // namespace
}  // namespace pare
