// Which matrix gets how many bits: measured losses and a budget in, a scheme for each matrix out.
#pragma once

#include <vector>

#include "choose/sensitivities.h"

namespace pare {

struct BitsPlan {
  std::vector<SchemeLoss> chosen;  // one a matrix, in the order of the sensitivities
  i64 bytes = 0, weights = 0;
  double kl = 0;     // predicted
  double bound = 0;  // no choice within the budget is predicted below it
  bool exact = true;
  double bits() const { return 8.0 * static_cast<double>(bytes) / static_cast<double>(weights); }
};

// The choice of least predicted loss whose bytes, all planes counted, are at most
// `bits_per_weight` times the weights of all matrices. Error CH-001 says what the cheapest choice
// needs.
BitsPlan choose_bits(const Sensitivities&, double bits_per_weight);

}  // namespace pare
