// Recipes: what each key does, and that whatever is wrong is refused with its line.
#include "recipe/recipe.h"

#include "model/test_models.h"

namespace pare {
namespace {

const QuantizeOptions& quantize_step(const Recipe& recipe, std::size_t i) {
  return std::get<QuantizeOptions>(recipe.steps.at(i).options);
}

TEST(Recipe, StepsAndRulesComeInTheOrderOfTheFile) {
  const Recipe r = parse_recipe(R"(about = "all keys"
[[quantize]]
weights = "int4:g128"
activations = "int8:token"
head = "int8:channel"
embedding = "int8:channel"
kv = "int8:k=channel:window=64"
range = "percentile"
percentile = 99
only = ["blocks.*", "head"]
skip = "blocks.0.*"

[[rule]]
pattern = ["*.attn.v", "*.attn.k"]
scheme = "int8:channel"
[[rule]]
pattern = '*.ffn.down'
scheme = "keep"
[[cast]]
to = "bf16"
[[quantize]]
weights = "nf4:g64"
[[rule]]
pattern = "head"
scheme = "e4m3:channel"
activations = "e4m3:token"
)",
                                "all.toml");
  EXPECT_EQ(r.about, "all keys");
  ASSERT_EQ(r.steps.size(), 3u);
  const QuantizeOptions& o = quantize_step(r, 0);
  EXPECT_EQ(o.weights, parse_scheme("int4:g128"));
  EXPECT_EQ(o.activations, parse_activation("int8:token"));
  EXPECT_EQ(o.head, parse_scheme("int8:channel"));
  EXPECT_EQ(o.embedding, parse_scheme("int8:channel"));
  EXPECT_EQ(o.fit.range, Range::percentile);
  EXPECT_EQ(o.fit.percentile, 99);
  EXPECT_EQ(o.only, (std::vector<std::string>{"blocks.*", "head"}));
  EXPECT_EQ(o.skip, (std::vector<std::string>{"blocks.0.*"}));
  ASSERT_EQ(o.rules.size(), 3u);
  EXPECT_EQ(to_string(o.rules[0]), "*.attn.v=int8:channel");
  EXPECT_EQ(to_string(o.rules[1]), "*.attn.k=int8:channel");
  EXPECT_EQ(to_string(o.rules[2]), "*.ffn.down=keep");
  EXPECT_EQ(o.rules[2].where, "all.toml line 17: rule");
  EXPECT_EQ(std::get<CastOptions>(r.steps[1].options).to, Code::bf16);
  EXPECT_EQ(r.steps[2].line, 21);
  EXPECT_EQ(to_string(quantize_step(r, 2).rules.at(0)), "head=e4m3:channel+e4m3:token");
}

TEST(Recipe, RulesAloneAreAStep) {
  const Recipe r = parse_recipe("[[rule]]\npattern = \"*\"\nscheme = \"int4:g32\"\n", "r");
  ASSERT_EQ(r.steps.size(), 1u);
  EXPECT_FALSE(quantize_step(r, 0).weights);
  EXPECT_EQ(quantize_step(r, 0).rules.size(), 1u);
}

// The error of a recipe: its code, and that it names the line.
void expect_refused(const std::string& text, const std::string& code, int line) {
  const std::string error = error_of([&] { parse_recipe(text, "bad.toml"); });
  EXPECT_EQ(error.substr(0, code.size()), code) << text << "\n" << error;
  EXPECT_NE(error.find("bad.toml"), std::string::npos) << error;
  const std::string place = line > 0 ? fmt::format("line {}", line) : "";
  EXPECT_NE(error.find(place), std::string::npos) << text << error;
}

TEST(Recipe, WhatIsWrongIsRefusedWithItsLine) {
  expect_refused("", "RC-005", 0);
  expect_refused("[[quantize]\n", "RC-001", 1);
  expect_refused("[[quantize]]\nweights = \"int4:g128\"\nweights = \"int8:channel\"\n", "RC-001",
                 3);
  expect_refused("[[quantise]]\n", "RC-002", 1);
  expect_refused("\n[[quantize]]\nweigths = \"int4:g128\"\n", "RC-002", 3);
  expect_refused("[[rule]]\npatern = \"*\"\n", "RC-002", 2);
  expect_refused("[[cast]]\nto = \"bf16\"\nweights = \"bf16\"\n", "RC-002", 3);
  expect_refused("[[quantize]]\nweights = 4\n", "RC-003", 2);
  expect_refused("[[quantize]]\nonly = []\n", "RC-003", 2);
  expect_refused("[[quantize]]\nonly = [\"a\",\n 3]\n", "RC-003", 3);
  expect_refused("quantize = 1\n", "RC-003", 1);
  expect_refused("quantize = [1]\n", "RC-003", 1);
  expect_refused("[[quantize]]\nrange = \"best\"\n", "RC-004", 2);
  expect_refused("[[quantize]]\nkv = \"int3\"\n", "SC-", 2);
  expect_refused("[[quantize]]\npercentile = 0\n", "RC-004", 2);
  expect_refused("[[quantize]]\nweights = \"int4:g0\"\n", "SC-", 2);
  expect_refused("[[rule]]\nscheme = \"int4:g32\"\n", "RC-004", 1);
  expect_refused("\n[[rule]]\npattern = \"*\"\n", "RC-004", 2);
  expect_refused("[[rule]]\npattern = \"*\"\nscheme = \"keep\"\nactivations = \"int8:token\"\n",
                 "RC-004", 1);
  expect_refused("[[cast]]\n", "RC-004", 1);
  expect_refused("[[cast]]\nto = \"bf16\"\n[[rule]]\npattern = \"*\"\nscheme = \"keep\"\n",
                 "RC-004", 3);
}

TEST(Recipe, GatesDataAndIdleKeys) {
  const Recipe r = parse_recipe(
      "[gate]\nmax_kl = 0\nmin_speedup = 1.5\nmax_bytes = 4_000\n[data]\ntokens = 100\n"
      "length = 20\nseed = 7\n[[quantize]]\nweights = \"int4:g32\"\nmethod = \"awq\"\nclip = "
      "false\n",
      "r");
  EXPECT_EQ(r.gates, (Gates{0.0, 1.5, 4000}));
  EXPECT_EQ(r.data, (DataWish{100, 20, 7}));
  EXPECT_FALSE(quantize_step(r, 0).method.clip);
  const std::string step = "[[quantize]]\nweights = \"int4:g32\"\n";
  expect_refused("[gate]\nmax_lk = 1\n" + step, "RC-002", 2);
  expect_refused("[gate]\nmax_kl = -1\n" + step, "RC-004", 2);
  expect_refused("[gate]\nmax_kl = nan\n" + step, "RC-004", 2);
  expect_refused("[gate]\nmax_kl = \"1\"\n" + step, "RC-003", 2);
  expect_refused("[gate]\nmin_speedup = 0\n" + step, "RC-004", 2);
  expect_refused("[gate]\nmax_bytes = 0\n" + step, "RC-004", 2);
  expect_refused("[gate]\nmax_bytes = 1.5\n" + step, "RC-003", 2);
  expect_refused("[[gate]]\nmax_kl = 1\n" + step, "RC-003", 1);
  expect_refused("gate = 1\n" + step, "RC-003", 1);
  expect_refused("[gate]\nmax_kl = 1\n", "RC-005", 0);
  expect_refused("[data]\ntokens = 0\n" + step, "RC-004", 2);
  expect_refused("[data]\nlength = 1\n" + step, "RC-004", 2);
  expect_refused("[data]\nseed = -1\n" + step, "RC-004", 2);
  expect_refused("[data]\ntext = \"x\"\n" + step, "RC-002", 2);
  expect_refused(step + "damping = 0.1\n", "RC-004", 3);
  expect_refused(step + "act_order = \"none\"\n", "RC-004", 3);
  expect_refused(step + "polish = 1\n", "RC-004", 3);
  expect_refused(step + "method = \"gptq\"\npolish = -1\n", "RC-004", 4);
  expect_refused(step + "method = \"gptq\"\npolish = 1001\n", "RC-004", 4);
  expect_refused(step + "method = \"gptq\"\npolish = 1.5\n", "RC-003", 4);
  expect_refused(step + "clip = true\n", "RC-004", 3);
  expect_refused(step + "alpha = 0.5\n", "RC-004", 3);
  expect_refused(step + "threshold = 6\n", "RC-004", 3);
  expect_refused(step + "percentile = 99\n", "RC-004", 3);
  expect_refused(step + "method = \"awq\"\nclip = 1\n", "RC-003", 4);
}

TEST(Recipe, TextOfStepsIsReadBack) {
  const std::string text = R"(about = "all of \"it\" \\ café"

[gate]
max_kl = 0.05
min_speedup = 1.5
max_bytes = 4200000000

[data]
tokens = 100
length = 20
seed = 9223372036854775807

[[quantize]]
weights = "int4:g128"
activations = "int8:token"
head = "int8:channel"
embedding = "int8:channel"
kv = "int8:k=channel:window=64"
range = "percentile"
percentile = 99.5
method = "auto"
damping = 1e-05
act_order = "none"
polish = 2
clip = false
only = ["blocks.*", "head"]
skip = ["blocks.\"0\".*"]

[[rule]]
pattern = "*.attn.v"
scheme = "int8:channel"
activations = "int8:token"

[[rule]]
pattern = "head"
scheme = "keep"

[[cast]]
to = "bf16"

[[quantize]]
kv = "e4m3"
range = "absmax"

[[quantize]]
weights = "int8:channel"
method = "smoothquant"
alpha = 0

[[quantize]]
weights = "int8:channel"
method = "llm-int8"
threshold = 5.5
)";
  const Recipe r = parse_recipe(text, "r");
  EXPECT_EQ(recipe_text(r.steps, r.gates, r.data, r.about), text);
  EXPECT_EQ(r.text, text);
}

