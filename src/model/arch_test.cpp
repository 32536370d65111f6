// Families against checkpoints that Transformers wrote (tests/fixtures/families, made by
// tools/make_family_fixtures.py): every tensor is some slot's and every slot has its rows; both
// generations of config keys give one Spec; what a Spec cannot say is refused by name.
#include "model/arch.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>

#include "model/arch/common.h"
#include "support.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

std::string text_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

Json json_of(const fs::path& path) { return parse_json(text_of(path), path.string()); }

std::vector<std::string> cases() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(fixture("families")))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

Json config_of(const std::string& name) {
  return json_of(fixture("families") / name / "config.json");
}

Spec parse(const Json& config) { return family_of(config).parse(config); }

template <class F>
std::string parse_error(F action) {
  try {
    action();
  } catch (const Error& error) {
    return error.code + " " + error.what();
  }
  return "no error";
}

// The shapes of a checkpoint's tensors, from the headers alone.
std::map<std::string, std::vector<i64>> tensors_of(const std::string& name) {
  std::map<std::string, std::vector<i64>> result;
  for (const auto& entry : fs::directory_iterator(fixture("families") / name)) {
    const std::string file = entry.path().filename().string();
    if (!file.starts_with("model") || !file.ends_with(".safetensors")) continue;
    const std::string bytes = text_of(entry.path());
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data(), sizeof length);
    const Json header = parse_json(std::string_view(bytes).substr(8, length), file);
    for (const auto& [tensor, value] : header.as_object()) {
      if (tensor == "__metadata__") continue;
      for (const Json& n : value.at("shape").as_array()) result[tensor].push_back(n.as_int());
    }
  }
  return result;
}

// How often each row of a source was claimed; its other axis must be the slot's.
void claim(std::vector<int>& rows, const Source& source, const Slot& slot,
           const std::vector<i64>& shape) {
  ASSERT_EQ(shape.size(), slot.shape.size()) << source.name;
  const bool matrix = shape.size() == 2;
  const i64 height = source.transposed ? shape[1] : shape[0];
  if (matrix) {
    EXPECT_EQ(source.transposed ? shape[0] : shape[1], slot.shape[1]) << source.name;
  }
  rows.resize(static_cast<std::size_t>(height));
  std::vector<RowRange> ranges = source.rows;
  if (ranges.empty()) ranges.push_back({0, height});
  i64 taken = 0;
  for (const RowRange& range : ranges) {
    ASSERT_GE(range.begin, 0) << slot.name;
    ASSERT_LE(range.begin + range.count, height) << slot.name;
    for (i64 r = 0; r < range.count; r++) rows[static_cast<std::size_t>(range.begin + r)]++;
    taken += range.count;
  }
  EXPECT_EQ(taken, slot.shape[0]) << slot.name;
}

TEST(Families, EveryTensorIsSomeSlotsAndEverySlotHasItsRows) {
  ASSERT_GE(cases().size(), 34U);
  for (const std::string& name : cases()) {
    SCOPED_TRACE(name);
    const Json config = config_of(name);
    const Family& family = family_of(config);
    const Spec spec = family.parse(config);
    const auto tensors = tensors_of(name);
    std::map<std::string, std::vector<int>> claimed;
    for (const Slot& slot : slots(spec)) {
      const Source source = family.source(slot, spec, config);
      ASSERT_TRUE(tensors.contains(source.name)) << slot.name << " as " << source.name;
      EXPECT_TRUE(source.name.starts_with(family.base_prefix) || slot.name.starts_with("head."));
      claim(claimed[source.name], source, slot, tensors.at(source.name));
    }
    for (const auto& [tensor, shape] : tensors) {
      ASSERT_TRUE(claimed.contains(tensor)) << tensor << " is nobody's";
      for (int times : claimed[tensor]) ASSERT_EQ(times, 1) << tensor;
    }
  }
}

