// Undominated states, pruned by the linear relaxation.
//
// After j items a state is a pair (cost, loss) that no other beats in both. The list grows by one
// item at a time. What keeps it short is a bound: the rest of the items, relaxed to their convex
// hulls and filled in the order of loss saved per cost, cannot do better than some loss; a state
// whose loss plus that bound exceeds a choice already known is dropped. The best choice survives,
// because its own bound never exceeds its loss. Costs are integers and never rounded, so there is
// no grid and the result is exact.
#include "choose/knapsack.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace pare {
namespace {

// An undominated option; `index` is its place in the item as given.
struct Point {
  i64 cost;
  double loss;
  std::size_t index;
};
using Points = std::vector<Point>;  // cost rising, loss falling

Points undominated(const std::vector<KnapsackOption>& options) {
  Points all;
  for (std::size_t i = 0; i < options.size(); i++) {
    PARE_CHECK(options[i].cost >= 0 && std::isfinite(options[i].loss));
    all.push_back({options[i].cost, options[i].loss, i});
  }
  std::stable_sort(all.begin(), all.end(), [](const Point& a, const Point& b) {
    return a.cost != b.cost ? a.cost < b.cost : a.loss < b.loss;
  });
  Points kept;
  for (const Point& p : all)
    if (kept.empty() || p.loss < kept.back().loss) kept.push_back(p);
  return kept;
}

double slope(const Point& a, const Point& b) {  // loss saved per cost
  return (a.loss - b.loss) / static_cast<double>(b.cost - a.cost);
}

Points convex_hull(const Points& points) {
  Points hull;
  for (const Point& p : points) {
    while (hull.size() >= 2 && slope(hull[hull.size() - 2], hull.back()) <= slope(hull.back(), p))
      hull.pop_back();
    hull.push_back(p);
  }
  return hull;
}

// A step of one item from a point of its hull to the next.
struct Segment {
  std::size_t item, point;  // hull[item][point] is where it leads
  i64 cost;
  double saved;
};

struct Problem {
  std::vector<Points> options, hulls;
  std::vector<Segment> segments;  // by loss saved per cost, falling; of an item in order
};

Problem prepare(const std::vector<std::vector<KnapsackOption>>& items) {
  Problem p;
  for (const auto& item : items) {
    PARE_CHECK(!item.empty());
    p.options.push_back(undominated(item));
    p.hulls.push_back(convex_hull(p.options.back()));
  }
  for (std::size_t i = 0; i < items.size(); i++)
    for (std::size_t k = 1; k < p.hulls[i].size(); k++) {
      const Point &a = p.hulls[i][k - 1], &b = p.hulls[i][k];
      p.segments.push_back({i, k, b.cost - a.cost, a.loss - b.loss});
    }
  std::stable_sort(p.segments.begin(), p.segments.end(), [](const Segment& a, const Segment& b) {
    return a.saved / static_cast<double>(a.cost) > b.saved / static_cast<double>(b.cost);
  });
  return p;
}

// The least loss of the items from `first` on, relaxed, as a function of what may be spent.
class Bound {
 public:
  Bound(const Problem& p, std::size_t first) {
    for (std::size_t i = first; i < p.hulls.size(); i++) {
      least_cost_ += p.hulls[i].front().cost;
      loss_ += p.hulls[i].front().loss;
    }
    costs_.push_back(0);
    saved_.push_back(0);
    for (const Segment& s : p.segments)
      if (s.item >= first) {
        costs_.push_back(costs_.back() + s.cost);
        saved_.push_back(saved_.back() + s.saved);
      }
  }
  // Infinity when even the cheapest options cost more.
  double operator()(i64 budget) const {
    const i64 rest = budget - least_cost_;
    if (rest < 0) return std::numeric_limits<double>::infinity();
    const auto after = std::upper_bound(costs_.begin(), costs_.end(), rest);
    const std::size_t k = static_cast<std::size_t>(after - costs_.begin()) - 1;
    double saved = saved_[k];
    if (k + 1 < costs_.size())
      saved += (saved_[k + 1] - saved_[k]) * static_cast<double>(rest - costs_[k]) /
               static_cast<double>(costs_[k + 1] - costs_[k]);
    return loss_ - saved;
  }

