// Folders of GPTQ, AWQ, bitsandbytes and FP8: what is exported reads back with the same values
// (export itself compares), what does not fit is refused by name, damaged folders are refused.
#include <fstream>
#include <set>

#include "base/pool.h"
#include "base/sha256.h"
#include "file/safetensors.h"
#include "model/manifest.h"
#include "model/test_models.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

Pool& one() {
  static Pool pool(1);
  return pool;
}

Json config_of(const fs::path& folder) {
  return parse_json(read_text_file(folder / "config.json", 1 << 20), "config.json");
}
void set_config(const fs::path& folder, const std::function<void(Json&)>& change) {
  Json config = config_of(folder);
  change(*config.find("quantization_config"));
  write_file(folder / "config.json", config.dump(2));
}

Model model_of(const std::string& scheme, bool tied = false) {
  return random_model(quantized(tiny_spec(tied), scheme), 7, Code::f16);
}

struct Case {
  const char *format, *scheme, *back, *activation;
};
class Export : public testing::TestWithParam<Case> {};

TEST_P(Export, ReadsBackAsWhatItWas) {
  const Case& c = GetParam();
  for (bool tied : {false, true}) {
    TemporaryFolder folder;
    const Model m = model_of(c.scheme, tied);
    const SaveReport report = export_model(m, c.format, folder / "out", false, one(), silent());
    EXPECT_EQ(report.form, c.format);
    const Model back = load_model((folder / "out").string());
    EXPECT_EQ(to_string(back.spec.blocks[0].ffn.up.scheme), c.back);
    EXPECT_EQ(to_string(back.spec.blocks[0].ffn.up.activation), c.activation);
    EXPECT_TRUE(back.spec.head.scheme.plain());
    for (const auto& [name, weight] : m.weights) EXPECT_EQ(values(back, name), values(m, name));
    // Written again it is the same, byte for byte.
    export_model(back, c.format, folder / "again", false, one(), silent());
    EXPECT_EQ(read_text_file(folder / "out/model.safetensors", 1 << 26),
              read_text_file(folder / "again/model.safetensors", 1 << 26));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Forms, Export,
    testing::Values(Case{"gptq", "int4:g64:s=f16", "int4:g64:s=f16", "none"},
                    Case{"gptq", "int8:channel:s=f16", "int8:channel:s=f16", "none"},
                    Case{"gptq-v2", "int3:g32:asym:s=f16", "int3:g32:asym:s=f16", "none"},
                    Case{"awq", "int4:g32:s=f16", "int4:g32:asym:s=f16", "none"},
                    Case{"bnb", "nf4:g64:dq", "nf4:g64:s=f32", "none"},
                    Case{"bnb", "int8:channel", "int8:channel:s=f32", "none"},
                    Case{"fp8", "e4m3:b128x128", "e4m3:b128x128:s=f32", "e4m3:g128"}),
    [](const auto& test) { return fmt::format("form{}", test.index); });

TEST(Exports, PlainFilesAreNotHeldUp) {
  TemporaryFolder folder;
  const auto refusal = [&](const Model& m, const char* format) {
    const std::string code =
        code_of([&] { export_model(m, format, folder / "x", false, one(), silent()); });
    EXPECT_FALSE(fs::exists(folder / "x"));
    return code;
  };
  EXPECT_EQ(refusal(model_of("nf4:g64"), "gptq"), "MO-030");
  EXPECT_EQ(refusal(model_of("int8:g32"), "awq"), "MO-030");
  EXPECT_EQ(refusal(model_of("int4:g32"), "bnb"), "MO-030");
  EXPECT_EQ(refusal(model_of("e4m3:channel"), "fp8"), "MO-030");
  EXPECT_EQ(refusal(model_of("nf4:g64"), "compressed-tensors"), "MO-030");
  EXPECT_EQ(refusal(random_model(tiny_spec(), 3, Code::f32), "gptq"), "MO-030");
  EXPECT_EQ(refusal(random_model(tiny_spec(), 3, Code::f32), "compressed-tensors"), "MO-030");
  EXPECT_EQ(
      refusal(random_model(quantized(tiny_spec(), "int8:channel", "int8:token"), 3, Code::f32),
              "gptq"),
      "MO-030");
  EXPECT_EQ(refusal(model_of("int4:g32:s=f32"), "gptq"), "NU-033");
  Spec mixed = quantized(tiny_spec(), "nf4:g64");
  mixed.blocks[1].ffn.up.scheme = parse_scheme("int8:channel");
  EXPECT_EQ(refusal(random_model(mixed, 3, Code::f32), "bnb"), "MO-031");
}

TEST(Exports, GptqSaysEachModulesOwnSettings) {
  TemporaryFolder folder;
  Spec spec = quantized(tiny_spec(), "int4:g32:s=f16");
  spec.blocks[0].attn.v.scheme = parse_scheme("int8:g64:s=f16");
  spec.blocks[1].ffn.down.scheme = {};
  spec.blocks[1].attn.o.scheme = parse_scheme("int4:g32:asym:s=f16");
  const Model m = random_model(spec, 3, Code::f16);
  export_model(m, "gptq-v2", folder / "out", false, one(), silent());
  const Model back = load_model((folder / "out").string());
  EXPECT_EQ(back.spec, m.spec);
  EXPECT_TRUE(fs::exists(folder / "out/quantize_config.json"));
  // The file beside config.json is enough.
  Json config = config_of(folder / "out");
  config.erase("quantization_config");
  write_file(folder / "out/config.json", config.dump(2));
  EXPECT_EQ(load_model((folder / "out").string()).spec, m.spec);
}

// A model of a family whose matrices are fused or transposed, in widths that fill words.
Model family_model(const std::string& name, const std::string& scheme,
                   const std::vector<std::pair<const char*, i64>>& sizes) {
  Json config = config_of(fixture("families/" + name));
  for (const auto& [key, value] : sizes) config.set(key, Json(value));
  const Family& family = family_of(config);
  Spec spec = family.parse(config);
  for (auto& [linear, l] : linears(spec))
    if (linear != "head") l->scheme = parse_scheme(scheme);
  Model m = random_model(spec, 5, Code::f16);
  m.family = std::string(family.name);
  m.config = config;
  return m;
}

TEST(Exports, FusedAndTransposedMatrices) {
  const std::vector<std::pair<const char*, std::string>> forms = {
      {"gptq", "int4:g32:s=f16"}, {"bnb", "nf4:g32"}, {"bnb", "int8:channel"}};
  for (const auto& [format, scheme] : forms)
    for (const Model& m :
         {family_model("phi3", scheme, {{"hidden_size", 160}, {"intermediate_size", 64}}),
          family_model("gpt_neox_parallel", scheme,
                       {{"hidden_size", 64}, {"intermediate_size", 96}}),
          family_model("gpt2", scheme, {{"n_embd", 64}})}) {
      SCOPED_TRACE(fmt::format("{} {} {}", m.family, format, scheme));
      TemporaryFolder folder;
      export_model(m, format, folder / "out", false, one(), silent());
      const Model back = load_model((folder / "out").string());
      for (const auto& [name, weight] : m.weights) EXPECT_EQ(values(back, name), values(m, name));
    }
  TemporaryFolder folder;
  EXPECT_EQ(code_of([&] {
              export_model(family_model("gpt2", "int4:g32:s=f16", {{"n_embd", 64}}), "awq",
                           folder / "x", false, one(), silent());
            }),
            "MO-030");
}

TEST(Exports, ColumnsOutOfOrderTravelAsIndices) {
  TemporaryFolder folder;
  Spec spec = quantized(tiny_spec(), "int4:g32:s=f16");
  for (auto& [name, l] : linears(spec))
    if (name != "head") l->permuted = true;
  const Model m = random_model(spec, 3, Code::f16);
  const SaveReport report = export_model(m, "gptq", folder / "out", false, one(), silent());
  EXPECT_EQ(report.form, "gptq");
  const Model back = load_model((folder / "out").string());
  EXPECT_EQ(back.spec, m.spec);
  EXPECT_EQ(config_of(folder / "out").at("quantization_config").at("desc_act"), Json(true));
  // In Pare's own form the permutation is stored beside the codes.
  EXPECT_EQ(save_model(back, folder / "own", false, silent()).form, "pare");
  expect_equal(load_model((folder / "own").string()), back);
  EXPECT_EQ(code_of([&] { export_model(m, "awq", folder / "x", false, one(), silent()); }),
            "MO-030");
}

// ---- damaged folders ----

using Tensors = std::map<std::string, StoredTensor>;

void rewrite_map(const fs::path& folder, const std::function<void(Tensors&)>& change) {
  Tensors tensors;
  for (StoredTensor& t : open_safetensors_folder(folder)) tensors.emplace(t.name, std::move(t));
  change(tensors);
  std::vector<TensorPlan> plan;
  for (const auto& [name, t] : tensors) plan.push_back({name, t.dtype, t.shape});
  SafetensorsWriter writer(folder / "new", plan);
  for (const auto& [name, t] : tensors) writer.write(name, t.bytes.bytes);
  writer.finish();
  fs::rename(folder / "new", folder / "model.safetensors");
}

const std::string up = "model.layers.0.mlp.up_proj";

void set_int(StoredTensor& t, std::size_t index, std::int32_t value) {
  std::vector<std::int32_t> numbers(t.bytes.size() / 4);
  std::memcpy(numbers.data(), t.bytes.data(), t.bytes.size());
  numbers[index] = value;
  t.bytes = blob_of(std::move(numbers));
}

struct Damage {
  const char* what;
  const char *format, *scheme, *code;
  std::function<void(Tensors&)> tensors;
  std::function<void(Json&)> config = {};
};

TEST(PackedFolders, DamageIsRefused) {
  const std::vector<Damage> list = {
      {"group outside", "gptq", "int4:g32:s=f16", "NU-032",
       [](Tensors& t) { set_int(t[up + ".g_idx"], 3, 1 << 20); }},
      {"group below", "gptq", "int4:g32:s=f16", "NU-032",
       [](Tensors& t) { set_int(t[up + ".g_idx"], 3, -1); }},
      {"no zero points", "gptq", "int4:g32:s=f16", "MO-012",
       [](Tensors& t) { t.erase(up + ".qzeros"); }},
      {"other scales", "gptq", "int4:g32:s=f16", "MO-012",
       [](Tensors& t) { t[up + ".scales"] = t["model.layers.0.mlp.down_proj.scales"]; }},
      {"scales of another type", "awq", "int4:g32", "MO-012",
       [](Tensors& t) { t[up + ".scales"].dtype = Dtype::I16; }},
      {"weights of another type", "awq", "int4:g32", "MO-012",
       [](Tensors& t) { t[up + ".qweight"].dtype = Dtype::U32; }},
      {"flat weights", "awq", "int4:g32", "MO-012",
       [](Tensors& t) { t[up + ".qweight"].shape = {64 * 16}; }},
      {"short absmax", "bnb", "nf4:g64", "MO-012",
       [](Tensors& t) {
         StoredTensor& a = t[up + ".weight.absmax"];
         a.shape[0]--, a.bytes = a.bytes.slice(0, a.bytes.size() - 4);
       }},
      {"state of zeros", "bnb", "nf4:g64", "JS-001",
       [](Tensors& t) {
         StoredTensor& s = t[up + ".weight.quant_state.bitsandbytes__nf4"];
         s.bytes = blob_of(std::vector<char>(s.bytes.size()));
       }},
      {"no map", "bnb", "nf4:g64", "MO-012", [](Tensors& t) { t.erase(up + ".weight.quant_map"); }},
      {"no weight", "bnb", "int8:channel", "MO-012", [](Tensors& t) { t.erase(up + ".weight"); }},
      {"a short row of absmax", "bnb", "int8:channel", "MO-012",
       [](Tensors& t) {
         StoredTensor& a = t[up + ".SCB"];
         a.shape[0]--, a.bytes = a.bytes.slice(0, a.bytes.size() - 4);
       }},
      {"other blocks", "fp8", "e4m3:b128x128", "MO-012",
       [](Tensors& t) { t[up + ".weight_scale_inv"].shape = {1}; }},
      {"no scales", "fp8", "e4m3:b128x128", "MO-001",
       [](Tensors& t) { t.erase(up + ".weight_scale_inv"); }},
      {"five bits", "gptq", "int4:g32:s=f16", "MO-011", {}, [](Json& q) { q.set("bits", 5); }},
      {"wrong bits", "gptq", "int4:g32:s=f16", "MO-012", {}, [](Json& q) { q.set("bits", 8); }},
      {"no group", "gptq", "int4:g32:s=f16", "MO-011", {}, [](Json& q) { q.set("group_size", 0); }},
      {"a marlin",
       "gptq",
       "int4:g32:s=f16",
       "MO-011",
       {},
       [](Json& q) { q.set("checkpoint_format", "marlin"); }},
      {"a bad pattern",
       "gptq",
       "int4:g32:s=f16",
       "MO-010",
       {},
       [](Json& q) {
         q.set("dynamic", Json::object({{"+:(", Json::object()}}));
       }},
      {"gemv", "awq", "int4:g32", "MO-011", {}, [](Json& q) { q.set("version", "gemv"); }},
      {"no blocks",
       "fp8",
       "e4m3:b128x128",
       "MO-011",
       {},
       [](Json& q) {
         q.set("weight_block_size", Json::array({Json(0), Json(128)}));
       }},
      {"another method",
       "fp8",
       "e4m3:b128x128",
       "MO-011",
       {},
       [](Json& q) { q.set("quant_method", "aqlm"); }},
  };
  for (const Damage& d : list) {
    SCOPED_TRACE(d.what);
    TemporaryFolder folder;
    const std::string scheme = std::string(d.format) == "awq" ? "int4:g32:s=f16" : d.scheme;
    export_model(model_of(scheme), d.format, folder / "m", false, one(), silent());
    if (d.tensors) rewrite_map(folder / "m", d.tensors);
    if (d.config) set_config(folder / "m", d.config);
    EXPECT_EQ(code_of([&] { load_model((folder / "m").string()); }), d.code);
  }
}

TEST(PackedFolders, ZeroBiasesOfOldPackersAreIgnored) {
  TemporaryFolder folder;
  export_model(model_of("int4:g32:s=f16"), "gptq", folder / "m", false, one(), silent());
  const auto add = [&](std::uint16_t value) {
    rewrite_map(folder / "m", [&](Tensors& t) {
      StoredTensor bias;
      bias.name = up + ".bias", bias.dtype = Dtype::F16, bias.shape = {128};
      std::vector<std::uint16_t> numbers(128);
      numbers[5] = value;
      bias.bytes = blob_of(std::move(numbers));
      t[bias.name] = bias;
    });
  };
  add(0);
  EXPECT_EQ(code_of([&] { load_model((folder / "m").string()); }), "");
  add(0x3c00);
  EXPECT_EQ(code_of([&] { load_model((folder / "m").string()); }), "MO-003");
}

TEST(Manifest, TellsWhatChanged) {
  using State = ManifestFile::State;
  TemporaryFolder folder;
  save_model(model_of("int4:g32"), folder / "m", false, silent());
  const auto state = [&](const std::string& name) {
    for (const ManifestFile& f : check_manifest(folder / "m").files)
      if (f.name == name) return f.state;
    return State::added;
  };
  EXPECT_TRUE(check_manifest(folder / "m").present);
  EXPECT_EQ(state("model.safetensors"), State::same);
  const std::string text = read_text_file(folder / "m/config.json", 1 << 20);
  write_file(folder / "m/config.json", text + " ");
  EXPECT_EQ(state("config.json"), State::changed);
  std::string flipped = text;
  flipped[flipped.size() / 2] ^= 1;
  write_file(folder / "m/config.json", flipped);
  EXPECT_EQ(state("config.json"), State::changed);
  fs::remove(folder / "m/config.json");
  EXPECT_EQ(state("config.json"), State::missing);
  write_file(folder / "m/config.json", text);
  EXPECT_EQ(state("config.json"), State::same);
  for (const char* bad :
       {"[]", "{\"version\": 2, \"files\": {}}", "{\"version\": 1}",
        "{\"version\": 1, \"files\": {\"../x\": {\"bytes\": 1, \"sha256\": \"\"}}}",
        "{\"version\": 1, \"files\": {\"x\": {\"bytes\": 1, \"sha256\": \"12\"}}}"}) {
    write_file(folder / "m/pare_manifest.json", bad);
    EXPECT_EQ(code_of([&] { check_manifest(folder / "m"); }), "MO-032") << bad;
  }
}

}  // namespace
}  // namespace pare
