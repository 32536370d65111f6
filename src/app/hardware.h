// Rows of hardware as commands take them: those that come with Pare, those of a file, this machine.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "cost/hardware.h"

namespace pare {

// Rows of `file` (may be empty) go before those that come with Pare, so that they can correct them;
// this machine is first, when `pare roof` has remembered it with that many threads (0: any).
std::vector<Hardware> hardware_rows(const std::string& file, int threads);

// Errors: HW-005, and HW-007 for "here" when this machine was not measured.
const Hardware& choose_hardware(const std::vector<Hardware>&, const std::string& name);

Json hardware_json(const Hardware&);

// "80.0 GB, 3.35 TB/s, bf16 989, fp8 1979, int8 1979 TFLOP/s"
std::string hardware_line(const Hardware&);

}  // namespace pare
