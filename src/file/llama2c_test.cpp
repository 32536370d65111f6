#include "file/llama2c.h"

#include <map>

#include "file/io.h"
#include "file/test_support.h"

namespace pare {
namespace {

std::vector<std::uint8_t> sample_llama2c(bool tied) {
  const std::int32_t h[7] = {8, 12, 2, 4, 2, tied ? 10 : -10, 16};
  const std::size_t floats =
      10 * 8 * (tied ? 1 : 2) + 2 * (2 * 8 + 2 * 64 + 2 * 4 * 8 + 3 * 12 * 8) + 8 + 16 * 2;
  std::vector<std::uint8_t> file(28 + 4 * floats);
  std::memcpy(file.data(), h, sizeof h);
  return file;
}

TEST(Llama2c, ReadsBothKindsAndRefusesOthers) {
  for (bool tied : {true, false}) {
    const Llama2c m = parse_llama2c(blob_of(sample_llama2c(tied)), "f");
    EXPECT_EQ(m.tied, tied);
    EXPECT_EQ(m.tensors.size(), 1u + 2 * 9 + 1 + (tied ? 0 : 1));
    EXPECT_EQ(m.kv_heads, 2);
  }
  // The classifier may not be missing, nor there without being announced.
  for (bool tied : {true, false}) {
    std::vector<std::uint8_t> file = sample_llama2c(tied);
    const std::int32_t vocab = tied ? -10 : 10;
    std::memcpy(file.data() + 20, &vocab, 4);
    EXPECT_EQ(code_of([&] { parse_llama2c(blob_of(file), "f"); }), "L2-002");
  }
  const std::vector<std::uint8_t> whole = sample_llama2c(true);
  for (std::size_t n = 0; n < whole.size() + 9; n++) {
    if (n == whole.size()) continue;
    std::vector<std::uint8_t> file = whole;
    file.resize(n);
    EXPECT_EQ(code_of([&] { parse_llama2c(blob_of(file), "f"); }), n < 28 ? "L2-001" : "L2-002");
  }
  for (std::size_t field = 0; field < 7; field++)
    for (std::int32_t value : {0, -1, 0x7fffffff, -0x7fffffff - 1, 3}) {
      std::vector<std::uint8_t> file = whole;
      std::memcpy(file.data() + 4 * field, &value, 4);
      EXPECT_NE(code_of([&] { parse_llama2c(blob_of(file), "f"); }), "") << field << " " << value;
    }
}

// Every float of the file holds its own index, so a slice tells where it came from.
TEST(Llama2c, SlicesLieWhereTheLayoutSays) {
  std::vector<std::uint8_t> file = sample_llama2c(false);
  for (std::size_t i = 28; i < file.size(); i += 4) {
    const float index = static_cast<float>((i - 28) / 4);
    std::memcpy(file.data() + i, &index, 4);
  }
  const Llama2c m = parse_llama2c(blob_of(file), "f");
  std::map<std::string, std::pair<float, std::vector<i64>>> found;
  for (const Llama2c::Tensor& t : m.tensors) {
    float first = 0;
    std::memcpy(&first, t.bytes.data(), 4);
    found[t.name] = {first, t.shape};
  }
  using Expected = std::pair<float, std::vector<i64>>;
  EXPECT_EQ(found["model.embed_tokens.weight"], Expected(0, {10, 8}));
  EXPECT_EQ(found["model.layers.1.input_layernorm.weight"], Expected(88, {8}));
  EXPECT_EQ(found["model.layers.0.self_attn.q_proj.weight"], Expected(96, {8, 8}));
  EXPECT_EQ(found["model.layers.1.self_attn.k_proj.weight"], Expected(256, {4, 8}));
  EXPECT_EQ(found["model.layers.0.self_attn.v_proj.weight"], Expected(288, {4, 8}));
  EXPECT_EQ(found["model.layers.0.self_attn.o_proj.weight"], Expected(352, {8, 8}));
  EXPECT_EQ(found["model.layers.0.post_attention_layernorm.weight"], Expected(480, {8}));
  EXPECT_EQ(found["model.layers.1.mlp.gate_proj.weight"], Expected(592, {12, 8}));
  EXPECT_EQ(found["model.layers.0.mlp.down_proj.weight"], Expected(688, {8, 12}));
  EXPECT_EQ(found["model.layers.0.mlp.up_proj.weight"], Expected(880, {12, 8}));
  EXPECT_EQ(found["model.norm.weight"], Expected(1072, {8}));
  EXPECT_EQ(found["lm_head.weight"], Expected(1080 + 32, {10, 8}));
}

TEST(Llama2c, ReadsTrainedModels) {
  const auto path = shared_data("models/stories260K/stories260K.bin");
  PARE_SKIP_WITHOUT(path);
  const Llama2c m = parse_llama2c(map_file(path), path.string());
  EXPECT_EQ(m.dim, 64);
  EXPECT_EQ(m.hidden, 172);
  EXPECT_EQ(m.layers, 5);
  EXPECT_EQ(m.kv_heads, 4);
  EXPECT_EQ(m.vocab, 512);
  EXPECT_EQ(m.positions, 512);
  EXPECT_TRUE(m.tied);
}

}  // namespace
}  // namespace pare
