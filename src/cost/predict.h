// Prediction: what a model would cost on a machine, before a weight is read.
//
// Time of an operation is the larger of bytes over bandwidth and FLOPs over the rate of the unit
// that executes it (Williams, Waterman, Patterson 2009); a pass is the sum of its operations. For
// rows from data sheets that is the limit, not a forecast. For a measured machine
// (Hardware::engine) the measured rates of Pare's kernels and its fixed costs stand in for both.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cost/count.h"
#include "cost/hardware.h"

namespace pare {

struct Use {
  i64 batch = 1;
  i64 prompt = 512;            // tokens of prefill
  i64 context = 2048;          // positions cached when a decode step begins
  std::optional<KvScheme> kv;  // none: the model's, else 16 bits
  int threads = 0;             // of a measured machine; 0: all
};

enum class Limit : std::uint8_t { memory, compute };
std::string_view to_string(Limit);

struct OperationTime {
  Operation operation;
  std::string code;  // that the executing unit multiplies
  double memory_seconds = 0, compute_seconds = 0, seconds = 0;
  Limit limit = Limit::memory;
};

struct StepTime {
  std::vector<OperationTime> operations;
  Count count;
  double seconds = 0;           // what no operation accounts for included
  Limit limit = Limit::memory;  // of the larger part of the time
};

struct Memory {
  double weights = 0, cache = 0, activations = 0;  // bytes; cache: of the whole batch
  double total() const { return weights + cache + activations; }
};

struct Prediction {
  StepTime prefill, decode;
  double ttft_seconds = 0;                                             // of a batch of prompts
  double seconds_per_token = 0;                                        // a decode step
  double prefill_tokens_per_second = 0, decode_tokens_per_second = 0;  // of the batch
  double mbu = 0;  // of decode: (weights + cache) / time / bandwidth
  double mfu = 0;  // of prefill: time of its FLOPs at the rates of the executing units, over time
  Memory memory;
  bool fits = false;      // memory.total() within 90 % of the machine's
  i64 largest_batch = 0;  // sequences of that context that fit; 0: not even one
  double kv_bytes_per_token = 0;
};

Prediction predict(const Spec&, const Hardware&, const Use&);

// One pass alone.
StepTime predict_pass(const Spec&, const Hardware&, const Load&, int threads);
Memory predict_memory(const Spec&, const Use&, i64 prefill_rows);

// The most sequences of use.context positions that fit beside the weights; 0: not even one. And the
// longest context of use.batch sequences, at most the model's positions.
i64 largest_batch(const Spec&, const Hardware&, const Use&);
i64 largest_context(const Spec&, const Hardware&, const Use&);

// The scheme of the cache that `use` means for the model.
KvScheme kv_of(const Spec&, const Use&);

constexpr double usable_memory = 0.9;

}  // namespace pare
