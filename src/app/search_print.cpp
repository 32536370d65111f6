// What `pare search` shows: the front as a table and a plot, and how far predictions can be
// trusted.
#include "app/search.h"
#include "report/terminal.h"

namespace pare {
namespace {

double bits_of(const SearchResult& r, const Proposal& p) {
  return 8 * static_cast<double>(p.weight_bytes) / static_cast<double>(r.parameters);
}

std::string scheme_of(const Sensitivities& s, const Proposal& p, const char* name) {
  for (std::size_t i = 0; i < s.matrices.size(); i++)
    if (s.matrices[i].name == name) return to_string(p.schemes[i]);
  return "-";
}

std::string name_of(const SearchResult& r, const Proposal& p) {
  std::string name = fmt::format("{:.2f} bits", bits_of(r, p));
  if (p.kv) name += ", cache " + to_string(*p.kv);
  if (p.activation.per != Activation::Per::none) name += ", inputs " + to_string(p.activation);
  return name;
}

std::string cache_of(const Proposal& p) { return p.kv ? to_string(*p.kv) : "-"; }

std::string inputs_of(const Proposal& p) {
  return p.activation.per == Activation::Per::none ? "-" : to_string(p.activation);
}

Json proposal_json(const SearchResult& r, const Sensitivities& s, const Candidate& c) {
  const Proposal& p = c.proposal;
  Json schemes = Json::object();
  for (std::size_t i = 0; i < s.matrices.size(); i++)
    schemes.set(s.matrices[i].name, Json(to_string(p.schemes[i])));
  return Json::object({{"weight_bytes", Json(p.weight_bytes)},
                       {"memory_bytes", Json(p.memory_bytes)},
                       {"tokens_per_second", Json(p.tokens_per_second)},
                       {"prefill_tokens_per_second", Json(p.prefill_tokens_per_second)},
                       {"sum_kl", Json(p.loss)},
                       {"predicted_kl", Json(r.scale * p.loss)},
                       {"measured_kl", c.measured ? Json(*c.measured) : Json()},
                       {"kv", p.kv ? Json(to_string(*p.kv)) : Json()},
                       {"activations", Json(to_string(p.activation))},
                       {"schemes", std::move(schemes)}});
}

void print_json(const SearchOptions& o, const SearchResult& r, const Sensitivities& s,
                const Output& out) {
  Json::Array front;
  for (const Candidate& c : r.front) front.push_back(proposal_json(r, s, c));
  const Agreement& a = r.agreement;
  out.result("search",
             Json::object({{"model", Json(o.model)},
                           {"hardware", Json(r.hardware.name)},
                           {"batch", Json(r.use.batch)},
                           {"context", Json(r.use.context)},
                           {"method", Json(r.method)},
                           {"text", Json(s.text)},
                           {"tokens", Json(s.tokens)},
                           {"held_out", Json(r.held_out)},
                           {"base", proposal_json(r, s, {r.base, 0.0})},
                           {"front", Json(std::move(front))},
                           {"chosen", r.chosen < r.front.size() ? Json(r.chosen) : Json()},
                           {"pairs", Json(a.pairs)},
                           {"inverted_pairs", Json(a.inverted)},
                           {"kendall_tau", Json(a.tau)},
                           {"measured_over_sum", Json(a.scale)},
                           {"scale", Json(r.scale)},
                           {"recipe", o.out.empty() ? Json() : Json(o.out)}}));
}

std::string table_text(const SearchResult& r, const Sensitivities& s) {
  Table table({"", "bits", "weights", "memory", "tokens/s", "KL predicted", "measured", "embedding",
               "cache", "inputs"});
  const auto row = [&](const std::string& mark, const Candidate& c) {
    const Proposal& p = c.proposal;
    table.add({mark, fmt::format("{:.2f}", bits_of(r, p)),
               human_bytes(static_cast<double>(p.weight_bytes)), human_bytes(p.memory_bytes),
               fmt::format("{:.4g}", p.tokens_per_second), fmt::format("{:.6f}", r.scale * p.loss),
               c.measured ? fmt::format("{:.6f}", *c.measured) : "-", scheme_of(s, p, "embed"),
               cache_of(p), inputs_of(p)});
  };
  for (std::size_t i = 0; i < r.front.size(); i++)
    row(fmt::format("{}{}", i + 1, i == r.chosen ? " *" : ""), r.front[i]);
  row("as it is", {r.base, std::nullopt});
  return table.text();
}

ParetoPlot plot_of(const SearchResult& r) {
  ParetoPlot plot;
  const bool speed = r.axis == Axis::speed;
  plot.cost_name = speed                    ? "tokens per second, predicted"
                   : r.axis == Axis::memory ? "memory, bytes"
                                            : "weights, bytes";
  plot.loss_name = "mean KL to the base, nats";
  plot.less_is_better = !speed;
  const auto cost = [&](const Proposal& p) {
    return speed ? p.tokens_per_second : cost_of(p, r.axis);
  };
  plot.base_cost = cost(r.base);
  plot.base_name = "as it is";
  for (const Candidate& c : r.front)
    plot.points.push_back({name_of(r, c.proposal), 1, cost(c.proposal), believed(r, c)});
  return plot;
}

std::string trust_text(const SearchResult& r) {
  std::vector<LossPair> pairs;
  std::string text;
  for (const Candidate& c : r.front)
    if (c.measured) pairs.push_back({c.proposal.loss, *c.measured});
  if (pairs.empty()) return "nothing was measured: losses are sums of single changes\n";
  const Agreement& a = r.agreement;
  text += fmt::format("measured on {}: {} recipes, Kendall's tau {:.3f}", r.held_out, pairs.size(),
                      a.tau);
  text += a.inverted == 0 ? ", in the order that was predicted\n"
                          : fmt::format("; {} of {} pairs are in another order than predicted\n",
                                        a.inverted, a.pairs);
  for (std::size_t i = 0; i < r.front.size(); i++)
    for (std::size_t j = 0; j < i; j++) {
      const Candidate &x = r.front[j], &y = r.front[i];
      if (!x.measured || !y.measured) continue;
      if ((x.proposal.loss - y.proposal.loss) * (*x.measured - *y.measured) < 0)
        text +=
            fmt::format("  {} and {}: {:.6f} and {:.6f}\n", j + 1, i + 1, *x.measured, *y.measured);
    }
  text += fmt::format("measured / sum of single changes: {:.3f} in the mean, {:.3f} to {:.3f}",
                      a.scale, a.low, a.high);
  if (r.scale != 1) text += "; predictions are multiplied by it";
  if (r.scale < 1 && r.method != "rtn")
    text += fmt::format(" (singles were rounded to nearest, recipes are solved by {})", r.method);
  return text + "\n";
}

}  // namespace

double believed(const SearchResult& r, const Candidate& c) {
  return c.measured ? *c.measured : r.scale * c.proposal.loss;
}

void print_search(const SearchOptions& o, const SearchResult& r, const Sensitivities& s,
                  const Output& out) {
  if (out.json) return print_json(o, r, s, out);
  std::string text = fmt::format("{} on {}, batch {}, {} positions cached\n", o.model,
                                 r.hardware.name, r.use.batch, r.use.context);
  text += table_text(r, s) + "\n" + pareto_text(plot_of(r), terminal_style()) + trust_text(r);
  if (r.chosen < r.front.size()) {
    const Candidate& c = r.front[r.chosen];
    text += fmt::format("chosen: {}, {}, {:.4g} tokens/s, KL {:.6f} {}\n", r.chosen + 1,
                        human_bytes(static_cast<double>(c.proposal.weight_bytes)),
                        c.proposal.tokens_per_second, believed(r, c),
                        c.measured ? "measured" : "predicted");
  }
  if (!o.out.empty()) text += fmt::format("{}: written\n", o.out);
  if (!o.all.empty()) text += fmt::format("{}: {} recipes\n", o.all, r.front.size());
  out.text(text);
}

}  // namespace pare
