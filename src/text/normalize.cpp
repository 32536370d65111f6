// Normalizers.
//
// Each is a small function from text to text. What needs care is cost: a run of combining marks has
// to be sorted by class, and utf8proc's own sort is quadratic in the length of such a run, so the
// decomposition is done here character by character, runs are sorted in n log n, and only the
// composition is utf8proc's. Steps may lengthen a text (a rule can put 1 KiB for each byte); the
// total is bounded so that a hostile file cannot turn a megabyte into all memory.
#include "text/normalize.h"

#include <utf8proc.h>

#include <algorithm>

#include "text/unicode.h"

namespace pare {
namespace {

using Codes = std::vector<utf8proc_int32_t>;

int combining_class(utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; }

Codes decompose(std::string_view text, bool compatibility) {
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
                                                      (compatibility ? UTF8PROC_COMPAT : 0));
  Codes codes;
  codes.reserve(text.size());
  utf8proc_int32_t buffer[64];  // the longest decomposition of one character has 18
  for (std::size_t i = 0; i < text.size();) {
    const Char c = char_at(text.data() + i);
    i += static_cast<std::size_t>(c.bytes);
    int boundary = 0;
    const utf8proc_ssize_t n = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c.code),
                                                       buffer, 64, options, &boundary);
    if (n < 0 || n > 64)
      codes.push_back(static_cast<utf8proc_int32_t>(c.code));
    else
      codes.insert(codes.end(), buffer, buffer + n);
  }
  for (std::size_t i = 0; i < codes.size();) {
    if (combining_class(codes[i]) == 0) {
      i++;
      continue;
    }
    std::size_t end = i + 1;
    while (end < codes.size() && combining_class(codes[end]) != 0) end++;
    if (end - i > 1)
      std::stable_sort(codes.begin() + static_cast<std::ptrdiff_t>(i),
                       codes.begin() + static_cast<std::ptrdiff_t>(end),
                       [](auto a, auto b) { return combining_class(a) < combining_class(b); });
    i = end;
  }
  return codes;
}

std::string applied(const normal::Form& form, std::string_view text) {
  // Below U+0300 (lead byte below 0xcc) everything is in NFC; ASCII is in every form.
  const unsigned limit = form.compose && !form.compatibility ? 0xcc : 0x80;
  if (std::all_of(text.begin(), text.end(),
                  [&](char b) { return static_cast<unsigned char>(b) < limit; }))
    return std::string(text);
  Codes codes = decompose(text, form.compatibility);
  auto count = static_cast<utf8proc_ssize_t>(codes.size());
  if (form.compose)
    count = utf8proc_normalize_utf32(
        codes.data(), count, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  std::string out;
  out.reserve(text.size());
  for (utf8proc_ssize_t i = 0; i < count; i++)
    append_char(out, static_cast<char32_t>(codes[static_cast<std::size_t>(i)]));
  return out;
}

// Calls f(code, text of the character) for each character.
template <class F>
void each_char(std::string_view text, F f) {
  for (std::size_t i = 0; i < text.size();) {
    const Char c = char_at(text.data() + i);
    f(c.code, text.substr(i, static_cast<std::size_t>(c.bytes)));
    i += static_cast<std::size_t>(c.bytes);
  }
}

void append_lower(std::string& out, char32_t c) {
  if (c == 0x130)
    out += "i\xcc\x87";  // the one character whose lower case is two
  else
    append_char(out, to_lower(c));
}

std::string applied(const normal::Lowercase&, std::string_view text) {
  std::string out;
  out.reserve(text.size());
  each_char(text, [&](char32_t c, std::string_view) { append_lower(out, c); });
  return out;
}

std::string applied(const normal::Strip& strip, std::string_view text) {
  const CharClasses classes;
  std::size_t begin = 0, end = text.size();
  while (strip.left && begin < end) {
    const Char c = char_at(text.data() + begin);
    if ((classes[c.code] & char_space) == 0) break;
    begin += static_cast<std::size_t>(c.bytes);
  }
  while (strip.right && end > begin) {
    const Char c = char_before(text.data() + end);
    if ((classes[c.code] & char_space) == 0) break;
    end -= static_cast<std::size_t>(c.bytes);
  }
  return std::string(text.substr(begin, end - begin));
}

std::string applied(const normal::StripAccents&, std::string_view text) {
  const CharClasses classes;
  std::string out;
  each_char(text, [&](char32_t c, std::string_view s) {
    if ((classes[c] & char_mark) == 0) out += s;
  });
  return out;
}

std::string applied(const normal::Replace& replace, std::string_view text) {
  std::vector<Match> matches;
  Finder(replace.pattern).find_all(text, matches);
  std::string out;
  for (const Match& m : matches) {
    if (m.matched)
      out += replace.content;
    else
      out += text.substr(m.begin, m.end - m.begin);
  }
  return out;
}

std::string applied(const normal::Prepend& prepend, std::string_view text) {
  if (text.empty()) return {};
  return prepend.text + std::string(text);
}

std::string applied(const normal::Nmt&, std::string_view text) {
  const auto dropped = [](char32_t c) {
    return (c >= 1 && c <= 8) || c == 0x0b || (c >= 0x0e && c <= 0x1f) || c == 0x7f || c == 0x8f ||
           c == 0x9f;
  };
  const auto blank = [](char32_t c) {
    return c == 9 || c == 10 || c == 12 || c == 13 || c == 0x1680 || (c >= 0x200b && c <= 0x200f) ||
           c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xfeff || c == 0xfffd;
  };
  std::string out;
  each_char(text, [&](char32_t c, std::string_view s) {
    if (blank(c))
      out += ' ';
    else if (!dropped(c))
      out += s;
  });
  return out;
}

// Hugging Face's use of the map: by grapheme cluster, if it is short and a rule begins there, else
// by character; the first rule found wins, and what it does not cover of the cluster is lost.
std::string applied(const normal::Precompiled& precompiled, std::string_view text) {
  const Charsmap& map = *precompiled.map;
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    std::size_t end = i;
    utf8proc_int32_t state = 0;
    char32_t previous = 0;
    do {
      const Char c = char_at(text.data() + end);
      if (end > i &&
          utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(previous),
                                           static_cast<utf8proc_int32_t>(c.code), &state))
        break;
      previous = c.code;
      end += static_cast<std::size_t>(c.bytes);
    } while (end < text.size());
    const std::string_view cluster = text.substr(i, end - i);
    i = end;
    if (cluster.size() < 6) {
      if (const Charsmap::Rule rule = map.shortest(cluster); rule.bytes > 0) {
        out += rule.replacement;
        continue;
      }
    }
    each_char(cluster, [&](char32_t, std::string_view s) {
      const Charsmap::Rule rule = map.shortest(s);
      out += rule.bytes > 0 ? rule.replacement : s;
    });
  }
  return out;
}

