// Several limits as one.
//
// With weights w (adding up to 1) every choice within limits L also has sum_k w_k c_k / L_k <= 1,
// so the knapsack under that one cost is a relaxation. Its solution says where the weights are
// wrong: what exceeds its limit gets more weight. Where no weights make it keep to all limits, the
// budget of the sum is shrunk until it does, and single exchanges use up what is then left.
#include "choose/select.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "choose/knapsack.h"

namespace pare {
namespace {

using Items = std::vector<std::vector<SelectOption>>;
constexpr double unit = 0x1p40;  // of a limit, for joined costs
constexpr int rounds = 12;       // of weights
constexpr int halvings = 10;     // of a budget
// Of a knapsack: hundreds of matrices are solved in tens of milliseconds, a front takes a hundred
// of them; what is lost is below a thousandth of the loss and in the bound.
constexpr std::size_t most_states = 2048;

Selection from_picks(const Items& items, std::vector<std::size_t> picks, std::size_t limits) {
  Selection s;
  s.costs.assign(limits, 0);
  for (std::size_t i = 0; i < items.size(); i++) {
    const SelectOption& o = items[i].at(picks[i]);
    s.loss += o.loss;
    for (std::size_t k = 0; k < limits; k++) s.costs[k] += o.costs[k];
  }
  s.picks = std::move(picks);
  return s;
}

// The largest share of a limit that is used; above 1: exceeded.
double use_of(const std::vector<i64>& costs, const std::vector<i64>& limits) {
  double most = 0;
  for (std::size_t k = 0; k < limits.size(); k++)
    if (limits[k] != no_limit)
      most = std::max(
          most, costs[k] <= limits[k]
                    ? std::min(1.0, static_cast<double>(costs[k]) / static_cast<double>(limits[k]))
                    : std::max(1 + 1e-12,
                               static_cast<double>(costs[k]) / static_cast<double>(limits[k])));
  return most;
}

// The knapsack under costs sum_k w_k c_k / L_k, rounded down, within a budget of them.
std::optional<KnapsackResult> joined(const Items& items, const std::vector<i64>& limits,
                                     const std::vector<double>& weights, double budget) {
  std::vector<std::vector<KnapsackOption>> sums(items.size());
  for (std::size_t i = 0; i < items.size(); i++)
    for (const SelectOption& o : items[i]) {
      double cost = 0;
      for (std::size_t k = 0; k < limits.size(); k++)
        if (limits[k] != no_limit)
          cost += weights[k] * static_cast<double>(o.costs[k]) /
                  static_cast<double>(std::max<i64>(1, limits[k]));
      sums[i].push_back({static_cast<i64>(std::floor(std::min(cost, 1e3) * unit)), o.loss});
    }
  return solve_knapsack(sums, static_cast<i64>(std::floor(budget * unit)), most_states);
}

// Exchanges of one option each that keep to the limits, the largest saving of loss first.
void exchange(const Items& items, const std::vector<i64>& limits, Selection& s) {
  for (;;) {
    double best = 0;
    std::size_t item = 0, option = 0;
    for (std::size_t i = 0; i < items.size(); i++)
      for (std::size_t o = 0; o < items[i].size(); o++) {
        const SelectOption &from = items[i][s.picks[i]], &to = items[i][o];
        if (!(from.loss - to.loss > best)) continue;
        bool fits = true;
        for (std::size_t k = 0; k < limits.size() && fits; k++)
          fits = s.costs[k] - from.costs[k] <= limits[k] - to.costs[k];
        if (fits) best = from.loss - to.loss, item = i, option = o;
      }
    if (!(best > 0)) return;
    s.picks[item] = option;
    s = from_picks(items, std::move(s.picks), limits.size());
  }
}

Selection without_limits(const Items& items, const std::vector<i64>& limits) {
  std::vector<std::size_t> picks;
  for (const auto& options : items) {
    const auto less = [](const SelectOption& a, const SelectOption& b) {
      return a.loss != b.loss ? a.loss < b.loss : a.costs < b.costs;
    };
    picks.push_back(static_cast<std::size_t>(
        std::min_element(options.begin(), options.end(), less) - options.begin()));
  }
  Selection s = from_picks(items, std::move(picks), limits.size());
  s.bound = s.loss;
  return s;
}

std::optional<Selection> within_one(const Items& items, const std::vector<i64>& limits,
                                    std::size_t k) {
  std::vector<std::vector<KnapsackOption>> plain(items.size());
  for (std::size_t i = 0; i < items.size(); i++)
    for (const SelectOption& o : items[i]) plain[i].push_back({o.costs[k], o.loss});
  const auto solved = solve_knapsack(plain, limits[k], most_states);
  if (!solved) return std::nullopt;
  Selection s = from_picks(items, solved->picks, limits.size());
  s.bound = solved->bound;
  s.exact = solved->exact;
  return s;
}

// The largest budget under these weights whose choice keeps to all limits.
std::optional<Selection> shrunk(const Items& items, const std::vector<i64>& limits,
                                const std::vector<double>& weights) {
  double low = 0, high = 1;
  std::optional<Selection> found;
  for (int i = 0; i < halvings; i++) {
    const double middle = (low + high) / 2;
    const auto solved = joined(items, limits, weights, middle);
    if (!solved) {
      low = middle;  // too little for anything
      continue;
    }
    Selection s = from_picks(items, solved->picks, limits.size());
    if (use_of(s.costs, limits) <= 1) {
      low = middle;
      if (!found || s.loss < found->loss) found = std::move(s);
    } else {
      high = middle;
    }
  }
  return found;
}

void shift(std::vector<double>& weights, const std::vector<i64>& costs,
           const std::vector<i64>& limits) {
  double sum = 0;
  for (std::size_t k = 0; k < limits.size(); k++) {
    if (limits[k] == no_limit) continue;
    const double use =
        static_cast<double>(costs[k]) / static_cast<double>(std::max<i64>(1, limits[k]));
    weights[k] *= std::clamp(use, 0.25, 4.0);
    weights[k] = std::max(weights[k], 1e-6);
    sum += weights[k];
  }
  for (double& w : weights) w /= sum;
}

std::optional<Selection> within_all(const Items& items, const std::vector<i64>& limits,
                                    std::size_t active) {
  std::vector<double> weights(limits.size(), 0.0);
  for (std::size_t k = 0; k < limits.size(); k++)
    if (limits[k] != no_limit) weights[k] = 1 / static_cast<double>(active);
  std::optional<Selection> best;
  double bound = 0;
  std::vector<std::vector<double>> tried;
  for (int round = 0; round < rounds; round++) {
    const auto solved = joined(items, limits, weights, 1.0);
    if (!solved) return std::nullopt;  // a relaxation that nothing meets
    bound = std::max(bound, solved->bound);
    Selection s = from_picks(items, solved->picks, limits.size());
    if (use_of(s.costs, limits) <= 1) {
      s.bound = bound;
      s.exact = solved->exact;
      return s;
    }
    tried.push_back(weights);
    shift(weights, s.costs, limits);
  }
  for (const std::size_t t : {std::size_t{0}, tried.size() / 2})
    if (auto s = shrunk(items, limits, tried[t]); s && (!best || s->loss < best->loss))
      best = std::move(s);
  if (auto s = shrunk(items, limits, weights); s && (!best || s->loss < best->loss))
    best = std::move(s);
  if (!best) return std::nullopt;
  exchange(items, limits, *best);
  best->bound = std::min(bound, best->loss);
  best->exact = best->bound == best->loss;
  return best;
}

}  // namespace

std::optional<Selection> select(const Items& items, const std::vector<i64>& limits) {
  for (const auto& options : items) {
    PARE_CHECK(!options.empty());
    for (const SelectOption& o : options) PARE_CHECK(o.costs.size() == limits.size());
  }
  for (i64 limit : limits)
    if (limit < 0) return std::nullopt;
  Selection free = without_limits(items, limits);
  if (use_of(free.costs, limits) <= 1) return free;
  std::size_t active = 0;
  for (std::size_t k = 0; k < limits.size(); k++) {
    if (limits[k] == no_limit) continue;
    active++;
    const auto one = within_one(items, limits, k);
    if (!one) return std::nullopt;
    if (use_of(one->costs, limits) <= 1) return one;
  }
  return within_all(items, limits, active);
}

}  // namespace pare
