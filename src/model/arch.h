// Families: how a published checkpoint's configuration and tensor names map to a Spec and its
// slots.
//
// One file per family in model/arch/. A family file knows names and nothing else does.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "model/spec.h"

namespace pare {

struct RowRange {
  i64 begin = 0, count = 0;
  bool operator==(const RowRange&) const = default;
};

// Where a slot's tensor lies in the checkpoint.
struct Source {
  std::string name;            // "model.layers.0.self_attn.qkv_proj.weight"
  bool transposed = false;     // stored (in, out): GPT-2's Conv1D
  std::vector<RowRange> rows;  // the slot's rows among the source's, in order; empty: all of them.
                               // Counted in (out, in) orientation, so columns of what is stored
                               // when transposed, and elements of a vector. The slots that share a
                               // source cover its rows exactly once.
};

struct Family {
  std::string_view name;              // model_type: "llama"
  std::string_view architecture;      // "LlamaForCausalLM"
  Spec (*parse)(const Json& config);  // refuses, naming the key, what a Spec cannot say
  Source (*source)(const Slot&, const Spec&, const Json& config);
  // Tensors that no slot asks for and that may be present all the same: legacy buffers, and the
  // head of a tied model.
  bool (*ignorable)(std::string_view tensor);
  // config.json for a Spec of this family, starting from `original` (or from nothing: an empty
  // object); refuses, naming the field, a Spec the family cannot express.
  Json (*unparse)(const Spec&, const Json& original);
  // What `source` begins with and files saved from the bare model lack ("h.0.ln_1.weight").
  std::string_view base_prefix = {};
};

std::span<const Family> families();
const Family* find_family(std::string_view name);
const Family& family_of(const Json& config);  // by model_type, else architectures[0]; Error AR-001

}  // namespace pare
