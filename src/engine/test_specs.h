// Tiny Specs, one for each thing that a Spec can say. Sizes are awkward on purpose: they fill no
// vector register, heads are odd, values are narrower than keys.
#pragma once

#include <cmath>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "model/spec.h"

namespace pare::testing {

struct NamedSpec {
  std::string name;
  Spec spec;
};
inline void PrintTo(const NamedSpec& s, std::ostream* out) { *out << s.name; }

inline Linear shaped(Linear like, i64 in, i64 out) {
  like.in = in;
  like.out = out;
  return like;
}

// Gives every Linear the shape that the numbers of its block demand.
inline void set_shapes(Spec& s) {
  for (Block& b : s.blocks) {
    Attention& a = b.attn;
    const i64 nope = a.qk_dim - a.rope.dims;
    a.q = shaped(a.q, a.q_rank > 0 ? a.q_rank : s.dim, a.heads * a.qk_dim);
    a.o = shaped(a.o, a.heads * a.v_dim, s.dim);
    if (a.q_rank > 0) a.q_down = shaped(a.q_down, s.dim, a.q_rank);
    if (a.kv_from < 0) {
      const i64 in = a.mla() ? a.kv_rank : s.dim;
      if (a.mla()) a.kv_down = shaped(a.kv_down, s.dim, a.kv_rank + a.rope.dims);
      a.k = shaped(a.k, in, a.mla() ? a.heads * nope : a.kv_heads * a.qk_dim);
      a.v = shaped(a.v, in, a.kv_heads * a.v_dim);
    } else {
      a.k = a.v = a.kv_down = {};
    }
    if (b.ffn.gated) b.ffn.gate = shaped(b.ffn.gate, s.dim, b.ffn.up.out);
    b.ffn.up = shaped(b.ffn.up, s.dim, b.ffn.up.out);
    b.ffn.down = shaped(b.ffn.down, b.ffn.up.out, s.dim);
  }
  s.head = shaped(s.head, s.dim, s.vocab);
}

// Three Llama blocks; `width` scales everything.
inline Spec llama_like(i64 blocks = 3, i64 dim = 26, i64 head = 10, i64 hidden = 38) {
  Spec s;
  s.dim = dim;
  s.vocab = 53;
  s.max_positions = 64;
  Block b;
  b.before_attn = b.before_ffn = Norm{};
  b.attn.heads = 4;
  b.attn.kv_heads = 2;
  b.attn.qk_dim = b.attn.v_dim = head;
  b.attn.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(head)));
  b.attn.rope.dims = head;
  b.ffn.up.out = hidden;
  s.blocks.assign(static_cast<std::size_t>(blocks), b);
  set_shapes(s);
  return s;
}

inline Spec changed(Spec s, const std::function<void(Spec&)>& change) {
  change(s);
  set_shapes(s);
  return s;
}
inline Spec each_block(Spec s, const std::function<void(Block&)>& change) {
  for (Block& b : s.blocks) change(b);
  set_shapes(s);
  return s;
}

// kv_rank decides which order of MLA is cheaper in a prefill: small ranks always absorb.
inline Spec latent(i64 rank, i64 q_rank) {
  return each_block(llama_like(), [&](Block& b) {
    Attention& a = b.attn;
    a.heads = a.kv_heads = 3;
    a.qk_dim = 11;
    a.v_dim = 7;
    a.kv_rank = rank;
    a.q_rank = q_rank;
    a.rope.dims = 4;
    a.rope.interleaved = true;
    a.kv_down_norm = Norm{};
    if (q_rank > 0) a.q_down_norm = Norm{};
  });
}

inline void set_window(Attention& a, i64 window, i64 sinks) {
  a.window = window;
  a.sinks = sinks;
}

inline std::vector<NamedSpec> attention_specs() {
  std::vector<NamedSpec> all;
  const auto add = [&](const char* name, Spec spec) { all.push_back({name, std::move(spec)}); };
  add("gqa_llama3", each_block(llama_like(), [](Block& b) {
        Rope& r = b.attn.rope;
        r.scaling = RopeScaling::llama3;
        r.factor = 8;
        r.original_positions = 16;
        r.high_freq_factor = 4;
      }));
  add("mqa_partial_interleaved_norms", each_block(llama_like(), [](Block& b) {
        Attention& a = b.attn;
        a.heads = 3;
        a.kv_heads = 1;
        a.v_dim = 7;
        a.rope.dims = 6;
        a.rope.interleaved = true;
        a.q_norm = a.k_norm = Norm{};
      }));
  add("windows_sinks_sink_logits", changed(llama_like(), [](Spec& s) {
        set_window(s.blocks[0].attn, 5, 2);
        set_window(s.blocks[1].attn, 1, 0);
        s.blocks[2].attn.sink_logits = s.blocks[0].attn.sink_logits = true;
      }));
  add("ropes_per_block", changed(llama_like(), [](Spec& s) {
        Rope& yarn = s.blocks[0].attn.rope;
        yarn.scaling = RopeScaling::yarn;
        yarn.factor = 4;
        yarn.original_positions = 16;
        yarn.attention_factor = 1.1;
        Rope& linear = s.blocks[1].attn.rope;
        linear.scaling = RopeScaling::linear;
        linear.factor = 2.5;
        s.blocks[2].attn.rope = Rope{};  // no positions at all
      }));
  add("cross_layer", changed(llama_like(4), [](Spec& s) {
        s.blocks[1].attn.kv_from = 0;
        set_window(s.blocks[2].attn, 6, 1);
        s.blocks[3].attn.kv_from = 2;
        set_window(s.blocks[3].attn, 4, 1);
      }));
  add("mla_absorbed", latent(6, 9));
  add("mla_materialised", latent(40, 0));
  add("mla_window_sinks_logits", changed(latent(40, 0), [](Spec& s) {
        set_window(s.blocks[0].attn, 6, 2);
        set_window(s.blocks[1].attn, 3, 0);
        s.blocks[0].attn.sink_logits = s.blocks[2].attn.sink_logits = true;
        s.blocks[1].attn.softcap = 3;
      }));
  add("mla_cross_layer", changed(latent(20, 9), [](Spec& s) { s.blocks[2].attn.kv_from = 0; }));
  return all;
}