TEST(Families, OlderKeysMeanTheSame) {
  int compared = 0;
  for (const std::string& name : cases()) {
    const fs::path older = fixture("families") / name / "config.v4.json";
    if (!fs::exists(older)) continue;
    const Spec a = parse(config_of(name)), b = parse(json_of(older));
    EXPECT_EQ(arch::first_difference(b, a), "") << name;
    EXPECT_TRUE(a == b) << name;
    compared++;
  }
  EXPECT_GE(compared, 20);
}

TEST(Families, WritingBackKeepsWhatWasThere) {
  for (const std::string& name : cases())
    for (const char* file : {"config.json", "config.v4.json"}) {
      SCOPED_TRACE(name + "/" + file);
      if (!fs::exists(fixture("families") / name / file)) continue;
      const Json config = json_of(fixture("families") / name / file);
      const Family& family = family_of(config);
      const Json written = family.unparse(family.parse(config), config);
      EXPECT_TRUE(family.parse(written) == family.parse(config));
      for (const auto& [key, value] : config.as_object()) {
        ASSERT_NE(written.find(key), nullptr) << key;
        EXPECT_EQ(*written.find(key), value) << key;
      }
    }
}

TEST(Families, WritingFromNothingSaysAllOfIt) {
  for (const std::string& name : cases()) {
    SCOPED_TRACE(name);
    const Json config = config_of(name);
    const Family& family = family_of(config);
    const Spec spec = family.parse(config);
    const Json written = family.unparse(spec, Json::object());
    EXPECT_EQ(written.at("model_type"), config.at("model_type"));
    EXPECT_EQ(written.at("architectures"), config.at("architectures"));
    EXPECT_EQ(arch::first_difference(family.parse(written), spec), "");
  }
}

TEST(Families, WritingRefusesWhatTheKeysCannotSay) {
  const Json config = config_of("llama_gqa");
  const Spec spec = parse(config);
  const auto refusal = [&](auto change) {
    Spec changed = spec;
    change(changed);
    return parse_error([&] { family_of(config).unparse(changed, config); });
  };
  EXPECT_NE(refusal([](Spec& s) { s.blocks[1].attn.heads = 3; }).find("blocks.1.attn.heads"),
            std::string::npos);
  EXPECT_NE(refusal([](Spec& s) { s.blocks[2].attn.kv_from = 1; }).find("blocks.2.attn.kv_from"),
            std::string::npos);
  EXPECT_NE(refusal([](Spec& s) { s.blocks[0].attn.sinks = 4; }).find("sinks"), std::string::npos);
  EXPECT_NE(refusal([](Spec& s) { s.blocks[0].parallel = true; }).find("parallel"),
            std::string::npos);
  EXPECT_NE(refusal([](Spec& s) { s.blocks.clear(); }).find("AR-007"), std::string::npos);
  // What every llama can be is written.
  Spec smaller = spec;
  smaller.blocks.pop_back();
  const Json written = family_of(config).unparse(smaller, config);
  EXPECT_EQ(written.at("num_hidden_layers").as_int(), 2);
  EXPECT_TRUE(parse(written) == smaller);
}

TEST(Families, UnknownKeysAreRefusedByName) {
  for (const std::string& name : cases()) {
    Json config = config_of(name);
    config.set("rotate_values_too", true);
    const std::string error = parse_error([&] { parse(config); });
    EXPECT_NE(error.find("AR-003"), std::string::npos) << name << ": " << error;
    EXPECT_NE(error.find("'rotate_values_too'"), std::string::npos) << name << ": " << error;
    config.set("rotate_values_too", nullptr);
    EXPECT_EQ(parse_error([&] { parse(config); }), "no error") << name;
  }
  Json config = config_of("llama_yarn");
  config.find("rope_parameters")->set("spin", 2);
  EXPECT_NE(parse_error([&] { parse(config); }).find("'rope_parameters.spin'"), std::string::npos);
}

