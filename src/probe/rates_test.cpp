// Measured rates: complete, of the right size, and what predictions make of them.
#include "probe/rates.h"

#include <gtest/gtest.h>

#include <cmath>

#include "cost/predict.h"
#include "model/model.h"

namespace pare {
namespace {

TEST(MeasuredRates, CoverWhatIsAskedFor) {
  RateOptions o;
  o.teams = {1, 2};
  o.seconds = 0.001;
  o.rounds = 1;
  o.products = {"int8:channel", "int4:g32+int8:token"};
  o.caches = {"f16"};
  o.most_inputs = 4;
  o.far_bytes = i64{8} << 20;
  const EngineRates rates = measure_rates(o, Log{.quiet = true});
  EXPECT_EQ(rates.isa_class, isa_here());
  ASSERT_EQ(rates.teams.size(), 2u);
  for (const TeamRates& team : rates.teams) {
    ASSERT_EQ(team.products.size(), 4u) << "from memory and from the caches";
    for (const ProductRate& r : team.products) {
      EXPECT_GT(r.bytes_per_weight, 0.4);
      ASSERT_EQ(r.points.size(), 3u) << "1, 2, 4";
      for (const ProductRate::Point& p : r.points) {
        ASSERT_GT(p.widths.size(), 1u);
        for (const ProductRate::Width& w : p.widths) {
          EXPECT_GT(w.per_output, 0);
          EXPECT_GE(w.once, 0);
        }
      }
    }
    EXPECT_EQ(team.attention.size(), 20u)
        << "decode and prefill, rows shared and not, from memory and from the caches";
    for (const AttentionRate& r : team.attention)
      EXPECT_GT(r.seconds_per_query + r.seconds_per_flop, 0);
    EXPECT_GT(team.bytes_per_second, 0);
    EXPECT_GE(team.seconds_per_block, 0);
    ASSERT_FALSE(team.rest.empty());
    EXPECT_GT(team.rest.back().seconds_per_element, 0);
  }
  const EngineRates again = parse_engine_rates(parse_json(to_json(rates).dump(), "rates"), "rates");
  EXPECT_EQ(to_json(again).dump(), to_json(rates).dump());

  // One product anew, one more: the others stay.
  EngineRates renewed = rates;
  o.products = {"int8:channel", "bf16"};
  renew_products(renewed, o, Log{.quiet = true});
  for (std::size_t i = 0; i < 2; i++) {
    const TeamRates &before = rates.teams[i], &after = renewed.teams[i];
    ASSERT_EQ(after.products.size(), 6u);
    for (std::size_t k = 0; k < 4; k++) EXPECT_EQ(after.products[k].key, before.products[k].key);
    EXPECT_NE(after.products[0].points[0].widths[0].per_output,
              before.products[0].points[0].widths[0].per_output);
    EXPECT_EQ(after.products[2].points[0].widths[0].per_output,
              before.products[2].points[0].widths[0].per_output);
    EXPECT_EQ(after.seconds_per_block, before.seconds_per_block);
  }
  o.products = {"bf16", "int9:tensor"};
  EXPECT_THROW(renew_products(renewed, o, Log{.quiet = true}), Error);
}

// One product of known rates, so that the arithmetic of predictions can be done by hand.
std::shared_ptr<EngineRates> known_rates() {
  auto rates = std::make_shared<EngineRates>();
  rates->isa_class = isa_here();
  rates->beyond = {{1e6, 0}, {2e6, 1}};
  TeamRates team;
  team.bytes_per_second = 1e10;
  // So many seconds a weight.
  const auto at = [](double batch, double seconds) {
    return ProductRate::Point{batch, {{1024, 0, 1024 * seconds}, {2048, 0, 2048 * seconds}}};
  };
  const std::string key = product_key(parse_scheme("bf16"), {}, 2048, isa_here());
  team.products.push_back({key, false, 2, {at(1, 2e-10), at(4, 2e-10), at(8, 4e-10)}});
  team.products.push_back({key, true, 2, {at(1, 1e-10), at(4, 2e-10), at(8, 4e-10)}});
  team.attention.push_back({"f16", true, false, 4, 1e-7, 1e-9});
  team.seconds_per_pass = 1e-3;
  team.seconds_per_block = 1e-4;
  rates->teams.push_back(team);
  return rates;
}

TEST(Predictions, AddUpWhatWasMeasured) {
  Hardware h;
  h.memory_bytes = 1e12;
  h.bytes_per_second = 1e10;
  h.rate = {{"f32", 1e11}};
  h.measured = true;
  h.engine = known_rates();
  Spec spec = known_spec("llama-3.2-1b");
  for (auto& [name, linear] : linears(spec)) linear->scheme = parse_scheme("bf16");
  spec.embed = parse_scheme("bf16");
  Load load;
  load.context = 99;
  const auto seconds = [&](i64 batch) {
    load.batch = batch;
    return predict_pass(spec, h, load, 1).seconds;
  };
  const double weights = 2048.0 * 128256 + 16 * (2048.0 * (2048 * 2 + 512 * 2) + 3 * 2048.0 * 8192);
  // Pairs at a nanosecond a FLOP, and a hundred for each query.
  const double attention = 16 * (4.0 * 32 * 64 * 100 + 32 * 100);
  const double fixed = 1e-3 + 16 * 1e-4;
  EXPECT_NEAR(seconds(1), weights * 2e-10 + attention * 1e-9 + fixed, 1e-4);
  EXPECT_NEAR(seconds(6), weights * 3e-10 + 6 * attention * 1e-9 + fixed, 1e-4) << "between points";
  EXPECT_NEAR(seconds(16), weights * 8e-10 + 16 * attention * 1e-9 + fixed, 2e-4) << "beyond them";
}

TEST(Predictions, SmallModelsComeFromTheCaches) {
  const auto rates = known_rates();
  Operation op;
  op.product = true;
  op.rows = 1;
  op.in = op.out = 2048;
  op.scheme = parse_scheme("bf16");
  const double n = 2048.0 * 2048;
  const TeamRates& team = rates->teams[0];
  EXPECT_NEAR(operation_seconds(*rates, team, op, 5e5), n * 1e-10, 1e-9);
  EXPECT_NEAR(operation_seconds(*rates, team, op, 1.5e6), n * 1.5e-10, 1e-9);
  EXPECT_NEAR(operation_seconds(*rates, team, op, 9e6), n * 2e-10, 1e-9);
}

TEST(Predictions, TheRestGrowsBetweenMeasuredRows) {
  TeamRates team;
  team.seconds_per_pass = 1;
  team.seconds_per_block = 0.5;
  team.rest = {{1, 4}, {5, 2}};
  const auto of_rows = [&](double rows) { return rest_seconds(team, 2, rows, 3) - 2; };
  EXPECT_NEAR(of_rows(1), 3 * 4, 1e-12);
  EXPECT_NEAR(of_rows(3), 3 * 7, 1e-12) << "half way from 4 to 10";
  EXPECT_NEAR(of_rows(5), 3 * 10, 1e-12);
  EXPECT_NEAR(of_rows(50), 3 * 100, 1e-12) << "in proportion beyond";
}

TEST(Predictions, AProductCostsByCallAndOutput) {
  auto rates = known_rates();
  Operation op;
  op.product = true;
  op.rows = 2;
  op.out = 100;
  op.scheme = parse_scheme("bf16");
  TeamRates& team = rates->teams[0];
  for (ProductRate& r : team.products)
    r.points = {{1, {{128, 1, 0.5}, {384, 3, 1.5}}}, {3, {{128, 5, 2.5}, {384, 7, 3.5}}}};
  const auto seconds = [&](i64 in) {
    op.in = in;
    return operation_seconds(*rates, team, op, 9e6);
  };
  EXPECT_NEAR(seconds(250), 4 + 100 * 2, 1e-9) << "between widths and between batches";
  EXPECT_NEAR(seconds(768), 5 + 100 * 2.5 * 2, 1e-9) << "beyond the widest, its work in proportion";
}

TEST(Predictions, TheShareOfMemoryGrowsWithTheWeights) {
  EngineRates rates;
  rates.beyond = {{10, 0}, {20, 1}};
  EXPECT_EQ(rates.cache_bytes(), 10);
  EXPECT_EQ(rates.share(5), 0);
  EXPECT_EQ(rates.share(15), 0.5);
  EXPECT_EQ(rates.share(100), 1);
  rates.beyond = {{10, 0}, {20, 0.5}, {40, 0.9}};
  EXPECT_EQ(rates.share(5), 0);
  EXPECT_EQ(rates.share(15), 0.25);
  EXPECT_NEAR(rates.share(30), 0.7, 1e-12);
  EXPECT_NEAR(rates.share(60), 0.95, 1e-12) << "nobody measured further";
  EXPECT_EQ(rates.share(80), 1);
  EXPECT_EQ(rates.share(1000), 1);
}

TEST(MeasuredRates, DamagedFilesAreRefused) {
  Json json = to_json(*known_rates());
  EXPECT_NO_THROW(parse_engine_rates(json, "file"));
  Json broken = json;
  broken.set("beyond", Json::array());
  EXPECT_THROW(parse_engine_rates(broken, "file"), Error);
  broken = json;
  broken.set("teams", Json::array());
  EXPECT_THROW(parse_engine_rates(broken, "file"), Error);
  broken = json;
  broken.erase("isa");
  EXPECT_THROW(parse_engine_rates(broken, "file"), Error);
  auto rates = known_rates();
  rates->beyond = {{10, 0}, {20, 0.5}};
  json = to_json(*rates);
  EXPECT_EQ(parse_engine_rates(json, "file").share(15), 0.25);
  for (const char* steps : {"[[10, 0], [10, 1]]", "[[10, 2]]", "[[10]]", "[[-1, 0]]", "[3]"}) {
    broken = json;
    broken.set("beyond", parse_json(steps, "steps"));
    EXPECT_THROW(parse_engine_rates(broken, "file"), Error) << steps;
  }
}

}  // namespace
}  // namespace pare
