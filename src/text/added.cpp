// Added tokens.
//
// A table of first bytes skips text that cannot begin a token; where one can begin, a trie finds
// the longest. Then the rules of the token found: a match next to a word character may be dropped
// (its text stays taken, as in Hugging Face's automaton), white space at its sides may be absorbed,
// but not past the end of the match before.
#include "text/added.h"

#include <algorithm>

#include "text/unicode.h"

namespace pare {

void AddedMatcher::add(std::string_view content, std::int32_t value) {
  if (content.empty()) return;
  trie_.add(content, value);
  first_[static_cast<unsigned char>(content[0])] = true;
}

namespace {

bool word_beside(std::string_view text, std::size_t begin, std::size_t end) {
  if (begin > 0 && is_word_char(char_before(text.data() + begin).code)) return true;
  return end < text.size() && is_word_char(char_at(text.data() + end).code);
}

}  // namespace

void AddedMatcher::cut(std::string_view text, const std::vector<AddedToken>& tokens,
                       bool skip_special, std::vector<Found>& out) const {
  const CharClasses classes;
  out.clear();
  std::size_t done = 0;
  for (std::size_t at = 0; at < text.size();) {
    if (!first_[static_cast<unsigned char>(text[at])]) {
      at++;
      continue;
    }
    const Trie::Match match = trie_.longest(text, at);
    if (match.bytes == 0) {
      at++;
      continue;
    }
    std::size_t begin = at, end = at + match.bytes;
    at = end;
    const AddedToken& token = tokens[static_cast<std::size_t>(match.value)];
    if (skip_special && token.special) continue;
    if (token.single_word && word_beside(text, begin, end)) continue;
    while (token.lstrip && begin > done) {
      const Char c = char_before(text.data() + begin);
      if ((classes[c.code] & char_space) == 0) break;
      begin -= static_cast<std::size_t>(c.bytes);
    }
    while (token.rstrip && end < text.size()) {
      const Char c = char_at(text.data() + end);
      if ((classes[c.code] & char_space) == 0) break;
      end += static_cast<std::size_t>(c.bytes);
    }
    // White space taken by the match before can be (part of) this one: it keeps its id.
    begin = std::max(begin, done);
    end = std::max(end, begin);
    if (begin > done) out.push_back({done, begin, -1});
    out.push_back({begin, end, match.value});
    done = end;
  }
  if (done < text.size()) out.push_back({done, text.size(), -1});
}

}  // namespace pare
