// A checkpoint before it is a model: its configuration, and its tensors under Hugging Face names.
//
// Every source (Hugging Face folder, GGUF, llama2.c) is brought to this one form; `assemble` then
// turns it into a Model through the family's names. Internal to the model layer.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "base/json.h"
#include "model/model.h"

namespace pare {

struct CheckpointTensor {
  Scheme scheme;
  std::vector<i64> shape;
  std::function<Tensor()> load;
};

struct Checkpoint {
  Json config;
  std::map<std::string, CheckpointTensor, std::less<>>
      tensors;  // "model.layers.0.mlp.up_proj.weight"
  std::map<std::string, Activation, std::less<>>
      activations;  // by module, "model.layers.0.mlp.up_proj"
  std::filesystem::path path, tokenizer;
};

// A plain tensor that lies in a file.
CheckpointTensor stored_tensor(Code code, std::vector<i64> shape, const Blob& bytes,
                               const std::string& name);

Model assemble(Checkpoint checkpoint);

Checkpoint read_huggingface(const std::filesystem::path& folder,
                            const Json& config);  // dense or compressed-tensors
Checkpoint read_gguf(const std::filesystem::path& file);
Checkpoint read_llama2c(const std::filesystem::path& file);
Model read_pare_form(const std::filesystem::path& folder, const Json& config);

// "model.layers.0.mlp.up_proj" of "model.layers.0.mlp.up_proj.weight".
std::string module_of(const std::string& tensor_name);

// Tensor-name suffixes of the planes of Pare's own form, with the planes.
struct PlaneName {
  const char* suffix;
  Blob Tensor::*plane;
};
extern const PlaneName plane_names[7];

// Rows of one head stored as adjacent rotary pairs (llama2.c, GGUF's llama) in the order of halves.
std::vector<RowRange> halves_from_pairs(i64 heads, i64 head_dim);

}  // namespace pare