TEST(Families, HarmlessKeysAreAccepted) {
  Json config = config_of("qwen3");
  const Spec before = parse(config);
  for (const char* key :
       {"_name_or_path", "transformers_version", "hidden_dropout", "attn_pdrop", "pad_token_id",
        "id2label", "temperature", "quantization_config", "unsloth_version"})
    config.set(key, "anything");
  EXPECT_TRUE(parse(config) == before);
}

TEST(Families, ExpertsAreRefusedInOneSentence) {
  const std::string sentence = "AR-004 mixture-of-experts models are not supported yet";
  for (const char* text : {R"({"model_type":"mixtral"})", R"({"model_type":"qwen3_moe"})",
                           R"({"model_type":"mystery","num_local_experts":8})",
                           R"({"architectures":["OlmoeForCausalLM"],"num_experts":64})"})
    EXPECT_EQ(parse_error([&] { family_of(parse_json(text, "config")); }).find(sentence), 0U)
        << text;
  for (const char* name : {"deepseek_v2", "deepseek_v3"}) {
    Json config = config_of(name);
    config.set("first_k_dense_replace", 1);
    EXPECT_EQ(parse_error([&] { parse(config); }).find(sentence), 0U) << name;
    config.erase("first_k_dense_replace");  // 0 and 3 when absent
    config.erase("n_routed_experts");
    config.set("num_hidden_layers", 4);
    EXPECT_EQ(parse_error([&] { parse(config); }).find(sentence), 0U) << name;
    config.set("n_routed_experts", nullptr);
    EXPECT_EQ(parse_error([&] { parse(config); }), "no error") << name;
  }
  Json config = config_of("llama2");
  config.set("num_local_experts", 4);
  EXPECT_EQ(parse_error([&] { parse(config); }).find(sentence), 0U);
}

struct Hostile {
  const char *name, *key, *value, *code;
};

