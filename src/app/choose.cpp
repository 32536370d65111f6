// pare choose bits: spend a budget of bits where the measurement says they matter.
//
// Measuring is the slow part and its result is a file: with --sensitivities FILE another budget is
// solved from it without a forward pass.
#include <algorithm>

#include "app/calibration.h"
#include "app/commands.h"
#include "app/evidence.h"
#include "choose/bits.h"
#include "file/io.h"
#include "probe/sensitivity.h"
#include "recipe/bits.h"

namespace pare {
namespace {

bool any_match(const std::vector<std::string>& patterns, const std::string& name,
               std::vector<bool>& used) {
  bool any = false;
  for (std::size_t i = 0; i < patterns.size(); i++)
    if (matches(patterns[i], name)) used[i] = any = true;
  return any;
}

void require_used(const std::vector<std::string>& patterns, const std::vector<bool>& used,
                  std::string_view flag, const std::vector<std::string>& names) {
  for (std::size_t i = 0; i < patterns.size(); i++)
    if (!used[i])
      fail(Exit::usage, "QU-001",
           fmt::format("{} {} matches no matrix", flag, pare::quoted(patterns[i])),
           {{"nearest", nearest(patterns[i], names)}},
           "`pare show MODEL --tensors` lists the names");
}

// The matrices that take part: those of the blocks, or what --only names, less --skip. A tied head
// is the embedding and goes by that name.
std::vector<std::string> matrices_of(const Spec& spec, const ChooseBitsOptions& o) {
  std::vector<std::string> names = {"embed"}, chosen;
  for (const auto& [name, linear] : linears(spec))
    if (name != "head" || !spec.tied) names.push_back(name);
  std::vector<bool> only(o.only.size()), skip(o.skip.size());
  for (const std::string& name : names) {
    const bool wanted =
        o.only.empty() ? name.starts_with("blocks.") : any_match(o.only, name, only);
    if (!any_match(o.skip, name, skip) && wanted) chosen.push_back(name);
  }
  require_used(o.only, only, "--only", names);
  require_used(o.skip, skip, "--skip", names);
  if (chosen.empty()) fail(Exit::usage, "QU-003", "the patterns leave no matrix to quantize");
  return chosen;
}

std::vector<Sequence> calibration(const Model& model, const ChooseBitsOptions& o, Pool& pool,
                                  std::string& words) {
  const i64 window = std::min(o.window, model.spec.max_positions);
  words = words_of_text(o.text, o.seed);
  if (o.text.empty()) return written_text(model, o.tokens, window, o.seed, pool);
  return cut_text(ids_of_text(model, o.text), o.tokens, window);
}

struct Measured {
  Sensitivities sensitivities;
  std::vector<Sequence> text;  // empty: nothing was measured now
};

Measured measure(const Model& model, const ChooseBitsOptions& o, Pool& pool, const Log& log) {
  Measured m;
  SensitivityJob job;
  job.matrices = matrices_of(model.spec, o);
  job.candidates = candidate_schemes(o.candidates);
  FitOptions fit;
  fit.range = parse_range(o.range);
  job.round = [fit, &pool](const std::string&, const Tensor& weights, const Scheme& scheme) {
    return requantize(weights, scheme, fit, {}, &pool);
  };
  Sensitivities& s = m.sensitivities;
  job.sequences = calibration(model, o, pool, s.text);
  m.text = job.sequences;
  s.base = o.model;
  s.model = identity(model, log);
  s.data = fingerprint_of(job.sequences);
  s.rounding = "rounded to nearest, range " + o.range;
  for (const Sequence& sequence : job.sequences) s.tokens += static_cast<i64>(sequence.ids.size());
  const auto kl = measure_sensitivities(model, job, pool, log);
  for (std::size_t i = 0; i < job.matrices.size(); i++) {
    MatrixLosses matrix = shape_of(model.spec, job.matrices[i]);
    for (std::size_t c = 0; c < job.candidates.size(); c++)
      matrix.options.push_back(
          {job.candidates[c], stored_bytes(job.candidates[c], matrix.rows, matrix.cols), kl[i][c]});
    s.matrices.push_back(std::move(matrix));
  }
  return m;
}

// What the file holds; flags that say something else are refused.
Sensitivities remembered(const ChooseBitsOptions& o, const Model& model, const Log& log) {
  const Sensitivities s =
      parse_sensitivities(read_text_file(o.sensitivities, std::size_t{64} << 20), o.sensitivities);
  check(s, model.spec, identity(model, log));
  if (!o.candidates.empty() || (!o.text.empty() && !o.verify) || !o.only.empty() || !o.skip.empty())
    fail(Exit::usage, "CH-004", "the sensitivities have been measured before",
         {{"file", o.sensitivities}},
         "leave out --candidates, --text, --only and --skip, or name another file");
  return s;
}

// The text of known sensitivities once more, to measure the mixture on.
std::vector<Sequence> same_text(const Model& model, const ChooseBitsOptions& o,
                                const Sensitivities& s, Pool& pool) {
  std::string words;
  std::vector<Sequence> text = calibration(model, o, pool, words);
  i64 tokens = 0;
  for (const Sequence& sequence : text) tokens += static_cast<i64>(sequence.ids.size());
  if (words != s.text || tokens != s.tokens || fingerprint_of(text) != s.data)
    fail(Exit::usage, "CH-005", "--verify needs the text that the sensitivities were measured on",
         {{"found", fmt::format("{} tokens of {}, {}", tokens, words, fingerprint_of(text))},
          {"need", fmt::format("{} tokens of {}, {}", s.tokens, s.text, s.data)}},
         "give the same --text, --tokens and --seed");
  return text;
}

double measure_mixture(const Model& base, const std::string& recipe,
                       const std::vector<Sequence>& text, Pool& pool, const Log& log) {
  Context context{pool, log};
  Model mixed = base;
  for (const Pass& pass : passes(parse_recipe(recipe, "recipe")))
    mixed = pass.run(std::move(mixed), context);
  return measure_divergence(base, mixed, text, pool);
}

Json matrix_json(const MatrixLosses& m, const SchemeLoss& chosen) {
  Json::Array losses;
  for (const SchemeLoss& o : m.options)
    losses.push_back(Json::object({{"scheme", Json(to_string(o.scheme))},
                                   {"bits", Json(bits_per_weight(o.scheme, m.rows, m.cols))},
                                   {"kl", Json(o.kl)}}));
  return Json::object({{"name", Json(m.name)},
                       {"scheme", Json(to_string(chosen.scheme))},
                       {"bits", Json(bits_per_weight(chosen.scheme, m.rows, m.cols))},
                       {"bytes", Json(chosen.bytes)},
                       {"kl", Json(chosen.kl)},
                       {"candidates", Json(std::move(losses))}});
}

void print(const ChooseBitsOptions& o, const Sensitivities& s, const BitsPlan& plan,
           std::optional<double> measured, const Output& out) {
  if (out.json) {
    Json::Array list;
    for (std::size_t i = 0; i < s.matrices.size(); i++)
      list.push_back(matrix_json(s.matrices[i], plan.chosen[i]));
    return out.result("choose bits",
                      Json::object({{"model", Json(o.model)},
                                    {"budget", Json(o.budget)},
                                    {"bits", Json(plan.bits())},
                                    {"bytes", Json(plan.bytes)},
                                    {"predicted_kl", Json(plan.kl)},
                                    {"bound", Json(plan.bound)},
                                    {"exact", Json(plan.exact)},
                                    {"measured_kl", measured ? Json(*measured) : Json()},
                                    {"text", Json(s.text)},
                                    {"tokens", Json(s.tokens)},
                                    {"recipe", o.out.empty() ? Json() : Json(o.out)},
                                    {"matrices", Json(std::move(list))}}));
  }
  Table table({"matrix", "scheme", "bits", "bytes", "KL", "share"});
  for (std::size_t i = 0; i < s.matrices.size(); i++) {
    const MatrixLosses& m = s.matrices[i];
    const SchemeLoss& c = plan.chosen[i];
    table.add({m.name, to_string(c.scheme),
               fmt::format("{:.3f}", bits_per_weight(c.scheme, m.rows, m.cols)),
               std::to_string(c.bytes), fmt::format("{:.6f}", c.kl),
               fmt::format("{:.1f} %", plan.kl > 0 ? 100 * c.kl / plan.kl : 0.0)});
  }
  std::string text = table.text();
  text += fmt::format("{:.4f} bits a weight of {} allowed, {} bytes\npredicted KL {:.6f}",
                      plan.bits(), o.budget, plan.bytes, plan.kl);
  text += plan.exact ? ", the least within the budget"
                     : fmt::format("; none within the budget is below {:.6f}", plan.bound);
  if (measured) text += fmt::format("\nmeasured KL  {:.6f} of the whole mixture", *measured);
  text += fmt::format("\n{} tokens of {}\n", s.tokens, s.text);
  if (!o.out.empty()) text += fmt::format("{}: written\n", o.out);
  out.text(text);
}

}  // namespace

void command_choose_bits(const ChooseBitsOptions& o, const CommonOptions& common,
                         const Output& out) {
  if (!(o.budget > 0 && o.budget <= 64))
    fail(Exit::usage, "CL-039", "--budget is out of range",
         {{"found", fmt::format("{}", o.budget)}, {"need", "above 0, at most 64 bits a weight"}});
  const Model model = load_model(o.model, {common.tokenizer});
  Pool pool(common.threads);
  Measured m;
  const bool known = !o.sensitivities.empty() && std::filesystem::exists(o.sensitivities);
  if (known) {
    m.sensitivities = remembered(o, model, out.log);
    if (o.verify) m.text = same_text(model, o, m.sensitivities, pool);
  } else {
    m = measure(model, o, pool, out.log);
    if (!o.sensitivities.empty())
      write_text(o.sensitivities, false, to_json(m.sensitivities).dump(1) + "\n");
  }
  const BitsPlan plan = choose_bits(m.sensitivities, o.budget);
  const std::string recipe = bits_recipe(m.sensitivities, plan, model.spec);
  std::optional<double> measured;
  if (!m.text.empty()) measured = measure_mixture(model, recipe, m.text, pool, out.log);
  if (!o.out.empty()) write_text(o.out, o.force, recipe);
  print(o, m.sensitivities, plan, measured, out);
}

}  // namespace pare
