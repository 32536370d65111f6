// Search: measured losses, a machine and limits in; recipes as values out.
//
// What can be chosen: a scheme for each matrix of the sensitivities (its own is always among them,
// at no loss), a scheme of the cache, and one activation for the matrices of the blocks that are
// quantized. Losses add up (choose/sensitivities.h). Bytes and seconds come from the cost model:
// seconds of each matrix in each scheme as items of a knapsack, and of each recipe found once more
// as a whole.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "choose/sensitivities.h"
#include "cost/predict.h"

namespace pare {

// A recipe in numbers. Two kinds of bytes: `weight_bytes` as files store the weights;
// `memory_bytes` with the cache of `use` and buffers.
struct Proposal {
  std::vector<Scheme> schemes;  // one a matrix of the sensitivities; its own: left as it is
  std::optional<KvScheme> kv;   // none: the cache stays as it is
  Activation activation;        // of quantized matrices of the blocks; per none: unchanged
  double loss = 0;              // predicted, nats a token
  i64 weight_bytes = 0;
  double memory_bytes = 0, seconds_per_token = 0;               // of a decode step
  double tokens_per_second = 0, prefill_tokens_per_second = 0;  // of the batch
};

enum class Axis : std::uint8_t { bytes, memory, speed };
double cost_of(const Proposal&, Axis);  // bytes, bytes, seconds a token

// At most so much; none: any.
struct Limits {
  std::optional<double> bytes, memory, seconds_per_token;
  bool any() const { return bytes || memory || seconds_per_token; }
};
bool within(const Proposal&, const Limits&);

class Search {
 public:
  // The sensitivities belong to the Spec (choose/sensitivities.h, check).
  Search(Sensitivities, Spec, Hardware, Use);
  ~Search();

  const Sensitivities& sensitivities() const;
  Proposal as_it_is() const;
  // The least predicted loss within the limits; empty when nothing found keeps to them.
  std::optional<Proposal> best(const Limits&) const;
  // The least cost within the limits whose predicted loss is at most `loss`.
  std::optional<Proposal> cheapest(Axis, double loss, const Limits&) const;
  // Recipes of which none is better in both cost and predicted loss, cost rising; at most `points`,
  // spread evenly over both. Losses are above `least_loss` and at most `most_loss`.
  std::vector<Proposal> front(Axis, const Limits&, double most_loss, std::size_t points) const;
  // What comes nearest to limits that nothing keeps to: `excess` is the largest share by which one
  // is exceeded.
  struct Nearest {
    Proposal proposal;
    double excess = 0;
  };
  Nearest nearest(const Limits&) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// What becomes of a model's Spec.
Spec planned(Spec, const Sensitivities&, const Proposal&);

constexpr double least_loss = 1e-5;  // nats; below it recipes cannot be told apart

}  // namespace pare
