// A proof in the making: what `pare prove` was asked, and what it found.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "app/commands.h"
#include "app/forecast.h"
#include "probe/memory.h"
#include "recipe/proof.h"
#include "recipe/recipe.h"

namespace pare {

// Both models and what is asked of them.
struct ProofJob {
  Model base, out;
  SpeedOptions speed;
  Protocol protocol;
  i64 positions = 0;  // that both have
  std::string text;   // of the file; empty: the base writes
  Gates gates;
};

struct ProofFigures {
  int threads = 0;
  std::optional<MemoryUse> base_memory, out_memory;
  std::string base_identity, out_identity;
  EvalResult quality;
  SpeedPair speed;
  Shares base_shares, out_shares;
  Forecast base_forecast, out_forecast;
  std::string predictor;  // what the predictions stand on
  bool cached = false;    // the base's weights fit in the last-level cache
};

// Measures both models. Errors: PV-003 tokenizers that read the text differently, RN-001, CL-005,
// PR-001, PR-003 and those of the engine. To be called before this process has threads.
ProofFigures measure(ProofJob&, const ProveOptions&, const CommonOptions&, const Log&);

// All figures, measured and predicted.
std::vector<ProofRow> rows_of(const ProofJob&, const ProofFigures&);

}  // namespace pare
