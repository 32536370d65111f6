// The machine's limits, measured: how fast memory is read, how many operations a second each unit
// does.
#pragma once

#include <string>
#include <vector>

#include "base/pool.h"

namespace pare {

struct Roof {
  std::string processor;  // as the system names it
  std::string isa;        // the best class in use
  int threads = 1;
  i64 last_level_cache_bytes = 0;
  double read_bytes_per_second = 0;         // all threads, memory far larger than the caches
  double read_bytes_per_second_single = 0;  // one thread
  struct Peak {
    // What is multiplied: "f32", "bf16", "int8"; "bf16x3": f32 as three terms of bf16 with bf16,
    // counted as one product.
    std::string code;
    std::string isa;              // "scalar", "avx2", "avx512", "amx"
    double flops_per_second = 0;  // multiply-add = 2; all threads
    double flops_per_second_single = 0;
  };
  std::vector<Peak> peaks;
};

// Each measurement takes about `seconds`, the best of several repeats counts. Units that this
// machine lacks have no row.
Roof measure_roof(Pool&, double seconds);

std::string processor_name();
i64 last_level_cache_bytes();

}  // namespace pare
