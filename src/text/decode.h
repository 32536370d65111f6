// Decoders: token strings back to text (`decoder` of tokenizer.json).
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/split.h"

namespace pare {

namespace post {

struct ByteLevel {};     // the byte alphabet back to bytes
struct ByteFallback {};  // runs of <0xHH> back to text
struct Fuse {};          // all tokens into one
struct Strip {
  std::string content;
  i64 start, stop;  // at most so many, from each token
};
struct Replace {
  Pattern pattern;
  std::string content;
};
struct Metaspace {
  std::string replacement;
  bool drop_first;  // the mark in front of the first token is dropped
};
struct WordPiece {
  std::string prefix;
  bool cleanup;
};
struct Bpe {
  std::string suffix;
};
struct Ctc {
  std::string pad, word_delimiter;
  bool cleanup;
};

// SentencePiece's own: marks to spaces, the one the dummy prefix put in front dropped (or all
// leading ones), byte tokens to text with U+FFFD for each bad byte.
struct Sentencepiece {
  bool strip_first, strip_all;
};

}  // namespace post

using Decoder =
    std::variant<post::ByteLevel, post::ByteFallback, post::Fuse, post::Strip, post::Replace,
                 post::Metaspace, post::WordPiece, post::Bpe, post::Ctc, post::Sentencepiece>;

// Runs the chain; without steps tokens are joined with spaces. The result may be ill-formed UTF-8
// only as far as the tokens are; the caller makes it valid.
std::string decode_tokens(const std::vector<Decoder>& steps, std::vector<std::string> tokens);

}  // namespace pare
