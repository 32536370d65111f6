// From any scheme to ggml's, without rounding: the same values on another grid, or nothing.
#pragma once

#include <vector>

#include "number/ggml.h"

namespace pare {

// The ggml types that hold every value of the matrix exactly, fewest bytes first; empty when none
// does. What decides: every scale (and minimum) is a number of the type's own storage, every level
// is a level of its grid, and its blocks do not cross groups of the source. Reads all codes where
// zero points make the levels depend on them. Plain floats have the one type of their code.
std::vector<std::uint32_t> exact_ggml_types(const Tensor&);

// The matrix in scheme_of_ggml(type), value for value; none when the type cannot hold it.
std::optional<Tensor> exact_in_ggml(const Tensor&, std::uint32_t type);

}  // namespace pare
