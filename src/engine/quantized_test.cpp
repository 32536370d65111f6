// Quantized weights and activations through the whole forward pass.
//
// RefOps decodes the same planes and multiplies in double, so CpuOps on float inputs agrees to
// rounding: forward_test.cpp derives 1.6e-4 for sums of 64 terms; the longest here has 128, so
// twice that.
//
// With quantized activations the products are checked one by one, on the inputs that CpuOps itself
// gave them (a tap sees them): integer sums are exact, and the few float operations around them err
// by less than 16 * 2^-24 of the sum of |w||x|. From inputs to logits only a looser statement is
// possible: an input that the two engines compute a rounding apart may fall on either side of a
// rounding to codes. Few do, so the engines stay closer to each other than the activation codes
// move the logits.
#include "base/random.h"
#include "engine/net.h"
#include "engine/test_specs.h"
#include "engine/testing.h"
#include "number/encode.h"

namespace pare {
namespace {

using testing::Ids;
constexpr std::uint64_t model_seed = 41;

Spec quantized_spec(const std::string& weights, const std::string& activations, bool latent) {
  Spec s = testing::llama_like(2, 64, 16, 128);
  s.vocab = 96;
  if (latent) {
    Attention& a = s.blocks[1].attn;
    a.heads = a.kv_heads = 2;
    a.kv_rank = 64;
    a.qk_dim = 40;
    a.v_dim = 32;
    a.rope.dims = 8;
    a.kv_down_norm = Norm{};
  }
  testing::set_shapes(s);
  for (auto& [name, linear] : linears(s)) {
    linear->scheme = parse_scheme(weights);
    linear->activation = parse_activation(activations);
  }
  return s;
}

Ids some_ids(i64 vocab) {
  Random random(model_seed, 2);
  Ids ids(19);
  for (std::int32_t& id : ids)
    id = static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(vocab)));
  return ids;
}

class Weights : public ::testing::TestWithParam<const char*> {};

