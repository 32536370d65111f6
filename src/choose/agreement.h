// How predicted losses agree with measured ones: in order, and in size.
#pragma once

#include <cstddef>
#include <vector>

namespace pare {

struct Agreement {
  std::size_t pairs = 0, inverted = 0;  // of recipes; ties are neither
  double tau = 1;                       // Kendall's: (agreeing - inverted) / pairs
  double scale = 1;                     // geometric mean of measured / predicted
  double low = 1, high = 1;             // the extremes of that ratio
  bool systematic = false;              // the mean ratio is off by more than twice its error
};
struct LossPair {
  double predicted = 0, measured = 0;
};
Agreement agreement(const std::vector<LossPair>&);

}  // namespace pare
