// The list of token strings.
//
// All texts lie in one arena; a hash table of ids finds them. Ids come from files, so they are
// bounded before anything is allocated for them.
#include "text/vocabulary.h"

#include <cstring>

namespace pare {

std::uint64_t hash_bytes(const char* data, std::size_t bytes) {
  const auto fold = [](std::uint64_t a, std::uint64_t b) {
    const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
    return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
  };
  std::uint64_t h = 0x9e3779b97f4a7c15u ^ bytes;
  std::size_t i = 0;
  for (; i + 8 <= bytes; i += 8) {
    std::uint64_t word;
    std::memcpy(&word, data + i, 8);
    h = fold(h ^ word, 0xd6e8feb86659fd93u);
  }
  std::uint64_t tail = 0;
  for (std::size_t shift = 0; i < bytes; i++, shift += 8)
    tail |= static_cast<std::uint64_t>(static_cast<unsigned char>(data[i])) << shift;
  return fold(h ^ tail, 0xa0761d6478bd642fu);
}

bool Vocabulary::add(i64 id, std::string_view text) {
  if (id < 0 || id >= max_tokens)
    fail_input("TK-005", "a token id is out of range",
               {{"token", quoted(text)},
                {"found", fmt::format("{}", id)},
                {"need", fmt::format("0 to {}", max_tokens - 1)}});
  if (static_cast<i64>(text.size()) > max_token_bytes)
    fail_input("TK-004", "a token is too long",
               {{"token", quoted(text)},
                {"found", fmt::format("{} bytes", text.size())},
                {"need", fmt::format("at most {}", max_token_bytes)}});
  if (static_cast<i64>(arena_.size() + text.size()) > max_vocabulary_bytes)
    fail_input("TK-004", "the vocabulary is too large",
               {{"need", fmt::format("at most {} bytes of tokens", max_vocabulary_bytes)}});
  const auto index = static_cast<std::size_t>(id);
  if (index >= spans_.size()) spans_.resize(index + 1);
  if (spans_[index].bytes != unused)
    fail_input("TK-005", "a token id is used twice",
               {{"id", fmt::format("{}", id)},
                {"token", quoted(at(static_cast<TokenId>(id)))},
                {"and", quoted(text)}});
  spans_[index] = {static_cast<std::uint32_t>(arena_.size()),
                   static_cast<std::uint32_t>(text.size())};
  arena_ += text;
  count_++;
  if (entries_ * 2 >= static_cast<i64>(slots_.size())) grow();
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t s = hash_bytes(text.data(), text.size()) & mask;; s = (s + 1) & mask) {
    if (slots_[s] == no_token) {
      slots_[s] = static_cast<TokenId>(id);
      entries_++;
      return true;
    }
    if (at(slots_[s]) == text) return false;
  }
}

void Vocabulary::grow() {
  std::vector<TokenId> old(slots_.empty() ? 1024 : slots_.size() * 2, no_token);
  old.swap(slots_);
  const std::size_t mask = slots_.size() - 1;
  for (TokenId id : old) {
    if (id == no_token) continue;
    const std::string_view text = at(id);
    std::size_t s = hash_bytes(text.data(), text.size()) & mask;
    while (slots_[s] != no_token) s = (s + 1) & mask;
    slots_[s] = id;
  }
}

TokenId Vocabulary::find(std::string_view text) const {
  if (slots_.empty()) return no_token;
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t s = hash_bytes(text.data(), text.size()) & mask;; s = (s + 1) & mask) {
    if (slots_[s] == no_token) return no_token;
    if (at(slots_[s]) == text) return slots_[s];
  }
}

bool Vocabulary::used(TokenId id) const {
  return id >= 0 && id < size() && spans_[static_cast<std::size_t>(id)].bytes != unused;
}

std::string_view Vocabulary::text(TokenId id) const {
  return used(id) ? at(id) : std::string_view();
}

namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

int byte_of_token(std::string_view text) {
  if (text.size() != 6 || text.substr(0, 3) != "<0x" || text[5] != '>') return -1;
  const int high = hex_digit(text[3]), low = hex_digit(text[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

std::string token_of_byte(int byte) { return fmt::format("<0x{:02X}>", byte); }

}  // namespace pare
