// Exact conversion: the same values in another scheme, or a refusal.
#include "number/ggml_exact.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "number/encode.h"

namespace pare {
namespace {

std::vector<float> normal(i64 count, unsigned seed, float scale = 0.05f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> d(0, scale);
  std::vector<float> x(static_cast<std::size_t>(count));
  for (float& v : x) v = d(random);
  return x;
}

Tensor matrix(const std::string& scheme, i64 rows, i64 cols, float scale = 0.05f) {
  const std::vector<float> x = normal(rows * cols, 7, scale);
  return quantize({x.data(), rows, cols}, parse_scheme(scheme));
}

std::string names(const std::vector<std::uint32_t>& types) {
  std::string list;
  for (std::uint32_t t : types) {
    if (!list.empty()) list += " ";
    list += ggml_name(t);
  }
  return list;
}

TEST(GgmlExact, EveryTypeGoesToBlocksAndBackBitForBit) {
  for (std::uint32_t type : ggml_types()) {
    SCOPED_TRACE(ggml_name(type));
    const Scheme s = scheme_of_ggml(type);
    const Tensor t = matrix(to_string(s), 3, 512);
    const Blob blocks = blocks_from_tensor(t, type);
    ASSERT_EQ(static_cast<i64>(blocks.size()), 3 * 512 / ggml_block(type) * ggml_block_bytes(type));
    const Tensor back = tensor_from_ggml(type, 3, 512, blocks);
    EXPECT_EQ(decode(back), decode(t));
    EXPECT_TRUE(std::ranges::equal(blocks_from_tensor(back, type).bytes, blocks.bytes));
    ASSERT_FALSE(exact_ggml_types(t).empty());
    EXPECT_EQ(exact_ggml_types(t)[0], type);
  }
}

TEST(GgmlExact, TypesThatHoldAScheme) {
  const std::pair<const char*, const char*> rows[] = {
      {"int4:g32", "Q4_0 Q4_1 Q5_0 Q5_1 Q8_0"},
      {"int4:g128", "Q4_0 Q4_1 Q5_0 Q5_1 Q8_0"},
      {"int4:channel", "Q4_0 Q4_K Q4_1 Q5_0 Q5_K Q5_1 Q6_K Q8_0"},
      {"int3:g64", "Q4_0 Q4_1 Q5_0 Q5_1 Q8_0"},
      {"int3:channel", "Q3_K Q4_0 Q4_K Q4_1 Q5_0 Q5_K Q5_1 Q6_K Q8_0"},
      {"int2:tensor:s=f16", "Q2_K Q3_K Q4_0 Q4_K Q4_1 Q5_0 Q5_K Q5_1 Q6_K Q8_0"},
      {"int4:g32:min", "Q4_1 Q5_1"},
      {"int4:channel:min", "Q4_K Q4_1 Q5_K Q5_1"},
      {"int5:g32:min", "Q5_1"},
      {"int5:g32", "Q5_0 Q5_1 Q8_0"},
      {"int6:channel", "Q6_K Q8_0"},
      {"int8:g32", "Q8_0"},
      {"int8:b32x64", "Q8_0"},
      {"mxfp4", "MXFP4 Q5_0 Q8_0"},
      {"e2m1:g32", "Q5_0 Q8_0"},
      {"iq4nl:g64", "IQ4_NL"},
      {"int4:g16", ""},      // two scales in a block
      {"int8:g48", ""},      // blocks cross groups
      {"nf4:g64", ""},       // no grid of equal steps
      {"e4m3:channel", ""},  // likewise
      {"int4:g32:s=f32", ""},
  };
  for (const auto& [scheme, want] : rows) {
    SCOPED_TRACE(scheme);
    const Tensor t = matrix(scheme, 4, 768);
    EXPECT_EQ(names(exact_ggml_types(t)), want);
    for (std::uint32_t type : exact_ggml_types(t)) {
      const std::optional<Tensor> same = exact_in_ggml(t, type);
      ASSERT_TRUE(same.has_value());
      EXPECT_EQ(same->scheme, scheme_of_ggml(type));
      check(*same, "converted");
      EXPECT_EQ(decode(*same), decode(t)) << ggml_name(type);
    }
  }
}

TEST(GgmlExact, ZeroPointsAreLevelsOrMinima) {
  const Tensor t = matrix("int4:g32:asym", 2, 64);
  const std::vector<std::uint32_t> types = exact_ggml_types(t);
  // u (zero - lowest) has four bits more than u: bf16's eight fit f16's eleven only sometimes, but
  // levels -15 to 15 always fit Q5_0.
  EXPECT_NE(std::find(types.begin(), types.end(), 6u), types.end());
  for (std::uint32_t type : types) EXPECT_EQ(decode(*exact_in_ggml(t, type)), decode(t));
}

TEST(GgmlExact, ScalesThatF16LacksAreRefused) {
  EXPECT_TRUE(exact_ggml_types(matrix("int4:g32", 2, 64, 1e-9f)).empty());
  EXPECT_TRUE(exact_ggml_types(matrix("int4:g32", 2, 64, 1e7f)).empty());
  EXPECT_FALSE(exact_in_ggml(matrix("int4:g32", 2, 64, 1e-9f), 2).has_value());
  EXPECT_FALSE(exact_in_ggml(matrix("int4:g32", 2, 64), 12).has_value());  // rows too short
  EXPECT_FALSE(exact_in_ggml(matrix("bf16", 2, 64), 1).has_value());       // another float
  EXPECT_EQ(names(exact_ggml_types(matrix("bf16", 2, 33))), "BF16");
}

TEST(GgmlExact, PrunedWeightsStayZero) {
  Tensor t = matrix("int4:g32", 2, 64);
  Tensor masked = t;
  masked.scheme.sparsity = Sparsity::bitmask;
  masked.mask = blob_of(std::vector<std::uint8_t>(16, 0x0f));
  ASSERT_EQ(names(exact_ggml_types(masked)), "Q4_0 Q5_0 Q8_0");
  EXPECT_EQ(decode(*exact_in_ggml(masked, 2)), decode(masked));
  EXPECT_EQ(decode(*exact_in_ggml(masked, 2))[4], 0.0f);
}

}  // namespace
}  // namespace pare
