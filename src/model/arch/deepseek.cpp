// deepseek_v2 and deepseek_v3: multi-head latent attention, and (refused for now) experts.
//
// Keys and values are held as one latent vector and one shared rotary key per token. Both versions
// store rotary dimensions in interleaved pairs; version 3 has a switch for halves. Layers before
// first_k_dense_replace have plain MLPs, so a config whose every layer lies there is dense.
// YaRN's m^2 on the scores: see model/arch/rope.cpp. DeepSeek-AI 2024, arXiv 2405.04434,
// 2412.19437.
#include <array>

#include "model/arch/common.h"
#include "model/arch/families.h"

namespace pare::arch {
namespace {

struct Version {
  std::string_view name, architecture;
  i64 dense_layers, experts, positions;  // what absent keys mean
  bool interleave_key, mlp_bias_key;
};
constexpr Version v2 = {"deepseek_v2", "DeepseekV2ForCausalLM", 0, 64, 2048, false, true};
constexpr Version v3 = {"deepseek_v3", "DeepseekV3ForCausalLM", 3, 256, 4096, true, false};

RopeHints rope_hints(i64 dims, i64 max_positions, bool interleaved) {
  RopeHints hints = plain_rope(dims, max_positions);
  hints.interleaved = interleaved;
  hints.mscale_in_scores = true;
  return hints;
}

void require_dense(Keys& keys, const Version& version, i64 layers) {
  const i64 dense =
      keys.integer({"first_k_dense_replace"}, 0, max_context).value_or(version.dense_layers);
  const i64 every = keys.integer({"moe_layer_freq"}, 1, max_layers).value_or(1);
  const i64 experts = keys.integer({"n_routed_experts"}, 0, max_heads)
                          .value_or(keys.present("n_routed_experts") ? 0 : version.experts);
  const i64 first = (dense + every - 1) / every * every;  // the first layer that would have experts
  if (experts > 0 && first < layers)
    refuse_experts("first_k_dense_replace",
                   fmt::format("{} of {} layers without experts", dense, layers));
  keys.known({"n_shared_experts", "num_experts_per_tok", "moe_intermediate_size", "n_group",
              "topk_group", "topk_method", "norm_topk_prob", "routed_scaling_factor",
              "scoring_func", "aux_loss_alpha", "seq_aux", "ep_size", "num_experts",
              "num_local_experts"});
  // Further modules that predict later tokens; they are not part of the model proper.
  keys.known({"num_nextn_predict_layers", "num_mtp_layers"});
}

Spec parse_version(const Json& config, const Version& version) {
  Keys keys(config);
  read_common(keys);
  Sizes s = read_sizes(keys, version.positions, 0, 1);
  require_dense(keys, version, s.layers);
  const LatentHints h = read_latent(keys, s, version.interleave_key ? 128 : 0);
  if (keys.present("head_dim") && s.head_dim != h.rope && s.head_dim != h.rope + h.nope)
    keys.contradiction("head_dim", "qk_rope_head_dim");
  bool interleaved = true;
  if (version.interleave_key) interleaved = keys.boolean({"rope_interleave"}).value_or(true);
  const RopeConfig rope = parse_rope(keys, rope_hints(h.rope, s.max_positions, interleaved));
  bool bias = false;
  if (version.mlp_bias_key) bias = keys.boolean({"mlp_bias"}).value_or(false);
  Block block;
  block.before_attn = block.before_ffn = rms(read_eps(keys, "rms_norm_eps", 1e-6));
  block.attn = latent_attention(s, h, rope);
  block.ffn = gated_ffn(s, read_act(keys, "hidden_act", "silu"), bias);
  const bool tied = keys.boolean({"tie_word_embeddings"}).value_or(false);
  keys.finish(fmt::format("{} models", version.name));
  return assemble(s, block, *block.before_attn, tied);
}

Spec parse_v2(const Json& config) { return parse_version(config, v2); }
Spec parse_v3(const Json& config) { return parse_version(config, v3); }

Json unparse_version(const Spec& spec, const Json& original, const Version& version,
                     Spec (*parse)(const Json&)) {
  const Block& block = first_block(spec);
  Json config = start_config(original, version.name, version.architecture);
  put_sizes(config, spec);
  put_latent(config, spec);
  config.set("first_k_dense_replace", spec.blocks.size());
  put_act(config, "hidden_act", block.ffn.act);
  put_eps(config, "rms_norm_eps", spec.final_norm.eps);
  if (version.mlp_bias_key) put_flag(config, "mlp_bias", block.ffn.up.bias, false);
  const bool interleaved = block.attn.rope.interleaved;
  if (version.interleave_key) put_flag(config, "rope_interleave", interleaved, true);
  put_rope(config, fresh(original, version.name), rope_of(block.attn),
           rope_hints(block.attn.rope.dims, spec.max_positions, interleaved));
  return verified(std::move(config), spec, parse);
}

Json unparse_v2(const Spec& spec, const Json& original) {
  return unparse_version(spec, original, v2, parse_v2);
}
Json unparse_v3(const Spec& spec, const Json& original) {
  return unparse_version(spec, original, v3, parse_v3);
}

}  // namespace

const Family deepseek_v2 = {v2.name,         v2.architecture, parse_v2, latent_source,
                            llama_ignorable, unparse_v2,      "model."};
const Family deepseek_v3 = {v3.name,         v3.architecture, parse_v3, latent_source,
                            llama_ignorable, unparse_v3,      "model."};

}  // namespace pare::arch
