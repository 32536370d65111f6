// pare calibrate, and data for the commands that apply recipes.
#include "app/calibration.h"

#include "app/commands.h"
#include "file/publish.h"

namespace pare {

DataSource read_source(const DataOptions& o) {
  const int sources = !o.text.empty() + !o.ids.empty() + !o.statistics.empty();
  if (sources > 1) fail(Exit::usage, "CL-036", "give one of --text, --ids and --stats");
  DataSource source;
  source.wish = {o.tokens, o.length, o.seed};
  if (source.tokens() <= 0 || o.length.value_or(2) <= 1 || !(o.ram >= 0))
    fail(Exit::usage, "CL-037", "--tokens, --length or --ram is out of range",
         {{"found", fmt::format("{}, {}, {}", source.tokens(), o.length.value_or(512), o.ram)},
          {"need", "tokens above 0, length above 1, megabytes of 0 or more"}});
  const std::string& file = !o.text.empty() ? o.text : !o.ids.empty() ? o.ids : o.statistics;
  source.name = file == "-" ? "standard input" : std::filesystem::path(file).filename().string();
  source.statistics = o.statistics;
  if (!o.text.empty()) source.text = read_text_argument(o.text);
  if (!o.ids.empty()) {
    TokenSequences& ids = source.ids.emplace();
    for (Sequence& s : read_ids(o.ids)) ids.push_back(std::move(s.ids));
  }
  return source;
}

void command_calibrate(const CalibrateCommand& o, const CommonOptions& common, const Output& out) {
  const Model model = load_model(o.model, {common.tokenizer});
  Pool pool(common.threads);
  Context context{pool, out.log};
  const DataSource source = read_source(o.data);
  context.seed = source.seed();
  context.ram_bytes = static_cast<i64>(o.data.ram * 1e6);
  std::vector<std::int32_t> rest;
  const auto data = make_calibration(model, source, 0, rest, pool, out.log);
  i64 gram_floats = 0, inputs = 0;
  for (const InputSlot& input : input_slots(model.spec)) {
    gram_floats += input.size * input.size;
    inputs++;
  }
  i64 tokens = 0;
  for (const auto& s : data->sequences) tokens += static_cast<i64>(s.size());
  Publisher publisher(o.out, o.force, Publisher::Kind::file, model.path,
                      o.gram ? gram_floats * static_cast<i64>(sizeof(float)) : 0);
  StatisticsWriter writer(publisher.path(), model.spec, o.gram, tokens, data->source);
  collect_statistics(
      model, *data, o.gram, context,
      [&](const std::string& name, InputStatistics s) { writer.write(name, s); },
      [&](i64 block, const KvStatistics& s) { writer.write(block, s); });
  writer.finish();
  publisher.commit();
  const auto bytes = static_cast<i64>(std::filesystem::file_size(o.out));
  if (out.json)
    return out.result("calibrate", Json::object({{"out", Json(o.out)},
                                                 {"tokens", Json(tokens)},
                                                 {"sequences", Json(data->sequences.size())},
                                                 {"inputs", Json(inputs)},
                                                 {"gram", Json(o.gram)},
                                                 {"bytes", Json(bytes)},
                                                 {"source", Json(data->source)}}));
  out.text(fmt::format("{}: {} inputs, {}, {}\n", o.out, inputs, data->source,
                       human_bytes(static_cast<double>(bytes))));
}

}  // namespace pare
