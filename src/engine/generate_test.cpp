// Sampling and generation.
#include "engine/generate.h"

#include <limits>
#include <map>

#include "cost/count.h"
#include "engine/cpu_ops.h"
#include "engine/test_specs.h"
#include "engine/testing.h"

namespace pare {
namespace {

using testing::Ids;
constexpr float infinity = std::numeric_limits<float>::infinity();

// Shares of many draws.
std::map<std::int32_t, double> shares(std::span<const float> logits, const SampleOptions& o,
                                      int draws = 40000) {
  Random random(11);
  std::map<std::int32_t, double> count;
  for (int i = 0; i < draws; i++) count[sample(logits, o, random)] += 1.0 / draws;
  return count;
}

SampleOptions sampling(double temperature, int top_k = 0, double top_p = 1, double min_p = 0) {
  SampleOptions o;
  o.temperature = temperature;
  o.top_k = top_k;
  o.top_p = top_p;
  o.min_p = min_p;
  return o;
}

// Probabilities 0.5, 0.25, 0.125, 0.0625, 0.0625; ids are shuffled.
const std::vector<float> halves = {std::log(0.0625f), std::log(0.5f), std::log(0.125f),
                                   std::log(0.25f), std::log(0.0625f)};

// A share of 40000 draws deviates by more than 5 sqrt(p (1 - p) / 40000) <= 0.0125 once in a
// million.
constexpr double deviation = 0.0125;

TEST(Sample, DrawsWithTheProbabilitiesOfTheLogits) {
  const auto found = shares(halves, sampling(1));
  for (const auto& [id, p] :
       std::map<std::int32_t, double>{{0, 0.0625}, {1, 0.5}, {2, 0.125}, {3, 0.25}, {4, 0.0625}})
    EXPECT_NEAR(found.at(id), p, deviation);
  // At temperature 1/2 probabilities are squared: 64 : 16 : 4 : 1 : 1 of 86.
  const auto cold = shares(halves, sampling(0.5));
  EXPECT_NEAR(cold.at(1), 64.0 / 86, deviation);
  EXPECT_NEAR(cold.at(3), 16.0 / 86, deviation);
}

TEST(Sample, FiltersKeepTheMostLikely) {
  const auto two = shares(halves, sampling(1, 2));
  EXPECT_EQ(two.size(), 2u);
  EXPECT_NEAR(two.at(1), 2.0 / 3, deviation);
  // 0.5 + 0.25 reach 0.7; 0.5 alone does not.
  const auto nucleus = shares(halves, sampling(1, 0, 0.7));
  EXPECT_EQ(nucleus.size(), 2u);
  EXPECT_NEAR(nucleus.at(3), 1.0 / 3, deviation);
  // top-p counts within what top-k left: 0.5 of 0.75 is less than 0.7.
  EXPECT_EQ(shares(halves, sampling(1, 2, 0.7)).size(), 2u);
  EXPECT_EQ(shares(halves, sampling(1, 2, 0.6)).size(), 1u);
  EXPECT_EQ(shares(halves, sampling(1, 0, 1, 0.24)).size(), 3u);
  EXPECT_EQ(shares(halves, sampling(1, 0, 1, 0.26)).size(), 2u);
  EXPECT_EQ(shares(halves, sampling(1, 0, 1, 1)).size(), 1u);
  EXPECT_EQ(shares(halves, sampling(1, 0, 1e-9)).size(), 1u);
  EXPECT_EQ(shares(halves, sampling(1, 100, 1, 0.001)).size(), 5u);
}

TEST(Sample, GreedyTakesTheFirstOfEquals) {
  EXPECT_EQ(greedy(std::vector<float>{1, 3, 3, 2}), 1);
  EXPECT_EQ(greedy(std::vector<float>{NAN, -5, -7}), 1);
  EXPECT_EQ(greedy(std::vector<float>{NAN, NAN}), 0);
  Random random(1);
  EXPECT_EQ(sample(std::vector<float>{1, 3, 3, 2}, sampling(0, 3, 0.1), random), 1);
  // Ties at the border of top-k go to the lower id.
  const auto tied = shares(std::vector<float>{2, 2, 2, 2}, sampling(1, 2), 1000);
  EXPECT_EQ(tied.size(), 2u);
  EXPECT_TRUE(tied.contains(0) && tied.contains(1));
}

TEST(Sample, StrangeLogitsAreNeverDrawn) {
  const std::vector<float> strange = {-infinity, 1, NAN, 1, -infinity, -1e30f};
  for (const SampleOptions& o :
       {sampling(1), sampling(100), sampling(1, 4), sampling(1, 0, 0.99), sampling(1, 0, 1, 0.5)})
    for (const auto& [id, share] : shares(strange, o, 2000))
      EXPECT_TRUE(id == 1 || id == 3) << id << " " << share;
  Random random(2);
  EXPECT_EQ(sample(std::vector<float>{-infinity, -infinity}, sampling(1), random), 0);
  EXPECT_EQ(sample(std::vector<float>{0, infinity}, sampling(1), random), 1);
  EXPECT_EQ(sample(std::vector<float>{NAN}, sampling(1, 5, 0.5, 0.5), random), 0);
}

TEST(Sample, OptionsOutOfRangeAreErrors) {
  const auto code = [](const SampleOptions& o) -> std::string {
    try {
      check(o);
    } catch (const Error& e) {
      return e.code;
    }
    return "";
  };
  EXPECT_EQ(code(sampling(0.8, 40, 0.95, 0.05)), "");
  for (const SampleOptions& o :
       {sampling(-0.1), sampling(NAN), sampling(INFINITY), sampling(1, -1), sampling(1, 0, 0),
        sampling(1, 0, 1.01), sampling(1, 0, NAN), sampling(1, 0, 1, -0.1), sampling(1, 0, 1, 1.5)})
    EXPECT_EQ(code(o), "EN-010");
}

class Generate : public ::testing::Test {
 protected:
  Generate() : pool_(1), engine_(random_model(testing::llama_like(), 4, Code::f32), pool_) {}
  Pool pool_;
  Engine engine_;
};

TEST_F(Generate, ABatchGivesWhatEachPromptGivesAlone) {
  const std::vector<Ids> prompts = {{1, 2, 3}, {7}, {5, 4, 3, 2, 1}};
  for (double temperature : {0.0, 1.5}) {
    GenerateOptions o;
    o.tokens = 12;
    o.sampling.temperature = temperature;
    o.seed = 99;
    std::vector<Ids> seen(3);
    const auto together = generate(
        engine_, prompts, o, [&](std::size_t s, std::int32_t id) { seen.at(s).push_back(id); });
    EXPECT_EQ(together, seen);
    EXPECT_EQ(together, generate(engine_, prompts, o)) << "the same seed";
    // The stream of random numbers goes by the place in the batch, so the first stands for all.
    EXPECT_EQ(together[0], generate(engine_, {prompts[0]}, o)[0]);
    if (temperature == 0) {
      EXPECT_EQ(together[2], generate(engine_, {prompts[2]}, o)[0]);
      Ids whole = prompts[2];  // greedy by hand
      for (int i = 0; i < 12; i++) {
        const std::vector<float> logits = testing::logits_of(engine_, whole);
        whole.push_back(greedy(std::span(logits).last(static_cast<std::size_t>(53))));
      }
      EXPECT_EQ(Ids(whole.begin() + 5, whole.end()), together[2]);
    }
  }
}

TEST_F(Generate, StopsAtStopIdsAndAtTheEndOfTheContext) {
  GenerateOptions o;
  o.tokens = 20;
  o.sampling.temperature = 0;
  const Ids free = generate(engine_, {{1, 2, 3}}, o)[0];
  ASSERT_EQ(free.size(), 20u);
  o.stop = {free[6]};
  const Ids stopped = generate(engine_, {{1, 2, 3}}, o)[0];
  const auto first = std::find(free.begin(), free.end(), free[6]);
  EXPECT_EQ(stopped, Ids(free.begin(), first + 1));
  o.stop.clear();
  o.tokens = 1000;
  EXPECT_EQ(generate(engine_, {Ids(60, 2)}, o)[0].size(), 5u);  // 64 positions, one more token
  EXPECT_THROW(generate(engine_, {Ids(65, 2)}, o), Error);
  o.tokens = 0;
  EXPECT_TRUE(generate(engine_, {{1}}, o)[0].empty());
}

// Counts against sums made by hand.
TEST(Counts, FollowTheDefinitions) {
  Attention window;
  testing::set_window(window, 4, 2);
  const i64 visible[] = {1, 2, 3, 4, 5, 6, 6, 6};
  for (i64 p = 0; p < 8; p++) {
    i64 by_hand = 0;
    for (i64 key = 0; key <= p; key++) by_hand += key > p - 4 || key < 2 ? 1 : 0;
    EXPECT_EQ(visible_positions(window, p), by_hand);
    EXPECT_EQ(by_hand, visible[p]);
  }
  // dim 26, 4 heads and 2 key/value heads of 10, hidden 38, 3 blocks, vocabulary 53.
  const Spec spec = testing::llama_like();
  const double linears_each = 26 * 40 + 2 * 26 * 20 + 40 * 26 + 3 * 26 * 38;
  const double attention = 4 * (10 + 10) * (8 + 9 + 10);  // 3 tokens behind 7
  EXPECT_EQ(forward_flops(spec, 3, 7), 2 * (3 * (3 * linears_each + attention) + 26 * 53));
  EXPECT_EQ(kv_bytes_read(spec, Code::f16, 9), 3 * 10 * 2 * 20 * 2);
  const Spec shared = testing::changed(spec, [](Spec& s) { s.blocks[2].attn.kv_from = 0; });
  EXPECT_EQ(kv_bytes_read(shared, Code::f16, 9), 3 * 10 * 2 * 20 * 2)
      << "shared rows are read again";

  Pool pool(1);
  const Model model = random_model(spec, 1, Code::bf16);
  Engine engine(model, pool), scalar(model, pool, testing::options_with(isa_scalar));
  // Vectors are held as floats; the embedding gives one row; planes as stored where nothing
  // repacks.
  const i64 vectors = (3 * 2 + 1) * 26 * 4, matrices = parameters(spec) - 53 * 26 - vectors / 4;
  EXPECT_EQ(scalar.weight_bytes_per_step(1), vectors + 26 * 2 + matrices * 2);
  EXPECT_EQ(scalar.weight_bytes_per_step(5), vectors + 5 * 26 * 2 + matrices * 2);
  EXPECT_GE(engine.weight_bytes_per_step(1), scalar.weight_bytes_per_step(1));
  EXPECT_EQ(engine.kv_bytes_per_step(4, 9), 4 * kv_bytes_read(spec, Code::f16, 9));
  EXPECT_FALSE(engine.kernels(1).empty());
}

// The break-even of DeepSeek-V3 (rank 512, nope 128, rope 64, v 128): about 146 queries over 1k
// keys, 164 over 4k, 169 over 16k.
TEST(Counts, AbsorbingIsCheaperForFewQueries) {
  Attention a;
  a.heads = 128;
  a.qk_dim = 192;
  a.v_dim = 128;
  a.kv_rank = 512;
  a.rope.dims = 64;
  for (const auto& [keys, most] : {std::pair<i64, i64>{1024, 146}, {4096, 163}, {16384, 168}}) {
    EXPECT_TRUE(absorbed_is_cheaper(a, most, keys));
    EXPECT_FALSE(absorbed_is_cheaper(a, most + 1, keys));
  }
}

}  // namespace
}  // namespace pare
