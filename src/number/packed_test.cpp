// The layouts of GPTQ, AWQ, bitsandbytes and FP8 against matrices that their own packers wrote
// (tests/fixtures/packed, made by tools/make_packed_fixtures.py), against published words, and
// against what cannot be stored.
#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "file/safetensors.h"
#include "number/awq.h"
#include "number/bitsandbytes.h"
#include "number/encode.h"
#include "number/fp8.h"
#include "number/gptq.h"
#include "support.h"

namespace pare {
namespace {

struct Packed {
  std::vector<RawPlane> planes;
  std::vector<float> expected;
  i64 rows = 0, cols = 0;
};

Packed packed(const std::string& name) {
  const auto path = fixture("packed/" + name + ".safetensors");
  Packed p;
  for (const StoredTensor& t : parse_safetensors(map_file(path), path.string()).tensors)
    if (t.name == "expected") {
      p.rows = t.shape[0], p.cols = t.shape[1];
      p.expected.resize(t.bytes.size() / 4);
      std::memcpy(p.expected.data(), t.bytes.data(), t.bytes.size());
    } else {
      p.planes.push_back({t.name.substr(2), std::string(dtype_name(t.dtype)), t.shape, t.bytes});
    }
  return p;
}

void expect_same_planes(const std::vector<RawPlane>& found, const std::vector<RawPlane>& want) {
  ASSERT_EQ(found.size(), want.size());
  for (const RawPlane& f : found) {
    const RawPlane* w = find_plane(want, f.suffix);
    ASSERT_NE(w, nullptr) << f.suffix;
    EXPECT_EQ(f.dtype, w->dtype) << f.suffix;
    EXPECT_EQ(f.shape, w->shape) << f.suffix;
    ASSERT_EQ(f.bytes.size(), w->bytes.size()) << f.suffix;
    EXPECT_EQ(std::memcmp(f.bytes.data(), w->bytes.data(), f.bytes.size()), 0) << f.suffix;
  }
}

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& e) {
    return e.code;
  }
  return "none";
}

std::vector<std::int32_t> indices(const Packed& p) {
  const RawPlane* plane = find_plane(p.planes, "g_idx");
  std::vector<std::int32_t> index(plane->bytes.size() / 4);
  std::memcpy(index.data(), plane->bytes.data(), plane->bytes.size());
  return index;
}

// A matrix with columns in stored order, back in the order of the inputs.
std::vector<float> in_order(const Tensor& t, const std::vector<std::int32_t>& permutation) {
  const std::vector<float> x = decode(t);
  if (permutation.empty()) return x;
  std::vector<float> out(x.size());
  const std::size_t cols = permutation.size();
  for (std::size_t i = 0; i < x.size(); i++)
    out[i / cols * cols + static_cast<std::size_t>(permutation[i % cols])] = x[i];
  return out;
}

struct GptqCase {
  const char *name, *scheme;
  bool v2;
};
class Gptq : public testing::TestWithParam<GptqCase> {};

TEST_P(Gptq, ReadsAndWritesWhatItsPackerWrote) {
  const GptqCase& c = GetParam();
  const Packed p = packed(c.name);
  const Scheme s = parse_scheme(c.scheme);
  const std::vector<std::int32_t> order = group_order(indices(p), s.cols);
  EXPECT_EQ(order.empty(), std::string(c.name) != "gptq4_order");
  const Tensor t = from_gptq(p.planes, s, p.rows, p.cols, order, c.v2);
  EXPECT_EQ(in_order(t, order), p.expected);
  if (std::string(c.name) == "gptq4_order") {  // it holds a zero point of 0, less one
    EXPECT_EQ(error_of([&] { to_gptq(t, order, false); }), "NU-034");
    const Tensor again = from_gptq(to_gptq(t, order, true), s, p.rows, p.cols, order, true);
    EXPECT_EQ(in_order(again, order), p.expected);
  } else {
    expect_same_planes(to_gptq(t, order, c.v2), p.planes);
  }
}

INSTANTIATE_TEST_SUITE_P(Fixtures, Gptq,
                         testing::Values(GptqCase{"gptq2", "int2:g32:asym:s=f16", true},
                                         GptqCase{"gptq3", "int3:g32:asym:s=f16", true},
                                         GptqCase{"gptq3_v1", "int3:g32:asym:s=f16", false},
                                         GptqCase{"gptq4", "int4:g32:s=f16", false},
                                         GptqCase{"gptq4_order", "int4:g16:asym:s=f16", false},
                                         GptqCase{"gptq8", "int8:g64:asym:s=f16", true}),
                         [](const auto& test) { return test.param.name; });

