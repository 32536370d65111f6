// The forward pass: the one place where a model is computed.
//
// It is written once over an Ops, a type that knows how to do a dozen things with arrays of floats
// (tokens, n) and nothing about models:
//
//   embed()                     rows of the embedding, scaled, plus learned positions
//   norm(site, x)               RMSNorm or LayerNorm of whole rows
//   norm_part(site, x, part)    the same within each head, or of a part of each row
//   linear(site, x)             W x + b and companions (net.h)
//   rope(block, x, part)        rotates a part of each head by its token's position
//   attend(block, q, k, v)      appends k and v to the caches, attends; k and v null: reads only
//   attend_latent(block, q, c)  the same for MLA: c = [normalised latent | rotated key]
//   act(kind, gate, up)         act(gate) * up, or act(gate)
//   add(x, y, scale)            x + scale y
//   select(x, rows)             some rows
//   cap(x, scale, cap)          scale x, then cap tanh(x / cap)
//   view(x)                     what a tap may look at
//
// Arrays are moved where an operation may work in place.
#pragma once

#include <span>
#include <string>

#include "engine/engine.h"
#include "engine/net.h"
#include "engine/store.h"

namespace pare {

// One sequence's part of a chunk.
struct Piece {
  KvCache::State* cache = nullptr;
  i64 row = 0, count = 0;  // its tokens among those of the chunk
  i64 position = 0;        // of the first of them
  i64 length = 0;          // of the sequence when the step ends: what stretched frequencies go by
};

inline KvStore& store_of(const Piece& piece, i64 store) {
  return piece.cache->stores[static_cast<std::size_t>(store)];
}

// Tokens that run together.
struct Chunk {
  std::vector<std::int32_t> tokens;
  std::vector<Piece> pieces;
  i64 rows() const { return static_cast<i64>(tokens.size()); }
};

// Columns [begin, begin + width) of each of `heads` equal parts of a row.
struct Part {
  i64 heads = 1, begin = 0, width = 0;
};

template <class Ops>
class Forward {
  using Array = typename Ops::Array;
  using Linear = typename Ops::Linear;
  using Block = typename Ops::Block;
  using Net = typename Ops::Net;

 public:
  Forward(Ops& ops, const Net& net, const Tap* tap) : ops_(ops), net_(net), tap_(tap) {}

  // The residual stream behind the last block. (tokens, dim)
  Array hidden() {
    Array x = ops_.embed();
    see("", "embed", x);
    return blocks(std::move(x));
  }

  // x behind all blocks of the net. (tokens, dim)
  Array blocks(Array x) {
    for (const Block& b : net_.blocks) {
      x = b.spec->parallel ? parallel(b, std::move(x)) : sequential(b, std::move(x));
      see(b.name, "", x);
    }
    return x;
  }

  // (tokens, vocab)
  Array logits(const Array& x) {
    const Array n = ops_.norm(net_.norm, x);
    see("", "norm", n);
    Array y = linear(net_.head, n);
    if (net_.spec.logit_scale != 1 || net_.spec.logit_cap != 0)
      y = ops_.cap(std::move(y), net_.spec.logit_scale, net_.spec.logit_cap);
    see("", "logits", y);
    return y;
  }

 private:
  // h = x + s n2(attn(n1 x));  y = h + s n4(ffn(n3 h))
  Array sequential(const Block& b, Array x) {
    const float s = b.spec->residual_scale;
    // Branches come first, each in its own statement: arguments may be evaluated in any order.
    const Array attn = attention_branch(b, x);
    x = ops_.add(std::move(x), attn, s);
    see(b.name, ".after_attn_residual", x);
    const Array ffn = ffn_branch(b, b.before_ffn, x);
    return ops_.add(std::move(x), ffn, s);
  }

  // y = x + s n2(attn(n1 x)) + s n4(ffn(n3 x)), where n3 may be n1
  Array parallel(const Block& b, Array x) {
    const float s = b.spec->residual_scale;
    const Array attn = attention_branch(b, x);
    const Array ffn = ffn_branch(b, b.before_ffn ? b.before_ffn : b.before_attn, x);
    x = ops_.add(std::move(x), attn, s);
    return ops_.add(std::move(x), ffn, s);
  }

