#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <numeric>

#include "base/json.h"
#include "base/log.h"
#include "base/pool.h"
#include "base/random.h"
#include "base/view.h"

namespace pare {
namespace {

std::string error_of(std::string_view text) {
  try {
    parse_json(text, "doc");
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(Json, ReadsEveryKindOfValue) {
  const Json j =
      parse_json(R"( {"a":[1,-2.5e3,true,false,null],"b":{"c":"x\n\u00e9\ud83d\ude00"}} )", "doc");
  EXPECT_EQ(j.at("a").as_array()[0].as_int(), 1);
  EXPECT_DOUBLE_EQ(j.at("a").as_array()[1].as_number(), -2500.0);
  EXPECT_TRUE(j.at("a").as_array()[2].as_bool());
  EXPECT_TRUE(j.at("a").as_array()[4].is_null());
  EXPECT_EQ(j.at("b").at("c").as_string(), "x\n\xC3\xA9\xF0\x9F\x98\x80");
}

TEST(Json, KeepsIntegersExactAndPrintsBack) {
  const std::string text =
      R"({"i":9223372036854775807,"d":0.1,"e":1e-05,"s":"\"\\","n":null,"f":2.0})";
  const Json j = parse_json(text, "doc");
  EXPECT_EQ(j.at("i").as_int(), std::numeric_limits<i64>::max());
  EXPECT_EQ(j.dump(), text);
  EXPECT_EQ(parse_json(j.dump(2), "doc"), j);
}

TEST(Json, RefusesWhatHostileFilesContain) {
  for (const char* text : {"",
                           "{",
                           "[1,]",
                           "{\"a\":1,}",
                           "{\"a\" 1}",
                           "{a:1}",
                           "01",
                           "1.",
                           "1e",
                           "-",
                           "+1",
                           "nul",
                           "\"\n\"",
                           "\"abc",
                           "\"\\x\"",
                           "\"\\ud800\"",
                           "\"\\udc00\"",
                           "\"\xff\"",
                           "\"\xc0\x80\"",
                           "\"\xed\xa0\x80\"",
                           "{} x",
                           "1e999",
                           "NaN",
                           "\xEF\xBB\xBF{}",
                           "{\"a\":1,\"a\":2}"})
    EXPECT_NE(error_of(text), "") << text;
  EXPECT_NE(error_of("{\"a\":1,\"a\":2}").find("byte 7"), std::string::npos);
  EXPECT_EQ(error_of("1e-999"), "");
  EXPECT_NE(error_of(std::string(100000, '[')).find("nested too deeply"), std::string::npos);
  std::string many = "{";
  for (int i = 0; i < 100; i++) many += fmt::format("\"k{}\":0,", i);
  EXPECT_NE(error_of(many + "\"k50\":1}").find("twice"), std::string::npos);
  EXPECT_EQ(error_of(many + "\"x\":1}"), "");
}

TEST(Json, WrongTypesAreErrorsNotCrashes) {
  const Json j = parse_json(R"({"a":"x"})", "doc");
  EXPECT_THROW(j.at("a").as_int(), Error);
  EXPECT_THROW(j.at("b"), Error);
  EXPECT_THROW(j.as_array(), Error);
  EXPECT_EQ(j.find("b"), nullptr);
}

TEST(Pool, CoversEveryIndexOnceWithAnyNumberOfThreads) {
  for (int threads : {1, 2, 3, 7}) {
    Pool pool(threads);
    for (i64 count : {0, 1, 5, 64, 1000, 1001})
      for (i64 grain : {1, 16, 2000}) {
        std::vector<std::atomic<int>> hits(static_cast<std::size_t>(count));
        pool.run(count, grain, [&](i64 begin, i64 end) {
          EXPECT_EQ(begin % grain, 0);
          for (i64 i = begin; i < end; i++) hits[static_cast<std::size_t>(i)]++;
        });
        for (const auto& h : hits) ASSERT_EQ(h.load(), 1);
        pool.share(count, [&](i64 i) { hits[static_cast<std::size_t>(i)]++; });
        for (const auto& h : hits) ASSERT_EQ(h.load(), 2);
      }
  }
}

TEST(Pool, RethrowsAndStaysUsable) {
  Pool pool(3);
  EXPECT_THROW(pool.run(100, 1,
                        [](i64 b, i64) {
                          if (b > 0) fail(Exit::failed, "X", "boom");
                        }),
               Error);
  EXPECT_THROW(pool.share(100,
                          [](i64 i) {
                            if (i == 50) fail(Exit::failed, "X", "boom");
                          }),
               Error);
  std::atomic<i64> sum{0};
  pool.run(100, 1, [&](i64 b, i64 e) {
    for (i64 i = b; i < e; i++) sum += i;
  });
  EXPECT_EQ(sum.load(), 4950);
}

TEST(Random, IsAFixedSequenceWithTheRightMoments) {
  Random a(7), b(7), c(8);
  const auto first = a.bits();
  EXPECT_EQ(first, b.bits());
  EXPECT_NE(first, c.bits());
  Random r(1);
  double sum = 0, squares = 0;
  constexpr int n = 100000;
  for (int i = 0; i < n; i++) {
    const double x = r.normal();
    sum += x, squares += x * x;
  }
  // Standard errors: 1/sqrt(n) = 0.0032 for the mean, sqrt(2/n) = 0.0045 for the variance; 5 sigma.
  EXPECT_NEAR(sum / n, 0, 0.016);
  EXPECT_NEAR(squares / n, 1, 0.0225);
  for (int i = 0; i < 1000; i++) EXPECT_LT(r.below(17), 17u);
}

TEST(Error, TellsFactsAndHint) {
  Error e(Exit::input, "ST-001", "bad header", {{"found", "3"}}, "copy it again");
  e.with("file", "x.safetensors");
  EXPECT_STREQ(e.what(), "bad header (file x.safetensors; found 3); copy it again");
  EXPECT_EQ(quoted(std::string_view("a\x1b[", 3)), "'a\\x1b['");
  EXPECT_EQ(nearest("quantise", {"quantize", "run", "eval"}), "quantize");
  EXPECT_EQ(nearest("zzzzzz", {"quantize", "run", "eval"}), "");
}

TEST(Blob, SlicesShareTheOwner) {
  Blob tail;
  {
    const Blob whole = blob_of(std::vector<std::uint8_t>{1, 2, 3, 4});
    tail = whole.slice(2, 2);
  }
  EXPECT_EQ(static_cast<int>(tail.bytes[1]), 4);
}

TEST(Nearest, CountsASwapOfNeighboursAsOneChange) {
  const std::vector<std::string> words = {"show", "run", "quantize", "tokenize"};
  EXPECT_EQ(nearest("shwo", words), "show");
  EXPECT_EQ(nearest("qauntize", words), "quantize");
  EXPECT_EQ(nearest("tokenzie", words), "tokenize");
  EXPECT_EQ(nearest("rnu", words), "run");
  EXPECT_EQ(nearest("help", words), "");
  EXPECT_EQ(nearest("", words), "");
  EXPECT_EQ(nearest(std::string(100000, 'a'), {std::string(100000, 'a')}), "");  // not worth it
}

}  // namespace
}  // namespace pare
