#include "pass/quantize/solver.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <map>

#include "base/random.h"
#include "file/safetensors.h"
#include "kernel/gram.h"
#include "pass/quantize/testing.h"
#include "support.h"

namespace pare {
namespace {

using testing::output_error;

std::vector<float> normal(i64 n, std::uint64_t seed, double scale = 1) {
  Random random(seed);
  std::vector<float> x(static_cast<std::size_t>(n));
  for (float& v : x) v = static_cast<float>(random.normal() * scale);
  return x;
}

// Statistics of inputs that share a few strong directions, as those of language models do.
InputStatistics correlated(i64 n, i64 tokens, std::uint64_t seed) {
  const i64 directions = n / 8 + 1;
  const std::vector<float> mix = normal(directions * n, seed),
                           own = normal(tokens * n, seed + 1, 0.3),
                           strength = normal(tokens * directions, seed + 2);
  InputStatistics in;
  in.tokens = tokens;
  in.sum_abs.resize(static_cast<std::size_t>(n));
  in.sum_square.resize(static_cast<std::size_t>(n));
  in.max_abs.resize(static_cast<std::size_t>(n));
  std::vector<float> x = own;
  for (i64 t = 0; t < tokens; t++)
    for (i64 i = 0; i < n; i++) {
      float& v = x[static_cast<std::size_t>(t * n + i)];
      for (i64 d = 0; d < directions; d++)
        v += strength[static_cast<std::size_t>(t * directions + d)] *
             mix[static_cast<std::size_t>(d * n + i)];
      const std::size_t k = static_cast<std::size_t>(i);
      in.sum_abs[k] += std::abs(v);
      in.sum_square[k] += static_cast<double>(v) * v;
      in.max_abs[k] = std::max(in.max_abs[k], std::abs(v));
    }
  Pool pool(2);
  GramSum sum(n);
  sum.add({x.data(), tokens, n}, pool);
  in.gram = sum.mean(pool);
  return in;
}

InputStatistics with_gram(i64 n, std::vector<float> gram) {
  InputStatistics in;
  in.tokens = 1;
  for (i64 k = 0; k < n; k++) {
    const double square = gram[static_cast<std::size_t>(k * n + k)];
    in.sum_square.push_back(square);
    in.sum_abs.push_back(std::sqrt(square));
    in.max_abs.push_back(static_cast<float>(std::sqrt(square)));
  }
  in.gram = std::move(gram);
  return in;
}

std::vector<float> identity(i64 n) {
  std::vector<float> g(static_cast<std::size_t>(n * n));
  for (i64 k = 0; k < n; k++) g[static_cast<std::size_t>(k * n + k)] = 1;
  return g;
}

void expect_same(const Tensor& a, const Tensor& b, const std::string& what) {
  const auto same = [](const Blob& x, const Blob& y) {
    return std::equal(x.bytes.begin(), x.bytes.end(), y.bytes.begin(), y.bytes.end());
  };
  EXPECT_TRUE(same(a.codes, b.codes)) << what;
  EXPECT_TRUE(same(a.scales, b.scales)) << what;
  EXPECT_TRUE(same(a.zeros, b.zeros)) << what;
  EXPECT_TRUE(same(a.mins, b.mins)) << what;
  EXPECT_TRUE(same(a.super_scales, b.super_scales)) << what;
  EXPECT_TRUE(same(a.super_mins, b.super_mins)) << what;
}

const std::vector<const char*> all_schemes = {
    "int4:g128", "int4:g32", "int3:g128", "int2:g64",      "nf4:g64", "nf4:g64:dq",  "e4m3:channel",
    "q4_k",      "mxfp4",    "nvfp4",     "int4:g32:asym", "q6_k",    "e4m3:b64x96", "int8:tensor"};

constexpr ActOrder all_orders[] = {ActOrder::none, ActOrder::fixed, ActOrder::groups};

struct Fixture {
  std::map<std::string, StoredTensor> tensors;
  Fixture() {
    const auto path = fixture("solver/gptq.safetensors");
    for (StoredTensor& t : parse_safetensors(map_file(path), path.string()).tensors)
      tensors.emplace(t.name, t);
  }
  std::vector<float> floats(const std::string& name) const {
    const Blob& bytes = tensors.at(name).bytes;
    std::vector<float> values(bytes.size() / 4);
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }
};

// The reference is the definition in double (tools/make_solver_fixtures.py): an error of one code
// anywhere would move every later column of its row.
TEST(Gptq, AgreesWithTheDefinition) {
  const Fixture f;
  const i64 rows = f.tensors.at("weights").shape[0], cols = f.tensors.at("weights").shape[1];
  const std::vector<float> weights = f.floats("weights");
  const InputStatistics in = with_gram(cols, f.floats("gram"));
  Pool pool(2);
  int cases = 0;
  for (const auto& [name, tensor] : f.tensors) {
    const std::size_t space = name.find(' ');
    if (space == std::string::npos) continue;
    cases++;
    MatrixTask task{
        name, {weights.data(), rows, cols}, parse_scheme(name.substr(0, space)), {}, &in};
    task.fit.range = Range::absmax;
    const std::vector<float> want = f.floats(name);
    for (i64 block : {1, 32, 40, 128}) {
      GptqOptions options;
      options.block = block;
      options.polish = 0;
      options.order = act_order_of(name.substr(space + 1)).value();
      const Solution got = solve_gptq(task, options, pool);
      EXPECT_TRUE(got.notes.empty());
      const std::vector<float> values = decode(got.tensor);
      for (std::size_t i = 0; i < want.size(); i++)
        ASSERT_NEAR(values[i], want[i], 1e-6 * std::abs(want[i]))
            << name << " block " << block << " row " << i / static_cast<std::size_t>(cols)
            << " column " << i % static_cast<std::size_t>(cols);
    }
  }
  EXPECT_EQ(cases, 9);
}

TEST(Gptq, WithoutCorrelationItIsRoundingToNearest) {
  const i64 rows = 70, cols = 300;
  const std::vector<float> weights = normal(rows * cols, 1, 0.05);
  const InputStatistics in = with_gram(cols, identity(cols));
  Pool pool(2);
  for (const char* scheme : all_schemes)
    for (ActOrder order : all_orders) {
      MatrixTask task{"m", {weights.data(), rows, cols}, parse_scheme(scheme), {}, &in};
      task.fit.range = Range::absmax;
      GptqOptions options;
      options.order = order;
      expect_same(solve_gptq(task, options, pool).tensor, solve_rtn(task, pool).tensor, scheme);
    }
}

// The range of a group is chosen by what a walk over it loses.
TEST(Gptq, StretchesRangesAsWeightsMove) {
  const i64 rows = 64, cols = 512;
  const std::vector<float> weights = normal(rows * cols, 2, 0.05);
  const InputStatistics in = correlated(cols, 1500, 3);
  Pool pool(2);
  for (const char* scheme : {"int3:g128", "int2:g64"}) {
    const MatrixTask task{"m", {weights.data(), rows, cols}, parse_scheme(scheme), {}, &in};
    const auto error = [&](ActOrder order) {
      GptqOptions options;
      options.polish = 0;
      options.order = order;
      return output_error(task, solve_gptq(task, options, pool).tensor, pool);
    };
    EXPECT_LT(error(ActOrder::groups), 0.97 * error(ActOrder::fixed)) << scheme;
  }
}

TEST(Gptq, PolishingLowersTheErrorOfEveryScheme) {
  const i64 rows = 64, cols = 512;
  const std::vector<float> weights = normal(rows * cols, 2, 0.05);
  const InputStatistics in = correlated(cols, 1500, 3);
  Pool pool(2);
  for (const char* scheme : all_schemes) {
    const MatrixTask task{"m", {weights.data(), rows, cols}, parse_scheme(scheme), {}, &in};
    double last = 1;
    for (int sweeps : {0, 1, 2, 50}) {
      GptqOptions options;
      options.polish = sweeps;
      const double error = output_error(task, solve_gptq(task, options, pool).tensor, pool);
      EXPECT_LT(error, last) << scheme << " " << sweeps;
      last = error;
    }
  }
}

TEST(Gptq, LowersTheOutputErrorOfEveryScheme) {
  const i64 rows = 64, cols = 512;
  const std::vector<float> weights = normal(rows * cols, 2, 0.05);
  const InputStatistics in = correlated(cols, 1500, 3);
  Pool pool(2);
  for (const char* scheme : all_schemes)
    for (ActOrder order : all_orders) {
      const MatrixTask task{"m", {weights.data(), rows, cols}, parse_scheme(scheme), {}, &in};
      GptqOptions options;
      options.order = order;
      const double before = output_error(task, solve_rtn(task, pool).tensor, pool);
      const double after = output_error(task, solve_gptq(task, options, pool).tensor, pool);
      EXPECT_GT(before, 0);
      EXPECT_LT(after, 0.8 * before) << scheme << " order " << static_cast<int>(order);
    }
}

TEST(Solvers, AnyTeamGivesTheSameBits) {
  const i64 rows = 75, cols = 330;
  const std::vector<float> weights = normal(rows * cols, 4, 0.05);
  const InputStatistics in = correlated(cols, 600, 5);
  for (const char* scheme : all_schemes) {
    const MatrixTask task{"m", {weights.data(), rows, cols}, parse_scheme(scheme), {}, &in};
    std::vector<Solution> first;
    for (int threads : {1, 2, 3}) {
      Pool pool(threads);
      std::vector<Solution> now;
      for (ActOrder order : all_orders) {
        GptqOptions options;
        options.order = order;
        now.push_back(solve_gptq(task, options, pool));
      }
      now.push_back(solve_rtn(task, pool));
      if (task.scheme.offset != Offset::none) now.push_back(solve_hqq(task, {}, pool));
      if (first.empty()) first = now;
      for (std::size_t i = 0; i < now.size(); i++)
        expect_same(now[i].tensor, first[i].tensor, scheme);
      EXPECT_EQ(output_error(task, now[0].tensor, pool), output_error(task, first[0].tensor, pool));
    }
  }
}

TEST(Gptq, SingularMatricesAreDamped) {
  const i64 rows = 8, cols = 200;
  const std::vector<float> weights = normal(rows * cols, 6, 0.05), x = normal(cols, 7);
  std::vector<float> rank_one(static_cast<std::size_t>(cols * cols));
  for (i64 i = 0; i < cols; i++)
    for (i64 j = 0; j < cols; j++)
      rank_one[static_cast<std::size_t>(i * cols + j)] =
          x[static_cast<std::size_t>(i)] * x[static_cast<std::size_t>(j)];
  const InputStatistics in = with_gram(cols, rank_one);
  const MatrixTask task{
      "blocks.3.attn.q", {weights.data(), rows, cols}, parse_scheme("int4:g32"), {}, &in};
  Pool pool(2);
  const double before = output_error(task, solve_rtn(task, pool).tensor, pool);
  const Solution usual = solve_gptq(task, {}, pool);
  EXPECT_TRUE(usual.notes.empty());
  EXPECT_LT(output_error(task, usual.tensor, pool), 0.2 * before);
  GptqOptions none;
  none.damping = 0;
  const Solution raised = solve_gptq(task, none, pool);
  EXPECT_FALSE(raised.degraded);
  ASSERT_EQ(raised.notes.size(), 1u);
  EXPECT_EQ(
      raised.notes[0],
      "the Gram matrix of blocks.3.attn.q is nearly singular: damping raised from 0 to 0.0001");
  EXPECT_LT(output_error(task, raised.tensor, pool), 0.2 * before);
}

TEST(Gptq, InputsThatAreAlwaysZeroAreRoundedToNearest) {
  const i64 rows = 16, cols = 130;
  const std::vector<float> weights = normal(rows * cols, 8, 0.05);
  Pool pool(1);
  InputStatistics zero = with_gram(cols, std::vector<float>(static_cast<std::size_t>(cols * cols)));
  MatrixTask task{"m", {weights.data(), rows, cols}, parse_scheme("int4:g64"), {}, &zero};
  const Solution all = solve_gptq(task, {}, pool);
  EXPECT_FALSE(all.degraded);
  ASSERT_EQ(all.notes.size(), 1u);
  EXPECT_EQ(all.notes[0], "130 inputs are always zero: their weights are rounded to nearest");
  expect_same(all.tensor, solve_rtn(task, pool).tensor, "zeros");
  EXPECT_EQ(output_error(task, all.tensor, pool), 0);

  InputStatistics some = correlated(cols, 400, 9);
  for (i64 dead : {0, 77}) {
    some.sum_square[static_cast<std::size_t>(dead)] = 0;
    for (i64 k = 0; k < cols; k++)
      some.gram[static_cast<std::size_t>(dead * cols + k)] =
          some.gram[static_cast<std::size_t>(k * cols + dead)] = 0;
  }
  task.inputs = &some;
  for (ActOrder order : all_orders) {
    GptqOptions options;
    options.order = order;
    options.damping = 0;
    const Solution got = solve_gptq(task, options, pool);
    EXPECT_EQ(got.notes.size(), 1u);
    const std::vector<float> values = decode(got.tensor);
    for (i64 r = 0; r < rows; r++)
      for (i64 dead : {0, 77}) {
        const std::size_t i = static_cast<std::size_t>(r * cols + dead);
        // Within half a step unless the group's range was clipped, which the weight then exceeds.
        const float step = scale_at(got.tensor, r, dead);
        if (std::abs(weights[i]) < 7 * step) {
          EXPECT_LE(std::abs(values[i] - weights[i]), 0.5001f * step);
        }
      }
  }
}

TEST(Gptq, WhatIsNoGramMatrixGivesWayToRounding) {
  const i64 rows = 4, cols = 40;
  const std::vector<float> weights = normal(rows * cols, 10);
  std::vector<float> wrong = identity(cols);
  wrong[5] = wrong[static_cast<std::size_t>(5 * cols)] = 50;  // not positive definite
  const InputStatistics in = with_gram(cols, wrong);
  const MatrixTask task{
      "blocks.0.ffn.up", {weights.data(), rows, cols}, parse_scheme("int4:g32"), {}, &in};
  Pool pool(1);
  const Solution got = solve_gptq(task, {}, pool);
  EXPECT_TRUE(got.degraded);
  ASSERT_EQ(got.notes.size(), 1u);
  EXPECT_TRUE(got.notes[0].starts_with(
      "the Gram matrix of blocks.0.ffn.up has no Cholesky factor even with damping 1 (input "))
      << got.notes[0];
  expect_same(got.tensor, solve_rtn(task, pool).tensor, "degraded");
}

template <class F>
Error error_of(const F& f) {
  try {
    f();
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "no error";
  return {Exit::ok, "", ""};
}

TEST(Solvers, HostileInputIsRefusedWithItsPlace) {
  const i64 rows = 3, cols = 32;
  std::vector<float> weights = normal(rows * cols, 11);
  InputStatistics in = with_gram(cols, identity(cols));
  Pool pool(1);
  const MatrixTask task{
      "blocks.1.attn.o", {weights.data(), rows, cols}, parse_scheme("int4:g32:asym"), {}, &in};
  const auto all = [&](const std::string& code, const std::string& text) {
    for (int solver = 0; solver < 3; solver++) {
      const Error e = error_of([&] {
        solver == 0   ? solve_rtn(task, pool)
        : solver == 1 ? solve_gptq(task, {}, pool)
                      : solve_hqq(task, {}, pool);
      });
      EXPECT_EQ(e.code, code);
      EXPECT_NE(std::string(e.what()).find(text), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find("blocks.1.attn.o"), std::string::npos) << e.what();
    }
  };
  for (float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    weights[37] = bad;
    all("QU-040", "row 1; column 5");
  }
  weights[37] = 0;
  in.gram[static_cast<std::size_t>(2 * cols + 9)] = std::nanf("");
  all("QU-041", "inputs 2, 9");
  in.gram[static_cast<std::size_t>(2 * cols + 9)] = 0;
  in.sum_square[4] = std::numeric_limits<double>::infinity();
  all("QU-041", "inputs 4");
  in.sum_square.pop_back();
  all("QU-043", "31 inputs");
}

TEST(Solvers, WhatCannotBeIsRefused) {
  const i64 rows = 3, cols = 32;
  const std::vector<float> weights = normal(rows * cols, 12);
  InputStatistics in = with_gram(cols, identity(cols));
  Pool pool(1);
  MatrixTask task{"m", {weights.data(), rows, cols}, parse_scheme("int4:g32:2of4"), {}, &in};
  EXPECT_EQ(error_of([&] { solve_gptq(task, {}, pool); }).code, "QU-044");
  task.scheme = parse_scheme("int4:g32");
  EXPECT_EQ(error_of([&] { solve_hqq(task, {}, pool); }).code, "QU-046");
  GptqOptions bad;
  bad.damping = std::nan("");
  EXPECT_EQ(error_of([&] { solve_gptq(task, bad, pool); }).code, "QU-045");
  bad = {};
  bad.polish = -1;
  EXPECT_EQ(error_of([&] { solve_gptq(task, bad, pool); }).code, "QU-045");
  in.gram.clear();
  EXPECT_EQ(error_of([&] { solve_gptq(task, {}, pool); }).code, "QU-042");
  task.inputs = nullptr;
  EXPECT_EQ(error_of([&] { solve_gptq(task, {}, pool); }).code, "QU-042");
  task.scheme = parse_scheme("int4:g32:asym");
  HqqOptions p;
  p.p = 0;
  EXPECT_EQ(error_of([&] { solve_hqq(task, p, pool); }).code, "QU-047");
}

double mean_error(const std::vector<float>& weights, const Tensor& stored) {
  const std::vector<float> values = decode(stored);
  double sum = 0;
  for (std::size_t i = 0; i < values.size(); i++)
    sum += std::abs(static_cast<double>(weights[i]) - values[i]);
  return sum / static_cast<double>(values.size());
}

TEST(Hqq, LowersTheMeanError) {
  const i64 rows = 32, cols = 256;
  std::vector<float> weights = normal(rows * cols, 13, 0.05);
  Random random(14);
  for (int i = 0; i < 80; i++) weights[random.below(weights.size())] *= 6;  // heavy tails
  Pool pool(2);
  for (const char* scheme :
       {"int4:g64:min", "int3:g64:min", "int2:g32:min", "int4:g64:asym", "int2:g64:asym", "q4_k",
        "q2_k", "int4:channel:min", "int4:b16x64:asym"})
    for (Range range : {Range::absmax, Range::mse}) {
      MatrixTask task{"m", {weights.data(), rows, cols}, parse_scheme(scheme), {}, nullptr};
      task.fit.range = range;
      const double before = mean_error(weights, solve_rtn(task, pool).tensor);
      const double after = mean_error(weights, solve_hqq(task, {}, pool).tensor);
      EXPECT_LE(after, before * (1 + 1e-6)) << scheme;
      if (range == Range::absmax && task.scheme.cols == 64 &&
          task.scheme.offset == Offset::minimum) {
        EXPECT_LT(after, 0.995 * before) << scheme;
      }
      HqqOptions none;
      none.rounds = 0;
      expect_same(solve_hqq(task, none, pool).tensor, solve_rtn(task, pool).tensor, scheme);
    }
}

// One round by hand: with errors far above the dead zone of the shrinkage and far below.
TEST(Hqq, MovesTheMinimumByTheShrunkenErrors) {
  const std::vector<float> weights = {0, 1.25f, 2.25f, 3.25f, 4.25f, 5.25f, 6.25f, 15};
  Pool pool(1);
  MatrixTask task{"m", {weights.data(), 1, 8}, parse_scheme("int4:g8:min:s=f32"), {}, nullptr};
  task.fit.range = Range::absmax;  // scale 1, minimum 0: errors of 0.25 but for the ends
  HqqOptions one;
  one.rounds = 1;
  one.beta = 1e-6;  // everything below 40000 shrinks to nothing: the mean error moves the minimum
  EXPECT_FLOAT_EQ(min_at(solve_hqq(task, one, pool).tensor, 0, 0), -6 * 0.25f / 8);
  one.beta = 1e6;  // nearly nothing shrinks: the minimum is where it was
  EXPECT_NEAR(min_at(solve_hqq(task, one, pool).tensor, 0, 0), 0, 1e-5);
}

TEST(OutputError, IsTheQuadraticFormOfTheErrors) {
  const i64 rows = 5, cols = 64;
  const std::vector<float> weights = normal(rows * cols, 15);
  InputStatistics in = correlated(cols, 200, 16);
  Pool pool(2);
  MatrixTask task{"m", {weights.data(), rows, cols}, parse_scheme("int3:g32"), {}, &in};
  const Tensor stored = solve_rtn(task, pool).tensor;
  const std::vector<float> values = decode(stored);
  const auto form = [&](bool errors, const auto& g) {
    double sum = 0;
    for (i64 r = 0; r < rows; r++)
      for (i64 i = 0; i < cols; i++)
        for (i64 j = 0; j < cols; j++) {
          const auto at = [&](i64 k) {
            const std::size_t x = static_cast<std::size_t>(r * cols + k);
            return errors ? static_cast<double>(weights[x]) - values[x]
                          : static_cast<double>(weights[x]);
          };
          sum += at(i) * at(j) * g(i, j);
        }
    return sum;
  };
  const auto gram = [&](i64 i, i64 j) { return static_cast<double>(in.gram_view().row(i)[j]); };
  double want = form(true, gram) / form(false, gram);
  EXPECT_NEAR(output_error(task, stored, pool), want, 1e-5 * want);
  in.gram.clear();
  const auto squares = [&](i64 i, i64 j) { return i == j ? in.mean_square(i) : 0.0; };
  want = form(true, squares) / form(false, squares);
  EXPECT_NEAR(output_error(task, stored, pool), want, 1e-6 * want);
  task.inputs = nullptr;
  const auto one = [&](i64 i, i64 j) { return i == j ? 1.0 : 0.0; };
  want = form(true, one) / form(false, one);
  EXPECT_NEAR(output_error(task, stored, pool), want, 1e-12);
}

TEST(OutputError, NothingOfNothingIsNothing) {
  const std::vector<float> zeros(64);
  Pool pool(1);
  const MatrixTask task{"m", {zeros.data(), 2, 32}, parse_scheme("int4:g32"), {}, nullptr};
  EXPECT_EQ(output_error(task, solve_rtn(task, pool).tensor, pool), 0);
}

}  // namespace
}  // namespace pare
