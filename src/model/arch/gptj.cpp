// gptj: attention and MLP in parallel on one LayerNorm, interleaved rope on the front of each head,
// no biases in attention, but one in the head. Wang and Komatsuzaki 2021.
//
// The rope base is 10000 and has no key. Configs of the first release carry `rotary` and
// `scale_attn_weights`, which no reader switches off.
#include <array>

#include "model/arch/common.h"
#include "model/arch/families.h"

namespace pare::arch {
namespace {

Spec parse(const Json& config) {
  Keys keys(config);
  read_common(keys);
  const Sizes s = read_gpt_sizes(keys);
  keys.only("rotary", true, "this family always has rotary positions");
  keys.only("scale_attn_weights", true, "scores are always scaled");
  Rope rope;
  rope.interleaved = true;
  rope.dims = keys.integer({"rotary_dim"}, 2, max_head).value_or(64);
  if (rope.dims % 2 != 0 || rope.dims > s.head_dim)
    keys.contradiction("rotary_dim",
                       fmt::format("an even number of at most the head size {}", s.head_dim));
  Block block;
  block.before_attn = layer_norm(read_eps(keys, "layer_norm_epsilon", 1e-5));
  block.parallel = true;
  block.attn = plain_attention(s, rope, false, false);
  block.ffn = plain_ffn(s, read_act(keys, "activation_function", "gelu_new"), true);
  const bool tied = keys.boolean({"tie_word_embeddings"}).value_or(false);
  keys.finish("gptj models");
  return assemble(s, block, *block.before_attn, tied, true);
}

constexpr auto outside = std::to_array<NameRule>({
    {"embed", "transformer.wte"},
    {"norm", "transformer.ln_f"},
    {"head", "lm_head"},
});
constexpr auto inside = std::to_array<NameRule>({
    {"before_attn", "ln_1"},
    {"attn.q", "attn.q_proj"},
    {"attn.k", "attn.k_proj"},
    {"attn.v", "attn.v_proj"},
    {"attn.o", "attn.out_proj"},
    {"ffn.up", "mlp.fc_in"},
    {"ffn.down", "mlp.fc_out"},
});

Source source(const Slot& slot, const Spec& spec, const Json&) {
  const std::array<NameTable, 2> tables = {{{"", outside}, {"transformer.h.{}.", inside}}};
  return source_from(tables, slot, spec);
}

Json unparse(const Spec& spec, const Json& original) {
  const Block& block = first_block(spec);
  Json config = start_config(original, "gptj", "GPTJForCausalLM");
  put_gpt_sizes(config, spec);
  put_act(config, "activation_function", block.ffn.act);
  put_eps(config, "layer_norm_epsilon", spec.final_norm.eps);
  config.set("rotary_dim", block.attn.rope.dims);
  return verified(std::move(config), spec, parse);
}

}  // namespace

const Family gptj = {"gptj",          "GPTJForCausalLM", parse,         source,
                     llama_ignorable, unparse,           "transformer."};

}  // namespace pare::arch
