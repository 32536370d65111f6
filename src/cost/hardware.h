// Hardware: what a machine can do, as rows of data.
//
// The rows that come with Pare are data/hardware.json, each figure with its source; a file of the
// same form adds others. Rates are dense, decimal (TFLOP/s = 1e12, GB = 1e9 bytes), a multiply-add
// is two operations. The row of the machine at hand is measured (`pare roof`).
//
//   {"sources": {"sheet": {"text": "the vendor's data sheet", "confidence": "read"}},
//    "hardware": [
//      {"name": "H100 SXM5", "aliases": ["h100"], "kind": "gpu",
//       "memory_gb": [80, "sheet"], "bandwidth_gbs": [3350, "sheet"],
//       "link_gbs": [450, "sheet"], "watts": [700, "sheet"], "note": "...",
//       "rate_tflops": {"bf16": [989, "sheet"], "fp8": [1979, "sheet"]}}]}
//
//   kind        gpu, tpu, apple, cpu
//   confidence  read, secondary, derived, unconfirmed
//   rates       of f32 bf16 fp8 int8 int4 fp4; bf16 stands for every 16-bit float
//   link_gbs (one direction), watts, note and aliases may be left out
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "number/scheme.h"

namespace pare {

struct EngineRates;  // cost/rates.h: how fast Pare's own kernels were measured to be

struct Hardware {
  std::string name, kind, note;
  std::vector<std::string> aliases;
  double memory_bytes = 0, bytes_per_second = 0;
  double link_bytes_per_second = 0, watts = 0;              // 0: unknown
  std::map<std::string, double, std::less<>> rate;          // FLOP/s by code
  std::map<std::string, std::string, std::less<>> sources;  // "bandwidth_gbs", "bf16" -> text
  double cache_bytes = 0;                                   // of the last level; 0: unknown
  // The machine at hand: Pare's engine runs there and multiplies floats in f32, or with the tiles
  // of a rate "bf16x3" as three terms of bf16.
  bool measured = false;
  std::shared_ptr<const EngineRates> engine;  // measured rows whose kernels were timed too

  // FLOP/s of a code; none: the machine has no unit for it.
  std::optional<double> rate_of(std::string_view code) const;
};

// Errors (input): HW-001 an unknown key, HW-002 a value that is missing, of the wrong type or out
// of range, HW-003 a source that is not there, HW-004 two rows of one name; and those of JSON.
std::vector<Hardware> parse_hardware(std::string_view text, const std::string& source);

const std::vector<Hardware>& known_hardware();  // the rows that come with Pare

// The row whose name or alias it is, case and spaces aside. Error HW-005 (usage) names the nearest.
const Hardware& find_hardware(const std::vector<Hardware>&, std::string_view name);

// The code whose units execute a product: weight-only schemes are decoded and run at 16 bits,
// integer or 8-bit float activations run on the units of that code where the machine has them.
std::string executed_code(const Scheme&, const Activation&, const Hardware&);
// FLOP/s of that code.
double executed_rate(const Scheme&, const Activation&, const Hardware&);

// FLOP a byte at which memory and arithmetic take equally long.
double ridge(const Hardware&, std::string_view code);
// Batch at which the product with a matrix of this scheme stops being limited by memory.
double ridge_batch(const Scheme&, const Activation&, const Hardware&);

}  // namespace pare