TEST(Families, HostileValuesAreNamed) {
  const Hostile rows[] = {
      {"llama2", "num_hidden_layers", "1000000000", "AR-002"},
      {"llama2", "num_hidden_layers", "0", "AR-002"},
      {"llama2", "num_hidden_layers", "-3", "AR-002"},
      {"llama2", "num_hidden_layers", "\"2\"", "AR-002"},
      {"llama2", "num_hidden_layers", "2.5", "AR-002"},
      {"llama2", "num_hidden_layers", "null", "AR-008"},
      {"llama2", "hidden_size", "9223372036854775807", "AR-002"},
      {"llama2", "hidden_size", "1e300", "AR-002"},
      {"llama2", "hidden_size", "true", "AR-002"},
      {"llama2", "hidden_size", "[30]", "AR-002"},
      {"llama2", "vocab_size", "-1", "AR-002"},
      {"llama2", "rms_norm_eps", "-1e-5", "AR-002"},
      {"llama2", "rms_norm_eps", "\"small\"", "AR-002"},
      {"llama2", "num_key_value_heads", "2", "AR-006"},
      {"llama2", "num_attention_heads", "65536", "AR-006"},
      {"llama2", "hidden_act", "\"swoosh\"", "AR-005"},
      {"llama2", "hidden_act", "7", "AR-002"},
      {"llama2", "tie_word_embeddings", "\"yes\"", "AR-002"},
      {"llama2", "rope_parameters", "[]", "AR-002"},
      {"llama2", "rope_parameters", R"({"rope_type":"spiral"})", "AR-005"},
      {"llama2", "rope_parameters", R"({"rope_type":"linear"})", "AR-008"},
      {"llama2", "rope_parameters", R"({"rope_type":"linear","type":"yarn"})", "AR-006"},
      {"llama2", "rope_parameters", R"({"rope_type":"default","rope_theta":-1})", "AR-002"},
      {"llama2", "rope_parameters", R"({"rope_theta":1e4,"partial_rotary_factor":0.5})", "AR-005"},
      {"llama2", "rope_parameters", R"({"full_attention":{"rope_theta":1e4}})", "AR-003"},
      {"llama2", "rope_theta", "20000", "AR-006"},
      {"llama2", "rope_scaling", R"({"type":"linear","factor":2})", "AR-006"},
      {"llama2", "rope_scaling", R"({"type":"longrope","factor":2})", "AR-008"},
      {"llama2", "dtype", "\"int4\"", "AR-005"},
      {"llama2", "torch_dtype", "\"bfloat16\"", "AR-006"},
      {"llama2", "sliding_window", "4", "AR-003"},
      {"llama2", "text_config", "{}", "AR-003"},
      {"llama2", "is_encoder_decoder", "true", "AR-005"},
      {"llama2", "pruned_heads", R"({"0":[1]})", "AR-005"},
      {"llama2", "model_type", "3", "AR-002"},
      {"llama2", "model_type", "\"lama\"", "AR-001"},
      {"mistral", "layer_types", R"(["full_attention","sliding_attention"])", "AR-006"},
      {"qwen2", "layer_types", R"(["full_attention"])", "AR-002"},
      {"qwen2", "layer_types", R"(["full_attention","sliding_attention"])", "AR-006"},
      {"qwen2_window", "sliding_window", "null", "AR-006"},
      {"qwen2_window", "layer_types", R"(["chunked_attention","x","y"])", "AR-005"},
      {"qwen2", "use_mrope", "true", "AR-005"},
      {"gemma2", "use_bidirectional_attention", "true", "AR-005"},
      {"gemma2", "attn_logit_softcapping", "-50", "AR-002"},
      {"phi3", "original_max_position_embeddings", "0", "AR-002"},
      {"phi3_longrope", "original_max_position_embeddings", "31", "AR-006"},
      {"phi3_longrope", "hidden_size", "36", "AR-002"},
      {"gpt2", "n_head", "3", "AR-006"},
      {"gpt2", "hidden_size", "29", "AR-006"},
      {"gpt2", "add_cross_attention", "true", "AR-005"},
      {"gptj", "rotary_dim", "12", "AR-006"},
      {"gptj", "rotary_dim", "5", "AR-006"},
      {"gpt_neox_parallel", "num_key_value_heads", "1", "AR-006"},
      {"gpt_neox_parallel", "rope_parameters", R"({"partial_rotary_factor":0.2})", "AR-006"},
      {"falcon_mqa", "alibi", "true", "AR-005"},
      {"falcon_mha", "num_kv_heads", "1", "AR-006"},
      {"falcon_mha", "num_ln_in_parallel_attn", "2", "AR-006"},
      {"falcon_new", "parallel_attn", "false", "AR-006"},
      {"falcon_new", "num_kv_heads", "4", "AR-006"},
      {"deepseek_v2", "num_key_value_heads", "1", "AR-006"},
      {"deepseek_v2", "qk_rope_head_dim", "7", "AR-006"},
      {"deepseek_v2", "qk_head_dim", "15", "AR-006"},
      {"deepseek_v3", "kv_lora_rank", "null", "AR-008"},
      {"deepseek_v3", "mlp_bias", "true", "AR-003"},
      {"minicpm3", "scale_depth", "0", "AR-002"},
  };
  for (const Hostile& row : rows) {
    Json config = config_of(row.name);
    config.set(row.key, parse_json(row.value, "value"));
    const std::string error = parse_error([&] { parse(config); });
    EXPECT_EQ(error.substr(0, 6), row.code) << row.name << " " << row.key << ": " << error;
    EXPECT_NE(error.find("key "), std::string::npos) << error;
  }
  EXPECT_NE(parse_error([] { family_of(parse_json("[1]", "config")); }).find("AR-002"),
            std::string::npos);
  EXPECT_NE(parse_error([] { family_of(parse_json("{}", "config")); }).find("AR-001"),
            std::string::npos);
}