std::vector<float> noise(i64 rows, i64 cols) {
  std::vector<float> x(static_cast<std::size_t>(rows * cols));
  std::uint32_t state = 12345;
  for (float& value : x) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<float>(static_cast<std::int32_t>(state)) * 0x1p-32f;
  }
  return x;
}
Tensor made(const std::string& scheme, i64 rows, i64 cols) {
  const std::vector<float> x = noise(rows, cols);
  return quantize({x.data(), rows, cols}, parse_scheme(scheme), {Range::absmax, 99.9, 1});
}

TEST(GptqLayout, EveryGroupingThatFitsKeepsItsValues) {
  for (const char* scheme : {"int4:channel:s=f16", "int8:tensor:s=f16", "int8:b32x32:s=f16",
                             "int4:g48:asym:s=f16", "int3:g32", "int2:g64:asym:s=f16"}) {
    const Tensor t = made(scheme, 64, 96);
    Scheme back = t.scheme;
    back.grouping = Grouping::group, back.rows = 0, back.cols = group_columns(t.scheme, 96);
    back.scale = Code::f16;
    ASSERT_FALSE(gptq_misfit(t.scheme, 64, 96)) << scheme;
    EXPECT_EQ(decode(from_gptq(to_gptq(t, {}, true), back, 64, 96, {}, true)), decode(t)) << scheme;
  }
}

TEST(GptqLayout, WhatHasNoPlaceIsNamed) {
  EXPECT_TRUE(gptq_misfit(parse_scheme("int5:g32"), 64, 64));
  EXPECT_TRUE(gptq_misfit(parse_scheme("nf4:g32"), 64, 64));
  EXPECT_TRUE(gptq_misfit(parse_scheme("q4_1"), 64, 64));  // minima are no zero points
  EXPECT_TRUE(gptq_misfit(parse_scheme("int4:g32"), 64, 60));
  EXPECT_TRUE(gptq_misfit(parse_scheme("int4:g32"), 60, 64));
  EXPECT_TRUE(gptq_misfit(parse_scheme("bf16"), 64, 64));
  Tensor t = made("int4:g32:s=f32", 32, 64);
  EXPECT_EQ(error_of([&] { to_gptq(t, {}, true); }), "NU-033");  // no f16
}

TEST(GptqLayout, BadIndicesAreRefused) {
  std::vector<std::int32_t> index(64);
  for (std::size_t i = 0; i < 64; i++) index[i] = static_cast<std::int32_t>(i / 32);
  EXPECT_TRUE(group_order(index, 32).empty());
  for (std::int32_t wrong : {2, -1, 1 << 30}) {
    index[5] = wrong;
    EXPECT_EQ(error_of([&] { group_order(index, 32); }), "NU-032") << wrong;
  }
  index[5] = 1;  // 31 and 33
  EXPECT_EQ(error_of([&] { group_order(index, 32); }), "NU-032");
  index[40] = 0;
  EXPECT_EQ(group_order(index, 32)[5], 6);
}

TEST(GptqLayout, SymmetricMeansTheMiddle) {
  const Packed p = packed("gptq4_order");
  EXPECT_EQ(error_of([&] {
              from_gptq(p.planes, parse_scheme("int4:g16:s=f16"), p.rows, p.cols, {}, false);
            }),
            "NU-035");
}

