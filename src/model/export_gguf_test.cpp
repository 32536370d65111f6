// Export to GGUF and back: every architecture, every type, exactly where nothing was to be rounded.
#include "model/export_gguf.h"

#include <algorithm>

#include "file/gguf.h"
#include "model/gguf_types.h"
#include "model/test_models.h"
#include "number/ggml.h"
#include "text/tokenizer.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

GgufReport write(const Model& m, const fs::path& file, const std::string& type = "") {
  Pool pool(2);
  GgufOptions options;
  options.type = type;
  return export_gguf(m, file, options, false, pool, silent());
}

Model with_matrices(Model m, const std::string& scheme) {
  const Scheme s = parse_scheme(scheme);
  for (auto& [name, l] : linears(m.spec)) {
    if (name == "head") continue;
    l->scheme = s;
    Weight& w = m.weights.find(name + ".weight")->second;
    w.scheme = s;
    w.load = [load = w.load, s] { return requantize(load(), s); };
  }
  return m;
}

Spec wide_spec() {  // rows of 256 and 512
  Spec spec = tiny_spec(false);
  spec.dim = 256;
  Block& b = spec.blocks[0];
  b.attn.heads = 8, b.attn.kv_heads = 4;
  resize(b.attn.q, 256, 256), resize(b.attn.k, 256, 128), resize(b.attn.v, 256, 128);
  resize(b.attn.o, 256, 256);
  resize(b.ffn.gate, 256, 512), resize(b.ffn.up, 256, 512), resize(b.ffn.down, 512, 256);
  spec.blocks.assign(2, b);
  resize(spec.head, 256, 96);
  return spec;
}

class GgufFamilies : public ::testing::TestWithParam<const char*> {};

