// What commands leave in the ledger of runs (recipe/ledger.h).
#pragma once

#include <optional>
#include <string>

#include "model/model.h"
#include "probe/perplexity.h"
#include "recipe/ledger.h"

namespace pare {

// A run of this program on this machine, to be filled in; `threads` as the pool has them.
RunRecord run_here(const char* command, int threads);

// A model was made from another: sizes and, when measured, quality. Reads what was published for
// its identity; does nothing when the ledger is turned off, and never fails.
void record_made(const char* command, const Model& base, const std::string& out,
                 const std::string& recipe_line, const std::optional<EvalResult>& quality,
                 int threads, const Log&);

}  // namespace pare
