// SentencePiece's precompiled character map: longest-prefix replacement rules in a double array.
//
// Source: sentencepiece, builder.cc (layout) and darts-clone (the array). Validated once, when it
// is made, so that matching needs no checks: TK-009 names what is wrong.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace pare {

class Charsmap {
 public:
  explicit Charsmap(std::string_view blob);

  struct Rule {
    std::size_t bytes = 0;         // of the text that the rule replaces; 0: no rule
    std::string_view replacement;  // at most 1,024 bytes
  };
  Rule longest(std::string_view text) const;
  Rule shortest(std::string_view text) const;
  const std::string& blob() const { return blob_; }

 private:
  template <bool stop_at_first>
  Rule match(std::string_view text) const;
  std::string_view replacement(std::uint32_t index) const;
  void validate() const;

  std::string blob_;
  std::vector<std::uint32_t> units_;
  std::string pool_;  // texts, each ended by a zero byte
};

}  // namespace pare
