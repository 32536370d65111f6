// pare convert, random: commands that write a model.
#include "app/commands.h"
#include "pass/cast/cast.h"

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

}  // namespace

void report_saved(const Model& model, const SaveReport& report, const std::string& target,
                  const char* command, const Output& out, const Json& extra) {
  Json result = save_json(model, report, target);
  for (const Json::Member& m : extra.as_object()) result.set(m.first, m.second);
  if (out.json) return out.result(command, result);
  out.text(fmt::format("{}: {} parameters in {} ({:.2f} bits each), {} form\n", target,
                       human_count(static_cast<double>(parameters(model.spec))),
                       human_bytes(static_cast<double>(weight_bytes(model.spec))),
                       result.at("bits_per_weight").as_number(), report.form));
}

void save_and_report(const Model& model, const std::string& target, bool force, const char* command,
                     const Output& out) {
  report_saved(model, save_model(model, target, force, out.log), target, command, out,
               Json::object());
}

void command_convert(const ConvertOptions& o, const CommonOptions& common, const Output& out) {
  Model model = load_model(o.source, {common.tokenizer});
  Pool pool(common.threads);
  Context context{pool, out.log};
  if (!o.to.empty()) {
    const Pass pass = cast_pass(parse_float_code(o.to));
    model = pass.run(std::move(model), context);
  }
  save_and_report(model, o.out, o.force, "convert", out);
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
  save_and_report(model, o.out, o.force, "random", out);
}

}  // namespace pare
