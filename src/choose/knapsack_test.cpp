// The knapsack against trying everything.
#include "choose/knapsack.h"

#include <cmath>
#include <limits>

#include "base/random.h"
#include "support.h"

namespace pare {
namespace {

using Items = std::vector<std::vector<KnapsackOption>>;

// The least loss within the budget, infinity when nothing fits.
double try_everything(const Items& items, std::size_t from, i64 budget) {
  if (from == items.size()) return budget >= 0 ? 0 : std::numeric_limits<double>::infinity();
  double best = std::numeric_limits<double>::infinity();
  for (const KnapsackOption& o : items[from])
    best = std::min(best, o.loss + try_everything(items, from + 1, budget - o.cost));
  return best;
}

Items random_items(Random& random, std::size_t count, bool smooth) {
  Items items;
  for (std::size_t i = 0; i < count; i++) {
    items.emplace_back();
    const double weight = std::exp(3 * random.normal());
    const std::size_t options = 1 + random.below(5);
    for (std::size_t o = 0; o < options; o++) {
      const i64 cost = static_cast<i64>(random.below(40));
      const double loss = smooth ? weight * std::exp2(-0.3 * static_cast<double>(cost))
                                 : std::floor(20 * random.uniform());
      items.back().push_back({cost, loss});
    }
  }
  return items;
}

void expect_consistent(const Items& items, const KnapsackResult& r, i64 budget) {
  ASSERT_EQ(r.picks.size(), items.size());
  i64 cost = 0;
  double loss = 0;
  for (std::size_t i = 0; i < items.size(); i++) {
    cost += items[i].at(r.picks[i]).cost;
    loss += items[i].at(r.picks[i]).loss;
  }
  EXPECT_EQ(r.cost, cost);
  EXPECT_DOUBLE_EQ(r.loss, loss);
  EXPECT_LE(r.cost, budget);
  EXPECT_LE(r.bound, r.loss);
}

TEST(Knapsack, EqualsTryingEverything) {
  Random random(11);
  int infeasible = 0;
  for (int round = 0; round < 2000; round++) {
    const Items items = random_items(random, 1 + random.below(7), round % 2 == 0);
    const i64 budget = static_cast<i64>(random.below(1 + 40 * items.size()));
    const double best = try_everything(items, 0, budget);
    const auto r = solve_knapsack(items, budget);
    ASSERT_EQ(r.has_value(), std::isfinite(best)) << round;
    if (!r) {
      infeasible++;
      continue;
    }
    expect_consistent(items, *r, budget);
    EXPECT_TRUE(r->exact);
    EXPECT_NEAR(r->loss, best, 1e-12 * (1 + best)) << round;
  }
  EXPECT_GT(infeasible, 20);
}

TEST(Knapsack, ThinnedListsStayWithinTheBudgetAndTheBound) {
  Random random(12);
  int inexact = 0;
  for (int round = 0; round < 200; round++) {
    const Items items = random_items(random, 7, false);
    const i64 budget = 100 + static_cast<i64>(random.below(80));
    const double best = try_everything(items, 0, budget);
    const auto r = solve_knapsack(items, budget, 2);
    ASSERT_EQ(r.has_value(), std::isfinite(best));
    if (!r) continue;
    expect_consistent(items, *r, budget);
    EXPECT_GE(r->loss, best - 1e-9);
    EXPECT_LE(r->bound, best + 1e-9);
    if (!r->exact) inexact++;
  }
  EXPECT_GT(inexact, 0);
}

TEST(Knapsack, SpendsOnTheLargestSaving) {
  const Items items = {{{10, 8}, {20, 1}}, {{10, 4}, {20, 1}}, {{10, 2}, {20, 1}}};
  EXPECT_EQ(solve_knapsack(items, 30)->picks, (std::vector<std::size_t>{0, 0, 0}));
  EXPECT_EQ(solve_knapsack(items, 49)->picks, (std::vector<std::size_t>{1, 0, 0}));
  EXPECT_EQ(solve_knapsack(items, 50)->picks, (std::vector<std::size_t>{1, 1, 0}));
  EXPECT_EQ(solve_knapsack(items, 1000)->picks, (std::vector<std::size_t>{1, 1, 1}));
  EXPECT_FALSE(solve_knapsack(items, 29));
  EXPECT_EQ(solve_knapsack({}, 0)->loss, 0);
}

// The size of a model of 80 blocks: the bound must keep the lists short.
TEST(Knapsack, LargeModelsAreSolvedExactly) {
  Random random(13);
  Items items;
  for (int block = 0; block < 80; block++)
    for (i64 weights : {1 << 26, 1 << 23, 1 << 23, 1 << 26, 3 << 26, 3 << 26, 3 << 26}) {
      items.emplace_back();
      const double sensitivity = std::exp(random.normal());
      for (double bits : {2.25, 3.125, 3.25, 4.125, 4.25, 4.5, 5.125, 8.01})
        items.back().push_back({static_cast<i64>(bits * static_cast<double>(weights) / 8),
                                sensitivity * static_cast<double>(weights) * std::exp2(-2 * bits) *
                                    (0.9 + 0.2 * random.uniform())});
    }
  i64 weights = 0;
  for (const auto& item : items) weights += item.back().cost;
  const auto r = solve_knapsack(items, weights / 2);
  ASSERT_TRUE(r);
  EXPECT_TRUE(r->exact);
  expect_consistent(items, *r, weights / 2);
}

}  // namespace
}  // namespace pare
