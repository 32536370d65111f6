#include "file/safetensors.h"

#include <algorithm>

#include "base/json.h"
#include "base/random.h"
#include "file/test_support.h"

namespace pare {
namespace {

Blob file_of(std::string_view header, std::string_view data = "") {
  std::vector<std::uint8_t> bytes(8);
  const std::uint64_t n = header.size();
  std::memcpy(bytes.data(), &n, 8);
  bytes.insert(bytes.end(), header.begin(), header.end());
  bytes.insert(bytes.end(), data.begin(), data.end());
  return blob_of(std::move(bytes));
}

std::string error_code(const Blob& file) {
  try {
    parse_safetensors(file, "f");
  } catch (const Error& e) {
    EXPECT_EQ(e.exit, Exit::input);
    return e.code;
  }
  return "";
}

TEST(Safetensors, ReadsTensorsAndMetadata) {
  const Safetensors s = parse_safetensors(
      file_of(
          R"( {"b":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},"__metadata__":{"format":"pt"},"a":{"dtype":"I8","shape":[],"data_offsets":[8,9]},)"
          R"("e":{"dtype":"F16","shape":[0,5],"data_offsets":[9,9]}}  )",
          "12345678x"),
      "f");
  ASSERT_EQ(s.tensors.size(), 3u);
  EXPECT_EQ(s.tensors[0].name, "b");
  EXPECT_EQ(s.tensors[0].shape, (std::vector<i64>{1, 2}));
  EXPECT_EQ(static_cast<char>(s.tensors[1].bytes.bytes[0]), 'x');
  EXPECT_EQ(s.tensors[2].bytes.size(), 0u);
  EXPECT_EQ(s.metadata[0].second, "pt");
}

TEST(Safetensors, RefusesEveryKindOfDamage) {
  const struct {
    const char *header, *data, *code;
  } cases[] = {
      {"[]", "", "ST-004"},
      {"{ ", "", "JS-001"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
       "1234", "JS-001"},
      {R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "1234", "JS-001"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "12345", "ST-013"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "123", "ST-012"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", "12345678", "ST-010"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
       "12345678", "ST-010"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", "1234", "ST-010"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", "1234", "ST-011"},
      {R"({"a":{"dtype":"F32","shape":[4194305,4194305,211106198978564],"data_offsets":[0,4]}})",
       "1234", "ST-008"},
      {R"({"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}})", "1234", "ST-006"},
      {R"({"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}})", "12", "ST-009"},
      {R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", "1234", "ST-005"},
      {R"({"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", "1234", "ST-005"},
      {R"({"a":{"dtype":"F32","shape":["1"],"data_offsets":[0,4]}})", "1234", "ST-005"},
      {R"({"a":{"dtype":"F32","shape":[18446744073709551617],"data_offsets":[0,4]}})", "1234",
       "ST-005"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", "1234", "ST-005"},
      {R"({"a":{"dtype":"F32","shape":[1]}})", "1234", "ST-005"},
      {R"({"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}})", "1234",
       "ST-007"},
      {"\xef\xbb\xbf{}", "", "JS-001"},
      {"{}x", "", "JS-001"},
      {"{\"\xff\":1}", "", "JS-001"},
      {"{} \x01", "", "JS-001"},
      {R"({"a":1})", "", "ST-005"},
      {R"({"a":{"dtype":"F32","shape":null,"data_offsets":[0,4]}})", "1234", "ST-005"},
      {R"({"a":{"dtype":7,"shape":[1],"data_offsets":[0,4]}})", "1234", "ST-005"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}})", "1234", "ST-005"},
      {R"({"a":{"dtype":"F32","shape":[1e0],"data_offsets":[0,4]}})", "1234", "ST-005"},
      {R"({"a":{"dtype":"F32","shape":[9007199254740993],"data_offsets":[0,4]}})", "1234",
       "ST-011"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]}})", "1234",
       "ST-005"},
      {R"({"a":{"dtype":"F32","shape":[2305843009213693951],"data_offsets":[0,9223372036854775804]}})",
       "1234", "ST-008"},
      {R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[1,1]}})", "1", "ST-010"},
      {R"({"a":{"dtype":"U8","shape":[4294967296,0,4294967296],"data_offsets":[0,0]}})", "",
       "ST-008"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
       "1234", "ST-010"},
      {R"({"__metadata__":{},"__metadata__":{}})", "", "JS-001"},
      {R"({"__metadata__":{"a":null}})", "", "ST-014"},
      {R"({"__metadata__":null})", "", "ST-014"},
      {R"({"__metadata__":{"a":1}})", "", "ST-014"},
      {R"({"__metadata__":[]})", "", "ST-014"},
      {R"({"":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "1234", "ST-004"},
      {"{\"a\\u0007\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", "1234", "ST-004"},
      {R"({"a":{"dtype":"F32","shape":[[[[1]]]],"data_offsets":[0,4]}})", "1234", "JS-001"},
  };
  for (const auto& c : cases) EXPECT_EQ(error_code(file_of(c.header, c.data)), c.code) << c.header;
  for (std::uint64_t n : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{3},
                          std::uint64_t{100'000'001}, ~std::uint64_t{0}, std::uint64_t{1} << 63}) {
    std::vector<std::uint8_t> bytes(10);
    std::memcpy(bytes.data(), &n, 8);
    bytes[8] = '{', bytes[9] = '}';
    EXPECT_NE(error_code(blob_of(bytes)), "") << n;
  }
}

