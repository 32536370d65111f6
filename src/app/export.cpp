// pare export: a model in a form that another program reads.
//
// One row a format. A writer refuses what its format cannot hold, by the name of the tensor, before
// anything is written; no code is rounded again unless the words after the format ask for it.
#include <algorithm>
#include <array>

#include "app/commands.h"
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

struct Format {
  std::string_view name, words, what;  // for the list of formats; words: "" if none are understood
  SaveReport (*write)(Request);
};

// A plain Hugging Face folder, for readers of nothing else: every matrix decoded.
SaveReport write_dense(Request r) {
  const Code code = r.words.empty() ? Code::bf16 : parse_float_code(r.words);
  const Pass pass = cast_pass(code);
  return save_model(pass.run(std::move(r.model), r.context), r.options.out, r.options.force,
                    r.context.log);
}

constexpr std::array formats = {
    Format{"dense", "f32, f16, bf16", "Hugging Face folder of plain floats", write_dense},
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
  Model model = load_model(o.model, {common.tokenizer});
  const i64 count = parameters(model.spec);
  Pool pool(common.threads);
  Context context{pool, out.log};
  const SaveReport report = format.write({std::move(model), words, o, context});
  Json::Array files;
  for (const std::string& file : report.side_files) files.emplace_back(file);
  const double bits = 8.0 * static_cast<double>(report.bytes) / static_cast<double>(count);
  if (out.json)
    return out.result("export", Json::object({{"out", Json(o.out)},
                                              {"form", Json(report.form)},
                                              {"bytes", Json(report.bytes)},
                                              {"parameters", Json(count)},
                                              {"bits_per_weight", Json(bits)},
                                              {"side_files", Json(std::move(files))}}));
  out.text(fmt::format("{}: {} parameters in {} ({:.2f} bits each), {} form\n", o.out,
                       human_count(static_cast<double>(count)),
                       human_bytes(static_cast<double>(report.bytes)), bits, report.form));
}

}  // namespace pare
