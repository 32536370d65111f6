// Tokenizers: text to ids and back, the same ids as the program the vocabulary was made for.
//
// One pipeline serves every format: cut out added tokens, normalize, split into pieces, run the
// model (BPE, Unigram, WordPiece, word list) on each piece, add the special ids of the template. A
// reader (tokenizer.json, SentencePiece, GGUF, tiktoken, llama2.c, vocab.json + merges.txt) only
// fills the parts of that pipeline.
//
// Time is linear in the length of the text up to a logarithm; nothing recurses on it. Input need
// not be valid UTF-8: an ill-formed sequence becomes U+FFFD before anything else.
//
// Errors (class Exit::input unless said otherwise):
//   TK-001 no tokenizer found            TK-002 not a tokenizer of the expected form
//   TK-003 part of a type not supported  TK-004 a limit is exceeded (tokens, merges, bytes)
//   TK-005 id missing, repeated or out of range   TK-006 merge names an unknown token
//   TK-007 bad byte token (<0x..>)       TK-008 bad pattern, or a pattern too expensive for a text
//   TK-009 bad character map             TK-010 text that the vocabulary cannot express
//   TK-011 cannot be written as tokenizer.json    TK-012 nor into a GGUF file
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace pare {

struct TokenizerParts;  // text/parts.h, for the readers
struct Gguf;            // file/gguf.h

struct EncodeOptions {
  bool add_special = true;    // begin/end ids as the vocabulary's template says
  bool parse_special = true;  // "<|eot_id|>" in the text is that token; false: ordinary characters
};

// Immutable; copies share; every member may be called from any thread.
class Tokenizer {
 public:
  explicit Tokenizer(TokenizerParts parts);

  std::vector<std::int32_t> encode(std::string_view text, bool add_special = true) const;
  std::vector<std::int32_t> encode(std::string_view text, EncodeOptions options) const;

  // Valid UTF-8. Ids outside the vocabulary (a padded embedding can yield them) decode to nothing.
  std::string decode(std::span<const std::int32_t> ids, bool skip_special = false) const;

  i64 vocab_size() const;  // highest id + 1, added tokens included; ids below it may be unused
  std::string_view token(std::int32_t id) const;  // as stored in the vocabulary; empty if unused
  std::optional<std::int32_t> find(std::string_view token) const;  // the inverse of token()
  bool is_special(std::int32_t id) const;

  std::int32_t bos() const;  // -1 for none, here and below
  std::int32_t eos() const;
  std::int32_t unk() const;
  std::int32_t pad() const;

  std::string_view kind() const;  // "byte-level BPE", "SentencePiece BPE", "Unigram", ...

  const TokenizerParts& parts() const;

 private:
  struct State;  // parts and a pool of warm piece caches
  std::shared_ptr<const State> state_;
};

// A model folder (tokenizer.json, else tokenizer.model, else vocab.json with merges.txt, else one
// *.tiktoken, else tokenizer.bin), or one such file, or a .gguf file. tokenizer_config.json and
// special_tokens_map.json beside it name the special tokens. Errors name the file.
Tokenizer load_tokenizer(const std::filesystem::path& folder_or_file);

// As load_tokenizer for a vocabulary whose file does not say its size (llama2.c): `vocab_size` is
// the model's; a file with fewer or more pieces is an error. -1: read to the end.
Tokenizer load_tokenizer(const std::filesystem::path& folder_or_file, i64 vocab_size);

// Readers of documents already in memory; `name` is for messages.
Tokenizer tokenizer_from_json(std::string_view text, std::string_view name);
Tokenizer tokenizer_from_sentencepiece(std::span<const std::byte> bytes, std::string_view name);
Tokenizer tokenizer_from_tiktoken(std::string_view text, std::string_view name);
Tokenizer tokenizer_from_llama2c(std::span<const std::byte> bytes, std::string_view name,
                                 i64 vocab_size = -1);
Tokenizer tokenizer_from_gguf(const Gguf& file, std::string_view name);
Tokenizer tokenizer_from_merges(std::string_view vocab_json, std::string_view merges_txt,
                                std::string_view name);

// tokenizer.json and tokenizer_config.json that give the same ids in Transformers, but that its
// way of using a SentencePiece character map differs for rare sequences, and that it adds Unigram
// scores in double. Errors: TK-011.
std::string to_tokenizer_json(const Tokenizer& tokenizer);
std::string to_tokenizer_config_json(const Tokenizer& tokenizer);

// Text as ids arrive, for generation. Only complete characters leave; the pieces concatenate to
// what decode() gives for all ids (but for more than 16 ids in a row without a complete character,
// which are let go as U+FFFD).
class StreamDecoder {
 public:
  explicit StreamDecoder(Tokenizer tokenizer, bool skip_special = true);
  std::string push(std::int32_t id);  // the new text, often empty
  std::string finish();               // what was held back; the decoder is then empty

 private:
  Tokenizer tokenizer_;
  bool skip_special_;
  std::vector<std::int32_t> window_;
  std::size_t settled_ = 0;  // ids at the front of the window whose text has left
  std::string shown_;        // the text of the window that has left
};

}  // namespace pare
