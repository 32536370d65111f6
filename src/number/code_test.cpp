#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

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

// The definition, slowly: the nearest finite entry in double precision; among equals the one that
// the code's specification names.
std::uint32_t brute_force(Code code, float x) {
  const std::span<const float> table = values(code);
  double best = INFINITY;
  std::vector<std::uint32_t> nearest;
  for (std::uint32_t p = 0; p < table.size(); p++) {
    if (!std::isfinite(table[p])) continue;
    const double far = std::abs(static_cast<double>(table[p]) - x);
    if (far > best) continue;
    if (far < best) nearest.clear();
    best = far;
    nearest.push_back(p);
  }
  const auto value = [&](std::uint32_t p) { return table[p]; };
  if (nearest.size() == 1) return nearest[0];
  if (value(nearest[0]) == value(nearest[1])) {  // two zeros: the one of the sign
    for (std::uint32_t p : nearest)
      if (std::signbit(value(p)) == std::signbit(x)) return p;
  }
  // Two zeros and a neighbour: the zero of the sign competes.
  const bool two_zeros = nearest.size() == 3;
  std::erase_if(nearest, [&](std::uint32_t p) {
    return two_zeros && value(p) == 0 && std::signbit(value(p)) != std::signbit(x);
  });
  if (nearest.size() == 1) return nearest[0];
  const std::uint32_t low = value(nearest[0]) < value(nearest[1]) ? nearest[0] : nearest[1];
  const std::uint32_t high = low == nearest[0] ? nearest[1] : nearest[0];
  if (code == Code::nf4) return low;
  if (code == Code::fp4) return x < 0 ? high : low;
  if (code == Code::iq4nl) return high;
  if (info(code).integer) return (static_cast<int>(value(low)) & 1) == 0 ? low : high;
  return (low & 1) == 0 ? low : high;
}

TEST(Code, EncodeIsTheNearestEntry) {
  constexpr std::uint64_t seed = 3;
  SCOPED_TRACE(seed);
  Random random(seed);
  for (const CodeInfo& i : all_codes()) {
    if (i.bits > 8) continue;
    std::vector<float> inputs = {0.0f, -0.0f, INFINITY, -INFINITY, 1e-45f, -1e-45f, 3e38f, -3e38f};
    // Every midpoint and its neighbours, then anything.
    const Ladder steps = ladder(i.code);
    for (std::size_t k = 1; k < steps.value.size(); k++) {
      const float middle =
          static_cast<float>((static_cast<double>(steps.value[k - 1]) + steps.value[k]) / 2);
      if (i.code == Code::nf4) continue;  // its published thresholds have their own test
      for (float x : {std::nextafter(middle, -INFINITY), middle, std::nextafter(middle, INFINITY)})
        inputs.push_back(x);
    }
    for (int k = 0; k < 20000; k++)
      inputs.push_back(static_cast<float>(random.normal() * std::exp2(random.uniform() * 40 - 20)));
    for (float x : inputs) {
      // Far beyond the table all entries would be equally far, in double.
      const float beyond = std::min(2 * i.max, 3e38f);
      const std::uint32_t want = brute_force(i.code, std::clamp(x, -beyond, beyond));
      ASSERT_EQ(encode(i.code, x), want) << i.name << " " << x;
      // The ladder says the same.
      std::size_t rung = steps.from.size() - 1;
      while (x < steps.from[rung]) rung--;
      if (!(x == 0 && std::signbit(x))) {
        ASSERT_EQ(steps.pattern[rung], want) << i.name << " " << x;
      }
    }
  }
}

// All values of bf16 (so every exponent, sign and the ties between codes) through the bit
// arithmetic of the 8-bit floats.
TEST(Code, SmallFloatsOfEveryShortFloat) {
  for (Code code : {Code::e4m3, Code::e5m2})
    for (std::uint32_t p = 0; p < 65536; p++) {
      const float x = from_bf16(static_cast<std::uint16_t>(p));
      if (std::isnan(x)) {
        ASSERT_EQ(encode(code, x), 0x7fu);
      } else if (std::abs(x) < 1e6f) {
        ASSERT_EQ(encode(code, x), brute_force(code, x)) << x;
      } else {
        ASSERT_EQ(encode(code, x),
                  (std::signbit(x) ? 0x80u : 0) | (code == Code::e4m3 ? 0x7eu : 0x7bu));
      }
    }
}