// Any value under any key is an Error or a Spec that can be written and read again; nothing else.
TEST(Families, EveryKeySurvivesEveryKindOfValue) {
  const char* values[] = {"null",
                          "true",
                          "false",
                          "-1",
                          "0",
                          "1",
                          "2",
                          "7",
                          "4096",
                          "0.5",
                          "1e30",
                          "\"\"",
                          "\"x\"",
                          "[]",
                          "{}",
                          "[1]",
                          "[\"full_attention\"]",
                          R"({"rope_type":"yarn","factor":1e6})",
                          "9223372036854775807"};
  i64 specs = 0, errors = 0;
  for (const std::string& name : cases()) {
    const Json config = config_of(name);
    for (const auto& [key, before] : config.as_object())
      for (const char* value : values) {
        Json changed = config;
        changed.set(key, parse_json(value, "value"));
        try {
          const Spec spec = parse(changed);
          const Family& family = family_of(changed);
          EXPECT_EQ(arch::first_difference(family.parse(family.unparse(spec, changed)), spec), "")
              << name << " " << key << " " << value;
          specs++;
        } catch (const Error& error) {
          EXPECT_TRUE(error.code.starts_with("AR-") && error.code != "AR-007")
              << name << " " << key << " " << value << ": " << error.what();
          errors++;
        }
      }
  }
  EXPECT_GT(specs, 1000);
  EXPECT_GT(errors, 1000);
}

TEST(Families, MissingSizesAreNamed) {
  for (const char* key : {"hidden_size", "num_hidden_layers", "num_attention_heads",
                          "intermediate_size", "vocab_size"}) {
    Json config = config_of("llama2");
    config.erase(key);
    const std::string error = parse_error([&] { parse(config); });
    EXPECT_NE(error.find("AR-008"), std::string::npos) << error;
    EXPECT_NE(error.find(key), std::string::npos) << error;
  }
}

TEST(Families, NumbersComeOut) {
  const Spec llama3 = parse(config_of("llama3"));
  const Rope& rope = llama3.blocks[0].attn.rope;
  EXPECT_EQ(rope.scaling, RopeScaling::llama3);
  EXPECT_EQ(rope.original_positions, 64);
  EXPECT_DOUBLE_EQ(rope.theta, 500000);
  EXPECT_DOUBLE_EQ(rope.high_freq_factor, 4);

  const Spec yarn = parse(config_of("llama_yarn"));
  EXPECT_DOUBLE_EQ(yarn.blocks[0].attn.rope.attention_factor, 0.1 * std::log(4.0) + 1);
  EXPECT_DOUBLE_EQ(parse(config_of("llama_yarn_full")).blocks[0].attn.rope.attention_factor, 1.25);

  const Spec gemma = parse(config_of("gemma2"));
  EXPECT_EQ(gemma.blocks[0].attn.window, 6);
  EXPECT_EQ(gemma.blocks[1].attn.window, 0);
  EXPECT_FLOAT_EQ(gemma.blocks[0].attn.scale, 1 / std::sqrt(20.0f));
  EXPECT_FLOAT_EQ(gemma.embed_scale, std::sqrt(28.0f));
  EXPECT_TRUE(gemma.blocks[0].after_ffn.has_value() && gemma.final_norm.plus_one && gemma.tied);

  const Spec phi = parse(config_of("phi3"));
  EXPECT_EQ(phi.blocks[0].attn.rope.dims, 4);
  EXPECT_EQ(phi.blocks[1].attn.window, 9);
  const Spec gpt2 = parse(config_of("gpt2_scaled"));
  EXPECT_FLOAT_EQ(gpt2.blocks[2].attn.scale * 3, gpt2.blocks[0].attn.scale);

  const Attention latent = parse(config_of("deepseek_v3_yarn")).blocks[0].attn;
  const double m = 0.1 * 1.2 * std::log(4.0) + 1;
  EXPECT_FLOAT_EQ(latent.scale, static_cast<float>(m * m / std::sqrt(14.0)));
  EXPECT_DOUBLE_EQ(latent.rope.attention_factor, (0.1 * 0.7 * std::log(4.0) + 1) / m);
  EXPECT_FALSE(parse(config_of("deepseek_v3_halves")).blocks[0].attn.rope.interleaved);
  EXPECT_EQ(parse(config_of("qwen2_window")).blocks[0].attn.window, 0);
  EXPECT_EQ(parse(config_of("qwen2_window")).blocks[1].attn.window, 7);
}

