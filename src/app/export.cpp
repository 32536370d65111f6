// pare export: a model in a form that another program reads.
//
// One row a format. A writer refuses what its format cannot hold, by the name of the tensor, before
// anything is written; no code is rounded again unless the words after the format ask for it.
#include <algorithm>
#include <array>
#include <cmath>

#include "app/commands.h"
#include "engine/statistics.h"
#include "model/export_gguf.h"
#include "pass/cast/cast.h"

namespace pare {
namespace {

// --format NAME or NAME:WORDS; `words` is what follows the colon.
struct Request {
  Model model;
  std::string words;
  const ExportOptions& options;
  Context& context;
};

struct Exported {
  SaveReport report;
  Json details = Json::object();  // further members for --json
  std::string note;               // a further line for people, or empty
};
struct Format {
  std::string_view name, words, what;  // for the list of formats; words: "" if none are understood
  Exported (*write)(Request);
};

// A plain Hugging Face folder, for readers of nothing else: every matrix decoded.
Exported write_dense(Request r) {
  const Code code = r.words.empty() ? Code::bf16 : parse_float_code(r.words);
  const Pass pass = cast_pass(code);
  return {save_model(pass.run(std::move(r.model), r.context), r.options.out, r.options.force,
                     r.context.log),
          Json::object(),
          {}};
}

// Mean squares of each matrix's inputs, as importances of its columns.
std::function<std::vector<float>(const std::string&)> importances_of(
    std::shared_ptr<const StatisticsFile> file, const Spec& spec) {
  return [file = std::move(file), &spec](const std::string& linear) {
    const std::string name = input_name(spec, linear);
    const InputStatistics s = file->read(name);
    std::vector<float> mean(static_cast<std::size_t>(s.size()));
    for (std::size_t k = 0; k < mean.size(); k++) {
      mean[k] = static_cast<float>(s.mean_square(static_cast<i64>(k)));
      if (!(std::isfinite(mean[k]) && mean[k] >= 0))
        fail_input("QU-041", fmt::format("the statistics of {} are not finite", name),
                   {{"inputs", fmt::format("{}", k)}, {"found", fmt::format("{}", mean[k])}},
                   "the file of statistics is damaged");
    }
    return mean;
  };
}

// One file for llama.cpp: without words every matrix keeps its codes.
Exported write_gguf(Request r) {
  if (std::filesystem::path(r.options.out).extension() != ".gguf")
    fail(Exit::usage, "CL-032", "a GGUF file is known by its name",
         {{"found", pare::quoted(r.options.out)}, {"need", "a name that ends in .gguf"}});
  GgufOptions options;
  options.type = r.words;
  if (!r.options.statistics.empty())
    options.importance = importances_of(
        std::make_shared<StatisticsFile>(r.options.statistics, r.model.spec), r.model.spec);
  const GgufReport done =
      export_gguf(r.model, r.options.out, options, r.options.force, r.context.pool, r.context.log);
  Json::Array types;
  std::string list;
  for (const std::string& type : done.types) {
    types.emplace_back(type);
    list += (list.empty() ? "" : ", ") + type;
  }
  return {{r.words.empty() ? "gguf" : "gguf " + r.words, done.bytes, {}},
          Json::object({{"types", Json(std::move(types))},
                        {"exact", Json(done.exact)},
                        {"rounded", Json(done.rounded)}}),
          fmt::format("{}; {} of {} matrices have the values they had\n", list, done.exact,
                      done.exact + done.rounded)};
}

// Folders of other programs, with every value as it is or not at all.
Exported write_folder(const Request& r, const char* format) {
  return {
      export_model(r.model, format, r.options.out, r.options.force, r.context.pool, r.context.log),
      Json::object(),
      {}};
}

constexpr std::array formats = {
    Format{"dense", "f32, f16, bf16", "Hugging Face folder of plain floats", write_dense},
    Format{"gguf", "a type or mixture: F16, Q8_0, Q4_K_M, ...", "one file for llama.cpp",
           write_gguf},
    Format{"compressed-tensors", "", "folder for vLLM and Transformers",
           [](Request r) { return write_folder(r, "compressed-tensors"); }},
    Format{"gptq", "", "GPTQ folder, zero points less one as most readers expect",
           [](Request r) { return write_folder(r, "gptq"); }},
    Format{"gptq-v2", "", "GPTQ folder, zero points as they are",
           [](Request r) { return write_folder(r, "gptq-v2"); }},
    Format{"awq", "", "AWQ folder, GEMM layout", [](Request r) { return write_folder(r, "awq"); }},
    Format{"bnb", "", "bitsandbytes folder: nf4, fp4 or int8",
           [](Request r) { return write_folder(r, "bnb"); }},
    Format{"fp8", "", "FP8 folder in blocks of 128 x 128, as DeepSeek-V3",
           [](Request r) { return write_folder(r, "fp8"); }},
};

std::string format_names() {
  std::string list;
  for (const Format& f : formats) list += (list.empty() ? "" : ", ") + std::string(f.name);
  return list;
}

const Format& find_format(const std::string& name, const std::string& words) {
  const auto it =
      std::find_if(formats.begin(), formats.end(), [&](const Format& f) { return f.name == name; });
  if (it == formats.end())
    fail(Exit::usage, "CL-030", fmt::format("{} is not a format to export", pare::quoted(name)),
         {{"need", format_names()}});
  if (!words.empty() && it->words.empty())
    fail(Exit::usage, "CL-031", fmt::format("the format {} takes no words after a colon", name),
         {{"found", pare::quoted(words)}});
  return *it;
}

}  // namespace

std::string export_formats() {
  std::string list;
  for (const Format& f : formats)
    list +=
        fmt::format("{}{}{}", list.empty() ? "" : ", ", f.name, f.words.empty() ? "" : "[:...]");
  return list;
}

void command_export(const ExportOptions& o, const CommonOptions& common, const Output& out) {
  const std::size_t colon = o.format.find(':');
  const std::string name = o.format.substr(0, colon),
                    words = colon == std::string::npos ? "" : o.format.substr(colon + 1);
  const Format& format = find_format(name, words);
  if (!o.statistics.empty() && (name != "gguf" || words.empty()))
    fail(Exit::usage, "CL-035", "--stats has no effect here",
         {{"found", "--format " + o.format}, {"need", "--format gguf:TYPE, which rounds"}});
  Model model = load_model(o.model, {common.tokenizer});
  const i64 count = parameters(model.spec);
  Pool pool(common.threads);
  Context context{pool, out.log};
  const Exported done = format.write({std::move(model), words, o, context});
  const SaveReport& report = done.report;
  Json::Array files;
  for (const std::string& file : report.side_files) files.emplace_back(file);
  const double bits = 8.0 * static_cast<double>(report.bytes) / static_cast<double>(count);
  Json result = Json::object({{"out", Json(o.out)},
                              {"form", Json(report.form)},
                              {"bytes", Json(report.bytes)},
                              {"parameters", Json(count)},
                              {"bits_per_weight", Json(bits)},
                              {"side_files", Json(std::move(files))}});
  for (const Json::Member& m : done.details.as_object()) result.set(m.first, m.second);
  if (out.json) return out.result("export", result);
  out.text(fmt::format("{}: {} parameters in {} ({:.2f} bits each), {} form\n{}", o.out,
                       human_count(static_cast<double>(count)),
                       human_bytes(static_cast<double>(report.bytes)), bits, report.form,
                       done.note));
}

}  // namespace pare