 private:
  i64 least_cost_ = 0;
  double loss_ = 0;
  std::vector<i64> costs_;  // running sums over the segments
  std::vector<double> saved_;
};

// Segments are taken while they fit, then single items are raised while something is left.
std::vector<Point> greedy(const Problem& p, i64 budget) {
  std::vector<Point> picks;
  i64 left = budget;
  for (const Points& hull : p.hulls) {
    picks.push_back(hull.front());
    left -= hull.front().cost;
  }
  std::vector<bool> stuck(p.hulls.size());
  for (const Segment& s : p.segments) {
    if (stuck[s.item]) continue;
    if (s.cost > left) {
      stuck[s.item] = true;
      continue;
    }
    picks[s.item] = p.hulls[s.item][s.point];
    left -= s.cost;
  }
  for (std::size_t i = 0; i < picks.size(); i++)
    for (const Point& point : p.options[i])
      if (point.loss < picks[i].loss && point.cost - picks[i].cost <= left) {
        left -= point.cost - picks[i].cost;
        picks[i] = point;
      }
  return picks;
}

struct State {
  i64 cost;
  double loss;
  std::uint32_t parent, option;  // in the list before; in the item's undominated options
};

std::vector<State> extend(const std::vector<State>& before, const Points& options,
                          const Bound& rest, i64 budget, double known) {
  std::vector<State> all;
  for (std::size_t s = 0; s < before.size(); s++)
    for (std::size_t o = 0; o < options.size(); o++) {
      const State next{before[s].cost + options[o].cost, before[s].loss + options[o].loss,
                       static_cast<std::uint32_t>(s), static_cast<std::uint32_t>(o)};
      if (next.loss + rest(budget - next.cost) <= known) all.push_back(next);
    }
  std::stable_sort(all.begin(), all.end(), [](const State& a, const State& b) {
    return a.cost != b.cost ? a.cost < b.cost : a.loss < b.loss;
  });
  std::vector<State> kept;
  for (const State& s : all)
    if (kept.empty() || s.loss < kept.back().loss) kept.push_back(s);
  return kept;
}

// At most `most` states: of each slice of the costs, the one with the least loss.
void thin(std::vector<State>& states, std::size_t most) {
  const i64 low = states.front().cost;
  const i64 width = (states.back().cost - low) / static_cast<i64>(most) + 1;
  std::vector<State> kept;
  for (const State& s : states) {
    if (!kept.empty() && (kept.back().cost - low) / width == (s.cost - low) / width)
      kept.back() = s;  // losses fall along the list
    else
      kept.push_back(s);
  }
  states = std::move(kept);
}

struct Link {
  std::uint32_t parent, option;
};

KnapsackResult result_of(const std::vector<Point>& picks) {
  KnapsackResult r;
  for (const Point& p : picks) {
    r.picks.push_back(p.index);
    r.cost += p.cost;
    r.loss += p.loss;
  }
  return r;
}

}  // namespace

std::optional<KnapsackResult> solve_knapsack(const std::vector<std::vector<KnapsackOption>>& items,
                                             i64 budget, std::size_t most_states) {
  const Problem p = prepare(items);
  const double bound = Bound(p, 0)(budget);
  if (std::isinf(bound)) return std::nullopt;
  std::vector<Point> picks = greedy(p, budget);
  double scale = 0;  // sums of losses are compared: allow for their rounding
  for (const Points& points : p.options)
    scale += std::max(std::abs(points.front().loss), std::abs(points.back().loss));
  const double known = result_of(picks).loss + 1e-12 * scale;

  std::vector<State> states = {{0, 0, 0, 0}};
  std::vector<std::vector<Link>> links;
  bool exact = true;
  for (std::size_t i = 0; i < items.size() && !states.empty(); i++) {
    states = extend(states, p.options[i], Bound(p, i + 1), budget, known);
    if (states.size() > most_states) {
      thin(states, most_states);
      exact = false;
    }
    links.emplace_back();
    for (const State& s : states) links.back().push_back({s.parent, s.option});
  }
  // The last state has the least loss; without one, all were thinned away and the greedy choice is
  // the best known.
  if (!states.empty() && (exact || states.back().loss < result_of(picks).loss)) {
    std::size_t at = states.size() - 1;
    for (std::size_t i = items.size(); i-- > 0;) {
      const Link link = links[i][at];
      picks[i] = p.options[i][link.option];
      at = link.parent;
    }
  }
  KnapsackResult r = result_of(picks);
  r.exact = exact;
  r.bound = exact ? r.loss : std::min(bound, r.loss);
  return r;
}

}  // namespace pare