TEST(GptqLayout, PublishedWords) {  // values 0..7 along the inputs; three bits four times over
  const std::vector<float> x = [] {
    std::vector<float> v(32 * 32);
    for (std::size_t i = 0; i < v.size(); i++) v[i] = static_cast<float>(i % 32 % 8);
    return v;
  }();
  for (const auto& [scheme, words] :
       {std::pair<std::string, std::vector<std::uint32_t>>{"int4:channel:asym:s=f16", {0x76543210}},
        {"int3:channel:asym:s=f16", {0x88FAC688, 0xC688FAC6, 0xFAC688FA}}}) {
    Tensor t = made(scheme, 32, 32);
    const int b = bits(t.scheme.code);
    std::vector<std::uint32_t> codes(static_cast<std::size_t>(32 * b));
    for (i64 r = 0; r < 32; r++)
      for (i64 k = 0; k < 32; k++)
        for (i64 bit = 0; bit < b; bit++)
          codes[static_cast<std::size_t>(r * b + (k * b + bit) / 32)] |=
              (static_cast<std::uint32_t>(x[static_cast<std::size_t>(k)]) >> bit & 1u)
              << ((k * b + bit) % 32);
    t.codes = blob_of(std::move(codes));
    const std::vector<RawPlane> planes = to_gptq(t, {}, true);
    for (std::size_t w = 0; w < words.size(); w++) {
      std::uint32_t found = 0;
      std::memcpy(&found, planes[0].bytes.data() + 4 * 32 * w, 4);
      EXPECT_EQ(found, words[w]) << scheme;
    }
  }
}

TEST(AwqLayout, ReadsAndWritesWhatItsPackerWrote) {
  const Packed p = packed("awq");
  const Scheme s = parse_scheme("int4:g32:asym:s=f16");
  const Tensor t = from_awq(p.planes, s, p.rows, p.cols);
  EXPECT_EQ(decode(t), p.expected);
  expect_same_planes(to_awq(t), p.planes);
}

TEST(AwqLayout, SymmetricMatricesGetZeroPointsOfEight) {
  const Tensor t = made("int4:g32:s=f16", 16, 64);
  const std::vector<RawPlane> planes = to_awq(t);
  std::uint32_t zeros = 0;
  std::memcpy(&zeros, planes[1].bytes.data(), 4);
  EXPECT_EQ(zeros, 0x88888888u);
  EXPECT_EQ(decode(from_awq(planes, parse_scheme("int4:g32:asym:s=f16"), 16, 64)), decode(t));
}

TEST(AwqLayout, WhatHasNoPlaceIsNamed) {
  EXPECT_TRUE(awq_misfit(parse_scheme("int8:g32"), 64, 64));
  EXPECT_TRUE(awq_misfit(parse_scheme("int4:g128"), 64, 192));
  EXPECT_TRUE(awq_misfit(parse_scheme("int4:g32"), 60, 64));
  EXPECT_FALSE(awq_misfit(parse_scheme("int4:channel"), 64, 60));
}

class Bnb4 : public testing::TestWithParam<const char*> {};

TEST_P(Bnb4, ReadsWhatItsPackerWrote) {
  const std::string name = GetParam();
  const Packed p = packed(name);
  const RawPlane* state = nullptr;
  for (const RawPlane& plane : p.planes)
    if (plane.suffix.starts_with("weight.quant_state")) state = &plane;
  ASSERT_NE(state, nullptr);
  const Bnb4State s = parse_bnb4_state(*state);
  EXPECT_EQ(s.nested, name == "nf4_nested" || name == "nf4_across");
  const Tensor t = from_bnb4(p.planes, s);
  EXPECT_EQ(to_string(t.scheme), name == "nf4_across" ? "nf4:g32:s=f32"
                                 : name == "fp4"      ? "fp4:g64:s=f32"
                                                      : "nf4:g64:s=f32");
  EXPECT_EQ(decode(t), p.expected);
  if (s.nested) return;  // its dynamic map is not ours: written as plain absmax
  const std::vector<RawPlane> again = to_bnb4(t, "float32");
  for (const char* suffix : {"weight", "weight.absmax"}) {
    const RawPlane *a = find_plane(again, suffix), *b = find_plane(p.planes, suffix);
    ASSERT_EQ(a->bytes.size(), b->bytes.size());
    EXPECT_EQ(std::memcmp(a->bytes.data(), b->bytes.data(), a->bytes.size()), 0) << suffix;
  }
}

INSTANTIATE_TEST_SUITE_P(Fixtures, Bnb4, testing::Values("nf4", "nf4_nested", "nf4_across", "fp4"),
                         [](const auto& test) { return std::string(test.param); });

