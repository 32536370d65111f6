#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

#include "file/gguf.h"
#include "file/hub.h"
#include "file/io.h"
#include "file/llama2c.h"
#include "file/publish.h"
#include "support.h"

namespace pare {
namespace {

void write_text(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path) << text;
}

template <class F>
std::string code_of(const F& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.code;
  }
  return "";
}

std::vector<std::byte> sample_gguf() {
  GgufTensor a{"a.weight", 0, {2, 3}, blob_of(std::vector<float>(6, 1.5f))};
  GgufTensor b{"b.weight", 8, {1, 32}, blob_of(std::vector<std::uint8_t>(34, 7))};
  return make_gguf({{"general.architecture", std::string("llama")},
                    {"n", i64{7}},
                    {"big", i64{1} << 40},
                    {"x", 0.5},
                    {"yes", true},
                    {"list", std::vector<std::string>{"p", "q"}},
                    {"scores", std::vector<double>{1, 2}},
                    {"types", std::vector<i64>{1, -2}}},
                   {a, b});
}

TEST(Gguf, WritesAndReadsBack) {
  const Gguf g = parse_gguf(blob_of(sample_gguf()), "f");
  EXPECT_EQ(*g.text("general.architecture"), "llama");
  EXPECT_EQ(g.integer("n"), 7);
  EXPECT_EQ(g.integer("big"), i64{1} << 40);
  EXPECT_EQ(g.number("n"), 7.0);
  EXPECT_EQ(g.number("x"), 0.5);
  EXPECT_EQ(g.boolean("yes"), true);
  EXPECT_EQ(g.texts("list")->at(1), "q");
  EXPECT_EQ(g.integers("types")->at(1), -2);
  EXPECT_EQ(g.text("absent"), nullptr);
  EXPECT_EQ(code_of([&] { g.text("n"); }), "GG-020");
  ASSERT_EQ(g.tensors.size(), 2u);
  EXPECT_EQ(g.tensors[0].shape, (std::vector<i64>{2, 3}));
  EXPECT_EQ(g.tensors[1].bytes.size(), 34u);
}

TEST(Gguf, TruncationsAndBitFlipsNeverCrash) {
  const std::vector<std::byte> whole = sample_gguf();
  for (std::size_t n = 0; n + 30 < whole.size(); n++)  // the last tensor's padding may be missing
    EXPECT_NE(code_of([&] {
                parse_gguf(blob_of(std::vector<std::byte>(
                               whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n))),
                           "f");
              }),
              "")
        << n;
  for (std::size_t bit = 0; bit < 8 * whole.size(); bit++) {
    std::vector<std::byte> bytes = whole;
    bytes[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
    code_of([&] { parse_gguf(blob_of(bytes), "f"); });
  }
}

TEST(Gguf, RefusesByRule) {
  const auto with = [](std::size_t at, std::vector<unsigned> bytes) {
    std::vector<std::byte> file = sample_gguf();
    for (std::size_t i = 0; i < bytes.size(); i++) file[at + i] = static_cast<std::byte>(bytes[i]);
    return code_of([&] { parse_gguf(blob_of(file), "f"); });
  };
  EXPECT_EQ(with(0, {'X'}), "GG-001");
  EXPECT_EQ(with(4, {1}), "GG-002");
  EXPECT_EQ(with(4, {4}), "GG-002");
  EXPECT_EQ(with(4, {0, 0, 0, 3}), "GG-002");
  EXPECT_EQ(with(8, {0xff, 0xff, 0xff, 0xff, 0xff}), "GG-003");
  EXPECT_EQ(with(16, {0xff, 0xff, 0xff, 0xff}), "GG-003");
  const auto tensor = [](GgufTensor t,
                         std::vector<std::pair<std::string, GgufValue>> metadata = {}) {
    return code_of([&] { parse_gguf(blob_of(make_gguf(metadata, {t, t})), "f"); });
  };
  EXPECT_EQ(tensor({"a", 0, {4}, blob_of(std::vector<float>(4))}), "GG-009");
  EXPECT_EQ(tensor({std::string(64, 'a'), 0, {4}, blob_of(std::vector<float>(4))}), "GG-011");
  EXPECT_EQ(tensor({"a", 4, {4}, blob_of(std::vector<float>(4))}), "GG-013");
  EXPECT_EQ(tensor({"a", 8, {4}, blob_of(std::vector<float>(4))}), "GG-014");
  EXPECT_EQ(tensor({"a", 0, {0}, {}}), "GG-012");
  EXPECT_EQ(tensor({"a", 0, {1, 1, 1, 1, 1}, blob_of(std::vector<float>(1))}), "GG-012");
  EXPECT_EQ(tensor({"a", 0, {i64{1} << 40, i64{1} << 40}, {}}), "GG-012");
  EXPECT_EQ(tensor({"a", 0, {64}, blob_of(std::vector<float>(4))}), "GG-009");
  EXPECT_EQ(tensor({"a", 0, {4}, {}}, {{"k", i64{1}}, {"k", i64{2}}}), "GG-009");
  EXPECT_EQ(tensor({"a", 0, {4}, {}}, {{"general.alignment", i64{3}}}), "GG-010");
}

