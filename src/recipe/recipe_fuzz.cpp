// Recipes from any bytes: an Error or steps, never a crash.
#include "recipe/recipe.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    pare::parse_recipe({reinterpret_cast<const char*>(data), size}, "fuzz.toml");
  } catch (const pare::Error&) {
  }
  return 0;
}
