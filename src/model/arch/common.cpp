// The parts that blocks of most families are built of.
//
// A family file reads its keys into Sizes and a few switches and calls these; what it returns is a
// plain value, so a family that differs in one number changes that number afterwards.
#include "model/arch/common.h"

#include <array>
#include <cmath>

namespace pare::arch {
namespace {

struct ActName {
  std::string_view name;
  Act act;
};
// The first name of each is the one written.
constexpr auto act_names = std::to_array<ActName>({
    {"silu", Act::silu},
    {"swish", Act::silu},
    {"gelu", Act::gelu},
    {"gelu_python", Act::gelu},
    {"gelu_pytorch_tanh", Act::gelu_tanh},
    {"gelu_new", Act::gelu_tanh},
    {"gelu_fast", Act::gelu_tanh},
    {"gelu_python_tanh", Act::gelu_tanh},
    {"relu", Act::relu},
    {"relu2", Act::relu2},
});

}  // namespace

Scheme read_scheme(Keys& keys) {
  Scheme scheme;
  std::string word = keys.word({"dtype", "torch_dtype"}).value_or("float32");
  if (word.starts_with("torch.")) word.erase(0, 6);
  if (word == "bfloat16")
    scheme.code = Code::bf16;
  else if (word == "float16" || word == "half")
    scheme.code = Code::f16;
  else if (word != "float32" && word != "float" && word != "auto")
    keys.unsupported(keys.present("dtype") ? "dtype" : "torch_dtype",
                     "float32, float16 or bfloat16");
  return scheme;
}

Act read_act(Keys& keys, std::string_view key, std::string_view absent) {
  const std::string word = keys.word({key}).value_or(std::string(absent));
  for (const ActName& row : act_names)
    if (row.name == word) return row.act;
  keys.unsupported(key, "silu, gelu, gelu_pytorch_tanh, gelu_new, relu or relu2");
}

float read_eps(Keys& keys, std::string_view key, double absent) {
  return static_cast<float>(keys.number({key}, 0, 1).value_or(absent));
}

void read_common(Keys& keys) {
  keys.only("is_encoder_decoder", false, "decoders only");
  keys.only("add_cross_attention", false, "decoders only");
  keys.only("pruned_heads", Json::object(), "heads removed at load time are not supported");
}

void check_heads(const Keys& keys, const Sizes& s, std::string_view heads_key,
                 std::string_view kv_key) {
  if (s.heads % s.kv_heads != 0)
    keys.contradiction(keys.present(kv_key) ? kv_key : heads_key,
                       fmt::format("a divisor of the {} attention heads", s.heads));
  if (s.heads * s.head_dim > max_inner)
    keys.contradiction(heads_key, fmt::format("heads times head size of at most {}", max_inner));
}

namespace {

i64 derived_head_dim(const Keys& keys, i64 dim, i64 heads, std::string_view heads_key) {
  if (dim % heads != 0)
    keys.contradiction(heads_key, fmt::format("a divisor of the hidden size {}", dim));
  return dim / heads;
}

}  // namespace

Sizes read_sizes(Keys& keys, i64 default_positions, i64 kv_heads, i64 head_dim) {
  Sizes s;
  s.scheme = read_scheme(keys);
  s.dim = keys.required({"hidden_size"}, 1, max_width);
  s.layers = keys.required({"num_hidden_layers"}, 1, max_layers);
  s.heads = keys.required({"num_attention_heads"}, 1, max_heads);
  // Where the class has a default, absent means that default but null means "as many as heads".
  if (const auto given = keys.integer({"num_key_value_heads"}, 1, max_heads))
    s.kv_heads = *given;
  else
    s.kv_heads = kv_heads > 0 && !keys.present("num_key_value_heads") ? kv_heads : s.heads;
  if (const auto given = keys.integer({"head_dim"}, 1, max_head))
    s.head_dim = *given;
  else
    s.head_dim =
        head_dim > 0 ? head_dim : derived_head_dim(keys, s.dim, s.heads, "num_attention_heads");
  s.inner = keys.required({"intermediate_size"}, 1, max_inner);
  s.vocab = keys.required({"vocab_size"}, 1, max_vocab);
  s.max_positions =
      keys.integer({"max_position_embeddings"}, 1, max_context).value_or(default_positions);
  check_heads(keys, s, "num_attention_heads", "num_key_value_heads");
  return s;
}

Sizes read_gpt_sizes(Keys& keys) {
  Sizes s;
  s.scheme = read_scheme(keys);
  s.dim = keys.required({"n_embd", "hidden_size"}, 1, max_width);
  s.layers = keys.required({"n_layer", "num_hidden_layers"}, 1, max_layers);
  s.heads = keys.required({"n_head", "num_attention_heads"}, 1, max_heads);
  s.kv_heads = s.heads;
  s.head_dim = derived_head_dim(keys, s.dim, s.heads, "n_head");
  s.inner = keys.integer({"n_inner"}, 1, max_inner).value_or(4 * s.dim);
  s.vocab = keys.required({"vocab_size"}, 1, max_vocab);
  s.max_positions = keys.required({"n_positions", "max_position_embeddings"}, 1, max_vocab);
  keys.known({"n_ctx"});
  return s;
}

Norm rms(float eps) {
  Norm norm;
  norm.eps = eps;
  return norm;
}

Norm layer_norm(float eps) {
  Norm norm;
  norm.layer = norm.bias = true;
  norm.eps = eps;
  return norm;
}

Linear linear(i64 in, i64 out, bool bias, Scheme scheme) {
  Linear result;
  result.in = in;
  result.out = out;
  result.bias = bias;
  result.scheme = scheme;
  return result;
}

RopeHints plain_rope(i64 head_dim, i64 max_positions) {
  RopeHints hints;
  hints.head_dim = head_dim;
  hints.max_positions = max_positions;
  return hints;
}

Attention plain_attention(const Sizes& s, const Rope& rope, bool qkv_bias, bool o_bias) {
  Attention a;
  a.heads = s.heads;
  a.kv_heads = s.kv_heads;
  a.qk_dim = a.v_dim = s.head_dim;
  a.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(s.head_dim)));
  a.rope = rope;
  a.q = linear(s.dim, s.heads * s.head_dim, qkv_bias, s.scheme);
  a.k = linear(s.dim, s.kv_heads * s.head_dim, qkv_bias, s.scheme);
  a.v = a.k;
  a.o = linear(s.heads * s.head_dim, s.dim, o_bias, s.scheme);
  return a;
}

