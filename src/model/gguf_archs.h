// The architectures of GGUF files and their tensor names, used in both directions. Internal to the
// model layer.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "model/spec.h"

namespace pare {

// A module in GGUF ("attn_q") and in a Hugging Face checkpoint ("self_attn.q_proj").
using GgufNamePair = std::pair<std::string_view, std::string_view>;

struct GgufArch {
  std::string_view name, model_type, class_name, layers;  // layers: what precedes a block's number
  std::span<const GgufNamePair> outside, inside;
  std::span<const GgufNamePair> two_norms = {};  // instead of `inside` when each branch has a norm
  bool pairs = false;                            // q and k rows as adjacent rotary pairs
  bool plus_one = false;                         // one was added to norms
  bool head_by_head = false;  // the original's fused projection; GGUF: all q, all k, all v
  bool layer_norm = false;    // LayerNorm; else RMSNorm
};

std::span<const GgufArch> gguf_archs();

// "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight", and back. A name that the
// table lacks stays as it is (from GGUF), or is none (to GGUF).
std::string name_from_gguf(const GgufArch&, const std::string& name);
std::optional<std::string> name_to_gguf(const GgufArch&, const std::string& name);

}  // namespace pare
