// Model = Spec + weights + tokenizer + history: a value that passes turn into another.
//
// A weight is a promise: its scheme and shape are known at once, its bytes are mapped or made when
// `load` is called, one at a time. So a model of any size can be opened, planned and streamed with
// the memory of its largest tensor.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/log.h"
#include "base/pool.h"
#include "model/arch.h"
#include "model/spec.h"
#include "number/tensor.h"

namespace pare {

struct Weight {
  Scheme scheme;
  std::vector<i64> shape;
  std::function<Tensor()> load;
};
using Weights = std::map<std::string, Weight, std::less<>>;  // slot name -> weight

struct Evidence {
  std::string pass, site, metric;
  double before = 0, after = 0;
};

// Where an applied recipe began and what it learnt from: all that is needed to make the model
// again.
struct Provenance {
  std::string recipe;      // its whole text
  std::string base;        // identity of the model it was applied to
  std::string data;        // what it learnt from, with a fingerprint of the tokens; empty: nothing
  std::string version;     // of Pare
  std::uint64_t seed = 0;  // of what was drawn at random
  bool operator==(const Provenance&) const = default;
};
Json to_json(const Provenance&);  // an object of strings; the seed too

struct Model {
  Spec spec;
  Weights weights;  // exactly slots(spec)
  std::string family;
  Json config;                       // config.json as it came, or as the importer made it
  std::filesystem::path path;        // what was opened: tokenizer and side files lie there
  std::filesystem::path tokenizer;   // folder or file for load_tokenizer; empty: none
  std::vector<std::string> history;  // what made it, a line a step
  std::vector<Evidence> evidence;
  std::vector<Provenance> provenance;  // one for each recipe applied, in order
};

// MODEL as the command line takes it: a Hugging Face folder (dense, compressed-tensors, GPTQ, AWQ,
// bitsandbytes, FP8 or Pare's own quantized form), a .gguf file, a llama2.c .bin, or org/name in
// the local hub cache.
struct LoadOptions {
  std::string tokenizer;  // --tokenizer FILE, for formats that carry none
};
Model load_model(const std::string& argument, const LoadOptions& = {});

// A weight that the model has.
inline Tensor load(const Model& m, const std::string& slot) {
  return m.weights.find(slot)->second.load();
}

// The Spec of a folder's config.json, weights or none.
Spec spec_of_folder(const std::filesystem::path& folder);

// The same of a config.json under any name.
Spec spec_of_config(const std::filesystem::path& file);

// Where the tokenizer of a model argument lies, for commands that need nothing else of the model.
std::filesystem::path find_tokenizer(const std::string& argument);

// Ids that end a text: eos_token_id of config.json and generation_config.json.
std::vector<std::int32_t> end_tokens(const Model&);

// The cache's code when nobody asks for another: the Spec's own, else f32 for models stored in f32
// and f16 for all others.
KvScheme default_kv(const Spec&);

// Names, shapes and schemes of the weights equal slots(spec), all or nothing; Error MO-001 names
// the first.
void check(const Model&);

// What a model is, in 16 hexadecimal digits: a hash over its Spec and every plane of every weight.
// Not against malice. Reads all weights.
std::string identity(const Model&, const Log&);

// Writes a Hugging Face folder, one tensor in memory at a time: dense, or compressed-tensors where
// that form can express the schemes, else Pare's own form ("quant_method": "pare" in config.json).
// Publishes atomically and carries side files along; `force` replaces an existing target.
struct SaveReport {
  std::string form;  // "dense", "compressed-tensors", "pare"
  i64 bytes = 0;
  std::vector<std::string> side_files;
};
SaveReport save_model(const Model&, const std::filesystem::path& target, bool force, const Log&);

// Some weights in one safetensors file, planes apart as in Pare's own form: unfinished work. `spec`
// says what the file's tensors must be; others than its slots are an Error MO-003.
void write_slots(const std::filesystem::path& file, const Weights&);
Weights read_slots(const std::filesystem::path& file, const Spec& spec);

// Writes a folder of other programs, with every value as it is, or not at all: Error MO-030
// names the first tensor that has no place there, MO-031 two that cannot share one configuration,
// NU-033, NU-034 and NU-037 a scale or zero point that the form cannot store. `format` is
// "compressed-tensors", "gptq", "gptq-v2", "awq", "bnb" or "fp8".
SaveReport export_model(const Model&, const std::string& format,
                        const std::filesystem::path& target, bool force, Pool&, const Log&);

// A seeded random model of any Spec; weights ~ N(0, 1/in) in `code`, norms near one.
Model random_model(const Spec&, std::uint64_t seed, Code code);
// Specs of well-known shapes for `pare random --like NAME`: "llama-3.2-1b", "llama-2-7b", ...
Spec known_spec(const std::string& name);
std::vector<std::string> known_specs();

// Row operations on planes, used for fused tensors. Exact; PARE_CHECKs the shapes.
Tensor select_rows(const Tensor&, std::span<const RowRange>);
Tensor concat_rows(std::span<const Tensor>);
Tensor transpose(const Tensor&);  // plain tensors only

}  // namespace pare
