#include "kernel/ops.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "base/random.h"
#include "kernel/testing.h"

namespace pare {
namespace {

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
      EXPECT_EQ(ops.magnitude(x.data(), n), truth.magnitude(x.data(), n));
      std::vector<std::int8_t> codes(x.size()), true_codes(x.size());
      for (float top : {127.0f, 7.0f}) {  // beyond it, and on halves
        std::vector<float> wide = x;
        for (std::size_t i = 0; i < wide.size(); i += 3) wide[i] = std::round(20 * x[i]) / 2;
        ops.to_int8(wide.data(), 3.0f, top, n, codes.data()),
            truth.to_int8(wide.data(), 3.0f, top, n, true_codes.data());
        EXPECT_EQ(codes, true_codes);
      }
      EXPECT_EQ(ops.sum_int8(codes.data(), n), truth.sum_int8(codes.data(), n));
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

}  // namespace
}  // namespace pare
