// Recipes applied: the law of passes for ready recipes on every tiny Spec, any sequence of steps,
// interruptions, gates, and what the output says of how it was made.
#include "recipe/apply.h"

#include <algorithm>

#include "base/random.h"
#include "engine/test_specs.h"
#include "model/test_models.h"
#include "pass/work.h"
#include "recipe/ready.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

TokenSequences random_ids(i64 vocab, std::size_t sequences = 3, std::size_t length = 12) {
  Random random(5);
  TokenSequences all(sequences);
  for (auto& ids : all)
    for (std::size_t i = 0; i < length; i++)
      ids.push_back(static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(vocab))));
  return all;
}

ApplyOptions with_ids(i64 vocab) {
  ApplyOptions o;
  o.data.name = "ids";
  o.data.ids = random_ids(vocab);
  return o;
}

// Ids for a recipe that must learn; nothing for others.
ApplyOptions brief(const Recipe& recipe) {
  const bool learner = std::any_of(recipe.steps.begin(), recipe.steps.end(), [](const Step& s) {
    const auto* o = std::get_if<QuantizeOptions>(&s.options);
    return o != nullptr && needs_data(o->method.method);
  });
  return learner ? with_ids(96) : ApplyOptions();
}

std::map<std::string, std::string> contents(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(folder))
    files[entry.path().filename().string()] = read_text_file(entry.path(), 1 << 26);
  return files;
}

const Model& small_model() {
  static const Model model = random_model(tiny_spec(), 21, Code::f32);
  return model;
}

constexpr const char* three_steps = R"(about = "three steps, two of them learn"
[data]
tokens = 36
[[quantize]]
weights = "int8:channel"
only = ["*.attn.*"]
method = "gptq"
[[cast]]
to = "f16"
[[quantize]]
weights = "int4:g32"
head = "int8:channel"
embedding = "int8:channel"
kv = "int8"
method = "auto"
)";

// ---- the law ----

// Every step that must learn gets the same tokens.
Recipe bound(Recipe recipe, i64 vocab) {
  auto data = std::make_shared<Calibration>();
  data->sequences = random_ids(vocab);
  for (Step& step : recipe.steps)
    if (auto* o = std::get_if<QuantizeOptions>(&step.options); o && needs_data(o->method.method))
      o->method.data = data;
  return recipe;
}

// Each pass leaves what it planned; a refusal is one clear sentence of a known kind.
void expect_law(const std::string& name, const Spec& spec, const Recipe& recipe, int& ran) {
  SCOPED_TRACE(name + " " + recipe.source);
  Pool pool(1);
  const Log log = silent();
  Context context{pool, log};
  Model model = random_model(spec, 7, Code::f32);
  try {
    const Spec planned = plan(recipe, model.spec);
    for (const Pass& pass : passes(bound(recipe, spec.vocab))) {
      const Spec next = pass.plan(model.spec);
      model = pass.run(std::move(model), context);
      EXPECT_EQ(model.spec, next);
    }
    EXPECT_EQ(model.spec, planned);
    check(model);
    check(model.spec);
    ran++;
  } catch (const Error& e) {
    EXPECT_TRUE(e.code == "QU-025" || e.code.starts_with("SC-")) << e.code << " " << e.what();
    EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos);
  }
}

TEST(Apply, ReadyRecipesDoOnEverySpecWhatWasPlanned) {
  ASSERT_GE(ready_recipes().size(), 12u);
  int ran = 0, all = 0;
  for (const ReadyRecipe& ready : ready_recipes()) {
    const Recipe recipe = find_recipe(std::string(ready.name));
    EXPECT_EQ(recipe.text, ready.text);
    EXPECT_FALSE(recipe.about.empty()) << ready.name;
    for (const auto& named : testing::all_specs()) {
      expect_law(named.name, named.spec, recipe, ran);
      all++;
    }
    expect_law("tied", tiny_spec(true), recipe, ran);
    expect_law("untied", tiny_spec(false), recipe, ran);
    all += 2;
  }
  std::printf("%d of %d pairs of recipe and Spec applied, the others refused\n", ran, all);
  EXPECT_GT(ran, all * 2 / 3);
}

