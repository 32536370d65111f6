// How fast Pare's kernels are on this machine: what predictions for it stand on (cost/rates.h).
#pragma once

#include <string>
#include <vector>

#include "base/log.h"
#include "base/pool.h"
#include "cost/rates.h"

namespace pare {

struct RateOptions {
  std::vector<int> teams = {1};       // threads; ascending
  double seconds = 0.03;              // of each measurement; the median of its repeats counts
  int rounds = 2;                     // of each product; their median counts
  std::vector<std::string> products;  // "int4:g32", "int8:channel+int8:token"; empty: all kinds
  std::vector<std::string> caches;    // "f16", "int8"; empty: all kinds
  i64 most_inputs = 512;              // of a product
  i64 far_bytes = 0;                  // of matrices that no cache holds; 0: thrice the caches
};

// "int8:channel+int8:token": the scheme of the weights and that of the inputs. Errors SC-001,
// SC-002.
std::pair<Scheme, Activation> parse_product(const std::string&);

// Products of every kind with 1 to 512 inputs, from memory and from the caches; attention over
// every kind of cache; what a pass, a block and an element cost beside. About a minute a team.
EngineRates measure_rates(const RateOptions&, const Log&);

// Measures o.products anew with the teams of `rates`; all else in it stays as it was.
void renew_products(EngineRates& rates, const RateOptions& o, const Log&);

}  // namespace pare
