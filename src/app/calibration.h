// What the commands that learn from data share: flags to sequences, the identity of an input.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "app/output.h"
#include "model/model.h"
#include "pass/quantize/calibrated.h"

namespace pare {

struct DataOptions {
  std::string text, ids, statistics;  // FILE; none: the model writes its own
  i64 tokens = 65536, length = 512;
  std::uint64_t seed = 0;
  double ram = 0;  // megabytes; 0: half of what is free
};

// Loads or makes what is learnt from. `keep` tokens at the end of a text are left for measuring;
// they are returned in `rest` (empty when there is no text).
std::shared_ptr<const Calibration> make_calibration(const Model&, const DataOptions&, double keep,
                                                    std::vector<std::int32_t>& rest, Pool&,
                                                    const Log&);

// "input 8f3a..., 3.93 M parameters": a hash over all weights.
std::string identity_of(const Model&, const Log&);
std::string identity_of(const Calibration&);

}  // namespace pare
