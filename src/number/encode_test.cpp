#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/random.h"
#include "number/compressed.h"
#include "number/encode.h"
#include "number/ggml.h"

namespace pare {
namespace {

const char* const schemes[] = {"int8:channel",
                               "int8:tensor",
                               "int8:g32:asym",
                               "int4:g128",
                               "int4:g32",
                               "int4:g32:asym",
                               "int4:channel",
                               "int3:g128",
                               "int2:g64",
                               "int5:g32:min",
                               "int6:g16",
                               "int7:channel",
                               "nf4:g64",
                               "nf4:g64:dq",
                               "fp4:g64",
                               "e2m1:g32",
                               "mxfp4",
                               "nvfp4",
                               "e4m3:channel",
                               "e4m3:tensor",
                               "e4m3:b128x128",
                               "e4m3:b5x48",
                               "e5m2:channel",
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
                               "int4:b16x16",
                               "int8:channel:s=f32",
                               "int4:g128:s=f16:asym",
                               "mxfp8"};

std::vector<float> gaussian(i64 n, std::uint64_t seed) {
  Random random(seed);
  std::vector<float> x(static_cast<std::size_t>(n));
  for (float& v : x) v = static_cast<float>(random.normal() * 0.05);
  return x;
}

double squared_error(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); i++)
    sum += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
  return sum;
}

TEST(Encoder, SnapReturnsExactlyWhatDecodeGives) {
  for (const char* text : schemes) {
    const Scheme s = parse_scheme(text);
    const i64 rows = 9, cols = 300;  // partial groups and blocks at the edges
    const std::vector<float> x = gaussian(rows * cols, 11);
    Encoder encoder(s, rows, cols, {}, {x.data(), rows, cols});
    std::vector<float> promised(x.size());
    for (i64 r = 0; r < rows; r += encoder.unit_rows())
      for (i64 c = 0; c < cols; c += encoder.unit_cols()) {
        const i64 h = std::min(encoder.unit_rows(), rows - r),
                  w = std::min(encoder.unit_cols(), cols - c);
        encoder.fit(r, c, {x.data() + r * cols + c, h, w, cols});
        for (i64 i = r; i < r + h; i++)
          for (i64 j = c; j < c + w; j++)
            promised[static_cast<std::size_t>(i * cols + j)] =
                encoder.snap(i, j, x[static_cast<std::size_t>(i * cols + j)]);
      }
    const Tensor t = encoder.finish();
    check(t, text);
    const std::vector<float> got = decode(t);
    for (std::size_t i = 0; i < got.size(); i++)
      ASSERT_EQ(got[i], promised[i]) << text << " at " << i;
  }
}

TEST(Encoder, StretchedGroupsDecodeToWhatSnapSays) {
  for (const char* text : schemes) {
    const Scheme s = parse_scheme(text);
    const i64 rows = 2, cols = 256;
    const std::vector<float> x = gaussian(rows * cols, 11);
    Encoder encoder(s, rows, cols, {}, {x.data(), rows, cols});
    EXPECT_EQ(encoder.even_codes().has_value(), info(s.code).integer && !s.second_level) << text;
    if (!encoder.even_codes() || encoder.unit_rows() > 1) continue;
    const auto [low, high] = *encoder.even_codes();
    EXPECT_EQ(high - low, static_cast<float>((1 << bits(s.code)) - 1)) << text;
    std::vector<float> promised(x.size());
    for (i64 r = 0; r < rows; r++)
      for (i64 c = 0; c < cols; c += encoder.unit_cols()) {
        const i64 w = std::min(encoder.unit_cols(), cols - c);
        encoder.fit(r, c, {x.data() + r * cols + c, 1, w, cols});
        const float scale = encoder.scale(r, c), minimum = encoder.minimum(r, c);
        encoder.stretch(r, c, 1.25f);
        EXPECT_NEAR(encoder.scale(r, c), 1.25f * scale, 0.005f * std::abs(scale)) << text;
        EXPECT_NEAR(encoder.minimum(r, c), 1.25f * minimum, 0.005f * std::abs(minimum)) << text;
        for (i64 j = c; j < c + w; j++)
          promised[static_cast<std::size_t>(r * cols + j)] =
              encoder.snap(r, j, x[static_cast<std::size_t>(r * cols + j)]);
      }
    EXPECT_EQ(decode(encoder.finish()), promised) << text;
  }
}

