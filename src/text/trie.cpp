// A trie over bytes, see the header.
#include "text/trie.h"

namespace pare {

void Trie::grow() {
  std::vector<Edge> old(slots_.empty() ? 256 : slots_.size() * 2, Edge{free_key, 0});
  old.swap(slots_);
  shift_ = 64 - __builtin_ctzll(slots_.size());
  for (const Edge& edge : old) {
    if (edge.key == free_key) continue;
    std::size_t s = slot_of(edge.key);
    while (slots_[s].key != free_key) s = (s + 1) & (slots_.size() - 1);
    slots_[s] = edge;
  }
}

void Trie::add(std::string_view text, std::int32_t value) {
  PARE_CHECK(value >= 0);
  if (text.empty()) return;
  std::uint32_t node = root;
  for (char byte : text) {
    std::uint32_t next = step(node, byte);
    if (next == none) {
      if ((edges_ + 1) * 2 > slots_.size()) grow();
      next = static_cast<std::uint32_t>(values_.size());
      values_.push_back(-1);
      const std::uint64_t key = key_of(node, byte);
      std::size_t s = slot_of(key);
      while (slots_[s].key != free_key) s = (s + 1) & (slots_.size() - 1);
      slots_[s] = {key, next};
      edges_++;
    }
    node = next;
  }
  if (values_[node] < 0) values_[node] = value;
}

Trie::Match Trie::longest(std::string_view text, std::size_t at) const {
  Match best;
  std::uint32_t node = root;
  for (std::size_t i = at; i < text.size(); i++) {
    node = step(node, text[i]);
    if (node == none) break;
    if (values_[node] >= 0) best = {values_[node], i + 1 - at};
  }
  return best;
}

}  // namespace pare
