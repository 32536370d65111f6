// Hand-written splitters held against PCRE2, for tests and the fuzz target.
#pragma once

#include <string>
#include <vector>

#include "text/split.h"
#include "text/unicode.h"

namespace pare {

class SplitCheck {
 public:
  SplitCheck() {
    for (const KnownPattern& known : known_patterns()) {
      Pattern pattern;
      pattern.is_expression = true;
      pattern.text = std::string(known.pattern);
      pattern.regex.emplace(known.pattern);
      slow_.push_back(std::move(pattern));
    }
    find_disputed();
  }

  // Empty, or what differs. Characters whose class depends on the Unicode version of the library
  // are left out of the text first.
  std::string difference(std::string_view text) const {
    std::string agreed;
    for (std::size_t i = 0; i < text.size();) {
      const Char c = char_at(text.data() + i);
      if (!disputed_[c.code]) append_char(agreed, c.code);
      i += static_cast<std::size_t>(c.bytes);
    }
    std::vector<Match> slow;
    for (std::size_t k = 0; k < slow_.size(); k++) {
      const KnownPattern& known = known_patterns()[k];
      Finder(slow_[k]).find_all(agreed, slow);
      std::size_t at = 0;
      for (const Match& m : slow) {
        if (!m.matched || m.begin != at) return describe(known, agreed, at, "a gap");
        const std::size_t end = known.next(agreed, at);
        if (end != m.end)
          return describe(known, agreed, at, fmt::format("{} and not {}", end, m.end));
        at = end;
      }
      if (at != agreed.size()) return describe(known, agreed, at, "an early end");
    }
    return {};
  }

 private:
  static std::string describe(const KnownPattern& known, std::string_view text, std::size_t at,
                              std::string_view what) {
    return fmt::format("{} at {}: {} in {}", known.name, at, what, quoted(text));
  }

  // PCRE2 10.42 has the tables of Unicode 14, utf8proc 2.8 those of 15.
  void find_disputed() {
    disputed_.assign(0x110000, false);
    const std::pair<const char*, std::uint8_t> classes[] = {
        {"\\p{L}", char_letter},
        {"\\p{N}", char_number},
        {"\\s", char_space},
        {"[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]", char_upper},
        {"[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]", char_lower}};
    std::string all;
    std::vector<char32_t> codes;
    for (char32_t c = 0; c < 0x110000; c++)
      if (c < 0xd800 || c > 0xdfff) append_char(all, c);
    const CharClasses table;
    for (const auto& [expression, bit] : classes) {
      Pattern pattern;
      pattern.is_expression = true;
      pattern.regex.emplace(expression);
      std::vector<Match> matches;
      Finder(pattern).find_all(all, matches);
      for (const Match& m : matches)
        for (std::size_t i = m.begin; i < m.end;) {
          const Char c = char_at(all.data() + i);
          if (((table[c.code] & bit) != 0) != m.matched) disputed_[c.code] = true;
          i += static_cast<std::size_t>(c.bytes);
        }
    }
  }

  std::vector<Pattern> slow_;
  std::vector<bool> disputed_;
};

}  // namespace pare