inline std::vector<NamedSpec> block_specs() {
  std::vector<NamedSpec> all;
  const auto add = [&](const char* name, Spec spec) { all.push_back({name, std::move(spec)}); };
  add("gpt_biases_learned_positions", changed(llama_like(), [](Spec& s) {
        s.learned_positions = s.max_positions;
        const Norm norm{true, true, false, 1e-5f};
        s.final_norm = norm;
        s.head.bias = true;
        for (Block& b : s.blocks) {
          b.before_attn = b.before_ffn = norm;
          b.attn.kv_heads = b.attn.heads;
          b.attn.rope = Rope{};
          b.ffn.gated = false;
          b.ffn.gate = {};
          b.ffn.act = Act::gelu_tanh;
          for (Linear* l : {&b.attn.q, &b.attn.k, &b.attn.v, &b.attn.o, &b.ffn.up, &b.ffn.down})
            l->bias = true;
        }
      }));
  add("post_norms_caps_scales_tied", changed(llama_like(), [](Spec& s) {
        const Norm norm{false, false, true, 1e-6f};
        s.final_norm = norm;
        s.tied = true;
        s.embed_scale = 5.1f;
        s.logit_cap = 6;
        s.logit_scale = 1.5f;
        for (Block& b : s.blocks) {
          b.before_attn = b.after_attn = b.before_ffn = b.after_ffn = norm;
          b.attn.softcap = 2;
          b.ffn.act = Act::gelu;
        }
      }));
  add("parallel_blocks", changed(llama_like(), [](Spec& s) {
        for (Block& b : s.blocks) b.parallel = true;
        s.blocks[0].before_ffn.reset();  // both branches share a norm
        s.blocks[2].after_attn = s.blocks[2].after_ffn = Norm{};
        s.blocks[1].residual_scale = 0.4f;
      }));
  add("every_block_different", changed(llama_like(4), [](Spec& s) {
        s.blocks[0].attn.heads = s.blocks[0].attn.kv_heads = 5;
        s.blocks[1].attn.qk_dim = 6;
        s.blocks[1].attn.rope.dims = 6;
        s.blocks[1].ffn.act = Act::relu2;
        s.blocks[2].ffn.up.out = 7;
        s.blocks[2].ffn.act = Act::relu;
        s.blocks[2].ffn.gated = false;
        s.blocks[2].ffn.gate = {};
        s.blocks[2].residual_scale = 0.7f;
        s.blocks[3].before_attn.reset();
        s.blocks[3].before_ffn.reset();
        s.blocks[3].after_attn = s.blocks[3].after_ffn = Norm{};
      }));
  add("companions", changed(llama_like(3, 32, 8, 48), [](Spec& s) {
        Block &first = s.blocks[0], &second = s.blocks[1], &third = s.blocks[2];
        first.attn.q.rank = 3;
        first.attn.k.outliers = 2;
        first.attn.v.permuted = true;
        first.attn.o.input_scaled = true;
        first.ffn.gate.rotation = 8;
        first.ffn.up.bias = true;
        for (Linear* l : {&second.attn.q, &second.ffn.down, &third.attn.o}) {
          l->rank = 2;
          l->outliers = 3;
          l->permuted = l->input_scaled = l->bias = true;
          l->rotation = 16;
        }
        s.head.rank = 4;
        s.head.bias = true;
      }));
  add("latent_companions", changed(latent(24, 9), [](Spec& s) {
        s.blocks[0].attn.k.rank = 3;
        s.blocks[0].attn.v.bias = true;
        s.blocks[1].attn.v.outliers = 2;
        s.blocks[1].attn.k.permuted = true;
        s.blocks[2].attn.k.rotation = 8;
        s.blocks[2].attn.kv_down.input_scaled = true;
        s.blocks[2].attn.q_down.bias = true;
      }));
  return all;
}

inline std::vector<NamedSpec> all_specs() {
  std::vector<NamedSpec> all = attention_specs(), more = block_specs();
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

}  // namespace pare::testing
