// Unigram: Viterbi over byte positions.
//
// best[p] is the best score of a path that ends at p, with its last token. Candidates reach a
// position in order of where they begin, and only a strictly better one replaces: this order
// decides ties, so it is kept. When every path must pass through a position (no token reaches
// beyond it), the tokens before it are settled: they are written out and the table starts anew
// there, so memory is that of the longest word, not of the text. Scores are not reset, since float
// rounding depends on the sum.
#include "text/unigram.h"

#include <algorithm>
#include <limits>

#include "text/unicode.h"

namespace pare {
namespace {

constexpr double unk_penalty = 10.0;
constexpr std::uint32_t unreached = 0xffffffffu;

}  // namespace

void prepare(Unigram& unigram, const Vocabulary& vocabulary, const std::vector<bool>& searchable) {
  double low = std::numeric_limits<double>::max();
  for (TokenId id = 0; id < vocabulary.size(); id++) {
    const auto i = static_cast<std::size_t>(id);
    if (!vocabulary.used(id) || (!searchable.empty() && !searchable[i])) continue;
    unigram.trie.add(vocabulary.text(id), id);
    const bool special = (!unigram.unused.empty() && unigram.unused[i]) ||
                         (!unigram.user.empty() && unigram.user[i]);
    if (special) continue;
    low = std::min(low, unigram.scores[i]);
  }
  unigram.unk_score = low - unk_penalty;
  if (unigram.single_precision)
    unigram.unk_score = static_cast<float>(low) - static_cast<float>(unk_penalty);
  unigram.has_fallback = true;
  for (int b = 0; b < 256; b++) {
    const TokenId id = vocabulary.find(token_of_byte(b));
    unigram.fallback_ids[static_cast<std::size_t>(b)] = id;
    if (id == no_token) unigram.has_fallback = false;
  }
}

namespace {

struct Search {
  const Unigram& unigram;
  std::string_view piece;
  UnigramScratch& s;
  std::size_t base = 0;  // of the table: best[k] is position base + k

  void offer(std::size_t end, std::size_t begin, TokenId id, double score) {
    if (s.best.size() <= end - base) s.best.resize(end - base + 1, {0, no_token, unreached});
    UnigramScratch::Best& b = s.best[end - base];
    if (unigram.single_precision) score = static_cast<float>(score);
    if (b.begin != unreached && !(score > b.score)) return;
    b = {score, id, static_cast<std::uint32_t>(begin - base)};
  }

  // A piece of the user gets a bonus for its length (sentencepiece 0.2.3; earlier ones: -0.1).
  double score_of(TokenId id, std::size_t bytes) const {
    const auto i = static_cast<std::size_t>(id);
    if (!unigram.user.empty() && unigram.user[i]) return static_cast<float>(bytes - 1) * 0.1f;
    return unigram.scores[i];
  }

  // All tokens that begin at `at`.
  void expand(std::size_t at) {
    const double here = s.best[at - base].score;
    const auto first = static_cast<std::size_t>(char_bytes(piece[at]));
    bool single = false;
    std::uint32_t node = Trie::root;
    for (std::size_t i = at; i < piece.size(); i++) {
      node = unigram.trie.step(node, piece[i]);
      if (node == Trie::none) break;
      const TokenId id = unigram.trie.value(node);
      if (id < 0) continue;
      if (!unigram.unused.empty() && unigram.unused[static_cast<std::size_t>(id)]) continue;
      const std::size_t bytes = i + 1 - at;
      offer(i + 1, at, id, score_of(id, bytes) + here);
      if (bytes == first) single = true;
    }
    if (!single) offer(at + first, at, no_token, unigram.unk_score + here);
  }

  // Writes the path to `end` and makes it the new base.
  void settle(std::size_t end) {
    const std::size_t from = s.parts.size();
    for (std::size_t at = end; at > base;) {
      const UnigramScratch::Best& b = s.best[at - base];
      s.parts.push_back({base + b.begin, at, b.id});
      at = base + b.begin;
    }
    std::reverse(s.parts.begin() + static_cast<std::ptrdiff_t>(from), s.parts.end());
    const double score = s.best[end - base].score;
    base = end;
    s.best.assign(1, {score, no_token, 0});
  }
};

void emit_unknown(const Unigram& unigram, std::string_view text, std::vector<TokenId>& out) {
  if (unigram.byte_fallback && unigram.has_fallback) {
    for (char b : text) out.push_back(unigram.fallback_ids[static_cast<unsigned char>(b)]);
    return;
  }
  if (unigram.unk == no_token)
    fail_input("TK-010", "the vocabulary has no token for a character and no unknown token",
               {{"characters", quoted(text)}});
  out.push_back(unigram.unk);
}

}  // namespace

void encode_unigram(const Unigram& unigram, std::string_view piece, UnigramScratch& scratch,
                    std::vector<TokenId>& out) {
  Search search{unigram, piece, scratch};
  scratch.parts.clear();
  scratch.best.assign(1, {0, no_token, 0});
  // Unknown characters in a row are one part, also across settled positions.
  std::size_t unknown_begin = 0, unknown_end = 0;
  const auto flush_unknown = [&] {
    if (unknown_end > unknown_begin)
      emit_unknown(unigram, piece.substr(unknown_begin, unknown_end - unknown_begin), out);
    unknown_begin = unknown_end = 0;
  };
  const auto drain = [&] {
    for (const UnigramScratch::Part& p : scratch.parts) {
      if (p.id == no_token || p.id == unigram.unk) {
        if (unknown_end != p.begin || unknown_end == unknown_begin) {
          flush_unknown();
          unknown_begin = p.begin;
        }
        unknown_end = p.end;
      } else {
        flush_unknown();
        out.push_back(p.id);
      }
    }
    scratch.parts.clear();
  };
  for (std::size_t at = 0; at < piece.size();) {
    // Nothing reaches beyond `at`: every path passes here.
    if (at > search.base && scratch.best.size() - 1 == at - search.base) {
      search.settle(at);
      drain();
    }
    search.expand(at);
    at += static_cast<std::size_t>(char_bytes(piece[at]));
  }
  if (piece.size() > search.base) search.settle(piece.size());
  drain();
  flush_unknown();
}

}  // namespace pare
