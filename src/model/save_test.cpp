// What is written is what was meant: every scheme, every form, side files, ties, notes, memory.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <set>

#include "file/safetensors.h"
#include "model/test_models.h"
#include "number/encode.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

std::string bytes_of(const fs::path& file) { return read_text_file(file, std::size_t{1} << 30); }

Json section_of(const fs::path& folder) {
  return json_of(folder / "config.json").at("quantization_config");
}

std::set<std::string> tensor_names(const fs::path& folder) {
  std::set<std::string> names;
  for (const StoredTensor& t : open_safetensors_folder(folder)) names.insert(t.name);
  return names;
}

void expect_round_trip(const Model& m, const char* form) {
  TemporaryFolder folder;
  const SaveReport report = save_model(m, folder / "out", false, silent());
  EXPECT_EQ(report.form, form);
  const Model back = load_model((folder / "out").string());
  expect_equal(m, back);
  EXPECT_EQ(back.history, m.history);
  ASSERT_EQ(back.evidence.size(), m.evidence.size());
  // Writing what was read gives the same files, byte for byte.
  save_model(back, folder / "again", false, silent());
  for (const char* name : {"config.json", "model.safetensors"})
    EXPECT_EQ(bytes_of(folder / "out" / name), bytes_of(folder / "again" / name)) << name;
}

TEST(Save, EverySchemeComesBackAsItWas) {
  const struct {
    const char *scheme, *activation, *form;
  } rows[] = {{"f32", "none", "dense"},
              {"bf16", "none", "dense"},
              {"f16", "none", "dense"},
              {"int8:channel", "none", "compressed-tensors"},
              {"int8:channel", "int8:token", "compressed-tensors"},
              {"int8:channel", "int8:tensor:static", "compressed-tensors"},
              {"int8:tensor", "int8:token", "compressed-tensors"},
              {"int8:channel:asym", "none", "compressed-tensors"},
              {"int8:channel:s=f32", "none", "compressed-tensors"},
              {"int4:g32", "none", "compressed-tensors"},
              {"int4:g32:s=f16", "none", "compressed-tensors"},
              {"int4:g32:asym", "none", "compressed-tensors"},
              {"int4:channel", "none", "compressed-tensors"},
              {"int2:g32", "none", "compressed-tensors"},
              {"e4m3:channel", "none", "compressed-tensors"},
              {"e4m3:tensor", "e4m3:tensor:static", "compressed-tensors"},
              {"e4m3:channel", "e4m3:token", "compressed-tensors"},
              {"e4m3:b32x32", "none", "compressed-tensors"},
              {"nvfp4", "none", "compressed-tensors"},
              {"mxfp4", "none", "compressed-tensors"},
              {"int8:channel", "int8:g32", "pare"},
              {"nvfp4", "int8:token", "pare"},
              {"nf4:g64", "none", "pare"},
              {"nf4:g64", "int8:token", "pare"},
              {"nf4:g64:dq", "none", "pare"},
              {"int3:g32", "none", "pare"},
              {"int5:g32:asym", "none", "pare"},
              {"int8:g32:min", "none", "pare"},
              {"q4_0", "none", "compressed-tensors"},
              {"q8_0", "none", "compressed-tensors"},
              {"q4_1", "none", "pare"},
              {"e5m2:channel", "none", "pare"},
              {"mxfp8", "none", "pare"},
              {"iq4_nl", "none", "pare"}};
  for (const auto& row : rows) {
    SCOPED_TRACE(fmt::format("{} {}", row.scheme, row.activation));
    const Scheme scheme = parse_scheme(row.scheme);
    const Code code = scheme.plain() ? scheme.code : Code::bf16;
    const Spec spec =
        quantized(tiny_spec(std::string(row.activation) == "none"), row.scheme, row.activation);
    expect_round_trip(random_model(spec, 5, code), row.form);
  }
}

TEST(Save, EmbeddingAndHeadHaveSchemesOfTheirOwn) {
  Spec spec = tiny_spec(true);
  spec.embed = spec.head.scheme = parse_scheme("int8:channel");  // no form of others quantizes it
  expect_round_trip(random_model(spec, 1, Code::f16), "pare");
  spec = quantized(tiny_spec(false), "int4:g32");
  spec.head.scheme = parse_scheme("int8:channel");
  expect_round_trip(random_model(spec, 1, Code::f16), "compressed-tensors");
  spec.embed = parse_scheme("q8_0");
  expect_round_trip(random_model(spec, 1, Code::f16), "pare");
}

