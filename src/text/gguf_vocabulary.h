// A tokenizer as the metadata of a GGUF file (`tokenizer.ggml.*`), such that llama.cpp and
// tokenizer_from_gguf give the same ids.
#pragma once

#include "file/gguf.h"
#include "text/tokenizer.h"

namespace pare {

struct GgufVocabularyOptions {
  i64 rows = 0;                     // of the embedding: ids above the vocabulary get stand-ins
  std::string model_name;           // general.name; llama.cpp strips spaces by it (Phi-3)
  std::int32_t bos = -1, eos = -1;  // of config.json, where the tokenizer names none
  std::vector<std::string>* notes = nullptr;  // what llama.cpp does otherwise, a sentence each
};

// Byte-level BPE ("gpt2") and SentencePiece BPE ("llama"). Error TK-012 when GGUF cannot say the
// tokenizer: another kind, a split pattern without a name, a normalizer that changes text, more
// tokens than rows, or ids that differ on the probe texts after reading the result back.
GgufMetadata to_gguf_vocabulary(const Tokenizer&, const GgufVocabularyOptions&);

}  // namespace pare
