// The list of token strings: id to text and text to id, with the limits every reader obeys.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace pare {

using TokenId = std::int32_t;
inline constexpr TokenId no_token = -1;

inline constexpr i64 max_tokens = i64{1} << 22;
inline constexpr i64 max_merges = i64{1} << 23;
inline constexpr i64 max_token_bytes = 65536;
inline constexpr i64 max_vocabulary_bytes = i64{1} << 26;  // all token texts together

class Vocabulary {
 public:
  // Errors: TK-004 limits, TK-005 an id out of range or used twice. A text that has an id already
  // is stored for the new id too, but find() keeps giving the first; then the result is false.
  bool add(i64 id, std::string_view text);

  TokenId find(std::string_view text) const;  // no_token if absent
  std::string_view text(TokenId id) const;    // empty if unused
  bool used(TokenId id) const;
  i64 size() const { return static_cast<i64>(spans_.size()); }  // highest id + 1
  i64 count() const { return count_; }                          // ids in use

 private:
  struct Span {
    std::uint32_t begin = 0;
    std::uint32_t bytes = unused;
  };
  static constexpr std::uint32_t unused = 0xffffffffu;
  void grow();
  std::string_view at(TokenId id) const {
    const Span& s = spans_[static_cast<std::size_t>(id)];
    return {arena_.data() + s.begin, s.bytes};
  }

  std::string arena_;
  std::vector<Span> spans_;     // (size)
  std::vector<TokenId> slots_;  // open addressing, a power of two long
  i64 count_ = 0;
  i64 entries_ = 0;  // slots in use
};

// A quick 64-bit hash of bytes; not for adversaries with time, but good in all bits.
std::uint64_t hash_bytes(const char* data, std::size_t bytes);

// "<0x0A>" gives 10; -1 for any other text (digits are upper case, exactly two, without sign).
int byte_of_token(std::string_view text);
std::string token_of_byte(int byte);

}  // namespace pare