// A tied model whose head gets a scheme of its own, as a pass makes it.
TEST(Save, UntyingWritesTheHead) {
  for (const char* scheme : {"int8:channel", "nf4:g64"}) {
    SCOPED_TRACE(scheme);
    Model m = random_model(tiny_spec(true), 2, Code::bf16);
    m.spec.tied = false;
    m.spec.head.scheme = parse_scheme(scheme);
    Weight head = m.weights.at("embed.weight");
    head.load = [load = head.load, s = m.spec.head.scheme] { return requantize(load(), s); };
    head.scheme = m.spec.head.scheme;
    m.weights["head.weight"] = head;
    TemporaryFolder folder;
    save_model(m, folder / "out", false, silent());
    EXPECT_EQ(json_of(folder / "out" / "config.json").at("tie_word_embeddings"), Json(false));
    expect_equal(m, load_model((folder / "out").string()));
  }
}

// ---- compressed-tensors ----

Json compressed_section_of(const Spec& spec, const TemporaryFolder& folder) {
  const SaveReport r = save_model(random_model(spec, 3, Code::bf16), folder / "m", true, silent());
  EXPECT_EQ(r.form, "compressed-tensors");
  return section_of(folder / "m");
}

TEST(SaveCompressed, TheCacheIsSaidWhereReadersKnowIt) {
  TemporaryFolder folder;
  Spec spec = quantized(tiny_spec(true), "int4:g32");
  for (const char* kv : {"int8", "e4m3:k=channel", "e4m3:window=8", "f16"}) {
    spec.kv = parse_kv_scheme(kv);
    EXPECT_TRUE(compressed_section_of(spec, folder).at("kv_cache_scheme").is_null()) << kv;
    EXPECT_EQ(load_model((folder / "m").string()).spec.kv, spec.kv);  // by Pare's own notes
  }
  spec.kv = Code::e4m3;
  const Json said = compressed_section_of(spec, folder).at("kv_cache_scheme");
  EXPECT_EQ(said.at("num_bits"), Json(8));
  EXPECT_EQ(said.at("type"), Json("float"));
  EXPECT_EQ(said.at("strategy"), Json("tensor"));
  EXPECT_EQ(said.at("dynamic"), Json(false));
  Json config = json_of(folder / "m" / "config.json");  // as others write it: without notes
  config.erase("pare");
  write_json(folder / "m" / "config.json", config);
  EXPECT_EQ(load_model((folder / "m").string()).spec.kv, Code::e4m3);
}

TEST(SaveCompressed, OneGroupTargetsLinearsAndIgnoresTheHead) {
  TemporaryFolder folder;
  const Json tied = compressed_section_of(quantized(tiny_spec(true), "int4:g32"), folder);
  EXPECT_EQ(tied.dump(),
            R"({"quant_method":"compressed-tensors","format":"pack-quantized",)"
            R"("quantization_status":"compressed","global_compression_ratio":null,)"
            R"("kv_cache_scheme":null,"ignore":["lm_head"],"config_groups":{"group_0":{)"
            R"("targets":["Linear"],"weights":{"num_bits":4,"type":"int","symmetric":true,)"
            R"("strategy":"group","group_size":32,"dynamic":false,"actorder":null,)"
            R"("block_structure":null,"observer":"minmax","observer_kwargs":{}},)"
            R"("input_activations":null,"output_activations":null}}})");
  const std::set<std::string> names = tensor_names(folder / "m");
  const std::string q = "model.layers.0.self_attn.q_proj.";
  for (const char* suffix : {"weight_packed", "weight_scale", "weight_shape"})
    EXPECT_TRUE(names.contains(q + suffix)) << suffix;
  EXPECT_FALSE(names.contains(q + "weight_zero_point"));  // only asymmetric
  EXPECT_FALSE(names.contains(q + "weight"));
  EXPECT_FALSE(names.contains("lm_head.weight"));
  compressed_section_of(quantized(tiny_spec(false), "int4:g32:asym"), folder);
  EXPECT_TRUE(tensor_names(folder / "m").contains(q + "weight_zero_point"));
  EXPECT_TRUE(tensor_names(folder / "m").contains("lm_head.weight"));
}

