// UTF-8 and the character classes that tokenizer patterns speak of.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"

namespace pare {

// Class bits of a code point, after the Unicode general category (utf8proc, Unicode 15).
enum CharClass : std::uint8_t {
  char_letter = 1,    // L*
  char_number = 2,    // N*
  char_space = 4,     // White_Space
  char_upper = 8,     // Lu Lt Lm Lo M: may begin a word in the o200k patterns
  char_lower = 16,    // Ll Lm Lo M: may end it
  char_newline = 32,  // \r \n
  char_punct = 64,    // P*
  char_mark = 128,    // M*
};

namespace detail {
const std::uint8_t* char_class_table();  // one byte a code point, 0x110000 of them
}

// A view of the class table; making one costs nothing after the first.
class CharClasses {
 public:
  CharClasses() : table_(detail::char_class_table()) {}
  std::uint8_t operator[](char32_t c) const { return table_[c]; }

 private:
  const std::uint8_t* table_;
};

bool is_word_char(char32_t c);  // \w: Alphabetic, M, Nd, Pc, Join_Control
bool is_ascii_punctuation(char32_t c);
bool is_control(char32_t c);          // Cc Cf Co Cs
bool is_nonspacing_mark(char32_t c);  // Mn
char32_t to_lower(char32_t c);        // simple mapping

struct Char {
  char32_t code;
  int bytes;
};

// The character at `p`; the text must be valid UTF-8 (see valid_utf8).
inline Char char_at(const char* p) {
  const auto* s = reinterpret_cast<const unsigned char*>(p);
  if (s[0] < 0x80) return {s[0], 1};
  if (s[0] < 0xe0) return {static_cast<char32_t>((s[0] & 0x1f) << 6 | (s[1] & 0x3f)), 2};
  if (s[0] < 0xf0)
    return {static_cast<char32_t>((s[0] & 0x0f) << 12 | (s[1] & 0x3f) << 6 | (s[2] & 0x3f)), 3};
  return {static_cast<char32_t>((s[0] & 0x07) << 18 | (s[1] & 0x3f) << 12 | (s[2] & 0x3f) << 6 |
                                (s[3] & 0x3f)),
          4};
}

// The character that ends just before `p`, which is not the begin of the text.
inline Char char_before(const char* p) {
  const char* q = p - 1;
  while ((static_cast<unsigned char>(*q) & 0xc0) == 0x80) q--;
  return char_at(q);
}

// Bytes of the character that a lead byte announces; 1 for a byte that leads nothing.
inline int char_bytes(char lead) {
  const auto b = static_cast<unsigned char>(lead);
  return b < 0xc0 ? 1 : b < 0xe0 ? 2 : b < 0xf0 ? 3 : 4;
}

void append_char(std::string& out, char32_t c);

bool is_ascii(std::string_view text);
bool valid_utf8(std::string_view text);

// Length of the well-formed character at `at`, or 0 and in `bad` how many bytes one U+FFFD
// replaces (the maximal subpart of Unicode 3.9, what Rust, Python and the Web do).
int well_formed(std::string_view text, std::size_t at, int& bad);

// The text with every ill-formed sequence replaced by U+FFFD; one for each maximal subpart, or one
// for each byte (SentencePiece).
std::string lossy_utf8(std::string_view text, bool each_byte = false);

// The alphabet of byte-level vocabularies: every byte is a printable character (GPT-2's encoder.py;
// 33-126, 161-172, 174-255 are themselves, the other 68 are U+0100 onwards).
struct ByteAlphabet {
  std::array<char32_t, 256> to_char;
  std::array<std::int16_t, 512> to_byte;  // -1: not in the alphabet
  int byte_of(char32_t c) const { return c < 512 ? to_byte[c] : -1; }
};
const ByteAlphabet& byte_alphabet();
std::string bytes_to_alphabet(std::string_view bytes);
// False when a character is not in the alphabet.
bool alphabet_to_bytes(std::string_view text, std::string& bytes);

}  // namespace pare