TEST(Families, AbsentAndNullWindowsDiffer) {
  Json config = config_of("mistral");
  config.set("sliding_window", nullptr);
  EXPECT_EQ(parse(config).blocks[0].attn.window, 0);
  config.erase("sliding_window");
  EXPECT_EQ(parse(config).blocks[0].attn.window, 4096);
}

// The factors that the training code of this family got by rounding to bfloat16.
TEST(Families, GemmaRoundsItsEmbeddingFactorToTheModelsType) {
  for (const auto& [dim, factor] : {std::pair{2304, 48.0f}, {2560, 50.5f}, {3584, 59.75f}}) {
    Json config = config_of("gemma2");
    config.set("hidden_size", dim);
    config.set("dtype", "bfloat16");
    EXPECT_EQ(parse(config).embed_scale, factor);
    // Weights in another type since: the factor stays, so the written type must say so.
    Spec spec = parse(config);
    spec.embed.code = Code::f32;
    EXPECT_EQ(parse(family_of(config).unparse(spec, config)).embed_scale, factor);
  }
}

TEST(Families, OldNamesOfFalconAndPhi) {
  Json config = config_of("falcon_new");
  const Spec spec = parse(config);
  for (const auto& [now, before] : {std::pair{"hidden_size", "n_embed"},
                                    {"num_kv_heads", "n_head_kv"},
                                    {"num_attention_heads", "n_head"},
                                    {"num_hidden_layers", "n_layer"}}) {
    config.set(before, config.at(now));
    config.erase(now);
  }
  EXPECT_TRUE(parse(config) == spec);
  Json phi = json_of(fixture("families") / "phi3_longrope" / "config.v4.json");
  const Spec longrope = parse(phi);
  for (const char* word : {"su", "yarn"}) {
    phi.find("rope_scaling")->set("type", word);
    EXPECT_TRUE(parse(phi) == longrope);
  }
}

