// Quantized folders of other programs: GPTQ, AWQ, bitsandbytes, FP8. Internal to the model layer.
//
// A form is a row of a table: how its tensors are named and laid out (number/), what
// quantization_config says, and what it has no place for.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "number/raw_plane.h"

namespace pare {

using StoredTensors = std::map<std::string, StoredTensor, std::less<>>;

// ---- reading ----

// A folder that is being read. Readers move the tensors of quantized modules out of `stored`.
struct PackedFolder {
  std::filesystem::path folder;
  const Json& section;  // quantization_config
  StoredTensors& stored;
  Checkpoint& checkpoint;

  // Modules that have a tensor "<module>.<suffix>".
  std::vector<std::string> modules_with(std::string_view suffix) const;
  // The tensors of a module with these suffixes, as far as there are any; they leave `stored`.
  std::vector<RawPlane> take(const std::string& module, std::span<const std::string> suffixes);
  // Types and shapes as in `plan`, exactly. Error MO-012.
  void demand(const std::string& module, const std::vector<RawPlane>& planes,
              const std::vector<RawPlane>& plan) const;
  [[noreturn]] void wrong(const std::string& module, const std::string& message,
                          const std::string& found, const std::string& need) const;
  // Enters "<module>.weight"; `make` runs when it is loaded, after its planes were touched.
  void add(const std::string& module, CheckpointTensor tensor, std::vector<RawPlane> planes,
           std::function<Tensor(const std::vector<RawPlane>&)> make);

  // Members of the section under the first of the keys that is there. Error MO-011 names the key.
  const Json* find(std::initializer_list<const char*> keys) const;
  i64 integer(std::initializer_list<const char*> keys, i64 from, i64 to) const;
  bool flag(std::initializer_list<const char*> keys, bool fallback) const;
  [[noreturn]] void refuse(const char* key, const std::string& found,
                           const std::string& need) const;
  // Biases that some packers add to modules that have none: all zeros, so they may go unused.
  void spare_zero_bias(const std::string& module);
};

void read_gptq(PackedFolder&);
void read_awq(PackedFolder&);
void read_bitsandbytes(PackedFolder&);
void read_fp8(PackedFolder&);

// Reads the quantized modules if the folder is in one of these forms; else returns false.
bool read_packed(const std::filesystem::path& folder, const Json& config, StoredTensors& stored,
                 Checkpoint& checkpoint);

// ---- writing ----

// A Linear of the folder that is to be written.
struct PackedModule {
  std::string name;  // "model.layers.0.mlp.up_proj"
  bool quantized = false;
  Scheme scheme;
  i64 rows = 0, cols = 0;
  bool permuted = false;
};

struct PackedForm {
  std::string_view name;  // "gptq"
  std::optional<Misfit> (*misfit)(const Scheme&, i64 rows, i64 cols);
  // `dtype` of the dense tensors as PyTorch names it: "bfloat16".
  std::vector<RawPlane> (*plan)(const Scheme&, i64 rows, i64 cols, const std::string& dtype);
  std::vector<RawPlane> (*pack)(const Tensor&, std::span<const std::int32_t> permutation,
                                const std::string& dtype);
  // quantization_config. Error MO-031 when the modules cannot share one.
  Json (*section)(const std::vector<PackedModule>&);
  bool permuted = false;                      // has a place for act-order
  bool conv1d = false;                        // holds GPT-2's matrices, as (out, in)
  std::optional<Activation> activation = {};  // how its readers quantize inputs; none: not
  std::string_view copy_of_section = {};      // a file that repeats quantization_config
};

extern const PackedForm gptq_form, gptq_v2_form, awq_form, bitsandbytes_form, fp8_form;

// As group_size says it: the columns of a group, or -1 for a whole row.
i64 config_group(const PackedModule&);

// The first quantized module, whose settings the form says for all; names of the others that are
// not quantized go to `skipped`. Error MO-031 with `what` when `same` denies it of two.
const PackedModule& shared_settings(const std::vector<PackedModule>&, Json::Array& skipped,
                                    const char* what,
                                    bool (*same)(const PackedModule&, const PackedModule&));

// Fails with MO-031: two modules need different values of what the form says once.
[[noreturn]] void cannot_share(const PackedModule& a, const PackedModule& b, const char* what);

}  // namespace pare
