// This machine's measured limits, remembered between runs.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "app/output.h"
#include "base/pool.h"
#include "cost/hardware.h"
#include "cost/rates.h"
#include "kernel/roof.h"
#include "model/spec.h"
#include "probe/speed.h"

namespace pare {

// Where `pare roof` remembers its result: $XDG_CACHE_HOME/pare/roof.json, else
// ~/.cache/pare/roof.json; empty when there is no home.
std::string roof_file();

Json roof_json(const Roof&);
Roof parse_roof(const Json&);

// The remembered roof when it was measured on this processor with this many threads, else a quick
// measurement (which is remembered too, where that is possible).
Roof roof_here(Pool& pool, const Log& log);
Roof measure_and_remember(Pool& pool, double seconds, const Log& log);

// The rates of Pare's kernels that `pare roof` remembered on this processor and ISA; null: never
// measured here.
std::shared_ptr<const EngineRates> rates_here();
// Measures and remembers them beside the roof.
// With `products` ("int8:channel", ...) only those, and all else as it was remembered, if it was.
std::shared_ptr<const EngineRates> measure_rates_and_remember(
    Pool& pool, double seconds, int rounds, const std::vector<std::string>& products,
    const Log& log);

// What `pare roof` remembered of this processor, measured with that many threads (0: any); none
// without measuring anew.
std::optional<Roof> remembered_roof(int threads);

// The machine at hand as a row of hardware: memory is what the machine or the control group of this
// process has, whichever is less; all else was measured, the rates of Pare's kernels (`pare roof
// --kernels`) too where they were. Found as "here" and "this machine".
Hardware hardware_here(const Roof&);

// Peak of a code, or of f32 where there is none; FLOP/s.
double peak_flops(const Roof&, std::string_view code);
// The code of the unit that executes a model's products with many inputs here: "int8" for integer
// activations, "bf16x3" or "f32" else.
std::string main_code(const Spec&);

// What was reached of the measured bandwidth by decode (MBU) and of the peak by prefill (MFU).
struct Shares {
  double mbu = 0, mfu = 0;
};
Shares shares_of(const SpeedResult&, const Roof&, const Spec&);

}  // namespace pare
