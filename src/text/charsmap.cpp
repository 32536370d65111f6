// The precompiled character map.
//
// A double array: from the node with base b, byte c leads to unit b ^ c if that unit's label is c;
// the value of a node lies in the unit b itself. Every unit is reached from at most one parent that
// matters to us, so one walk with a visited mark over all reachable units proves in linear time
// that no lookup leaves the array or the pool of texts. 256 children of one node lie in one aligned
// block.
#include "text/charsmap.h"

#include <cstring>

namespace pare {
namespace {

constexpr std::size_t max_replacement_bytes = 1024;

[[noreturn]] void bad_map(std::string message, std::string found = {}) {
  std::vector<Fact> facts;
  if (!found.empty()) facts.push_back({"found", std::move(found)});
  fail_input("TK-009", "the character map is damaged: " + message, std::move(facts));
}

bool has_leaf(std::uint32_t unit) { return (unit >> 8 & 1) != 0; }
std::uint32_t label(std::uint32_t unit) { return unit & 0x800000ffu; }
std::uint32_t value(std::uint32_t unit) { return unit & 0x7fffffffu; }
std::uint32_t offset(std::uint32_t unit) { return (unit >> 10) << ((unit & 0x200u) >> 6); }

}  // namespace

Charsmap::Charsmap(std::string_view blob) : blob_(blob) {
  if (blob.size() < 4) bad_map("no size in front", fmt::format("{} bytes", blob.size()));
  std::uint32_t array_bytes;
  std::memcpy(&array_bytes, blob.data(), 4);
  if (array_bytes == 0 || array_bytes % 4 != 0 || array_bytes >= blob.size() - 4)
    bad_map("the size of the array does not fit",
            fmt::format("{} of {} bytes", array_bytes, blob.size()));
  units_.resize(array_bytes / 4);
  std::memcpy(units_.data(), blob.data() + 4, array_bytes);
  pool_ = std::string(blob.substr(4 + array_bytes));
  if (pool_.back() != '\0') bad_map("the last replacement is not terminated");
  validate();
}

void Charsmap::validate() const {
  std::vector<bool> seen(units_.size(), false);
  std::vector<std::uint32_t> open{0};
  const auto inside = [&](std::uint32_t node) { return node < units_.size(); };
  while (!open.empty()) {
    const std::uint32_t parent = open.back();
    open.pop_back();
    const std::uint32_t base = parent ^ offset(units_[parent]);
    if (!inside(base | 0xffu))
      bad_map("a node points outside the array", fmt::format("unit {} to {}", parent, base));
    if (has_leaf(units_[parent])) {
      const std::uint32_t index = value(units_[base]);
      if (index >= pool_.size())
        bad_map("a rule points outside the replacements", fmt::format("{}", index));
      const std::size_t bytes = std::strlen(pool_.data() + index);
      if (bytes > max_replacement_bytes)
        bad_map("a replacement is too long", fmt::format("{} bytes", bytes));
    }
    for (std::uint32_t c = 1; c < 256; c++) {
      const std::uint32_t child = base ^ c;
      if (label(units_[child]) != c || seen[child]) continue;
      seen[child] = true;
      open.push_back(child);
    }
  }
}

std::string_view Charsmap::replacement(std::uint32_t index) const {
  return std::string_view(pool_.data() + index);  // ends at the zero byte
}

template <bool stop_at_first>
Charsmap::Rule Charsmap::match(std::string_view text) const {
  Rule rule;
  std::uint32_t node = offset(units_[0]);
  for (std::size_t i = 0; i < text.size(); i++) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c == 0) break;
    node ^= c;
    const std::uint32_t unit = units_[node];
    if (label(unit) != c) break;
    node ^= offset(unit);
    if (has_leaf(unit)) {
      rule = {i + 1, replacement(value(units_[node]))};
      if (stop_at_first) break;
    }
  }
  return rule;
}

Charsmap::Rule Charsmap::longest(std::string_view text) const { return match<false>(text); }
Charsmap::Rule Charsmap::shortest(std::string_view text) const { return match<true>(text); }

}  // namespace pare
