#include <gtest/gtest.h>

#include "number/scheme.h"

namespace pare {
namespace {

TEST(Scheme, TextParsesAndPrintsBack) {
  for (const char* text : {"f32",
                           "bf16",
                           "e4m3",
                           "int8:channel",
                           "int8:tensor",
                           "int4:g128",
                           "int4:g32:asym",
                           "int3:g128",
                           "int2:g64",
                           "nf4:g64:dq",
                           "nf4:g64",
                           "e4m3:b128x128",
                           "e4m3:channel:s=f32",
                           "mxfp4",
                           "nvfp4",
                           "q4_0",
                           "q4_1",
                           "q5_0",
                           "q5_1",
                           "q8_0",
                           "q2_k",
                           "q3_k",
                           "q4_k",
                           "q5_k",
                           "q6_k",
                           "iq4_nl",
                           "iq4_xs",
                           "int4:g128:s=f16",
                           "int8:g32:min:s=f32",
                           "int5:channel:asym",
                           "fp4:g64",
                           "int4:g128:2of4",
                           "int8:channel:bitmask",
                           "int7:g16",
                           "e5m2:tensor",
                           "mxfp8"}) {
    EXPECT_EQ(to_string(parse_scheme(text)), text);
  }
  // Everything that can be composed prints to something that parses to itself.
  int combinations = 0;
  for (const CodeInfo& code : all_codes())
    for (Grouping grouping :
         {Grouping::none, Grouping::tensor, Grouping::channel, Grouping::group, Grouping::block})
      for (Offset offset : {Offset::none, Offset::zero, Offset::minimum})
        for (Code scale :
             {Code::f32, Code::f16, Code::bf16, Code::e4m3, Code::e8m0, Code::uint8, Code::int6})
          for (int super : {-1, 0, 256}) {
            Scheme s;
            s.code = code.code;
            s.grouping = grouping;
            s.offset = offset;
            s.scale = grouping == Grouping::none ? Code::bf16 : scale;
            if (grouping == Grouping::group || grouping == Grouping::block) s.cols = 32;
            if (grouping == Grouping::block) s.rows = 16;
            if (super >= 0) s.second_level = true, s.super_count = super;
            try {
              check(s);
              if (code.name[0] == 'u' || code.code == Code::e8m0) continue;
            } catch (const Error&) {
              continue;
            }
            combinations++;
            ASSERT_EQ(parse_scheme(to_string(s)), s) << to_string(s);
          }
  EXPECT_GT(combinations, 300);
}

TEST(Scheme, RefusesWordsByName) {
  for (const char* text : {"",
                           "int9:g32",
                           "int4",
                           "int4:g0",
                           "int4:g-5",
                           "int4:gx",
                           "f32:channel",
                           "nf4:g64:asym",
                           "int4:g128:s=int8",
                           "int4:g128:s=",
                           "int4:g128:4of2",
                           "int4:g128:g64",
                           "uint8:g32",
                           "e8m0:g32",
                           "int4:b0x3",
                           "int4:b4",
                           "int4:channel:dq",
                           "int4:g99999999999999999999",
                           "int4:g32:",
                           "q4_k:foo"})
    EXPECT_THROW(parse_scheme(text), Error) << text;
  try {
    parse_scheme("int4:g32:asim");
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("'asim'"), std::string::npos);
    EXPECT_EQ(e.exit, Exit::usage);
  }
}

TEST(Scheme, BitsPerWeight) {
  const auto bits = [](const char* text) {
    return bits_per_weight(parse_scheme(text), 1024, 4096);
  };
  EXPECT_DOUBLE_EQ(bits("int4:g128"), 4.125);
  EXPECT_DOUBLE_EQ(bits("int4:g128:asym"), 4.125 + 4.0 / 128);
  EXPECT_DOUBLE_EQ(bits("q4_k"), 4.5);
  EXPECT_DOUBLE_EQ(bits("q6_k"), 6.5625);
  EXPECT_DOUBLE_EQ(bits("q3_k"), 3.4375);
  EXPECT_DOUBLE_EQ(bits("q2_k"), 2.625);
  EXPECT_DOUBLE_EQ(bits("q8_0"), 8.5);
  EXPECT_DOUBLE_EQ(bits("mxfp4"), 4.25);
  EXPECT_NEAR(bits("nvfp4"), 4.5, 1e-4);
  EXPECT_DOUBLE_EQ(
      bits("nf4:g64:dq"),
      4 + 8.0 / 64 + 32.0 / (64 * 256) * 4);  // 64 groups a row: one partial second level
  EXPECT_DOUBLE_EQ(bits("bf16"), 16);
}

TEST(Activation, TextParsesAndPrintsBack) {
  for (const char* text : {"none", "int8:token", "e4m3:token", "int8:tensor", "int8:tensor:static",
                           "int8:g128", "int4:token"})
    EXPECT_EQ(to_string(parse_activation(text)), text);
  for (const char* text : {"int8", "int8:row", "int3:token", "int8:token:static", "int8:g0", ""})
    EXPECT_THROW(parse_activation(text), Error) << text;
}

}  // namespace
}  // namespace pare
