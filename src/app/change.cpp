// pare convert, quantize, random: commands that write a model.
#include <algorithm>

#include "app/commands.h"
#include "pass/cast/cast.h"
#include "recipe/recipe.h"

namespace pare {
namespace {

Json save_json(const Model& model, const SaveReport& report, const std::string& out) {
  Json::Array files;
  for (const std::string& name : report.side_files) files.emplace_back(name);
  return Json::object(
      {{"out", Json(out)},
       {"form", Json(report.form)},
       {"bytes", Json(report.bytes)},
       {"parameters", Json(parameters(model.spec))},
       {"weight_bytes", Json(weight_bytes(model.spec))},
       {"bits_per_weight", Json(8.0 * static_cast<double>(weight_bytes(model.spec)) /
                                static_cast<double>(parameters(model.spec)))},
       {"side_files", Json(std::move(files))}});
}

void save(const Model& model, const std::string& target, bool force, const char* command,
          const Output& out, Json extra = Json::object()) {
  const SaveReport report = save_model(model, target, force, out.log);
  Json result = save_json(model, report, target);
  for (const Json::Member& m : extra.as_object()) result.set(m.first, m.second);
  if (out.json) return out.result(command, result);
  out.text(fmt::format("{}: {} parameters in {} ({:.2f} bits each), {} form\n", target,
                       human_count(static_cast<double>(parameters(model.spec))),
                       human_bytes(static_cast<double>(weight_bytes(model.spec))),
                       result.at("bits_per_weight").as_number(), report.form));
}

QuantizeOptions quantize_options(const QuantizeCommand& o) {
  QuantizeOptions options;
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
  return options;
}

// What the flags or the recipe say, in order.
std::vector<Pass> quantize_passes(const QuantizeCommand& o) {
  if (o.recipe.empty()) return {quantize_pass(quantize_options(o))};
  const QuantizeCommand none;
  const bool more = !o.weights.empty() || !o.activations.empty() || !o.head.empty() ||
                    !o.embedding.empty() || !o.kv.empty() || !o.only.empty() || !o.skip.empty() ||
                    !o.rules.empty() || o.range != none.range || o.percentile != none.percentile;
  if (more)
    fail(Exit::usage, "CL-030", "--recipe says all of what to do", {},
         "write the other flags into the recipe, or leave it out");
  return passes(load_recipe(o.recipe));
}

}  // namespace

void command_convert(const ConvertOptions& o, const CommonOptions& common, const Output& out) {
  Model model = load_model(o.source, {common.tokenizer});
  Pool pool(common.threads);
  Context context{pool, out.log};
  if (!o.to.empty()) {
    const Pass pass = cast_pass(parse_float_code(o.to));
    model = pass.run(std::move(model), context);
  }
  save(model, o.out, o.force, "convert", out);
}

Range parse_range(const std::string& word) {
  return word == "absmax" ? Range::absmax : word == "percentile" ? Range::percentile : Range::mse;
}

void command_quantize(const QuantizeCommand& o, const CommonOptions& common, const Output& out) {
  const std::vector<Pass> all = quantize_passes(o);
  Model model = load_model(o.model, {common.tokenizer});
  const i64 before = weight_bytes(model.spec);
  Pool pool(common.threads);
  Context context{pool, out.log};
  Spec planned = model.spec;
  std::string line;
  for (const Pass& pass : all) {
    planned = pass.plan(std::move(planned));
    line += (line.empty() ? "" : "; ") + pass.line;
  }
  out.log.info(fmt::format("{} -> {}", human_bytes(static_cast<double>(before)),
                           human_bytes(static_cast<double>(weight_bytes(planned)))));
  for (const Pass& pass : all) model = pass.run(std::move(model), context);
  PARE_CHECK(model.spec == planned);
  save(model, o.out, o.force, "quantize", out,
       Json::object({{"weight_bytes_before", Json(before)}, {"recipe", Json(line)}}));
}

void command_random(const RandomOptions& o, const CommonOptions& common, const Output& out) {
  const bool folder = std::filesystem::exists(std::filesystem::path(o.like) / "config.json");
  const Spec spec = folder ? spec_of_folder(o.like) : known_spec(o.like);
  const Scheme scheme = parse_scheme(o.weights);
  Model model = random_model(spec, o.seed, scheme.plain() ? scheme.code : Code::bf16);
  Pool pool(common.threads);
  Context context{pool, out.log};
  if (!scheme.plain()) {
    QuantizeOptions options;
    options.weights = scheme;
    options.fit.range = Range::absmax;
    model = quantize_pass(options).run(std::move(model), context);
  }
  save(model, o.out, o.force, "random", out);
}

}  // namespace pare
