#include "kernel/walk.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/random.h"

namespace pare {
namespace {

struct Case {
  std::vector<float> w, u;
  WalkLanes lanes;
  i64 n;

  explicit Case(i64 columns, bool offset) : n(columns) {
    Random random(static_cast<std::uint64_t>(n));
    for (i64 j = 0; j < n; j++) w.push_back(static_cast<float>(random.normal() * 0.05));
    for (i64 j = 0; j < n; j++)
      for (i64 k = 0; k < n; k++)
        u.push_back(k < j    ? NAN  // is not read
                    : k == j ? 1.5f
                             : static_cast<float>(random.normal() * 0.1));
    lanes.low = offset ? 0 : -4;
    lanes.high = offset ? 7 : 3;
    for (int c = 0; c < walk_lanes; c++) {
      lanes.scale[c] = 0.01f + 0.004f * static_cast<float>(c);
      lanes.inverse[c] = 1 / lanes.scale[c];
      lanes.minimum[c] = offset ? 3.5f * lanes.scale[c] : 0;
    }
  }
  std::vector<float> run(unsigned isa) const {
    std::vector<float> error(walk_lanes);
    walk_errors(w.data(), {u.data(), n, n}, lanes, error.data(), isa);
    return error;
  }
};

// In double, from the definition.
double loss(const Case& c, int lane) {
  std::vector<double> w(c.w.begin(), c.w.end());
  double sum = 0;
  for (i64 j = 0; j < c.n; j++) {
    const double scale = c.lanes.scale[lane], minimum = c.lanes.minimum[lane];
    double& x = w[static_cast<std::size_t>(j)];
    const double q = std::nearbyint(
        std::min<double>(c.lanes.high, std::max<double>(c.lanes.low, (x + minimum) / scale)));
    const float* u = c.u.data() + j * c.n;
    const double e = (x - (scale * q - minimum)) / static_cast<double>(u[j]);
    sum += e * e;
    for (i64 k = j + 1; k < c.n; k++)
      w[static_cast<std::size_t>(k)] -= e * static_cast<double>(u[k]);
  }
  return sum;
}

TEST(Walk, IsTheDefinition) {
  for (bool offset : {false, true}) {
    const Case c(24, offset);
    const std::vector<float> got = c.run(isa_scalar);
    for (int lane = 0; lane < walk_lanes; lane++)
      EXPECT_NEAR(got[static_cast<std::size_t>(lane)], loss(c, lane), 1e-3 * loss(c, lane)) << lane;
  }
}

TEST(Walk, HasTheSameBitsOnEveryIsa) {
  std::vector<unsigned> classes = {isa_scalar};
  if (isa_here() & isa_avx2) classes.push_back(isa_avx2);
  if (isa_here() & isa_avx512) classes.push_back(isa_avx2 | isa_avx512);
  for (i64 n : {1, 2, 3, 4, 5, 31, 64, 128, 255, 256})
    for (bool offset : {false, true}) {
      const Case c(n, offset);
      const std::vector<float> want = c.run(isa_scalar);
      for (unsigned isa : classes) EXPECT_EQ(c.run(isa), want) << n << isa_name(isa);
    }
}

}  // namespace
}  // namespace pare