TEST(Encoder, SearchedRangesAreNeverWorseThanTheFullRange) {
  for (const char* text : schemes) {
    const std::vector<float> x = gaussian(16 * 512, 23);
    const Matrix<const float> m{x.data(), 16, 512};
    FitOptions full;
    full.range = Range::absmax;
    const double searched = squared_error(x, decode(quantize(m, parse_scheme(text))));
    const double plain = squared_error(x, decode(quantize(m, parse_scheme(text), full)));
    // Second-level schemes round their scales after the search, which may cost a little.
    EXPECT_LE(searched, plain * (parse_scheme(text).second_level ? 1.02 : 1.0)) << text;
    EXPECT_GT(searched, 0) << text;
  }
}

TEST(Encoder, MoreBitsLessErrorAndOffsetsHelpShiftedData) {
  std::vector<float> x = gaussian(8 * 512, 5);
  const auto error = [&](const char* text) {
    return squared_error(x, decode(quantize({x.data(), 8, 512}, parse_scheme(text))));
  };
  double last = 1e30;
  for (const char* text :
       {"int2:g64", "int3:g64", "int4:g64", "int5:g64", "int6:g64", "int7:g64", "int8:g64"}) {
    EXPECT_LT(error(text), last * 0.5) << text;
    last = error(text);
  }
  EXPECT_LT(error("nf4:g64"), error("e2m1:g64"));
  for (float& v : x) v += 0.2f;
  EXPECT_LT(error("int4:g64:asym"), 0.5 * error("int4:g64"));
  EXPECT_LT(error("int4:g64:min"), 0.5 * error("int4:g64"));
}

TEST(Encoder, ImportanceIsRespected) {
  const std::vector<float> x = gaussian(4 * 128, 9);
  std::vector<float> weight(128, 1.0f);
  for (int i = 0; i < 16; i++) weight[static_cast<std::size_t>(i)] = 1000.0f;
  const Scheme s = parse_scheme("int3:g128");
  const auto front = [&](const Tensor& t) {
    const std::vector<float> got = decode(t);
    double sum = 0;
    for (std::size_t i = 0; i < x.size(); i++)
      if (i % 128 < 16) sum += (x[i] - got[i]) * (x[i] - got[i]);
    return sum;
  };
  EXPECT_LT(front(quantize({x.data(), 4, 128}, s, {}, weight)),
            front(quantize({x.data(), 4, 128}, s)));
}

TEST(Encoder, OddDataStaysFinite) {
  std::vector<std::vector<float>> cases;
  cases.push_back(std::vector<float>(256, 0.0f));
  cases.push_back(std::vector<float>(256, 1e-42f));
  cases.push_back(std::vector<float>(256, -3.0f));
  std::vector<float> spike(256, 0.001f);
  spike[17] = 1e30f;
  cases.push_back(spike);
  std::vector<float> tiny = gaussian(256, 2);
  for (float& v : tiny) v *= 1e-30f;
  cases.push_back(tiny);
  std::vector<float> bad = gaussian(256, 3);
  bad[3] = NAN;
  bad[100] = INFINITY;
  cases.push_back(bad);
  for (const char* text : schemes)
    for (std::size_t k = 0; k < cases.size(); k++) {
      const Tensor t = quantize({cases[k].data(), 1, 256}, parse_scheme(text));
      for (float v : decode(t)) ASSERT_TRUE(std::isfinite(v)) << text << " case " << k;
      if (k == 0) {
        for (float v : decode(t)) ASSERT_EQ(v, 0.0f) << text;
      }
    }
}

