// Scales moved within blocks leave the function alone: on every family fixture and on every tiny
// Spec (shared caches, latents, companions, blocks without norms), with random scales in [1/4, 4]
// for all groups of all blocks at once.
//
// Tolerance. A scale changes no exponent by more than 2 and each weight by one rounding more, so
// what moves the logits is the order of rounding alone, as in engine/families_test.cpp: 1e-4 of
// max(1, |logit|).
#include "pass/quantize/block.h"

#include <set>

#include "engine/test_specs.h"
#include "engine/testing.h"
#include "pass/quantize/testing.h"

namespace pare {
namespace {

using Absorb = ScaleGroup::Absorb;
using testing::Ids;
using testing::NamedSpec;
constexpr double tolerance = 1e-4;
constexpr std::uint64_t seed = 77;

std::vector<float> logits(const Model& model, Pool& pool) {
  Random random(seed, 3);
  Ids ids(21);
  for (std::int32_t& id : ids)
    id = static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(model.spec.vocab)));
  Engine engine(model, pool, testing::options_with(isa_here(), Code::f32));
  return testing::logits_of(engine, ids);
}

void scale_everything(Model& model) {
  Random random(seed);
  for (i64 b = 0; b < static_cast<i64>(model.spec.blocks.size()); b++) {
    BlockValues values = block_values(model, b);
    for (const ScaleGroup& group : scale_groups(model.spec, b)) {
      const auto n =
          static_cast<std::size_t>(values.at(group.matrices.front() + ".weight").shape.back());
      const std::vector<float> s =
          shareable(model.spec, group, b, testing::random_scales(n, random));
      apply_scale(values, model.spec, group, b, s);
      note_stored(model.spec, group);
    }
    testing::put_values(model, values);
  }
}

void expect_same_function(const Model& original) {
  Pool pool(1);
  const Model before = testing::in_floats(original);
  Model after = before;
  scale_everything(after);
  check(after);
  const std::vector<float> want = logits(before, pool), got = logits(after, pool);
  float largest = 0;
  for (float x : want) largest = std::max(largest, std::abs(x));
  EXPECT_GT(largest, 0.05f) << "a model that says nothing tests nothing";
  EXPECT_LT(testing::difference(got, want), tolerance);
}

std::vector<std::string> folders() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(fixture("families")))
    if (std::filesystem::exists(entry.path() / "expected.safetensors"))
      names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

class FamilyScales : public ::testing::TestWithParam<std::string> {};
TEST_P(FamilyScales, LeaveTheLogitsUnchanged) {
  expect_same_function(load_model((fixture("families") / GetParam()).string()));
}
INSTANTIATE_TEST_SUITE_P(All, FamilyScales, ::testing::ValuesIn(folders()),
                         [](const auto& row) { return row.param; });

std::vector<NamedSpec> specs() {
  std::vector<NamedSpec> all = testing::all_specs();
  for (Act act : {Act::relu, Act::relu2})
    all.push_back({act == Act::relu ? "ungated_relu" : "ungated_relu2",
                   testing::each_block(testing::llama_like(), [&](Block& b) {
                     b.ffn.gated = false;
                     b.ffn.gate = {};
                     b.ffn.act = act;
                     b.ffn.up.bias = true;
                   })});
  all.push_back({"latents_without_norms", testing::each_block(testing::latent(6, 9), [](Block& b) {
                   b.attn.q_down_norm.reset();
                   b.attn.kv_down_norm.reset();
                   b.attn.kv_down.bias = b.attn.q_down.bias = true;
                 })});
  return all;
}

class SpecScales : public ::testing::TestWithParam<NamedSpec> {};
TEST_P(SpecScales, LeaveTheLogitsUnchanged) {
  expect_same_function(random_model(GetParam().spec, seed, Code::f32));
}
TEST_P(SpecScales, EveryMatrixIsInOneGroupUnlessItsInputsAreRotated) {
  const Spec& spec = GetParam().spec;
  std::multiset<std::string> seen;
  std::set<std::string> barred;
  for (i64 b = 0; b < static_cast<i64>(spec.blocks.size()); b++)
    for (const ScaleGroup& group : scale_groups(spec, b)) {
      ASSERT_FALSE(group.matrices.empty());
      EXPECT_EQ(group.input, group.matrices.front());
      EXPECT_EQ(group.source.empty(), group.absorb == Absorb::stored);
      seen.insert(group.matrices.begin(), group.matrices.end());
    }
  for (const auto& [name, linear] : linears(spec)) {
    if (name == "head") continue;
    EXPECT_LE(seen.count(name), 1u) << name;
    if (linear->rotation > 0) {
      EXPECT_EQ(seen.count(name), 0u) << name;
    }
  }
  if (GetParam().name.find("companions") == std::string::npos) {
    EXPECT_EQ(seen.size() + 1, linears(spec).size());
  }
}
INSTANTIATE_TEST_SUITE_P(All, SpecScales, ::testing::ValuesIn(specs()),
                         [](const auto& row) { return row.param.name; });

