// Opening folders: everything that is there is used, and what does not fit is refused by name.
#include <cstring>

#include "file/safetensors.h"
#include "model/test_models.h"
#include "number/encode.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

std::string load_error(const fs::path& path) {
  return error_of([&] { load_model(path.string()); });
}

// Rewrites the tensors of a folder; an empty result drops one.
struct Rewritten {
  std::string name;
  Dtype dtype;
  std::vector<i64> shape;
  std::vector<std::byte> bytes;
};
template <class F>
void rewrite(const fs::path& folder, const F& change) {
  std::vector<Rewritten> list;
  for (const StoredTensor& t : open_safetensors_folder(folder))
    list.push_back({t.name, t.dtype, t.shape, {t.bytes.bytes.begin(), t.bytes.bytes.end()}});
  change(list);
  std::vector<TensorPlan> plan;
  for (const Rewritten& t : list) plan.push_back({t.name, t.dtype, t.shape});
  SafetensorsWriter writer(folder / "model.safetensors", plan);
  for (const Rewritten& t : list) writer.write(t.name, t.bytes);
  writer.finish();
}
Rewritten& named(std::vector<Rewritten>& list, std::string_view name) {
  for (Rewritten& t : list)
    if (t.name == name) return t;
  ADD_FAILURE() << name;
  return list[0];
}

TEST(Load, EveryFixtureLoadsAndComesBack) {
  int loaded = 0;
  for (const auto& entry : fs::directory_iterator(fixture("families"))) {
    if (!entry.is_directory()) continue;
    SCOPED_TRACE(entry.path().string());
    const Model m = load_model(entry.path().string());
    TemporaryFolder folder;
    EXPECT_EQ(save_model(m, folder / "out", false, silent()).form, "dense");
    expect_equal(m, load_model((folder / "out").string()));
    // And under the names of the file: every tensor again, with its values.
    std::map<std::string, Blob> written;
    for (const StoredTensor& t : open_safetensors_folder(folder / "out")) written[t.name] = t.bytes;
    for (const StoredTensor& t : open_safetensors_folder(entry.path())) {
      ASSERT_TRUE(written.contains(t.name)) << t.name;
      EXPECT_TRUE(std::ranges::equal(written[t.name].bytes, t.bytes.bytes)) << t.name;
    }
    loaded++;
  }
  EXPECT_GE(loaded, 30);
}

TEST(Load, TensorsOutsideTheConfiguration) {
  TemporaryFolder folder;
  save_model(random_model(tiny_spec(), 3, Code::f32), folder / "m", false, silent());
  const fs::path m = folder / "m";
  const auto with = [&](const auto& change) {
    fs::remove_all(folder / "n");
    fs::copy(m, folder / "n");
    rewrite(folder / "n", change);
    return load_error(folder / "n");
  };
  EXPECT_EQ(with([](auto&) {}), "");
  // Buffers that old releases stored.
  EXPECT_EQ(with([](auto& list) {
              list.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq",
                              Dtype::F32,
                              {1},
                              std::vector<std::byte>(4)});
            }),
            "");
  const std::string misspelt = with([](auto& list) {
    list.push_back(
        {"model.layers.0.self_attn.q_proj.weigth", Dtype::F32, {1}, std::vector<std::byte>(4)});
  });
  EXPECT_TRUE(misspelt.starts_with("MO-003")) << misspelt;
  EXPECT_NE(misspelt.find("nearest expected name is model.layers.0.self_attn.q_proj.weight"),
            std::string::npos);
  const std::string integers = with([](auto& list) {
    list.push_back({"model.layers.0.extra", Dtype::I64, {1}, std::vector<std::byte>(8)});
  });
  EXPECT_TRUE(integers.starts_with("MO-003")) << integers;
  const std::string renamed =
      with([](auto& list) { named(list, "model.norm.weight").name = "model.nrm.weight"; });
  EXPECT_TRUE(renamed.starts_with("MO-001")) << renamed;
  EXPECT_NE(renamed.find("the nearest name is model.nrm.weight"), std::string::npos);
  const std::string type = with([](auto& list) {
    Rewritten& t = named(list, "model.norm.weight");
    t.dtype = Dtype::I32;
  });
  EXPECT_TRUE(type.starts_with("MO-001")) << type;
  EXPECT_NE(type.find("I32"), std::string::npos);
}

