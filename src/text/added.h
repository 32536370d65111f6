// Added tokens: strings that are cut out of the text before anything else and are one id each.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/trie.h"
#include "text/vocabulary.h"

namespace pare {

struct AddedToken {
  TokenId id = no_token;
  std::string content;
  bool single_word = false;             // not next to a word character
  bool lstrip = false, rstrip = false;  // takes the white space on that side along
  bool normalized = false;  // looked for after normalization, with its content normalized
  bool special = false;
};

// Finds a set of added tokens: leftmost, then longest, never overlapping.
class AddedMatcher {
 public:
  // `value` comes back in Found.token.
  void add(std::string_view content, std::int32_t value);
  bool empty() const { return trie_.empty(); }

  struct Found {
    std::size_t begin, end;
    std::int32_t token;  // -1: text between tokens
  };
  // Covers `text`. `tokens[value]` gives the rules of a match; with `skip_special` special ones are
  // plain text. Cost: length of text times that of the longest content, at worst.
  void cut(std::string_view text, const std::vector<AddedToken>& tokens, bool skip_special,
           std::vector<Found>& out) const;

 private:
  Trie trie_;
  bool first_[256] = {};  // bytes that begin a content
};

}  // namespace pare
