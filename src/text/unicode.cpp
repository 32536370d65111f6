// UTF-8 and character classes.
//
// The patterns of tokenizers ask two questions of every character: which class, and where does it
// end. The first is answered by one byte of a table with an entry for each code point (1.1 MB, of
// which a text touches a few pages), filled once from utf8proc in a few milliseconds; the second by
// the lead byte, since texts are made valid at the door and never checked again.
#include "text/unicode.h"

#include <utf8proc.h>

#include <cstring>
#include <memory>

namespace pare {
namespace {

constexpr char32_t code_points = 0x110000;

bool is_white_space(char32_t c) {
  if (c <= 0x20) return c == 0x20 || (c >= 9 && c <= 13);
  if (c < 0x1680) return c == 0x85 || c == 0xa0;
  return c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
         c == 0x205f || c == 0x3000;
}

std::uint8_t class_of_category(utf8proc_category_t category) {
  switch (category) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LT:
      return char_letter | char_upper;
    case UTF8PROC_CATEGORY_LL:
      return char_letter | char_lower;
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return char_letter | char_upper | char_lower;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
      return char_mark | char_upper | char_lower;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return char_number;
    case UTF8PROC_CATEGORY_PC:
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
      return char_punct;
    default:
      return 0;
  }
}

std::unique_ptr<std::uint8_t[]> make_char_classes() {
  auto table = std::make_unique<std::uint8_t[]>(code_points);
  for (char32_t c = 0; c < code_points; c++) {
    std::uint8_t bits = class_of_category(utf8proc_category(static_cast<utf8proc_int32_t>(c)));
    if (is_white_space(c)) bits |= char_space;
    if (c == '\r' || c == '\n') bits |= char_newline;
    table[c] = bits;
  }
  return table;
}

utf8proc_category_t category_of(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

}  // namespace

const std::uint8_t* detail::char_class_table() {
  static const std::unique_ptr<std::uint8_t[]> table = make_char_classes();
  return table.get();
}

bool is_word_char(char32_t c) {
  // Alphabetic is L, Nl and Other_Alphabetic; the latter lies in M but for the circled letters.
  switch (category_of(c)) {
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      break;
  }
  if ((CharClasses()[c] & (char_letter | char_mark)) != 0) return true;
  return c == 0x200c || c == 0x200d || (c >= 0x24b6 && c <= 0x24e9) ||
         (c >= 0x1f130 && c <= 0x1f149) || (c >= 0x1f150 && c <= 0x1f169) ||
         (c >= 0x1f170 && c <= 0x1f189);
}

bool is_ascii_punctuation(char32_t c) {
  return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) ||
         (c >= 123 && c <= 126);
}

bool is_control(char32_t c) {
  switch (category_of(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CS:
      return true;
    default:
      return false;
  }
}

bool is_nonspacing_mark(char32_t c) { return category_of(c) == UTF8PROC_CATEGORY_MN; }

char32_t to_lower(char32_t c) {
  return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}

void append_char(std::string& out, char32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xc0 | c >> 6);
    out += static_cast<char>(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xe0 | c >> 12);
    out += static_cast<char>(0x80 | (c >> 6 & 0x3f));
    out += static_cast<char>(0x80 | (c & 0x3f));
  } else {
    out += static_cast<char>(0xf0 | c >> 18);
    out += static_cast<char>(0x80 | (c >> 12 & 0x3f));
    out += static_cast<char>(0x80 | (c >> 6 & 0x3f));
    out += static_cast<char>(0x80 | (c & 0x3f));
  }
}

namespace {

// Bytes from `at` on that are plain ASCII, eight at a time.
std::size_t ascii_run(std::string_view text, std::size_t at) {
  std::size_t i = at;
  for (; i + 8 <= text.size(); i += 8) {
    std::uint64_t eight;
    std::memcpy(&eight, text.data() + i, 8);
    if ((eight & 0x8080808080808080u) != 0) break;
  }
  while (i < text.size() && static_cast<unsigned char>(text[i]) < 0x80) i++;
  return i - at;
}

}  // namespace

bool is_ascii(std::string_view text) { return ascii_run(text, 0) == text.size(); }

int well_formed(std::string_view text, std::size_t at, int& bad) {
  const auto byte = [&](std::size_t i) -> int {
    return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : -1;
  };
  const int lead = byte(0);
  bad = 1;
  if (lead < 0x80) return 1;
  if (lead < 0xc2 || lead > 0xf4) return 0;
  // The second byte's range keeps out overlong forms, surrogates and values above U+10FFFF.
  const int low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
  const int high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
  if (byte(1) < low || byte(1) > high) return 0;
  const int need = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  for (int i = 2; i < need; i++) {
    const int b = byte(static_cast<std::size_t>(i));
    if (b < 0x80 || b > 0xbf) {
      bad = i;
      return 0;
    }
  }
  return need;
}

bool valid_utf8(std::string_view text) {
  std::size_t i = 0;
  int bad = 0;
  while (true) {
    i += ascii_run(text, i);
    if (i >= text.size()) return true;
    // Scripts other than Latin come in runs: stay here while they last.
    while (i < text.size() && static_cast<unsigned char>(text[i]) >= 0x80) {
      const int n = well_formed(text, i, bad);
      if (n == 0) return false;
      i += static_cast<std::size_t>(n);
    }
  }
}

std::string lossy_utf8(std::string_view text, bool each_byte) {
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  std::size_t i = 0;
  while (i < text.size()) {
    int bad = 0;
    const int n = well_formed(text, i, bad);
    if (n > 0) {
      out.append(text, i, static_cast<std::size_t>(n));
      i += static_cast<std::size_t>(n);
    } else {
      out += "\xef\xbf\xbd";
      i += each_byte ? 1 : static_cast<std::size_t>(bad);
    }
  }
  return out;
}

namespace {

ByteAlphabet make_byte_alphabet() {
  ByteAlphabet alphabet{};
  alphabet.to_byte.fill(-1);
  char32_t next = 0x100;
  for (int b = 0; b < 256; b++) {
    const bool printable = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
    const char32_t c = printable ? static_cast<char32_t>(b) : next++;
    alphabet.to_char[static_cast<std::size_t>(b)] = c;
    alphabet.to_byte[c] = static_cast<std::int16_t>(b);
  }
  return alphabet;
}

}  // namespace

const ByteAlphabet& byte_alphabet() {
  static const ByteAlphabet alphabet = make_byte_alphabet();
  return alphabet;
}

std::string bytes_to_alphabet(std::string_view bytes) {
  const ByteAlphabet& alphabet = byte_alphabet();
  std::string out;
  out.reserve(bytes.size() + bytes.size() / 4);
  for (char b : bytes) append_char(out, alphabet.to_char[static_cast<unsigned char>(b)]);
  return out;
}

bool alphabet_to_bytes(std::string_view text, std::string& bytes) {
  const ByteAlphabet& alphabet = byte_alphabet();
  bytes.clear();
  for (std::size_t i = 0; i < text.size();) {
    const Char c = char_at(text.data() + i);
    const int b = alphabet.byte_of(c.code);
    if (b < 0) return false;
    bytes += static_cast<char>(b);
    i += static_cast<std::size_t>(c.bytes);
  }
  return true;
}

}  // namespace pare
