// Unigram language model: the most likely cut of a piece into tokens (Viterbi).
//
// Kudo, "Subword Regularization" (2018); the search is sentencepiece's optimized one.
#pragma once

#include <array>
#include <string_view>
#include <vector>

#include "text/trie.h"
#include "text/vocabulary.h"

namespace pare {

struct Unigram {
  std::vector<double> scores;  // (vocabulary) log probabilities
  // SentencePiece adds in float, never proposes UNUSED pieces and prefers pieces of the user.
  bool single_precision = false;
  std::vector<bool> unused, user;  // (vocabulary), or empty
  TokenId unk = no_token;
  bool byte_fallback = false;

  // What prepare() derives.
  Trie trie;
  double unk_score = 0;
  std::array<TokenId, 256> fallback_ids;
  bool has_fallback = false;
};

struct UnigramScratch {
  struct Best {
    double score;
    TokenId id;
    std::uint32_t begin;  // where the last token of the best path begins; ~0: not reached
  };
  std::vector<Best> best;
  struct Part {
    std::size_t begin, end;
    TokenId id;
  };
  std::vector<Part> parts;
};

void prepare(Unigram& unigram, const Vocabulary& vocabulary,
             const std::vector<bool>& searchable);  // (vocabulary), or empty: all

// Appends the ids of one piece; time is its length times that of the longest token. Error TK-010: a
// character without a token, no fallback and no unknown token.
void encode_unigram(const Unigram& unigram, std::string_view piece, UnigramScratch& scratch,
                    std::vector<TokenId>& out);

}  // namespace pare
