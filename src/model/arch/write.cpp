// Writing a Spec back as config.json.
//
// A pass may have changed any number, so the keys are written from the Spec, over the config that
// came with the model (which also carries keys that no Spec holds). Whether the family's keys can
// say all of it is not argued case by case: the result is parsed again and compared, and the first
// field that differs is named.
#include <array>
#include <charconv>
#include <cmath>

#include "model/arch/common.h"

namespace pare::arch {

const Block& first_block(const Spec& spec) {
  if (spec.blocks.empty())
    fail_input("AR-007", "a config.json cannot describe a model without blocks");
  return spec.blocks.front();
}

bool fresh(const Json& original, std::string_view model_type) {
  const Json* type = original.find("model_type");
  return type == nullptr || !type->is_string() || type->as_string() != model_type;
}

Json start_config(const Json& original, std::string_view model_type,
                  std::string_view architecture) {
  if (!fresh(original, model_type)) return original;
  Json config = Json::object();
  config.set("architectures", Json::array({Json(architecture)}));
  config.set("model_type", model_type);
  return config;
}

void put_alias(Json& config, const Names& names, Json value) {
  for (std::string_view name : names) {
    if (config.find(name) == nullptr) continue;
    config.set(name, std::move(value));
    for (std::string_view other : names)
      if (other != name) config.erase(other);
    return;
  }
  config.set(*names.begin(), std::move(value));
}

void put_dtype(Json& config, const Scheme& embed) {
  const std::string_view key = config.find("dtype") != nullptr ? "dtype" : "torch_dtype";
  const char* word = nullptr;
  if (embed.plain() && embed.code == Code::f32) word = "float32";
  if (embed.plain() && embed.code == Code::f16) word = "float16";
  if (embed.plain() && embed.code == Code::bf16) word = "bfloat16";
  if (word == nullptr && config.find(key) == nullptr) word = "bfloat16";
  if (word != nullptr) config.set(key, word);
}

void put_sizes(Json& config, const Spec& spec) {
  const Block& block = first_block(spec);
  config.set("hidden_size", spec.dim);
  config.set("num_hidden_layers", spec.blocks.size());
  config.set("num_attention_heads", block.attn.heads);
  config.set("num_key_value_heads", block.attn.kv_heads);
  config.set("intermediate_size", block.ffn.up.out);
  config.set("vocab_size", spec.vocab);
  config.set("max_position_embeddings", spec.max_positions);
  config.set("tie_word_embeddings", spec.tied);
  put_dtype(config, spec.embed);
}

void put_gpt_sizes(Json& config, const Spec& spec) {
  const Block& block = first_block(spec);
  put_alias(config, {"n_embd", "hidden_size"}, spec.dim);
  put_alias(config, {"n_layer", "num_hidden_layers"}, spec.blocks.size());
  put_alias(config, {"n_head", "num_attention_heads"}, block.attn.heads);
  put_alias(config, {"n_positions", "max_position_embeddings"}, spec.max_positions);
  const i64 inner = block.ffn.up.out;
  config.set("n_inner", inner == 4 * spec.dim ? Json() : Json(inner));
  config.set("vocab_size", spec.vocab);
  config.set("tie_word_embeddings", spec.tied);
  put_dtype(config, spec.embed);
}

Json shortest(float value) {
  std::array<char, 64> text;
  const auto written = std::to_chars(text.data(), text.data() + text.size(), value);
  double result = value;
  std::from_chars(text.data(), written.ptr, result);
  return Json(result);
}

void put_eps(Json& config, std::string_view key, float eps) { config.set(key, shortest(eps)); }

void put_flag(Json& config, std::string_view key, bool value, bool absent) {
  if (value != absent || config.find(key) != nullptr) config.set(key, value);
}

void put_head_dim(Json& config, const Spec& spec, i64 absent) {
  const Attention& a = first_block(spec).attn;
  if (absent == 0) absent = a.heads > 0 && spec.dim % a.heads == 0 ? spec.dim / a.heads : -1;
  if (a.qk_dim != absent || config.find("head_dim") != nullptr) config.set("head_dim", a.qk_dim);
}

void put_act(Json& config, std::string_view key, Act act) {
  if (const Json* now = config.find(key); now != nullptr && now->is_string()) {
    try {
      Keys keys(config);
      if (read_act(keys, key, "") == act) return;
    } catch (const Error&) {  // a word nobody knows is replaced
    }
  }
  constexpr auto words =
      std::to_array<std::string_view>({"silu", "gelu", "gelu_pytorch_tanh", "relu", "relu2"});
  config.set(key, words[static_cast<std::size_t>(act)]);
}

void put_windows(Json& config, const Spec& spec, const Slides& usual) {
  i64 window = 0;
  bool as_usual = true;
  Json::Array types;
  for (std::size_t i = 0; i < spec.blocks.size(); i++) {
    const i64 own = spec.blocks[i].attn.window;
    window = std::max(window, own);
    as_usual = as_usual && (own > 0) == usual(static_cast<i64>(i));
    types.emplace_back(own > 0 ? "sliding_attention" : "full_attention");
  }
  config.set("sliding_window", window > 0 ? Json(window) : Json());
  if (!as_usual || config.find("layer_types") != nullptr)
    config.set("layer_types", Json(std::move(types)));
}

void put_latent(Json& config, const Spec& spec) {
  const Attention& a = first_block(spec).attn;
  config.set("q_lora_rank", a.q_rank > 0 ? Json(a.q_rank) : Json());
  config.set("kv_lora_rank", a.kv_rank);
  config.set("qk_nope_head_dim", a.qk_dim - a.rope.dims);
  config.set("qk_rope_head_dim", a.rope.dims);
  config.set("v_head_dim", a.v_dim);
  config.set("attention_bias", a.o.bias);
  if (config.find("qk_head_dim") != nullptr) config.set("qk_head_dim", a.qk_dim);
  if (config.find("head_dim") != nullptr) config.set("head_dim", a.rope.dims);
}

RopeConfig rope_of(const Attention& a) {
  RopeConfig result;
  result.rope = a.rope;
  const double plain = 1 / std::sqrt(static_cast<double>(std::max<i64>(1, a.qk_dim)));
  if (a.mla() && a.scale != static_cast<float>(plain)) result.score_factor = a.scale / plain;
  return result;
}

void put_rope(Json& config, bool fresh_config, const RopeConfig& wanted, const RopeHints& hints) {
  if (!fresh_config) {
    try {
      Keys keys(config);
      const RopeConfig now = parse_rope(keys, hints);
      const double difference = std::abs(now.score_factor - wanted.score_factor);
      if (now.rope == wanted.rope && difference < 1e-6 * now.score_factor) return;
    } catch (const Error&) {  // what no longer fits is replaced
    }
  }
  unparse_rope(config, wanted, hints);
}

Json verified(Json written, const Spec& spec, Spec (*parse)(const Json&)) {
  std::string difference;
  try {
    difference = first_difference(parse(written), spec);
  } catch (const Error& error) {
    difference = error.message;
    for (const Fact& fact : error.facts)
      difference += fmt::format(", {} {}", fact.label, fact.value);
  }
  if (!difference.empty())
    fail_input("AR-007",
               fmt::format("the config.json of {} models cannot describe this model",
                           written.at("model_type").as_string()),
               {{"found", difference}}, "save it in Pare's own form");
  return written;
}

}  // namespace pare::arch
