// The shortest honest way to say a choice: a default, patterns over all blocks, then exceptions.
//
// When every matrix of the blocks takes part, the scheme that most of them got is the default of
// the step. A kind of matrix ("attn.v") most of whose blocks got another scheme is one rule over
// all blocks; what is left are single matrices, listed scheme by scheme. Rules that come later win,
// so exceptions come last.
#include "recipe/say.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace pare {
namespace {

constexpr const char* keep = "keep";

struct Named {
  std::string name, kind,
      scheme;  // "blocks.3.attn.v", "attn.v" (empty outside of blocks), "int4:g64"
};

std::string kind_of(const std::string& name) {
  if (!name.starts_with("blocks.")) return "";
  return name.substr(name.find('.', 7) + 1);
}

// The scheme that most have; of equals the first by name.
std::string most_frequent(const std::vector<const Named*>& matrices) {
  std::map<std::string, int> counts;
  for (const Named* m : matrices) counts[m->scheme]++;
  return std::max_element(counts.begin(), counts.end(),
                          [](const auto& a, const auto& b) { return a.second < b.second; })
      ->first;
}

std::map<std::string, i64> kinds_of(const Spec& spec) {
  std::map<std::string, i64> kinds;
  for (const auto& [name, linear] : linears(spec))
    if (const std::string kind = kind_of(name); !kind.empty()) kinds[kind]++;
  return kinds;
}

std::string rule_text(const std::vector<std::string>& patterns, const std::string& scheme) {
  std::string text = "\n[[rule]]\n";
  if (patterns.size() == 1) {
    text += fmt::format("pattern = \"{}\"\n", patterns[0]);
  } else {
    text += "pattern = [\n";
    for (const std::string& p : patterns) text += fmt::format("  \"{}\",\n", p);
    text += "]\n";
  }
  return text + fmt::format("scheme = \"{}\"\n", scheme);
}

using ByKind = std::map<std::string, std::vector<const Named*>>;

// Rules over all blocks for kinds of which most have another scheme than the default; what is then
// said of each kind.
std::string kind_rules(const ByKind& by_kind, const std::map<std::string, i64>& kinds,
                       const std::string& base, std::map<std::string, std::string>& said) {
  std::string text;
  for (const auto& [kind, members] : by_kind) {
    said[kind] = base;
    const std::string scheme = most_frequent(members);
    const i64 agreeing = std::count_if(members.begin(), members.end(),
                                       [&](const Named* m) { return m->scheme == scheme; });
    const bool whole = static_cast<i64>(members.size()) == kinds.at(kind);
    if (scheme == base || !whole || agreeing < 2 || 2 * agreeing <= kinds.at(kind)) continue;
    text += rule_text({"blocks.*." + kind}, scheme);
    said[kind] = scheme;
  }
  return text;
}

}  // namespace

std::string quantize_text(const std::vector<NamedScheme>& choices, const Spec& spec,
                          const std::string& keys) {
  std::vector<Named> matrices;
  for (const NamedScheme& c : choices) matrices.push_back({c.name, kind_of(c.name), c.scheme});
  const std::map<std::string, i64> kinds = kinds_of(spec);
  std::vector<const Named*> in_blocks;
  ByKind by_kind;
  for (const Named& m : matrices)
    if (!m.kind.empty()) {
      in_blocks.push_back(&m);
      by_kind[m.kind].push_back(&m);
    }
  i64 all = 0;
  for (const auto& [kind, count] : kinds) all += count;
  std::string text = "[[quantize]]\n", base = keep;
  if (static_cast<i64>(in_blocks.size()) == all && all > 0) base = most_frequent(in_blocks);
  if (base != keep) text += fmt::format("weights = \"{}\"\n", base);
  std::map<std::string, std::string> said;  // kind -> scheme so far
  text += keys + kind_rules(by_kind, kinds, base, said);
  std::map<std::string, std::vector<std::string>> exceptions;  // scheme -> names
  for (const Named& m : matrices)
    if (m.scheme != (m.kind.empty() ? keep : said[m.kind])) exceptions[m.scheme].push_back(m.name);
  for (const auto& [scheme, names] : exceptions) text += rule_text(names, scheme);
  return text;
}

}  // namespace pare
