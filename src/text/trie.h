// A trie over bytes: which known strings begin here?
//
// Built once, then immutable. Edges live in one hash table, so that neither building nor a step
// depends on the alphabet and nothing recurses on the length of a string. 16 bytes an edge.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace pare {

class Trie {
 public:
  static constexpr std::uint32_t root = 0;
  static constexpr std::uint32_t none = 0xffffffffu;

  // A value >= 0; a string added again keeps the first value. Empty strings are ignored.
  void add(std::string_view text, std::int32_t value);

  bool empty() const { return values_.size() <= 1; }
  // The node one byte on, or `none`.
  std::uint32_t step(std::uint32_t node, char byte) const {
    if (slots_.empty()) return none;
    const std::uint64_t key = key_of(node, byte);
    for (std::size_t s = slot_of(key);; s = (s + 1) & (slots_.size() - 1)) {
      if (slots_[s].key == key) return slots_[s].child;
      if (slots_[s].key == free_key) return none;
    }
  }
  std::int32_t value(std::uint32_t node) const { return values_[node]; }  // -1: no string ends here

  // The longest string that text has at `at`: its value and length in bytes; {-1, 0} if none.
  struct Match {
    std::int32_t value = -1;
    std::size_t bytes = 0;
  };
  Match longest(std::string_view text, std::size_t at) const;

 private:
  struct Edge {
    std::uint64_t key;
    std::uint32_t child;
  };
  static constexpr std::uint64_t free_key = ~std::uint64_t{0};
  static std::uint64_t key_of(std::uint32_t node, char byte) {
    return static_cast<std::uint64_t>(node) << 8 | static_cast<unsigned char>(byte);
  }
  std::size_t slot_of(std::uint64_t key) const {
    return static_cast<std::size_t>((key * 0x9e3779b97f4a7c15u) >> shift_);
  }
  void grow();

  std::vector<Edge> slots_;
  std::vector<std::int32_t> values_{-1};  // (nodes)
  std::size_t edges_ = 0;
  int shift_ = 64;
};

}  // namespace pare
