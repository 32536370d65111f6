// What every solver asks of its task.
#pragma once

#include "pass/quantize/solver.h"

namespace pare {

// Errors QU-040 (a weight that is not finite), QU-041 (statistics that are not), QU-043 (statistics
// of another width), each with the matrix and the place.
void check_inputs(const MatrixTask&);

// E[x^2] of each input, or nothing without statistics.
std::vector<float> importances(const MatrixTask&);

}  // namespace pare
