// A checkpoint before it is a model: its configuration, and its tensors under Hugging Face names.
//
// Every source (Hugging Face folder, GGUF, llama2.c) is brought to this one form; `assemble` then
// turns it into a Model through the family's names. Internal to the model layer.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "base/json.h"
#include "file/safetensors.h"
#include "model/model.h"

namespace pare {

struct CheckpointTensor {
  Scheme scheme;
  std::vector<i64> shape;
  std::function<Tensor()> load;
  std::string unreadable;  // not empty: a type that no slot can have ("I64"); load is then empty
  bool upright = false;    // (out, in), whatever way round the family's checkpoints store it
  // The input column that each stored column belongs to (act-order); empty: in order.
  std::vector<std::int32_t> permutation = {};
};

struct Checkpoint {
  Json config;
  std::map<std::string, CheckpointTensor, std::less<>>
      tensors;  // "model.layers.0.mlp.up_proj.weight"
  std::map<std::string, Activation, std::less<>>
      activations;                           // by module, "model.layers.0.mlp.up_proj"
  std::set<std::string, std::less<>> spare;  // tensors that say nothing and may go unused
  std::optional<KvScheme> kv;
  std::filesystem::path path, tokenizer;
};

// f32, f16 and bf16 as safetensors names them.
std::optional<Code> plain_code(Dtype);
Dtype dtype_of(Code);  // of a plane that holds this code: floats, e4m3 and int8; else U8

// A plain tensor that lies in a file.
CheckpointTensor stored_tensor(Code code, std::vector<i64> shape, const Blob& bytes,
                               const std::string& name);

Model assemble(Checkpoint checkpoint);

Checkpoint read_huggingface(const std::filesystem::path& folder,
                            const Json& config);  // dense or compressed-tensors
Checkpoint read_gguf(const std::filesystem::path& file);
Checkpoint read_llama2c(const std::filesystem::path& file);
// The tokenizer of a llama2.c checkpoint, looked for beside it; empty when there is none or the
// file is no checkpoint.
std::filesystem::path llama2c_tokenizer(const std::filesystem::path& file);

// "model.layers.0.mlp.up_proj" of "model.layers.0.mlp.up_proj.weight".
std::string module_of(const std::string& tensor_name);

std::string shape_text(const std::vector<i64>& shape);  // "96 x 64"

// The folder, if a tokenizer lies in it; else empty.
std::filesystem::path tokenizer_in(const std::filesystem::path& folder);

// Rows of one head stored as adjacent rotary pairs (llama2.c, GGUF's llama) in the order of halves.
std::vector<RowRange> halves_from_pairs(i64 heads, i64 head_dim);

// ---- what Pare notes beside a family's keys: "pare": {"kv", "history", "evidence",
// "provenance"} ----

Json notes_of(const Model&);  // null when there is nothing to say
void take_notes(Model&);      // reads the member of m.config and removes it; Error MO-015
Json without_marks(const Json& config);  // without notes and without any quantization

// ---- Pare's own form (docs/formats.md) ----

bool is_pare_form(const Json& config);
Model read_pare_form(const std::filesystem::path& folder, const Json& config);
Spec pare_form_spec(const Json& config);
Json pare_form_section(const Spec&);  // quantization_config
std::vector<TensorPlan> pare_form_plan(const Model&);
void write_pare_form(const Model&, ShardedWriter&, Progress&);

// A Spec as JSON, complete, and back (for what no family's configuration can say). Fields with
// their default value are left out; equal blocks in a row are written once. Error MO-016 names the
// field.
Json spec_to_json(const Spec&);
Spec spec_from_json(const Json&);

}  // namespace pare
