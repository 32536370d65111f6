// A choice of bits as a recipe.
#pragma once

#include <string>

#include "choose/bits.h"
#include "recipe/recipe.h"

namespace pare {

// The text of a recipe that gives each matrix its chosen scheme and changes no other: parsed and
// planned, it yields exactly the plan (checked). Equal schemes are said by pattern where that is
// shorter. Comments say what was measured and what is predicted.
std::string bits_recipe(const Sensitivities&, const BitsPlan&, const Spec&);

}  // namespace pare
