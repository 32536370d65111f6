// pare quantize: flags to a pass, data for the methods that learn, the work folder, the quality
// gate.
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>
#include <optional>

#include "app/calibration.h"
#include "app/commands.h"
#include "file/publish.h"
#include "pass/quantize/calibration_text.h"
#include "pass/quantize/outliers.h"
#include "pass/work.h"
#include "recipe/recipe.h"
#include "text/tokenizer.h"

namespace pare {

Range parse_range(const std::string& word) {
  return word == "absmax" ? Range::absmax : word == "percentile" ? Range::percentile : Range::mse;
}

namespace {

void read_schemes(const QuantizeCommand& o, QuantizeOptions& options) {
  if (!o.weights.empty()) options.weights = parse_scheme(o.weights);
  if (!o.activations.empty()) options.activations = parse_activation(o.activations);
  if (!o.head.empty()) options.head = parse_scheme(o.head);
  if (!o.embedding.empty()) options.embedding = parse_scheme(o.embedding);
  options.only = o.only;
  options.skip = o.skip;
  for (const std::string& rule : o.rules) options.rules.push_back(parse_rule(rule));
  options.kv = parse_kv(o.kv);
  options.fit.range = parse_range(o.range);
  options.fit.percentile = o.percentile;
  if (!(o.percentile > 0 && o.percentile <= 100))
    fail(Exit::usage, "CL-009", "--percentile is out of range",
         {{"found", fmt::format("{}", o.percentile)}, {"need", "above 0, at most 100"}});
  if (options.fit.range != Range::percentile && o.percentile != QuantizeCommand{}.percentile)
    fail(Exit::usage, "CL-009", "--percentile needs --range percentile", {{"found", o.range}});
}

bool flag_of_data(const DataOptions& d) {
  return !d.text.empty() || !d.ids.empty() || !d.statistics.empty();
}

bool learns(const QuantizeCommand& o) {
  const Method m = parse_method(o.method);
  return needs_data(m) || (flag_of_data(o.data) && m != Method::hqq);
}

// A flag that the method at hand does not look at is a mistake.
void refuse_idle_flags(const QuantizeCommand& o, bool learns) {
  const QuantizeCommand none;
  const Method m = parse_method(o.method);
  const auto idle = [&](bool given, const char* flag, bool used, const char* need) {
    if (given && !used)
      fail(Exit::usage, "CL-035", fmt::format("{} has no effect here", flag),
           {{"found", "--method " + o.method}, {"need", need}});
  };
  const bool gptq = m == Method::gptq || m == Method::automatic;
  const bool awq = m == Method::awq || m == Method::automatic;
  idle(o.damping != none.damping, "--damping", gptq, "--method gptq or auto");
  idle(o.act_order != none.act_order, "--act-order", gptq, "--method gptq or auto");
  idle(!o.clip, "--no-clip", awq, "--method awq or auto");
  idle(o.alpha != none.alpha, "--alpha", m == Method::smoothquant, "--method smoothquant");
  idle(o.threshold != none.threshold, "--threshold", m == Method::llm_int8, "--method llm-int8");
  const char* data = "a method that learns from data, or --text, --ids or --stats";
  idle(o.strict, "--strict", learns, data);
  idle(o.restart, "--restart", learns, data);
  const bool flows = learns && o.data.statistics.empty();
  idle(o.data.tokens != none.data.tokens, "--tokens", flows, data);
  idle(o.data.length != none.data.length, "--length", flows, data);
  idle(o.data.ram != none.data.ram, "--ram", flows, data);
  const bool writes = o.data.text.empty() && o.data.ids.empty() && (flows || o.max_kl >= 0);
  idle(o.data.seed != none.data.seed, "--data-seed", writes, "text that the model writes");
}

void read_method(const QuantizeCommand& o, MethodOptions& method) {
  method.method = parse_method(o.method);
  method.gptq.damping = o.damping;
  method.gptq.order = o.act_order == "none" ? ActOrder::none : ActOrder::fixed;
  method.alpha = o.alpha == "auto" ? -1 : std::atof(o.alpha.c_str());
  method.outlier_threshold = o.threshold;
  method.clip = o.clip;
  method.strict = o.strict;
  if (!(o.damping > 0 && o.damping < 10))
    fail(Exit::usage, "CL-032", "--damping is out of range",
         {{"found", fmt::format("{}", o.damping)}, {"need", "above 0, below 10"}});
  if (method.alpha > 1 ||
      (o.alpha != "auto" &&
       !(method.alpha >= 0 && o.alpha.find_first_not_of("0123456789.") == std::string::npos)))
    fail(Exit::usage, "CL-033", "--alpha is not a number from 0 to 1, nor auto",
         {{"found", o.alpha}});
  if (!(o.threshold > 0))
    fail(Exit::usage, "CL-034", "--threshold is not above 0",
         {{"found", fmt::format("{}", o.threshold)}});
}

// What the flags or the recipe say.
std::vector<Step> steps_of(const QuantizeCommand& o) {
  QuantizeOptions options;
  if (o.recipe.empty()) {
    read_schemes(o, options);
    read_method(o, options.method);
    return {{0, options}};
  }
  const QuantizeCommand none;
  const bool more = !o.weights.empty() || !o.activations.empty() || !o.head.empty() ||
                    !o.embedding.empty() || !o.kv.empty() || !o.only.empty() || !o.skip.empty() ||
                    !o.rules.empty() || o.range != none.range || o.percentile != none.percentile ||
                    o.method != none.method;
  if (more)
    fail(Exit::usage, "CL-038", "--recipe says all of what to do", {},
         "write the other flags into the recipe, or leave it out");
  return load_recipe(o.recipe).steps;
}

// Columns that LLM.int8() keeps apart, from a pass over the model as it is.
void find_outliers(const Model& model, MethodOptions& method, Context& context) {
  const auto visit = [&](const std::string& input, const InputStatistics& s) {
    if (input == "head") return;
    std::vector<std::int32_t> columns =
        outlier_columns(s, static_cast<float>(method.outlier_threshold));
    if (!columns.empty()) method.outliers[input] = std::move(columns);
  };
  if (method.data->statistics != nullptr) {
    for (const InputSlot& input : input_slots(model.spec))
      visit(input.name, method.data->statistics->read(input.name));
    return;
  }
  collect_statistics(model, *method.data, false, context, visit);
}

// Gives the steps that learn what they learn from. One step may: it alone is resumed, and what it
// learns is of the model as it is given.
std::shared_ptr<const Calibration> learn(Recipe& recipe, const Model& base,
                                         const QuantizeCommand& o, Context& context,
                                         std::vector<std::int32_t>& rest) {
  QuantizeOptions* learner = nullptr;
  for (std::size_t i = 0; i < recipe.steps.size(); i++) {
    auto* options = std::get_if<QuantizeOptions>(&recipe.steps[i].options);
    if (options == nullptr) continue;
    const bool wanted = needs_data(options->method.method) ||
                        (flag_of_data(o.data) && options->method.method != Method::hqq);
    if (!wanted) continue;
    if (learner != nullptr || i > 0)
      fail(Exit::usage, "QU-023", "only the first step of a recipe can learn from data",
           {{"recipe", o.recipe}, {"line", std::to_string(recipe.steps[i].line)}},
           "split the recipe");
    learner = options;
  }
  if (learner == nullptr) {
    if (flag_of_data(o.data))
      fail(Exit::usage, "QU-024", "no step learns from data", {},
           "leave out --text, --ids and --stats");
    return nullptr;
  }
  const bool keeps = o.max_kl >= 0 && o.eval_text.empty();
  learner->method.data =
      make_calibration(base, o.data, keeps ? 0.1 : 0, rest, context.pool, context.log);
  learner->method.strict = o.strict;
  if (learner->method.method == Method::llm_int8) find_outliers(base, learner->method, context);
  return learner->method.data;
}

// ---- the gate ----

struct Quality {
  EvalResult result;
  std::string text;
};

std::optional<Quality> measure(const Model& base, const Model& model, const QuantizeCommand& o,
                               const DataOptions& data, std::vector<std::int32_t> rest, Pool& pool,
                               const Log& log) {
  if (o.max_kl < 0 && o.eval_text.empty()) return std::nullopt;
  std::vector<Sequence> sequences(1);
  Quality q;
  if (!o.eval_text.empty()) {
    if (base.tokenizer.empty())
      fail_input("RN-001", "the model has no tokenizer, so text cannot be read",
                 {{"model", base.path.string()}}, "give --tokenizer FILE");
    const std::string text = read_text_argument(o.eval_text);
    sequences[0].ids = load_tokenizer(base.tokenizer).encode(text, false);
    sequences[0].bytes = static_cast<i64>(text.size());
    q.text = o.eval_text;
  } else if (rest.size() > 1) {
    sequences[0].ids = std::move(rest);
    q.text = "the last tenth of " + data.text;
  } else {
    sequences.clear();
    for (auto& s : write_sequences(base, std::min<i64>(data.tokens, 8192), data.length,
                                   data.seed + 1, pool, log)) {
      Sequence sequence;
      sequence.ids = std::move(s);
      sequences.push_back(std::move(sequence));
    }
    q.text = fmt::format("text written by the model with seed {}", data.seed + 1);
  }
  Engine first(base, pool), second(model, pool);
  q.result = evaluate(second, &first, sequences, Protocol(), pool, log);
  return q;
}

void enforce(const QuantizeCommand& o, const std::optional<Quality>& q) {
  if (!q || o.max_kl < 0 || q->result.divergence->kl_mean <= o.max_kl) return;
  fail(Exit::gate, "QU-026", "the model is further from the original than --max-kl allows",
       {{"found", fmt::format("mean KL {:.5f} nats on {}", q->result.divergence->kl_mean, q->text)},
        {"need", fmt::format("at most {}", o.max_kl)}},
       "nothing was published; use more bits or another method");
}

// ---- results ----

Json report_json(const std::vector<MatrixReport>& report) {
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

std::string report_text(const std::vector<MatrixReport>& report) {
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

Json extra_json(i64 before, const std::string& line, const std::vector<MatrixReport>& report,
                const std::optional<Quality>& quality) {
  Json extra = Json::object({{"weight_bytes_before", Json(before)}, {"recipe", Json(line)}});
  if (!report.empty()) extra.set("matrices", report_json(report));
  if (!quality) return extra;
  Json q = divergence_json(*quality->result.divergence);
  q.set("text", quality->text);
  q.set("perplexity", quality->result.score.perplexity());
  q.set("base_perplexity", quality->result.base_score->perplexity());
  extra.set("quality", std::move(q));
  return extra;
}

}  // namespace

void command_quantize(const QuantizeCommand& o, const CommonOptions& common, const Output& out) {
  Recipe recipe{o.recipe, "", steps_of(o)};
  const Model base = load_model(o.model, {common.tokenizer});
  Spec planned = base.spec;  // what is wrong with schemes and patterns is said before any work
  for (const Pass& pass : passes(recipe)) planned = pass.plan(std::move(planned));
  if (o.recipe.empty()) refuse_idle_flags(o, learns(o));
  { Publisher check(o.out, o.force, Publisher::Kind::folder, base.path, weight_bytes(planned)); }
  Pool pool(common.threads);
  std::vector<MatrixReport> report;
  Context context{pool, out.log, o.data.seed, static_cast<i64>(o.data.ram * 1e6), nullptr, &report};
  std::vector<std::int32_t> rest;
  const auto data = learn(recipe, base, o, context, rest);
  const std::vector<Pass> all = passes(recipe);
  planned = base.spec;
  std::string line;
  for (const Pass& pass : all) {
    planned = pass.plan(std::move(planned));
    line += (line.empty() ? "" : "; ") + pass.line;
  }
  const i64 before = weight_bytes(base.spec);
  out.log.info(fmt::format("{} -> {}", human_bytes(static_cast<double>(before)),
                           human_bytes(static_cast<double>(weight_bytes(planned)))));
  std::optional<WorkFolder> work;
  if (data != nullptr)
    work.emplace(o.out,
                 std::vector<std::string>{std::string("pare ") + PARE_VERSION, line,
                                          identity_of(base, out.log), identity_of(*data)},
                 o.restart);
  Model model = base;
  for (std::size_t i = 0; i < all.size(); i++) {
    const auto* options = std::get_if<QuantizeOptions>(&recipe.steps[i].options);
    const bool with_data = options != nullptr && options->method.data != nullptr;
    context.work = with_data && work ? &*work : nullptr;
    model = all[i].run(std::move(model), context);
  }
  PARE_CHECK(model.spec == planned);
  const std::optional<Quality> quality =
      measure(base, model, o, o.data, std::move(rest), pool, out.log);
  enforce(o, quality);
  if (!out.json) out.text(report_text(report) + quality_text(quality));
  save_and_report(model, o.out, o.force, "quantize", out,
                  extra_json(before, line, report, quality));
  if (work) work->remove();
}

}  // namespace pare
