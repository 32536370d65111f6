// Recipes that a search writes: whatever it found is what they plan.
#include "recipe/search.h"

#include "base/random.h"
#include "model/test_models.h"

namespace pare {
namespace {

Sensitivities evidence_of(const Spec& spec, Random& random) {
  Sensitivities s;
  s.base = "tiny \"quoted\"\nline";
  s.text = "a text";
  s.rounding = "rounded to nearest";
  const auto add = [&](const std::string& name, i64 rows, i64 cols) {
    if (random.below(8) == 0) return;  // not every matrix takes part
    MatrixLosses m{name, rows, cols, {}};
    for (const char* word : {"int3:g32", "int4:g64", "int8:channel", "e4m3:channel"})
      m.options.push_back({parse_scheme(word), 0, random.uniform()});
    s.matrices.push_back(m);
  };
  add("embed", spec.vocab, spec.dim);
  for (const auto& [name, linear] : linears(spec))
    if (name != "head" || !spec.tied) add(name, linear->out, linear->in);
  s.caches = {{parse_kv_scheme("int8"), 0.1}, {parse_kv_scheme("int4:asym:k=channel"), 0.2}};
  s.activations = {{parse_activation("int8:token"), 0.1}};
  return s;
}

Scheme own(const Spec& spec, const std::string& name) {
  for (const auto& [found, linear] : linears(spec))
    if (found == name) return linear->scheme;
  return spec.embed;
}

// search_recipe checks itself that the text plans to what was found; here what it says is read.
TEST(SearchRecipe, PlansToWhatWasFound) {
  Random random(51);
  int kept = 0, changed = 0;
  for (int round = 0; round < 200; round++) {
    Spec spec = tiny_spec(round % 2 == 0);
    if (round % 5 == 0) spec = quantized(spec, "int8:channel", "int8:token");
    const Sensitivities s = evidence_of(spec, random);
    Proposal p;
    const std::uint64_t spread = random.below(6);  // 0: all in one scheme
    for (const MatrixLosses& m : s.matrices) {
      const std::size_t pick = spread == 0 ? 1 : random.below(2 + spread / 2);
      p.schemes.push_back(pick < m.options.size() ? m.options[pick].scheme : own(spec, m.name));
      if (random.below(3) == 0) p.schemes.back() = own(spec, m.name);
      (p.schemes.back() == own(spec, m.name) ? kept : changed)++;
    }
    bool block = false;
    for (std::size_t i = 0; i < p.schemes.size(); i++)
      block = block || (s.matrices[i].name.starts_with("blocks.") &&
                        p.schemes[i] != own(spec, s.matrices[i].name));
    if (block && random.below(2) == 0) p.activation = s.activations[0].activation;
    if (random.below(2) == 0) p.kv = s.caches[random.below(2)].scheme;
    if (planned(spec, s, p) == spec) continue;
    SearchRecord record;
    record.hardware = "some machine";
    record.method = random.below(2) == 0 ? "rtn" : "gptq";
    if (random.below(2) == 0) record.measured = 0.25, record.measured_on = "9 tokens of x\ny";
    if (random.below(2) == 0) record.gates.max_bytes = 1 + static_cast<i64>(random.below(1000));
    const std::string text = search_recipe(s, p, spec, record);
    const Recipe recipe = parse_recipe(text, "found.toml");
    ASSERT_EQ(recipe.steps.size(), 1u);
    const auto& options = std::get<QuantizeOptions>(recipe.steps[0].options);
    EXPECT_EQ(to_string(options.method.method), record.method);
    EXPECT_EQ(options.kv.has_value(), p.kv.has_value());
    EXPECT_EQ(recipe.gates, record.gates);
    Spec after = spec;
    for (const Pass& pass : passes(recipe)) after = pass.plan(std::move(after));
    EXPECT_EQ(after, planned(spec, s, p)) << text;
  }
  EXPECT_GT(kept, 500);
  EXPECT_GT(changed, 500);
}

}  // namespace
}  // namespace pare