TEST(Load, DamagedConfigurationsAreRefusedByName) {
  TemporaryFolder folder;
  save_model(random_model(tiny_spec(), 3, Code::f32), folder / "m", false, silent());
  const fs::path config = folder / "m" / "config.json";
  const Json good = json_of(config);
  const auto with = [&](const char* key, Json value) {
    Json changed = good;
    changed.set(key, std::move(value));
    write_json(config, changed);
    return load_error(folder / "m");
  };
  EXPECT_EQ(with("vocab_size", 96), "");
  EXPECT_TRUE(with("num_hidden_layers", 3).starts_with("MO-001"));
  EXPECT_TRUE(with("num_hidden_layers", 1).starts_with("MO-003"));
  EXPECT_NE(with("vocab_size", 97).find("found 96 x 64; need 97 x 64"), std::string::npos);
  EXPECT_TRUE(with("model_type", "lama").starts_with("AR-001"));
  EXPECT_TRUE(with("tie_word_embeddings", false).starts_with("MO-001"));
  EXPECT_TRUE(with("num_hidden_layers", i64{1000000000}).starts_with("AR-002"));
  EXPECT_TRUE(with("pare", "text").starts_with("MO-015"));
  EXPECT_TRUE(with("pare", Json::object({{"kv", Json("int99")}})).starts_with("MO-015"));
  write_file(config, "{");
  EXPECT_TRUE(load_error(folder / "m").starts_with("JS-001"));
  write_file(config, "[1]");
  EXPECT_TRUE(load_error(folder / "m").starts_with("MO-002"));
  fs::remove(config);
  EXPECT_TRUE(load_error(folder / "m").starts_with("MO-002"));
}

TEST(Load, ATiedHeadMayOnlyBeStoredAgainAsItself) {
  TemporaryFolder folder;
  save_model(random_model(tiny_spec(true), 3, Code::bf16), folder / "m", false, silent());
  rewrite(folder / "m", [](auto& list) {
    Rewritten head = named(list, "model.embed_tokens.weight");
    head.name = "lm_head.weight";
    list.push_back(std::move(head));
  });
  EXPECT_EQ(load_error(folder / "m"), "");
  EXPECT_TRUE(load_model((folder / "m").string()).spec.tied);
  rewrite(folder / "m",
          [](auto& list) { named(list, "lm_head.weight").bytes[100] ^= std::byte{1}; });
  const std::string differs = load_error(folder / "m");
  EXPECT_TRUE(differs.starts_with("MO-009")) << differs;
  const std::size_t first = differs.find("hash "), second = differs.find("hash ", first + 1);
  ASSERT_NE(second, std::string::npos);
  EXPECT_NE(differs.substr(first, 21), differs.substr(second, 21));
}

TEST(Load, OtherFilesAreToldApart) {
  TemporaryFolder folder;
  for (const char* name : {"m.pt", "m.safetensors", "m.txt"}) write_file(folder / name, "x");
  EXPECT_NE(load_error(folder / "m.pt").find("can run code"), std::string::npos);
  EXPECT_NE(load_error(folder / "m.safetensors").find("give its folder"), std::string::npos);
  EXPECT_TRUE(load_error(folder / "m.txt").starts_with("MO-004"));
  EXPECT_TRUE(load_error(folder / "nothing").starts_with("HB-001"));
  // Pickled weights are never opened.
  fs::create_directory(folder / "p");
  fs::copy_file(fixture("families/llama2/config.json"), folder / "p" / "config.json");
  write_file(folder / "p" / "pytorch_model.bin", "x");
  EXPECT_TRUE(load_error(folder / "p").starts_with("ST-020"));
}

// ---- compressed-tensors as other programs write it ----

