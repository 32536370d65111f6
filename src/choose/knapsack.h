// The multiple-choice knapsack: one option of each item, least total loss within a budget of cost.
//
// Source: Sinha and Zoltners, "The Multiple-Choice Knapsack Problem" (1979), for the linear bound;
// Nemhauser and Ullmann (1969) for lists of undominated states.
#pragma once

#include <optional>
#include <vector>

#include "base/error.h"

namespace pare {

struct KnapsackOption {
  i64 cost = 0;  // at least 0
  double loss = 0;
};

struct KnapsackResult {
  std::vector<std::size_t> picks;  // an option of each item
  i64 cost = 0;
  double loss = 0;
  double bound = 0;   // no choice within the budget has a smaller loss
  bool exact = true;  // the choice is the best; else its loss is between the bound and the best
};

// Every item has at least one option; losses are finite. Empty when the cheapest options cost more
// than the budget. Ties go to the smaller cost, then to the earlier option. `most_states` limits
// memory (about 8 bytes for each item and state); beyond it the result may lose exactness and says
// so.
std::optional<KnapsackResult> solve_knapsack(const std::vector<std::vector<KnapsackOption>>& items,
                                             i64 budget, std::size_t most_states = 1 << 16);

}  // namespace pare
