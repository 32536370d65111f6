// Speed of a tokenizer.
#pragma once

#include <string_view>

#include "text/tokenizer.h"

namespace pare {

struct EncodingSpeed {
  i64 tokens = 0;  // of the text
  int repeats = 0;
  double first = 0,
         median = 0;  // processor seconds; the first time finds the tokenizer's caches empty
};

// Encodes the text on the calling thread, at least three times and for at least a second. Error
// PR-001 for an empty text.
EncodingSpeed measure_encoding(const Tokenizer&, std::string_view text, bool add_special);

}  // namespace pare
