#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "base/random.h"
#include "number/code.h"

namespace pare {
namespace {

TEST(Code, EveryPatternOfSmallCodesRoundTrips) {
  for (const CodeInfo& i : all_codes()) {
    if (i.bits > 8) continue;
    for (std::uint32_t p = 0; p < (1u << i.bits); p++) {
      const float value = decode(i.code, p);
      if (!std::isfinite(value)) continue;
      EXPECT_EQ(decode(i.code, encode(i.code, value)), value) << i.name << " " << p;
      if (value != 0 || i.code == Code::e4m3 || i.code == Code::e5m2 || i.code == Code::e2m1) {
        EXPECT_EQ(encode(i.code, value), p) << i.name << " " << p;
      }
    }
    EXPECT_FALSE(find_code(i.name) == std::nullopt);
  }
}

// Brute force in double: no entry may be nearer than the one chosen.
TEST(Code, EncodeIsTheNearestEntry) {
  Random random(3);
  for (const CodeInfo& i : all_codes()) {
    if (i.bits > 8) continue;
    for (int k = 0; k < 2000; k++) {
      float x = static_cast<float>(random.normal() * std::exp2(random.uniform() * 12 - 6));
      if (i.code == Code::e8m0) x = std::abs(x);
      const double chosen = decode(i.code, encode(i.code, x));
      for (float value : values(i.code))
        if (std::isfinite(value)) {
          ASSERT_LE(std::abs(chosen - x), std::abs(static_cast<double>(value) - x))
              << i.name << " " << x;
        }
    }
  }
}

TEST(Code, GoldenValues) {
  // Sources: OCP FP8, IEEE 754; ties to even.
  EXPECT_EQ(encode(Code::e4m3, 0.1f), 0x1Du);
  EXPECT_EQ(encode(Code::e4m3, 1.0f), 0x38u);
  EXPECT_EQ(encode(Code::e4m3, 1.0625f), 0x38u);
  EXPECT_EQ(encode(Code::e4m3, 1.1875f), 0x3Au);
  EXPECT_EQ(encode(Code::e4m3, 17.0f), 0x58u);
  EXPECT_EQ(encode(Code::e4m3, 19.0f), 0x5Au);
  EXPECT_EQ(encode(Code::e4m3, 0x1p-10f), 0x00u);
  EXPECT_EQ(encode(Code::e4m3, std::nextafter(0x1p-10f, 1.0f)), 0x01u);
  EXPECT_EQ(encode(Code::e4m3, -3.3f), 0xC5u);
  EXPECT_EQ(encode(Code::e4m3, 1e9f), 0x7Eu);
  EXPECT_EQ(encode(Code::e4m3, std::numeric_limits<float>::infinity()), 0x7Eu);
  EXPECT_EQ(encode(Code::e5m2, 0.1f), 0x2Eu);
  EXPECT_EQ(encode(Code::e5m2, 0.3f), 0x35u);
  EXPECT_EQ(encode(Code::e5m2, 17.0f), 0x4Cu);
  EXPECT_EQ(encode(Code::e5m2, 500.0f), 0x60u);
  EXPECT_EQ(encode(Code::e5m2, 1e9f), 0x7Bu);
  EXPECT_EQ(to_f16(0.1f), 0x2E66);
  EXPECT_EQ(to_f16(0x1p-25f), 0x0000);
  EXPECT_EQ(to_f16(65519.9f), 0x7BFF);
  EXPECT_EQ(to_f16(65520.0f), 0x7C00);
  EXPECT_EQ(to_bf16(0.1f), 0x3DCD);
  EXPECT_EQ(to_bf16(1.00390625f), 0x3F80);
  EXPECT_EQ(to_bf16(1.01171875f), 0x3F82);
  EXPECT_TRUE(std::isnan(decode(Code::e4m3, encode(Code::e4m3, NAN))));
  EXPECT_TRUE(std::isnan(decode(Code::e8m0, 0xff)));
  EXPECT_EQ(decode(Code::e8m0, 0), 0x1p-127f);
  for (const auto& [x, code] : {std::pair{0.25f, 0u},
                                {0.75f, 2u},
                                {1.25f, 2u},
                                {1.75f, 4u},
                                {2.5f, 4u},
                                {3.5f, 6u},
                                {5.0f, 6u},
                                {9.0f, 7u}})
    EXPECT_EQ(encode(Code::e2m1, x), code) << x;
  EXPECT_EQ(encode(Code::e2m1, -0.1f), 8u);
  EXPECT_EQ(encode(Code::e2m1, 0.1f), 0u);
  EXPECT_EQ(encode(Code::int4, 2.5f), 10u);
  EXPECT_EQ(encode(Code::int4, -99.0f), 0u);
  EXPECT_EQ(decode(Code::int8, encode(Code::int8, -99.4f)), -99.0f);
}

TEST(Code, NormalFloatFollowsThePublishedThresholds) {
  // Midpoints; a value goes up only when it is strictly greater.
  for (const auto& [threshold, lower] : {std::pair{0.8614784181118011f, 14u},
                                         {0.03979014977812767f, 7u},
                                         {-0.8480964004993439f, 0u}}) {
    EXPECT_EQ(encode(Code::nf4, std::nextafter(threshold, -2.0f)), lower);
    EXPECT_EQ(encode(Code::nf4, std::nextafter(threshold, 2.0f)), lower + 1);
  }
}

TEST(Code, EveryHalfPatternRoundTrips) {
  for (std::uint32_t p = 0; p < 65536; p++) {
    const std::uint16_t h = static_cast<std::uint16_t>(p);
    if ((p & 0x7c00) != 0x7c00 || (p & 0x3ff) == 0) {
      ASSERT_EQ(to_f16(from_f16(h)), h);
    }
    if ((p & 0x7f80) != 0x7f80 || (p & 0x7f) == 0) {
      ASSERT_EQ(to_bf16(from_bf16(h)), h);
    }
  }
  EXPECT_TRUE(std::isnan(from_f16(to_f16(NAN))));
  EXPECT_TRUE(std::isnan(from_bf16(to_bf16(NAN))));
}

TEST(Code, HalvesRoundToNearestEven) {
  Random random(5);
  for (int k = 0; k < 200000; k++) {
    const float x = std::bit_cast<float>(static_cast<std::uint32_t>(random.bits()));
    if (!std::isfinite(x) || std::abs(x) > 60000.0f) continue;
    const std::uint16_t h = to_f16(x);
    const double error = std::abs(static_cast<double>(from_f16(h)) - x);
    for (int d : {-1, 1}) {
      const std::uint16_t other = static_cast<std::uint16_t>(h + d);
      const double other_error = std::abs(static_cast<double>(from_f16(other)) - x);
      if (std::isnan(other_error) || (h & 0x7fff) == 0) continue;
      ASSERT_LE(error, other_error) << x;
      if (error == other_error) {
        ASSERT_EQ(h & 1, 0) << x;
      }
    }
  }
}

}  // namespace
}  // namespace pare