class Compressed : public ::testing::Test {
 protected:
  void make(const char* scheme, const char* activation = "none") {
    model = random_model(quantized(tiny_spec(true), scheme, activation), 3, Code::bf16);
    fs::remove_all(at());
    save_model(model, at(), false, silent());
    good = json_of(at() / "config.json");
  }
  fs::path at() const { return folder / "m"; }
  template <class F>
  std::string with(const F& change) {
    Json config = good;
    change(*config.find("quantization_config"));
    write_json(at() / "config.json", config);
    return load_error(at());
  }
  template <class F>
  std::string with_tensors(const F& change) {
    write_json(at() / "config.json", good);
    fs::remove_all(folder / "n");
    fs::copy(at(), folder / "n");
    rewrite(folder / "n", change);
    return load_error(folder / "n");
  }
  TemporaryFolder folder;
  Model model;
  Json good;
};

TEST_F(Compressed, TargetsAndIgnoredModules) {
  make("int4:g32");
  const auto groups = [](Json& q) -> Json& { return *q.find("config_groups")->find("group_0"); };
  const auto targets = [&](Json& q, std::initializer_list<Json> list) {
    groups(q).set("targets", Json::array(list));
  };
  EXPECT_EQ(with([&](Json& q) { targets(q, {Json("re:.*(_proj)$")}); }), "");
  EXPECT_EQ(with([&](Json& q) { targets(q, {Json("re:model\\.layers\\.\\d+\\.(?!norm).*")}); }),
            "");
  EXPECT_TRUE(with([&](Json& q) {
                targets(q, {Json("re:_proj$")});  // matched from the start of the name
              }).starts_with("MO-012"));
  EXPECT_TRUE(with([&](Json& q) { targets(q, {Json("re:.*q_proj")}); }).starts_with("MO-012"));
  EXPECT_TRUE(with([&](Json& q) {
                q.set("ignore", Json::array({Json("re:.*down_proj"), Json("lm_head")}));
              }).starts_with("MO-012"));
  EXPECT_TRUE(with([&](Json& q) { targets(q, {Json("re:(")}); }).starts_with("MO-010"));
  // A pattern that would take exponential time ends with an error.
  const std::string slow = with([&](Json& q) { targets(q, {Json("re:(([a-z_.0-9])+)+!$")}); });
  EXPECT_TRUE(slow.starts_with("TK-008") || slow.starts_with("MO-012")) << slow;
}

TEST_F(Compressed, WhatCannotBeReadIsRefusedByName) {
  make("int4:g32");
  const auto refuses = [&](const char* word, const auto& change) {
    const std::string found = with(change);
    EXPECT_TRUE(found.starts_with("MO-01") || found.starts_with("NU-031")) << word << found;
    EXPECT_NE(found.find(word), std::string::npos) << found;
  };
  refuses("aqlm", [](Json& q) { q.set("quant_method", "aqlm"); });
  refuses("marlin-24", [](Json& q) { q.set("format", "marlin-24"); });
  refuses("transform_config", [](Json& q) {
    q.set("transform_config", Json::object({{"config_groups", Json::object()}}));
  });
  refuses("sparse-24", [](Json& q) {
    q.set("sparsity_config", Json::object({{"format", Json("sparse-24-bitmask")}}));
  });
  refuses("num_bits", [](Json& q) {
    q.set("kv_cache_scheme", Json::object({{"num_bits", Json(4)}, {"type", Json("int")}}));
  });
  refuses("output", [](Json& q) {
    q.find("config_groups")
        ->find("group_0")
        ->set("output_activations", Json::object({{"num_bits", Json(8)}}));
  });
  refuses("actorder", [](Json& q) {
    q.find("config_groups")->find("group_0")->find("weights")->set("actorder", "group");
  });
  refuses("group", [](Json& q) {
    q.find("config_groups")->find("group_0")->find("weights")->set("group_size", 48);
  });
}

