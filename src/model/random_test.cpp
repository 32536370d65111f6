// Random models and the integrity scan.
#include <chrono>

#include "model/integrity.h"
#include "model/test_models.h"

namespace pare {
namespace {

TEST(Random, TensorsDependOnSeedAndNameAlone) {
  const Model a = random_model(tiny_spec(), 7, Code::bf16),
              b = random_model(tiny_spec(), 7, Code::bf16),
              c = random_model(tiny_spec(), 8, Code::bf16);
  expect_equal(a, b);
  EXPECT_NE(values(a, "blocks.0.attn.q.weight"), values(c, "blocks.0.attn.q.weight"));
  EXPECT_NE(values(a, "blocks.0.attn.q.weight"), values(a, "blocks.1.attn.q.weight"));
}

TEST(Random, MomentsAreAsSaid) {
  // A mean of n values has deviation s / sqrt(n), a mean square about s^2 sqrt(2 / n): 5 of those.
  Spec spec = tiny_spec(false);
  resize(spec.blocks[0].ffn.down, 4096, 64), resize(spec.blocks[0].ffn.up, 64, 4096);
  resize(spec.blocks[0].ffn.gate, 64, 4096);
  const Model m = random_model(spec, 1, Code::f32);
  const std::vector<float> x = values(m, "blocks.0.ffn.down.weight");
  double sum = 0, square = 0;
  for (float v : x) sum += v, square += static_cast<double>(v) * v;
  const double n = static_cast<double>(x.size());
  EXPECT_NEAR(sum / n, 0, 5 / std::sqrt(n * 4096));
  EXPECT_NEAR(square / n * 4096, 1, 5 * std::sqrt(2 / n));
  for (float v : values(m, "norm.weight")) EXPECT_NEAR(v, 1, 0.4);
}

TEST(Random, EveryFamilyHasModelsAndTheyComeBack) {
  for (const auto& entry : std::filesystem::directory_iterator(fixture("families"))) {
    SCOPED_TRACE(entry.path().string());
    const Spec spec = spec_of_folder(entry.path());
    const Model m = random_model(spec, 4, Code::f32);
    TemporaryFolder folder;
    EXPECT_EQ(save_model(m, folder / "out", false, silent()).form, "dense");
    const Model back = load_model((folder / "out").string());
    for (const auto& [name, weight] : m.weights)
      ASSERT_EQ(values(m, name), values(back, name)) << name;
  }
}

TEST(Random, KnownShapesFindTheirFamily) {
  EXPECT_EQ(random_model(known_spec("llama-3.2-1b"), 1, Code::bf16).family, "llama");
  EXPECT_EQ(random_model(known_spec("mistral-7b"), 1, Code::bf16).family, "mistral");
  EXPECT_EQ(random_model(known_spec("qwen3-0.6b"), 1, Code::bf16).family, "qwen3");
  EXPECT_EQ(random_model(known_spec("gemma-2-2b"), 1, Code::bf16).family, "gemma2");
  EXPECT_EQ(random_model(known_spec("gpt2"), 1, Code::f32).family, "gpt2");
  EXPECT_EQ(random_model(known_spec("falcon-7b"), 1, Code::f32).family, "falcon");
}

TEST(Random, OneTensorIsMadeQuickly) {
  const Model m = random_model(known_spec("llama-3.2-1b"), 1, Code::bf16);
  const auto start = std::chrono::steady_clock::now();
  const Tensor t = m.weights.at("blocks.0.ffn.up.weight").load();  // 16.8 million weights
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  RecordProperty("million_weights_per_second",
                 std::to_string(static_cast<double>(t.count()) / seconds / 1e6));
  EXPECT_EQ(t.codes.size(), std::size_t{2} * 8192 * 2048);
}

TEST(Integrity, FindsValuesThatAreNotFinite) {
  Model m = random_model(tiny_spec(), 4, Code::f32);
  Pool pool(2);
  const Integrity good = integrity(m, pool, silent());
  EXPECT_EQ(good.non_finite, 0);
  EXPECT_EQ(good.values, parameters(m.spec));
  const auto poison = [&](const char* name, std::size_t at, float value) {
    Weight& w = m.weights.at(name);
    w.load = [load = w.load, at, value] {
      const Tensor t = load();
      std::vector<float> x = decode(t);
      x[at] = value;
      return plain_tensor(x, t.shape, Code::f32);
    };
  };
  poison("blocks.1.ffn.up.weight", 77, NAN);
  poison("norm.weight", 3, -INFINITY);
  poison("embed.weight", 5, 0);
  const Integrity found = integrity(m, pool, silent());
  EXPECT_EQ(found.non_finite, 2);
  EXPECT_EQ(found.zeros, good.zeros + 1);
  EXPECT_EQ(found.first_bad, "blocks.1.ffn.up.weight");
}

}  // namespace
}  // namespace pare
