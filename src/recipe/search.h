// A recipe that a search has found.
#pragma once

#include <optional>
#include <string>

#include "choose/search.h"
#include "recipe/recipe.h"

namespace pare {

// What the comments say besides the proposal's own figures.
struct SearchRecord {
  std::string method = "rtn";  // as `method` of a recipe
  std::string hardware;        // name
  Use use;
  double scale = 1;                // measured / predicted losses
  std::optional<double> measured;  // nats
  std::string measured_on;         // "1900 tokens of story.txt"
  Gates gates;                     // that the outcome is to be held to
};

// The text of a recipe: parsed and planned, it yields exactly `planned` (checked). Comments say
// what was measured and what is predicted.
std::string search_recipe(const Sensitivities&, const Proposal&, const Spec&, const SearchRecord&);

}  // namespace pare
