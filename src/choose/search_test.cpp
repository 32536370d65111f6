// Searches against trying every recipe.
#include "choose/search.h"

#include <cmath>
#include <limits>

#include "base/random.h"
#include "choose/agreement.h"
#include "model/test_models.h"

namespace pare {
namespace {

// Four matrices, two candidates each besides their own, two caches, one activation. The losses fall
// with the bits.
Sensitivities some_losses(const Spec& spec, std::uint64_t seed) {
  Random random(seed);
  Sensitivities s;
  s.base = "tiny";
  const auto add = [&](const std::string& name, i64 rows, i64 cols) {
    MatrixLosses m{name, rows, cols, {}};
    const double weight = std::exp(random.normal());
    for (const char* word : {"int3:g32", "int8:channel"}) {
      const Scheme scheme = parse_scheme(word);
      m.options.push_back({scheme, stored_bytes(scheme, rows, cols),
                           weight * std::exp2(-2 * bits_per_weight(scheme, rows, cols)) *
                               (0.5 + random.uniform())});
    }
    s.matrices.push_back(m);
  };
  add("embed", spec.vocab, spec.dim);
  for (const char* name : {"blocks.0.attn.q", "blocks.0.ffn.up", "blocks.1.ffn.down"})
    for (const auto& [found, linear] : linears(spec))
      if (found == name) add(name, linear->out, linear->in);
  s.caches = {{parse_kv_scheme("int8"), 0.001 * random.uniform()},
              {parse_kv_scheme("int4"), 0.02 * random.uniform()}};
  s.activations = {{parse_activation("int8:token"), 0.002 * random.uniform()}};
  return s;
}

Use use_of_tests() {
  Use use;
  use.batch = 4;
  use.prompt = 64;
  use.context = 100;
  return use;
}

// Every recipe, predicted as a whole.
std::vector<Proposal> everything(const Sensitivities& s, const Spec& spec, const Hardware& h,
                                 const Use& use) {
  std::vector<Proposal> all;
  std::vector<std::optional<KvScheme>> caches = {std::nullopt};
  for (const CacheLoss& c : s.caches) caches.emplace_back(c.scheme);
  for (int code = 0; code < 81 * 6; code++) {
    Proposal p;
    bool block = false;
    int rest = code;
    for (const MatrixLosses& m : s.matrices) {
      const std::size_t pick = static_cast<std::size_t>(rest % 3);
      rest /= 3;
      p.schemes.push_back(pick == 0 ? spec.embed : m.options[pick - 1].scheme);
      if (pick > 0) p.loss += m.options[pick - 1].kl;
      block = block || (pick > 0 && m.name != "embed");
    }
    const std::size_t cache = static_cast<std::size_t>(rest % 3);
    p.kv = caches[cache];
    if (cache > 0) p.loss += s.caches[cache - 1].kl;
    if (rest / 3 == 1) {
      if (!block) continue;
      p.activation = s.activations[0].activation;
      p.loss += s.activations[0].kl;
    }
    const Prediction predicted = predict(planned(spec, s, p), h, use);
    p.weight_bytes = weight_bytes(planned(spec, s, p));
    p.memory_bytes = predicted.memory.total();
    p.seconds_per_token = predicted.seconds_per_token;
    all.push_back(p);
  }
  return all;
}

double least_loss_of(const std::vector<Proposal>& all, const Limits& limits) {
  double best = std::numeric_limits<double>::infinity();
  for (const Proposal& p : all)
    if (within(p, limits)) best = std::min(best, p.loss);
  return best;
}

struct Fixture {
  Spec spec = tiny_spec();
  Sensitivities s;
  Hardware hardware = find_hardware(known_hardware(), "h100");
  Use use = use_of_tests();
  std::vector<Proposal> all;
  explicit Fixture(std::uint64_t seed, bool tied = true) : spec(tiny_spec(tied)) {
    for (auto& [name, linear] : linears(spec)) linear->scheme = parse_scheme("bf16");
    spec.embed = parse_scheme("bf16");
    s = some_losses(spec, seed);
    all = everything(s, spec, hardware, use);
  }
};

TEST(Search, FindsWhatTryingEverythingFinds) {
  Random random(41);
  int possible = 0, best_found = 0;
  for (std::uint64_t seed = 0; seed < 12; seed++) {
    const Fixture f(seed, seed % 2 == 0);
    const Search search(f.s, f.spec, f.hardware, f.use);
    const Proposal base = search.as_it_is();
    EXPECT_EQ(base.loss, 0);
    EXPECT_EQ(base.weight_bytes, weight_bytes(f.spec));
    for (int round = 0; round < 20; round++) {
      Limits limits;
      const auto part = [&] { return 0.7 + 0.3 * random.uniform(); };
      if (round % 4 != 1) limits.bytes = part() * static_cast<double>(base.weight_bytes);
      if (round % 4 == 2) limits.memory = part() * base.memory_bytes;
      if (round % 4 == 1 || round % 4 == 3)
        limits.seconds_per_token = part() * base.seconds_per_token;
      const double least = least_loss_of(f.all, limits);
      const auto found = search.best(limits);
      if (!std::isfinite(least)) {
        EXPECT_FALSE(found);
        const Search::Nearest nearest = search.nearest(limits);
        EXPECT_GT(nearest.excess, 0);
        for (const Proposal& p : f.all) {
          double excess = 0;
          if (limits.bytes)
            excess = std::max(excess, static_cast<double>(p.weight_bytes) / *limits.bytes - 1);
          if (limits.memory) excess = std::max(excess, p.memory_bytes / *limits.memory - 1);
          if (limits.seconds_per_token)
            excess = std::max(excess, p.seconds_per_token / *limits.seconds_per_token - 1);
          EXPECT_GE(excess, 0.9 * nearest.excess - 0.01);
        }
        continue;
      }
      possible++;
      if (!found) continue;
      EXPECT_TRUE(within(*found, limits));
      EXPECT_GE(found->loss, least * (1 - 1e-12));
      best_found += found->loss <= least * (1 + 1e-9) + 1e-15;
      // What it says of itself is what the cost model says.
      const Prediction again = predict(planned(f.spec, f.s, *found), f.hardware, f.use);
      EXPECT_EQ(found->memory_bytes, again.memory.total());
      EXPECT_EQ(found->seconds_per_token, again.seconds_per_token);
    }
  }
  EXPECT_GT(possible, 100);
  EXPECT_GE(best_found, possible * 95 / 100);
}

TEST(Search, FrontIsUndominated) {
  for (std::uint64_t seed = 20; seed < 24; seed++) {
    const Fixture f(seed);
    const Search search(f.s, f.spec, f.hardware, f.use);
    for (Axis axis : {Axis::bytes, Axis::memory, Axis::speed}) {
      const auto front = search.front(axis, {}, 1.0, 6);
      ASSERT_GE(front.size(), 2u);
      EXPECT_LE(front.size(), 6u);
      for (std::size_t i = 0; i < front.size(); i++) {
        EXPECT_GT(front[i].loss, least_loss);
        if (i > 0) {
          EXPECT_GT(cost_of(front[i], axis), cost_of(front[i - 1], axis));
          EXPECT_LT(front[i].loss, front[i - 1].loss);
        }
        for (const Proposal& p : f.all)
          EXPECT_FALSE(cost_of(p, axis) < cost_of(front[i], axis) * (1 - 1e-9) &&
                       p.loss < front[i].loss * (1 - 1e-9))
              << seed;
      }
    }
  }
}

TEST(Search, CheapestWithinALoss) {
  const Fixture f(30);
  const Search search(f.s, f.spec, f.hardware, f.use);
  for (Axis axis : {Axis::bytes, Axis::memory, Axis::speed})
    for (double loss : {0.0005, 0.003, 0.02, 0.2}) {
      double least = std::numeric_limits<double>::infinity();
      for (const Proposal& p : f.all)
        if (p.loss <= loss) least = std::min(least, cost_of(p, axis));
      const auto found = search.cheapest(axis, loss, {});
      ASSERT_TRUE(found);
      EXPECT_LE(found->loss, loss);
      EXPECT_NEAR(cost_of(*found, axis), least, 0.005 * least);
    }
}

TEST(Search, WhatStaysAsItIsIsNotPlanned) {
  const Fixture f(31);
  Proposal p;
  for (std::size_t i = 0; i < f.s.matrices.size(); i++) p.schemes.push_back(f.spec.embed);
  p.activation = parse_activation("int8:token");
  EXPECT_EQ(planned(f.spec, f.s, p), f.spec);
  p.schemes[1] = parse_scheme("int8:channel");  // blocks.0.attn.q
  const Spec after = planned(f.spec, f.s, p);
  EXPECT_EQ(to_string(after.blocks[0].attn.q.activation), "int8:token");
  EXPECT_EQ(after.blocks[0].attn.k, f.spec.blocks[0].attn.k);
}

TEST(Agreement, OrderAndScale) {
  const Agreement same = agreement({{1, 0.5}, {2, 1}, {4, 2.2}, {8, 3.9}});
  EXPECT_EQ(same.pairs, 6u);
  EXPECT_EQ(same.inverted, 0u);
  EXPECT_EQ(same.tau, 1);
  EXPECT_TRUE(same.systematic);
  EXPECT_NEAR(same.scale, std::pow(0.5 * 0.5 * 0.55 * 0.4875, 0.25), 1e-12);
  const Agreement mixed = agreement({{1, 1.3}, {2, 1.2}, {3, 3.3}, {4, 3.6}});
  EXPECT_EQ(mixed.inverted, 1u);
  EXPECT_NEAR(mixed.tau, 4.0 / 6, 1e-12);
  EXPECT_FALSE(mixed.systematic);
  EXPECT_EQ(agreement({}).tau, 1);
  EXPECT_EQ(agreement({{1, 0}, {1, 2}}).pairs, 0u);
}

TEST(Sensitivities, TheDocumentReadsBackAndKnowsItsModel) {
  const Fixture f(32);
  Sensitivities s = f.s;
  s.model = "input 12";
  s.data = "ab";
  s.tokens = 7;
  const Sensitivities again = parse_sensitivities(to_json(s).dump(), "s.json");
  EXPECT_EQ(to_json(again), to_json(s));
  EXPECT_EQ(again.caches.size(), 2u);
  EXPECT_EQ(again.activations.size(), 1u);
  check(again, f.spec, "input 12");
  EXPECT_EQ(error_of([&] { check(again, f.spec, "input 13"); }).substr(0, 6), "CH-003");
  Json broken = to_json(s);
  broken.set("caches", Json::array({Json::object({{"scheme", Json("int8")}, {"kl", Json(-1)}})}));
  EXPECT_EQ(error_of([&] { parse_sensitivities(broken.dump(), "s.json"); }).substr(0, 6), "CH-002");
}

}  // namespace
}  // namespace pare
