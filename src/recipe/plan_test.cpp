// Words of plans, and that everything a Spec can say is planned.
#include "recipe/plan.h"

#include <gtest/gtest.h>

#include "cost/advice.h"
#include "cost/compare.h"
#include "engine/test_specs.h"
#include "model/model.h"

namespace pare {
namespace {

std::string code_of(const std::string& words) {
  try {
    parse_plan_words(words);
  } catch (const Error& e) {
    return e.code;
  }
  return "";
}

TEST(PlanWords, ShorthandsStandForSchemes) {
  const QuantizeOptions o = parse_plan_words("w8a8+kv8");
  EXPECT_EQ(to_string(*o.weights), "int8:channel");
  EXPECT_EQ(to_string(o.activations), "int8:token");
  EXPECT_EQ(to_string(*o.kv), "int8");
  EXPECT_EQ(to_string(*parse_plan_words("w4").weights), "int4:g128");
  EXPECT_FALSE(parse_plan_words("kv4").weights.has_value());
  for (const std::string& word : plan_words()) EXPECT_EQ(code_of(word), "") << word;
}

TEST(PlanWords, AnySchemeIsAWord) {
  const QuantizeOptions o =
      parse_plan_words("int4:g64:asym+e4m3:token+kv=int4:asym:k=channel+head=int8:channel");
  EXPECT_EQ(to_string(*o.weights), "int4:g64:asym");
  EXPECT_EQ(to_string(o.activations), "e4m3:token");
  EXPECT_EQ(to_string(*o.kv), "int4:asym:k=channel");
  EXPECT_EQ(to_string(*o.head), "int8:channel");
}

TEST(PlanWords, WhatIsNoneIsRefused) {
  EXPECT_EQ(code_of("w5"), "PN-001");
  EXPECT_EQ(code_of(""), "PN-001");
  EXPECT_EQ(code_of("w8+"), "PN-001");
  EXPECT_EQ(code_of("int8:token"), "PN-001") << "inputs alone";
  EXPECT_EQ(code_of("w4+w8"), "PN-002");
  EXPECT_EQ(code_of("w4+int8:channel"), "PN-002");
  EXPECT_EQ(code_of("w8a8+int8:token"), "PN-002");
  EXPECT_EQ(code_of("kv8+kv=int8"), "PN-002");
  EXPECT_EQ(code_of("kv=int9"), "SC-001");
}

TEST(PlanWords, PlannedSpecs) {
  const Spec base = known_spec("llama-2-7b");
  const Spec spec = planned(base, "w4+kv8+head=int8:channel");
  EXPECT_EQ(to_string(spec.blocks[3].ffn.down.scheme), "int4:g128");
  EXPECT_EQ(to_string(spec.head.scheme), "int8:channel");
  EXPECT_EQ(spec.embed, base.embed);
  EXPECT_EQ(to_string(*spec.kv), "int8");
}

// Every attention variant is planned, and the figures hang together.
TEST(Plan, EverySpecCanBePlanned) {
  Hardware mine;
  mine.name = "mine";
  mine.kind = "cpu";
  mine.memory_bytes = 16e9;
  mine.bytes_per_second = 30e9;
  mine.measured = true;
  mine.rate = {{"f32", 400e9}, {"int8", 1600e9}};
  for (const testing::NamedSpec& named : testing::all_specs())
    for (const Hardware& h : {find_hardware(known_hardware(), "h100"), mine})
      for (i64 context : {1, 40}) {
        const Use use = Use{3, 16, context, {}, 0};
        const Prediction p = predict(named.spec, h, use);
        EXPECT_TRUE(p.fits) << named.name;
        EXPECT_GT(p.seconds_per_token, 0) << named.name;
        EXPECT_GT(p.largest_batch, 1000) << named.name;
        EXPECT_LE(p.mbu, 1 + 1e-9) << named.name;
        EXPECT_LE(p.mfu, 1 + 1e-9) << named.name;
        const double looked_up = 3.0 * 8 * static_cast<double>(named.spec.dim);
        if (!h.measured) {  // whose layout pads tiny matrices
          EXPECT_LE(p.decode.count.weight_bytes, p.memory.weights + looked_up) << named.name;
        }
        const StepProducts products = step_products(named.spec, h);
        EXPECT_LE(products_seconds(products, h, 3, 0), p.seconds_per_token * (1 + 1e-9))
            << named.name;
        advise(named.spec, h, use, p);
      }
}

}  // namespace
}  // namespace pare