TEST(SaveCompressed, DifferentSchemesAreGroupsOfExactNames) {
  Spec spec = quantized(tiny_spec(false), "int4:g32");
  spec.blocks[1].ffn.down.scheme = parse_scheme("int8:channel");
  spec.blocks[0].attn.q.scheme = parse_scheme("bf16");
  TemporaryFolder folder;
  Json section = compressed_section_of(spec, folder);
  EXPECT_EQ(section.at("format"), Json("pack-quantized"));  // both are packed
  EXPECT_EQ(section.at("ignore").dump(), R"(["model.layers.0.self_attn.q_proj","lm_head"])");
  EXPECT_EQ(section.at("config_groups").at("group_1").at("targets").dump(),
            R"(["model.layers.1.mlp.down_proj"])");
  EXPECT_EQ(section.at("config_groups").at("group_0").at("targets").as_array().size(), 12u);
  EXPECT_EQ(section.at("config_groups").at("group_0").find("format"), nullptr);
  spec.blocks[1].ffn.down.scheme = parse_scheme("e4m3:channel");
  section = compressed_section_of(spec, folder);
  EXPECT_EQ(section.at("format"), Json("mixed-precision"));
  EXPECT_EQ(section.at("config_groups").at("group_1").at("format"), Json("float-quantized"));
  expect_equal(random_model(spec, 3, Code::bf16), load_model((folder / "m").string()));
}

// Families with fused projections: parts of one scheme are put together, others go to Pare's form.
TEST(SaveCompressed, FusedModules) {
  for (const char* family : {"phi3", "gpt_neox_parallel", "falcon_new", "minicpm3"})
    for (const char* scheme : {"int8:channel", "e4m3:tensor", "int8:tensor"}) {
      SCOPED_TRACE(fmt::format("{} {}", family, scheme));
      Model m = load_model(fixture(std::string("families/") + family).string());
      const bool rows = std::string(scheme) == "int8:channel";
      m.spec =
          quantized(m.spec, scheme, std::string(scheme) == "int8:tensor" ? "int8:token" : "none");
      for (auto& [name, l] : linears(m.spec)) {
        if (name == "head") continue;
        Weight& w = m.weights.at(name + ".weight");
        w.scheme = l->scheme;
        w.load = [load = w.load, s = l->scheme] { return requantize(load(), s); };
      }
      TemporaryFolder folder;
      EXPECT_EQ(save_model(m, folder / "out", false, silent()).form, "compressed-tensors");
      const Model back = load_model((folder / "out").string());
      for (const auto& [name, weight] : m.weights)
        ASSERT_EQ(values(m, name), values(back, name)) << name;
      // One scale a matrix became one a row where matrices were fused.
      const Scheme& q = back.spec.blocks[0].attn.v.scheme;
      EXPECT_EQ(q.grouping, Grouping::channel);
      EXPECT_EQ(back.spec == m.spec, rows);
      // A fused matrix of two schemes has no place there.
      Weight& k = m.weights.at("blocks.0.attn.k.weight");
      k.scheme = m.spec.blocks[0].attn.k.scheme = parse_scheme("int8:g2");
      k.load = [load = k.load, s = k.scheme] { return requantize(load(), s); };
      EXPECT_EQ(save_model(m, folder / "own", false, silent()).form, "pare");
      expect_equal(m, load_model((folder / "own").string()));
    }
}

// ---- Pare's own form ----

TEST(SaveOwn, HoldsWhatNoFamilyCanSay) {
  Spec spec = tiny_spec(true);
  spec.blocks.resize(3, spec.blocks[0]);
  spec.blocks[1].attn.window = 16;
  spec.blocks[1].attn.sinks = 4;
  spec.blocks[2].attn.kv_from = 0;
  spec.blocks[2].attn.k = spec.blocks[2].attn.v = Linear{};
  Block& narrow = spec.blocks[1];
  narrow.attn.heads = 2, narrow.attn.kv_heads = 1;
  resize(narrow.attn.q, 64, 64), resize(narrow.attn.o, 64, 64);
  resize(narrow.attn.k, 64, 32), resize(narrow.attn.v, 64, 32);
  expect_round_trip(random_model(spec, 6, Code::bf16), "pare");
  // Companions of a Linear.
  spec = quantized(tiny_spec(false), "int4:g32");
  for (Block& b : spec.blocks) {
    b.attn.q.rank = 4;
    b.attn.k.outliers = 2;
    b.ffn.up.permuted = b.ffn.down.input_scaled = true;
    b.ffn.down.rotation = 32;
  }
  expect_round_trip(random_model(spec, 6, Code::f32), "pare");
}