TEST(Code, NotANumber) {
  for (const CodeInfo& i : all_codes()) {
    const float back = decode(i.code, encode(i.code, NAN));
    const bool has_nan = !i.integer && i.code != Code::nf4 && i.code != Code::fp4 &&
                         i.code != Code::e2m1 && i.code != Code::iq4nl;
    EXPECT_EQ(std::isnan(back), has_nan) << i.name;
    if (!has_nan) {
      EXPECT_EQ(back, i.code == Code::iq4nl ? 1.0f : 0.0f) << i.name;
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
  // A value goes up only when it is strictly greater (bitsandbytes' decision tree), in f32.
  const float thresholds[] = {-0.8480964004993439f,   -0.6106329262256622f,  -0.4599952697753906f,
                              -0.33967943489551544f,  -0.23460740596055984f, -0.13791173323988914f,
                              -0.045525018125772476f, 0.03979014977812767f,  0.1202552504837513f,
                              0.2035212516784668f,    0.2920137718319893f,   0.3893125355243683f,
                              0.5016634166240692f,    0.6427869200706482f,   0.8614784181118011f};
  for (std::uint32_t k = 0; k < std::size(thresholds); k++) {
    EXPECT_EQ(encode(Code::nf4, thresholds[k]), k);
    EXPECT_EQ(encode(Code::nf4, std::nextafter(thresholds[k], -2.0f)), k);
    EXPECT_EQ(encode(Code::nf4, std::nextafter(thresholds[k], 2.0f)), k + 1);
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

// Between every two neighbouring halves: the midpoint goes to the even one, what is next to it to
// its own side.
TEST(Code, HalvesRoundToNearestEven) {
  const auto ties = [](auto from, auto to, std::uint16_t top, const char* name) {
    for (std::uint32_t p = 0; p < top; p++) {
      const std::uint16_t low = static_cast<std::uint16_t>(p);
      const std::uint16_t high = static_cast<std::uint16_t>(p + 1);
      const float middle = static_cast<float>((static_cast<double>(from(low)) + from(high)) / 2);
      const bool exact = static_cast<double>(from(low)) + from(high) == 2.0 * middle;
      for (float sign : {1.0f, -1.0f}) {
        const std::uint16_t bit = sign < 0 ? 0x8000 : 0;
        if (exact) {
          ASSERT_EQ(to(sign * middle), bit | ((p & 1) != 0 ? high : low)) << name << " " << p;
        }
        ASSERT_EQ(to(sign * std::nextafter(middle, 0.0f)), bit | low) << name << " " << p;
        ASSERT_EQ(to(sign * std::nextafter(middle, INFINITY)), bit | high) << name << " " << p;
      }
    }
  };
  // bf16's subnormal midpoints are exact too: they are f32 subnormals with 16 more bits.
  ties(from_f16, to_f16, 0x7bff, "f16");
  ties(from_bf16, to_bf16, 0x7f7f, "bf16");
  EXPECT_EQ(to_bf16(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_EQ(to_bf16(INFINITY), 0x7f80);
  EXPECT_EQ(to_f16(-INFINITY), 0xfc00);
  EXPECT_EQ(to_f16(1e30f), 0x7c00);
}

TEST(Code, NamesAreFoundAndComplete) {
  EXPECT_EQ(all_codes().size(), 20u);
  for (const CodeInfo& i : all_codes()) {
    EXPECT_EQ(find_code(i.name), i.code);
    EXPECT_EQ(info(i.code).name, i.name);
    if (i.bits > 8) continue;
    float top = 0;
    for (float v : values(i.code))
      if (std::isfinite(v)) top = std::max(top, std::abs(v));
    EXPECT_EQ(top, i.max) << i.name;
    EXPECT_EQ(values(i.code).size(), std::size_t{1} << i.bits);
  }
  EXPECT_EQ(find_code("int9"), std::nullopt);
  EXPECT_EQ(find_code(""), std::nullopt);
}

}  // namespace
}  // namespace pare
