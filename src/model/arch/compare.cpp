// Two Specs side by side, as far as config.json speaks of them: the first difference in words.
#include <cmath>

#include "model/arch/common.h"

namespace pare::arch {
namespace {

struct Compare {
  std::string path, text;  // text: the first difference

  template <class T>
  void field(std::string_view name, const T& found, const T& wanted) {
    if (!text.empty() || same(found, wanted)) return;
    text = fmt::format("{}{}: {} instead of {}", path, name, show(found), show(wanted));
  }

  static bool same(double a, double b) {
    return std::abs(a - b) <= 1e-6 * std::max(std::abs(a), std::abs(b));
  }
  static bool same(float a, float b) {
    return same(static_cast<double>(a), static_cast<double>(b));
  }
  template <class T>
  static bool same(const T& a, const T& b) {
    return a == b;
  }
  static std::string show(const std::vector<double>& v) {
    return fmt::format("{} numbers", v.size());
  }
  template <class T>
  static std::string show(const T& v) {
    if constexpr (std::is_enum_v<T>)
      return fmt::format("{}", static_cast<int>(v));
    else
      return fmt::format("{}", v);
  }

  // Compares a part under a longer path.
  template <class T, class F>
  void part(std::string_view name, const T& a, const T& b, F compare) {
    const std::string outer = path;
    path += fmt::format("{}.", name);
    compare(*this, a, b);
    path = outer;
  }
};

void compare_linear(Compare& c, const Linear& a, const Linear& b) {
  c.field("in", a.in, b.in);
  c.field("out", a.out, b.out);
  c.field("bias", a.bias, b.bias);
}

void compare_norm(Compare& c, const Norm& a, const Norm& b) {
  c.field("layer", a.layer, b.layer);
  c.field("bias", a.bias, b.bias);
  c.field("plus_one", a.plus_one, b.plus_one);
  c.field("eps", a.eps, b.eps);
}

void compare_optional_norm(Compare& c, const std::optional<Norm>& a, const std::optional<Norm>& b) {
  c.field("present", a.has_value(), b.has_value());
  if (a && b) compare_norm(c, *a, *b);
}

void compare_rope(Compare& c, const Rope& a, const Rope& b) {
  c.field("dims", a.dims, b.dims);
  if (a.dims == 0 && b.dims == 0) return;
  c.field("theta", a.theta, b.theta);
  c.field("interleaved", a.interleaved, b.interleaved);
  c.field("scaling", a.scaling, b.scaling);
  c.field("factor", a.factor, b.factor);
  c.field("original_positions", a.original_positions, b.original_positions);
  c.field("low_freq_factor", a.low_freq_factor, b.low_freq_factor);
  c.field("high_freq_factor", a.high_freq_factor, b.high_freq_factor);
  c.field("beta_fast", a.beta_fast, b.beta_fast);
  c.field("beta_slow", a.beta_slow, b.beta_slow);
  c.field("truncate", a.truncate, b.truncate);
  c.field("attention_factor", a.attention_factor, b.attention_factor);
  c.field("short_factor", a.short_factor, b.short_factor);
  c.field("long_factor", a.long_factor, b.long_factor);
}

void compare_attention(Compare& c, const Attention& a, const Attention& b) {
  c.field("heads", a.heads, b.heads);
  c.field("kv_heads", a.kv_heads, b.kv_heads);
  c.field("qk_dim", a.qk_dim, b.qk_dim);
  c.field("v_dim", a.v_dim, b.v_dim);
  c.field("q_rank", a.q_rank, b.q_rank);
  c.field("kv_rank", a.kv_rank, b.kv_rank);
  c.field("kv_from", a.kv_from, b.kv_from);
  c.field("window", a.window, b.window);
  c.field("sinks", a.sinks, b.sinks);
  c.field("sink_logits", a.sink_logits, b.sink_logits);
  c.field("softcap", a.softcap, b.softcap);
  c.field("scale", a.scale, b.scale);
  c.part("q_norm", a.q_norm, b.q_norm, compare_optional_norm);
  c.part("k_norm", a.k_norm, b.k_norm, compare_optional_norm);
  c.part("q_down_norm", a.q_down_norm, b.q_down_norm, compare_optional_norm);
  c.part("kv_down_norm", a.kv_down_norm, b.kv_down_norm, compare_optional_norm);
  c.part("rope", a.rope, b.rope, compare_rope);
  c.part("q", a.q, b.q, compare_linear);
  c.part("k", a.k, b.k, compare_linear);
  c.part("v", a.v, b.v, compare_linear);
  c.part("o", a.o, b.o, compare_linear);
  c.part("q_down", a.q_down, b.q_down, compare_linear);
  c.part("kv_down", a.kv_down, b.kv_down, compare_linear);
}

void compare_ffn(Compare& c, const Ffn& a, const Ffn& b) {
  c.field("act", a.act, b.act);
  c.field("gated", a.gated, b.gated);
  c.part("gate", a.gate, b.gate, compare_linear);
  c.part("up", a.up, b.up, compare_linear);
  c.part("down", a.down, b.down, compare_linear);
  c.field("experts", a.experts, b.experts);
  c.field("active_experts", a.active_experts, b.active_experts);
  c.field("shared_experts", a.shared_experts, b.shared_experts);
}

void compare_block(Compare& c, const Block& a, const Block& b) {
  c.part("attn", a.attn, b.attn, compare_attention);
  c.part("ffn", a.ffn, b.ffn, compare_ffn);
  c.part("before_attn", a.before_attn, b.before_attn, compare_optional_norm);
  c.part("after_attn", a.after_attn, b.after_attn, compare_optional_norm);
  c.part("before_ffn", a.before_ffn, b.before_ffn, compare_optional_norm);
  c.part("after_ffn", a.after_ffn, b.after_ffn, compare_optional_norm);
  c.field("parallel", a.parallel, b.parallel);
  c.field("residual_scale", a.residual_scale, b.residual_scale);
}

}  // namespace

std::string first_difference(const Spec& a, const Spec& b) {
  Compare c;
  c.field("dim", a.dim, b.dim);
  c.field("vocab", a.vocab, b.vocab);
  c.field("max_positions", a.max_positions, b.max_positions);
  c.field("learned_positions", a.learned_positions, b.learned_positions);
  c.field("blocks", a.blocks.size(), b.blocks.size());
  if (!c.text.empty()) return c.text;
  for (std::size_t i = 0; i < a.blocks.size() && c.text.empty(); i++)
    c.part(fmt::format("blocks.{}", i), a.blocks[i], b.blocks[i], compare_block);
  c.part("final_norm", a.final_norm, b.final_norm, compare_norm);
  c.part("head", a.head, b.head, compare_linear);
  c.field("tied", a.tied, b.tied);
  c.field("embed_scale", a.embed_scale, b.embed_scale);
  c.field("logit_cap", a.logit_cap, b.logit_cap);
  c.field("logit_scale", a.logit_scale, b.logit_scale);
  return c.text;
}

}  // namespace pare::arch
