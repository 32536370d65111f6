// Sampling: from logits to a token.
#pragma once

#include <cstdint>
#include <span>

#include "base/error.h"
#include "base/random.h"

namespace pare {

struct SampleOptions {
  double temperature = 1;  // 0: greedy
  int top_k = 0;           // 0: off
  double top_p = 1;        // 1: off
  double min_p = 0;        // 0: off; relative to the largest probability
};

// Error EN-010 for values out of range (temperature < 0, top_p outside (0, 1], ...).
void check(const SampleOptions&);

std::int32_t greedy(std::span<const float> logits);  // the first of equals
// Order: temperature, top-k, top-p, min-p, draw. Same seed and logits: same token on every machine.
std::int32_t sample(std::span<const float> logits, const SampleOptions&, Random&);

}  // namespace pare
