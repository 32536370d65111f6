// Speed: tokens per second of prefill and decode, and what share of the machine that is.
#pragma once

#include <optional>
#include <vector>

#include "base/log.h"
#include "base/random.h"
#include "engine/engine.h"

namespace pare {

struct SpeedOptions {
  i64 prompt = 256;   // tokens of prefill
  i64 generate = 64;  // decode steps
  i64 batch = 1;      // sequences at once
  i64 context = 0;    // tokens in the cache when decode starts; at least the prompt
  int repeats = 3;    // the median is reported
};

struct Timing {
  double median = 0, minimum = 0, maximum = 0;  // seconds
};

struct SpeedResult {
  SpeedOptions options;    // with the defaults filled in
  Timing prefill, decode;  // of one prefill; of one decode step
  double prefill_tokens_per_second = 0, decode_tokens_per_second = 0;  // all sequences together
  double bytes_per_token = 0;             // read from memory by a decode step, over the batch
  double weight_bytes = 0, kv_bytes = 0;  // of a decode step
  double read_bytes_per_second = 0;       // reached by decode
  double prefill_flops_per_second = 0;    // reached by prefill
};

// The options with a context of at least the prompt. Error SPD-001: not at least 1 each, or prompt
// and generation exceed the positions.
SpeedOptions checked(SpeedOptions, i64 positions);

// Random token ids (seeded); the engine's own counts of bytes and operations. Error SPD-001 when
// prompt and generation exceed the model's positions.
SpeedResult measure_speed(Engine&, SpeedOptions, const Log&);

// Two engines in alternating rounds, the order turned each time, on the same tokens: a machine that
// is busy for a while is busy for both. A speedup is the ratio of the times of one round.
struct SpeedPair {
  SpeedResult base, out;
  Timing prefill_speedup, decode_speedup;  // base / out; of the rounds
};
SpeedPair measure_speeds(Engine& base, Engine& out, SpeedOptions, const Log&);

}  // namespace pare
