// Instrumented runs: what steps really multiplied and read, counted where it is done (the cost
// model, cost/count.h, is held against it, exactly); and what their parts took.
#pragma once

#include <atomic>
#include <set>

#include "kernel/attend.h"
#include "kernel/linear.h"

namespace pare {

struct Tally {
  std::atomic<i64> multiply_adds = 0, weight_bytes = 0, kv_read_bytes = 0, kv_write_bytes = 0;

  void product(const PackedLinear&, i64 rows);
  // A vector that stays in the caches once a step has read it: counted the first time.
  void vector(const void* data, i64 bytes);
  // Scores and values of all pairs that are visible, one by one.
  void attention(const AttendCall&);
  // Rows of the call's segments that some query sees, each once; `values`: of both sides.
  void cache(const AttendCall&, i64 kv_heads, bool values);

 private:
  std::set<const void*> seen_;  // touched by the calling thread alone
};

// Seconds of steps within the products and within attention; the rest is norms, rotations, waiting.
struct PartTimes {
  double products = 0, attention = 0;
};

}  // namespace pare