TEST_P(Weights, LogitsAreThoseOfTheReference) {
  for (bool latent : {false, true}) {
    const Spec spec = quantized_spec(GetParam(), "none", latent);
    const Model model = random_model(spec, model_seed, Code::f32);
    Pool pool(1);
    const Ids ids = some_ids(spec.vocab);
    Engine reference(model, pool, testing::reference_options(Code::f32));
    const std::vector<float> want = testing::logits_of(reference, ids);
    for (unsigned isa : testing::classes_here()) {
      SCOPED_TRACE(isa_name(isa));
      Engine engine(model, pool, testing::options_with(isa, Code::f32));
      for (i64 tokens : {0, 1, 3})
        EXPECT_LT(testing::difference(testing::logits_of(engine, ids, tokens), want), 3.2e-4)
            << tokens << " tokens a step" << (latent ? ", latent" : "");
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Schemes, Weights,
                         ::testing::Values("f16", "bf16", "int8:channel", "int8:tensor", "int4:g32",
                                           "int4:g32:asym", "nf4:g64", "nf4:g64:dq", "e4m3:channel",
                                           "e4m3:b32x32", "int3:g32", "int2:g16", "int6:g32",
                                           "e5m2:tensor", "mxfp4", "mxfp8", "nvfp4", "q4_0", "q4_1",
                                           "q8_0"));

class Activations : public ::testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(Activations, EveryProductIsTheQuantizedProduct) {
  const auto& [weights, activations] = GetParam();
  const Spec spec = quantized_spec(weights, activations, false);
  const Model model = random_model(spec, model_seed, Code::f32);
  Pool pool(1);
  const Ids ids = some_ids(spec.vocab);
  const auto net = reference_net(model);
  std::map<std::string, const LinearSite<Tensor>*> sites = {{"head", &net->head}};
  for (const BlockSite<Tensor>& b : net->blocks)
    for (const auto* site : {&b.q, &b.k, &b.v, &b.o, &b.gate, &b.up, &b.down})
      sites[site->name] = site;
  for (unsigned isa : testing::classes_here()) {
    SCOPED_TRACE(isa_name(isa));
    Engine engine(model, pool, testing::options_with(isa, Code::f32));
    std::map<std::string, std::vector<float>> inputs;
    i64 checked = 0;
    Tap tap;
    tap.input = [&](const std::string& name, Matrix<const float> x) {
      inputs[name] = testing::copy_of(x);
    };
    tap.stage = [&](const std::string& stage, Matrix<const float> y) {
      const auto found = sites.find(stage == "logits" ? "head" : stage);
      if (found == sites.end()) return;
      const LinearSite<Tensor>& site = *found->second;
      const std::vector<float>& x = inputs.at(site.name);
      const Matrix<const float> in(x.data(), y.rows, site.spec->in);
      std::vector<float> codes(x.size()), want(static_cast<std::size_t>(y.rows * y.cols));
      simulate_activations(in, site.spec->activation, site.static_scale,
                           {codes.data(), in.rows, in.cols});
      linear_reference(site.product, site.spec->activation, site.static_scale, in,
                       {want.data(), y.rows, y.cols});
      const std::vector<float> w = decode(site.product);
      for (i64 r = 0; r < y.rows; r++)
        for (i64 c = 0; c < y.cols; c++) {
          double magnitude = 0;
          for (i64 i = 0; i < in.cols; i++)
            magnitude +=
                std::abs(static_cast<double>(w[static_cast<std::size_t>(c * in.cols + i)]) *
                         codes[static_cast<std::size_t>(r * in.cols + i)]);
          const double error = std::abs(static_cast<double>(y.row(r)[c]) -
                                        want[static_cast<std::size_t>(r * y.cols + c)]);
          ASSERT_LE(error, 16 * 0x1p-24 * magnitude + 1e-12) << stage << " " << r << " " << c;
        }
      checked++;
    };
    KvCache cache = engine.make_cache(32);
    for (std::size_t first : {0u, 18u}) {  // a prefill and a decode step
      const Input input{&cache, std::span(ids).subspan(first, first == 0 ? 18 : 1)};
      engine.step({&input, 1}, Want::all, &tap);
    }
    EXPECT_EQ(checked, 2 * static_cast<i64>(sites.size()));
  }
}

TEST_P(Activations, LogitsAreCloseToTheReference) {
  const auto& [weights, activations] = GetParam();
  const Spec spec = quantized_spec(weights, activations, false);
  const Model model = random_model(spec, model_seed, Code::f32);
  const Model floats = random_model(quantized_spec(weights, "none", false), model_seed, Code::f32);
  Pool pool(1);
  const Ids ids = some_ids(spec.vocab);
  Engine engine(model, pool, testing::options_with(isa_here(), Code::f32));
  Engine reference(model, pool, testing::reference_options(Code::f32));
  Engine plain(floats, pool, testing::reference_options(Code::f32));
  const std::vector<float> want = testing::logits_of(reference, ids);
  const double cost = testing::difference(testing::logits_of(plain, ids), want);
  EXPECT_GT(cost, 1e-3) << "the activations were not quantized";
  EXPECT_LT(testing::difference(testing::logits_of(engine, ids), want), cost);
}

INSTANTIATE_TEST_SUITE_P(Pairs, Activations,
                         ::testing::Values(std::pair{"int8:channel", "int8:token"},
                                           std::pair{"int4:g32", "int8:token"},
                                           std::pair{"int4:g32:asym", "int8:token"},
                                           std::pair{"int8:tensor", "int8:tensor"},
                                           std::pair{"int8:channel", "int8:tensor:static"},
                                           std::pair{"int8:g32", "int8:g32"},
                                           std::pair{"e4m3:channel", "e4m3:token"}));

TEST(TiedEmbedding, AQuantizedOneServesBothEnds) {
  for (const char* scheme : {"int8:channel", "int4:g32", "e4m3:channel"}) {
    Spec spec = quantized_spec("bf16", "none", false);
    spec.tied = true;
    spec.embed = spec.head.scheme = parse_scheme(scheme);
    const Model model = random_model(spec, model_seed, Code::bf16);
    Pool pool(1);
    const Ids ids = some_ids(spec.vocab);
    Engine exact(model, pool, testing::options_with(isa_here(), Code::f32));
    Engine truth(model, pool, testing::reference_options(Code::f32));
    EXPECT_LT(testing::difference(testing::logits_of(exact, ids), testing::logits_of(truth, ids)),
              3.2e-4)
        << scheme;
  }
}

}  // namespace
}  // namespace pare
