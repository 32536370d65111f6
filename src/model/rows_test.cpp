// Row operations on planes are exact for every scheme.
#include "base/random.h"
#include "model/test_models.h"
#include "number/encode.h"

namespace pare {
namespace {

std::vector<float> noise(i64 n) {
  Random random(9);
  std::vector<float> x(static_cast<std::size_t>(n));
  for (float& v : x) v = static_cast<float>(random.normal());
  return x;
}

TEST(Rows, SelectionAndConcatenationAreExact) {
  const std::vector<float> x = noise(24 * 64);
  for (const char* text :
       {"f32", "bf16", "int4:g32", "int8:channel", "nf4:g64:dq", "q4_0", "q8_0", "e4m3:b4x32",
        "int3:g16:asym", "int8:tensor", "nvfp4", "mxfp4", "int5:g16:min", "int2:g32"}) {
    const Tensor t = quantize({x.data(), 24, 64}, parse_scheme(text));
    const std::vector<float> all = decode(t);
    const std::vector<RowRange> ranges = {{8, 4}, {0, 4}, {20, 4}};
    const Tensor picked = select_rows(t, ranges);
    check(picked, text);
    const std::vector<float> got = decode(picked);
    std::size_t at = 0;
    for (const RowRange& r : ranges)
      for (i64 i = r.begin * 64; i < (r.begin + r.count) * 64; i++)
        ASSERT_EQ(got[at++], all[static_cast<std::size_t>(i)]) << text;
    const RowRange front[] = {{0, 8}}, back[] = {{8, 16}};
    const Tensor halves[] = {select_rows(t, front), select_rows(t, back)};
    check(halves[0], text);
    EXPECT_EQ(decode(concat_rows(halves)), all) << text;
  }
}

TEST(Rows, OneRangeIsAView) {
  const std::vector<float> x = noise(24 * 64);
  const Tensor t = quantize({x.data(), 24, 64}, parse_scheme("int4:g32"));
  const RowRange middle[] = {{5, 7}};
  const Tensor view = select_rows(t, middle);
  EXPECT_EQ(view.codes.data(), t.codes.data() + 5 * 32);
  EXPECT_EQ(view.codes.owner, t.codes.owner);
  EXPECT_EQ(view.shape, (std::vector<i64>{7, 64}));
}

TEST(Rows, VectorsAndTransposes) {
  const std::vector<float> x = noise(15);
  const Tensor v = plain_tensor(x, {15}, Code::f16);
  const std::vector<RowRange> ranges = {{10, 5}, {0, 2}};
  const Tensor picked = select_rows(v, ranges);
  EXPECT_EQ(picked.shape, std::vector<i64>{7});
  EXPECT_EQ(decode(picked)[5], decode(v)[0]);
  for (Code code : {Code::f32, Code::bf16, Code::f16}) {
    const Tensor m = plain_tensor(x, {3, 5}, code), turned = transpose(m);
    EXPECT_EQ(turned.shape, (std::vector<i64>{5, 3}));
    for (std::size_t r = 0; r < 3; r++)
      for (std::size_t c = 0; c < 5; c++)
        EXPECT_EQ(decode(m)[r * 5 + c], decode(turned)[c * 3 + r]);
  }
}

}  // namespace
}  // namespace pare
