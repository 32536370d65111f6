// What the readers share. Each fills the parts; Tokenizer makes a tokenizer of them.
#pragma once

#include <span>
#include <string_view>

#include "text/parts.h"

namespace pare {

inline const std::string gguf_prefix = "tokenizer.ggml.";  // of keys

TokenizerParts parts_from_json(std::string_view text, std::string_view name);
TokenizerParts parts_from_sentencepiece(std::span<const std::byte> bytes);
TokenizerParts parts_from_tiktoken(std::string_view text, std::string_view name);
TokenizerParts parts_from_llama2c(std::span<const std::byte> bytes, i64 vocab_size);
TokenizerParts parts_from_gguf(const Gguf& file);
TokenizerParts parts_from_merges(std::string_view vocab_json, std::string_view merges_txt,
                                 std::string_view name);

// A member that may be absent or null.
bool flag_or(const Json& json, std::string_view key, bool otherwise);
std::string text_or(const Json& json, std::string_view key, std::string_view otherwise);

// One merge of a merge list, with its place as rank. Errors TK-006.
void add_merge(std::string_view left, std::string_view right, std::size_t index,
               const Vocabulary& vocabulary, Bpe& bpe);

// The components that byte-level vocabularies share: pre-tokenizer of isolated splits by these
// patterns and then bytes; ByteLevel decoder.
void set_byte_level(TokenizerParts& parts, const std::vector<std::string>& patterns);

// The components of Llama's SentencePiece vocabularies in tokenizer.json form: a mark in front (if
// asked for), spaces to marks; and back.
void set_space_marks(TokenizerParts& parts, bool prefix);

Json space_marks_decoder_json(bool prefix);

// Base64 with padding; from_base64 is false for anything else (padding may be missing).
std::string to_base64(std::string_view bytes);
bool from_base64(std::string_view text, std::string& bytes);

// What `tokenizer.ggml.pre` stands for: patterns, or names of known patterns, applied in order.
struct GgufPreTokenizer {
  std::string_view name;
  std::vector<std::string> patterns;
  bool ignore_merges = false, add_bos = false;
};
const std::vector<GgufPreTokenizer>& gguf_pre_tokenizers();

// A type of SentencePiece and GGUF token lists.
enum class PieceType { normal = 1, unknown = 2, control = 3, user = 4, unused = 5, byte = 6 };

// Checks the form of byte tokens and that all 256 are there. Errors TK-007.
void check_byte_pieces(const Vocabulary& vocabulary, const std::vector<PieceType>& types,
                       bool need_all);

// Ranks of tokens by falling score, equal scores alike; no_rank for what is not a merge result.
std::vector<std::uint32_t> ranks_from_scores(const std::vector<float>& scores,
                                             const std::vector<PieceType>& types);

}  // namespace pare
