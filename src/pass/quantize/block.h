// The matrices and vectors of one block as floats, and the scales that may be moved within it.
//
// AWQ and SmoothQuant multiply the inputs of some matrices by 1/s and their columns by s. The
// function of the block stays the same when what makes that input can absorb the 1/s: a norm's
// weights, the rows of the matrix before, or, where nothing can, a stored input scale
// (Linear::input_scaled).
#pragma once

#include <map>
#include <string>
#include <vector>

#include "engine/statistics.h"
#include "model/model.h"

namespace pare {

struct Values {
  std::vector<i64> shape;  // (out, in) or (n)
  std::vector<float> data;
  Matrix<float> matrix() { return {data.data(), shape.size() < 2 ? 1 : shape[0], shape.back()}; }
  Matrix<const float> matrix() const {
    return {data.data(), shape.size() < 2 ? 1 : shape[0], shape.back()};
  }
};
using BlockValues = std::map<std::string, Values, std::less<>>;  // slot name -> values

// Matrices that read one input, and what can absorb the inverse of its scale.
struct ScaleGroup {
  enum class Absorb : std::uint8_t {
    norm,    // weights (and bias) of the norm `source`
    rows,    // the first in-many rows (and biases) of the matrix `source`; relu^2 between them
             // takes their square root
    heads,   // rows of v, each shared by heads / kv_heads query heads (o; MHA: by one): s is
             // averaged over them
    stored,  // nothing: an input scale is stored with each matrix (Linear::input_scaled)
  };
  std::string input;                  // input_name of its members: where its statistics are
  std::vector<std::string> matrices;  // "blocks.3.attn.q", ...
  Absorb absorb = Absorb::stored;
  std::string source;  // "blocks.3.before_attn", "blocks.3.ffn.up"; empty for stored
};
// In the order in which the block computes them, members in slot order. Groups with a member whose
// inputs are rotated first (Linear::rotation) are left out: their columns are not the inputs'.
// (Norms of q and k and rotary positions lie behind the products and do not hinder.)
std::vector<ScaleGroup> scale_groups(const Spec&, i64 block);

// s (in) of a group as it can be applied: positive finite numbers (others become 1), with
// Absorb::heads made equal for the heads that share a row.
std::vector<float> shareable(const Spec&, const ScaleGroup&, i64 block, std::vector<float> s);

// Columns of the members times s, and 1/s absorbed; with Absorb::stored the slots
// "NAME.input_scale" are made, or multiplied. `s` must be shareable. Companions follow. Exact but
// for rounding.
void apply_scale(BlockValues&, const Spec&, const ScaleGroup&, i64 block,
                 const std::vector<float>& s);
// What apply_scale does to the Spec: Linear::input_scaled of the members, with Absorb::stored.
void note_stored(Spec&, const ScaleGroup&);

// All slots of a block, decoded.
BlockValues block_values(const Model&, i64 block);

}  // namespace pare
