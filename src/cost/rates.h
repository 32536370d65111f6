// Rates of Pare's own engine on a machine: measured once (`pare roof`), interpolated here.
//
// A product of an (out, in) matrix with b inputs takes once(key, b, in') + out per_output(key, b,
// in'), in' being `in` as kernels pad it: waking threads and preparing inputs, then the work
// itself. Both are measured for a few widths and linear between them. The key says which kernel
// runs and how its scales lie ("nib4:g128:floats"). Matrices that come from memory and such that
// stay in the caches have rates of their own, and so has attention, which goes by queries and FLOPs
// of visible pairs. All else goes by passes, blocks and elements of rows.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "cost/count.h"
#include "kernel/isa.h"

namespace pare {

// How Pare's engine multiplies with this scheme; two schemes of one key run equally fast.
std::string product_key(const Scheme&, const Activation&, i64 in, unsigned isa);

struct ProductRate {
  std::string key;
  bool cached = false;  // the matrices stayed in the caches
  double bytes_per_weight = 0;
  struct Width {
    double in = 0, once = 0, per_output = 0;  // seconds
  };
  struct Point {
    double batch = 0;
    std::vector<Width> widths;  // in ascending
  };
  std::vector<Point> points;  // batch ascending
  // Weights' bytes and FLOPs a second of the widest matrix at points[i].
  double bytes_per_second(std::size_t i) const;
  double flops_per_second(std::size_t i) const;
};

struct AttentionRate {
  std::string keys;      // code of the cache: "f16", "int8", ...
  bool decode = false;   // one query a sequence; else many
  bool cached = false;   // the rows stayed in the caches
  i64 heads_per_kv = 1;  // queries that share a row
  double seconds_per_query = 0, seconds_per_flop = 0;
};

// Rates of one team of threads.
struct TeamRates {
  int threads = 1;
  double bytes_per_second = 0;
  std::vector<ProductRate> products;
  std::vector<AttentionRate> attention;
  double seconds_per_pass = 0, seconds_per_block = 0;
  // Of the elements that pass through norms, rotations and the like, by rows: ascending.
  struct Rest {
    double rows = 0, seconds_per_element = 0;
  };
  std::vector<Rest> rest;
};

// Of weights of so many bytes, read again and again, the share of the time between that of the
// caches and that of memory.
struct CacheStep {
  double bytes = 0, share = 0;
};

struct EngineRates {
  std::string isa;
  unsigned isa_class = 0;
  std::vector<CacheStep> beyond;  // bytes ascending; at least one
  double share(double bytes) const;
  double cache_bytes() const;                // weights up to so many mostly stay in the caches
  std::vector<TeamRates> teams;              // threads ascending
  const TeamRates& team(int threads) const;  // the nearest; 0: the largest
};

Json to_json(const EngineRates&);
EngineRates parse_engine_rates(const Json&, const std::string& source);

// Seconds of a pass outside of products and attention.
double rest_seconds(const TeamRates&, double blocks, double rows, double elements);

// Seconds of an operation of a pass whose weights are `pass_bytes` in all.
double operation_seconds(const EngineRates&, const TeamRates&, const Operation&, double pass_bytes);

}  // namespace pare