TEST(SaveOwn, DamageIsNamed) {
  TemporaryFolder folder;
  save_model(random_model(quantized(tiny_spec(), "nf4:g64"), 1, Code::bf16), folder / "m", false,
             silent());
  const Json good = json_of(folder / "m" / "config.json");
  const auto with = [&](const auto& change) {
    Json config = good;
    change(*config.find("quantization_config"));
    write_json(folder / "m" / "config.json", config);
    return error_of([&] { load_model((folder / "m").string()); });
  };
  EXPECT_EQ(with([](Json&) {}), "");
  EXPECT_TRUE(with([](Json& q) { q.set("version", 2); }).starts_with("MO-013"));
  EXPECT_TRUE(with([](Json& q) { q.erase("spec"); }).starts_with("JS-003"));
  EXPECT_NE(with([](Json& q) {
              q.find("spec")->find("embed")->operator=(Json("int8:channel"));
            }).find("embed"),
            std::string::npos);
  EXPECT_NE(with([](Json& q) { q.find("spec")->set("vocab", 97); }).find("SP-001"),
            std::string::npos);
}

// ---- notes, side files, target ----

TEST(Save, NotesComeBack) {
  Model m = random_model(tiny_spec(), 1, Code::bf16);
  m.spec.kv = Code::int8;
  m.history = {"first line", "second, with \"quotes\""};
  m.evidence = {{"quantize", "blocks.0.attn.q", "error", 0, 0.1234567890123},
                {"quantize", "all", "broken", NAN, 1}};
  m.provenance = {{"[[cast]]\nto = \"bf16\"  # caf\u00e9\n", "00ff", "a text", "0.1.0", ~0ull},
                  {"", "12", "", "0.2", 0}};
  for (const char* scheme : {"bf16", "int4:g32", "nf4:g64"}) {
    Model q = m;
    q.spec = quantized(m.spec, scheme);
    for (auto& [name, l] : linears(q.spec))
      if (name != "head") {
        Weight& w = q.weights.at(name + ".weight");
        w.scheme = l->scheme;
        w.load = [load = w.load, s = l->scheme] { return requantize(load(), s); };
      }
    TemporaryFolder folder;
    save_model(q, folder / "out", false, silent());
    const Model back = load_model((folder / "out").string());
    EXPECT_EQ(back.spec.kv, Code::int8) << scheme;
    EXPECT_EQ(back.history, m.history);
    ASSERT_EQ(back.evidence.size(), 2u);
    EXPECT_EQ(back.evidence[0].after, m.evidence[0].after);
    EXPECT_TRUE(std::isnan(back.evidence[1].before));
    EXPECT_EQ(back.provenance, m.provenance);
    EXPECT_EQ(back.config.find("pare"), nullptr);
  }
}

TEST(Save, SideFilesComeAlong) {
  TemporaryFolder folder;
  save_model(random_model(tiny_spec(), 1, Code::bf16), folder / "m", false, silent());
  const std::vector<std::string> kept = {"LICENSE",
                                         "README.md",
                                         "added_tokens.json",
                                         "chat_template.jinja",
                                         "merges.txt",
                                         "modeling_tiny.py",
                                         "notes.txt",
                                         "generation_config.json",
                                         "tokenizer.json",
                                         "tokenizer.model",
                                         "tokenizer_config.json",
                                         "special_tokens_map.json",
                                         "preprocessor_config.json",
                                         "vocab.json"};
  for (const std::string& name : kept) write_file(folder / "m" / name, "of " + name);
  for (const char* name : {"pytorch_model.bin", "old.gguf", "model.onnx", ".hidden", "recipe.yaml",
                           "pytorch_model.bin.index.json"})
    write_file(folder / "m" / name, "x");
  const Model m = load_model((folder / "m").string());
  const SaveReport report = save_model(m, folder / "out", false, silent());
  std::set<std::string> expected(kept.begin(), kept.end());
  EXPECT_EQ(std::set<std::string>(report.side_files.begin(), report.side_files.end()), expected);
  for (const std::string& name : kept) EXPECT_EQ(bytes_of(folder / "out" / name), "of " + name);
  expected.insert({"config.json", "model.safetensors", "pare_manifest.json"});
  std::set<std::string> there;
  for (const auto& entry : fs::directory_iterator(folder / "out"))
    there.insert(entry.path().filename().string());
  EXPECT_EQ(there, expected);
}