std::string sample_file() {
  const std::string header = safetensors_header(
      {{"x", Dtype::F32, {2, 3}}, {"y", Dtype::BF16, {4}}, {"z", Dtype::U8, {5}}},
      {{"format", "pt"}});
  return header + std::string(24 + 8 + 5, 'q');
}

TEST(Safetensors, TruncationAtEveryByteIsAnError) {
  const std::string whole = sample_file();
  EXPECT_EQ(error_code(blob_of(std::vector<char>(whole.begin(), whole.end()))), "");
  for (std::size_t n = 0; n < whole.size(); n++)
    EXPECT_NE(error_code(blob_of(std::vector<char>(
                  whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n)))),
              "")
        << n;
}

TEST(Safetensors, HeaderBitFlipsNeverCrash) {
  const std::string whole = sample_file();
  for (std::size_t bit = 0; bit < 8 * (whole.size() - 37); bit++) {
    std::vector<char> bytes(whole.begin(), whole.end());
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
    error_code(blob_of(bytes));  // an Error or another valid file; nothing else
  }
}

TEST(Safetensors, WriterMakesTheReferenceHeaders) {
  const auto length = [](const std::string& header) {
    std::uint64_t n = 0;
    std::memcpy(&n, header.data(), 8);
    return n;
  };
  EXPECT_EQ(length(safetensors_header({{"attn.0", Dtype::F32, {1, 2, 3}}}, {})), 64u);
  EXPECT_EQ(length(safetensors_header({{"attn0", Dtype::F32, {1, 1, 2, 3}}}, {})), 72u);
  EXPECT_EQ(length(safetensors_header({}, {})), 8u);
  EXPECT_EQ(length(safetensors_header({}, {{"framework", "pt"}})), 40u);
  EXPECT_EQ(length(safetensors_header({{"attn.0", Dtype::F4, {1, 2}}}, {})), 64u);
}

// A random layout, damaged in a random way or not at all, against a naive oracle: sort by begin and
// demand that the ranges tile the buffer.
TEST(Safetensors, RandomLayoutsAgreeWithAnOracle) {
  constexpr std::uint64_t seed = 20261124;
  SCOPED_TRACE(seed);
  Random random(seed);
  struct Range {
    i64 rows = 0, begin = 0, end = 0;  // I16 of shape (rows)
  };
  int accepted = 0;
  constexpr int rounds = 4000;
  for (int round = 0; round < rounds; round++) {
    std::vector<Range> ranges;
    i64 at = 0;
    for (std::uint64_t n = random.below(6); n > 0; n--) {
      const i64 rows = static_cast<i64>(random.below(4));
      ranges.push_back({rows, at, at + 2 * rows});
      at += 2 * rows;
    }
    i64 size = at;
    if (!ranges.empty() && random.below(2) == 0) {
      Range& victim = ranges[random.below(ranges.size())];
      i64* const field[] = {&victim.rows, &victim.begin, &victim.end, &size};
      i64& value = *field[random.below(4)];
      value = std::max<i64>(0, value + static_cast<i64>(random.below(9)) - 4);
    }
    for (std::size_t i = ranges.size(); i > 1; i--)
      std::swap(ranges[i - 1], ranges[random.below(i)]);
    Json header = Json::object();
    for (std::size_t i = 0; i < ranges.size(); i++)
      header.set(fmt::format("t{}", i),
                 Json::object({{"dtype", Json("I16")},
                               {"shape", Json::array({Json(ranges[i].rows)})},
                               {"data_offsets",
                                Json::array({Json(ranges[i].begin), Json(ranges[i].end)})}}));
    std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) {
      return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
    });
    i64 expect = 0;
    bool good = true;
    for (const Range& r : ranges) {
      good = good && r.begin == expect && r.end - r.begin == 2 * r.rows;
      expect = r.end;
    }
    good = good && expect == size;
    const std::string code =
        error_code(file_of(header.dump(), std::string(static_cast<std::size_t>(size), 'x')));
    EXPECT_EQ(code.empty(), good) << header.dump() << " " << size << " " << code;
    accepted += good;
  }
  EXPECT_GT(accepted, rounds / 4);
  EXPECT_LT(accepted, rounds * 3 / 4 + rounds / 8);
}

