// Ready recipes: the files of recipes/, compiled into the program (the build writes the list).
#pragma once

#include <string_view>
#include <vector>

namespace pare {

struct ReadyRecipe {
  std::string_view name;  // of the file, without .toml
  std::string_view text;
};
const std::vector<ReadyRecipe>& ready_recipes();  // by name

}  // namespace pare