TEST_F(Compressed, PlanesAreCheckedWhenTheFolderIsOpened) {
  make("int4:g32");
  const std::string q = "model.layers.0.self_attn.q_proj.";
  EXPECT_TRUE(with_tensors([&](auto& list) {
                std::erase_if(list, [&](auto& t) { return t.name == q + "weight_scale"; });
              }).starts_with("MO-012"));
  EXPECT_TRUE(
      with_tensors([&](auto& list) {
        list.push_back({q + "weight_zero_point", Dtype::I32, {24, 2}, std::vector<std::byte>(192)});
      }).starts_with("MO-012"));
  EXPECT_TRUE(with_tensors([&](auto& list) {
                list.push_back({q + "weight_g_idx", Dtype::I32, {64}, std::vector<std::byte>(256)});
              }).starts_with("MO-012"));
  EXPECT_TRUE(with_tensors([&](auto& list) {
                Rewritten& t = named(list, q + "weight_scale");
                t.shape = {192, 1}, t.bytes.resize(384);
              }).starts_with("MO-012"));
  EXPECT_TRUE(with_tensors([&](auto& list) {
                const i64 wrong[] = {192, i64{1} << 40};
                std::memcpy(named(list, q + "weight_shape").bytes.data(), wrong, 16);
              }).starts_with("MO-012"));
  // Another module's scheme in the same file: its own shape is wrong for the configuration.
  EXPECT_NE(with_tensors([&](auto& list) {
              const i64 wrong[] = {64, 192};
              std::memcpy(named(list, q + "weight_shape").bytes.data(), wrong, 16);
            }),
            "");
}

TEST_F(Compressed, AQuantizedCacheGivesItsCode) {
  make("e4m3:channel", "e4m3:token");
  EXPECT_EQ(
      with([](Json& q) {
        q.set("kv_cache_scheme", Json::object({{"num_bits", Json(8)}, {"type", Json("float")}}));
      }),
      "");
  rewrite(at(), [](auto& list) {
    for (const char* scale : {"k_scale", "v_scale"})
      list.push_back({fmt::format("model.layers.0.self_attn.{}", scale),
                      Dtype::F32,
                      {1},
                      std::vector<std::byte>(4)});
  });
  const Model m = load_model(at().string());
  EXPECT_EQ(m.spec.kv, Code::e4m3);
  write_json(at() / "config.json", good);
  EXPECT_TRUE(load_error(at()).starts_with("MO-003"));  // scales without a cache scheme
}

TEST_F(Compressed, LoadingReadsNoWeights) {
  // Opening maps and compares headers; a plane that is damaged inside is found when it is drawn.
  make("nvfp4");
  const Model m = load_model(at().string());
  expect_equal(model, m);
}

// ---- ids and tokenizers ----

TEST(Load, EndTokensComeFromBothConfigurations) {
  TemporaryFolder folder;
  save_model(random_model(tiny_spec(), 3, Code::f32), folder / "m", false, silent());
  Json config = json_of(folder / "m" / "config.json");
  config.set("eos_token_id", Json::array({Json(5), Json(7)}));
  write_json(folder / "m" / "config.json", config);
  write_file(folder / "m" / "generation_config.json", R"({"eos_token_id": 9, "do_sample": true})");
  EXPECT_EQ(end_tokens(load_model((folder / "m").string())), (std::vector<std::int32_t>{5, 7, 9}));
}

TEST(Load, FindsTokenizers) {
  TemporaryFolder folder;
  save_model(random_model(tiny_spec(), 3, Code::f32), folder / "m", false, silent());
  EXPECT_TRUE(error_of([&] { find_tokenizer((folder / "m").string()); }).starts_with("MO-006"));
  write_file(folder / "m" / "tokenizer.json", "{}");
  EXPECT_EQ(find_tokenizer((folder / "m").string()), folder / "m");
  EXPECT_EQ(load_model((folder / "m").string()).tokenizer, folder / "m");
  LoadOptions options;
  options.tokenizer = (folder / "none").string();
  EXPECT_TRUE(
      error_of([&] { load_model((folder / "m").string(), options); }).starts_with("MO-006"));
}

TEST(Load, CacheCodeFollowsTheModel) {
  Spec spec = tiny_spec();
  EXPECT_EQ(default_kv(spec), Code::f16);
  spec.embed.code = Code::f32;
  EXPECT_EQ(default_kv(spec), Code::f32);
  spec.kv = Code::int8;
  EXPECT_EQ(default_kv(spec), Code::int8);
}

}  // namespace
}  // namespace pare