TEST(Gguf, AMillionKeysLoadQuickly) {
  std::vector<std::pair<std::string, GgufValue>> metadata;
  for (int i = 0; i < 1000000; i++) metadata.emplace_back(fmt::format("k{}", i), i64{i});
  const Gguf g =
      parse_gguf(blob_of(make_gguf(metadata, {})), "f");  // quadratic checks would take hours
  EXPECT_EQ(g.integer("k999999"), 999999);
}

std::vector<std::uint8_t> sample_llama2c(bool tied) {
  const std::int32_t h[7] = {8, 12, 2, 4, 2, tied ? 10 : -10, 16};
  const std::size_t floats =
      10 * 8 * (tied ? 1 : 2) + 2 * (2 * 8 + 2 * 64 + 2 * 4 * 8 + 3 * 12 * 8) + 8 + 16 * 2;
  std::vector<std::uint8_t> file(28 + 4 * floats);
  std::memcpy(file.data(), h, sizeof h);
  return file;
}

TEST(Llama2c, ReadsBothKindsAndRefusesOthers) {
  for (bool tied : {true, false}) {
    const Llama2c m = parse_llama2c(blob_of(sample_llama2c(tied)), "f");
    EXPECT_EQ(m.tied, tied);
    EXPECT_EQ(m.tensors.size(), 1u + 2 * 9 + 1 + (tied ? 0 : 1));
    EXPECT_EQ(m.kv_heads, 2);
  }
  for (std::size_t n : {0u, 27u, 28u, 500u})
    EXPECT_NE(code_of([&] {
                std::vector<std::uint8_t> file = sample_llama2c(true);
                file.resize(n);
                parse_llama2c(blob_of(file), "f");
              }),
              "");
  for (int field = 0; field < 7; field++)
    for (std::int32_t value : {0, -1, 0x7fffffff, -0x7fffffff - 1, 3}) {
      std::vector<std::uint8_t> file = sample_llama2c(true);
      std::memcpy(file.data() + 4 * field, &value, 4);
      EXPECT_NE(code_of([&] { parse_llama2c(blob_of(file), "f"); }), "") << field << " " << value;
    }
}