TEST(Recipe, FilesGoBeforeReadyRecipes) {
  EXPECT_EQ(find_recipe("w8").source, "w8");
  EXPECT_EQ(error_of([] { find_recipe("w9"); }).substr(0, 6), "RC-007");
  EXPECT_EQ(error_of([] { find_recipe("./w8"); }).substr(0, 3), "IO-");
  EXPECT_EQ(error_of([] { find_recipe("none.toml"); }).substr(0, 3), "IO-");
}

TEST(Recipe, HostileTextIsRefusedBeforeItIsParsed) {
  std::string dots = "a";
  for (int i = 0; i < 200000; i++) dots += ".a";
  expect_refused(dots + " = 1\n", "RC-006", 1);
  expect_refused("x = { " + dots + " = 1 }\n", "RC-006", 1);
  expect_refused("about = \"\"\"\n" + dots + "\"\"\"\n", "RC-006", 1);
  expect_refused("about = \"a\\\"b\" # ''' \n[[" + dots + "]]\n", "RC-006", 2);
  expect_refused(std::string((1 << 20) + 1, '#'), "RC-006", 0);
  expect_refused("x = " + std::string(100000, '[') + "\n", "RC-001", 1);
  // toml++ 3.3 does not survive these.
  for (const char* text : {"\xef\xbb\xaf.", "a\xc3\xa9 = 1\n", "a = 1 \xe2\xba\x80\n"})
    expect_refused(text, "RC-001", 1);
  for (const char* text : {"[[\n#", "[=", "[[quantize]]\n[(\n"}) expect_refused(text, "RC-001", 0);
  expect_refused("about = 1\"caf\xc3\xa9\"\n[[cast]]\nto='f32'\n", "RC-001", 1);
  expect_refused("about = \"\xff\"\n", "RC-001", 0);
  expect_refused("\nabout = \"\\\xc3\xa9\"\n", "RC-001", 2);
  const Recipe r = parse_recipe(
      "\xef\xbb\xbf"
      "about = \"caf\xc3\xa9 \\\\\xf0\x9f\x99\x82\" # \xc3\xa9\n[[cast]]\nto='f32'\n",
      "r");
  EXPECT_EQ(r.about, "caf\xc3\xa9 \\\xf0\x9f\x99\x82");
  // Dots inside of quotes are text.
  EXPECT_NO_THROW(
      parse_recipe("about = \"" + std::string(100, '.') + "\"\n[[cast]]\nto='f32'\n", "r"));
}

