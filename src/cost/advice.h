// Advice: sentences where a choice is bad, or where something is worth knowing.
//
// Each follows from the Spec, the use and the hardware by a rule with figures in it; none is said
// where the rule does not hold.
#pragma once

#include <string>
#include <vector>

#include "cost/predict.h"

namespace pare {

struct Advice {
  std::string topic;  // stable, for programs: "four-bits-at-batch"
  std::string text;   // for people
  bool here = false;  // true: holds on this hardware; else of the model alone
};

//   topic                holds when
//   does-not-fit         weights, cache and activations exceed 90 % of the memory
//   four-bits-at-batch   weights alone are quantized and 8-bit products would be faster at the
//   batch no-integer-units     integer activations on a machine without such units, or with slow
//   ones no-float8-units      e4m3 or e5m2 activations on a machine without such units runs-wider
//   codes that Pare's engine reads wider than they are stored fits-in-cache        all weights fit
//   in the last-level cache cache-limits         the cache, not the weights, limits how many
//   sequences fit cache-over-weights   the cache is larger than the weights zeros-not-skipped
//   sparse schemes that nothing exploits large-head           the output matrix is a fifth or more
//   of what a token reads idle-window          windows as long as the context or longer
//   beyond-positions     the context is longer than the model's positions
std::vector<Advice> advise(const Spec&, const Hardware&, const Use&, const Prediction&);

}  // namespace pare
