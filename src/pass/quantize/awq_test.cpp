// AWQ on the embedded model with real Gram matrices: what it says is recomputed by definition, it
// never loses against rounding to nearest, with any scheme, and gives the same bits on any team.
#include "pass/quantize/awq.h"

#include "pass/quantize/calibrated_model.h"

namespace pare {
namespace {

using testing::tales;

std::vector<ScaleChoice> choose(const std::string& scheme, i64 block, Pool& pool,
                                AwqOptions options = {}) {
  const auto& c = tales();
  if (sanitized()) options.points = std::min(options.points, 4);  // arithmetic is slow there
  return awq_scales(block_values(c.model, block), c.model.spec, block, c.statistics,
                    testing::targets_of(c.model.spec, scheme), options, pool);
}

// Relative output error of the matrices of a group after W -> Q(W diag(s)) diag(1/s).
double group_error(const ScaleGroup& group, const BlockValues& values, const Scheme& scheme,
                   std::vector<float> s) {
  const InputStatistics& in = tales().statistics.inputs.at(group.input);
  if (s.empty()) s.assign(in.max_abs.size(), 1.0f);
  double error = 0, power = 0;
  for (const std::string& name : group.matrices) {
    const Values& w = values.at(name + ".weight");
    Values scaled = w;
    for (std::size_t i = 0; i < scaled.data.size(); i++) scaled.data[i] *= s[i % s.size()];
    const std::vector<float> stored =
        decode(quantize(std::as_const(scaled).matrix(), scheme, {}, importances(&in, s)));
    for (std::size_t i = 0; i < stored.size(); i++)
      scaled.data[i] = w.data[i] - stored[i] / s[i % s.size()];
    error += testing::output_square(scaled.matrix(), in);
    power += testing::output_square(w.matrix(), in);
  }
  return error / power;
}

TEST(Awq, ErrorsAreThoseOfTheDefinitionAndNeverGrow) {
  Pool pool(2);
  const BlockValues values = block_values(tales().model, 1);
  const std::vector<ScaleChoice> choices = choose("int3:g128", 1, pool);
  ASSERT_EQ(choices.size(), 4u);
  for (const ScaleChoice& c : choices) {
    SCOPED_TRACE(c.group.input + ": " + c.note);
    // At 3 bits some ratio helps what follows a norm. Behind v, one scale for two heads may not.
    if (c.group.absorb == ScaleGroup::Absorb::norm && !sanitized()) {  // all ratios were tried
      EXPECT_LT(c.after, c.before);
    }
    EXPECT_LE(c.after, c.before);
    if (values.at(c.group.input + ".weight").shape[1] > 256) continue;  // slow by definition
    EXPECT_NEAR(c.before / group_error(c.group, values, parse_scheme("int3:g128"), {}), 1, 1e-4);
    EXPECT_NEAR(c.after / group_error(c.group, values, parse_scheme("int3:g128"), c.scale), 1,
                1e-4);
    if (c.scale.empty()) continue;
    EXPECT_EQ(shareable(tales().model.spec, c.group, 1, c.scale), c.scale);
  }
}

class AwqSchemes : public ::testing::TestWithParam<const char*> {};
TEST_P(AwqSchemes, NoGroupLoses) {
  Pool pool(2);
  AwqOptions options;
  options.points = 2;
  for (const ScaleChoice& c : choose(GetParam(), 2, pool, options)) {
    EXPECT_GE(c.after, 0) << c.group.input;
    EXPECT_LE(c.after, c.before) << c.group.input;
    EXPECT_EQ(c.scale.empty(), c.after == c.before) << c.note;
    EXPECT_FALSE(c.note.empty());
  }
}
INSTANTIATE_TEST_SUITE_P(All, AwqSchemes,
                         ::testing::Values("int4:g128", "int4:g32:asym", "int2:g64", "int4:channel",
                                           "int8:tensor", "nf4:g64:dq", "q4_k", "mxfp4", "nvfp4",
                                           "e4m3:b128x128", "e4m3"));

TEST(Awq, TheSameBitsOnAnyTeam) {
  std::vector<std::vector<ScaleChoice>> all;
  std::vector<Clipped> clipped;
  const BlockValues values = block_values(tales().model, 0);
  AwqOptions options;
  options.points = 4;
  for (int threads : {1, 2, 5}) {
    Pool pool(threads);
    all.push_back(choose("int4:g128", 0, pool, options));
    const Matrix<const float> w = values.at("blocks.0.ffn.up.weight").matrix();
    clipped.push_back(awq_clip({"blocks.0.ffn.up",
                                w,
                                parse_scheme("int4:g128"),
                                {},
                                &tales().statistics.inputs.at("blocks.0.ffn.gate")},
                               options, pool));
  }
  for (std::size_t i = 1; i < all.size(); i++) {
    ASSERT_EQ(all[i].size(), all[0].size());
    for (std::size_t g = 0; g < all[0].size(); g++) {
      EXPECT_EQ(all[i][g].scale, all[0][g].scale);
      EXPECT_EQ(all[i][g].after, all[0][g].after);
      EXPECT_EQ(all[i][g].note, all[0][g].note);
    }
    EXPECT_EQ(clipped[i].weights, clipped[0].weights);
    EXPECT_EQ(clipped[i].after, clipped[0].after);
  }
}

TEST(Awq, SampledRowsNeverChooseAScaleThatLosesOnAllRows) {
  Pool pool(2);
  const BlockValues values = block_values(tales().model, 1);
  AwqOptions options;
  options.sample_rows = 8;
  for (const ScaleChoice& c : choose("int4:g128", 1, pool, options)) {
    EXPECT_LE(c.after, c.before) << c.note;
    if (values.at(c.group.input + ".weight").shape[1] > 256) continue;
    EXPECT_NEAR(c.after / group_error(c.group, values, parse_scheme("int4:g128"), c.scale), 1,
                1e-4);
  }
}

TEST(ScaledStatistics, AreThoseOfTheScaledInputs) {
  Pool pool(1);
  Random random(5);
  const i64 n = 40, tokens = 300;
  const std::vector<float> s = testing::random_scales(static_cast<std::size_t>(n), random);
  std::vector<float> x, y;
  for (i64 i = 0; i < n * tokens; i++) {
    x.push_back(static_cast<float>(random.normal()));
    y.push_back(x.back() / s[static_cast<std::size_t>(i % n)]);
  }
  InputSum of_x(n, true), of_y(n, true);
  of_x.add({x.data(), tokens, n}, pool);
  of_y.add({y.data(), tokens, n}, pool);
  InputStatistics got = of_x.finish(pool);
  const InputStatistics want = of_y.finish(pool);
  scale_statistics(got, s);
  EXPECT_EQ(got.max_abs, want.max_abs);
  EXPECT_EQ(got.sample, want.sample);
  EXPECT_EQ(got.tokens, want.tokens);
  for (i64 i = 0; i < n; i++) {
    EXPECT_NEAR(got.mean_abs(i) / want.mean_abs(i), 1, 1e-6);
    EXPECT_NEAR(got.mean_square(i) / want.mean_square(i), 1, 1e-6);
    for (i64 k = 0; k < n; k++) {
      const double size = std::sqrt(want.mean_square(i) * want.mean_square(k));
      EXPECT_NEAR(got.gram_view().row(i)[k], want.gram_view().row(i)[k], 1e-5 * size);
      EXPECT_EQ(got.gram_view().row(i)[k], got.gram_view().row(k)[i]);
    }
  }
}

TEST(Awq, InputsThatWereZeroOrNotFiniteKeepScaleOne) {
  Pool pool(1);
  const auto& c = tales();
  BlockValues values = block_values(c.model, 0);
  Statistics s = c.statistics;
  InputStatistics& in = s.inputs.at("blocks.0.attn.q");
  for (std::size_t k : {3u, 100u}) {
    in.sum_abs[k] = in.sum_square[k] = in.max_abs[k] = 0;
    for (std::size_t i = 0; i < in.max_abs.size(); i++)
      in.gram[k * in.max_abs.size() + i] = in.gram[i * in.max_abs.size() + k] = 0;
  }
  const MatrixTargets targets = testing::targets_of(c.model.spec, "int3:g128");
  AwqOptions options;
  options.points = 4;
  const auto choose_again = [&] {
    return awq_scales(values, c.model.spec, 0, s, targets, options, pool);
  };
  std::vector<ScaleChoice> choices = choose_again();
  ASSERT_FALSE(choices[0].scale.empty());
  EXPECT_EQ(choices[0].scale[3], 1);
  EXPECT_EQ(choices[0].scale[100], 1);
  EXPECT_NE(choices[0].scale[4], 1);

  in.sum_abs[7] = NAN;
  choices = choose_again();
  for (float x : choices[0].scale) EXPECT_TRUE(std::isfinite(x) && x > 0);
  in.gram[0] = NAN;
  choices = choose_again();
  EXPECT_TRUE(choices[0].scale.empty());
  EXPECT_EQ(choices[0].note, "statistics are not finite");
}

TEST(Awq, GroupsThatCannotBeScaledSayWhy) {
  Pool pool(1);
  const Spec spec = spec_of_folder(fixture("families") / "gpt2");
  const Model model = random_model(spec, 1, Code::f32);
  const auto notes = [&](const Statistics& s, const MatrixTargets& targets, bool stored) {
    AwqOptions options;
    options.stored = stored;
    std::string text;
    for (const ScaleChoice& c :
         awq_scales(block_values(model, 0), spec, 0, s, targets, options, pool)) {
      EXPECT_TRUE(c.scale.empty());
      text += c.note + "; ";
    }
    return text;
  };
  const MatrixTargets targets = testing::targets_of(spec, "int4:g32");
  EXPECT_EQ(notes({}, {}, true),
            "nothing is quantized; nothing is quantized; nothing is quantized; "
            "nothing is quantized; ");
  EXPECT_EQ(notes({}, targets, false),
            "no statistics; no statistics; no statistics; "
            "nothing before it can absorb a scale; ");
  MatrixTargets whole = testing::targets_of(spec, "int8:tensor");
  Statistics s;
  InputStatistics& o = s.inputs["blocks.0.attn.o"];
  o.tokens = 1;
  EXPECT_EQ(notes(s, whole, true),
            "no statistics; rows of blocks.0.attn.v share scales; no statistics; no statistics; ");
}

TEST(AwqClip, GroupsKeepTheRangeWithTheSmallestError) {
  Pool pool(2);
  const BlockValues values = block_values(tales().model, 1);
  const InputStatistics& in = tales().statistics.inputs.at("blocks.1.ffn.gate");
  for (const char* text : {"int3:g128", "int4:g32:asym", "q4_k", "nf4:g64:dq", "int4:channel"})
    for (Range range : {Range::absmax, Range::mse}) {
      SCOPED_TRACE(text);
      FitOptions fit;
      fit.range = range;
      const Matrix<const float> all = values.at("blocks.1.ffn.up.weight").matrix();
      const Matrix<const float> w(all.data, 200, all.cols);
      const MatrixTask task{"blocks.1.ffn.up", w, parse_scheme(text), fit, &in};
      const Clipped c = awq_clip(task, {}, pool);
      EXPECT_EQ(c.note, "");
      EXPECT_LE(c.after, c.before);
      if (range == Range::absmax) {
        EXPECT_LT(c.after, 0.95 * c.before);
        EXPECT_GT(c.groups, w.rows / 2);
      }
      // By definition, with G's other blocks set to zero.
      const i64 width = task.scheme.grouping == Grouping::group ? task.scheme.cols : w.cols;
      InputStatistics blocks = in;
      for (i64 i = 0; i < w.cols; i++)
        for (i64 k = 0; k < w.cols; k++)
          if (i / width != k / width) blocks.gram[static_cast<std::size_t>(i * w.cols + k)] = 0;
      std::vector<float> e = decode(
          quantize({c.weights.data(), w.rows, w.cols}, task.scheme, fit, importances(&in, {})));
      for (std::size_t i = 0; i < e.size(); i++) e[i] = w.data[i] - e[i];
      EXPECT_NEAR(testing::output_square({e.data(), w.rows, w.cols}, blocks) /
                      testing::output_square(w, blocks) / c.after,
                  1, 1e-4);
    }
}

TEST(AwqClip, LeavesQueriesKeysAndWhatHasNoRangesOfItsOwn) {
  Pool pool(1);
  const BlockValues values = block_values(tales().model, 0);
  const InputStatistics& in = tales().statistics.inputs.at("blocks.0.attn.q");
  const Matrix<const float> w = values.at("blocks.0.attn.k.weight").matrix();
  const std::vector<float> original(w.data, w.data + w.rows * w.cols);
  const auto note = [&](const char* name, const char* scheme, const InputStatistics* s) {
    const Clipped c = awq_clip({name, w, parse_scheme(scheme), {}, s}, {}, pool);
    EXPECT_EQ(c.weights, original);
    return c.note;
  };
  EXPECT_EQ(note("blocks.0.attn.k", "int4:g128", &in), "queries and keys are not clipped");
  EXPECT_EQ(note("blocks.0.attn.v", "int8:tensor", &in), "its rows share scales");
  EXPECT_EQ(note("blocks.0.attn.v", "bf16", &in), "its scheme has no ranges");
  EXPECT_EQ(note("blocks.0.attn.v", "int4:g128", nullptr), "no statistics");
}

// The whole method against rounding to nearest (the better of the two: ranges by weighted squared
// error), matrix by matrix and at the output.
struct Quality {
  double error = 0;  // mean over matrices of the relative output error
  double kl = 0;
};
Quality quality(const std::string& scheme, bool awq, Pool& pool) {
  const auto& c = tales();
  Model model = c.model;
  Statistics statistics = c.statistics;
  const MatrixTargets targets = testing::targets_of(model.spec, scheme);
  AwqOptions options;
  options.points = 10;
  Quality q;
  for (i64 b = 0; b < static_cast<i64>(model.spec.blocks.size()); b++) {
    BlockValues values = block_values(model, b);
    if (awq)
      apply_choices(awq_scales(values, model.spec, b, statistics, targets, options, pool), b,
                    values, model.spec, statistics);
    for (const ScaleGroup& group : scale_groups(model.spec, b))
      for (const std::string& name : group.matrices) {
        Values& v = values.at(name + ".weight");
        const InputStatistics& in = statistics.inputs.at(group.input);
        const MatrixTarget& t = targets.at(name);
        std::vector<float> want = v.data;
        if (awq) want = awq_clip({name, v.matrix(), t.scheme, t.fit, &in}, {}, pool).weights;
        std::vector<float> stored = round_trip({want.data(), v.shape[0], v.shape[1]}, t.scheme,
                                               t.fit, importances(&in, {}), pool);
        std::vector<float> e = stored;
        for (std::size_t i = 0; i < e.size(); i++) e[i] -= v.data[i];
        const OutputNorm norm(in, pool);
        q.error += norm.total({e.data(), v.shape[0], v.shape[1]}, &pool) /
                   norm.total(v.matrix(), &pool) / 28;
        v.data = std::move(stored);
      }
    testing::put_values(model, values);
  }
  q.kl = testing::divergence(c.model, model, c.rest, pool);
  return q;
}

TEST(Awq, BeatsRoundingToNearestOnTheEmbeddedModel) {
  if (sanitized()) GTEST_SKIP() << "arithmetic on a real model is slow under sanitizers";
  Pool pool(2);
  for (const char* scheme : {"int4:g128", "int3:g128"}) {
    const Quality rtn = quality(scheme, false, pool), awq = quality(scheme, true, pool);
    std::printf("%s: output error %.3g -> %.3g, KL %.4g -> %.4g\n", scheme, rtn.error, awq.error,
                rtn.kl, awq.kl);
    EXPECT_LT(awq.error, rtn.error) << scheme;
    EXPECT_LT(awq.kl, rtn.kl) << scheme;
  }
}

}  // namespace
}  // namespace pare
