// llama2.c checkpoints ("version 0"): seven integers, then float32 arrays, a kind for all layers at
// a time.
#pragma once

#include <string>
#include <vector>

#include "base/view.h"

namespace pare {

struct Llama2c {
  i64 dim = 0, hidden = 0, layers = 0, heads = 0, kv_heads = 0, vocab = 0, positions = 0;
  bool tied = true;  // the classifier is the embedding
  struct Tensor {
    std::string name;        // Hugging Face Llama's: "model.layers.3.self_attn.q_proj.weight"
    std::vector<i64> shape;  // row-major (out, in), or (n)
    Blob bytes;              // float32
  };
  std::vector<Tensor> tensors;
};

// Note: llama2.c rotates adjacent pairs of a head, Hugging Face Llama halves; the importer reorders
// the rows of q and k. Errors: L2-001 header, L2-002 size.
Llama2c parse_llama2c(const Blob& file, const std::string& what);

}  // namespace pare