// The keys of released models that no class of today writes any more, or that only they have.
TEST(Families, KeysOfReleasedModels) {
  const char* texts[] = {
      R"({"model_type":"llama","architectures":["LlamaForCausalLM"],"attention_bias":false,
          "hidden_size":576,"intermediate_size":1536,"is_llama_config":true,"num_attention_heads":9,
          "num_hidden_layers":30,"num_key_value_heads":3,"pretraining_tp":1,"rope_interleaved":false,
          "rope_scaling":null,"rope_theta":100000,"tie_word_embeddings":true,
          "transformers.js_config":{"kv_cache_dtype":{"q4":"float16"}},"vocab_size":49152})",
      R"({"model_type":"llama","hidden_size":4096,"intermediate_size":11008,"max_sequence_length":2048,
          "num_attention_heads":32,"num_hidden_layers":32,"pad_token_id":0,"vocab_size":32000,
          "rope_scaling":{"factor":4.0,"type":"linear"}})",
      R"({"model_type":"gpt2","activation_function":"gelu_new","n_ctx":1024,"n_embd":768,"n_head":12,
          "n_layer":12,"n_positions":1024,"summary_type":"cls_index","summary_use_proj":true,
          "task_specific_params":{"text-generation":{"do_sample":true}},"vocab_size":50257})",
      R"({"model_type":"gptj","gradient_checkpointing":false,"n_embd":4096,"n_head":16,"n_inner":null,
          "n_layer":28,"n_positions":2048,"rotary":true,"rotary_dim":64,"scale_attn_weights":true,
          "tie_word_embeddings":false,"tokenizer_class":"GPT2Tokenizer","vocab_size":50400})",
      R"({"model_type":"gpt_neox","attention_probs_dropout_prob":0,"hidden_dropout_prob":0,
          "hidden_size":6144,"intermediate_size":24576,"num_attention_heads":64,
          "num_hidden_layers":44,"rotary_emb_base":10000,"rotary_pct":0.25,"vocab_size":50432})",
      R"({"model_type":"falcon","alibi":false,"apply_residual_connection_post_layernorm":false,
          "auto_map":{"AutoConfig":"x"},"bias":false,"hidden_dropout":0.0,"hidden_size":4544,
          "multi_query":true,"new_decoder_architecture":false,"num_attention_heads":71,
          "num_hidden_layers":32,"parallel_attn":true,"vocab_size":65024})",
      R"({"model_type":"falcon","ff_factor":4,"ffn_hidden_size":16384,"hidden_size":4096,
          "new_decoder_architecture":true,"num_attention_heads":32,"num_hidden_layers":60,
          "num_kv_heads":8,"num_ln_in_parallel_attn":1,"rope_theta":500042,"vocab_size":65024})",
      R"({"model_type":"phi3","attention_bias":false,"embd_pdrop":0.0,"full_attn_mod":1,
          "hidden_size":3072,"intermediate_size":8192,"interpolate_factor":1,"lm_head_bias":false,
          "max_position_embeddings":131072,"mlp_bias":false,"num_attention_heads":24,
          "num_hidden_layers":32,"num_key_value_heads":8,"original_max_position_embeddings":4096,
          "partial_rotary_factor":0.75,"sliding_window":262144,"tie_word_embeddings":true,
          "vocab_size":200064})",
      R"({"model_type":"gemma2","cache_implementation":"hybrid","head_dim":256,
          "hidden_act":"gelu_pytorch_tanh","hidden_activation":"gelu_pytorch_tanh",
          "hidden_size":2304,"intermediate_size":9216,"num_attention_heads":8,
          "num_hidden_layers":26,"num_key_value_heads":4,"query_pre_attn_scalar":256,
          "sliding_window":4096,"sliding_window_size":4096,"vocab_size":256000})",
      R"({"model_type":"qwen2","hidden_size":896,"intermediate_size":4864,"max_window_layers":21,
          "num_attention_heads":14,"num_hidden_layers":24,"num_key_value_heads":2,
          "sliding_window":32768,"use_mrope":false,"use_sliding_window":false,"vocab_size":151936})",
  };
  for (const char* text : texts) {
    const Json config = parse_json(text, "config.json");
    EXPECT_EQ(parse_error([&] { parse(config); }), "no error") << text;
  }
}

TEST(Families, LegacyBuffersMayBePresent) {
  EXPECT_TRUE(find_family("gpt2")->ignorable("transformer.h.3.attn.masked_bias"));
  EXPECT_TRUE(find_family("gpt_neox")->ignorable("gpt_neox.layers.0.attention.bias"));
  EXPECT_TRUE(find_family("llama")->ignorable("model.layers.0.self_attn.rotary_emb.inv_freq"));
  EXPECT_TRUE(find_family("llama")->ignorable("lm_head.weight"));
  EXPECT_FALSE(find_family("llama")->ignorable("model.layers.0.self_attn.q_proj.weight"));
  EXPECT_FALSE(find_family("gpt2")->ignorable("transformer.h.3.attn.c_attn.bias"));
  EXPECT_EQ(find_family("bert"), nullptr);
}

}  // namespace
}  // namespace pare