TEST(Recipe, PatternsThatMatchNothingNameTheirLine) {
  const Recipe rules =
      parse_recipe("[[rule]]\npattern = \"blocks.9.*\"\nscheme = \"int4:g32\"\n", "r.toml");
  const std::string a = error_of([&] { passes(rules)[0].plan(tiny_spec()); });
  EXPECT_EQ(a.substr(0, 6), "QU-001");
  EXPECT_NE(a.find("r.toml line 2: rule 'blocks.9.*'"), std::string::npos) << a;
  const Recipe only =
      parse_recipe("\n[[quantize]]\nweights=\"int4:g32\"\nskip = \"x\"\n", "r.toml");
  const std::string b = error_of([&] { passes(only)[0].plan(tiny_spec()); });
  EXPECT_NE(b.find("r.toml line 2"), std::string::npos) << b;
}

TEST(Recipe, RunEqualsPlan) {
  Pool pool(1);
  const Log log = silent();
  Context context{pool, log};
  const Recipe recipe = parse_recipe(R"([[quantize]]
weights = "int8:channel"
[[cast]]
to = "f16"
[[quantize]]
weights = "int4:g32"
kv = "int8"
[[rule]]
pattern = "*.attn.*"
scheme = "int8:channel"
[[rule]]
pattern = "blocks.1.*"
scheme = "keep"
)",
                                     "r.toml");
  for (bool tied : {true, false}) {
    Model model = random_model(tiny_spec(tied), 5, Code::bf16);
    Spec planned = model.spec;
    for (const Pass& pass : passes(recipe)) {
      planned = pass.plan(std::move(planned));
      model = pass.run(std::move(model), context);
      EXPECT_EQ(model.spec, planned) << pass.line;
    }
    check(model);
    EXPECT_EQ(model.history.size(), 4u);  // made, then three steps
    EXPECT_EQ(to_string(model.spec.blocks[0].attn.q.scheme), "int8:channel");
    EXPECT_EQ(to_string(model.spec.blocks[0].ffn.up.scheme), "int4:g32");
    EXPECT_EQ(to_string(model.spec.blocks[1].ffn.up.scheme), "f16");
  }
}

}  // namespace
}  // namespace pare
