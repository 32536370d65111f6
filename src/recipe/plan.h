// Words for what might be done to a model, for plans: no weight is read, nothing is run.
//
//   plan = item {"+" item}
//   item = word | weights | activations | "kv=" KV-SCHEME | "head=" SCHEME | "embedding=" SCHEME
//
//   w8 w4 w3 w2   int8:channel, int4:g128, int3:g128, int2:g64
//   w8a8 w4a8     with int8:token inputs
//   nf4  fp4      nf4:g64, nvfp4
//   fp8           e4m3:channel with e4m3:token inputs
//   kv8 kv4       a cache in int8, in int4:g32:asym
//
// Weights are any scheme (number/scheme.h) and activations any that parse_activation knows, behind
// the weights. Both are of the matrices of the blocks; head and embedding stay as they are unless
// an item says otherwise. f32, f16 and bf16 are schemes of weights too.
#pragma once

#include <string>
#include <vector>

#include "model/spec.h"
#include "pass/quantize/quantize.h"

namespace pare {

// Error PN-001 (usage) names the item that is none, PN-002 one that comes twice.
QuantizeOptions parse_plan_words(const std::string& words);

std::vector<std::string> plan_words();  // the shorthands, for help

// The Spec after it.
Spec planned(const Spec& base, const std::string& words);

}  // namespace pare
