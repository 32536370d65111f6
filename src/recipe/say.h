// Choices by matrix as the text of a [[quantize]] step.
#pragma once

#include <string>
#include <vector>

#include "model/spec.h"

namespace pare {

struct NamedScheme {
  std::string name;    // "blocks.3.attn.v", "embed"
  std::string scheme;  // "int4:g64", or "keep"
};

// The [[quantize]] step and its rules: each matrix gets its scheme, others stay as they are. `keys`
// are further lines of the step ("kv = \"int8\"\n").
std::string quantize_text(const std::vector<NamedScheme>&, const Spec&,
                          const std::string& keys = {});

}  // namespace pare
