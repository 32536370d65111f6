// WordPiece and word lists.
//
// WordPiece tries the longest rest first; no token is longer than the longest one, so a try is
// bounded by it and a word costs at most its length times that.
#include "text/words.h"

#include <algorithm>

#include "text/unicode.h"

namespace pare {
namespace {

void emit_unknown(TokenId unk, std::string_view word, std::vector<TokenId>& out) {
  if (unk == no_token)
    fail_input("TK-010", "the vocabulary has no token for a word and no unknown token",
               {{"word", quoted(word)}});
  out.push_back(unk);
}

}  // namespace

void prepare(WordPiece& model, const Vocabulary& vocabulary) {
  for (TokenId id = 0; id < vocabulary.size(); id++)
    model.longest_bytes =
        std::max(model.longest_bytes, static_cast<i64>(vocabulary.text(id).size()));
}

void encode_words(const WordPiece& model, const Vocabulary& vocabulary, std::string_view piece,
                  std::vector<TokenId>& out) {
  i64 characters = 0;
  for (char b : piece) characters += (static_cast<unsigned char>(b) & 0xc0) != 0x80;
  const std::size_t before = out.size();
  if (characters > model.max_characters) return emit_unknown(model.unk, piece, out);
  std::string text;
  for (std::size_t begin = 0; begin < piece.size();) {
    std::size_t end = std::min(piece.size(), begin + static_cast<std::size_t>(model.longest_bytes));
    TokenId id = no_token;
    for (; end > begin; end--) {
      if (end < piece.size() && (static_cast<unsigned char>(piece[end]) & 0xc0) == 0x80) continue;
      text = begin > 0 ? model.prefix : "";
      text += piece.substr(begin, end - begin);
      id = vocabulary.find(text);
      if (id != no_token) break;
    }
    if (id == no_token) {
      out.resize(before);
      return emit_unknown(model.unk, piece, out);
    }
    out.push_back(id);
    begin = end;
  }
}

void encode_words(const WordLevel& model, const Vocabulary& vocabulary, std::string_view piece,
                  std::vector<TokenId>& out) {
  const TokenId id = vocabulary.find(piece);
  if (id != no_token)
    out.push_back(id);
  else
    emit_unknown(model.unk, piece, out);
}

}  // namespace pare