TEST(Encoder, SameBitsWithAnyTeam) {
  const std::vector<float> x = gaussian(37 * 256, 31);
  for (const char* text : {"int4:g128", "q4_k", "e4m3:b128x128"}) {
    const Tensor one = quantize({x.data(), 37, 256}, parse_scheme(text));
    Pool pool(3);
    const Tensor three = quantize({x.data(), 37, 256}, parse_scheme(text), {}, {}, &pool);
    ASSERT_EQ(std::memcmp(one.codes.data(), three.codes.data(), one.codes.size()), 0);
    ASSERT_EQ(std::memcmp(one.scales.data(), three.scales.data(), one.scales.size()), 0);
    const Tensor again = requantize(plain_tensor(x, {37, 256}), parse_scheme(text), {}, {}, &pool);
    ASSERT_EQ(std::memcmp(one.codes.data(), again.codes.data(), one.codes.size()), 0);
  }
}

TEST(Activations, TokenScalesAndRounding) {
  const std::vector<float> x = {1.0f, -2.0f, 0.5f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
  std::vector<std::uint8_t> codes(8);
  std::vector<float> scales(2);
  quantize_activations({x.data(), 2, 4}, parse_activation("int8:token"), 0, {codes.data(), 2, 4},
                       {scales.data(), 2, 1});
  EXPECT_EQ(static_cast<std::int8_t>(codes[1]), -127);
  EXPECT_EQ(static_cast<std::int8_t>(codes[0]), 64);  // 63.5 to even
  EXPECT_EQ(scales[1], 0.0f);
  EXPECT_EQ(codes[4], 0);
  std::vector<float> back(8);
  simulate_activations({x.data(), 2, 4}, parse_activation("e4m3:token"), 0, {back.data(), 2, 4});
  EXPECT_FLOAT_EQ(back[1], -2.0f);
}

std::vector<std::uint8_t> from_hex(std::string_view hex) {
  std::vector<std::uint8_t> out;
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    out.push_back(static_cast<std::uint8_t>(16 * digit(hex[i]) + digit(hex[i + 1])));
  return out;
}

TEST(Ggml, GoldenBlocksDecode) {
  // x[j] = j - 16 as ggml's reference quantizers store it; each decodes within its own step.
  const struct {
    std::uint32_t type;
    const char* hex;
    float step;
  } blocks[] = {{2, "0040809191a2a2b3b3c4c4d5d5e6e6f7f7f8", 2.0f},
                {3, "224000cc80809191a2a2b3b3c4c4d5d5e6e6f7f7", 2.1f},
                {6, "003c0000ffff00112233445566778899aabbccddeeff", 0.01f},
                {7, "003c00cc0000ffff00112233445566778899aabbccddeeff", 0.01f},
                {8, "083081899199a1a9b1b9c0c8d0d8e0e8f0f8000810182028303840474f575f676f77", 0.13f},
                {39, "810e0e1d1d2d2d3c3c4c4b4b5a5a595960", 4.01f}};
  for (const auto& b : blocks) {
    const Blob bytes = blob_of(from_hex(b.hex));
    const Tensor t = tensor_from_ggml(b.type, 1, 32, bytes);
    const std::vector<float> got = decode(t);
    for (int j = 0; j < 32; j++)
      EXPECT_NEAR(got[static_cast<std::size_t>(j)], j - 16, b.step) << b.type << " " << j;
    const Blob back = blocks_from_tensor(t, b.type);
    EXPECT_EQ(std::memcmp(back.data(), bytes.data(), bytes.size()), 0) << b.type;
  }
}

TEST(Ggml, GoldenSuperBlocks) {
  // Block bytes (37 i + 11) mod 256 with d = 0.5 and dmin = 0.25 at their places.
  const struct {
    std::uint32_t type;
    int bytes, d, dmin;
    double at[6], sum;
  } cases[] = {{10, 84, 80, 82, {16.5, 0, -0.75, -1.25, 10, 2.25}, 1029.5},
               {11, 110, 108, -1, {40.5, -54, 64, 22, 0, 21}, 479},
               {12, 144, 0, 2, {157.75, -12.75, -12.75, 10, 47.5, 24.25}, 27220},
               {13, 176, 0, 2, {405.75, -12.75, -12.75, -2, 117.5, 54.25}, 58108},
               {14, 210, 208, -1, {-715.5, 848, 256, -336, 1261.5, -30}, 2306},
               {23, 136, 0, -1, {32.5, -0.5, 17.5, -3.5, 20, -8}, -5502.5}};
  for (const auto& c : cases) {
    std::vector<std::uint8_t> block(static_cast<std::size_t>(c.bytes));
    for (int i = 0; i < c.bytes; i++)
      block[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(37 * i + 11);
    block[static_cast<std::size_t>(c.d)] = 0x00, block[static_cast<std::size_t>(c.d + 1)] = 0x38;
    if (c.dmin >= 0)
      block[static_cast<std::size_t>(c.dmin)] = 0x00,
      block[static_cast<std::size_t>(c.dmin + 1)] = 0x34;
    const Blob bytes = blob_of(block);
    const Tensor t = tensor_from_ggml(c.type, 1, 256, bytes);
    check(t, "block");
    const std::vector<float> got = decode(t);
    const int index[6] = {0, 1, 17, 33, 100, 255};
    for (int k = 0; k < 6; k++)
      EXPECT_EQ(got[static_cast<std::size_t>(index[k])], c.at[k]) << c.type << " " << index[k];
    double sum = 0;
    for (float v : got) sum += v;
    EXPECT_EQ(sum, c.sum) << c.type;
    const Blob back = blocks_from_tensor(t, c.type);
    EXPECT_EQ(std::memcmp(back.data(), bytes.data(), bytes.size()), 0) << c.type;
  }
  EXPECT_THROW(tensor_from_ggml(17, 1, 256, {}), Error);
  EXPECT_THROW(tensor_from_ggml(12, 1, 100, {}), Error);
}

TEST(Compressed, RoundTripsExactly) {
  for (const char* text :
       {"int8:channel", "int4:g128", "int4:g32:asym", "int2:g64", "int4:channel", "int8:g32:asym",
        "e4m3:channel", "e4m3:b128x128", "e4m3:tensor", "nvfp4", "mxfp4"})
    for (const char* input : {"none", "int8:token", "e4m3:token"}) {
      const Scheme s = parse_scheme(text);
      const Activation a = parse_activation(input);
      const auto format = compressed_format(s, a, 256);
      if (!format) continue;
      const std::vector<float> x = gaussian(40 * 256, 77);
      const Tensor t = quantize({x.data(), 40, 256}, s);
      const std::vector<RawPlane> planes = to_compressed(t, *format);
      const std::vector<RawPlane> plan = plan_compressed(s, *format, 40, 256);
      ASSERT_EQ(planes.size(), plan.size());
      const Tensor back = from_compressed(planes, s, *format, 40, 256);
      // nvfp4's global scale is a reciprocal in the file: two roundings of one unit in the last
      // place.
      const std::vector<float> want = decode(t), got = decode(back);
      for (std::size_t i = 0; i < want.size(); i++)
        ASSERT_NEAR(got[i], want[i],
                    *format == "nvfp4-pack-quantized" ? 3e-7 * std::abs(want[i]) : 0.0)
            << text;
      Scheme again = parse_weight_args(weight_args(s), *format);
      again.scale = s.scale;  // the file's dtype says it
      EXPECT_EQ(again, s) << text;
      EXPECT_EQ(parse_activation_args(activation_args(a)), a);
    }
  EXPECT_FALSE(compressed_format(parse_scheme("int3:g128"), {}, 256));
  EXPECT_FALSE(compressed_format(parse_scheme("nf4:g64"), {}, 256));
  EXPECT_FALSE(compressed_format(parse_scheme("int4:g128"), {}, 300));
}

TEST(Compressed, GoldenPacking) {
  Scheme s = parse_scheme("int4:channel:s=f32");
  Encoder encoder(s, 1, 8);
  FitOptions absmax;
  absmax.range = Range::absmax;
  Encoder exact(s, 1, 8, absmax);
  const std::vector<float> unit = {7, 0, 0, 0, 0, 0, 0, 0};
  exact.fit(0, 0, {unit.data(), 1, 8});
  for (int k = 0; k < 8; k++) exact.snap(0, k, static_cast<float>(k - 8));
  const std::vector<RawPlane> planes = to_compressed(exact.finish(), "pack-quantized");
  std::uint32_t word = 0;
  std::memcpy(&word, planes[0].bytes.data(), 4);
  EXPECT_EQ(word, 0x76543210u);
}

std::vector<std::uint32_t> words_of(const Blob& bytes) {
  std::vector<std::uint32_t> words(bytes.size() / 4);
  std::memcpy(words.data(), bytes.data(), bytes.size());
  return words;
}

// pack_to_int32 of compressed-tensors 0.19.0 made the words: codes (5 k + row) mod 8 - 4, zero
// points (3 row + group) mod 8 - 4.
TEST(Compressed, CodesOfThreeBitsCrossWords) {
  const Scheme s = parse_scheme("int3:g32:asym:s=f16");
  const std::vector<float> codes = gaussian(16 * 64, 3);
  Tensor t = quantize({codes.data(), 16, 64}, s);
  std::vector<std::uint8_t> rows(16 * 24), zeros(16 * 2);
  for (int r = 0; r < 16; r++) {
    for (int k = 0; k < 64; k++) {
      const int pattern = (k * 5 + r) % 8, bit = 3 * k;
      rows[static_cast<std::size_t>(r * 24 + bit / 8)] |=
          static_cast<std::uint8_t>(pattern << bit % 8);
      if (bit % 8 > 5)
        rows[static_cast<std::size_t>(r * 24 + bit / 8 + 1)] |=
            static_cast<std::uint8_t>(pattern >> (8 - bit % 8));
    }
    for (int g = 0; g < 2; g++)
      zeros[static_cast<std::size_t>(2 * r + g)] = static_cast<std::uint8_t>((3 * r + g) % 8 - 4);
  }
  t.codes = blob_of(rows);
  t.zeros = blob_of(zeros);
  const std::vector<RawPlane> planes = to_compressed(t, "pack-quantized");
  const std::vector<std::uint32_t> packed = words_of(planes[0].bytes),
                                   packed_zeros = words_of(planes[3].bytes);
  EXPECT_EQ(planes[0].shape, (std::vector<i64>{16, 6}));
  EXPECT_EQ(std::vector(packed.begin(), packed.begin() + 3),
            (std::vector{0xa878cea8u, 0xcea878ceu, 0x78cea878u}));
  EXPECT_EQ(std::vector(packed.begin() + 6, packed.begin() + 9),
            (std::vector{0xf19d50f1u, 0x50f19d50u, 0x9d50f19du}));
  EXPECT_EQ(packed_zeros, (std::vector{0x98abc398u, 0xe1cc55e1u, 0xabc3u, 0xcc55u}));
  const Tensor back = from_compressed(planes, s, "pack-quantized", 16, 64);
  EXPECT_EQ(decode(back), decode(t));
  const Json three = weight_args(s);
  EXPECT_EQ(parse_weight_args(three, "pack-quantized").code, Code::int3);
  EXPECT_THROW(parse_weight_args(three, "int-quantized"), Error);
}

}  // namespace
}  // namespace pare
