// One option of each item, least total loss within several limits at once (bytes, memory, time).
//
// One limit is a multiple-choice knapsack and solved exactly (knapsack.h). With more, limits are
// joined into one weighted sum: what is best under the sum alone is a bound, and when it keeps to
// every limit it is the best there is. Surrogate constraints: Glover 1965; Dyer 1980.
#pragma once

#include <limits>
#include <optional>
#include <vector>

#include "base/error.h"

namespace pare {

constexpr i64 no_limit = std::numeric_limits<i64>::max();

struct SelectOption {
  double loss = 0;         // finite
  std::vector<i64> costs;  // as many as limits, each at least 0
};

struct Selection {
  std::vector<std::size_t> picks;  // an option of each item
  std::vector<i64> costs;          // sums
  double loss = 0;
  double bound = 0;   // no choice within the limits has a smaller loss
  bool exact = true;  // the choice is the best; else its loss is between the bound and the best
};

// Every item has at least one option. Empty when nothing within the limits was found: with one
// limit, that nothing is; with more, where they are all but impossible, a choice may be missed.
std::optional<Selection> select(const std::vector<std::vector<SelectOption>>& items,
                                const std::vector<i64>& limits);

}  // namespace pare
