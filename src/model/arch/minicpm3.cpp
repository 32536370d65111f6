// minicpm3: latent attention as in DeepSeek V2 but with rope in halves, and the scalings of maximal
// update parametrization: embeddings by scale_emb, both branches by scale_depth / sqrt(layers),
// logits by dim_model_base / hidden_size. Hu et al. 2024, arXiv 2404.06395.
#include <cmath>

#include "model/arch/common.h"
#include "model/arch/families.h"

namespace pare::arch {
namespace {

RopeHints rope_hints(i64 dims, i64 max_positions) {
  RopeHints hints = plain_rope(dims, max_positions);
  hints.mscale_in_scores = true;
  return hints;
}

// A scaling whose absence means the released model's value and whose null means none.
double read_scaling(Keys& keys, std::string_view key, double absent, double none) {
  return keys.number({key}, 1e-9, 1e9).value_or(keys.present(key) ? none : absent);
}

Spec parse(const Json& config) {
  Keys keys(config);
  read_common(keys);
  const Sizes s = read_sizes(keys, 32768, 0, 1);
  const i64 plain_head = s.dim % s.heads == 0 ? s.dim / s.heads : 0;
  const LatentHints h = read_latent(keys, s, plain_head);
  if (keys.present("head_dim") && s.head_dim != h.rope && s.head_dim != h.rope + h.nope)
    keys.contradiction("head_dim", "qk_rope_head_dim");
  const RopeConfig rope = parse_rope(keys, rope_hints(h.rope, s.max_positions));
  const double dim = static_cast<double>(s.dim);
  const double root = std::sqrt(static_cast<double>(s.layers));
  Block block;
  block.before_attn = block.before_ffn = rms(read_eps(keys, "rms_norm_eps", 1e-5));
  block.attn = latent_attention(s, h, rope);
  block.ffn = gated_ffn(s, read_act(keys, "hidden_act", "silu"),
                        keys.boolean({"mlp_bias"}).value_or(false));
  block.residual_scale = static_cast<float>(read_scaling(keys, "scale_depth", 1.4, root) / root);
  const bool tied = keys.boolean({"tie_word_embeddings"}).value_or(true);
  Spec spec = assemble(s, block, *block.before_attn, tied);
  spec.embed_scale = static_cast<float>(read_scaling(keys, "scale_emb", 12, 1));
  spec.logit_scale = static_cast<float>(read_scaling(keys, "dim_model_base", 256, dim) / dim);
  keys.finish("minicpm3 models");
  return spec;
}

// Writes value = scale * unit unless the config has a value that means the same.
void put_scaling(Json& config, std::string_view key, float scale, double unit) {
  const Json* now = config.find(key);
  if (now != nullptr && now->is_number() && static_cast<float>(now->as_number() / unit) == scale)
    return;
  const double value = static_cast<double>(scale) * unit;
  const double whole = std::round(value);
  config.set(key, static_cast<float>(whole / unit) == scale
                      ? Json(static_cast<i64>(std::llround(whole)))
                      : Json(value));
}

Json unparse(const Spec& spec, const Json& original) {
  const Block& block = first_block(spec);
  Json config = start_config(original, "minicpm3", "MiniCPM3ForCausalLM");
  put_sizes(config, spec);
  put_latent(config, spec);
  put_act(config, "hidden_act", block.ffn.act);
  put_eps(config, "rms_norm_eps", spec.final_norm.eps);
  put_flag(config, "mlp_bias", block.ffn.up.bias, false);
  put_scaling(config, "scale_emb", spec.embed_scale, 1);
  put_scaling(config, "scale_depth", block.residual_scale,
              std::sqrt(static_cast<double>(spec.blocks.size())));
  put_scaling(config, "dim_model_base", spec.logit_scale, static_cast<double>(spec.dim));
  put_rope(config, fresh(original, "minicpm3"), rope_of(block.attn),
           rope_hints(block.attn.rope.dims, spec.max_positions));
  return verified(std::move(config), spec, parse);
}

}  // namespace

const Family minicpm3 = {
    "minicpm3", "MiniCPM3ForCausalLM", parse, latent_source, llama_ignorable, unparse, "model."};

}  // namespace pare::arch