TEST(Save, TargetsAreNotOverwrittenAndFailuresLeaveNothing) {
  TemporaryFolder folder;
  const Model m = random_model(tiny_spec(), 1, Code::bf16);
  save_model(m, folder / "m", false, silent());
  const std::string before = bytes_of(folder / "m" / "model.safetensors");
  EXPECT_TRUE(
      error_of([&] { save_model(m, folder / "m", false, silent()); }).starts_with("PB-001"));
  // A weight that cannot be loaded half-way: nothing under the name, nothing beside it.
  Model broken = random_model(tiny_spec(), 2, Code::bf16);
  broken.weights.at("blocks.1.ffn.up.weight").load = []() -> Tensor {
    fail_input("TEST", "it is gone");
  };
  EXPECT_TRUE(
      error_of([&] { save_model(broken, folder / "n", false, silent()); }).starts_with("TEST"));
  EXPECT_TRUE(
      error_of([&] { save_model(broken, folder / "m", true, silent()); }).starts_with("TEST"));
  EXPECT_EQ(bytes_of(folder / "m" / "model.safetensors"), before);
  int entries = 0;
  for (const auto& entry : fs::directory_iterator(folder.path()))
    entries += entry.path().filename().string().find("tmp") != std::string::npos ||
               entry.path().filename() == "n";
  EXPECT_EQ(entries, 0);
  save_model(random_model(tiny_spec(), 2, Code::bf16), folder / "m", true, silent());
  EXPECT_NE(bytes_of(folder / "m" / "model.safetensors"), before);
}

TEST(Save, StreamsWithTheMemoryOfItsLargestTensor) {
  if (sanitized()) GTEST_SKIP() << "sanitizers need memory of their own";
  // A model of 200 MB in tensors of at most 8 MB is quantized and saved by a process that may use
  // 64 MB.
  Spec spec = tiny_spec();
  spec.dim = 1024;
  spec.vocab = 2048;
  Block b = spec.blocks[0];
  resize(b.attn.q, 1024, 192), resize(b.attn.k, 1024, 64), resize(b.attn.v, 1024, 64);
  resize(b.attn.o, 192, 1024);
  resize(b.ffn.gate, 1024, 2048), resize(b.ffn.up, 1024, 2048), resize(b.ffn.down, 2048, 1024);
  spec.blocks.assign(7, b);
  resize(spec.head, 1024, 2048);
  TemporaryFolder folder;
  save_model(random_model(spec, 2, Code::f32), folder / "m", false, silent());
  ASSERT_GT(fs::file_size(folder / "m" / "model.safetensors"), 190e6);
  for (const char* text : {"int4:g64", "nf4:g64"}) {
    const pid_t child = fork();
    if (child == 0) {
      int code = 1;
      try {
        rlimit limit = {64 << 20, 64 << 20};
        setrlimit(RLIMIT_DATA, &limit);  // private memory; file mappings do not count
        Model m = load_model((folder / "m").string());
        for (auto& [name, l] : linears(m.spec))
          if (name != "head") {
            l->scheme = parse_scheme(text);
            Weight& w = m.weights.find(name + ".weight")->second;
            w.scheme = l->scheme;
            w.load = [load = w.load, scheme = l->scheme] {
              FitOptions quick;
              quick.range = Range::absmax;
              return requantize(load(), scheme, quick);
            };
          }
        save_model(m, folder / text, false, silent());
        code = 42;
      } catch (const std::exception&) {
        code = 2;
      }
      std::_Exit(code);
    }
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(WEXITSTATUS(status), 42) << text;
  }
}

}  // namespace
}  // namespace pare
