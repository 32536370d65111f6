// Formats against each other: from which batch to which one is faster than another.
//
// Only products with stored matrices count: caches and vectors are the same for all formats of
// weights. Mixtures of experts count as at a batch of one.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cost/hardware.h"
#include "cost/predict.h"

namespace pare {

// The matrices of the blocks by scheme and activation, largest share of weights first.
struct SchemeShare {
  Scheme scheme;
  Activation activation;
  double share = 0;  // of the weights of all blocks
};
std::vector<SchemeShare> block_schemes(const Spec&);
std::string to_string(const SchemeShare&);  // "int4:g128", "int8:channel x int8:token"

// The products of a decode step, equal ones together.
struct StepProducts {
  std::vector<Operation> operations;  // at a batch of one
  std::vector<double> counts, rates;  // FLOP/s of the units that execute them
  double pass_bytes = 0;
};
StepProducts step_products(const Spec&, const Hardware&);
double products_seconds(const StepProducts&, const Hardware&, double batch, int threads);

// Batches at which `first` is faster than `second`, by more than a thousandth.
struct Faster {
  std::optional<double> from;   // none: at no batch
  std::optional<double> until;  // none: at every one from `from` on
};
Faster faster(const StepProducts& first, const StepProducts& second, const Hardware&, int threads);
std::string to_string(const Faster&);  // "always", "never", "to batch 77", "from batch 78"

}  // namespace pare
