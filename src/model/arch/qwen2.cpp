// qwen2: llama with biases on queries, keys and values but not on the output, and optional windows
// from a layer onward. Qwen 1.5, 2 and 2.5. Yang et al. 2024, arXiv 2407.10671.
#include "model/arch/common.h"
#include "model/arch/families.h"
#include "model/arch/qwen.h"

namespace pare::arch {

void read_qwen_windows(Keys& keys, Spec& spec) {
  const bool use = keys.boolean({"use_sliding_window"}).value_or(false);
  const auto given = keys.integer({"sliding_window"}, 1, max_context);
  i64 window = given.value_or(keys.present("sliding_window") ? 0 : 4096);
  if (!use) window = 0;
  const i64 from = keys.integer({"max_window_layers"}, 0, max_context).value_or(28);
  apply_windows(keys, spec, window, [&](i64 layer) { return window > 0 && layer >= from; });
}

void put_qwen_windows(Json& config, const Spec& spec) {
  const i64 layers = static_cast<i64>(spec.blocks.size());
  i64 from = layers;
  while (from > 0 && spec.blocks[static_cast<std::size_t>(from - 1)].attn.window > 0) from--;
  bool any = false;
  for (const Block& block : spec.blocks) any = any || block.attn.window > 0;
  config.set("use_sliding_window", any);
  if (any || config.find("max_window_layers") == nullptr) config.set("max_window_layers", from);
  put_windows(config, spec, [&](i64 layer) { return layer >= from; });
}

namespace {

Spec parse(const Json& config) {
  Keys keys(config);
  read_common(keys);
  const Sizes s = read_sizes(keys, 32768);
  const RopeConfig rope = parse_rope(keys, plain_rope(s.head_dim, s.max_positions));
  keys.only("attention_bias", true, "this family always has biases on queries, keys and values");
  keys.only("use_mrope", false, "positions in several axes are not supported");
  Block block;
  block.before_attn = block.before_ffn = rms(read_eps(keys, "rms_norm_eps", 1e-6));
  block.attn = plain_attention(s, rope.rope, true, false);
  block.ffn = gated_ffn(s, read_act(keys, "hidden_act", "silu"), false);
  const bool tied = keys.boolean({"tie_word_embeddings"}).value_or(false);
  Spec spec = assemble(s, block, *block.before_attn, tied);
  read_qwen_windows(keys, spec);
  keys.finish("qwen2 models");
  return spec;
}

Json unparse(const Spec& spec, const Json& original) {
  const Block& block = first_block(spec);
  Json config = start_config(original, "qwen2", "Qwen2ForCausalLM");
  put_sizes(config, spec);
  put_head_dim(config, spec, 0);
  put_act(config, "hidden_act", block.ffn.act);
  put_eps(config, "rms_norm_eps", spec.final_norm.eps);
  put_qwen_windows(config, spec);
  put_rope(config, fresh(original, "qwen2"), rope_of(block.attn),
           plain_rope(block.attn.qk_dim, spec.max_positions));
  return verified(std::move(config), spec, parse);
}

}  // namespace

const Family qwen2 = {"qwen2", "Qwen2ForCausalLM", parse, llama_source, llama_ignorable, unparse,
                      "model."};

}  // namespace pare::arch
