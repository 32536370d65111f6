// Rules: which matrix gets which scheme, and that plan and run agree about it.
#include <algorithm>

#include "model/test_models.h"
#include "pass/quantize/quantize.h"

namespace pare {
namespace {

QuantizeOptions with_rules(const std::string& weights, const std::vector<std::string>& rules) {
  QuantizeOptions options;
  if (!weights.empty()) options.weights = parse_scheme(weights);
  for (const std::string& rule : rules) options.rules.push_back(parse_rule(rule));
  return options;
}

// "scheme", "scheme+activation", or "" for a matrix that stays as it is.
std::string choice_of(const QuantizeOptions& options, const std::string& name, bool tied = false) {
  const std::vector<Choice> choices = choose_matrices(tiny_spec(tied), options);
  const auto it =
      std::find_if(choices.begin(), choices.end(), [&](const Choice& c) { return c.name == name; });
  if (it == choices.end()) return "";
  std::string text = to_string(it->scheme);
  if (it->activation.per != Activation::Per::none) text += "+" + to_string(it->activation);
  return text;
}

TEST(Rules, TextFormGoesBothWays) {
  for (const char* text : {"blocks.*.attn.v=int8:channel+int8:token", "head=keep",
                           "*.ffn.*=+int8:token", "blocks.?.attn.q=int4:g128:s=uint8/f32x256"})
    EXPECT_EQ(to_string(parse_rule(text)),
              text == std::string("blocks.?.attn.q=int4:g128:s=uint8/f32x256")
                  ? "blocks.?.attn.q=" + to_string(parse_scheme("int4:g128:dq"))
                  : text);
  for (const char* text : {"blocks", "=int4:g32", "head=", "head=keep+int8:token", "head=int5:q3"})
    EXPECT_NE(error_of([&] { parse_rule(text); }), "") << text;
}

TEST(Rules, ALaterRuleWinsFieldByField) {
  const QuantizeOptions o =
      with_rules("int4:g32", {"blocks.*.ffn.*=int8:channel+int8:token", "*.ffn.down=nf4:g32",
                              "blocks.1.ffn.up=keep", "blocks.1.ffn.*=+int8:tensor"});
  EXPECT_EQ(choice_of(o, "blocks.0.attn.q"), "int4:g32");
  EXPECT_EQ(choice_of(o, "blocks.0.ffn.up"), "int8:channel+int8:token");
  EXPECT_EQ(choice_of(o, "blocks.0.ffn.down"), "nf4:g32+int8:token");
  EXPECT_EQ(choice_of(o, "blocks.1.ffn.up"), "");
  EXPECT_EQ(choice_of(o, "blocks.1.ffn.gate"), "int8:channel+int8:tensor");
  EXPECT_EQ(choice_of(o, "head"), "");
  EXPECT_EQ(choice_of(o, "embed"), "");
}

TEST(Rules, ReachHeadAndEmbeddingAndAreFiltered) {
  QuantizeOptions o = with_rules("", {"*=int8:channel", "embed=int4:g32"});
  o.skip = {"blocks.1.*"};
  EXPECT_EQ(choice_of(o, "embed"), "int4:g32");
  EXPECT_EQ(choice_of(o, "head"), "int8:channel");
  EXPECT_EQ(choice_of(o, "blocks.0.attn.o"), "int8:channel");
  EXPECT_EQ(choice_of(o, "blocks.1.attn.o"), "");
  o.only = {"blocks.0.ffn.*"};
  EXPECT_EQ(choice_of(o, "blocks.0.attn.o"), "");
  EXPECT_EQ(choice_of(o, "blocks.0.ffn.up"), "int8:channel");
  EXPECT_EQ(choice_of(o, "head"), "");
  EXPECT_EQ(choice_of(o, "embed"), "");
}

TEST(Rules, WhatHasNoEffectIsAnError) {
  EXPECT_EQ(
      error_of([&] { choice_of(with_rules("", {"blocks.7.*=int4:g32"}), "head"); }).substr(0, 6),
      "QU-001");
  EXPECT_EQ(error_of([&] {
              choice_of(with_rules("", {"head=int4:g32", "*.ffn.*=+int8:token"}), "x");
            }).substr(0, 6),
            "QU-004");
  EXPECT_EQ(error_of([&] { choice_of(with_rules("", {"head=keep"}), "x"); }).substr(0, 6),
            "QU-003");
}

TEST(Rules, RunEqualsPlan) {
  Pool pool(1);
  Log log = silent();
  Context context{pool, log};
  for (bool tied : {true, false})
    for (const QuantizeOptions& o :
         {with_rules("int4:g32", {"*.attn.v=int8:channel", "*.ffn.down=keep"}),
          with_rules("", {"*=int4:g32", "head=int8:channel+int8:token"}),
          with_rules("", {"embed=int8:channel"})}) {
      const Model model = random_model(tiny_spec(tied), 3, Code::bf16);
      const Pass pass = quantize_pass(o);
      const Model out = pass.run(model, context);
      EXPECT_EQ(out.spec, pass.plan(model.spec));
      check(out);
      EXPECT_NE(out.history.back().find("rule="), std::string::npos);
      for (const auto& [name, weight] : out.weights)
        EXPECT_EQ(weight.load().scheme, weight.scheme) << name;
    }
}

}  // namespace
}  // namespace pare
