// A proposal as a recipe, with its evidence in comments.
#include "recipe/search.h"

#include <algorithm>

#include "recipe/say.h"

namespace pare {
namespace {

double loss_of(const MatrixLosses& m, const Scheme& scheme) {
  for (const SchemeLoss& o : m.options)
    if (o.scheme == scheme) return o.kl;
  return 0;  // its own
}

std::vector<NamedScheme> named(const Sensitivities& s, const Proposal& p, const Spec& spec) {
  const Spec after = planned(spec, s, p);
  const auto scheme_in = [](const Spec& of, const std::string& name) {
    for (const auto& [found, linear] : linears(of))
      if (found == name) return linear->scheme;
    return of.embed;
  };
  std::vector<NamedScheme> list;
  for (const MatrixLosses& m : s.matrices) {
    const Scheme scheme = scheme_in(after, m.name);
    const bool kept = scheme == scheme_in(spec, m.name);
    list.push_back({m.name, kept ? "keep" : to_string(scheme)});
  }
  return list;
}

// Words from files are quoted: a comment is one line of valid UTF-8.
std::string comments(const Sensitivities& s, const Proposal& p, const SearchRecord& r,
                     const std::vector<NamedScheme>& list) {
  std::string text = fmt::format(
      "# found by `pare search` for {}\n"
      "# weights {} bytes; {:.0f} bytes of memory and {:.4g} tokens a second predicted on {},\n"
      "# batch {}, {} positions cached\n"
      "# divergence: {:.6f} nats a token predicted",
      pare::quoted(s.base), p.weight_bytes, p.memory_bytes, p.tokens_per_second,
      pare::quoted(r.hardware), r.use.batch, r.use.context, r.scale * p.loss);
  if (r.scale != 1)
    text += fmt::format(" ({:.6f} by the sum, times {:.3f} as other recipes measured)", p.loss,
                        r.scale);
  if (r.measured)
    text += fmt::format(",\n# {:.6f} measured over {}", *r.measured, pare::quoted(r.measured_on));
  text += fmt::format("\n# losses measured over {} tokens of {}, {}, one change at a time\n#\n",
                      s.tokens, pare::quoted(s.text), pare::quoted(s.rounding));
  std::size_t width = 6;
  for (const MatrixLosses& m : s.matrices) width = std::max(width, m.name.size());
  text += fmt::format("# {:<{}}  {:<16}  {:>10}\n", "matrix", width, "scheme", "KL");
  for (std::size_t i = 0; i < list.size(); i++)
    text += fmt::format("# {:<{}}  {:<16}  {:>10.6f}\n", list[i].name, width, list[i].scheme,
                        list[i].scheme == "keep" ? 0 : loss_of(s.matrices[i], p.schemes[i]));
  for (const CacheLoss& c : s.caches)
    if (p.kv && c.scheme == *p.kv)
      text +=
          fmt::format("# {:<{}}  {:<16}  {:>10.6f}\n", "cache", width, to_string(c.scheme), c.kl);
  for (const ActivationLoss& a : s.activations)
    if (p.activation.per != Activation::Per::none && a.activation == p.activation)
      text += fmt::format("# {:<{}}  {:<16}  {:>10.6f}\n", "inputs", width, to_string(a.activation),
                          a.kl);
  return text;
}

}  // namespace

std::string search_recipe(const Sensitivities& s, const Proposal& p, const Spec& spec,
                          const SearchRecord& r) {
  const std::vector<NamedScheme> list = named(s, p, spec);
  std::vector<NamedScheme> rest;  // what has no key of its own
  std::string keys;
  for (const NamedScheme& m : list) {
    const bool ends = m.name == "embed" || m.name == "head";
    if (!ends) rest.push_back(m);
    if (ends && m.scheme != "keep")
      keys += fmt::format("{} = \"{}\"\n", m.name == "head" ? "head" : "embedding", m.scheme);
  }
  if (p.activation.per != Activation::Per::none)
    keys += fmt::format("activations = \"{}\"\n", to_string(p.activation));
  if (p.kv) keys += fmt::format("kv = \"{}\"\n", to_string(*p.kv));
  if (r.method != "rtn") keys += fmt::format("method = \"{}\"\n", r.method);
  std::string text = comments(s, p, r, list) + "\n" + quantize_text(rest, spec, keys);
  if (r.gates.max_bytes) text += fmt::format("\n[gate]\nmax_bytes = {}\n", *r.gates.max_bytes);
  const Recipe recipe = parse_recipe(text, "recipe");
  PARE_CHECK(recipe.gates == r.gates);
  Spec read = spec;
  for (const Pass& pass : passes(recipe)) read = pass.plan(std::move(read));
  PARE_CHECK(read == planned(spec, s, p));
  return text;
}

}  // namespace pare
