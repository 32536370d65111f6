// Recipes from any bytes: an Error or steps, never a crash; what is read is written and read again
// as the same, and plans on a small Spec or is refused.
#include "recipe/apply.h"

namespace {

pare::Spec small_spec() {
  pare::Spec spec = pare::known_spec("smollm2-135m");
  spec.blocks.resize(1);
  return spec;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const pare::Spec spec = small_spec();
  try {
    const pare::Recipe recipe =
        pare::parse_recipe({reinterpret_cast<const char*>(data), size}, "fuzz.toml");
    const auto text = [](const pare::Recipe& r) {
      return pare::recipe_text(r.steps, r.gates, r.data, r.about);
    };
    PARE_CHECK(text(pare::parse_recipe(text(recipe), "again.toml")) == text(recipe));
    pare::plan(recipe, spec);
  } catch (const pare::Error&) {
  }
  return 0;
}
