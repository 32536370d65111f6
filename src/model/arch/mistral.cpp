// mistral: llama without biases, and one sliding window for every layer.
//
// The window's absence and its being null are different things here: an absent key means the
// class default of 4096, null means no window. Jiang et al. 2023, arXiv 2310.06825.
#include "model/arch/common.h"
#include "model/arch/families.h"

namespace pare::arch {
namespace {

constexpr i64 default_window = 4096;

i64 read_window(Keys& keys, i64 layers) {
  i64 window = keys.present("sliding_window") ? 0 : default_window;
  if (const auto given = keys.integer({"sliding_window"}, 1, max_context)) window = *given;
  // Published readers do not look at this list for mistral; it may only repeat what they do.
  if (const auto types = keys.words("layer_types", layers))
    for (const std::string& type : *types)
      if (type != (window > 0 ? "sliding_attention" : "full_attention"))
        keys.contradiction("layer_types", "what sliding_window says, for every layer");
  return window;
}

Spec parse(const Json& config) {
  Keys keys(config);
  read_common(keys);
  const Sizes s = read_sizes(keys, 131072, 8);
  const RopeConfig rope = parse_rope(keys, plain_rope(s.head_dim, s.max_positions));
  keys.only("attention_bias", false, "this family has no biases");
  keys.only("mlp_bias", false, "this family has no biases");
  Block block;
  block.before_attn = block.before_ffn = rms(read_eps(keys, "rms_norm_eps", 1e-6));
  block.attn = plain_attention(s, rope.rope, false, false);
  block.attn.window = read_window(keys, s.layers);
  block.ffn = gated_ffn(s, read_act(keys, "hidden_act", "silu"), false);
  const bool tied = keys.boolean({"tie_word_embeddings"}).value_or(false);
  keys.finish("mistral models");
  return assemble(s, block, *block.before_attn, tied);
}

Json unparse(const Spec& spec, const Json& original) {
  const Block& block = first_block(spec);
  Json config = start_config(original, "mistral", "MistralForCausalLM");
  put_sizes(config, spec);
  put_head_dim(config, spec, 0);
  put_act(config, "hidden_act", block.ffn.act);
  put_eps(config, "rms_norm_eps", spec.final_norm.eps);
  const i64 window = block.attn.window;
  config.set("sliding_window", window > 0 ? Json(window) : Json());
  config.erase("layer_types");
  put_rope(config, fresh(original, "mistral"), rope_of(block.attn),
           plain_rope(block.attn.qk_dim, spec.max_positions));
  return verified(std::move(config), spec, parse);
}

}  // namespace

const Family mistral = {
    "mistral", "MistralForCausalLM", parse, llama_source, llama_ignorable, unparse, "model."};

}  // namespace pare::arch
