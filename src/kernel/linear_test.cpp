#include "kernel/linear.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>
#include <tuple>

#include "base/random.h"
#include "kernel/rows.h"
#include "kernel/testing.h"
#include "number/encode.h"
#include "support.h"

namespace pare {
namespace {

const char* const schemes[] = {
    "f32",           "f16",          "bf16",          "int8:channel", "int8:g128", "int8:g32",
    "int8:g16:asym", "int8:tensor",  "int4:g128",     "int4:g32",     "int4:g16",  "int4:g64:asym",
    "int4:channel",  "int4:g256",    "int3:g128",     "int2:g64",     "int5:g32",  "int6:channel",
    "int7:g128:min", "nf4:g64",      "nf4:g64:dq",    "fp4:g64",      "e2m1:g32",  "mxfp4",
    "nvfp4",         "e4m3:channel", "e4m3:b128x128", "e5m2:channel", "q4_0",      "q4_1",
    "q8_0",          "q2_k",         "q3_k",          "q4_k",         "q5_k",      "q6_k",
    "iq4_nl",        "iq4_xs",       "int4:g48",      "int8:g24",     "e4m3:b5x48"};

// Rounding of a sum of n products in any order: n eps sum |w x|; the decoded weight itself (scale
// times code minus bias) is rounded otherwise than in the definition: 4 eps of scale * code + bias.
double float_bound(const Tensor& t, const std::vector<float>& decoded, i64 r, const float* x) {
  const i64 cols = t.cols();
  double bound = 1e-30;
  for (i64 c = 0; c < cols; c++) {
    double spread = std::abs(decoded[static_cast<std::size_t>(r * cols + c)]);
    if (!t.scheme.plain())
      spread += 2.0 * std::abs(min_at(t, r, c)) +
                std::abs(scale_at(t, r, c)) * std::abs(zero_at(t, r, c));
    bound += (static_cast<double>(cols) / 8 + 8) * 6e-8 * spread * std::abs(x[c]);
  }
  return bound;
}

TEST(Linear, EveryRowAgreesWithTheDefinition) {
  std::set<std::string_view> used;
  for (unsigned isa : classes(isa_amx))
    for (const char* text : schemes)
      for (const auto& [rows, cols] :
           {std::pair<i64, i64>{7, 300}, {57, 256}, {16, 65}, {5, 1100}}) {
        const Scheme scheme = parse_scheme(text);
        const std::vector<float> w = normal(rows * cols, 1), x = normal(15 * cols, 2);
        const Tensor t = quantize({w.data(), rows, cols}, scheme);
        const std::vector<float> decoded = decode(t);
        Pool pool(2);
        const PackedLinear packed(t, {}, 0, isa, pool);
        for (i64 batch : {1, 2, 9, 15}) {
          std::vector<float> want(static_cast<std::size_t>(batch * rows)), got(want.size());
          linear_reference(t, {}, 0, {x.data(), batch, cols}, {want.data(), batch, rows});
          packed.apply({x.data(), batch, cols}, {got.data(), batch, rows}, pool);
          used.insert(packed.kernel_name(batch));
          for (i64 b = 0; b < batch; b++)
            for (i64 r = 0; r < rows; r++) {
              const double bound = float_bound(t, decoded, r, x.data() + b * cols);
              const std::size_t k = static_cast<std::size_t>(b * rows + r);
              ASSERT_NEAR(got[k], want[k], bound) << text << " " << packed.kernel_name(batch) << " "
                                                  << rows << "x" << cols << " batch " << batch;
            }
        }
      }
  for (const LinearKernel& k : linear_kernels())
    if (k.work == LinearWork::floats && (k.isa & ~isa_here()) == 0) {
      EXPECT_TRUE(used.contains(k.name)) << k.name << " was never chosen";
    }
}

TEST(Linear, TilesOfManyInputsAgreeWithTheDefinition) {
  const i64 most = 67;
  for (const auto& [rows, cols] : {std::pair<i64, i64>{213, 1100}, {49, 2304}, {16, 65}})
    for (const char* text : {"f32", "bf16", "int8:channel", "int8:g16:asym", "int4:channel",
                             "int4:g32", "int4:g64:asym", "int4:g256", "int7:g128:min",
                             "e4m3:b128x128", "e5m2:channel", "nf4:g64", "mxfp4", "iq4_nl"}) {
      if (sanitized() && rows > 100) continue;
      const std::vector<float> w = normal(rows * cols, 1), x = normal(most * cols, 2);
      const Tensor t = quantize({w.data(), rows, cols}, parse_scheme(text));
      const std::vector<float> decoded = decode(t);
      std::vector<float> want(static_cast<std::size_t>(most * rows));
      linear_reference(t, {}, 0, {x.data(), most, cols}, {want.data(), most, rows});
      for (unsigned isa : classes(isa_amx))
        for (i64 batch : {12, 16, 17, 33, 67}) {
          if (isa == isa_scalar) continue;
          Pool pool(static_cast<int>(1 + batch % 3));
          const PackedLinear packed(t, {}, 0, isa, pool);
          std::vector<float> got(static_cast<std::size_t>(batch * rows), NAN);
          packed.apply({x.data(), batch, cols}, {got.data(), batch, rows}, pool);
          for (i64 b : {i64{0}, batch / 2, batch - 2, batch - 1})
            for (i64 r = b % 7; r < rows; r += 7) {
              const std::size_t k = static_cast<std::size_t>(b * rows + r);
              ASSERT_NEAR(got[k], want[k], float_bound(t, decoded, r, x.data() + b * cols))
                  << text << " " << packed.kernel_name(batch) << " " << rows << "x" << cols
                  << " batch " << batch << " input " << b << " row " << r;
            }
        }
    }
}

TEST(Linear, ThreeTermsAreAFloat) {
  if ((isa_here() & isa_amx) == 0) GTEST_SKIP() << "no AMX";
  std::vector<float> x = normal(200, 11);
  for (std::size_t i = 0; i < x.size(); i++) x[i] = std::ldexp(x[i], static_cast<int>(i) - 100);
  const float endless = std::numeric_limits<float>::infinity();
  for (float v : {0.0f, -0.0f, 1.0f, -3e38f, std::numeric_limits<float>::max(), endless, -endless})
    x.push_back(v);
  const i64 n = static_cast<i64>(x.size()), padded = 256, apart = 288;
  std::vector<std::uint16_t> terms(static_cast<std::size_t>(3 * apart), 1);
  split_terms_amx(x.data(), n, padded, terms.data(), apart);
  for (i64 k = 0; k < padded; k++) {
    float sum = 0;
    for (int term = 2; term >= 0; term--)
      sum += from_bf16(terms[static_cast<std::size_t>(term * apart + k)]);
    EXPECT_EQ(sum, k < n ? x[static_cast<std::size_t>(k)] : 0.0f) << k;
  }
  std::vector<float> nan(16, std::bit_cast<float>(0x7f800001));
  split_terms_amx(nan.data(), 16, 16, terms.data(), 16);
  EXPECT_TRUE(std::isnan(from_bf16(terms[0])));
}

TEST(Linear, IntegerInputsAreMultipliedAsIntegers) {
  std::set<std::string_view> used;
  for (unsigned isa : classes(isa_amx))
    for (const char* text :
         {"int8:channel", "int8:tensor", "int8:g128", "int8:g32", "int8:g16", "int4:g128",
          "int4:g32", "int4:g64:asym", "int4:channel", "int8:g64:asym", "int3:g128", "int2:g64",
          "int6:g32", "q4_k", "q4_0", "int4:g32:min", "int8:g24"})
      for (const char* input :
           {"int8:token", "int8:tensor", "int8:tensor:static", "int4:token", "int8:g64"})
        for (const auto& [rows, cols] : {std::pair<i64, i64>{9, 256}, {6, 300}, {57, 320}}) {
          if (sanitized() && rows == 9) continue;
          const Scheme scheme = parse_scheme(text);
          const Activation activation = parse_activation(input);
          const std::vector<float> w = normal(rows * cols, 3, 0.05), x = normal(29 * cols, 4);
          const Tensor t = quantize({w.data(), rows, cols}, scheme);
          Pool pool(2);
          const PackedLinear packed(t, activation, 0.03f, isa, pool);
          for (i64 batch : {i64{1}, i64{7}, rows > 48 ? i64{13} : i64{29}}) {
            std::vector<float> want(static_cast<std::size_t>(batch * rows)), got(want.size());
            linear_reference(t, activation, 0.03f, {x.data(), batch, cols},
                             {want.data(), batch, rows});
            packed.apply({x.data(), batch, cols}, {got.data(), batch, rows}, pool);
            used.insert(packed.kernel_name(batch));
            EXPECT_NE(packed.kernel_name(batch).find("integer"), std::string_view::npos);
            std::vector<float> simulated(static_cast<std::size_t>(batch * cols));
            simulate_activations({x.data(), batch, cols}, activation, 0.03f,
                                 {simulated.data(), batch, cols});
            for (i64 b = 0; b < batch; b++)
              for (i64 r = 0; r < rows; r++) {
                // Integer sums are exact; what is rounded is one scaling and one addition a group
                // (and the same for offsets): (groups + 4) eps of the sum of magnitudes.
                double magnitude = 1e-30;
                for (i64 c = 0; c < cols; c++) {
                  const double spread =
                      std::abs(scale_at(t, r, c)) *
                          (std::abs(code_at(t, r, c)) + std::abs(zero_at(t, r, c)) + 128) +
                      std::abs(min_at(t, r, c));
                  magnitude += spread * std::abs(simulated[static_cast<std::size_t>(b * cols + c)]);
                }
                const std::size_t k = static_cast<std::size_t>(b * rows + r);
                ASSERT_NEAR(got[k], want[k],
                            magnitude * 6e-8 * (static_cast<double>(scale_cols(scheme, cols)) + 4))
                    << text << " " << input << " " << packed.kernel_name(batch);
              }
          }
        }
  for (const LinearKernel& k : linear_kernels())
    if (k.work == LinearWork::integers && (k.isa & ~isa_here()) == 0) {
      EXPECT_TRUE(used.contains(k.name)) << k.name << " was never chosen";
    }
}

// Inputs that are these codes times a step; the largest code is among them, and all there is in the
// first.
struct CodedInputs {
  std::vector<std::vector<int>> codes;
  std::vector<float> values;
  float scale = 0;
  CodedInputs(i64 batch, i64 n) {
    const float step = 0.37f;
    Random random(9);
    for (i64 b = 0; b < batch; b++) {
      std::vector<int>& row = codes.emplace_back();
      for (i64 c = 0; c < n; c++)
        row.push_back(b == 0 || c == b % n ? 127
                                           : static_cast<int>(random.uniform() * 254.9) - 127);
      for (int code : row) values.push_back(static_cast<float>(code) * step);
    }
    scale = 127 * step / 127;
  }
};

// Outputs of integer tiles, rounded where they round: exact sums of a group times its scale.
std::vector<float> tiled_outputs(const Tensor& t, const CodedInputs& x) {
  const i64 n = t.cols();
  const bool grouped = t.scheme.grouping == Grouping::group && t.scheme.cols < n;
  const i64 group = grouped ? t.scheme.cols : n;
  const float lowest = static_cast<float>(1 << (bits(t.scheme.code) - 1));
  std::vector<float> y(x.codes.size() * static_cast<std::size_t>(t.rows()));
  for (i64 r = 0; r < t.rows(); r++) {
    std::vector<int> codes;
    for (i64 c = 0; c < n; c++) codes.push_back(code_at(t, r, c));
    for (std::size_t b = 0; b < x.codes.size(); b++) {
      float total = 0;
      for (i64 from = 0; from < n; from += group) {
        i64 products = 0, inputs = 0;
        for (i64 c = from; c < std::min(n, from + group); c++) {
          const int code = x.codes[b][static_cast<std::size_t>(c)];
          products += i64{codes[static_cast<std::size_t>(c)]} * code;
          inputs += code;
        }
        const float s = scale_at(t, r, from);
        total = grouped
                    ? std::fma(static_cast<float>(products), s, total)
                    : static_cast<float>(static_cast<double>(products) * static_cast<double>(s));
        if (t.scheme.offset == Offset::none) continue;
        const float bias = t.scheme.offset == Offset::zero
                               ? s * static_cast<float>(zero_at(t, r, from))
                               : min_at(t, r, from) - s * lowest;
        total = std::fma(bias, -static_cast<float>(inputs), total);
      }
      y[b * static_cast<std::size_t>(t.rows()) + static_cast<std::size_t>(r)] = x.scale * total;
    }
  }
  return y;
}

TEST(Linear, IntegerTilesOfEveryIsaHaveTheSameBits) {
  const i64 most = 79;
  for (const auto& [rows, cols] :
       {std::pair<i64, i64>{101, 1100}, {57, 320}, {213, 640}, {16, 65}, {1, 128}})
    for (const char* text :
         {"int8:channel", "int8:tensor", "int8:g128", "int8:g64:asym", "int8:g32", "int8:g16",
          "int7:g128:min", "int6:channel", "int4:channel", "int4:g256", "int4:g128",
          "int4:g64:asym", "int4:g32", "int3:g128", "int2:g64:asym"}) {
      if (sanitized() && rows > 100) continue;
      std::vector<float> w = normal(rows * cols, 3, 0.05);
      std::fill_n(w.begin(), cols, 0.05f);  // a sum of more bits than a float has, if cols > 1040
      const Tensor t = quantize({w.data(), rows, cols}, parse_scheme(text));
      const CodedInputs x(most, cols);
      const std::vector<float> want = tiled_outputs(t, x);
      for (unsigned isa : classes(isa_amx)) {
        if ((isa & isa_avx512) == 0) continue;
        for (i64 batch : {12, 13, 16, 17, 31, 32, 33, 48, 79}) {
          Pool pool(static_cast<int>(1 + batch % 3));
          const PackedLinear packed(t, parse_activation("int8:token"), 0, isa, pool);
          EXPECT_TRUE(packed.kernel_name(batch).ends_with("integer_tiles"));
          std::vector<float> got(static_cast<std::size_t>(batch * rows), NAN);
          packed.apply({x.values.data(), batch, cols}, {got.data(), batch, rows}, pool);
          for (std::size_t i = 0; i < got.size(); i++)
            ASSERT_EQ(got[i], want[i])
                << text << " " << packed.kernel_name(batch) << " " << rows << "x" << cols
                << " batch " << batch << " input " << i / static_cast<std::size_t>(rows) << " row "
                << i % static_cast<std::size_t>(rows);
        }
      }
    }
}

TEST(Linear, OneScaleARowIsExact) {
  // With one scale a row the whole sum is an integer: scalar and vector rows agree to the last bit.
  const std::vector<float> w = normal(40 * 4096, 5), x = normal(3 * 4096, 6);
  for (const char* text : {"int8:channel", "int4:channel"}) {
    const Tensor t = quantize({w.data(), 40, 4096}, parse_scheme(text));
    Pool pool(2);
    std::vector<std::vector<float>> results;
    for (unsigned isa : classes(isa_amx)) {
      const PackedLinear packed(t, parse_activation("int8:token"), 0, isa, pool);
      results.emplace_back(3 * 40);
      packed.apply({x.data(), 3, 4096}, {results.back().data(), 3, 40}, pool);
    }
    for (const auto& r : results)
      for (std::size_t i = 0; i < r.size(); i++)
        ASSERT_NEAR(r[i], results[0][i],
                    std::string(text) == "int8:channel" ? 2e-7 * std::abs(results[0][i]) : 1e-4)
            << text;
  }
}

TEST(Linear, ThreadsAndBatchesDoNotChangeBits) {
  const std::vector<float> w = normal(101 * 384, 7), x = normal(40 * 384, 8);
  for (unsigned isa : classes(isa_amx))
    for (const char* text : {"bf16", "int4:g32", "int8:channel", "nf4:g64", "int3:g48"})
      for (const char* input : {"none", "int8:token"}) {
        if (parse_scheme(text).plain() && std::string(input) != "none") continue;
        const Tensor t = quantize({w.data(), 101, 384}, parse_scheme(text));
        for (const auto& [many, some] : {std::pair<i64, i64>{11, 3}, {40, 13}}) {
          std::vector<float> first;
          for (int threads : {1, 2, 3, 5}) {
            Pool pool(threads);
            const PackedLinear packed(t, parse_activation(input), 0, isa, pool);
            std::vector<float> y(static_cast<std::size_t>(many * 101));
            packed.apply({x.data(), many, 384}, {y.data(), many, 101}, pool);
            if (first.empty()) first = y;
            ASSERT_EQ(std::memcmp(first.data(), y.data(), 4 * y.size()), 0)
                << text << " " << threads;
            // The same inputs in another batch.
            std::vector<float> part(static_cast<std::size_t>(some * 101));
            packed.apply({x.data() + 4 * 384, some, 384}, {part.data(), some, 101}, pool);
            ASSERT_EQ(std::memcmp(first.data() + 4 * 101, part.data(), 4 * part.size()), 0) << text;
          }
        }
      }
}

TEST(Linear, PickIsTotal) {
  for (unsigned isa : {0u, 1u, 3u, 7u})
    for (const char* text : schemes)
      for (const char* input : {"none", "int8:token", "e4m3:token", "int8:g128"})
        for (i64 batch : {1, 2, 512}) {
          const LinearKernel& k =
              pick(parse_scheme(text), parse_activation(input), 4096, batch, isa);
          EXPECT_EQ(k.isa & ~isa, 0u);
        }
  // bf16 holds the values of int4 and not those of nf4.
  EXPECT_EQ(pick(parse_scheme("int4:g64"), {}, 4096, 64, 7).name, "linear_nib4_amx_tiles");
  EXPECT_EQ(pick(parse_scheme("nf4:g64"), {}, 4096, 64, 7).name, "linear_nib4_avx512_tiles");
  EXPECT_EQ(pick(parse_scheme("int4:g32"), {}, 4096, 1, isa_avx2 | isa_avx512).name,
            "linear_nib4_avx512_vector");
  // Sums of a longer row might not fit 32 bits.
  for (const auto& [in, isa, name] :
       {std::tuple<i64, unsigned, const char*>{65536, 3, "linear_i8_avx512_integer_tiles"},
        {65664, 3, "linear_i8_avx512_integers"},
        {65536, 7, "linear_i8_amx_integer_tiles"},
        {65664, 7, "linear_i8_avx512_integers"}})
    EXPECT_EQ(pick(parse_scheme("int8:channel"), parse_activation("int8:token"), in, 64, isa).name,
              name);
  EXPECT_EQ(pick(parse_scheme("int4:g32"), parse_activation("int8:token"), 4096, 4, isa_avx2).name,
            "linear_nib4_avx2_integers");
}

}  // namespace
}  // namespace pare
