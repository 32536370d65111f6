// Schemes of caches: one spelling each, clear refusals, exact sizes.
#include "number/kv_scheme.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace pare {
namespace {

std::string code_of(std::string_view text) {
  try {
    parse_kv_scheme(text);
  } catch (const Error& e) {
    return e.code;
  }
  return "";
}

TEST(KvSchemeText, MeansWhatItSays) {
  const KvScheme plain = parse_kv_scheme("bf16");
  EXPECT_TRUE(plain.keys.plain() && plain.values.plain() && !plain.waits());
  EXPECT_EQ(parse_kv_scheme("int8"), KvScheme(Code::int8));
  EXPECT_EQ(parse_kv_scheme("int8").keys.grouping, KvGrouping::token);
  const KvScheme s = parse_kv_scheme("int4:g32:asym:k=channel/64,int8,sym:window=128:sinks=4");
  EXPECT_EQ(s.values, (KvPart{Code::int4, KvGrouping::group, 32, true}));
  EXPECT_EQ(s.keys, (KvPart{Code::int8, KvGrouping::channel, 64, false}));
  EXPECT_EQ(s.window, 128);
  EXPECT_EQ(s.sinks, 4);
  EXPECT_EQ(parse_kv_scheme("int2:k=channel").keys.count, 32);
  EXPECT_EQ(parse_kv_scheme("int4:k=f16").keys, KvScheme(Code::f16).keys);
  EXPECT_EQ(parse_kv_scheme("f16:k=int4").values, KvScheme(Code::f16).values);
}

TEST(KvSchemeText, OneSpellingEach) {
  for (const char* text : {"f32",
                           "f16",
                           "bf16",
                           "int8",
                           "int4",
                           "int2",
                           "e4m3",
                           "int4:asym",
                           "int4:g32",
                           "int4:g32:asym",
                           "int8:k=channel",
                           "int4:k=channel/64",
                           "int4:asym:k=channel:window=64",
                           "int4:k=asym",
                           "int4:asym:k=sym",
                           "int4:g32:k=token",
                           "int2:k=int4,channel",
                           "int4:k=f16",
                           "f16:k=int8",
                           "f16:k=int8,channel,asym",
                           "int8:window=32:sinks=4",
                           "e4m3:sinks=1",
                           "int4:g16:k=g32"})
    EXPECT_EQ(to_string(parse_kv_scheme(text)), text);
  EXPECT_EQ(to_string(parse_kv_scheme("int4:token:k=channel/32:window=0")), "int4:k=channel");
  // All combinations.
  for (Code k : {Code::f16, Code::int8, Code::int4, Code::e4m3})
    for (Code v : {Code::bf16, Code::int8, Code::int2, Code::e4m3})
      for (KvGrouping grouping : {KvGrouping::token, KvGrouping::group, KvGrouping::channel})
        for (int bits_of = 0; bits_of < 16; bits_of++) {
          KvScheme s;
          s.keys = KvScheme(k).keys;
          s.values = KvScheme(v).values;
          if (!s.keys.plain() && grouping != KvGrouping::token) {
            s.keys.grouping = grouping;
            s.keys.count = 48;
          }
          if (!s.values.plain() && (bits_of & 1) != 0)
            s.values.grouping = KvGrouping::group, s.values.count = 16;
          s.keys.asym = !s.keys.plain() && k != Code::e4m3 && (bits_of & 2) != 0;
          s.values.asym = !s.values.plain() && v != Code::e4m3 && (bits_of & 4) != 0;
          if ((bits_of & 8) != 0 && !(s.keys.plain() && s.values.plain()))
            s.window = 7, s.sinks = 3;
          EXPECT_EQ(parse_kv_scheme(to_string(s)), s) << to_string(s);
        }
}

TEST(KvSchemeText, RefusesWhatIsWrong) {
  for (const char* text : {"", "int99", "nf4", "uint8", "int8:", "int8:k", "int8:k=", "int8:k=chan",
                           "int8:k=channel/1", "int8:k=channel/", "int8:k=channel/5000", "int8:g0",
                           "int8:g", "int8:window=-1", "int8:window=", "int8:window=64:k=channel",
                           "int8:k=asym:k=sym", "int8:g70000", "int8:window=99999999999999999999"})
    EXPECT_EQ(code_of(text), "SC-001") << text;
  for (const char* text : {"f16:g32", "f16:token", "f16:window=4", "f16:sinks=4", "e4m3:asym",
                           "int4:asym:k=e4m3", "f16:asym"})
    EXPECT_EQ(code_of(text), "SC-002") << text;
}

TEST(KvSchemeText, SurvivesAnyText) {
  Random random(3);
  const std::string_view pieces[] = {"int4",        "f16", ":",     "k=",      ",",      "channel",
                                     "/",           "g",   "asym",  "window=", "sinks=", "7",
                                     "99999999999", "-",   "token", "e4m3"};
  for (int i = 0; i < 3000; i++) {
    std::string text;
    for (std::uint64_t n = random.below(9); n > 0; n--) text += pieces[random.below(16)];
    try {
      const KvScheme s = parse_kv_scheme(text);
      EXPECT_EQ(parse_kv_scheme(to_string(s)), s) << text;
    } catch (const Error& e) {
      EXPECT_TRUE(e.code == "SC-001" || e.code == "SC-002") << text;
    }
  }
}

TEST(KvSchemeSizes, AreExact) {
  const auto bytes = [](const char* text, i64 width, i64 positions) {
    return kv_packed_bytes(parse_kv_scheme(text).keys, width, positions);
  };
  EXPECT_EQ(bytes("f16", 10, 3), 60);
  EXPECT_EQ(bytes("int8", 10, 3), 3 * (10 + 4));
  EXPECT_EQ(bytes("e4m3", 10, 3), 3 * (10 + 4));
  EXPECT_EQ(bytes("int8:asym", 10, 3), 3 * (10 + 8));
  EXPECT_EQ(bytes("int4", 64, 1), 32 + 2);
  EXPECT_EQ(bytes("int4:g32:asym", 64, 1), 32 + 2 * 4);
  EXPECT_EQ(bytes("int4", 7, 1), 4 + 2);
  EXPECT_EQ(bytes("int2:g4", 10, 1), 3 + 3 * 2);
  EXPECT_EQ(bytes("int4:k=channel", 64, 64), 64 * 32 + 2 * 64 * 2);
  EXPECT_EQ(bytes("int4:k=channel,asym", 64, 33), 33 * 32 + 2 * 64 * 4);
}

// packed_end by its definition: whole groups of what lies behind sinks and before the window.
TEST(KvSchemePacking, FollowsItsDefinition) {
  for (const char* text : {"int4:k=channel/4", "int4:k=channel/4:window=6", "int8:window=3",
                           "int4:k=channel/5:window=2:sinks=3", "int8:sinks=2", "int8"}) {
    const KvScheme s = parse_kv_scheme(text);
    i64 end = s.sinks;
    for (i64 n = 0; n < 60; n++) {
      while (n - (end + s.positions()) >= s.window) end += s.positions();
      EXPECT_EQ(s.packed_end(n), end) << text << " " << n;
    }
  }
}

}  // namespace
}  // namespace pare
