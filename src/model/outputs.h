// The tensors of a checkpoint that is to be written, each put together from the slots whose rows it
// holds. Internal to the model layer.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "model/model.h"

namespace pare {

struct Output {
  std::string name;         // "model.layers.0.self_attn.qkv_proj.weight"
  bool transposed = false;  // stored (in, out)
  struct Part {
    std::string slot;
    std::vector<RowRange> rows;  // of the output; empty: all
  };
  std::vector<Part> parts;
  bool linear = false;      // the weight of a Linear
  bool permuted = false;    // some part has its columns in the order of a stored permutation
  bool companions = false;  // which has more than a weight, a bias and a permutation
  bool uniform = true;      // all parts have one scheme and one activation
  Scheme scheme;            // of the output: that of its parts, see `per_row`
  Activation activation;
  std::vector<i64> shape;  // (out, in) or (n)
};

// None when the family has no name for a slot.
std::optional<std::vector<Output>> outputs_of(const Model&, const Family&);

// Loads the parts and puts them together: the tensor as the file holds it, with `scheme`.
Tensor build(const Model&, const Output&);

// The head of a tied model, which is a module of its own to other programs ("lm_head").
std::string tied_head_module(const Model&, const Family&);

}  // namespace pare
