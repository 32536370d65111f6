// The mixtures against what llama-quantize chooses (its lines for a llama of eight blocks, heads 8,
// key/value heads 4, tied).
#include "model/gguf_types.h"

#include <gtest/gtest.h>

#include <map>

#include "file/gguf.h"
#include "model/test_models.h"

namespace pare {
namespace {

std::string type_name(const char* preset, const GgufShape& shape, const std::string& tensor,
                      i64 cols = 256) {
  return std::string(
      find_ggml_type(gguf_type(find_gguf_preset(preset), shape, tensor, {64, cols}))->name);
}

std::string over_blocks(const char* preset, const GgufShape& shape, const std::string& leaf) {
  std::string line;
  for (i64 b = 0; b < shape.blocks; b++) {
    if (b > 0) line += " ";
    line += type_name(preset, shape, fmt::format("blk.{}.{}.weight", b, leaf));
  }
  return line;
}

TEST(GgufTypes, MixturesOfEightBlocks) {
  const GgufShape s{"llama", 8, 8, 4, true, false};
  EXPECT_EQ(over_blocks("Q4_K_M", s, "attn_v"), "Q6_K Q4_K Q4_K Q6_K Q4_K Q4_K Q6_K Q6_K");
  EXPECT_EQ(over_blocks("Q4_K_M", s, "ffn_down"), "Q6_K Q4_K Q4_K Q6_K Q4_K Q4_K Q6_K Q6_K");
  EXPECT_EQ(over_blocks("Q4_K_M", s, "attn_q"), "Q4_K Q4_K Q4_K Q4_K Q4_K Q4_K Q4_K Q4_K");
  EXPECT_EQ(over_blocks("Q4_K_S", s, "attn_v"), "Q5_K Q5_K Q5_K Q5_K Q4_K Q4_K Q4_K Q4_K");
  EXPECT_EQ(over_blocks("Q4_K_S", s, "ffn_down"), "Q5_K Q4_K Q4_K Q4_K Q4_K Q4_K Q4_K Q4_K");
  EXPECT_EQ(over_blocks("Q5_K_M", s, "ffn_down"), "Q6_K Q5_K Q5_K Q6_K Q5_K Q5_K Q6_K Q6_K");
  EXPECT_EQ(over_blocks("Q3_K_M", s, "attn_v"), "Q5_K Q5_K Q4_K Q4_K Q4_K Q4_K Q4_K Q4_K");
  EXPECT_EQ(over_blocks("Q3_K_M", s, "attn_output"), "Q4_K Q4_K Q4_K Q4_K Q4_K Q4_K Q4_K Q4_K");
  EXPECT_EQ(over_blocks("Q3_K_L", s, "ffn_down"), "Q5_K Q5_K Q5_K Q5_K Q5_K Q5_K Q5_K Q5_K");
  EXPECT_EQ(over_blocks("Q2_K", s, "attn_v"), "Q3_K Q3_K Q3_K Q3_K Q3_K Q3_K Q3_K Q3_K");
  EXPECT_EQ(over_blocks("Q2_K", s, "ffn_up"), "Q2_K Q2_K Q2_K Q2_K Q2_K Q2_K Q2_K Q2_K");
  EXPECT_EQ(over_blocks("IQ4_XS", s, "ffn_down"),
            "Q5_K IQ4_XS IQ4_XS IQ4_XS IQ4_XS IQ4_XS IQ4_XS IQ4_XS");
}

TEST(GgufTypes, SharedHeadsAndSizesMoveTheRules) {
  const GgufShape shared{"llama", 8, 32, 8, false, false}, big{"llama", 80, 64, 8, false, false};
  EXPECT_EQ(type_name("Q2_K", shared, "blk.0.attn_v.weight"), "Q4_K");
  EXPECT_EQ(type_name("IQ4_NL", shared, "blk.3.attn_v.weight"), "Q5_K");
  EXPECT_EQ(type_name("Q4_K_M", big, "blk.11.attn_v.weight"), "Q5_K");  // a 70B model
  const GgufShape falcon{"falcon", 32, 71, 1, false, false};
  EXPECT_EQ(type_name("Q4_K_M", falcon, "blk.0.ffn_down.weight"), "Q6_K");
  EXPECT_EQ(type_name("Q4_K_M", falcon, "blk.2.ffn_down.weight"), "Q5_K");
  EXPECT_EQ(type_name("Q4_K_M", falcon, "blk.4.ffn_down.weight"), "Q4_K");
  EXPECT_EQ(type_name("Q4_K_M", falcon, "output.weight"), "Q8_0");
}

TEST(GgufTypes, HeadEmbeddingAndWhatIsNeverQuantized) {
  const GgufShape tied{"llama", 8, 8, 4, true, false}, untied{"llama", 8, 8, 4, false, false};
  EXPECT_EQ(type_name("Q4_K_M", tied, "token_embd.weight"), "Q6_K");
  EXPECT_EQ(type_name("Q4_K_M", untied, "token_embd.weight"), "Q4_K");
  EXPECT_EQ(type_name("Q4_0", untied, "output.weight"), "Q6_K");
  EXPECT_EQ(type_name("Q8_0", untied, "output.weight"), "Q8_0");
  EXPECT_EQ(type_name("MXFP4", untied, "output.weight"), "Q8_0");
  EXPECT_EQ(type_name("F16", untied, "output.weight"), "F16");
  EXPECT_EQ(type_name("Q4_0", untied, "position_embd.weight"), "F32");
  EXPECT_EQ(gguf_type(find_gguf_preset("Q4_0"), tied, "blk.0.attn_norm.weight", {64}), 0u);
}

TEST(GgufTypes, RowsThatAreNoWholeBlocksGetASubstitute) {
  const GgufShape s{"llama", 8, 8, 4, false, false};
  const std::string q = "blk.1.attn_q.weight";
  EXPECT_EQ(type_name("Q4_K_M", s, q, 96), "Q5_0");
  EXPECT_EQ(type_name("Q5_K_M", s, q, 96), "Q5_1");
  EXPECT_EQ(type_name("Q6_K", s, q, 96), "Q8_0");
  EXPECT_EQ(type_name("Q2_K", s, q, 96), "Q4_0");
  EXPECT_EQ(type_name("IQ4_XS", s, q, 96), "IQ4_NL");
  EXPECT_EQ(type_name("Q4_K_M", s, q, 40), "F16");
  EXPECT_EQ(type_name("Q8_0", s, q, 40), "F16");
  EXPECT_EQ(type_name("Q4_K_M", s, "output.weight", 96), "Q8_0");
}

TEST(GgufTypes, NamesInAnyCaseAndShort) {
  EXPECT_EQ(find_gguf_preset("q4_k").file_type, 15);
  EXPECT_EQ(find_gguf_preset("Q5_K").name, "Q5_K_M");
  EXPECT_EQ(error_of([] { find_gguf_preset("Q4_K_XL"); }).substr(0, 6), "MO-021");
}

}  // namespace
}  // namespace pare
