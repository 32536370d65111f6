// phi3: llama with fused projections, optionally rope on the front of each head only, and LongRoPE.
//
// qkv_proj stacks all queries, all keys, all values; gate_up_proj stacks gate and up. Phi-3, 3.5
// and the dense Phi-4 models. Abdin et al. 2024, arXiv 2404.14219.
#include <array>

#include "model/arch/common.h"
#include "model/arch/families.h"

namespace pare::arch {
namespace {

RopeHints rope_hints(i64 head_dim, i64 max_positions) {
  RopeHints hints = plain_rope(head_dim, max_positions);
  hints.partial_keys = {"partial_rotary_factor"};
  hints.original_positions = 4096;
  hints.longrope_aliases = true;
  return hints;
}

Spec parse(const Json& config) {
  Keys keys(config);
  read_common(keys);
  const Sizes s = read_sizes(keys, 4096);
  const RopeConfig rope = parse_rope(keys, rope_hints(s.head_dim, s.max_positions));
  for (std::string_view key : {"attention_bias", "mlp_bias", "lm_head_bias"})
    keys.only(key, false, "this family has no biases");
  keys.only("full_attn_mod", 1, "block-sparse attention is not supported");
  keys.only("interpolate_factor", 1, "this switch is not supported");
  Block block;
  block.before_attn = block.before_ffn = rms(read_eps(keys, "rms_norm_eps", 1e-5));
  block.attn = plain_attention(s, rope.rope, false, false);
  block.attn.window = keys.integer({"sliding_window"}, 1, max_context).value_or(0);
  block.ffn = gated_ffn(s, read_act(keys, "hidden_act", "silu"), false);
  const bool tied = keys.boolean({"tie_word_embeddings"}).value_or(false);
  keys.finish("phi3 models");
  return assemble(s, block, *block.before_attn, tied);
}

std::vector<RowRange> gate_rows(const Block& block) { return {{0, block.ffn.gate.out}}; }
std::vector<RowRange> up_rows(const Block& block) {
  return {{block.ffn.gate.out, block.ffn.up.out}};
}

constexpr auto names = std::to_array<NameRule>({
    {"attn.q", "self_attn.qkv_proj", stacked_q},
    {"attn.k", "self_attn.qkv_proj", stacked_k},
    {"attn.v", "self_attn.qkv_proj", stacked_v},
    {"ffn.gate", "mlp.gate_up_proj", gate_rows},
    {"ffn.up", "mlp.gate_up_proj", up_rows},
});

Source source(const Slot& slot, const Spec& spec, const Json&) {
  const std::array<NameTable, 3> tables = {
      {{"", llama_rules()}, {"model.layers.{}.", names}, {"model.layers.{}.", llama_rules()}}};
  return source_from(tables, slot, spec);
}

Json unparse(const Spec& spec, const Json& original) {
  const Block& block = first_block(spec);
  Json config = start_config(original, "phi3", "Phi3ForCausalLM");
  put_sizes(config, spec);
  put_head_dim(config, spec, 0);
  put_act(config, "hidden_act", block.ffn.act);
  put_eps(config, "rms_norm_eps", spec.final_norm.eps);
  const i64 window = block.attn.window;
  config.set("sliding_window", window > 0 ? Json(window) : Json());
  // Readers take this one from the top level, with a class default where it is missing.
  if (block.attn.rope.original_positions > 0)
    config.set("original_max_position_embeddings", block.attn.rope.original_positions);
  const Rope& rope = block.attn.rope;
  const i64 head_dim = block.attn.qk_dim;
  put_rope(config, fresh(original, "phi3"), {rope, 1}, rope_hints(head_dim, spec.max_positions));
  return verified(std::move(config), spec, parse);
}

}  // namespace

const Family phi3 = {"phi3", "Phi3ForCausalLM", parse, source, llama_ignorable, unparse, "model."};

}  // namespace pare::arch
