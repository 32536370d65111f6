// Each sentence of advice: where it is said, with its figures, and where it is not.
#include "cost/advice.h"

#include <gtest/gtest.h>

#include "cost/compare.h"
#include "model/model.h"

namespace pare {
namespace {

const Hardware& machine(const char* name) { return find_hardware(known_hardware(), name); }

Spec blocks_in(Spec spec, const char* scheme, const char* activation = "none") {
  for (auto& [name, linear] : linears(spec))
    if (name != "head") {
      linear->scheme = parse_scheme(scheme);
      linear->activation = parse_activation(activation);
    }
  return spec;
}

Use use_of(i64 batch, i64 context, const char* kv = "f16") {
  Use use;
  use.batch = batch;
  use.context = context;
  use.kv = parse_kv_scheme(kv);
  return use;
}

// The sentence of a topic; empty when it is not said.
std::string said(const char* topic, const Spec& spec, const Hardware& h, const Use& use) {
  std::string text;
  for (const Advice& a : advise(spec, h, use, predict(spec, h, use)))
    if (a.topic == topic) text = a.text;
  return text;
}
bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// A machine as `pare roof` measures one.
Hardware measured_machine() {
  Hardware h;
  h.name = "mine";
  h.kind = "cpu";
  h.memory_bytes = 16e9;
  h.bytes_per_second = 30e9;
  h.cache_bytes = 200e6;
  h.measured = true;
  h.rate = {{"f32", 400e9}, {"bf16", 800e9}, {"int8", 1600e9}};
  return h;
}

TEST(Advice, NothingIsSaidOfAPlainChoice) {
  const Spec spec = known_spec("llama-3-8b");
  EXPECT_TRUE(advise(spec, machine("h100"), use_of(1, 2048),
                     predict(spec, machine("h100"), use_of(1, 2048)))
                  .empty());
}

TEST(Advice, FourBitsAtALargeBatch) {
  const Spec four = blocks_in(known_spec("llama-3-8b"), "int4:tensor");
  const Hardware& a100 = machine("a100");
  EXPECT_EQ(said("four-bits-at-batch", four, a100, use_of(64, 512)), "");
  const std::string text = said("four-bits-at-batch", four, a100, use_of(128, 512));
  EXPECT_TRUE(has(text, "A batch of 128")) << text;
  EXPECT_TRUE(has(text, "int8:channel with int8:token")) << text;
  // 76.5 for matrices alone; the head stays in 16 bits on both sides.
  EXPECT_TRUE(has(text, "From a batch of 77")) << text;
  EXPECT_EQ(said("four-bits-at-batch", blocks_in(four, "int4:tensor", "int8:token"), a100,
                 use_of(128, 512)),
            "");
  EXPECT_TRUE(has(said("four-bits-at-batch", four, machine("b300"), use_of(256, 512)),
                  "e4m3:channel with e4m3:token"));
}

TEST(Advice, IntegerInputsNeedUnits) {
  const Spec eight = blocks_in(known_spec("llama-3-8b"), "int8:channel", "int8:token");
  EXPECT_EQ(said("no-integer-units", eight, machine("h100"), use_of(1, 512)), "");
  const std::string slow = said("no-integer-units", eight, machine("b300"), use_of(1, 512));
  EXPECT_TRUE(has(slow, "int8 at 153.5 TFLOP/s, 15 times slower")) << slow;
  EXPECT_TRUE(has(slow, "e4m3:channel with e4m3:token")) << slow;
  const std::string none = said("no-integer-units", eight, machine("tpu7x"), use_of(1, 512));
  EXPECT_TRUE(has(none, "no units for integers")) << none;
}

TEST(Advice, Float8InputsNeedUnits) {
  const Spec fp8 = blocks_in(known_spec("llama-3-8b"), "e4m3:channel", "e4m3:token");
  EXPECT_EQ(said("no-float8-units", fp8, machine("h100"), use_of(1, 512)), "");
  EXPECT_TRUE(has(said("no-float8-units", fp8, machine("a100"), use_of(1, 512)),
                  "int8:channel with int8:token"));
}

TEST(Advice, CodesThatRunWiderThanTheyAreStored) {
  const Spec three = blocks_in(known_spec("llama-3.2-1b"), "int3:g128");
  const std::string text = said("runs-wider", three, measured_machine(), use_of(1, 512));
  EXPECT_TRUE(has(text, "int3:g128 is stored in 3.12 bits")) << text;
  EXPECT_TRUE(has(text, "reads it in 4.")) << text;
  EXPECT_EQ(said("runs-wider", three, machine("h100"), use_of(1, 512)), "");
  EXPECT_EQ(said("runs-wider", blocks_in(three, "int4:g128"), measured_machine(), use_of(1, 512)),
            "");
}

TEST(Advice, WeightsInTheCache) {
  Spec small = known_spec("smollm2-135m");
  EXPECT_EQ(said("fits-in-cache", small, measured_machine(), use_of(1, 512)), "");
  small = blocks_in(small, "int4:g32");
  EXPECT_TRUE(has(said("fits-in-cache", small, measured_machine(), use_of(1, 512)), "200 MB"));
  EXPECT_EQ(said("fits-in-cache", small, machine("h100"), use_of(1, 512)), "");
}

TEST(Advice, TheCacheLimitsConcurrencyAfterFourBits) {
  const Spec four = blocks_in(known_spec("llama-3-8b"), "int4:g128");
  const std::string text = said("cache-limits", four, machine("h100"), use_of(1, 8192));
  const Use wide = use_of(1, 8192), packed = use_of(1, 8192, "int8");
  const Hardware& h100 = machine("h100");
  const std::string figures = fmt::format(
      "{} with weights in 16 bits, {} now, {} with --kv int8",
      predict(known_spec("llama-3-8b"), h100, wide).largest_batch,
      predict(four, h100, wide).largest_batch, predict(four, h100, packed).largest_batch);
  EXPECT_TRUE(has(text, figures)) << text << " / " << figures;
  EXPECT_EQ(said("cache-limits", four, h100, packed), "") << "the cache is packed";
  EXPECT_EQ(said("cache-limits", known_spec("llama-3-8b"), h100, wide), "");
}

TEST(Advice, CacheLargerThanWeights) {
  const Spec spec = known_spec("llama-2-7b");
  EXPECT_EQ(said("cache-over-weights", spec, machine("h200"), use_of(1, 4096)), "");
  const std::string text = said("cache-over-weights", spec, machine("h200"), use_of(16, 4096));
  EXPECT_TRUE(has(text, "The cache (34.4 GB) is larger than the weights (13.5 GB)")) << text;
  EXPECT_TRUE(has(text, "--kv int8 makes it 17.7 GB")) << text;
  EXPECT_TRUE(has(text, "--kv int4:g32:asym makes it 10.7 GB")) << text;
}

TEST(Advice, WhatDoesNotFit) {
  const Spec spec = known_spec("llama-3-70b");
  const std::string weights = said("does-not-fit", spec, machine("h100"), use_of(1, 2048));
  EXPECT_TRUE(has(weights, "141 GB of weights")) << weights;
  EXPECT_TRUE(has(weights, "72.0 GB can be used")) << weights;
  EXPECT_TRUE(has(weights, "8.2 bits each at most")) << weights;
  const Spec small = known_spec("llama-3-8b");
  const std::string batch = said("does-not-fit", small, machine("h100"), use_of(1000, 2048));
  const i64 most = largest_batch(small, machine("h100"), use_of(1000, 2048));
  EXPECT_TRUE(has(batch, fmt::format("A batch of {} would.", most))) << batch;
  EXPECT_EQ(said("does-not-fit", small, machine("h100"), use_of(most, 2048)), "");
  EXPECT_NE(said("does-not-fit", small, machine("h100"), use_of(most + 1, 2048)), "");
}

TEST(Advice, ZerosThatNothingSkips) {
  Spec spec = known_spec("llama-3-8b");
  EXPECT_EQ(
      said("zeros-not-skipped", blocks_in(spec, "int8:channel"), machine("h100"), use_of(1, 9)),
      "");
  EXPECT_TRUE(has(said("zeros-not-skipped", blocks_in(spec, "int8:channel:2of4"), machine("h100"),
                       use_of(1, 9)),
                  "int8:channel:2of4"));
}

TEST(Advice, LargeHeads) {
  const Hardware& h = machine("h100");
  EXPECT_EQ(said("large-head", known_spec("llama-3-70b"), h, use_of(1, 512)), "");
  const Spec four = blocks_in(known_spec("llama-3.2-1b"), "int4:g128");
  const std::string larger = said("large-head", four, h, use_of(1, 512));
  EXPECT_TRUE(has(larger, "The output matrix (525 MB) is larger than all blocks together (502 MB)"))
      << larger;
  EXPECT_TRUE(has(larger, "--head int8:channel makes it 263 MB")) << larger;
  const std::string share = said("large-head", known_spec("llama-3.2-1b"), h, use_of(1, 512));
  EXPECT_TRUE(has(share, "21 % of the 2.47 GB")) << share;
  Spec eight = four;
  eight.head.scheme = parse_scheme("int8:channel");
  EXPECT_TRUE(
      has(said("large-head", eight, h, use_of(1, 512)), "A smaller vocabulary than 128256"));
}

TEST(Advice, WindowsThatNeverBite) {
  const Spec spec = known_spec("gemma-2-2b");
  const std::string text = said("idle-window", spec, machine("h100"), use_of(1, 2048));
  EXPECT_TRUE(has(text, "the window of 4096 never bites (13 of 13 blocks with one)")) << text;
  EXPECT_EQ(said("idle-window", spec, machine("h100"), use_of(1, 5000)), "");
  EXPECT_EQ(said("idle-window", known_spec("llama-3-8b"), machine("h100"), use_of(1, 2048)), "");
}

TEST(Advice, ContextsBeyondThePositions) {
  const Spec spec = known_spec("llama-2-7b");
  EXPECT_EQ(said("beyond-positions", spec, machine("h100"), use_of(1, 4096)), "");
  EXPECT_TRUE(has(said("beyond-positions", spec, machine("h100"), use_of(1, 4097)),
                  "A context of 4097 is beyond the 4096 positions"));
}

TEST(Fit, LargestContextIsTheLastThatFits) {
  const Spec spec = known_spec("llama-3.2-1b");
  Hardware h = measured_machine();
  h.memory_bytes = 4e9;
  Use use = use_of(1, 128);
  const i64 most = largest_context(spec, h, use);
  ASSERT_GT(most, 0);
  ASSERT_LT(most, spec.max_positions);
  use.context = most;
  EXPECT_TRUE(predict(spec, h, use).fits);
  use.context = most + 1;
  EXPECT_FALSE(predict(spec, h, use).fits);
  EXPECT_EQ(largest_context(spec, machine("h200"), use), spec.max_positions);
  h.memory_bytes = 1e9;
  EXPECT_EQ(largest_context(spec, h, use), 0);
  EXPECT_EQ(largest_batch(spec, h, use), 0);
}

TEST(Compare, FormatsCrossWhereTheirRooflinesDo) {
  const Hardware& a100 = machine("a100");
  const auto sums = [&](const char* scheme, const char* activation) {
    Spec spec = blocks_in(known_spec("llama-2-7b"), scheme, activation);
    spec.head.scheme = parse_scheme(scheme);
    spec.head.activation = parse_activation(activation);
    return step_products(spec, a100);
  };
  const StepProducts bf16 = sums("bf16", "none"), w4 = sums("int4:tensor", "none"),
                     w8 = sums("int8:tensor", "none"), w8a8 = sums("int8:tensor", "int8:token");
  const Faster four = faster(w4, bf16, a100, 0);
  EXPECT_EQ(*four.from, 1);
  EXPECT_NEAR(*four.until, ridge(a100, "bf16"), 0.5);  // 153
  EXPECT_NEAR(*faster(w8a8, w4, a100, 0).from, 76.5, 0.2);
  EXPECT_NEAR(*faster(w4, w8a8, a100, 0).until, 76.5, 0.2);
  EXPECT_NEAR(*faster(w8a8, w8, a100, 0).from, ridge(a100, "bf16") / 2, 0.2);
  EXPECT_FALSE(faster(w8a8, bf16, a100, 0).until.has_value());
  EXPECT_FALSE(faster(bf16, w4, a100, 0).from.has_value());
  EXPECT_EQ(to_string(four), "to batch 152");
  EXPECT_EQ(to_string(faster(w8a8, w4, a100, 0)), "from batch 77");
  EXPECT_EQ(to_string(faster(w8a8, bf16, a100, 0)), "always");
  EXPECT_EQ(to_string(faster(bf16, w4, a100, 0)), "never");
}

TEST(Compare, SchemesOfBlocksByShare) {
  Spec spec = blocks_in(known_spec("llama-2-7b"), "int4:g128");
  for (Block& b : spec.blocks) b.attn.v.scheme = parse_scheme("int8:channel");
  const std::vector<SchemeShare> list = block_schemes(spec);
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(to_string(list[0]), "int4:g128");
  EXPECT_NEAR(list[1].share, 4096.0 * 4096 / (4 * 4096.0 * 4096 + 3 * 4096.0 * 11008), 1e-12);
}

}  // namespace
}  // namespace pare
