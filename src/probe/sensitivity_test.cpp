// Sensitivities against whole forward passes of whole models.
#include "probe/sensitivity.h"

#include <cmath>

#include "base/random.h"
#include "model/test_models.h"
#include "number/encode.h"

namespace pare {
namespace {

constexpr i64 window = 20;

std::vector<Sequence> random_text(i64 vocab) {
  Random random(21);
  std::vector<std::int32_t> ids;
  for (int i = 0; i < 50; i++)
    ids.push_back(static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(vocab))));
  return cut_text(ids, 45, window);
}

std::vector<float> logits_of(const Model& model, const Sequence& s, Pool& pool) {
  EngineOptions options;
  options.kv = Code::f32;
  Engine engine(model, pool, options);
  KvCache cache = engine.make_cache(window);
  const Input input{&cache, s.ids};
  const Matrix<const float> y = engine.step({&input, 1}, Want::all);
  return {y.data, y.data + y.rows * y.cols};
}

// The definition, by softmax in double.
double divergence_by_definition(const Model& base, const Model& changed,
                                const std::vector<Sequence>& text, Pool& pool) {
  const i64 vocab = base.spec.vocab;
  double sum = 0;
  i64 count = 0;
  for (const Sequence& s : text) {
    const std::vector<float> p = logits_of(base, s, pool), q = logits_of(changed, s, pool);
    for (std::size_t r = 0; r < s.ids.size(); r++, count++) {
      const float *a = p.data() + static_cast<i64>(r) * vocab,
                  *b = q.data() + static_cast<i64>(r) * vocab;
      double za = 0, zb = 0;
      for (i64 i = 0; i < vocab; i++) za += std::exp(double(a[i])), zb += std::exp(double(b[i]));
      for (i64 i = 0; i < vocab; i++)
        sum += std::exp(double(a[i])) / za * (a[i] - std::log(za) - b[i] + std::log(zb));
    }
  }
  return sum / static_cast<double>(count);
}

Spec shared_cache_spec() {  // the second block reads the first one's cache: one segment of two
  Spec spec = tiny_spec();
  spec.blocks[1].attn.kv_from = 0;
  spec.blocks[1].attn.k = spec.blocks[1].attn.v = {};
  return spec;
}

TEST(Sensitivity, EqualsWholeForwardPasses) {
  Pool pool(1);
  for (const Spec& spec : {tiny_spec(true), tiny_spec(false), shared_cache_spec()}) {
    const Model model = random_model(spec, 9, Code::f32);
    SensitivityJob job;
    job.matrices = {"embed"};
    for (const auto& [name, linear] : linears(spec))
      if (name != "head" || !spec.tied) job.matrices.push_back(name);
    job.candidates = {parse_scheme("int3:g32"), parse_scheme("f32"), parse_scheme("int8:channel")};
    job.sequences = random_text(spec.vocab);
    job.round = [](const std::string&, const Tensor& w, const Scheme& s) {
      return requantize(w, s);
    };
    const auto kl = measure_sensitivities(model, job, pool, silent());
    for (std::size_t m = 0; m < job.matrices.size(); m++)
      for (std::size_t c = 0; c < job.candidates.size(); c++) {
        const std::string& name = job.matrices[m];
        const Tensor rounded =
            requantize(model.weights.at(name + ".weight").load(), job.candidates[c]);
        const Model changed = with_matrix(model, name, rounded);
        check(changed);
        const double whole = divergence_by_definition(model, changed, job.sequences, pool);
        EXPECT_NEAR(kl[m][c], whole, 1e-9 + 1e-6 * whole) << name;
        EXPECT_EQ(kl[m][c] > 0, job.candidates[c] != parse_scheme("f32")) << name;
      }
    // The same bits with another team.
    Pool two(2);
    EXPECT_EQ(measure_sensitivities(model, job, two, silent()), kl);
  }
}

TEST(Sensitivity, DivergenceOfTwoModels) {
  Pool pool(2);
  const Model a = random_model(tiny_spec(), 1, Code::f32),
              b = random_model(tiny_spec(), 2, Code::f32);
  const auto text = random_text(a.spec.vocab);
  EXPECT_EQ(measure_divergence(a, a, text, pool), 0);
  const double whole = divergence_by_definition(a, b, text, pool);
  EXPECT_NEAR(measure_divergence(a, b, text, pool), whole, 1e-6 * whole);
  EXPECT_EQ(error_of([&] { measure_divergence(a, b, {}, pool); }).substr(0, 6), "PR-001");
}

TEST(Sensitivity, CachesAndActivationsLoseMoreWithFewerBits) {
  Pool pool(1), two(2);
  const Model model = random_model(tiny_spec(), 3, Code::bf16);
  const auto text = random_text(model.spec.vocab);
  const std::vector<KvScheme> caches = {default_kv(model.spec), parse_kv_scheme("int8"),
                                        parse_kv_scheme("int4:asym")};
  const auto kv = measure_cache_losses(model, caches, text, pool, silent());
  EXPECT_EQ(kv[0], 0);
  EXPECT_GT(kv[1], 0);
  EXPECT_GT(kv[2], 2 * kv[1]);
  EXPECT_EQ(measure_cache_losses(model, caches, text, two, silent()), kv);

  const std::vector<Activation> inputs = {
      {}, parse_activation("int8:token"), parse_activation("int4:token")};
  const auto act = measure_activation_losses(model, inputs, text, pool);
  EXPECT_EQ(act[0], 0);
  EXPECT_GT(act[1], 0);
  EXPECT_GT(act[2], 2 * act[1]);
  Model changed = model;
  for (auto& [name, linear] : linears(changed.spec))
    if (name != "head") linear->activation = inputs[1];
  const double whole = divergence_by_definition(model, changed, text, pool);
  EXPECT_NEAR(act[1], whole, 1e-9 + 1e-6 * whole);
}

TEST(Sensitivity, SelfWrittenTextIsSeededAndWhole) {
  Pool pool(1);
  const Model model = random_model(tiny_spec(), 1, Code::f32);
  Engine engine(model, pool);
  const auto text = self_written(engine, 5, 50, 20, 3);
  ASSERT_EQ(text.size(), 3u);
  EXPECT_EQ(text[0].ids.size(), 20u);
  EXPECT_EQ(text[2].ids.size(), 10u);
  EXPECT_EQ(text[1].ids[0], 5);
  EXPECT_NE(text[0].ids, text[1].ids);
  EXPECT_EQ(self_written(engine, 5, 50, 20, 3)[1].ids, text[1].ids);
  EXPECT_NE(self_written(engine, 5, 50, 20, 4)[1].ids, text[1].ids);
  const auto free = self_written(engine, -1, 50, 20, 3);
  EXPECT_NE(free[0].ids[0], free[1].ids[0]);
  EXPECT_EQ(cut_text(text[0].ids, 1000, 7).size(), 3u);
  EXPECT_EQ(cut_text(text[0].ids, 8, 7)[1].ids.size(), 1u);
}

}  // namespace
}  // namespace pare
