// gpt_neox: LayerNorm with biases, rope on a quarter of each head, attention and MLP in parallel on
// norms of their own (or in sequence), queries, keys and values fused per head. GPT-NeoX, Pythia.
// Black et al. 2022, arXiv 2204.06745.
#include <array>

#include "model/arch/common.h"
#include "model/arch/families.h"

namespace pare::arch {
namespace {

RopeHints rope_hints(i64 head_dim, i64 max_positions) {
  RopeHints hints = plain_rope(head_dim, max_positions);
  hints.theta_keys = {"rotary_emb_base", "rope_theta"};
  hints.partial_keys = {"rotary_pct", "partial_rotary_factor"};
  hints.partial = 0.25;
  return hints;
}

Spec parse(const Json& config) {
  Keys keys(config);
  read_common(keys);
  const Sizes s = read_sizes(keys, 2048);
  if (s.kv_heads != s.heads)
    keys.contradiction("num_key_value_heads", "as many as num_attention_heads in this family");
  if (s.head_dim * s.heads != s.dim)
    keys.contradiction("head_dim", "hidden_size / num_attention_heads in this family");
  const RopeConfig rope = parse_rope(keys, rope_hints(s.head_dim, s.max_positions));
  const bool bias = keys.boolean({"attention_bias"}).value_or(true);
  Block block;
  block.before_attn = block.before_ffn = layer_norm(read_eps(keys, "layer_norm_eps", 1e-5));
  block.parallel = keys.boolean({"use_parallel_residual"}).value_or(true);
  block.attn = plain_attention(s, rope.rope, bias, bias);
  block.ffn = plain_ffn(s, read_act(keys, "hidden_act", "gelu"), true);
  const bool tied = keys.boolean({"tie_word_embeddings"}).value_or(false);
  keys.finish("gpt_neox models");
  return assemble(s, block, *block.before_attn, tied);
}

constexpr auto outside = std::to_array<NameRule>({
    {"embed", "gpt_neox.embed_in"},
    {"norm", "gpt_neox.final_layer_norm"},
    {"head", "embed_out"},
});
constexpr auto inside = std::to_array<NameRule>({
    {"before_attn", "input_layernorm"},
    {"before_ffn", "post_attention_layernorm"},
    {"attn.q", "attention.query_key_value", grouped_q},
    {"attn.k", "attention.query_key_value", grouped_k},
    {"attn.v", "attention.query_key_value", grouped_v},
    {"attn.o", "attention.dense"},
    {"ffn.up", "mlp.dense_h_to_4h"},
    {"ffn.down", "mlp.dense_4h_to_h"},
});

Source source(const Slot& slot, const Spec& spec, const Json&) {
  const std::array<NameTable, 2> tables = {{{"", outside}, {"gpt_neox.layers.{}.", inside}}};
  return source_from(tables, slot, spec);
}

bool ignorable(std::string_view tensor) {
  return legacy_buffer(tensor) || tensor == "embed_out.weight";
}

Json unparse(const Spec& spec, const Json& original) {
  const Block& block = first_block(spec);
  Json config = start_config(original, "gpt_neox", "GPTNeoXForCausalLM");
  put_sizes(config, spec);
  if (block.attn.kv_heads == block.attn.heads) config.erase("num_key_value_heads");
  put_head_dim(config, spec, 0);
  put_act(config, "hidden_act", block.ffn.act);
  put_eps(config, "layer_norm_eps", spec.final_norm.eps);
  config.set("use_parallel_residual", block.parallel);
  put_flag(config, "attention_bias", block.attn.q.bias, true);
  put_rope(config, fresh(original, "gpt_neox"), rope_of(block.attn),
           rope_hints(block.attn.qk_dim, spec.max_positions));
  return verified(std::move(config), spec, parse);
}

}  // namespace

const Family gpt_neox = {"gpt_neox", "GPTNeoXForCausalLM", parse, source, ignorable,
                         unparse,    "gpt_neox."};

}  // namespace pare::arch
