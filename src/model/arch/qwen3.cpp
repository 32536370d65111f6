// qwen3: llama with RMSNorm on every head of queries and keys before rope, a head size of its own
// (128 when absent), and qwen2's windows. Yang et al. 2025, arXiv 2505.09388.
#include "model/arch/common.h"
#include "model/arch/families.h"
#include "model/arch/qwen.h"

namespace pare::arch {
namespace {

constexpr i64 default_head_dim = 128;

Spec parse(const Json& config) {
  Keys keys(config);
  read_common(keys);
  const Sizes s = read_sizes(keys, 32768, 0, default_head_dim);
  const RopeConfig rope = parse_rope(keys, plain_rope(s.head_dim, s.max_positions));
  const bool bias = keys.boolean({"attention_bias"}).value_or(false);
  Block block;
  block.before_attn = block.before_ffn = rms(read_eps(keys, "rms_norm_eps", 1e-6));
  block.attn = plain_attention(s, rope.rope, bias, bias);
  block.attn.q_norm = block.attn.k_norm = block.before_attn;
  block.ffn = gated_ffn(s, read_act(keys, "hidden_act", "silu"), false);
  const bool tied = keys.boolean({"tie_word_embeddings"}).value_or(false);
  Spec spec = assemble(s, block, *block.before_attn, tied);
  read_qwen_windows(keys, spec);
  keys.finish("qwen3 models");
  return spec;
}

Json unparse(const Spec& spec, const Json& original) {
  const Block& block = first_block(spec);
  Json config = start_config(original, "qwen3", "Qwen3ForCausalLM");
  put_sizes(config, spec);
  config.set("head_dim", block.attn.qk_dim);
  put_act(config, "hidden_act", block.ffn.act);
  put_eps(config, "rms_norm_eps", spec.final_norm.eps);
  put_flag(config, "attention_bias", block.attn.q.bias, false);
  put_qwen_windows(config, spec);
  put_rope(config, fresh(original, "qwen3"), rope_of(block.attn),
           plain_rope(block.attn.qk_dim, spec.max_positions));
  return verified(std::move(config), spec, parse);
}

}  // namespace

const Family qwen3 = {"qwen3", "Qwen3ForCausalLM", parse, llama_source, llama_ignorable, unparse,
                      "model."};

}  // namespace pare::arch
