// gpt2: LayerNorm, learned positions, biases everywhere, matrices stored (in, out), and queries,
// keys and values in one of them. Radford et al. 2019.
//
// scale_attn_by_inverse_layer_idx divides the scores of layer i by i + 1: a number per block here.
#include <array>
#include <cmath>

#include "model/arch/common.h"
#include "model/arch/families.h"

namespace pare::arch {
namespace {

Spec parse(const Json& config) {
  Keys keys(config);
  read_common(keys);
  const Sizes s = read_gpt_sizes(keys);
  const bool scaled = keys.boolean({"scale_attn_weights"}).value_or(true);
  const bool by_layer = keys.boolean({"scale_attn_by_inverse_layer_idx"}).value_or(false);
  keys.known({"reorder_and_upcast_attn"});  // an order of the same operations
  Block block;
  block.before_attn = block.before_ffn = layer_norm(read_eps(keys, "layer_norm_epsilon", 1e-5));
  block.attn = plain_attention(s, Rope{}, true, true);
  if (!scaled) block.attn.scale = 1;
  block.ffn = plain_ffn(s, read_act(keys, "activation_function", "gelu_new"), true);
  const bool tied = keys.boolean({"tie_word_embeddings"}).value_or(true);
  Spec spec = assemble(s, block, *block.before_attn, tied);
  spec.learned_positions = s.max_positions;
  for (std::size_t i = 0; by_layer && i < spec.blocks.size(); i++)
    spec.blocks[i].attn.scale /= static_cast<float>(i + 1);
  keys.finish("gpt2 models");
  return spec;
}

constexpr auto outside = std::to_array<NameRule>({
    {"embed", "transformer.wte"},
    {"positions", "transformer.wpe"},
    {"norm", "transformer.ln_f"},
    {"head", "lm_head"},
});
constexpr auto inside = std::to_array<NameRule>({
    {"before_attn", "ln_1"},
    {"before_ffn", "ln_2"},
    {"attn.q", "attn.c_attn", stacked_q, true},
    {"attn.k", "attn.c_attn", stacked_k, true},
    {"attn.v", "attn.c_attn", stacked_v, true},
    {"attn.o", "attn.c_proj", nullptr, true},
    {"ffn.up", "mlp.c_fc", nullptr, true},
    {"ffn.down", "mlp.c_proj", nullptr, true},
});

Source source(const Slot& slot, const Spec& spec, const Json&) {
  const std::array<NameTable, 2> tables = {{{"", outside}, {"transformer.h.{}.", inside}}};
  return source_from(tables, slot, spec);
}

Json unparse(const Spec& spec, const Json& original) {
  const Block& block = first_block(spec);
  Json config = start_config(original, "gpt2", "GPT2LMHeadModel");
  put_gpt_sizes(config, spec);
  put_act(config, "activation_function", block.ffn.act);
  put_eps(config, "layer_norm_epsilon", spec.final_norm.eps);
  put_flag(config, "scale_attn_weights", block.attn.scale != 1 || block.attn.qk_dim == 1, true);
  const bool by_layer = spec.blocks.size() > 1 && spec.blocks[1].attn.scale != block.attn.scale;
  put_flag(config, "scale_attn_by_inverse_layer_idx", by_layer, false);
  return verified(std::move(config), spec, parse);
}

}  // namespace

const Family gpt2 = {"gpt2",          "GPT2LMHeadModel", parse,         source,
                     llama_ignorable, unparse,           "transformer."};

}  // namespace pare::arch
