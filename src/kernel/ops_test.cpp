#include "kernel/ops.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "base/random.h"
#include "kernel/attend.h"

namespace pare {
namespace {

std::vector<unsigned> classes() {
  std::vector<unsigned> list = {isa_scalar};
  if (isa_here() & isa_avx2) list.push_back(isa_avx2);
  if (isa_here() & isa_avx512) list.push_back(isa_avx2 | isa_avx512);
  return list;
}

std::vector<float> normal(i64 n, std::uint64_t seed, double scale = 1) {
  Random random(seed);
  std::vector<float> x(static_cast<std::size_t>(n));
  for (float& v : x) v = static_cast<float>(random.normal() * scale);
  return x;
}

TEST(Ops, AgreeWithTheScalarTruthAtEveryLength) {
  const VectorOps& truth = vector_ops_reference();
  for (unsigned isa : classes()) {
    const VectorOps& ops = vector_ops(isa);
    for (i64 n = 1; n <= 70; n++) {
      const auto x = normal(n, 1), w = normal(n, 2), u = normal(n, 3);
      std::vector<float> got(x.size()), want(x.size());
      // Float sums of n <= 70 squares and a few roundings: far below 1e-5 relative.
      const auto expect_near = [&](const char* what, double tolerance) {
        for (std::size_t i = 0; i < got.size(); i++)
          ASSERT_NEAR(got[i], want[i], tolerance * (1 + std::abs(want[i]))) << what << " n " << n;
      };
      ops.rms_norm(x.data(), w.data(), 1, 1e-5f, n, got.data()),
          truth.rms_norm(x.data(), w.data(), 1, 1e-5f, n, want.data());
      expect_near("rms_norm", 3e-6);
      ops.layer_norm(x.data(), w.data(), u.data(), 1e-5f, n, got.data()),
          truth.layer_norm(x.data(), w.data(), u.data(), 1e-5f, n, want.data());
      expect_near("layer_norm", n == 1 ? 1e-3 : 2e-5);
      ops.add(x.data(), w.data(), 0.7f, n, got.data()),
          truth.add(x.data(), w.data(), 0.7f, n, want.data());
      expect_near("add", 2e-7);
      ops.softcap(x.data(), 2.5f, n, got.data()), truth.softcap(x.data(), 2.5f, n, want.data());
      expect_near("softcap", 1e-6);
      for (Act act : {Act::silu, Act::gelu, Act::gelu_tanh, Act::relu, Act::relu2}) {
        ops.activate(act, x.data(), u.data(), n, got.data()),
            truth.activate(act, x.data(), u.data(), n, want.data());
        expect_near("activate", 1e-6);
        ops.activate(act, x.data(), nullptr, n, got.data()),
            truth.activate(act, x.data(), nullptr, n, want.data());
        expect_near("activate alone", 1e-6);
      }
      EXPECT_NEAR(ops.log_sum_exp(x.data(), n), truth.log_sum_exp(x.data(), n), 1e-6);
      if (n % 2 == 0)
        for (bool interleaved : {false, true}) {
          got = want = x;
          ops.rope(got.data(), w.data(), u.data(), n, interleaved),
              truth.rope(want.data(), w.data(), u.data(), n, interleaved);
          expect_near("rope", 5e-7);
        }
    }
  }
}

TEST(Ops, ActivationsHoldOverTheWholeRange) {
  const VectorOps& truth = vector_ops_reference();
  for (unsigned isa : classes())
    for (Act act : {Act::silu, Act::gelu, Act::gelu_tanh}) {
      std::vector<float> x;
      for (int i = -12000; i <= 12000; i++) x.push_back(static_cast<float>(i) * 0.01f);
      x.insert(x.end(), {-1e4f, 1e4f, 0.0f, -0.0f, 1e-20f, -1e-20f});
      std::vector<float> got(x.size()), want(x.size());
      vector_ops(isa).activate(act, x.data(), nullptr, static_cast<i64>(x.size()), got.data());
      truth.activate(act, x.data(), nullptr, static_cast<i64>(x.size()), want.data());
      for (std::size_t i = 0; i < x.size(); i++)
        ASSERT_NEAR(got[i], want[i], 1e-6 * (1 + std::abs(want[i])))
            << static_cast<int>(act) << " at " << x[i];
    }
}

// A cache of `count` positions for `kv_heads` heads in a code, filled from random floats.
struct Cache {
  std::vector<std::byte> k, v;
  std::vector<float> k_scales, v_scales;
  std::vector<std::int32_t> positions;
  KvSegment segment;
  Cache(Code code, i64 kv_heads, i64 count, i64 qk, i64 vd, i64 first, std::uint64_t seed,
        bool shuffled) {
    const auto kf = normal(kv_heads * count * qk, seed),
               vf = normal(kv_heads * count * vd, seed + 1);
    k.resize(static_cast<std::size_t>(kv_heads * count * kv_row_bytes(code, qk) + 64));
    v.resize(static_cast<std::size_t>(kv_heads * count * kv_row_bytes(code, vd) + 64));
    for (i64 r = 0; r < kv_heads * count; r++) {
      k_scales.push_back(store_kv_row(code, kf.data() + r * qk, qk,
                                      k.data() + r * kv_row_bytes(code, qk), isa_scalar));
      v_scales.push_back(store_kv_row(code, vf.data() + r * vd, vd,
                                      v.data() + r * kv_row_bytes(code, vd), isa_scalar));
    }
    segment.code = code;
    segment.k = k.data(), segment.v = v.data();
    segment.k_row_stride = kv_row_bytes(code, qk),
    segment.k_head_stride = count * segment.k_row_stride;
    segment.v_row_stride = kv_row_bytes(code, vd),
    segment.v_head_stride = count * segment.v_row_stride;
    if (bits(code) == 8) segment.k_scales = k_scales.data(), segment.v_scales = v_scales.data();
    segment.scale_stride = count;
    segment.count = count;
    segment.first = first;
    for (i64 i = 0; i < count; i++) positions.push_back(static_cast<std::int32_t>(first + i));
    Random random(seed);
    for (i64 i = count - 1; i > 0 && shuffled; i--)
      std::swap(positions[static_cast<std::size_t>(i)],
                positions[random.below(static_cast<std::uint64_t>(i + 1))]);
    if (shuffled) segment.positions = positions.data();
  }
};

TEST(Attend, AgreesWithTheTruth) {
  int cases = 0;
  for (unsigned isa : classes())
    for (Code code : {Code::f32, Code::f16, Code::bf16, Code::int8, Code::e4m3})
      for (const auto& [heads, kv_heads, qk, vd] :
           {std::array<i64, 4>{4, 4, 16, 16}, {6, 2, 32, 24}, {5, 1, 20, 7}})
        for (const auto& [tokens, past] :
             {std::pair<i64, i64>{1, 0}, {1, 1}, {1, 63}, {1, 200}, {17, 0}, {33, 64}, {40, 257}})
          for (const auto& [window, sinks] :
               {std::pair<i64, i64>{0, 0}, {1, 0}, {8, 0}, {8, 3}, {500, 0}})
            for (bool extra : {false, true}) {
              Cache older(code, kv_heads, past, qk, vd, 0, 3, extra),
                  fresh(code, kv_heads, tokens, qk, vd, past, 5, false);
              const auto q = normal(tokens * heads * qk, 7);
              const auto sink_logits = normal(heads, 8);
              std::vector<float> got(static_cast<std::size_t>(tokens * heads * vd)),
                  want(got.size());
              AttendCall call;
              call.q = {q.data(), tokens, heads * qk};
              call.out = {got.data(), tokens, heads * vd};
              call.heads = heads, call.kv_heads = kv_heads, call.qk_dim = qk, call.v_dim = vd;
              call.scale = 0.3f;
              call.softcap = extra ? 5.0f : 0.0f;
              call.window = window, call.sinks = sinks;
              call.first_position = past;
              call.sink_logits = extra ? sink_logits.data() : nullptr;
              if (past > 0) call.segments.push_back(older.segment);
              call.segments.push_back(fresh.segment);
              attend(call, 0, attend_items(call), isa);
              call.out.data = want.data();
              attend_reference(call);
              // Weighted averages of values of order one; float sums of at most 300 products.
              for (std::size_t i = 0; i < got.size(); i++)
                ASSERT_NEAR(got[i], want[i], 2e-5)
                    << info(code).name << " isa " << isa << " tokens " << tokens << " past " << past
                    << " window " << window << " heads " << heads;
              cases++;
            }
  EXPECT_GT(cases, 1000);
}

TEST(Attend, AWindowOfOneSeesOnlyItself) {
  Cache cache(Code::f32, 1, 20, 8, 8, 0, 9, false);
  const auto q = normal(20 * 8, 10);
  std::vector<float> got(20 * 8);
  AttendCall call;
  call.q = {q.data(), 20, 8};
  call.out = {got.data(), 20, 8};
  call.heads = call.kv_heads = 1;
  call.qk_dim = call.v_dim = 8;
  call.window = 1;
  call.segments.push_back(cache.segment);
  attend(call, 0, attend_items(call), isa_here());
  const float* values = reinterpret_cast<const float*>(cache.v.data());
  for (std::size_t i = 0; i < got.size(); i++) EXPECT_NEAR(got[i], values[i], 1e-6);
}

}  // namespace
}  // namespace pare
