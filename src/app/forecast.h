// What the cost model says that `measure_speed` will find on this machine.
#pragma once

#include "app/roofline.h"
#include "cost/predict.h"
#include "probe/speed.h"

namespace pare {

struct Forecast {
  double decode_tokens_per_second = 0, prefill_tokens_per_second = 0;  // of the batch
  double decode_seconds = 0, prefill_seconds = 0;  // of a step in the middle; of one prefill
  double mbu = 0, mfu = 0;                         // by the roof that Shares go by
  double memory_bytes = 0;  // weights, cache with room for all that is generated, activations
};
Forecast forecast(const Spec&, const Hardware&, const Roof&, const SpeedOptions&, int threads);

// What predictions for it stand on: "measured kernels" or "limits of the roof".
std::string predictor_of(const Hardware&);

}  // namespace pare