TEST(Bnb4Layout, DoubleQuantizationStaysWhereItIsExact) {
  for (const auto& [cols, nested] : {std::pair<i64, i64>{4096, 64}, {16384, 256}, {512, 0}}) {
    const Tensor t = made("nf4:g64:dq", 6, cols);
    const std::vector<RawPlane> planes = to_bnb4(t, "bfloat16");
    const RawPlane* state = find_plane(planes, "weight.quant_state.bitsandbytes__nf4");
    const Bnb4State s = parse_bnb4_state(*state);
    EXPECT_EQ(s.nested, nested > 0) << cols;
    if (nested > 0) {
      EXPECT_EQ(s.nested_block, nested);
    }
    EXPECT_EQ(decode(from_bnb4(planes, s)), decode(t)) << cols;
    const std::vector<RawPlane> plan = plan_bnb4(t.scheme, 6, cols, "bfloat16");
    ASSERT_EQ(plan.size(), planes.size());
    for (std::size_t i = 0; i < plan.size(); i++) EXPECT_EQ(plan[i].shape, planes[i].shape);
  }
  for (const char* scheme : {"nf4:channel:s=f32", "fp4:tensor", "nf4:g96"}) {
    const Tensor t = made(scheme, 4, 192);
    const std::vector<RawPlane> planes = to_bnb4(t, "float16");
    EXPECT_EQ(decode(from_bnb4(planes, parse_bnb4_state(planes.back()))), decode(t)) << scheme;
  }
  EXPECT_TRUE(bnb4_misfit(parse_scheme("nf4:g16"), 64, 64));
  EXPECT_TRUE(bnb4_misfit(parse_scheme("nf4:g64"), 64, 96));
}

TEST(Bnb4Layout, DamagedStatesAreRefused) {
  const Tensor t = made("nf4:g64", 4, 64);
  const std::vector<RawPlane> planes = to_bnb4(t, "float16");
  const auto with = [&](const std::string& text) {
    return RawPlane{planes.back().suffix,
                    "U8",
                    {static_cast<i64>(text.size())},
                    blob_of(std::vector<char>(text.begin(), text.end()))};
  };
  const auto state = [](const char* type, const char* block, const char* shape) {
    return fmt::format(R"({{"quant_type":{},"blocksize":{},"dtype":"float16","shape":{}}})", type,
                       block, shape);
  };
  EXPECT_EQ(parse_bnb4_state(with(state("\"nf4\"", "64", "[4,64]"))).rows, 4);
  for (const std::string& text :
       {state("\"fp4\"", "64", "[4,64]"), state("\"nf4\"", "0", "[4,64]"),
        state("\"nf4\"", "-64", "[4,64]"), state("\"nf4\"", "64", "[4,64,1]"),
        state("\"nf4\"", "64", "[4,0]"), state("\"nf4\"", "64", "[1099511627776,64]"),
        state("\"nf4\"", "\"64\"", "[4,64]"), std::string("not json"), std::string("[]")})
    EXPECT_NE(error_of([&] { parse_bnb4_state(with(text)); }), "none") << text;
  Bnb4State s = parse_bnb4_state(planes.back());
  s.rows = 5;
  EXPECT_EQ(error_of([&] { from_bnb4(planes, s); }), "NU-030");
}

TEST(Bnb8Layout, ReadsAndWrites) {
  const Packed p = packed("int8");
  const Tensor t = from_bnb8(p.planes, p.rows, p.cols);
  EXPECT_EQ(decode(t), p.expected);
  const Tensor ours = made("int8:channel", 16, 64);
  EXPECT_EQ(decode(from_bnb8(to_bnb8(ours), 16, 64)), decode(ours));
  std::vector<RawPlane> tiled = p.planes;
  for (RawPlane& plane : tiled)
    if (plane.suffix == "weight_format") plane.bytes = blob_of(std::vector<std::uint8_t>{1});
  EXPECT_EQ(error_of([&] { from_bnb8(tiled, p.rows, p.cols); }), "NU-036");
}

TEST(Fp8Layout, BlocksMayBeCutAtTheEdges) {
  const Tensor t = made("e4m3:b128x128:s=bf16", 200, 160);
  const std::vector<RawPlane> planes = to_fp8(t);
  EXPECT_EQ(planes[1].shape, (std::vector<i64>{2, 2}));
  EXPECT_EQ(
      decode(from_fp8(planes, parse_scheme("e4m3:b128x128:s=f32"), "weight_scale_inv", 200, 160)),
      decode(t));
  EXPECT_TRUE(fp8_misfit(parse_scheme("e4m3:channel"), 128, 128));
  EXPECT_TRUE(fp8_misfit(parse_scheme("int8:b128x128"), 128, 128));
}

}  // namespace
}  // namespace pare
