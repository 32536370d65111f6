// Pre-tokenizers: normalized text to pieces (`pre_tokenizer` of tokenizer.json).
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/split.h"

namespace pare {

// What becomes of the matches of a splitting pattern.
enum class Delimiter { removed, isolated, merged_with_previous, merged_with_next, contiguous };

namespace pre {

struct Split {
  Pattern pattern;
  Delimiter behavior;
  bool invert;
};
// GPT-2's: an optional space in front, the GPT-2 pattern, bytes as characters of the byte alphabet.
struct ByteLevel {
  bool add_prefix_space, use_regex;
};
struct Metaspace {
  enum class Prepend { always, first, never };
  std::string replacement;
  Prepend prepend;
  bool split;
};
struct Digits {
  bool individual;
};
struct Punctuation {
  Delimiter behavior;
};
struct Words {};       // runs of \w and of neither \w nor space ("Whitespace")
struct Whitespace {};  // "WhitespaceSplit"
struct Bert {};
struct Character {
  std::string delimiter;
};
struct FixedLength {
  i64 characters;
};

}  // namespace pre

using PreTokenizer =
    std::variant<pre::Split, pre::ByteLevel, pre::Metaspace, pre::Digits, pre::Punctuation,
                 pre::Words, pre::Whitespace, pre::Bert, pre::Character, pre::FixedLength>;

// Pieces of one text. Steps that change characters write the new text into `storage`.
struct Pieces {
  struct Piece {
    std::size_t begin, end;  // in text
  };
  std::string_view text;
  std::vector<Piece> pieces;  // in order, none empty
  bool at_start = true;       // the first piece is the begin of the whole input

  void reset(std::string_view whole, bool starts_input);
  std::string_view operator[](std::size_t i) const {
    return text.substr(pieces[i].begin, pieces[i].end - pieces[i].begin);
  }

  // Scratch of the steps; `text` may point into one of the two strings.
  std::string storage[2];
  int current = 0;
  std::vector<Piece> next;
  std::vector<Match> matches;
  Finder& finder(const Pattern& pattern);  // kept: making one costs more than a short text
  std::vector<std::pair<const Pattern*, std::unique_ptr<Finder>>> finders;
};

// Runs steps [0, count). With `keep_bytes` the last of them is a ByteLevel that leaves out its
// mapping to the byte alphabet: the pieces are then the original bytes.
void pre_tokenize(const std::vector<PreTokenizer>& steps, std::size_t count, bool keep_bytes,
                  Pieces& pieces);

}  // namespace pare
