// Selections within several limits against trying everything.
#include "choose/select.h"

#include <cmath>

#include "base/random.h"
#include "support.h"

namespace pare {
namespace {

using Choices = std::vector<std::vector<SelectOption>>;

double try_everything(const Choices& items, std::size_t from, std::vector<i64> left) {
  for (i64 l : left)
    if (l < 0) return std::numeric_limits<double>::infinity();
  if (from == items.size()) return 0;
  double best = std::numeric_limits<double>::infinity();
  for (const SelectOption& o : items[from]) {
    std::vector<i64> rest = left;
    for (std::size_t k = 0; k < rest.size(); k++)
      if (rest[k] != no_limit) rest[k] -= o.costs[k];
    best = std::min(best, o.loss + try_everything(items, from + 1, rest));
  }
  return best;
}

// Losses fall with bits; bytes and time go by the same bits, differently rounded.
Choices random_choices(Random& random, std::size_t count, std::size_t limits) {
  Choices items;
  for (std::size_t i = 0; i < count; i++) {
    items.emplace_back();
    const double weight = std::exp(2 * random.normal());
    for (std::size_t o = 0; o <= random.below(4); o++) {
      const double bits = 2 + 6 * random.uniform();
      SelectOption option{weight * std::exp2(-2 * bits), {}};
      for (std::size_t k = 0; k < limits; k++)
        option.costs.push_back(static_cast<i64>(100 * bits * (0.5 + random.uniform())));
      items.back().push_back(option);
    }
  }
  return items;
}

void expect_sums(const Choices& items, const Selection& s, const std::vector<i64>& limits) {
  double loss = 0;
  std::vector<i64> costs(limits.size(), 0);
  for (std::size_t i = 0; i < items.size(); i++) {
    loss += items[i].at(s.picks[i]).loss;
    for (std::size_t k = 0; k < limits.size(); k++) costs[k] += items[i].at(s.picks[i]).costs[k];
  }
  EXPECT_DOUBLE_EQ(s.loss, loss);
  EXPECT_EQ(s.costs, costs);
  for (std::size_t k = 0; k < limits.size(); k++) EXPECT_LE(costs[k], limits[k]);
}

TEST(Select, OneLimitIsExact) {
  Random random(31);
  for (int round = 0; round < 300; round++) {
    const Choices items = random_choices(random, 1 + random.below(6), 2);
    const std::vector<i64> limits = {static_cast<i64>(random.below(900 * items.size())), no_limit};
    const double best = try_everything(items, 0, limits);
    const auto s = select(items, limits);
    ASSERT_EQ(s.has_value(), std::isfinite(best)) << round;
    if (!s) continue;
    EXPECT_TRUE(s->exact);
    EXPECT_NEAR(s->loss, best, 1e-12 * (1 + best));
  }
}

TEST(Select, SeveralLimitsAreKeptAndTheBoundHolds) {
  Random random(32);
  int possible = 0, found = 0, best_found = 0, near = 0;
  for (int round = 0; round < 600; round++) {
    const std::size_t k = 2 + random.below(2);
    const Choices items = random_choices(random, 3 + random.below(5), k);
    std::vector<i64> limits;
    for (std::size_t i = 0; i < k; i++)
      limits.push_back(static_cast<i64>((300 + random.below(600)) * items.size()));
    const double best = try_everything(items, 0, limits);
    const auto s = select(items, limits);
    if (!std::isfinite(best)) {
      EXPECT_FALSE(s) << round;
      continue;
    }
    possible++;
    if (!s) continue;
    found++;
    expect_sums(items, *s, limits);
    EXPECT_LE(s->bound, best * (1 + 1e-12)) << round;
    EXPECT_GE(s->loss, best * (1 - 1e-12)) << round;
    if (s->exact) {
      EXPECT_NEAR(s->loss, best, 1e-12 * (1 + best)) << round;
    }
    best_found += s->loss <= best * (1 + 1e-12);
    near += s->loss <= 1.25 * best;
  }
  EXPECT_GT(possible, 200);
  EXPECT_GT(found, possible * 95 / 100);
  EXPECT_GT(best_found, possible * 90 / 100);
  EXPECT_GT(near, possible * 95 / 100);
  RecordProperty("found", found * 100 / possible);
  RecordProperty("best", best_found * 100 / possible);
}

TEST(Select, Edges) {
  EXPECT_EQ(select({}, {10})->loss, 0);
  const Choices items = {{{1, {5, 5}}, {0, {9, 1}}}};
  EXPECT_EQ(select(items, {no_limit, no_limit})->picks[0], 1u);
  EXPECT_EQ(select(items, {8, no_limit})->picks[0], 0u);
  EXPECT_FALSE(select(items, {8, 4}));
  EXPECT_FALSE(select(items, {-1, no_limit}));
  EXPECT_FALSE(select(items, {0, 0}));
}

}  // namespace
}  // namespace pare
