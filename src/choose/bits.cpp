// The budget of bits spent: a knapsack over the matrices.
#include "choose/bits.h"

#include <algorithm>
#include <cmath>

#include "choose/knapsack.h"

namespace pare {

BitsPlan choose_bits(const Sensitivities& s, double bits_per_weight) {
  BitsPlan plan;
  std::vector<std::vector<KnapsackOption>> items;
  i64 least = 0;
  for (const MatrixLosses& m : s.matrices) {
    plan.weights += m.rows * m.cols;
    items.emplace_back();
    i64 cheapest = m.options.front().bytes;
    for (const SchemeLoss& o : m.options) {
      items.back().push_back({o.bytes, o.kl});
      cheapest = std::min(cheapest, o.bytes);
    }
    least += cheapest;
  }
  const double weights = static_cast<double>(plan.weights);
  const i64 budget = static_cast<i64>(std::floor(bits_per_weight * weights / 8));
  const auto solved = solve_knapsack(items, budget);
  if (!solved)
    fail(Exit::usage, "CH-001", "the budget is below the cheapest candidates",
         {{"found", fmt::format("{} bits a weight", bits_per_weight)},
          {"need", fmt::format("at least {:.4f}", 8.0 * static_cast<double>(least) / weights)}},
         "raise --budget or add a smaller scheme to --candidates");
  for (std::size_t i = 0; i < s.matrices.size(); i++)
    plan.chosen.push_back(s.matrices[i].options[solved->picks[i]]);
  plan.bytes = solved->cost;
  plan.kl = solved->loss;
  plan.bound = solved->bound;
  plan.exact = solved->exact;
  return plan;
}

}  // namespace pare
