// A choice of bits with what was measured in comments. What was written is read again and compared
// with what was meant.
#include "recipe/bits.h"

#include <algorithm>
#include <map>

#include "recipe/say.h"

namespace pare {
namespace {

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

void require_same(const std::string& text, const std::vector<NamedScheme>& matrices,
                  const Spec& spec) {
  const Recipe recipe = parse_recipe(text, "recipe");
  PARE_CHECK(recipe.steps.size() == 1);
  std::map<std::string, std::string> said;
  for (const Choice& c : choose_matrices(spec, std::get<QuantizeOptions>(recipe.steps[0].options)))
    said[c.name] = to_string(c.scheme);
  PARE_CHECK(said.size() == matrices.size());
  for (const NamedScheme& m : matrices) PARE_CHECK(said[m.name] == m.scheme);
}

}  // namespace

std::string bits_recipe(const Sensitivities& s, const BitsPlan& plan, const Spec& spec) {
  std::vector<NamedScheme> matrices;
  for (std::size_t i = 0; i < s.matrices.size(); i++)
    matrices.push_back({s.matrices[i].name, to_string(plan.chosen[i].scheme)});
  const std::string text = comments(s, plan) + "\n" + quantize_text(matrices, spec);
  require_same(text, matrices, spec);
  return text;
}

}  // namespace pare
