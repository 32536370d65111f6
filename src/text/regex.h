// Patterns from tokenizer files, run by PCRE2 with the meaning Oniguruma gives them there.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/error.h"

namespace pare {

// Immutable, shared by threads; each thread matches through its own RegexMatcher.
class Regex {
 public:
  // Errors: TK-008 with the offset in the pattern.
  explicit Regex(std::string_view pattern);
  const std::string& pattern() const;

 private:
  friend class RegexMatcher;
  struct State;
  std::shared_ptr<const State> state_;
};

class RegexMatcher {
 public:
  explicit RegexMatcher(const Regex& regex);
  ~RegexMatcher();
  RegexMatcher(const RegexMatcher&) = delete;
  RegexMatcher& operator=(const RegexMatcher&) = delete;

  // The leftmost match at or after `from`, which lies between characters; false if there is none.
  // `text` must be valid UTF-8: it is not checked again. Error TK-008 when the pattern needs more
  // work than the limits allow (10 million steps, 64 MiB).
  bool find(std::string_view text, std::size_t from, std::size_t& begin, std::size_t& end);

 private:
  struct State;
  std::shared_ptr<const Regex::State> regex_;
  std::unique_ptr<State> state_;
};

}  // namespace pare
