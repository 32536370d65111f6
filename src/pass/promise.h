// Promises kept: weights that a pass has only wrapped (pass.h) are made and committed.
#pragma once

#include <set>
#include <string>

#include "pass/pass.h"

namespace pare {

// The last thing of a lazy pass; the model has its planned Spec. Weights that the Spec has no slot
// for are dropped. With a work folder the `promised` slots are made, block by block, each a piece
// of the part "<part>-rest"; what an earlier run has committed is taken instead. Without one they
// stay promises.
void keep_promises(Model&, const std::set<std::string, std::less<>>& promised, Context&);

}  // namespace pare
