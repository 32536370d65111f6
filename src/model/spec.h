// Spec: every architecture is a value of this type. No subclass, no list of model names.
//
// What the parts are for: family files (model/arch/*) turn config.json into a Spec and refuse what
// it cannot say; `slots` lists the tensors a Spec demands; the engine, the cost model, the passes
// and the savers read nothing else.
//
//   variant            the Spec says                       cached per position and block
//   MHA                kv_heads == heads                   kv_heads * (qk_dim + v_dim)
//   GQA, MQA           kv_heads < heads, == 1              likewise
//   MLA                kv_rank > 0                         kv_rank + rope.dims
//   CLA                kv_from = j                         nothing
//   sliding window     window, sinks                       at most window + sinks positions
//   parallel block     parallel                            as its attention
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "kernel/ops.h"
#include "number/kv_scheme.h"
#include "number/scheme.h"

namespace pare {

// y = W x + b as the model uses it, with the companions that are applied around the kernel.
struct Linear {
  i64 in = 0, out = 0;  // out == 0: absent
  bool bias = false;
  Scheme scheme;              // of the weight (out, in)
  Activation activation;      // of the input
  i64 rank = 0;               // low-rank companion: y += B (A x), A (rank, in), B (out, rank)
  i64 outliers = 0;           // input columns kept in 16 bits beside the codes (LLM.int8())
  bool permuted = false;      // inputs are gathered by a stored permutation first (act-order)
  bool input_scaled = false;  // inputs are divided by a stored vector first
  i64 rotation = 0;           // inputs are rotated by a Hadamard matrix in blocks of this size
  bool operator==(const Linear&) const = default;
  bool present() const { return out > 0; }
};

struct Norm {
  bool layer = false;  // LayerNorm; else RMSNorm
  bool bias = false;
  bool plus_one = false;  // weights are stored as offset from one (Gemma)
  float eps = 1e-6f;
  bool operator==(const Norm&) const = default;
};

enum class RopeScaling : std::uint8_t { none, linear, dynamic, llama3, yarn, longrope };

struct Rope {
  i64 dims = 0;  // rotated dimensions of a head; 0: no rotary positions
  double theta = 10000;
  bool interleaved = false;  // pairs (2i, 2i+1); else (i, i + dims/2)
  RopeScaling scaling = RopeScaling::none;
  double factor = 1;
  i64 original_positions = 0;  // llama3, yarn, longrope; dynamic: max positions
  double low_freq_factor = 1, high_freq_factor = 1;  // llama3
  double beta_fast = 32, beta_slow = 1;              // yarn
  bool truncate = true;                              // yarn
  double attention_factor = 1;  // multiplies cosine and sine (already derived by the family file)
  std::vector<double> short_factor, long_factor;  // longrope, dims / 2 entries
  bool operator==(const Rope&) const = default;
};

struct Attention {
  i64 heads = 0, kv_heads = 0;
  i64 qk_dim = 0, v_dim = 0;    // per head; MLA: qk_dim = nope + rope.dims, rotated part last
  i64 q_rank = 0, kv_rank = 0;  // MLA: kv_rank > 0; q_rank > 0: queries through a latent too
  i64 kv_from = -1;             // CLA: uses the keys and values of that earlier block
  i64 window = 0, sinks = 0;    // 0: everything. Window counts the token itself
  bool sink_logits = false;     // a learned logit per head joins the softmax
  float softcap = 0;
  float scale = 0;                                // of the scores; the family file always sets it
  std::optional<Norm> q_norm, k_norm;             // per head, before rope
  std::optional<Norm> q_down_norm, kv_down_norm;  // MLA latents
  Rope rope;
  // q: dim (or q_rank) -> heads * qk_dim. k, v: dim -> kv_heads * qk_dim, v_dim; in MLA kv_rank ->
  // heads * (qk_dim - rope.dims) and heads * v_dim. o: heads * v_dim -> dim.
  // q_down: dim -> q_rank. kv_down: dim -> kv_rank + rope.dims. Absent ones have out == 0.
  Linear q, k, v, o, q_down, kv_down;
  bool operator==(const Attention&) const = default;
  bool mla() const { return kv_rank > 0; }
};

struct Ffn {
  Act act = Act::silu;
  bool gated = true;  // down(act(gate x) * up x); else down(act(up x))
  Linear gate, up, down;
  i64 experts = 0, active_experts = 0, shared_experts = 0;  // 0: dense
  bool operator==(const Ffn&) const = default;
};

struct Block {
  Attention attn;
  Ffn ffn;
  std::optional<Norm> before_attn, after_attn, before_ffn, after_ffn;
  // x + attn(n1 x) + ffn(n2 x); without before_ffn both branches share n1
  bool parallel = false;
  float residual_scale = 1;  // of both branches before they are added
  bool operator==(const Block&) const = default;
};

struct Spec {
  i64 dim = 0, vocab = 0, max_positions = 0;
  i64 learned_positions = 0;  // rows of a learned position embedding; 0: none
  std::vector<Block> blocks;
  Norm final_norm;
  Scheme embed;  // of the embedding (vocab, dim)
  Linear head;   // dim -> vocab; when tied its scheme is the embedding's and no weight is stored
  bool tied = false;
  float embed_scale = 1, logit_cap = 0, logit_scale = 1;  // logits = cap(scale * head(norm x))
  std::optional<KvScheme> kv;  // of the cache the model asks for; none: the engine's rule
  bool operator==(const Spec&) const = default;
};

// One stored tensor the Spec demands. Names:
//   embed.weight  positions.weight  norm.weight norm.bias  head.weight head.bias
//   blocks.N.{before_attn,after_attn,before_ffn,after_ffn}.{weight,bias}
//   blocks.N.attn.{q,k,v,o,q_down,kv_down}.{weight,bias}   (+ companions: .low_rank_a .low_rank_b
//     .outlier_weight .outlier_index .permutation .input_scale, and .static_scale of the
//     activation)
//   blocks.N.attn.{q_norm,k_norm,q_down_norm,kv_down_norm}.{weight,bias}  blocks.N.attn.sink_logits
//   blocks.N.ffn.{gate,up,down}.{weight,bias}
struct Slot {
  std::string name;
  std::vector<i64> shape;  // (out, in), (vocab, dim) or (n)
  Scheme scheme;           // of matrices; vectors may have any plain code
  i64 block = -1;
  bool vector = false;             // norms, biases, scales: one axis, never quantized
  const Linear* linear = nullptr;  // the Linear it is the weight of; points into the Spec
};

// THE list: nobody else spells a tensor's name or shape. Order: embed, positions, blocks, norm,
// head.
std::vector<Slot> slots(const Spec&);
std::vector<Slot> slots(Spec&&) = delete;

// The Linears of a Spec by their name without ".weight" ("blocks.3.attn.q", "head"), in slot order.
std::vector<std::pair<std::string, Linear*>> linears(Spec&);
std::vector<std::pair<std::string, const Linear*>> linears(const Spec&);

// Numbers that contradict each other are Errors SP-001.. naming the field and block.
void check(const Spec&);

// Inverse frequencies (dims / 2) of a Rope for a sequence of `length` tokens in all.
std::vector<double> rope_frequencies(const Rope&, i64 length);
// True when the frequencies depend on the length of the sequence (dynamic, longrope).
bool rope_depends_on_length(const Rope&);

// Rows that a block caches for a position, and their widths; kv_from blocks have none of their own.
i64 kv_heads_stored(const Attention&);
i64 kv_key_width(const Attention&);
i64 kv_value_width(const Attention&);  // 0: the value is the front of the key
// Bytes that `positions` packed positions of a block occupy, scales included.
i64 kv_packed_bytes(const Attention&, const KvScheme&, i64 positions);

// Bytes the cache needs for one more position of all blocks that still grow (windows not yet full),
// scales included; a position's share where positions share scales.
double kv_bytes_per_token(const Spec&, const KvScheme&);
i64 parameters(const Spec&);    // weights and biases, a tied head counted once
i64 weight_bytes(const Spec&);  // as stored, all planes

}  // namespace pare