TEST(Apply, ReadyRecipesArePublishedAsPlanned) {
  Pool pool(1);
  const TemporaryFolder folder;
  for (const ReadyRecipe& ready : ready_recipes()) {
    SCOPED_TRACE(ready.name);
    const Recipe recipe = find_recipe(std::string(ready.name));
    const Spec planned = plan(recipe, small_model().spec);
    const Applied out = apply(small_model(), recipe, brief(recipe),
                              folder / std::string(ready.name), pool, silent());
    EXPECT_EQ(out.model.spec, planned);
    EXPECT_EQ(load_model((folder / std::string(ready.name)).string()).spec, planned);
    EXPECT_EQ(out.model.provenance.back().recipe, ready.text);
    EXPECT_FALSE(out.model.evidence.empty());
  }
}

TEST(Apply, ReadyRecipesPlanOnTheEmbeddedModel) {
  const Spec spec = spec_of_folder(source_path("models/pare-tales"));
  for (const ReadyRecipe& ready : ready_recipes()) {
    const Spec planned = plan(find_recipe(std::string(ready.name)), spec);
    EXPECT_NE(planned, spec) << ready.name;
    EXPECT_LE(weight_bytes(planned), weight_bytes(spec)) << ready.name;
  }
}

TEST(Apply, AnySequenceOfStepsDoesOnEverySpecWhatWasPlanned) {
  int ran = 0;
  const std::string static_then_dynamic = R"(
[[quantize]]
weights = "int8:channel"
activations = "int8:tensor:static"
method = "smoothquant"
[[quantize]]
weights = "int8:channel"
activations = "int8:token"
[[cast]]
to = "bf16"
[[quantize]]
weights = "nf4:g32"
method = "gptq"
)";
  for (const auto& named : testing::all_specs())
    for (const std::string& text : {std::string(three_steps), static_then_dynamic})
      expect_law(named.name, named.spec, parse_recipe(text, "steps"), ran);
  EXPECT_GT(ran, 20);
}

// ---- interruptions ----

TEST(Apply, AnInterruptedRunGoesOnAndGivesTheSameBytes) {
  const Recipe recipe = parse_recipe(three_steps, "r.toml");
  const TemporaryFolder folder;
  Pool one(1), two(2);
  const ApplyOptions options = with_ids(small_model().spec.vocab);
  const Applied whole = apply(small_model(), recipe, options, folder / "whole", one, silent());
  const auto expected = contents(folder / "whole");
  EXPECT_EQ(contents(folder / "whole"), expected);
  EXPECT_FALSE(fs::exists(folder / "whole.pare-work"));
  apply(small_model(), recipe, options, folder / "threads", two, silent());
  EXPECT_EQ(contents(folder / "threads"), expected);
  // The model breaks at the n-th load of a weight, wherever in the walk that is; every run goes on
  // a little further.
  const fs::path out = folder / "out";
  int runs = 0;
  for (int limit = 20;; limit += 7, runs++) {
    Model broken = small_model();
    auto left = std::make_shared<int>(limit);
    for (auto& [name, weight] : broken.weights)
      weight.load = [load = weight.load, left] {
        if (--*left < 0) fail(Exit::resources, "XX-001", "the power went");
        return load();
      };
    try {
      apply(broken, recipe, options, out, one, silent());
      break;
    } catch (const Error& e) {
      ASSERT_EQ(e.code, "XX-001") << e.what();
      EXPECT_FALSE(fs::exists(out));
    }
  }
  std::printf("%d interruptions\n", runs);
  EXPECT_GT(runs, 2);
  EXPECT_EQ(contents(out), expected);
  EXPECT_FALSE(fs::exists(folder / "out.pare-work"));
}

TEST(Apply, OnlyMethodsKeepUnfinishedWork) {
  const TemporaryFolder folder;
  Pool pool(1);
  for (const std::string method : {"hqq", "rtn"}) {
    Model broken = small_model();
    Weight& weight = broken.weights.at("blocks.1.attn.o.weight");
    weight.load = [load = weight.load, left = std::make_shared<int>(1)] {
      if (--*left < 0) fail(Exit::resources, "XX-001", "the power went");
      return load();  // for the identity
    };
    const Recipe recipe = parse_recipe(
        "[[quantize]]\nweights = \"int4:g32:asym\"\nmethod = \"" + method + "\"\n", method);
    const std::string error =
        error_of([&] { apply(broken, recipe, {}, folder / method, pool, silent()); });
    EXPECT_EQ(error.substr(0, 6), "XX-001") << error;
    EXPECT_EQ(fs::exists(folder / (method + ".pare-work")), method == "hqq");
  }
}

