// The keys of a GGUF file besides its tokenizer. Internal to the model layer.
#pragma once

#include "file/gguf.h"
#include "model/gguf_archs.h"
#include "model/model.h"

namespace pare {

// `A.*` for a Spec of the architecture. What the keys cannot say is found by reading them back.
GgufMetadata gguf_architecture_keys(const Spec&, const GgufArch&);

// Frequencies of llama 3, as divisors (rope_freqs), and longrope's two lists of factors: tensor
// name and values.
std::vector<std::pair<std::string, std::vector<float>>> gguf_rope_tensors(const Spec&);

// The chat template beside a tokenizer: chat_template.jinja, tokenizer_config.json (the one named
// "default" of several), or the key of a GGUF file. Empty: none.
std::string find_chat_template(const std::filesystem::path& tokenizer);

}  // namespace pare
