// FLOPs and bytes of the cost model equal those of an instrumented run, for every tiny Spec and
// several schemes of weights and caches.
#include "engine/tally.h"

#include <gtest/gtest.h>

#include "cost/count.h"
#include "engine/test_specs.h"
#include "engine/testing.h"

namespace pare {
namespace {

class Tallies : public ::testing::TestWithParam<testing::NamedSpec> {};
INSTANTIATE_TEST_SUITE_P(All, Tallies, ::testing::ValuesIn(testing::all_specs()),
                         [](const auto& i) { return i.param.name; });

void run(Engine& engine, const Load& load, std::vector<KvCache>& caches, i64 tokens) {
  std::vector<Input> inputs;
  const std::vector<std::int32_t> ids(static_cast<std::size_t>(tokens), 3);
  for (KvCache& cache : caches) inputs.push_back({&cache, ids});
  engine.step(inputs, load.all_logits ? Want::all : Want::last);
}

void compare(const Model& model, const KvScheme& kv, Load load) {
  Pool pool(2);
  EngineOptions options = testing::options_with(isa_here());
  options.kv = kv;
  Engine engine(model, pool, options);
  load.kv = kv;
  load.packed = true;
  std::vector<KvCache> caches;
  for (i64 b = 0; b < load.batch; b++) caches.push_back(engine.make_cache(40));
  if (load.context > 0) run(engine, load, caches, load.context);
  Tally tally;
  engine.count(&tally);
  run(engine, load, caches, load.tokens);
  const Count count = sum(operations(engine.spec(), load));
  EXPECT_EQ(count.flops, 2.0 * static_cast<double>(tally.multiply_adds));
  if (isa_here() != isa_scalar) {  // which multiplies what is stored
    EXPECT_EQ(count.weight_bytes, static_cast<double>(tally.weight_bytes));
  }
  // With a scheme that waits, a long step reads some positions in both forms; the model counts the
  // one that stays.
  if (!kv.waits() || load.tokens == 1) {
    EXPECT_EQ(count.kv_read_bytes, static_cast<double>(tally.kv_read_bytes));
  }
  if (!kv.waits()) {
    EXPECT_EQ(count.kv_write_bytes, static_cast<double>(tally.kv_write_bytes));
  }
}

TEST(TalliesOfSchemes, EqualTheCostModel) {
  for (const char* scheme : {"f32", "int8:channel", "int4:g32", "int4:g32:asym", "int3:g16",
                             "nf4:g64:dq", "e4m3:channel", "q4_k", "int5:g32"}) {
    SCOPED_TRACE(scheme);
    Spec spec = testing::llama_like(2, 256, 64, 512);
    for (auto& [name, linear] : linears(spec)) linear->scheme = parse_scheme(scheme);
    if (spec.tied) spec.embed = parse_scheme(scheme);
    Load load;
    load.batch = 2;
    load.context = 5;
    compare(random_model(spec, 3, Code::f32), Code::f16, load);
  }
}

TEST_P(Tallies, EqualTheCostModel) {
  const Model model = random_model(GetParam().spec, 3, Code::bf16);
  struct Case {
    i64 batch, tokens, context;
    bool all_logits = false;
  };
  for (const Case& c :
       {Case{1, 1, 0}, {1, 1, 17}, {3, 1, 9}, {1, 11, 0}, {1, 7, 13}, {2, 5, 4}, {2, 5, 4, true}}) {
    Load load;
    load.batch = c.batch;
    load.tokens = c.tokens;
    load.context = c.context;
    load.all_logits = c.all_logits;
    SCOPED_TRACE(
        fmt::format("batch {}, tokens {}, context {}", load.batch, load.tokens, load.context));
    for (const char* kv : {"f16", "int8", "int4:k=channel/8"}) {
      SCOPED_TRACE(kv);
      // Latents that lie in two forms are expanded in both, where they are expanded.
      const bool expands = load.tokens > 1 || GetParam().name == "latent_companions";
      if (parse_kv_scheme(kv).waits() && expands && GetParam().spec.blocks[0].attn.mla()) continue;
      compare(model, parse_kv_scheme(kv), load);
    }
  }
}

}  // namespace
}  // namespace pare