TEST(Safetensors, EveryDtypeHasItsNameAndSize) {
  int bits = 0;
  for (int d = 0; d < 22; d++) {
    const Dtype dtype = static_cast<Dtype>(d);
    EXPECT_EQ(find_dtype(dtype_name(dtype)), dtype);
    bits += dtype_bits(dtype);
  }
  EXPECT_EQ(bits, 8 * 8 + 4 + 6 + 6 + 4 * 16 + 3 * 32 + 4 * 64);
  EXPECT_EQ(find_dtype("float32"), std::nullopt);
  for (const char* dtype : {"F6_E2M3", "F6_E3M2"}) {
    const auto file = [&](int count, int bytes) {
      return error_code(
          file_of(fmt::format(R"({{"a":{{"dtype":"{}","shape":[{}],"data_offsets":[0,{}]}}}})",
                              dtype, count, bytes),
                  std::string(static_cast<std::size_t>(bytes), 'x')));
    };
    EXPECT_EQ(file(4, 3), "");
    EXPECT_EQ(file(3, 3), "ST-009");
  }
}

// One large array where a tensor should be: refused long before it fills the memory.
TEST(Safetensors, AHeaderCannotFillTheMemory) {
  std::string header = R"({"a":{"x":[0)";
  for (int i = 0; i < 2000000; i++) header += ",0";
  EXPECT_EQ(error_code(file_of(header + "]}}")), "JS-001");
  std::string nested = R"({"a":{"x":[[])";
  for (int i = 0; i < 1000000; i++) nested += ",[]";
  EXPECT_EQ(error_code(file_of(nested + "]}}")), "JS-001");
}

TEST(Safetensors, ManyTensorsAreReadInLinearTime) {
  std::vector<TensorPlan> plan;
  for (int i = 0; i < 200000; i++) plan.push_back({fmt::format("t{}", i), Dtype::U8, {1}});
  const std::string header = safetensors_header(plan, {});
  const Safetensors s =
      parse_safetensors(blob_of_text(header + std::string(plan.size(), 'x')), "f");
  EXPECT_EQ(s.tensors.size(), plan.size());
}

TEST(Safetensors, AFileCutWhileReadIsAnError) {
  TemporaryFolder folder;
  std::vector<TensorPlan> plan;
  for (int i = 0; i < 1000; i++) plan.push_back({fmt::format("t{}", i), Dtype::U8, {1}});
  write_text(folder / "f", safetensors_header(plan, {}) + std::string(plan.size(), 'x'));
  const Blob mapped = map_file(folder / "f");
  std::filesystem::resize_file(folder / "f", 4096);
  EXPECT_EQ(code_of([&] { parse_safetensors(mapped, "f"); }), "IO-006");
  std::filesystem::resize_file(folder / "f", 0);
  EXPECT_EQ(code_of([&] { parse_safetensors(mapped, "f"); }), "IO-006");
}

TEST(Safetensors, TheWriterSortsByAlignmentAndAligns) {
  const std::string header = safetensors_header({{"b", Dtype::U8, {3}},
                                                 {"a", Dtype::U8, {1}},
                                                 {"z", Dtype::F32, {1}},
                                                 {"y", Dtype::BF16, {1}}},
                                                {{"format", "pt"}, {"note", "\"x\""}});
  EXPECT_EQ(
      header.substr(8),
      R"({"__metadata__":{"format":"pt","note":"\"x\""},"z":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
      R"("y":{"dtype":"BF16","shape":[1],"data_offsets":[4,6]},"a":{"dtype":"U8","shape":[1],"data_offsets":[6,7]},)"
      R"("b":{"dtype":"U8","shape":[3],"data_offsets":[7,10]}})"
      "     ");
  EXPECT_EQ(header.size() % 8, 0u);
}

}  // namespace
}  // namespace pare
