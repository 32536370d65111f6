// falcon: three generations under one name.
//
//   new_decoder_architecture   grouped heads, parallel, one or two LayerNorms (40B, 180B, 11B)
//   multi_query                one key/value head, parallel or not (7B)
//   neither                    as many as heads, parallel or not (1B without ALiBi)
//
// The fused projection has one layout for all three: for each key/value head its queries, its key,
// its value. Almazrouei et al. 2023, arXiv 2311.16867. ALiBi positions are refused.
#include <array>

#include "model/arch/common.h"
#include "model/arch/families.h"

namespace pare::arch {
namespace {

struct Variant {
  bool renewed = false, multi_query = true, parallel = true, two_norms = false;
};

Variant read_variant(Keys& keys) {
  Variant v;
  v.renewed = keys.boolean({"new_decoder_architecture"}).value_or(false);
  v.multi_query = keys.boolean({"multi_query"}).value_or(true);
  v.parallel = keys.boolean({"parallel_attn"}).value_or(true);
  if (v.renewed && !v.parallel)
    keys.contradiction("parallel_attn", "true with new_decoder_architecture");
  const auto norms = keys.integer({"num_ln_in_parallel_attn"}, 1, 2);
  v.two_norms = norms.value_or(v.renewed ? 2 : 1) == 2;
  if (v.two_norms && !v.renewed)
    keys.contradiction("num_ln_in_parallel_attn", "1 without new_decoder_architecture");
  keys.only("alibi", false, "ALiBi positions are not supported");
  keys.only("apply_residual_connection_post_layernorm", false,
            "the residual stream is taken before the norm");
  return v;
}

Sizes read_falcon_sizes(Keys& keys, const Variant& v) {
  Sizes s;
  s.scheme = read_scheme(keys);
  s.dim = keys.required({"hidden_size", "n_embed"}, 1, max_width);
  s.layers = keys.required({"num_hidden_layers", "n_layer"}, 1, max_layers);
  s.heads = keys.required({"num_attention_heads", "n_head"}, 1, max_heads);
  if (s.dim % s.heads != 0)
    keys.contradiction("num_attention_heads",
                       fmt::format("a divisor of the hidden size {}", s.dim));
  s.head_dim = s.dim / s.heads;
  const i64 kv = keys.integer({"num_kv_heads", "n_head_kv"}, 1, max_heads).value_or(s.heads);
  if (!v.renewed && !v.multi_query && kv != s.heads)
    keys.contradiction("num_kv_heads", "as many as heads without multi_query");
  s.kv_heads = !v.renewed && v.multi_query ? 1 : kv;
  s.inner = keys.integer({"ffn_hidden_size"}, 1, max_inner).value_or(4 * s.dim);
  if (const auto factor = keys.integer({"ff_factor"}, 1, max_inner);
      factor && *factor * s.dim != s.inner)
    keys.contradiction("ff_factor", "ffn_hidden_size / hidden_size");
  s.vocab = keys.required({"vocab_size"}, 1, max_vocab);
  s.max_positions = keys.integer({"max_position_embeddings"}, 1, max_context).value_or(2048);
  check_heads(keys, s, "num_attention_heads", "num_kv_heads");
  return s;
}

Spec parse(const Json& config) {
  Keys keys(config);
  read_common(keys);
  const Variant v = read_variant(keys);
  const Sizes s = read_falcon_sizes(keys, v);
  const RopeConfig rope = parse_rope(keys, plain_rope(s.head_dim, s.max_positions));
  const bool bias = keys.boolean({"bias"}).value_or(false);
  Block block;
  block.parallel = v.parallel;
  block.before_attn = layer_norm(read_eps(keys, "layer_norm_epsilon", 1e-5));
  if (!v.parallel || v.two_norms) block.before_ffn = block.before_attn;
  block.attn = plain_attention(s, rope.rope, bias, bias);
  block.ffn = plain_ffn(s, read_act(keys, "activation", "gelu"), bias);
  const bool tied = keys.boolean({"tie_word_embeddings"}).value_or(true);
  keys.finish("falcon models");
  return assemble(s, block, *block.before_attn, tied);
}

constexpr auto outside = std::to_array<NameRule>({
    {"embed", "transformer.word_embeddings"},
    {"norm", "transformer.ln_f"},
    {"head", "lm_head"},
});
constexpr auto inside = std::to_array<NameRule>({
    {"before_attn", "input_layernorm"},
    {"before_ffn", "post_attention_layernorm"},
    {"attn.q", "self_attention.query_key_value", grouped_q},
    {"attn.k", "self_attention.query_key_value", grouped_k},
    {"attn.v", "self_attention.query_key_value", grouped_v},
    {"attn.o", "self_attention.dense"},
    {"ffn.up", "mlp.dense_h_to_4h"},
    {"ffn.down", "mlp.dense_4h_to_h"},
});
constexpr auto two_norms = std::to_array<NameRule>({
    {"before_attn", "ln_attn"},
    {"before_ffn", "ln_mlp"},
});

Source source(const Slot& slot, const Spec& spec, const Json&) {
  constexpr std::string_view prefix = "transformer.h.{}.";
  std::array<NameTable, 3> tables = {{{"", outside}, {prefix, {}}, {prefix, inside}}};
  if (slot.block >= 0) {
    const Block& block = spec.blocks[static_cast<std::size_t>(slot.block)];
    if (block.parallel && block.before_ffn) tables[1].rules = two_norms;
  }
  return source_from(tables, slot, spec);
}

// Keeps the generation the config names where it still can say the same.
void put_variant(Json& config, const Block& block) {
  const Attention& a = block.attn;
  const Json* now = config.find("new_decoder_architecture");
  const bool was = now != nullptr && now->is_bool() && now->as_bool();
  const bool grouped = a.kv_heads != 1 && a.kv_heads != a.heads;
  const bool renewed = block.parallel && (was || grouped || block.before_ffn.has_value());
  config.set("new_decoder_architecture", renewed);
  if (!renewed || config.find("multi_query") == nullptr) config.set("multi_query", a.kv_heads == 1);
  config.set("parallel_attn", block.parallel);
  config.set("num_ln_in_parallel_attn",
             renewed ? Json(block.before_ffn.has_value() ? 2 : 1) : Json());
  if (renewed || a.kv_heads != 1)
    put_alias(config, {"num_kv_heads", "n_head_kv"}, a.kv_heads);
  else
    put_alias(config, {"num_kv_heads", "n_head_kv"}, a.heads);
}

Json unparse(const Spec& spec, const Json& original) {
  const Block& block = first_block(spec);
  Json config = start_config(original, "falcon", "FalconForCausalLM");
  put_alias(config, {"hidden_size", "n_embed"}, spec.dim);
  put_alias(config, {"num_hidden_layers", "n_layer"}, spec.blocks.size());
  put_alias(config, {"num_attention_heads", "n_head"}, block.attn.heads);
  put_variant(config, block);
  config.set("ffn_hidden_size", block.ffn.up.out);
  config.set("vocab_size", spec.vocab);
  config.set("max_position_embeddings", spec.max_positions);
  config.set("tie_word_embeddings", spec.tied);
  config.set("alibi", false);
  put_flag(config, "bias", block.attn.q.bias, false);
  put_act(config, "activation", block.ffn.act);
  put_eps(config, "layer_norm_epsilon", spec.final_norm.eps);
  put_dtype(config, spec.embed);
  put_rope(config, fresh(original, "falcon"), rope_of(block.attn),
           plain_rope(block.attn.qk_dim, spec.max_positions));
  return verified(std::move(config), spec, parse);
}

}  // namespace

const Family falcon = {"falcon", "FalconForCausalLM", parse, source, llama_ignorable,
                       unparse,  "transformer."};

}  // namespace pare::arch