TEST(Apply, OutliersAreFoundOnce) {
  const Recipe recipe = parse_recipe(
      "[[cast]]\nto = \"bf16\"\n[[quantize]]\nweights = \"int8:channel\"\n"
      "activations = \"int8:token\"\nmethod = \"llm-int8\"\nthreshold = 2\n",
      "r.toml");
  const TemporaryFolder folder;
  Pool pool(1);
  const ApplyOptions options = with_ids(small_model().spec.vocab);
  const Applied a = apply(small_model(), recipe, options, folder / "a", pool, silent());
  i64 columns = 0;
  for (const auto& [name, linear] : linears(a.model.spec)) columns += linear->outliers;
  EXPECT_GT(columns, 0);
  EXPECT_EQ(load_model((folder / "a").string()).spec, a.model.spec);
}

// ---- what decides, and what is refused ----

TEST(Apply, LaterStepsLearnOnTheModelOfTheEarlierOnes) {
  const TemporaryFolder folder;
  Pool pool(1);
  const ApplyOptions options = with_ids(small_model().spec.vocab);
  const auto last = [&](const std::string& first, const char* out) {
    const Recipe recipe = parse_recipe(first +
                                           "[[quantize]]\nweights = \"int4:g32\"\n"
                                           "only = \"*.ffn.*\"\nmethod = \"gptq\"\n",
                                       "r");
    return values(apply(small_model(), recipe, options, folder / out, pool, silent()).model,
                  "blocks.1.ffn.up.weight");
  };
  const std::string coarse = "[[quantize]]\nweights = \"int2:g32\"\nonly = \"*.attn.*\"\n";
  EXPECT_NE(last(coarse, "a"), last("", "b"));
  EXPECT_EQ(last(coarse, "c"), last(coarse, "d"));
}

std::string refusal(const std::string& text, const ApplyOptions& options = {}) {
  const TemporaryFolder folder;
  Pool pool(1);
  const std::string error = error_of([&] {
    apply(small_model(), parse_recipe(text, "r.toml"), options, folder / "out", pool, silent());
  });
  EXPECT_FALSE(fs::exists(folder / "out"));
  return error;
}

TEST(Apply, GatesHoldBeforeAnythingIsPublished) {
  const std::string step = "[[quantize]]\nweights = \"int2:g32\"\n";
  EXPECT_TRUE(refusal("[gate]\nmax_bytes = 1000\n" + step).starts_with("QU-028"));
  const std::string kl = refusal("[gate]\nmax_kl = 0.0\n[data]\ntokens = 48\nlength = 16\n" + step);
  EXPECT_TRUE(kl.starts_with("QU-026")) << kl;
  EXPECT_NE(kl.find("written by the model with seed 1"), std::string::npos) << kl;
  const TemporaryFolder folder;
  Pool pool(1);
  const Recipe kept = parse_recipe(
      "[gate]\nmax_kl = 100\nmax_bytes = 1_000_000\nmin_speedup = 1.2\n"
      "[data]\ntokens = 48\nlength = 16\n" +
          step,
      "r");
  const Applied a = apply(small_model(), kept, {}, folder / "out", pool, silent());
  ASSERT_TRUE(a.quality.has_value());
  const Model back = load_model((folder / "out").string());
  ASSERT_EQ(back.provenance.size(), 1u);
  const Recipe again = parse_recipe(back.provenance[0].recipe, "again");
  EXPECT_EQ(again.gates, kept.gates);
  const bool found = std::any_of(back.evidence.begin(), back.evidence.end(), [](const Evidence& e) {
    return e.pass == "apply" && e.metric.starts_with("mean KL") && e.after > 0;
  });
  EXPECT_TRUE(found);
}

