// The shortest honest way to say a choice: a default, patterns over all blocks, then exceptions.
//
// When every matrix of the blocks takes part, the scheme that most of them got is the default of
// the step. A kind of matrix ("attn.v") most of whose blocks got another scheme is one rule over
// all blocks; what is left are single matrices, listed scheme by scheme. Rules that come later win,
// so exceptions come last. What was written is read again and compared with what was meant.
#include "recipe/bits.h"

#include <algorithm>
#include <map>

namespace pare {
namespace {

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

// The [[quantize]] step and its rules.
std::string body(const std::vector<Named>& matrices, const Spec& spec) {
  const std::map<std::string, i64> kinds = kinds_of(spec);
  std::vector<const Named*> in_blocks;
  std::map<std::string, std::vector<const Named*>> by_kind;
  for (const Named& m : matrices)
    if (!m.kind.empty()) {
      in_blocks.push_back(&m);
      by_kind[m.kind].push_back(&m);
    }
  i64 all = 0;
  for (const auto& [kind, count] : kinds) all += count;
  std::string text = "[[quantize]]\n", base;
  if (static_cast<i64>(in_blocks.size()) == all && all > 0) {
    base = most_frequent(in_blocks);
    text += fmt::format("weights = \"{}\"\n", base);
  }
  std::map<std::string, std::string> said;  // kind -> scheme so far
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
  std::map<std::string, std::vector<std::string>> exceptions;  // scheme -> names
  for (const Named& m : matrices)
    if (m.kind.empty() || m.scheme != said[m.kind]) exceptions[m.scheme].push_back(m.name);
  for (const auto& [scheme, names] : exceptions) text += rule_text(names, scheme);
  return text;
}

// Words from files are quoted: a comment is one line of valid UTF-8.
std::string comments(const Sensitivities& s, const BitsPlan& plan) {
  std::string text = fmt::format(
      "# {}: {:.4f} bits a weight over {} matrices, {} bytes with all planes\n"
      "# predicted divergence {:.6f} nats a token{}\n"
      "# measured over {} tokens of {}, {}, one matrix at a time\n#\n",
      pare::quoted(s.base), plan.bits(), s.matrices.size(), plan.bytes, plan.kl,
      plan.exact ? ", the least within the budget"
                 : fmt::format("; none within the budget is below {:.6f}", plan.bound),
      s.tokens, pare::quoted(s.text), pare::quoted(s.rounding));
  std::size_t width = 6;
  for (const MatrixLosses& m : s.matrices) width = std::max(width, m.name.size());
  text += fmt::format("# {:<{}}  {:<16}  {:>6}  {:>10}  at the fewest bits\n", "matrix", width,
                      "scheme", "bits", "KL");
  for (std::size_t i = 0; i < s.matrices.size(); i++) {
    const MatrixLosses& m = s.matrices[i];
    const SchemeLoss& c = plan.chosen[i];
    const SchemeLoss& least = *std::min_element(
        m.options.begin(), m.options.end(),
        [](const SchemeLoss& a, const SchemeLoss& b) { return a.bytes < b.bytes; });
    text += fmt::format("# {:<{}}  {:<16}  {:>6.3f}  {:>10.6f}  {:.6f} with {}\n", m.name, width,
                        to_string(c.scheme), bits_per_weight(c.scheme, m.rows, m.cols), c.kl,
                        least.kl, to_string(least.scheme));
  }
  return text;
}

void require_same(const std::string& text, const std::vector<Named>& matrices, const Spec& spec) {
  const Recipe recipe = parse_recipe(text, "recipe");
  PARE_CHECK(recipe.steps.size() == 1);
  std::map<std::string, std::string> said;
  for (const Choice& c : choose_matrices(spec, std::get<QuantizeOptions>(recipe.steps[0].options)))
    said[c.name] = to_string(c.scheme);
  PARE_CHECK(said.size() == matrices.size());
  for (const Named& m : matrices) PARE_CHECK(said[m.name] == m.scheme);
}

}  // namespace

std::string bits_recipe(const Sensitivities& s, const BitsPlan& plan, const Spec& spec) {
  std::vector<Named> matrices;
  for (std::size_t i = 0; i < s.matrices.size(); i++)
    matrices.push_back(
        {s.matrices[i].name, kind_of(s.matrices[i].name), to_string(plan.chosen[i].scheme)});
  const std::string text = comments(s, plan) + "\n" + body(matrices, spec);
  require_same(text, matrices, spec);
  return text;
}

}  // namespace pare
