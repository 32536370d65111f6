// The parts a tokenizer is made of: what readers fill and the pipeline runs.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "base/json.h"
#include "text/added.h"
#include "text/bpe.h"
#include "text/decode.h"
#include "text/normalize.h"
#include "text/pretokenize.h"
#include "text/unigram.h"
#include "text/vocabulary.h"
#include "text/words.h"

namespace pare {

// A place in the result of encoding: the text's own ids, or ids that the template adds.
struct TemplatePart {
  bool text = false;
  std::vector<TokenId> ids;
};

struct Gguf;

struct TokenizerParts {
  std::string kind;  // for people: "byte-level BPE", ...

  Vocabulary vocabulary;  // the model's tokens and the added ones
  i64 model_tokens = 0;   // ids below are the model's own vocabulary
  std::variant<Bpe, Unigram, WordPiece, WordLevel> model;

  std::vector<AddedToken> added;        // by rising id
  std::vector<AddedToken> user_pieces;  // SentencePiece: kept whole by the model; for writing only
  std::string not_writable;             // why tokenizer.json cannot hold it, if so
  std::vector<Normalizer> normalizer;
  std::vector<PreTokenizer> pre_tokenizer;
  std::vector<TemplatePart> single;  // of one text; empty: the text alone
  std::vector<Decoder> decoder;

  // The same four as tokenizer.json writes them; null for none.
  Json normalizer_json, pre_tokenizer_json, post_processor_json, decoder_json;

  TokenId bos = no_token, eos = no_token, unk = no_token, pad = no_token;

  bool each_bad_byte = false;  // SentencePiece: every byte of an ill-formed sequence is a U+FFFD
  std::string unk_surface;     // what the unknown token decodes to, if not its own text
};

// Components from their JSON form; the strings name the place in errors (TK-003, TK-008).
std::vector<Normalizer> read_normalizer(const Json& json);
std::vector<PreTokenizer> read_pre_tokenizer(const Json& json);
std::vector<Decoder> read_decoder(const Json& json);
std::vector<TemplatePart> read_post_processor(const Json& json);

// A TemplateProcessing component that puts ids before and after a text, as JSON; null for none.
Json template_json(const Vocabulary& vocabulary, const std::vector<TokenId>& before,
                   const std::vector<TokenId>& after);

// Sets the JSON form of a component and builds it.
void set_normalizer(TokenizerParts& parts, Json json);
void set_pre_tokenizer(TokenizerParts& parts, Json json);
void set_decoder(TokenizerParts& parts, Json json);
void set_post_processor(TokenizerParts& parts, Json json);

// Appends an added token; its id is that of the same text in the vocabulary, else the next free
// one. Empty contents are left out.
void add_token(TokenizerParts& parts, AddedToken token);

}  // namespace pare
