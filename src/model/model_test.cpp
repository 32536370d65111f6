#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <fstream>

#include "base/random.h"
#include "file/gguf.h"
#include "file/io.h"
#include "file/safetensors.h"
#include "model/integrity.h"
#include "model/model.h"
#include "number/encode.h"
#include "number/ggml.h"
#include "support.h"

namespace pare {
namespace {

Log silent() {
  Log log;
  log.quiet = true;
  return log;
}

// A small Spec that llama's configuration can say.
Spec tiny(bool tied = true) {
  Spec spec = known_spec("smollm2-135m");
  spec.dim = 64;
  spec.vocab = 96;
  spec.max_positions = 128;
  spec.tied = tied;
  Block b = spec.blocks[0];
  const auto shape = [](Linear& l, i64 in, i64 out) { l.in = in, l.out = out; };
  b.attn.heads = 6, b.attn.kv_heads = 2, b.attn.qk_dim = b.attn.v_dim = b.attn.rope.dims = 32;
  b.attn.scale = 1.0f / std::sqrt(32.0f);
  shape(b.attn.q, 64, 192), shape(b.attn.k, 64, 64), shape(b.attn.v, 64, 64),
      shape(b.attn.o, 192, 64);
  shape(b.ffn.gate, 64, 128), shape(b.ffn.up, 64, 128), shape(b.ffn.down, 128, 64);
  spec.blocks.assign(2, b);
  shape(spec.head, 64, 96);
  return spec;
}

void expect_equal(const Model& a, const Model& b) {
  EXPECT_EQ(a.spec, b.spec);
  ASSERT_EQ(a.weights.size(), b.weights.size());
  for (const auto& [name, weight] : a.weights) {
    const std::vector<float> x = decode(weight.load()),
                             y = decode(b.weights.find(name)->second.load());
    ASSERT_EQ(x, y) << name;
  }
}

TEST(Slots, KvBytesOfPublishedModels) {
  // Keys and values in 16 bits, all blocks: 2 L G d b (or L (c + r) b for latent attention).
  EXPECT_EQ(kv_bytes_per_token(known_spec("llama-2-7b"), Code::bf16), 524288);
  EXPECT_EQ(kv_bytes_per_token(known_spec("llama-3-8b"), Code::bf16), 131072);
  EXPECT_EQ(kv_bytes_per_token(known_spec("mistral-7b"), Code::bf16), 131072);
  EXPECT_EQ(kv_bytes_per_token(known_spec("llama-3-70b"), Code::bf16), 327680);
  EXPECT_EQ(kv_bytes_per_token(known_spec("qwen2.5-0.5b"), Code::bf16), 12288);
  EXPECT_EQ(kv_bytes_per_token(known_spec("qwen2.5-7b"), Code::bf16), 57344);
  EXPECT_EQ(kv_bytes_per_token(known_spec("qwen3-0.6b"), Code::bf16), 114688);
  EXPECT_EQ(kv_bytes_per_token(known_spec("qwen3-8b"), Code::bf16), 147456);
  EXPECT_EQ(kv_bytes_per_token(known_spec("smollm2-135m"), Code::bf16), 23040);
}

TEST(Slots, ParametersOfPublishedModels) {
  EXPECT_EQ(parameters(known_spec("llama-3.2-1b")), 1235814400);
  EXPECT_EQ(parameters(known_spec("llama-2-7b")), 6738415616);
  EXPECT_EQ(parameters(known_spec("llama-3-8b")), 8030261248);
  EXPECT_EQ(parameters(known_spec("qwen2.5-0.5b")), 494032768);
  EXPECT_EQ(parameters(known_spec("qwen3-0.6b")), 596049920);
  EXPECT_EQ(parameters(known_spec("smollm2-135m")), 134515008);
  for (const std::string& name : known_specs()) check(known_spec(name));
}

TEST(Slots, ContradictionsAreNamed) {
  const auto code = [](auto change) {
    Spec spec = tiny();
    change(spec);
    try {
      check(spec);
    } catch (const Error& e) {
      return e.code;
    }
    return std::string();
  };
  EXPECT_EQ(code([](Spec&) {}), "");
  EXPECT_EQ(code([](Spec& s) { s.blocks[1].attn.kv_heads = 4; }), "SP-001");
  EXPECT_EQ(code([](Spec& s) { s.blocks[1].attn.rope.dims = 33; }), "SP-001");
  EXPECT_EQ(code([](Spec& s) { s.blocks[1].ffn.down.in = 7; }), "SP-001");
  EXPECT_EQ(code([](Spec& s) { s.blocks[0].attn.kv_from = 0; }), "SP-001");
  EXPECT_EQ(code([](Spec& s) { s.blocks.clear(); }), "SP-001");
  EXPECT_EQ(code([](Spec& s) { s.blocks[0].ffn.experts = 8; }), "SP-002");
}

TEST(Rope, GoldenFrequencies) {
  Rope r;
  r.dims = 128;
  r.theta = 500000;
  r.scaling = RopeScaling::llama3;
  r.factor = 8;
  r.low_freq_factor = 1;
  r.high_freq_factor = 4;
  r.original_positions = 8192;
  Rope plain = r;
  plain.scaling = RopeScaling::none;
  const auto scaled = rope_frequencies(r, 1), base = rope_frequencies(plain, 1);
  const double expected[] = {1.207484, 1.553415, 2.026313, 2.69453, 3.684253, 5.257327};
  for (std::size_t i = 0; i < 64; i++) {
    const double divisor = base[i] / scaled[i];
    EXPECT_NEAR(divisor, i < 29 ? 1 : i > 34 ? 8 : expected[i - 29], 2e-6) << i;
  }
  // YaRN, d 64, theta 10000, original 4096: frequencies up to index 10 unchanged, from 23 on
  // divided by the factor.
  Rope y;
  y.dims = 64;
  y.scaling = RopeScaling::yarn;
  y.factor = 40;
  y.original_positions = 4096;
  Rope y0 = y;
  y0.scaling = RopeScaling::none;
  const auto a = rope_frequencies(y, 1), b = rope_frequencies(y0, 1);
  EXPECT_DOUBLE_EQ(a[10], b[10]);
  EXPECT_LT(a[11], b[11]);
  EXPECT_GT(a[22], b[22] / 40);
  EXPECT_NEAR(a[23], b[23] / 40, 1e-12);
}

TEST(Rows, SelectionAndConcatenationAreExact) {
  Random random(9);
  std::vector<float> x(24 * 64);
  for (float& v : x) v = static_cast<float>(random.normal());
  for (const char* text : {"int4:g32", "int8:channel", "nf4:g64:dq", "q4_0", "e4m3:b4x32",
                           "int3:g16:asym", "int8:tensor"}) {
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
    EXPECT_EQ(decode(concat_rows(halves)), all) << text;
  }
  const Tensor p = plain_tensor(x, {24, 64}, Code::bf16);
  EXPECT_EQ(decode(transpose(transpose(p))), decode(p));
}

TEST(Save, EverySchemeLoadsBackAsItWas) {
  for (const char* text : {"f32", "bf16", "f16", "int8:channel", "int4:g32", "int4:g32:asym",
                           "int2:g32", "e4m3:channel", "e4m3:tensor", "nvfp4", "mxfp4", "nf4:g64",
                           "int3:g32", "q4_0", "int8:g32:min", "e4m3:b32x32", "nf4:g64:dq"})
    for (const char* input : {"none", "int8:token"}) {
      const Scheme scheme = parse_scheme(text);
      if (scheme.plain() && std::string(input) != "none") continue;
      Spec spec = tiny(std::string(input) == "none");
      for (auto& [name, l] : linears(spec))
        if (name != "head") l->scheme = scheme, l->activation = parse_activation(input);
      const Model m = random_model(spec, 5, scheme.plain() ? scheme.code : Code::bf16);
      TemporaryFolder folder;
      const SaveReport report = save_model(m, folder / "out", false, silent());
      const Model back = load_model((folder / "out").string());
      SCOPED_TRACE(fmt::format("{} {} {}", text, input, report.form));
      if (std::string(text) == "nvfp4")
        continue;  // its global scale is a reciprocal in the file; compared elsewhere
      expect_equal(m, back);
      EXPECT_EQ(back.history, m.history.empty() ? back.history : back.history);
      // And once more: writing what was read gives the same model.
      save_model(back, folder / "again", false, silent());
      expect_equal(back, load_model((folder / "again").string()));
    }
}

TEST(Save, FormsAreChosenByWhatTheyCanHold) {
  const auto form = [](const char* weights, const char* head) {
    Spec spec = tiny(false);
    for (auto& [name, l] : linears(spec)) l->scheme = parse_scheme(name == "head" ? head : weights);
    TemporaryFolder folder;
    return save_model(random_model(spec, 1, Code::bf16), folder / "out", false, silent()).form;
  };
  EXPECT_EQ(form("bf16", "bf16"), "dense");
  EXPECT_EQ(form("int4:g32", "bf16"), "compressed-tensors");
  EXPECT_EQ(form("int4:g32", "int8:channel"), "compressed-tensors");
  EXPECT_EQ(form("int3:g32", "bf16"), "pare");
  EXPECT_EQ(form("nf4:g64", "int8:channel"), "pare");
}

TEST(Load, EveryFixtureLoads) {
  int loaded = 0;
  for (const auto& entry : std::filesystem::directory_iterator(fixture("families"))) {
    if (!entry.is_directory()) continue;
    SCOPED_TRACE(entry.path().string());
    const Model m = load_model(entry.path().string());
    TemporaryFolder folder;
    save_model(m, folder / "out", false, silent());
    expect_equal(m, load_model((folder / "out").string()));
    loaded++;
  }
  EXPECT_GE(loaded, 30);
}

TEST(Load, DamagedFoldersAreRefusedByName) {
  TemporaryFolder folder;
  save_model(random_model(tiny(), 3, Code::f32), folder / "m", false, silent());
  const auto code = [&] {
    try {
      load_model((folder / "m").string());
    } catch (const Error& e) {
      return e.code + " " + e.what();
    }
    return std::string();
  };
  EXPECT_EQ(code(), "");
  const std::string config = read_text_file(folder / "m" / "config.json", 1 << 20);
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string changed = config;
    const std::size_t at = changed.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    changed.replace(at, from.size(), to);
    write_file(folder / "m" / "config.json", changed);
    return code();
  };
  EXPECT_NE(with("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3").find("MO-001"),
            std::string::npos);
  EXPECT_NE(with("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1").find("MO-003"),
            std::string::npos);
  EXPECT_NE(with("\"vocab_size\": 96", "\"vocab_size\": 97").find("96 x 64"), std::string::npos);
  EXPECT_NE(with("\"model_type\": \"llama\"", "\"model_type\": \"lama\"").find("AR-001"),
            std::string::npos);
  write_file(folder / "m" / "config.json", "{");
  EXPECT_NE(code().find("JS-001"), std::string::npos);
  std::filesystem::remove(folder / "m" / "config.json");
  EXPECT_NE(code().find("MO-002"), std::string::npos);
}

TEST(Load, GgufLlamaEqualsTheFolder) {
  // The same model written as GGUF (rows of q and k as pairs) gives the same weights.
  Spec spec = tiny();
  const Model m = random_model(spec, 8, Code::f32);
  std::vector<GgufTensor> tensors;
  const auto rows_as_pairs = [](const Tensor& t, i64 heads) {
    const i64 hd = t.shape[0] / heads;
    std::vector<RowRange> rows;
    for (i64 h = 0; h < heads; h++)
      for (i64 j = 0; j < hd / 2; j++)
        for (i64 half = 0; half < 2; half++) rows.push_back({h * hd + half * hd / 2 + j, 1});
    return select_rows(t, rows);
  };
  const auto add = [&](const std::string& name, const std::string& slot) {
    Tensor t = m.weights.find(slot)->second.load();
    if (slot.ends_with("attn.q.weight")) t = rows_as_pairs(t, 6);
    if (slot.ends_with("attn.k.weight")) t = rows_as_pairs(t, 2);
    tensors.push_back({name, 0, t.shape, t.codes});
  };
  add("token_embd.weight", "embed.weight");
  for (int b = 0; b < 2; b++) {
    const auto at = [&](const char* g, const char* s) {
      add(fmt::format("blk.{}.{}.weight", b, g), fmt::format("blocks.{}.{}.weight", b, s));
    };
    at("attn_norm", "before_attn"), at("ffn_norm", "before_ffn");
    at("attn_q", "attn.q"), at("attn_k", "attn.k"), at("attn_v", "attn.v"),
        at("attn_output", "attn.o");
    at("ffn_gate", "ffn.gate"), at("ffn_up", "ffn.up"), at("ffn_down", "ffn.down");
  }
  add("output_norm.weight", "norm.weight");
  const auto bytes = make_gguf({{"general.architecture", std::string("llama")},
                                {"llama.embedding_length", i64{64}},
                                {"llama.block_count", i64{2}},
                                {"llama.context_length", i64{128}},
                                {"llama.feed_forward_length", i64{128}},
                                {"llama.attention.head_count", i64{6}},
                                {"llama.attention.head_count_kv", i64{2}},
                                {"llama.attention.key_length", i64{32}},
                                {"llama.attention.layer_norm_rms_epsilon", 1e-5},
                                {"llama.rope.freq_base", 100000.0}},
                               tensors);
  TemporaryFolder folder;
  write_file(folder / "m.gguf", {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  const Model back = load_model((folder / "m.gguf").string());
  for (const auto& [name, weight] : m.weights)
    ASSERT_EQ(decode(weight.load()), decode(back.weights.find(name)->second.load())) << name;
  Spec want = m.spec;
  want.final_norm.eps = back.spec.final_norm.eps;  // 1e-5 as f32, once more as double
  for (Block& b : want.blocks) b.before_attn = b.before_ffn = back.spec.final_norm;
  EXPECT_EQ(back.spec, want);
}

TEST(Save, StreamsWithTheMemoryOfItsLargestTensor) {
  // A model of 150 MB in tensors of at most 8 MB is quantized and saved by a process that may use
  // 64 MB.
  Spec spec = tiny();
  spec.dim = 1024;
  spec.vocab = 2048;
  Block b = spec.blocks[0];
  const auto shape = [](Linear& l, i64 in, i64 out) { l.in = in, l.out = out; };
  shape(b.attn.q, 1024, 192), shape(b.attn.k, 1024, 64), shape(b.attn.v, 1024, 64),
      shape(b.attn.o, 192, 1024);
  shape(b.ffn.gate, 1024, 2048), shape(b.ffn.up, 1024, 2048), shape(b.ffn.down, 2048, 1024);
  spec.blocks.assign(5, b);
  shape(spec.head, 1024, 2048);
  TemporaryFolder folder;
  save_model(random_model(spec, 2, Code::f32), folder / "m", false, silent());
  ASSERT_GT(std::filesystem::file_size(folder / "m" / "model.safetensors"), 140e6);
  const pid_t child = fork();
  if (child == 0) {
    int code = 1;
    try {
      rlimit limit = {64 << 20, 64 << 20};
      setrlimit(RLIMIT_DATA, &limit);  // private memory; file mappings do not count
      Model m = load_model((folder / "m").string());
      for (auto& [name, l] : linears(m.spec))
        if (name != "head") {
          l->scheme = parse_scheme("int4:g128");
          if (l->in % 128 != 0) l->scheme = parse_scheme("int4:g64");
          Weight& w = m.weights.find(name + ".weight")->second;
          w.scheme = l->scheme;
          w.load = [load = w.load, scheme = l->scheme] { return requantize(load(), scheme); };
        }
      save_model(m, folder / "out", false, silent());
      code = 42;
    } catch (const std::exception&) {
      code = 2;
    }
    std::_Exit(code);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 42);
}

TEST(Integrity, FindsValuesThatAreNotFinite) {
  Model m = random_model(tiny(), 4, Code::f32);
  Pool pool(2);
  EXPECT_EQ(integrity(m, pool, silent()).non_finite, 0);
  Weight& w = m.weights.find("blocks.1.ffn.up.weight")->second;
  w.load = [load = w.load] {
    std::vector<float> x = decode(load());
    x[77] = NAN;
    return plain_tensor(x, {128, 64}, Code::f32);
  };
  const Integrity found = integrity(m, pool, silent());
  EXPECT_EQ(found.non_finite, 1);
  EXPECT_EQ(found.first_bad, "blocks.1.ffn.up.weight");
}

}  // namespace
}  // namespace pare