TEST(Hub, FindsPathsAndCachedModels) {
  TemporaryFolder home;
  const auto repo = home / "models--org--tiny";
  std::filesystem::create_directories(repo / "snapshots" / "abc");
  std::filesystem::create_directories(repo / "blobs");
  std::filesystem::create_directories(repo / "refs");
  write_text(repo / "refs" / "main", "abc\n");
  write_text(repo / "blobs" / "1", "{}");
  std::filesystem::create_symlink("../../blobs/1", repo / "snapshots" / "abc" / "config.json");
  setenv("HF_HUB_CACHE", home.path().c_str(), 1);
  EXPECT_EQ(resolve_model("org/tiny"), repo / "snapshots" / "abc");
  EXPECT_EQ(resolve_model("org/tiny@abc"), repo / "snapshots" / "abc");
  EXPECT_EQ(read_text_file(resolve_model("org/tiny") / "config.json", 100), "{}");
  EXPECT_EQ(resolve_model(home.path().string()), home.path());
  EXPECT_EQ(code_of([] { resolve_model("org/absent"); }), "HB-002");
  EXPECT_EQ(code_of([] { resolve_model("org/tiny@nope"); }), "HB-003");
  EXPECT_EQ(code_of([] { resolve_model("org/tiny@.."); }), "HB-003");
  EXPECT_EQ(code_of([] { resolve_model("../no/such"); }), "HB-001");
  unsetenv("HF_HUB_CACHE");
}

TEST(Publisher, AppearsWholeOrNotAtAll) {
  TemporaryFolder folder;
  const auto target = folder / "out";
  {
    Publisher p(target, false, Publisher::Kind::folder);
    write_text(p.path() / "x", "1");
  }  // not committed
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  {
    Publisher p(target, false, Publisher::Kind::folder);
    write_text(p.path() / "x", "1");
    p.commit();
  }
  EXPECT_EQ(read_text_file(target / "x", 9), "1");
  EXPECT_EQ(code_of([&] { Publisher p(target, false, Publisher::Kind::folder); }), "PB-001");
  {
    Publisher p(target, true, Publisher::Kind::folder);
    write_text(p.path() / "y", "2");
    EXPECT_TRUE(std::filesystem::exists(target / "x"));
    p.commit();
  }
  EXPECT_FALSE(std::filesystem::exists(target / "x"));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

TEST(Publisher, ProtectsTheInputAndOtherRuns) {
  TemporaryFolder folder;
  const auto input = folder / "in";
  std::filesystem::create_directory(input);
  EXPECT_EQ(code_of([&] { Publisher p(input, true, Publisher::Kind::folder, input); }), "PB-002");
  EXPECT_EQ(code_of([&] { Publisher p(input / "sub", true, Publisher::Kind::folder, input); }),
            "PB-002");
  EXPECT_EQ(code_of([&] { Publisher p(folder.path(), true, Publisher::Kind::folder, input); }),
            "PB-002");
  EXPECT_EQ(code_of([&] { Publisher p(folder / "no" / "such", false); }), "PB-003");
  Publisher first(folder / "out", false, Publisher::Kind::folder);
  try {
    Publisher second(folder / "out", false, Publisher::Kind::folder);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.exit, Exit::busy);
    EXPECT_NE(std::string(e.what()).find(std::to_string(getpid())), std::string::npos);
  }
}

TEST(Publisher, CleansUpAfterADeadRun) {
  TemporaryFolder folder;
  const pid_t child = fork();
  if (child == 0) {
    Publisher p(folder / "out", false, Publisher::Kind::folder);
    write_text(p.path() / "x", "1");
    std::_Exit(0);  // as if killed: no destructor
  }
  waitpid(child, nullptr, 0);
  EXPECT_TRUE(std::filesystem::exists(folder / fmt::format("out.tmp-{}", child)));
  EXPECT_FALSE(std::filesystem::exists(folder / "out"));
  Publisher p(folder / "out", false, Publisher::Kind::folder);
  EXPECT_FALSE(std::filesystem::exists(folder / fmt::format("out.tmp-{}", child)));
}

TEST(SideFiles, AreWhatIsNeitherWeightsNorConfiguration) {
  TemporaryFolder folder;
  for (const char* name :
       {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "LICENSE",
        "pytorch_model.bin", "generation_config.json", ".hidden"})
    write_text(folder / name, "x");
  EXPECT_EQ(side_files(folder.path()),
            (std::vector<std::string>{"LICENSE", "chat_template.jinja", "generation_config.json",
                                      "tokenizer.json"}));
}

}  // namespace
}  // namespace pare
