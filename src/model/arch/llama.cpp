// llama: LLaMA 1, 2, 3 and the many models that share their config class.
//
// Pre-norm blocks with RMSNorm, rotary positions on whole heads, gated SiLU MLP. Version 2 adds
// grouped key/value heads, version 3 its rope scaling. Touvron et al. 2023, arXiv 2302.13971.
#include "model/arch/common.h"
#include "model/arch/families.h"

namespace pare::arch {
namespace {

Spec parse(const Json& config) {
  Keys keys(config);
  read_common(keys);
  const Sizes s = read_sizes(keys, 2048);
  const RopeConfig rope = parse_rope(keys, plain_rope(s.head_dim, s.max_positions));
  const bool bias = keys.boolean({"attention_bias"}).value_or(false);
  keys.only("rope_interleaved", false, "rope in halves is this family's");
  Block block;
  block.before_attn = block.before_ffn = rms(read_eps(keys, "rms_norm_eps", 1e-6));
  block.attn = plain_attention(s, rope.rope, bias, bias);
  block.ffn = gated_ffn(s, read_act(keys, "hidden_act", "silu"),
                        keys.boolean({"mlp_bias"}).value_or(false));
  const bool tied = keys.boolean({"tie_word_embeddings"}).value_or(false);
  keys.finish("llama models");
  return assemble(s, block, *block.before_attn, tied);
}

Json unparse(const Spec& spec, const Json& original) {
  const Block& block = first_block(spec);
  Json config = start_config(original, "llama", "LlamaForCausalLM");
  put_sizes(config, spec);
  put_head_dim(config, spec, 0);
  put_act(config, "hidden_act", block.ffn.act);
  put_eps(config, "rms_norm_eps", spec.final_norm.eps);
  put_flag(config, "attention_bias", block.attn.q.bias, false);
  put_flag(config, "mlp_bias", block.ffn.up.bias, false);
  put_rope(config, fresh(original, "llama"), rope_of(block.attn),
           plain_rope(block.attn.qk_dim, spec.max_positions));
  return verified(std::move(config), spec, parse);
}

}  // namespace

const Family llama = {"llama", "LlamaForCausalLM", parse, llama_source, llama_ignorable, unparse,
                      "model."};

}  // namespace pare::arch
