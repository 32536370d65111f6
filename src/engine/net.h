// Net: the weights of a model made ready to multiply, laid out as the Spec's blocks.
//
// `Product` is what multiplies: a Tensor for RefOps, a PackedLinear for CpuOps. Everything else a
// site holds is small and the same for both.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernel/linear.h"
#include "model/model.h"

namespace pare {

struct NormSite {
  const Norm* spec = nullptr;       // null: there is no such norm
  std::vector<float> weight, bias;  // (n)
  explicit operator bool() const { return spec != nullptr; }
};

// A Linear with its companions. What a site computes for an input x (tokens, in), in this order:
//   z = x / input_scale                    input_scaled
//   z = z R, R block-diagonal, blocks H_b / sqrt(b) with H_b Sylvester's Hadamard matrix   rotation
//   z = z gathered: z'[k] = z[permutation[k]]                                             permuted
//   columns outlier_index of z leave z (are set to zero) and form u (tokens, outliers)    outliers
//   y = W z + outlier_weight u + B (A x) + bias          (A sees the input as it came)
template <class Product>
struct LinearSite {
  std::string name;              // "blocks.3.attn.q"
  const Linear* spec = nullptr;  // null: absent
  i64 out = 0;                   // rows of this site: spec->out, or those of one head
  Product product;
  std::vector<float> bias, input_scale;                  // (out), (in)
  std::vector<std::int32_t> permutation, outlier_index;  // (in), (outliers)
  Product outlier, low_rank_a, low_rank_b;               // (out, outliers), (rank, in), (out, rank)
  float static_scale = 0;
  explicit operator bool() const { return spec != nullptr; }
};

template <class Product>
struct BlockSite {
  const Block* spec = nullptr;
  std::string name;  // "blocks.3"
  i64 store = 0;     // the block whose cache it reads: itself, or kv_from
  i64 rope = 0;      // index into Net::ropes
  NormSite before_attn, after_attn, before_ffn, after_ffn;
  NormSite q_norm, k_norm, q_down_norm, kv_down_norm;
  LinearSite<Product> q, k, v, o, q_down, kv_down;
  LinearSite<Product> gate, up, down;
  std::vector<float> sink_logits;  // (heads) or empty
  // MLA, CpuOps only: the rows of k and v head by head, so that keys are materialised for one head
  // at a time; and, when k and v are plain products, k of each head transposed (kv_rank, nope), so
  // that queries can be taken to the latent space instead.
  std::vector<LinearSite<Product>> k_heads, v_heads;
  std::vector<Product> k_absorbed;
  bool absorbable() const { return !k_absorbed.empty(); }
};

template <class Product>
struct Net {
  Spec spec;  // sites point into it
  Tensor embed;
  std::vector<float> positions;  // (learned_positions, dim) or empty
  std::vector<Rope> ropes;       // the distinct ones
  std::vector<BlockSite<Product>> blocks;
  NormSite norm;
  LinearSite<Product> head;

  Net() = default;
  Net(const Net&) = delete;
  Net& operator=(const Net&) = delete;
};

// Loads and packs one weight at a time. Errors: EN-008 what no engine runs (mixture of experts,
// a block that looks further back than the cache it shares), EN-009 a bad index.
std::unique_ptr<Net<Tensor>> reference_net(const Model&);
std::unique_ptr<Net<PackedLinear>> packed_net(const Model&, unsigned isa, Pool&);

// Some blocks of a model, without what lies before and behind them; and only that. For work block
// by block (engine/segment.h). A block may not read the cache of one outside.
std::unique_ptr<Net<PackedLinear>> packed_blocks(const Model&, i64 first, i64 count, unsigned isa,
                                                 Pool&);
std::unique_ptr<Net<PackedLinear>> packed_ends(const Model&, unsigned isa, Pool&);

// Takes one Linear ("blocks.3.attn.q") of block `first + index` of the model anew: its weights and
// its part of the Spec may have changed.
void repack(Net<PackedLinear>&, i64 index, const Model&, i64 first, const std::string& name,
            unsigned isa, Pool&);

// All Linears of a net that one decode step multiplies.
std::vector<const PackedLinear*> decode_products(const Net<PackedLinear>&);

}  // namespace pare