Ffn gated_ffn(const Sizes& s, Act act, bool bias) {
  Ffn f;
  f.act = act;
  f.gated = true;
  f.gate = f.up = linear(s.dim, s.inner, bias, s.scheme);
  f.down = linear(s.inner, s.dim, bias, s.scheme);
  return f;
}

Ffn plain_ffn(const Sizes& s, Act act, bool bias) {
  Ffn f = gated_ffn(s, act, bias);
  f.gated = false;
  f.gate = Linear{};
  return f;
}

Spec assemble(const Sizes& s, const Block& block, Norm final_norm, bool tied, bool head_bias) {
  Spec spec;
  spec.dim = s.dim;
  spec.vocab = s.vocab;
  spec.max_positions = s.max_positions;
  spec.blocks.assign(static_cast<std::size_t>(s.layers), block);
  spec.final_norm = final_norm;
  spec.embed = s.scheme;
  spec.head = linear(s.dim, s.vocab, head_bias, s.scheme);
  spec.tied = tied;
  return spec;
}

void apply_windows(Keys& keys, Spec& spec, i64 window, const Slides& slides) {
  const i64 layers = static_cast<i64>(spec.blocks.size());
  const auto types = keys.words("layer_types", layers);
  for (i64 i = 0; i < layers; i++) {
    const auto at = static_cast<std::size_t>(i);
    const bool slide = types ? (*types)[at] == "sliding_attention" : slides(i);
    if (types && !slide && (*types)[at] != "full_attention")
      keys.unsupported("layer_types", "sliding_attention or full_attention");
    if (slide && window == 0)
      keys.contradiction(types ? "layer_types" : "sliding_window",
                         "a sliding_window for the layers that slide");
    spec.blocks[at].attn.window = slide ? window : 0;
  }
}

LatentHints read_latent(Keys& keys, const Sizes& s, i64 default_v) {
  LatentHints h;
  h.kv_rank = keys.required({"kv_lora_rank"}, 1, max_head);
  h.q_rank = keys.integer({"q_lora_rank"}, 1, max_head).value_or(0);
  h.nope = keys.required({"qk_nope_head_dim"}, 1, max_head);
  h.rope = keys.required({"qk_rope_head_dim"}, 2, max_head);
  h.v = default_v > 0 ? keys.integer({"v_head_dim"}, 1, max_head).value_or(default_v)
                      : keys.required({"v_head_dim"}, 1, max_head);
  h.bias = keys.boolean({"attention_bias"}).value_or(false);
  if (h.rope % 2 != 0) keys.contradiction("qk_rope_head_dim", "an even number");
  if (const auto dim = keys.integer({"qk_head_dim"}, 1, 2 * max_head);
      dim && *dim != h.nope + h.rope)
    keys.contradiction("qk_head_dim", "qk_nope_head_dim + qk_rope_head_dim");
  if (s.kv_heads != s.heads)
    keys.contradiction("num_key_value_heads",
                       "as many as num_attention_heads: each head has keys of its own");
  if (s.heads * (h.nope + h.rope + h.v) > max_inner)
    keys.contradiction("num_attention_heads",
                       fmt::format("heads times head size of at most {}", max_inner));
  return h;
}

Attention latent_attention(const Sizes& s, const LatentHints& h, const RopeConfig& rope) {
  constexpr float latent_eps = 1e-6f;  // of both latents, whatever rms_norm_eps says
  Attention a;
  a.heads = a.kv_heads = s.heads;
  a.qk_dim = h.nope + h.rope;
  a.v_dim = h.v;
  a.q_rank = h.q_rank;
  a.kv_rank = h.kv_rank;
  a.scale = static_cast<float>(rope.score_factor / std::sqrt(static_cast<double>(a.qk_dim)));
  a.rope = rope.rope;
  a.kv_down_norm = rms(latent_eps);
  a.kv_down = linear(s.dim, h.kv_rank + h.rope, h.bias, s.scheme);
  if (h.q_rank > 0) {
    a.q_down_norm = rms(latent_eps);
    a.q_down = linear(s.dim, h.q_rank, h.bias, s.scheme);
  }
  a.q = linear(h.q_rank > 0 ? h.q_rank : s.dim, s.heads * a.qk_dim, false, s.scheme);
  a.k = linear(h.kv_rank, s.heads * h.nope, false, s.scheme);
  a.v = linear(h.kv_rank, s.heads * h.v, false, s.scheme);
  a.o = linear(s.heads * h.v, s.dim, h.bias, s.scheme);
  return a;
}

}  // namespace pare::arch