bool is_chinese(char32_t c) {
  // The gap between 2B81F and 2B920 is in the original.
  return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) ||
         (c >= 0x20000 && c <= 0x2a6df) || (c >= 0x2a700 && c <= 0x2b73f) ||
         (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
         (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

std::string applied(const normal::Bert& bert, std::string_view text) {
  const CharClasses classes;
  std::string cleaned;
  each_char(text, [&](char32_t c, std::string_view s) {
    if (bert.clean_text) {
      const bool line = c == '\t' || c == '\n' || c == '\r';
      if (c == 0 || c == 0xfffd || (!line && is_control(c))) return;
      if (line || (classes[c] & char_space) != 0) {
        cleaned += ' ';
        return;
      }
    }
    if (bert.chinese_characters && is_chinese(c)) {
      cleaned += ' ';
      cleaned += s;
      cleaned += ' ';
    } else {
      cleaned += s;
    }
  });
  if (bert.strip_accents) {
    std::string kept;
    each_char(applied(normal::Form{false, false}, cleaned), [&](char32_t c, std::string_view s) {
      if (!is_nonspacing_mark(c)) kept += s;
    });
    cleaned = std::move(kept);
  }
  return bert.lowercase ? applied(normal::Lowercase{}, cleaned) : cleaned;
}

std::string applied(const normal::Bytes&, std::string_view text) { return bytes_to_alphabet(text); }

// What one step of SentencePiece's normalizer makes of the front of `text`.
struct Prefix {
  std::string_view out;
  std::size_t bytes;
};
Prefix sentencepiece_prefix(const normal::Sentencepiece& spm, std::string_view text) {
  if (spm.user_pieces != nullptr) {
    const Trie::Match user = spm.user_pieces->longest(text, 0);
    if (user.bytes > 0) return {text.substr(0, user.bytes), user.bytes};
  }
  if (spm.map != nullptr) {
    const Charsmap::Rule rule = spm.map->longest(text);
    if (rule.bytes > 0) return {rule.replacement, rule.bytes};
  }
  const auto n = static_cast<std::size_t>(char_bytes(text[0]));
  return {text.substr(0, n), n};
}

std::string applied(const normal::Sentencepiece& spm, std::string_view text) {
  const std::string_view space = spm.escape_whitespaces ? meta_space : std::string_view(" ");
  std::size_t i = 0;
  if (spm.remove_extra_whitespaces) {
    while (i < text.size()) {
      const Prefix p = sentencepiece_prefix(spm, text.substr(i));
      if (p.out != " ") break;
      i += p.bytes;
    }
  }
  std::string out;
  if (i == text.size()) return out;
  out.reserve(text.size() + text.size() / 2);
  if (spm.add_dummy_prefix && !spm.whitespace_as_suffix) out += space;
  bool after_space = spm.remove_extra_whitespaces;
  while (i < text.size()) {
    Prefix p = sentencepiece_prefix(spm, text.substr(i));
    i += p.bytes;
    while (after_space && !p.out.empty() && p.out.front() == ' ') p.out.remove_prefix(1);
    if (!p.out.empty()) {
      for (char b : p.out) {
        if (b == ' ')
          out += space;
        else
          out += b;
      }
      after_space = spm.remove_extra_whitespaces && p.out.back() == ' ';
    }
  }
  if (spm.remove_extra_whitespaces)
    while (out.size() >= space.size() &&
           std::string_view(out).substr(out.size() - space.size()) == space)
      out.resize(out.size() - space.size());
  if (spm.add_dummy_prefix && spm.whitespace_as_suffix) out += space;
  return out;
}

}  // namespace

std::string normalize(const std::vector<Normalizer>& steps, std::string_view text) {
  const std::size_t limit = text.size() * 64 + (std::size_t{1} << 20);
  std::string current(text);
  for (const Normalizer& step : steps) {
    current = std::visit([&](const auto& s) { return applied(s, current); }, step);
    if (current.size() > limit)
      fail_input("TK-004", "the normalizer lengthens this text beyond measure",
                 {{"found", fmt::format("{} bytes from {}", current.size(), text.size())}});
  }
  return current;
}

}  // namespace pare