TEST(Apply, WhatNothingLooksAtIsRefused) {
  const std::string plain = "[[quantize]]\nweights = \"int4:g32\"\n";
  const std::string kv = "[[quantize]]\nkv = \"int8\"\n";
  EXPECT_TRUE(refusal(kv, with_ids(96)).starts_with("QU-024"));
  EXPECT_TRUE(refusal("[data]\ntokens = 5\n" + plain).starts_with("CL-035"));
  ApplyOptions o;
  o.strict = true;
  EXPECT_TRUE(refusal(plain, o).starts_with("CL-035"));
  o = {};
  o.data.wish.tokens = 5;
  EXPECT_TRUE(refusal(plain, o).starts_with("CL-035"));
  o = with_ids(96);
  o.data.wish.seed = 5;
  EXPECT_TRUE(refusal(plain, o).starts_with("CL-035"));
  EXPECT_TRUE(refusal("[[quantize]]\nweights = \"int8:channel\"\n"
                      "activations = \"int8:tensor:static\"\n")
                  .starts_with("QU-027"));
  o = with_ids(96);
  o.data.ids->front()[0] = 96;
  EXPECT_TRUE(refusal(plain, o).starts_with("CL-005"));
}

TEST(Apply, StatisticsServeOneStep) {
  const TemporaryFolder folder;
  Pool pool(1);
  const Log log = silent();
  Context context{pool, log};
  Calibration data;
  data.sequences = random_ids(small_model().spec.vocab);
  ApplyOptions o;
  o.data.name = "stats";
  o.data.statistics = folder / "stats";
  {
    StatisticsWriter writer(folder / "stats", small_model().spec, true, 36, "random");
    collect_statistics(
        small_model(), data, true, context,
        [&](const std::string& name, const InputStatistics& s) { writer.write(name, s); },
        [&](i64 block, const KvStatistics& s) { writer.write(block, s); });
    writer.finish();
  }
  const std::string step = "[[quantize]]\nweights = \"int4:g32\"\nmethod = \"gptq\"\n";
  EXPECT_TRUE(refusal(step + step, o).starts_with("QU-023"));
  apply(small_model(), parse_recipe("[[cast]]\nto = \"f32\"\n" + step, "r"), o, folder / "out",
        pool, log);
  EXPECT_TRUE(fs::exists(folder / "out"));
}

// ---- provenance ----

TEST(Apply, TheOutputSaysHowItWasMade) {
  const TemporaryFolder folder;
  Pool pool(1);
  const Recipe recipe = parse_recipe(three_steps, "/some/folder/r.toml");
  const ApplyOptions options = with_ids(small_model().spec.vocab);
  apply(small_model(), recipe, options, folder / "a", pool, silent());
  const Model a = load_model((folder / "a").string());
  ASSERT_EQ(a.provenance.size(), 1u);
  EXPECT_EQ(a.provenance[0].recipe, three_steps);
  EXPECT_EQ(a.provenance[0].base, identity(small_model(), silent()));
  EXPECT_EQ(a.provenance[0].version, PARE_VERSION);
  EXPECT_NE(a.provenance[0].data.find("at most 36 tokens"), std::string::npos);
  EXPECT_EQ(a.history.size(), 4u);  // made, then three steps
  EXPECT_EQ(to_json(a.provenance[0]).dump().find("/some"), std::string::npos);
  // A second recipe on top, then a copy.
  apply(a, parse_recipe("[[cast]]\nto = \"f32\"\n", "r"), {}, folder / "b", pool, silent());
  const Model b = load_model((folder / "b").string());
  ASSERT_EQ(b.provenance.size(), 2u);
  EXPECT_EQ(b.provenance[0], a.provenance[0]);
  EXPECT_EQ(b.provenance[1].base, identity(a, silent()));
  save_model(b, folder / "c", false, silent());
  EXPECT_EQ(load_model((folder / "c").string()).provenance, b.provenance);
}

TEST(Identity, IsOfTheModelAndNotOfItsPlace) {
  const TemporaryFolder folder;
  const Model m = random_model(tiny_spec(), 1, Code::f32);
  save_model(m, folder / "m", false, silent());
  EXPECT_EQ(identity(load_model((folder / "m").string()), silent()), identity(m, silent()));
  EXPECT_NE(identity(random_model(tiny_spec(), 2, Code::f32), silent()), identity(m, silent()));
  Model other = m;
  other.spec.blocks[0].attn.scale *= 2;
  EXPECT_NE(identity(other, silent()), identity(m, silent()));
}

}  // namespace
}  // namespace pare
