// pare apply, and what pare quantize shares with it: files to data, and the words for what came
// out. The work is recipe/apply.h.
#include "recipe/apply.h"

#include <fmt/ranges.h>

#include "app/commands.h"
#include "app/record.h"

namespace pare {
namespace {

ApplyOptions options_of(const ApplyCommand& o) {
  ApplyOptions options;
  options.data = read_source(o.data);
  if (!o.eval_text.empty()) {
    options.eval_text = read_text_argument(o.eval_text);
    options.eval_name = std::filesystem::path(o.eval_text).filename().string();
  }
  options.ram_bytes = static_cast<i64>(o.data.ram * 1e6);
  options.strict = o.strict;
  options.restart = o.restart;
  options.force = o.force;
  return options;
}

Json matrices_json(const std::vector<MatrixReport>& report) {
  Json::Array list;
  for (const MatrixReport& m : report) {
    Json::Array notes;
    for (const std::string& note : m.notes) notes.emplace_back(note);
    list.push_back(Json::object({{"name", Json(m.name)},
                                 {"scheme", Json(m.scheme)},
                                 {"nearest_error", Json(m.nearest_error)},
                                 {"error", Json(m.error)},
                                 {"seconds", Json(m.seconds)},
                                 {"notes", Json(std::move(notes))}}));
  }
  return Json(std::move(list));
}

std::string matrices_text(const std::vector<MatrixReport>& report) {
  if (report.empty()) return {};
  Table table({"matrix", "scheme", "nearest", "error", "ratio", "seconds", ""});
  for (const MatrixReport& m : report)
    table.add({m.name, m.scheme, fmt::format("{:.5f}", m.nearest_error),
               fmt::format("{:.5f}", m.error),
               m.nearest_error > 0 ? fmt::format("{:.2f}", m.error / m.nearest_error) : "-",
               fmt::format("{:.2f}", m.seconds), fmt::format("{}", fmt::join(m.notes, "; "))});
  return table.text() + "\nrelative error of the outputs, to nearest without data and as stored\n";
}

std::string quality_text(const std::optional<Quality>& q) {
  if (!q) return {};
  const EvalResult& r = q->result;
  return fmt::format(
      "on {}: perplexity {:.4f}, before {:.4f}; mean KL {:.5f} nats, same top-1 {:.1f} %\n",
      q->text, r.score.perplexity(), r.base_score->perplexity(), r.divergence->kl_mean,
      100 * r.divergence->top1_agreement);
}

Json extra_json(const Applied& a, const Recipe& recipe) {
  Json extra = Json::object({{"weight_bytes_before", Json(a.bytes_before)},
                             {"recipe", Json(a.line)},
                             {"provenance", to_json(a.model.provenance.back())}});
  if (recipe.gates.min_speedup) extra.set("min_speedup", *recipe.gates.min_speedup);
  if (!a.matrices.empty()) extra.set("matrices", matrices_json(a.matrices));
  if (!a.quality) return extra;
  Json q = divergence_json(*a.quality->result.divergence);
  q.set("text", a.quality->text);
  q.set("perplexity", a.quality->result.score.perplexity());
  q.set("base_perplexity", a.quality->result.base_score->perplexity());
  extra.set("quality", std::move(q));
  return extra;
}

}  // namespace

void apply_and_report(const Recipe& recipe, const ApplyCommand& o, const char* command,
                      const CommonOptions& common, const Output& out) {
  const Model base = load_model(o.model, {common.tokenizer});
  const Spec planned = plan(recipe, base.spec);  // what is wrong is said before data are read
  out.log.info(fmt::format("{} -> {}", human_bytes(static_cast<double>(weight_bytes(base.spec))),
                           human_bytes(static_cast<double>(weight_bytes(planned)))));
  Pool pool(common.threads);
  const Applied applied = apply(base, recipe, options_of(o), o.out, pool, out.log);
  if (!out.json) {
    out.text(matrices_text(applied.matrices) + quality_text(applied.quality));
    if (recipe.gates.min_speedup)
      out.log.info(fmt::format("min_speedup = {} is for `pare prove {} {}` to hold",
                               *recipe.gates.min_speedup, o.model, o.out));
  }
  std::optional<EvalResult> quality;
  if (applied.quality) quality = applied.quality->result;
  record_made(command, base, o.out, applied.line, quality, pool.threads(), out.log);
  report_saved(applied.model, applied.saved, o.out, command, out, extra_json(applied, recipe));
}

void command_apply(const ApplyCommand& o, const CommonOptions& common, const Output& out) {
  apply_and_report(find_recipe(o.recipe), o, "apply", common, out);
}

}  // namespace pare