TEST_P(GgufFamilies, ComeBackWithTheirValues) {
  Model m = load_model(fixture(std::string("families/") + GetParam()).string());
  if (m.family == "gemma2")  // the scale is not stored: llama.cpp takes that of the head size
    for (Block& b : m.spec.blocks)
      b.attn.scale = 1.0f / std::sqrt(static_cast<float>(b.attn.qk_dim));
  TemporaryFolder folder;
  const fs::path file = folder / "m.gguf";
  const GgufReport report = write(m, file);
  EXPECT_EQ(report.rounded, 0);
  const Model back = load_model(file.string());
  for (const auto& [name, weight] : m.weights) {
    const std::vector<float> a = values(m, name), b = values(back, name);
    ASSERT_EQ(a.size(), b.size()) << name;
    // Gemma's norms go through 1 + w.
    for (std::size_t i = 0; i < a.size(); i++) ASSERT_NEAR(a[i], b[i], 1.2e-7f) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(All, GgufFamilies,
                         ::testing::Values("llama2", "llama3", "llama_bf16", "llama_bias",
                                           "llama_gqa", "llama_linear", "llama_yarn", "mistral",
                                           "qwen2", "qwen3", "gemma2", "phi3", "phi3_longrope",
                                           "gpt_neox_parallel", "falcon_mqa", "falcon_new",
                                           "falcon_new_one_norm", "gpt2"),
                         [](const auto& row) { return row.param; });

TEST(ExportGguf, RefusesWhatTheFormatCannotSay) {
  TemporaryFolder folder;
  for (const char* name :
       {"llama_dynamic", "qwen2_window", "qwen3_bias", "gptj", "deepseek_v2", "minicpm3",
        "gpt2_scaled", "gemma2", "gpt_neox_sequential", "falcon_mha"}) {
    SCOPED_TRACE(name);
    const Model m = load_model(fixture(std::string("families/") + name).string());
    EXPECT_EQ(error_of([&] { write(m, folder / "m.gguf"); }).substr(0, 6), "MO-020");
    EXPECT_TRUE(fs::is_empty(folder.path()));
  }
}

TEST(ExportGguf, EveryPresetGivesItsTypesAndReadsBack) {
  const Model m = random_model(wide_spec(), 3, Code::bf16);
  TemporaryFolder folder;
  const GgufShape shape{"llama", 2, 8, 4, false, false};
  int number = 0;
  for (const GgufPreset& p : gguf_presets()) {
    if (sanitized() && number++ % 6 != 0) continue;  // searching scales is slow there
    SCOPED_TRACE(p.name);
    const fs::path file = folder / (std::string(p.name) + ".gguf");
    write(m, file, std::string(p.name));
    const Gguf gguf = open_gguf(file);
    EXPECT_EQ(gguf.integer("general.file_type"), p.file_type);
    for (const GgufTensor& t : gguf.tensors) {
      EXPECT_EQ(t.type, gguf_type(p, shape, t.name, t.shape)) << t.name;
      if (t.shape.size() != 2) continue;
      const std::vector<float> x =
          decode(tensor_from_ggml(t.type, t.shape[0], t.shape[1], t.bytes));
      EXPECT_TRUE(std::all_of(x.begin(), x.end(), [](float v) { return std::isfinite(v); }));
    }
    const Model back = load_model(file.string());
    // Two bits leave about a third of a normal weight's size; every type above far less.
    for (const char* name :
         {"blocks.0.attn.q.weight", "blocks.1.ffn.down.weight", "embed.weight"}) {
      const std::vector<float> a = values(m, name), b = values(back, name);
      double error = 0, size = 0;
      for (std::size_t i = 0; i < a.size(); i++) {
        error += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
        size += static_cast<double>(a[i]) * a[i];
      }
      EXPECT_LT(std::sqrt(error / size), p.name == "Q2_K" ? 0.36
                                         : p.base == 11   ? 0.2
                                                          : 0.14)
          << name;
    }
  }
}

TEST(ExportGguf, CodesAreKeptWhereTheGridAllows) {
  const Model dense = random_model(wide_spec(), 5, Code::bf16);
  TemporaryFolder folder;
  int number = 0;
  for (const auto& [scheme, type] : {std::pair{"int4:g32", 2u},
                                     {"int4:g128", 2u},
                                     {"int4:g32:min", 3u},
                                     {"int8:g32", 8u},
                                     {"int8:channel", 8u},
                                     {"q4_k", 12u},
                                     {"q6_k", 14u},
                                     {"mxfp4", 39u},
                                     {"int3:channel", 11u},
                                     {"iq4_xs", 23u}}) {
    if (sanitized() && number++ % 6 != 0) continue;
    SCOPED_TRACE(scheme);
    const Model m = with_matrices(dense, scheme);
    const fs::path file = folder / "m.gguf";
    const GgufReport report = write(m, file);
    EXPECT_EQ(report.rounded, 0);
    const Model back = load_model(file.string());
    for (const auto& [name, weight] : m.weights) EXPECT_EQ(values(m, name), values(back, name));
    EXPECT_EQ(back.weights.at("blocks.1.attn.k.weight").scheme, scheme_of_ggml(type));
    fs::remove(file);
  }
}

TEST(ExportGguf, KeptCodesAreNotRoundedAgainUnderAType) {
  const Model m = with_matrices(random_model(wide_spec(), 5, Code::bf16), "int4:g32");
  TemporaryFolder folder;
  const GgufReport report = write(m, folder / "m.gguf", "Q4_0");
  EXPECT_EQ(report.exact, 14);  // all matrices of both blocks; embedding and head are rounded
  EXPECT_EQ(report.rounded, 2);
  const Model back = load_model((folder / "m.gguf").string());
  EXPECT_EQ(values(m, "blocks.0.ffn.down.weight"), values(back, "blocks.0.ffn.down.weight"));
}

TEST(ExportGguf, CodesWithoutATypeAreRefusedByName) {
  const Model m = with_matrices(random_model(wide_spec(), 5, Code::bf16), "nf4:g64");
  TemporaryFolder folder;
  try {
    write(m, folder / "m.gguf");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code, "MO-022");
    ASSERT_FALSE(e.facts.empty());
    EXPECT_EQ(e.facts[0].value, "blk.0.attn_q.weight");
  }
  EXPECT_TRUE(fs::is_empty(folder.path()));
  EXPECT_EQ(write(m, folder / "m.gguf", "Q8_0").rounded, 16);
}

TEST(ExportGguf, CarriesTokenizerAndTemplate) {
  TemporaryFolder folder;
  fs::copy(source_path("models/pare-tales"), folder / "tales");
  write_file(folder / "tales" / "chat_template.jinja", "{{ messages }}");
  const fs::path file = folder / "m.gguf";
  write(load_model((folder / "tales").string()), file, "Q8_0");
  const Gguf gguf = open_gguf(file);
  EXPECT_EQ(*gguf.text("tokenizer.chat_template"), "{{ messages }}");
  EXPECT_EQ(*gguf.text("tokenizer.ggml.pre"), "gpt-2");
  EXPECT_EQ(gguf.integer("tokenizer.ggml.eos_token_id"), 0);
  EXPECT_EQ(gguf.boolean("tokenizer.ggml.add_bos_token"), false);
  const std::string text = read_text_file(source_path("models/heldout.txt"), 1 << 26);
  const Tokenizer a = load_tokenizer(source_path("models/pare-tales")), b = load_tokenizer(file);
  EXPECT_EQ(a.encode(text), b.encode(text));
}

TEST(ExportGguf, SameBitsWithAnyNumberOfThreads) {
  const Model m = random_model(wide_spec(), 9, Code::f32);
  TemporaryFolder folder;
  std::string first;
  for (int threads : {1, 3}) {
    Pool pool(threads);
    GgufOptions options;
    options.type = "Q4_K_M";
    const fs::path file = folder / fmt::format("{}.gguf", threads);
    export_gguf(m, file, options, false, pool, silent());
    const std::string bytes = read_text_file(file, 1 << 26);
    if (first.empty()) first = bytes;
    EXPECT_TRUE(first == bytes);
  }
}

TEST(ExportGguf, ImportancesSteerTheRounding) {
  const Model m = random_model(wide_spec(), 9, Code::f32);
  TemporaryFolder folder;
  Pool pool(2);
  GgufOptions options;
  options.type = "Q4_K_S";
  options.importance = [](const std::string& linear) {
    std::vector<float> w;
    if (linear == "blocks.1.attn.q") {
      w.assign(256, 1e-3f);
      for (std::size_t i = 0; i < 256; i += 8) w[i] = 1;
    }
    return w;
  };
  export_gguf(m, folder / "w.gguf", options, false, pool, silent());
  write(m, folder / "plain.gguf", "Q4_K_S");
  const Model a = load_model((folder / "w.gguf").string()),
              b = load_model((folder / "plain.gguf").string());
  EXPECT_EQ(values(a, "blocks.0.attn.q.weight"), values(b, "blocks.0.attn.q.weight"));
  const std::string name = "blocks.1.attn.q.weight";
  const std::vector<float> want = values(m, name), x = values(a, name), y = values(b, name);
  double with = 0, without = 0;
  for (std::size_t i = 0; i < want.size(); i += 8) {
    with += std::pow(static_cast<double>(want[i]) - x[i], 2);
    without += std::pow(static_cast<double>(want[i]) - y[i], 2);
  }
  EXPECT_LT(with, 0.8 * without);
}

}  // namespace
}  // namespace pare
