// Byte-pair encoding: a piece of text to ids by merging neighbours, lowest rank first.
//
// One engine serves every dialect; they differ in what the first symbols are and where ranks come
// from. With a merge list (GPT-2, Llama as tokenizer.json) a rank is a place in the list; with
// scores (SentencePiece, llama2.c, GGUF) or byte ranks (tiktoken) every split of a token into two
// known parts is a merge whose rank is that of the token. Sennrich, Haddow, Birch, "Neural Machine
// Translation of Rare Words with Subword Units" (2016).
#pragma once

#include <array>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/trie.h"
#include "text/vocabulary.h"

namespace pare {

struct BpeMerge {
  TokenId left, right, result;
  std::uint32_t rank;  // lower first; among equals the leftmost place
};

// (left, right) to (rank, result): open addressing, at most half full, 16 bytes a slot.
class PairTable {
 public:
  struct Entry {
    std::uint32_t rank;
    TokenId result;
  };
  static constexpr std::uint32_t no_rank = 0xffffffffu;

  // Of a pair that occurs twice the later entry counts.
  void build(std::span<const BpeMerge> merges);
  Entry find(TokenId left, TokenId right) const {
    if (slots_.empty()) return {no_rank, no_token};
    const std::uint64_t key = key_of(left, right);
    for (std::size_t s = slot_of(key);; s = (s + 1) & (slots_.size() - 1)) {
      if (slots_[s].key == key) return slots_[s].entry;
      if (slots_[s].key == free_key) return {no_rank, no_token};
    }
  }

 private:
  struct Slot {
    std::uint64_t key;
    Entry entry;
  };
  static constexpr std::uint64_t free_key = ~std::uint64_t{0};
  static std::uint64_t key_of(TokenId left, TokenId right) {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
           static_cast<std::uint32_t>(right);
  }
  std::size_t slot_of(std::uint64_t key) const {
    return static_cast<std::size_t>((key * 0x9e3779b97f4a7c15u) >> shift_);
  }
  std::vector<Slot> slots_;
  int shift_ = 64;
};

// Code point to id, by pages of 256.
class CodeMap {
 public:
  CodeMap() : pages_(0x1100, 0), ids_(256, no_token) {}
  void set(char32_t c, TokenId id);
  TokenId find(char32_t c) const { return ids_[pages_[c >> 8] * std::size_t{256} + (c & 255)]; }

 private:
  std::vector<std::uint16_t> pages_;  // (0x1100); page 0 is empty
  std::vector<TokenId> ids_;          // (pages, 256)
};

struct Bpe {
  // What a file says.
  std::vector<BpeMerge> merges;  // in the order of the file, or of falling score
  bool byte_level = false;       // pieces are bytes, tokens are spelled in the byte alphabet
  bool ignore_merges = false, byte_fallback = false, fuse_unk = false;
  TokenId unk = no_token;
  bool unk_missing = false;    // the file names an unknown token that is not in the vocabulary
  std::string prefix, suffix;  // of every symbol but the first, of the last symbol of a piece
  std::vector<bool> unused;  // (vocabulary) SentencePiece: tokens to be taken apart again, or empty
  std::shared_ptr<const Trie> frozen;  // SentencePiece: pieces of the user, atoms; null: none

  // What prepare() derives.
  PairTable pairs;
  std::uint32_t rank_end = 0;             // above all ranks
  std::array<TokenId, 256> byte_ids;      // byte level: the symbol of each byte
  std::array<TokenId, 256> fallback_ids;  // the tokens <0x00> to <0xFF>
  bool has_fallback = false;              // all of them exist
  CodeMap chars;
  TokenId first_pseudo = 0;       // ids from here on are characters that only occur in merges
  std::vector<char32_t> pseudo;   // their code points
  bool cut_before_space = false;  // no token holds U+2581 after another character
};

struct BpeScratch {
  struct Node {
    TokenId id;  // no_token: merged away
    std::int32_t previous, next;
  };
  struct Waiting {
    std::int32_t place, next;
  };
  struct Bucket {
    std::int32_t first, last;  // in waiting; -1: empty
  };
  std::vector<TokenId> ids;
  std::vector<Node> nodes;
  std::vector<Waiting> waiting;       // places of candidates, in lists by rank
  std::vector<Bucket> buckets;        // (rank_end), all empty between pieces
  std::vector<std::uint32_t> ranks;   // heap of the ranks with a list
  std::vector<std::int32_t> places;   // the list being worked on
  std::vector<std::uint64_t> urgent;  // heap of rank, place
  std::vector<std::uint64_t> order;   // rank, result of each neighbouring pair (short pieces)
  std::unordered_map<TokenId, std::pair<TokenId, TokenId>> splits;  // last proposed, of unused ones
  std::vector<TokenId> open;
  std::string text;
  i64 steps = 0;  // candidates looked at, for tests of the cost
};

// Completes `bpe`, whose merges may name ids from vocabulary.size() on for characters in `pseudo`.
void prepare(Bpe& bpe, const Vocabulary& vocabulary);

// All ways to make a token of two others (or of single characters without an id), ranked by
// `rank_of` (no_token's rank never occurs; no_rank: not a merge result). Byte level: characters are
// bytes. Order: by rank, then as SentencePiece's converter sorts. Error TK-004 when there are too
// many.
void merges_from_ranks(Bpe& bpe, const Vocabulary& vocabulary,
                       const std::vector<std::uint32_t>& rank_of);

// Appends the ids of one piece. n log n in its length. Error TK-010: no token for a character, no
// fallback, and the vocabulary names an unknown token that it lacks.
void encode_bpe(const Bpe& bpe, const Vocabulary& vocabulary, std::string_view piece,
                BpeScratch& scratch, std::vector<TokenId>& out);

}  // namespace pare