std::string told(const Spec& spec, i64 block) {
  static constexpr const char* words[] = {"norm", "rows", "heads", "stored"};
  std::string text;
  for (const ScaleGroup& g : scale_groups(spec, block)) {
    for (const std::string& m : g.matrices) text += m.substr(m.rfind('.') + 1) + " ";
    text += std::string("<- ") + words[static_cast<int>(g.absorb)] +
            (g.source.empty() ? "" : " " + g.source.substr(g.source.find('.', 7) + 1)) + "; ";
  }
  return text;
}

Spec family(const char* name) { return spec_of_folder(fixture("families") / name); }

TEST(ScaleGroups, AreThoseOfTheArchitecture) {
  const std::string llama =
      "q k v <- norm before_attn; o <- heads attn.v; gate up <- norm before_ffn; "
      "down <- rows ffn.up; ";
  EXPECT_EQ(told(family("llama2"), 0), llama);
  EXPECT_EQ(told(family("llama_gqa"), 1), llama);
  EXPECT_EQ(told(family("gemma2"), 0), llama);
  EXPECT_EQ(told(family("qwen3"), 0), llama);
  EXPECT_EQ(told(family("gpt2"), 0),
            "q k v <- norm before_attn; o <- heads attn.v; up <- norm before_ffn; "
            "down <- stored; ");
  EXPECT_EQ(told(family("gptj"), 0),
            "q k v up <- norm before_attn; o <- heads attn.v; down <- stored; ");
  EXPECT_EQ(told(family("deepseek_v3"), 0),
            "q_down kv_down <- norm before_attn; q <- norm attn.q_down_norm; "
            "k v <- norm attn.kv_down_norm; o <- heads attn.v; gate up <- norm before_ffn; "
            "down <- rows ffn.up; ");
  EXPECT_EQ(told(family("deepseek_v2_noq"), 0),
            "q kv_down <- norm before_attn; k v <- norm attn.kv_down_norm; o <- heads attn.v; "
            "gate up <- norm before_ffn; down <- rows ffn.up; ");
}

TEST(ScaleGroups, OfBlocksThatShareKeysAndValuesDoNotTouchV) {
  const Spec shared =
      testing::changed(testing::llama_like(3), [](Spec& s) { s.blocks[1].attn.kv_from = 0; });
  const std::string ffn = "gate up <- norm before_ffn; down <- rows ffn.up; ";
  EXPECT_EQ(told(shared, 0), "q k v <- norm before_attn; o <- stored; " + ffn);
  EXPECT_EQ(told(shared, 1), "q <- norm before_attn; o <- stored; " + ffn);
  EXPECT_EQ(told(shared, 2), "q k v <- norm before_attn; o <- heads attn.v; " + ffn);
}

TEST(ScaleGroups, AreCalledAsTheStatisticsCallTheirInputs) {
  for (const NamedSpec& named : specs())
    for (i64 b = 0; b < static_cast<i64>(named.spec.blocks.size()); b++)
      for (const ScaleGroup& group : scale_groups(named.spec, b))
        for (const std::string& m : group.matrices)
          EXPECT_EQ(input_name(named.spec, m), group.input) << named.name << " " << m;
}

TEST(Shareable, AveragesOverTheQueryHeadsOfAKeyHead) {
  Spec spec = testing::llama_like();
  for (Block& b : spec.blocks) b.attn.heads = 4, b.attn.kv_heads = 2, b.attn.v_dim = 3;
  testing::set_shapes(spec);
  const std::vector<ScaleGroup> groups = scale_groups(spec, 0);
  ASSERT_EQ(groups[1].absorb, Absorb::heads);
  const std::vector<float> s = {1, 2, 3, 3, 4, 7, /**/ 10, 20, 30, 10, 40, 50};
  EXPECT_EQ(shareable(spec, groups[1], 0, s),
            (std::vector<float>{2, 3, 5, 2, 3, 5, 10, 30, 40, 10, 30, 40}));
}

TEST(Shareable, NumbersThatAreNoScalesBecomeOne) {
  const Spec spec = testing::llama_like();
  const ScaleGroup group = scale_groups(spec, 0)[0];
  const float inf = INFINITY;
  EXPECT_EQ(shareable(spec, group, 0, {2, NAN, inf, -inf, 0, -3, 1e-45f, 0.5f}),
            (std::vector<float>{2, 1, 1, 1, 1, 1, 1, 0.5f}));
}

}  // namespace
}  // namespace pare
