// Where rows lie: sizes are exactly what the Spec asks for, rings forget in the right order, stored
// numbers are as near as their code allows, and every misuse is an Error with its code.
#include "engine/cache.h"

#include <limits>
#include <numeric>

#include "base/random.h"
#include "engine/store.h"
#include "engine/test_specs.h"
#include "engine/testing.h"

namespace pare {
namespace {

using testing::Ids;

TEST(KvCacheLayout, BytesAreThoseOfTheSpec) {
  const Spec plain = testing::llama_like();  // 2 heads of 10 and 10
  EXPECT_EQ(KvCache(plain, 40, Code::f32).bytes(), 3 * 40 * 2 * 20 * 4);
  EXPECT_EQ(KvCache(plain, 40, Code::f16).bytes(), 3 * 40 * 2 * 20 * 2);
  EXPECT_EQ(KvCache(plain, 40, Code::int8).bytes(), 3 * 40 * 2 * (20 + 2 * 4));

  const Spec rings = testing::changed(plain, [](Spec& s) {
    testing::set_window(s.blocks[0].attn, 5, 2);
    testing::set_window(s.blocks[1].attn, 64, 0);  // longer than the cache: no ring
  });
  EXPECT_EQ(KvCache(rings, 40, Code::f32).bytes(), (7 + 40 + 40) * 2 * 20 * 4);

  const Spec latent = testing::latent(6, 0);
  EXPECT_EQ(KvCache(latent, 40, Code::f32).bytes(), 3 * 40 * (6 + 4) * 4);
  EXPECT_EQ(KvCache(latent, 40, Code::e4m3).bytes(), 3 * 40 * (6 + 4 + 4));

  const Spec shared = testing::changed(testing::llama_like(4), [](Spec& s) {
    s.blocks[1].attn.kv_from = 0;
    s.blocks[3].attn.kv_from = 2;
  });
  EXPECT_EQ(KvCache(shared, 40, Code::f32).bytes(), 2 * 40 * 2 * 20 * 4);
  for (const Spec& spec : {plain, rings, latent, shared})
    for (Code code : {Code::f32, Code::bf16, Code::int8}) {
      i64 bytes = 0;
      for (const Block& b : spec.blocks)
        if (b.attn.kv_from < 0) bytes += kv_packed_bytes(b.attn, code, 1);
      EXPECT_EQ(bytes, kv_bytes_per_token(spec, code));
    }
}

// A ring of window 4 and 2 sinks against a list of what must be visible, under random appends and
// truncations.
TEST(KvRings, HoldWhatTheNextQuerySees) {
  const std::uint64_t seed = 5;
  SCOPED_TRACE(seed);
  Random random(seed);
  Attention a = testing::llama_like().blocks[0].attn;
  a.kv_heads = 1;
  a.heads = 1;
  a.qk_dim = a.v_dim = 1;
  testing::set_window(a, 4, 2);
  for (int round = 0; round < 300; round++) {
    KvStore store(a, 1000, Code::f32, false);
    ASSERT_TRUE(store.ring());
    std::vector<float> truth;  // the value of every position
    for (int step = 0; step < 12; step++) {
      const i64 position = static_cast<i64>(truth.size());
      const i64 count = 1 + static_cast<i64>(random.below(7));
      store.begin(position, count);
      for (i64 i = 0; i < count; i++) {
        truth.push_back(static_cast<float>(random.uniform()));
        store.put_key(0, i, &truth.back());
        store.put_value(0, i, &truth.back());
      }
      const auto check_queries = [&](i64 first, i64 last) {
        for (i64 query = first; query <= last; query++) {
          std::map<i64, float> seen;
          std::vector<KvSegment> segments;
          store.segments(segments);
          for (const KvSegment& s : segments)
            for (i64 slot = 0; slot < s.count; slot++) {
              const i64 key = s.positions != nullptr ? s.positions[slot] : s.first + slot;
              if (key > query || !(key > query - a.window || key < a.sinks)) continue;
              EXPECT_TRUE(seen.emplace(key, kv_number(s.k, 0, slot, 0)).second) << "position twice";
            }
          std::map<i64, float> want;
          for (i64 key = 0; key <= query; key++)
            if (key > query - a.window || key < a.sinks)
              want[key] = truth[static_cast<std::size_t>(key)];
          EXPECT_EQ(seen, want);
        }
      };
      check_queries(position, position + count - 1);
      store.commit();
      check_queries(position + count - 1, position + count - 1);
      const i64 size = static_cast<i64>(truth.size());
      const i64 back = static_cast<i64>(random.below(static_cast<std::uint64_t>(size + 1)));
      if (random.below(3) != 0 || !store.can_truncate(size, back)) continue;
      store.truncate(back);
      truth.resize(static_cast<std::size_t>(back));
      if (back > 0 && back == size) check_queries(back - 1, back - 1);
    }
  }
}

TEST(KvRings, SayWhenTheyCannotGoBack) {
  const Spec spec = testing::changed(testing::llama_like(),
                                     [](Spec& s) { testing::set_window(s.blocks[1].attn, 4, 2); });
  KvCache cache(spec, 32, Code::f32);
  cache.truncate(0);
  KvStore& ring = cache.state().stores[1];
  EXPECT_TRUE(ring.can_truncate(6, 3));    // nothing has been overwritten
  EXPECT_TRUE(ring.can_truncate(20, 20));  //
  EXPECT_TRUE(ring.can_truncate(20, 19));  // the oldest key leaves with the youngest
  EXPECT_FALSE(ring.can_truncate(20, 18));
  EXPECT_FALSE(ring.can_truncate(20, 5));
  EXPECT_TRUE(ring.can_truncate(20, 2));  // only sinks are left
  EXPECT_TRUE(ring.can_truncate(20, 0));
}

// Going back does not bring back what had been overwritten: a second step back counts from the
// longest that the sequence has been.
TEST(KvRings, TwoStepsBackAreNotOneStepTwice) {
  Attention a = testing::llama_like().blocks[0].attn;
  testing::set_window(a, 4, 0);
  KvStore store(a, 100, Code::f32, false);
  const std::vector<float> row(16);
  for (i64 p = 0; p < 20; p++) {
    store.begin(p, 1);
    for (i64 h = 0; h < a.kv_heads; h++) store.put_key(h, 0, row.data());
    for (i64 h = 0; h < a.kv_heads; h++) store.put_value(h, 0, row.data());
    store.commit();
  }
  ASSERT_TRUE(store.can_truncate(20, 19));
  store.truncate(19);
  EXPECT_FALSE(store.can_truncate(19, 18));
  EXPECT_TRUE(store.can_truncate(19, 0));
}

TEST(KvCacheErrors, NameWhatIsWrong) {
  Spec spec = testing::llama_like();
  EXPECT_EQ(code_of([&] { KvCache(spec, 10, Code::nf4); }), "EN-007");
  EXPECT_EQ(code_of([&] { KvCache(spec, 0, Code::f32); }), "EN-006");
  EXPECT_EQ(code_of([&] { KvCache(spec, -1, Code::f32); }), "EN-006");
  EXPECT_EQ(code_of([&] { KvCache(spec, i64{1} << 40, Code::f32); }), "EN-006");
  spec.learned_positions = 16;
  EXPECT_EQ(code_of([&] { KvCache(spec, 17, Code::f32); }), "EN-004");
  Spec wide = testing::llama_like();
  wide.blocks[0].attn.kv_heads = 60000;
  wide.blocks[0].attn.qk_dim = 60000;
  EXPECT_EQ(code_of([&] { KvCache(wide, (i64{1} << 31) - 1, Code::f32); }), "EN-006");
}

TEST(EngineErrors, ComeBeforeAnythingHasChanged) {
  const Spec spec = testing::llama_like();
  const Model model = random_model(spec, 1, Code::f32);
  Pool pool(1);
  Engine engine(model, pool);
  KvCache cache = engine.make_cache(6), other = engine.make_cache(6);
  const auto step = [&](const Ids& ids, const Ids& more = {1}) {
    const Input inputs[] = {{&cache, ids}, {&other, more}};
    engine.step(inputs, Want::last);
  };
  EXPECT_EQ(code_of([&] { step({1, 2, 53}); }), "EN-001");
  EXPECT_EQ(code_of([&] { step({1, -1}); }), "EN-001");
  EXPECT_EQ(code_of([&] { step({1}, {std::numeric_limits<std::int32_t>::max()}); }), "EN-001");
  EXPECT_EQ(code_of([&] { step({}); }), "EN-005");
  EXPECT_EQ(code_of([&] { step({1, 2, 3, 4, 5, 6, 7}); }), "EN-002");
  EXPECT_EQ(cache.size(), 0);
  EXPECT_EQ(other.size(), 0);
  step({1, 2, 3, 4});
  EXPECT_EQ(code_of([&] { step({1, 2, 3}); }), "EN-002");
  EXPECT_EQ(cache.size(), 4);
  EXPECT_EQ(other.size(), 1);
}

TEST(EngineErrors, AStepThatWasCutShortSpoilsItsCache) {
  const Spec spec = testing::changed(testing::llama_like(),
                                     [](Spec& s) { testing::set_window(s.blocks[1].attn, 3, 0); });
  const Model model = random_model(spec, 1, Code::f32);
  Pool pool(1);
  Engine engine(model, pool);
  KvCache cache = engine.make_cache(20);
  const Ids ids = {3, 1, 4, 1, 5, 9, 2, 6};
  const Input input{&cache, ids};
  Tap tap;
  tap.stage = [](const std::string& stage, Matrix<const float>) {
    if (stage == "blocks.1.attn.mix") throw std::runtime_error("enough");
  };
  const std::vector<float> want = testing::logits_of(engine, ids);
  EXPECT_THROW(engine.step({&input, 1}, Want::all, &tap), std::runtime_error);
  EXPECT_EQ(code_of([&] { engine.step({&input, 1}, Want::all); }), "EN-005");
  cache.truncate(0);
  EXPECT_EQ(testing::copy_of(engine.step({&input, 1}, Want::all)), want);
}

TEST(EngineErrors, RefuseWhatCannotBeRun) {
  Pool pool(1);
  const Spec far = testing::changed(testing::llama_like(), [](Spec& s) {
    testing::set_window(s.blocks[0].attn, 4, 0);
    s.blocks[1].attn.kv_from = 0;
  });
  EXPECT_EQ(code_of([&] { Engine(random_model(far, 1, Code::f32), pool); }), "EN-008");

  Spec permuted = testing::llama_like();
  permuted.blocks[0].attn.q.permuted = true;
  permuted.blocks[0].attn.k.outliers = 2;
  for (const auto& [name, value] : {std::pair{"permutation", 26.0f},
                                    {"permutation", -1.0f},
                                    {"permutation", 0.5f},
                                    {"permutation", NAN},
                                    {"permutation", 3.0f}}) {
    Model model = random_model(permuted, 1, Code::f32);
    std::vector<float> order(26);
    std::iota(order.begin(), order.end(), 0.0f);
    order[5] = value;
    const Tensor tensor = plain_tensor(order, {26});
    model.weights[std::string("blocks.0.attn.q.") + name].load = [tensor] { return tensor; };
    EXPECT_EQ(code_of([&] { Engine(model, pool); }), "EN-009") << value;
  }
  Model model = random_model(permuted, 1, Code::f32);
  const Tensor outside = plain_tensor(std::vector<float>{1, 26}, {2});
  model.weights["blocks.0.attn.k.outlier_index"].load = [outside] { return outside; };
  EXPECT_EQ(code_of([&] { Engine(model, pool); }), "EN-009");
  EngineOptions options;
  options.kv = Code::nf4;
  Engine engine(random_model(testing::llama_like(), 1, Code::f32), pool, options);
  EXPECT_EQ(code_of([&] { engine.make_cache(4); }), "EN-007");
}

}  // namespace
}  // namespace pare
