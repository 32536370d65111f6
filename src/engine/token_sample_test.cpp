// The sample of tokens: bounded, even, and the same however tokens come.
#include <gtest/gtest.h>

#include "base/random.h"
#include "engine/statistics.h"

namespace pare {
namespace {

std::vector<float> sample_of(i64 tokens, std::uint64_t seed) {
  std::vector<float> x;  // token t is the row (t, -t)
  for (i64 t = 0; t < tokens; t++)
    x.insert(x.end(), {static_cast<float>(t), static_cast<float>(-t)});
  InputStatistics in;
  in.max_abs.resize(2);
  Random random(seed);
  for (i64 t = 0; t < tokens;) {
    const i64 n = std::min<i64>(tokens - t, 1 + static_cast<i64>(random.below(seed == 0 ? 1 : 90)));
    keep_sample(in, {x.data() + 2 * t, n, 2});
    in.tokens += n;
    t += n;
  }
  return in.sample;
}

TEST(TokenSample, IsEvenBoundedAndTheSameHoweverTokensCome) {
  for (i64 tokens : {1, 5, 127, 128, 129, 256, 257, 1000, 5000}) {
    const std::vector<float> one_by_one = sample_of(tokens, 0);
    const i64 n = static_cast<i64>(one_by_one.size()) / 2;
    EXPECT_LE(n, sample_limit);
    EXPECT_GE(n, std::min(tokens, sample_limit / 2));
    const float step = n > 1 ? one_by_one[2] : 1;
    EXPECT_EQ(step, static_cast<float>(static_cast<i64>(step)));
    for (i64 i = 0; i < n; i++) {
      EXPECT_EQ(one_by_one[static_cast<std::size_t>(2 * i)], step * static_cast<float>(i));
      EXPECT_EQ(one_by_one[static_cast<std::size_t>(2 * i + 1)], -step * static_cast<float>(i));
    }
    EXPECT_GE(step * static_cast<float>(n), static_cast<float>(tokens)) << "reaches the end";
    for (std::uint64_t seed : {1u, 2u}) EXPECT_EQ(sample_of(tokens, seed), one_by_one);
  }
}

}  // namespace
}  // namespace pare