  Array attention_branch(const Block& b, const Array& x) {
    Array normed;
    if (b.before_attn) {
      normed = ops_.norm(b.before_attn, x);
      see(b.name, ".before_attn", normed);
    }
    const Array& in = b.before_attn ? normed : x;
    const Array mix = b.spec->attn.mla() ? latent_attention(b, in) : attention(b, in);
    see(b.name, ".attn.mix", mix);
    Array out = linear(b.o, mix);
    see(b.name, ".attn.o", out);
    if (b.after_attn) out = ops_.norm(b.after_attn, out);
    return out;
  }

  Array ffn_branch(const Block& b, const NormSite& before, const Array& x) {
    Array normed;
    if (before) {
      normed = ops_.norm(before, x);
      see(b.name, ".before_ffn", normed);
    }
    Array out = ffn(b, before ? normed : x);
    if (b.after_ffn) out = ops_.norm(b.after_ffn, out);
    return out;
  }

  // softmax(q k^T) v with k and v from the cache, this step's included
  Array attention(const Block& b, const Array& x) {
    const Attention& a = b.spec->attn;
    const Array q = queries(b, x);
    if (!b.k) return ops_.attend(b, q, nullptr, nullptr);
    Array k = linear(b.k, x);
    see(b.name, ".attn.k", k);
    const Array v = linear(b.v, x);
    see(b.name, ".attn.v", v);
    if (b.k_norm) k = ops_.norm_part(b.k_norm, std::move(k), {a.kv_heads, 0, a.qk_dim});
    if (a.rope.dims > 0) k = ops_.rope(b, std::move(k), {a.kv_heads, 0, a.rope.dims});
    return ops_.attend(b, q, &k, &v);
  }

  // keys and values of all heads come from one latent row, and one rotated part serves all heads
  Array latent_attention(const Block& b, const Array& x) {
    const Attention& a = b.spec->attn;
    const Array q = queries(b, x);
    if (!b.kv_down) return ops_.attend_latent(b, q, nullptr);
    Array c = linear(b.kv_down, x);
    if (b.kv_down_norm) c = ops_.norm_part(b.kv_down_norm, std::move(c), {1, 0, a.kv_rank});
    if (tap_ != nullptr && tap_->input) {
      const Matrix<const float> all = ops_.view(c);
      const Matrix<const float> latent(all.data, all.rows, a.kv_rank, all.stride);
      tap_->input(b.name + ".attn.k", latent);
      tap_->input(b.name + ".attn.v", latent);
    }
    if (a.rope.dims > 0) c = ops_.rope(b, std::move(c), {1, a.kv_rank, a.rope.dims});
    return ops_.attend_latent(b, q, &c);
  }

  Array queries(const Block& b, const Array& x) {
    const Attention& a = b.spec->attn;
    Array q;
    if (b.q_down) {
      Array latent = linear(b.q_down, x);
      if (b.q_down_norm) latent = ops_.norm(b.q_down_norm, latent);
      q = linear(b.q, latent);
    } else {
      q = linear(b.q, x);
    }
    see(b.name, ".attn.q", q);
    if (b.q_norm) q = ops_.norm_part(b.q_norm, std::move(q), {a.heads, 0, a.qk_dim});
    const i64 first = a.mla() ? a.qk_dim - a.rope.dims : 0;
    if (a.rope.dims > 0) q = ops_.rope(b, std::move(q), {a.heads, first, a.rope.dims});
    return q;
  }

  // down(act(gate x) * up x), or down(act(up x))
  Array ffn(const Block& b, const Array& x) {
    const Ffn& f = b.spec->ffn;
    Array hidden;
    if (f.gated) {
      hidden = linear(b.gate, x);
      see(b.name, ".ffn.gate", hidden);
    }
    Array up = linear(b.up, x);
    see(b.name, ".ffn.up", up);
    hidden =
        f.gated ? ops_.act(f.act, std::move(hidden), &up) : ops_.act(f.act, std::move(up), nullptr);
    see(b.name, ".ffn.hidden", hidden);
    Array down = linear(b.down, hidden);
    see(b.name, ".ffn.down", down);
    return down;
  }

  Array linear(const Linear& site, const Array& x) {
    if (tap_ != nullptr && tap_->input) tap_->input(site.name, ops_.view(x));
    return ops_.linear(site, x);
  }

  void see(const std::string& block, const char* stage, const Array& x) {
    if (tap_ != nullptr && tap_->stage) tap_->stage(block + stage, ops_.view(x));
  }

  Ops& ops_;
  const Net& net_;
  const Tap* tap_;
};

}  // namespace pare
