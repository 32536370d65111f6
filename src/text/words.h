// Whole-word vocabularies: WordPiece (BERT) and plain word lists.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/vocabulary.h"

namespace pare {

// Greedy longest match from the left; a word with a hole is the unknown token as a whole.
struct WordPiece {
  TokenId unk = no_token;
  std::string prefix;  // "##", of every token but the first
  i64 max_characters = 100;
  i64 longest_bytes = 0;  // of a token, derived
};

struct WordLevel {
  TokenId unk = no_token;
};

void prepare(WordPiece& model, const Vocabulary& vocabulary);
// Errors TK-010: a word without a token when the vocabulary has no unknown token.
void encode_words(const WordPiece& model, const Vocabulary& vocabulary, std::string_view piece,
                  std::vector<TokenId>& out);
void encode_words(const WordLevel& model, const Vocabulary& vocabulary, std::string_view piece,
                  std::vector<TokenId>& out);

}  // namespace pare
