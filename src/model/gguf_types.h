// Which ggml type each tensor of a GGUF file gets: the mixtures that `llama-quantize` calls Q4_K_M
// and the like. Internal to the model layer.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace pare {

struct GgufPreset {
  std::string_view name;  // "Q4_K_M"
  std::uint32_t base;     // ggml type of what no rule names
  i64 file_type;          // general.file_type
};

// By name, in any case; "Q4_K" and the like stand for their _M. Error MO-021 lists the names.
const GgufPreset& find_gguf_preset(const std::string& name);
std::span<const GgufPreset> gguf_presets();

// What the rules look at besides a tensor.
struct GgufShape {
  std::string_view arch;
  i64 blocks = 0, heads = 0, kv_heads = 0;
  bool tied = false;         // no output.weight: token_embd is the head
  bool importances = false;  // statistics steer the rounding
};

// The type of a tensor of (rows, cols) or (n). Vectors and position embeddings are F32. Rows that
// are not whole blocks get llama.cpp's substitute (Q4_K: Q5_0, Q6_K: Q8_0, ...; at last F16).
std::uint32_t gguf_type(const GgufPreset&, const GgufShape&, const std::string& tensor,
                        const std::vector<i64>& shape);

}  // namespace pare
