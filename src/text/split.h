// Cutting text into the pieces that a vocabulary merges within.
//
// The patterns of the large families are matched by hand; any other pattern goes to PCRE2. Which
// one serves is decided by the exact text of the pattern, and a fuzz target holds the two equal.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/regex.h"

namespace pare {

// End of the piece that begins at `at` < text.size(). Text is valid UTF-8.
using SplitFunction = std::size_t (*)(std::string_view text, std::size_t at);

struct KnownPattern {
  std::string_view name;     // "gpt2", "cl100k", "qwen2", "o200k", "tekken"
  std::string_view pattern;  // as files carry it
  SplitFunction next;
};
// The hand-written ones; a name repeats for each spelling of the same meaning, the usual first.
std::span<const KnownPattern> known_patterns();
const KnownPattern& known_pattern(std::string_view name);

// What a Split, Replace or ByteLevel component looks for: a literal, or a regular expression.
struct Pattern {
  static Pattern literal(std::string text);
  static Pattern expression(std::string pattern);  // errors: TK-008

  std::string text;
  SplitFunction known = nullptr;  // covers all text: every piece is a match
  std::optional<Regex> regex;     // set for an expression that is not known
  bool is_expression = false;
};

struct Match {
  std::size_t begin, end;
  bool matched;  // false: text between matches
};
// Finds the matches of one pattern in many texts.
class Finder {
 public:
  explicit Finder(const Pattern& pattern);
  // Covers `text` from end to end in order, matches and what lies between them. Empty gaps are left
  // out; empty matches (a lookahead) are not, they mark a cut.
  void find_all(std::string_view text, std::vector<Match>& out);

 private:
  const Pattern& pattern_;
  std::optional<RegexMatcher> matcher_;
};

}  // namespace pare
