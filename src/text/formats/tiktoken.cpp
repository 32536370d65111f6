// tiktoken rank files: a line for each token, base64 of its bytes and its rank.
//
// The file holds neither pattern nor special tokens: they belong to the encoding, which the name of
// the file gives (data of tiktoken's openai_public.py). A token is made of the two halves whose
// merging it is, so all splits into ranked halves are merges with the rank of the token.
#include <array>

#include "text/formats/formats.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace pare {
namespace {

struct Special {
  std::string_view text;
  TokenId id;
};
struct Encoding {
  std::string_view stem;     // of the file name
  std::string_view pattern;  // name of a known pattern
  std::vector<Special> special;
};

const Encoding& encoding_of(std::string_view name) {
  static const std::vector<Encoding> encodings = {
      {"r50k_base", "gpt2", {{"<|endoftext|>", 50256}}},
      {"p50k_base", "gpt2", {{"<|endoftext|>", 50256}}},
      {"p50k_edit",
       "gpt2",
       {{"<|endoftext|>", 50256},
        {"<|fim_prefix|>", 50281},
        {"<|fim_middle|>", 50282},
        {"<|fim_suffix|>", 50283}}},
      {"cl100k_base",
       "cl100k",
       {{"<|endoftext|>", 100257},
        {"<|fim_prefix|>", 100258},
        {"<|fim_middle|>", 100259},
        {"<|fim_suffix|>", 100260},
        {"<|endofprompt|>", 100276}}},
      {"o200k_base", "o200k", {{"<|endoftext|>", 199999}, {"<|endofprompt|>", 200018}}},
  };
  for (const Encoding& e : encodings)
    if (name.find(e.stem) != std::string_view::npos) return e;
  fail_input("TK-003", "the name of a rank file must say which encoding it is",
             {{"found", quoted(name)},
              {"need", "r50k_base, p50k_base, p50k_edit, cl100k_base or o200k_base"}});
}

int base64_digit(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

// One line "base64 rank" into the bytes and the rank.
bool read_line(std::string_view line, std::string& bytes, i64& rank) {
  const std::size_t space = line.find(' ');
  if (space == std::string_view::npos || space == 0 || line.size() - space - 1 > 9 ||
      line.size() == space + 1)
    return false;
  if (!from_base64(line.substr(0, space), bytes)) return false;
  rank = 0;
  for (char c : line.substr(space + 1)) {
    if (c < '0' || c > '9') return false;
    rank = rank * 10 + (c - '0');
  }
  return true;
}

}  // namespace

bool from_base64(std::string_view text, std::string& bytes) {
  bytes.clear();
  while (!text.empty() && text.back() == '=') text.remove_suffix(1);
  std::uint32_t bits = 0;
  int count = 0;
  for (char c : text) {
    const int digit = base64_digit(c);
    if (digit < 0) return false;
    bits = bits << 6 | static_cast<std::uint32_t>(digit);
    count += 6;
    if (count >= 8) {
      count -= 8;
      bytes += static_cast<char>(bits >> count & 0xff);
    }
  }
  return count < 6;
}

std::string to_base64(std::string_view bytes) {
  constexpr char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t n = std::min<std::size_t>(3, bytes.size() - i);
    std::uint32_t bits = 0;
    for (std::size_t k = 0; k < 3; k++)
      bits = bits << 8 | (k < n ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    for (std::size_t k = 0; k < 4; k++) out += k <= n ? digits[bits >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

TokenizerParts parts_from_tiktoken(std::string_view text, std::string_view name) {
  const Encoding& encoding = encoding_of(name);
  TokenizerParts parts;
  std::string bytes;
  i64 number = 0;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    number++;
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (line.empty()) continue;
    i64 rank = 0;
    if (!read_line(line, bytes, rank))
      fail_input("TK-002", "a line is not a token in base64 and its rank",
                 {{"line", fmt::format("{}", number)}, {"found", quoted(line)}});
    if (!parts.vocabulary.add(rank, bytes_to_alphabet(bytes)))
      fail_input("TK-005", "a token has two ranks", {{"line", fmt::format("{}", number)}});
  }
  parts.model_tokens = parts.vocabulary.size();
  Bpe bpe;
  bpe.byte_level = true;
  bpe.ignore_merges = true;
  std::vector<std::uint32_t> ranks;
  for (TokenId id = 0; id < parts.vocabulary.size(); id++)
    ranks.push_back(parts.vocabulary.used(id) ? static_cast<std::uint32_t>(id)
                                              : PairTable::no_rank);
  for (int b = 0; b < 256; b++)
    if (parts.vocabulary.find(bytes_to_alphabet({reinterpret_cast<const char*>(&b), 1})) ==
        no_token)
      fail_input("TK-007", "a rank file must have every single byte",
                 {{"missing", token_of_byte(b)}});
  merges_from_ranks(bpe, parts.vocabulary, ranks);
  parts.model = std::move(bpe);
  parts.kind = "byte-level BPE";
  for (const Special& s : encoding.special) {
    parts.vocabulary.add(s.id, s.text);
    AddedToken token;
    token.id = s.id;
    token.content = std::string(s.text);
    token.special = true;
    parts.added.push_back(std::move(token));
  }
  parts.eos = parts.vocabulary.find("<|endoftext|>");
  set_byte_level(parts, {std::string(known_pattern(encoding.pattern).pattern)});
  return parts;
}

Tokenizer tokenizer_from_tiktoken(std::string_view text, std::string_view name) {
  try {
    return Tokenizer(parts_from_tiktoken(text, name));
  } catch (Error& error) {
    throw error.with("file", name);
  }
}

}  // namespace pare
