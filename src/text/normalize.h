// Normalizers: text to text before it is cut (`normalizer` of tokenizer.json).
//
// Each step is one of the published components with its parameters; a sequence is a list of steps.
// All take and give valid UTF-8. Unicode tables: utf8proc 2.8 (Unicode 15).
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/charsmap.h"
#include "text/split.h"
#include "text/trie.h"

namespace pare {

namespace normal {

struct Form {
  bool compose, compatibility;  // NFC NFD NFKC NFKD
};
struct Lowercase {};
struct Strip {
  bool left, right;
};
struct StripAccents {};
struct Replace {
  Pattern pattern;
  std::string content;
};
struct Prepend {
  std::string text;
};
struct Nmt {};
struct Precompiled {
  std::shared_ptr<const Charsmap> map;
};
struct Bert {
  bool clean_text, chinese_characters, strip_accents, lowercase;
};
struct Bytes {};  // every byte as its character of the byte alphabet

// The normalizer inside SentencePiece (normalizer.cc): pieces given by the user are kept verbatim,
// the map is applied by longest prefix, white space collapsed, a dummy space added and spaces
// escaped.
struct Sentencepiece {
  std::shared_ptr<const Charsmap> map;      // null: none
  std::shared_ptr<const Trie> user_pieces;  // null: none
  bool add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces, whitespace_as_suffix;
};

}  // namespace normal

using Normalizer =
    std::variant<normal::Form, normal::Lowercase, normal::Strip, normal::StripAccents,
                 normal::Replace, normal::Prepend, normal::Nmt, normal::Precompiled, normal::Bert,
                 normal::Bytes, normal::Sentencepiece>;

// Error TK-004 when a step makes a text more than 64 times longer (plus 1 MiB).
std::string normalize(const std::vector<Normalizer>& steps, std::string_view text);

// U+2581, what SentencePiece writes for a space.
inline constexpr std::string_view meta_space = "\xe2\x96\x81";

}  // namespace pare
