#include "file/gguf.h"

#include "base/random.h"
#include "file/io.h"
#include "file/test_support.h"

namespace pare {
namespace {

using Bytes = std::vector<std::byte>;

Bytes sample_gguf() {
  GgufTensor a{"a.weight", 0, {2, 3}, blob_of(std::vector<float>(6, 1.5f))};
  GgufTensor b{"b.weight", 8, {1, 32}, blob_of(std::vector<std::uint8_t>(34, 7))};
  return make_gguf({{"general.architecture", std::string("llama")},
                    {"n", i64{7}},
                    {"big", i64{1} << 40},
                    {"minus", i64{-3}},
                    {"x", 0.5},
                    {"yes", true},
                    {"list", std::vector<std::string>{"p", "q"}},
                    {"scores", std::vector<double>{1, 2}},
                    {"types", std::vector<i64>{1, -2}},
                    {"wide", std::vector<i64>{1, i64{-1} << 40}}},
                   {a, b});
}

TEST(Gguf, WritesAndReadsBack) {
  const Gguf g = parse_gguf(blob_of(sample_gguf()), "f");
  EXPECT_EQ(*g.text("general.architecture"), "llama");
  EXPECT_EQ(g.integer("n"), 7);
  EXPECT_EQ(g.integer("big"), i64{1} << 40);
  EXPECT_EQ(g.integer("minus"), -3);
  EXPECT_EQ(g.number("n"), 7.0);
  EXPECT_EQ(g.number("x"), 0.5);
  EXPECT_EQ(g.boolean("yes"), true);
  EXPECT_EQ(g.texts("list")->at(1), "q");
  EXPECT_EQ(g.numbers("scores")->at(1), 2.0);
  EXPECT_EQ(g.integers("types")->at(1), -2);
  EXPECT_EQ(g.integers("wide")->at(1), i64{-1} << 40);
  EXPECT_EQ(g.text("absent"), nullptr);
  EXPECT_EQ(g.integer("absent"), std::nullopt);
  ASSERT_EQ(g.tensors.size(), 2u);
  EXPECT_EQ(g.tensors[0].shape, (std::vector<i64>{2, 3}));
  EXPECT_EQ(g.tensors[1].bytes.size(), 34u);
  EXPECT_EQ(g.tensor("b.weight"), &g.tensors[1]);
  EXPECT_EQ(g.tensor("c.weight"), nullptr);
}

TEST(Gguf, AValueOfAnotherTypeIsAnError) {
  const Gguf g = parse_gguf(blob_of(sample_gguf()), "f");
  EXPECT_EQ(code_of([&] { g.text("n"); }), "GG-020");
  EXPECT_EQ(code_of([&] { g.integer("x"); }), "GG-020");
  EXPECT_EQ(code_of([&] { g.number("yes"); }), "GG-020");
  EXPECT_EQ(code_of([&] { g.boolean("n"); }), "GG-020");
  EXPECT_EQ(code_of([&] { g.texts("scores"); }), "GG-020");
  EXPECT_EQ(code_of([&] { g.numbers("types"); }), "GG-020");
  EXPECT_EQ(code_of([&] { g.integers("list"); }), "GG-020");
}

TEST(Gguf, TheStreamingWriterMakesTheSameFile) {
  TemporaryFolder folder;
  const GgufMetadata metadata = {{"general.architecture", std::string("llama")}, {"n", i64{7}}};
  const std::vector<GgufPlan> plan = {{"a", 0, {2, 3}}, {"b", 8, {2, 64}}, {"c", 30, {5}}};
  std::vector<GgufTensor> tensors;
  for (const GgufPlan& t : plan) {
    Bytes bytes(static_cast<std::size_t>(t.bytes()));
    for (std::size_t i = 0; i < bytes.size(); i++) bytes[i] = static_cast<std::byte>(i * 7 + 1);
    tensors.push_back({t.name, t.type, t.shape, blob_of(bytes)});
  }
  GgufWriter writer(folder / "f.gguf", metadata, plan);
  for (std::size_t i : {2u, 0u, 1u}) writer.write(plan[i].name, tensors[i].bytes.bytes);
  writer.finish();
  const Bytes whole = make_gguf(metadata, tensors);
  const Blob written = map_file(folder / "f.gguf");
  ASSERT_EQ(written.size(), whole.size());
  EXPECT_EQ(std::memcmp(written.data(), whole.data(), whole.size()), 0);
  EXPECT_EQ(open_gguf(folder / "f.gguf").tensors.size(), 3u);
}

TEST(Gguf, TruncationsAndBitFlipsNeverCrash) {
  const Bytes whole = sample_gguf();
  for (std::size_t n = 0; n < whole.size(); n++) {
    const std::string code = code_of([&] {
      parse_gguf(blob_of(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n))),
                 "f");
    });
    if (n + 30 < whole.size()) {  // only the last tensor's padding may be missing
      EXPECT_NE(code, "") << n;
    }
  }
  for (std::size_t bit = 0; bit < 8 * whole.size(); bit++) {
    Bytes bytes = whole;
    bytes[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
    code_of([&] { parse_gguf(blob_of(bytes), "f"); });
  }
}

// A file written byte by byte, for what the writer cannot make.
struct Raw {
  Bytes out;
  template <class T>
  Raw& put(T value) {
    const auto bytes = std::as_bytes(std::span(&value, 1));
    out.insert(out.end(), bytes.begin(), bytes.end());
    return *this;
  }
  Raw& text(std::string_view s) {
    put<std::uint64_t>(s.size());
    const auto bytes = std::as_bytes(std::span(s));
    out.insert(out.end(), bytes.begin(), bytes.end());
    return *this;
  }
  Raw& front(std::uint32_t version, std::int64_t tensors, std::int64_t keys) {
    return put<std::uint32_t>(0x46554747).put(version).put(tensors).put(keys);
  }
  Raw& info(std::string_view name, std::vector<std::int64_t> dims, std::uint32_t type,
            std::uint64_t offset) {
    text(name).put(static_cast<std::uint32_t>(dims.size()));
    for (std::int64_t d : dims) put(d);
    return put(type).put(offset);
  }
  Raw& data(std::size_t bytes, std::size_t alignment = 32) {
    out.resize((out.size() + alignment - 1) / alignment * alignment + bytes);
    return *this;
  }
  std::string code() const {
    return code_of([&] { parse_gguf(blob_of(out), "f"); });
  }
};

TEST(Gguf, RefusesBadFronts) {
  EXPECT_EQ(Raw().code(), "GG-004");
  EXPECT_EQ(Raw().text("").code(), "GG-001");
  EXPECT_EQ(Raw().front(3, 0, 0).code(), "");
  EXPECT_EQ(Raw().front(2, 0, 0).code(), "");
  for (std::uint32_t version : {0u, 1u, 4u, 0x03000000u, 0xffffffffu})
    EXPECT_EQ(Raw().front(version, 0, 0).code(), "GG-002") << version;
  for (std::int64_t count : {std::int64_t{1}, std::int64_t{-1}, INT64_MAX, INT64_MIN}) {
    EXPECT_EQ(Raw().front(3, count, 0).code(), "GG-003") << count;
    EXPECT_EQ(Raw().front(3, 0, count).code(), "GG-003") << count;
  }
}

// One key with the given value, which begins with its type.
template <class F>
std::string key_code(const F& value, std::string_view key = "key") {
  Raw raw;
  raw.front(3, 0, 1).text(key);
  value(raw);
  return raw.data(64).code();
}

TEST(Gguf, RefusesBadKeysAndValues) {
  using U = std::uint32_t;
  EXPECT_EQ(key_code([](Raw& r) { r.put<U>(4).put<U>(1); }), "");
  EXPECT_EQ(key_code([](Raw& r) { r.put<U>(4).put<U>(1); }, ""), "GG-008");
  EXPECT_EQ(key_code([](Raw& r) { r.put<U>(4).put<U>(1); }, "a\x1b[2J"), "GG-008");
  EXPECT_EQ(key_code([](Raw& r) { r.put<U>(4).put<U>(1); }, "\xff"), "GG-008");
  EXPECT_EQ(key_code([](Raw& r) { r.put<U>(4).put<U>(1); }, std::string(65536, 'k')), "GG-008");
  for (U type : {13u, 99u, 0xffffffffu})
    EXPECT_EQ(key_code([&](Raw& r) { r.put(type).put<U>(1); }), "GG-006");
  EXPECT_EQ(key_code([](Raw& r) { r.put<U>(7).put<std::uint8_t>(2); }), "GG-006");
  EXPECT_EQ(key_code([](Raw& r) { r.put<U>(10).put(~std::uint64_t{0}); }), "GG-006");
  for (std::uint64_t n : {std::uint64_t{1000}, std::uint64_t{1} << 63, ~std::uint64_t{0}})
    EXPECT_EQ(key_code([&](Raw& r) { r.put<U>(8).put(n); }), "GG-005");
  EXPECT_EQ(key_code([](Raw& r) { r.put<U>(9).put<U>(9).put<std::uint64_t>(1); }), "GG-007");
  EXPECT_EQ(key_code([](Raw& r) { r.put<U>(9).put<U>(13).put<std::uint64_t>(1); }), "GG-006");
  EXPECT_EQ(key_code([](Raw& r) { r.put<U>(9).put<U>(0).put<std::uint64_t>(0); }), "");
  for (U type : {0u, 3u, 5u, 6u, 7u, 8u, 10u, 12u})
    for (std::uint64_t n : {std::uint64_t{1000}, std::uint64_t{1} << 61, ~std::uint64_t{0}})
      EXPECT_EQ(key_code([&](Raw& r) { r.put<U>(9).put(type).put(n); }), "GG-007") << type;
  EXPECT_EQ(code_of([&] {
              parse_gguf(blob_of(make_gguf({{"k", i64{1}}, {"k", i64{2}}}, {})), "f");
            }),
            "GG-009");
}

TEST(Gguf, RefusesBadAlignments) {
  const auto alignment = [](std::uint32_t type, std::uint64_t value, int bytes) {
    return key_code(
        [&](Raw& r) {
          r.put(type);
          for (int i = 0; i < bytes; i++) r.put(static_cast<std::uint8_t>(value >> (8 * i)));
        },
        "general.alignment");
  };
  for (std::uint32_t good : {1u, 8u, 32u, 65536u}) EXPECT_EQ(alignment(4, good, 4), "");
  for (std::uint32_t bad : {0u, 3u, 24u, 131072u, 0x80000000u})
    EXPECT_EQ(alignment(4, bad, 4), "GG-010") << bad;
  EXPECT_EQ(alignment(5, 32, 4), "GG-010");
  EXPECT_EQ(alignment(10, 32, 8), "GG-010");
  EXPECT_EQ(alignment(8, 0, 8), "GG-010");
}

TEST(Gguf, RefusesBadTensors) {
  const auto one = [](std::string_view name, std::vector<std::int64_t> dims, std::uint32_t type,
                      std::uint64_t offset, std::size_t data) {
    return Raw().front(3, 1, 0).info(name, dims, type, offset).data(data).code();
  };
  EXPECT_EQ(one("a", {4}, 0, 0, 16), "");
  EXPECT_EQ(one("a", {}, 0, 0, 4), "");
  EXPECT_EQ(one(std::string(63, 'a'), {4}, 0, 0, 16), "");
  EXPECT_EQ(one(std::string(64, 'a'), {4}, 0, 0, 16), "GG-011");
  EXPECT_EQ(one("", {4}, 0, 0, 16), "GG-011");
  EXPECT_EQ(one("a\n", {4}, 0, 0, 16), "GG-011");
  EXPECT_EQ(one("a", {1, 1, 1, 1, 1}, 0, 0, 16), "GG-012");
  for (std::int64_t n : {std::int64_t{0}, std::int64_t{-1}, INT64_MIN, INT64_MAX})
    EXPECT_EQ(one("a", {n}, 0, 0, 16), "GG-012") << n;
  EXPECT_EQ(one("a", {i64{1} << 31, i64{1} << 31, 4}, 0, 0, 16), "GG-012");
  EXPECT_EQ(one("a", {i64{1} << 40, 256}, 0, 0, 16), "GG-016");
  for (std::uint32_t type : {4u, 5u, 31u, 32u, 33u, 36u, 37u, 38u, 43u, 1000u, 0xffffffffu})
    EXPECT_EQ(one("a", {256}, type, 0, 4096), "GG-013") << type;
  EXPECT_EQ(one("a", {31}, 8, 0, 4096), "GG-014");
  EXPECT_EQ(one("a", {32, 3}, 10, 0, 4096), "GG-014");  // rows of 32 in blocks of 256
  EXPECT_EQ(one("a", {4}, 0, 32, 64), "GG-015");
  EXPECT_EQ(one("a", {4}, 0, ~std::uint64_t{0}, 64), "GG-015");
  EXPECT_EQ(one("a", {4}, 0, 0, 15), "GG-016");
  const auto two = [](std::uint64_t first, std::uint64_t second, const char* name) {
    return Raw().front(3, 2, 0).info("a", {4}, 0, first).info(name, {4}, 0, second).data(48).code();
  };
  EXPECT_EQ(two(0, 32, "b"), "");
  EXPECT_EQ(two(0, 16, "b"), "GG-015");
  EXPECT_EQ(two(0, 0, "b"), "GG-015");
  EXPECT_EQ(two(32, 0, "b"), "GG-015");
  EXPECT_EQ(two(0, 32, "a"), "GG-009");
}

TEST(Gguf, TypesHaveTheirSizes) {
  EXPECT_EQ(find_ggml_type(39)->name, "MXFP4");
  EXPECT_EQ(find_ggml_type(14)->bytes, 210);
  EXPECT_EQ(find_ggml_type(4), nullptr);
  int known = 0;
  for (std::uint32_t id = 0; id < 100; id++) known += find_ggml_type(id) != nullptr;
  EXPECT_EQ(known, 35);
}

// Quadratic checks for duplicates would take hours.
TEST(Gguf, AMillionKeysOrTensorsLoad) {
  GgufMetadata metadata;
  Raw tensors;
  tensors.front(3, 1000000, 0);
  for (int i = 0; i < 1000000; i++) {
    metadata.emplace_back(fmt::format("k{}", i), i64{i});
    tensors.info(fmt::format("t{}", i), {4}, 0, 32 * static_cast<std::uint64_t>(i));
  }
  const Blob keys = blob_of(make_gguf(metadata, {})), infos = blob_of(tensors.data(32000000).out);
  EXPECT_EQ(parse_gguf(keys, "f").integer("k999999"), 999999);
  EXPECT_EQ(parse_gguf(infos, "f").tensors.size(), 1000000u);
}

std::filesystem::path part_path(const TemporaryFolder& folder, int k) {
  return folder / fmt::format("m-{:05}-of-00003.gguf", k + 1);
}

void write_part(const TemporaryFolder& folder, int k, GgufMetadata metadata,
                const std::string& tensor) {
  const Bytes bytes = make_gguf(metadata, {{tensor, 0, {4}, blob_of(std::vector<float>(4))}});
  write_file(part_path(folder, k), {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

TEST(Gguf, SplitFilesAreOneModel) {
  TemporaryFolder folder;
  const auto split = [](i64 no, i64 count = 3) {
    return GgufMetadata{{"split.no", no}, {"split.count", count}, {"split.tensors.count", i64{3}}};
  };
  const auto code = [&](int k = 0) { return code_of([&] { open_gguf(part_path(folder, k)); }); };
  for (int k = 0; k < 3; k++) write_part(folder, k, split(k), fmt::format("t{}", k));
  const Gguf g = open_gguf(part_path(folder, 0));
  ASSERT_EQ(g.tensors.size(), 3u);
  EXPECT_EQ(g.tensors[2].name, "t2");
  EXPECT_EQ(code(1), "GG-017");
  write_part(folder, 2, split(2), "t0");
  EXPECT_EQ(code(), "GG-009");
  write_part(folder, 2, split(1), "t2");
  EXPECT_EQ(code(), "GG-017");
  write_part(folder, 2, split(2, 4), "t2");
  EXPECT_EQ(code(), "GG-017");
  write_part(folder, 2, {}, "t2");
  EXPECT_EQ(code(), "GG-017");
  std::filesystem::remove(part_path(folder, 2));
  EXPECT_EQ(code(), "GG-017");
  write_part(folder, 2, split(2), "t2");
  write_part(folder, 0,
             {{"split.no", i64{0}}, {"split.count", i64{3}}, {"split.tensors.count", i64{4}}},
             "t0");
  EXPECT_EQ(code(), "GG-017");
  for (i64 count : {i64{-1}, i64{4}, i64{1} << 40}) {
    write_part(folder, 0, split(0, count), "t0");
    EXPECT_EQ(code(), "GG-017") << count;
  }
}

TEST(Gguf, AFileCutWhileReadIsAnError) {
  TemporaryFolder folder;
  GgufMetadata metadata;
  for (int i = 0; i < 100; i++)
    metadata.emplace_back(fmt::format("k{}", i), std::string(20000, 'x'));
  const Bytes bytes = make_gguf(metadata, {});
  write_file(folder / "f", {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  const Blob mapped = map_file(folder / "f");
  std::filesystem::resize_file(folder / "f", 4096);
  EXPECT_EQ(code_of([&] { parse_gguf(mapped, "f"); }), "IO-006");
}

}  // namespace
}  // namespace pare
