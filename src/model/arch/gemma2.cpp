// gemma2: norms around both branches, norm weights stored as offsets from one, capped scores and
// logits, every other layer with a sliding window, scaled embeddings, tied head.
//
// The embedding's factor sqrt(hidden_size) is rounded to the type of the embedding first, as the
// training code did; in bfloat16 that moves it by up to 0.4 %. Gemma Team 2024, arXiv 2408.00118.
#include <array>
#include <cmath>

#include "model/arch/common.h"
#include "model/arch/families.h"

namespace pare::arch {
namespace {

float embed_factor(i64 dim, Code code) {
  const float factor = static_cast<float>(std::sqrt(static_cast<double>(dim)));
  if (code == Code::bf16) return from_bf16(to_bf16(factor));
  if (code == Code::f16) return from_f16(to_f16(factor));
  return factor;
}

bool slides(i64 layer) { return layer % 2 == 0; }

float read_cap(Keys& keys, std::string_view key, double absent) {
  const bool off = keys.present(key) && keys.find(key) == nullptr;
  return off ? 0 : static_cast<float>(keys.number({key}, 1e-6, 1e6).value_or(absent));
}

i64 read_window(Keys& keys) {
  const auto window = keys.integer({"sliding_window", "sliding_window_size"}, 1, max_context);
  return window.value_or(keys.present("sliding_window") ? 0 : 4096);
}

Norm offset_norm(float eps) {
  Norm norm = rms(eps);
  norm.plus_one = true;
  return norm;
}

Spec parse(const Json& config) {
  Keys keys(config);
  read_common(keys);
  const Sizes s = read_sizes(keys, 8192, 4, 256);
  const RopeConfig rope = parse_rope(keys, plain_rope(s.head_dim, s.max_positions));
  const bool bias = keys.boolean({"attention_bias"}).value_or(false);
  const double scalar = keys.number({"query_pre_attn_scalar"}, 1e-6, 1e9).value_or(256);
  keys.only("use_bidirectional_attention", false, "every token sees only earlier ones");
  keys.known({"hidden_act"});  // superseded by hidden_activation, in files of both ages
  Block block;
  block.before_attn = block.after_attn = offset_norm(read_eps(keys, "rms_norm_eps", 1e-6));
  block.before_ffn = block.after_ffn = block.before_attn;
  block.attn = plain_attention(s, rope.rope, bias, bias);
  block.attn.scale = static_cast<float>(1 / std::sqrt(scalar));
  block.attn.softcap = read_cap(keys, "attn_logit_softcapping", 50);
  block.ffn = gated_ffn(s, read_act(keys, "hidden_activation", "gelu_pytorch_tanh"), false);
  const bool tied = keys.boolean({"tie_word_embeddings"}).value_or(true);
  Spec spec = assemble(s, block, *block.before_attn, tied);
  spec.embed_scale = embed_factor(s.dim, s.scheme.code);
  spec.logit_cap = read_cap(keys, "final_logit_softcapping", 30);
  apply_windows(keys, spec, read_window(keys), slides);
  keys.finish("gemma2 models");
  return spec;
}

// The type decides how the embedding's factor is rounded, so it must be one that gives this factor,
// whatever the weights were turned into since.
void put_factor_dtype(Json& config, const Spec& spec) {
  const std::string_view key = config.find("dtype") != nullptr ? "dtype" : "torch_dtype";
  Keys keys(config);
  try {
    if (embed_factor(spec.dim, read_scheme(keys).code) == spec.embed_scale) return;
  } catch (const Error&) {  // replaced below
  }
  for (const auto& [code, word] :
       {std::pair{Code::f32, "float32"}, {Code::bf16, "bfloat16"}, {Code::f16, "float16"}}) {
    if (embed_factor(spec.dim, code) != spec.embed_scale) continue;
    config.set(key, word);
    return;
  }
}

Json unparse(const Spec& spec, const Json& original) {
  const Block& block = first_block(spec);
  Json config = start_config(original, "gemma2", "Gemma2ForCausalLM");
  put_sizes(config, spec);
  put_factor_dtype(config, spec);
  config.set("head_dim", block.attn.qk_dim);
  put_act(config, "hidden_activation", block.ffn.act);
  put_eps(config, "rms_norm_eps", spec.final_norm.eps);
  put_flag(config, "attention_bias", block.attn.q.bias, false);
  const double scalar = 1 / (static_cast<double>(block.attn.scale) * block.attn.scale);
  const bool whole = std::abs(scalar - std::round(scalar)) < 1e-4 * scalar;
  config.set("query_pre_attn_scalar",
             whole ? Json(static_cast<i64>(std::llround(scalar))) : Json(scalar));
  const float cap = block.attn.softcap;
  config.set("attn_logit_softcapping", cap > 0 ? shortest(cap) : Json());
  config.set("final_logit_softcapping", spec.logit_cap > 0 ? shortest(spec.logit_cap) : Json());
  config.erase("sliding_window_size");
  put_windows(config, spec, slides);
  put_rope(config, fresh(original, "gemma2"), rope_of(block.attn),
           plain_rope(block.attn.qk_dim, spec.max_positions));
  return verified(std::move(config), spec, parse);
}

}  // namespace

namespace {

constexpr auto names = std::to_array<NameRule>({
    {"before_attn", "input_layernorm"},
    {"after_attn", "post_attention_layernorm"},
    {"before_ffn", "pre_feedforward_layernorm"},
    {"after_ffn", "post_feedforward_layernorm"},
});

// The four norms first: the rows that follow them have two of these names for other places.
Source source(const Slot& slot, const Spec& spec, const Json&) {
  const std::array<NameTable, 3> tables = {
      {{"", llama_rules()}, {"model.layers.{}.", names}, {"model.layers.{}.", llama_rules()}}};
  return source_from(tables, slot, spec);
}

}  // namespace

const Family gemma2 = {"gemma2", "Gemma2ForCausalLM", parse, source, llama_ignorable, unparse,
                       "model."};

}  // namespace pare::arch
