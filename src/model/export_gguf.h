// Writing a model as one GGUF file that llama.cpp loads.
#pragma once

#include <functional>

#include "model/model.h"
#include "number/encode.h"

namespace pare {

struct GgufOptions {
  // Empty: each matrix keeps its codes, in the ggml type that holds them exactly. Else a type or
  // mixture ("Q8_0", "Q4_K_M"): what is not exact in the type it demands is quantized to it.
  std::string type;
  FitOptions fit;
  // Mean squares of the inputs of a Linear ("blocks.3.attn.q"), or nothing: they steer the
  // rounding.
  std::function<std::vector<float>(const std::string& linear)> importance;
};

struct GgufReport {
  i64 bytes = 0;
  i64 exact = 0, rounded = 0;      // matrices whose values are those of the model; the others
  std::vector<std::string> types;  // "Q6_K x 12", most first
};

// The file appears whole or not at all; one tensor is in memory at a time. What was written is
// opened again and its Spec compared. Errors: MO-020 GGUF has no words for the model (architecture,
// a part of the Spec, companions of a matrix), MO-021 unknown type, MO-022 a matrix whose codes no
// ggml type holds exactly, TK-012 a tokenizer that GGUF cannot say.
GgufReport export_gguf(const Model&, const std::filesystem::path& target, const GgufOptions&,
                       bool force, Pool&, const Log&);

}  // namespace pare
