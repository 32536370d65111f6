// pare calibrate, and data for pare quantize.
#include "app/calibration.h"

#include <algorithm>

#include "app/commands.h"
#include "file/publish.h"
#include "pass/quantize/calibration_text.h"
#include "pass/work.h"
#include "text/tokenizer.h"

namespace pare {
namespace {

void check_flags(const DataOptions& o) {
  const int sources = !o.text.empty() + !o.ids.empty() + !o.statistics.empty();
  if (sources > 1) fail(Exit::usage, "CL-036", "give one of --text, --ids and --stats");
  if (o.tokens <= 0 || o.length <= 1 || o.ram < 0)
    fail(Exit::usage, "CL-037", "--tokens, --length or --ram is out of range",
         {{"found", fmt::format("{}, {}, {}", o.tokens, o.length, o.ram)},
          {"need", "tokens above 0, length above 1, megabytes of 0 or more"}});
}

i64 length_for(const Model& model, i64 length) {
  const i64 room = model.spec.max_positions;
  return room > 0 ? std::min(length, room) : length;
}

std::vector<std::int32_t> ids_of_text(const Model& model, const DataOptions& o) {
  if (model.tokenizer.empty())
    fail_input("RN-001", "the model has no tokenizer, so text cannot be read",
               {{"model", model.path.string()}}, "give --tokenizer FILE, or token ids with --ids");
  return load_tokenizer(model.tokenizer).encode(read_text_argument(o.text), false);
}

void check_ids(const TokenSequences& sequences, i64 vocab, const std::string& where) {
  for (const auto& s : sequences)
    for (std::int32_t id : s)
      if (id < 0 || id >= vocab)
        fail_input("CL-005", "a token id is outside the model's vocabulary",
                   {{"file", where},
                    {"found", std::to_string(id)},
                    {"need", fmt::format("0 to {}", vocab - 1)}});
}

i64 count(const TokenSequences& sequences) {
  i64 n = 0;
  for (const auto& s : sequences) n += static_cast<i64>(s.size());
  return n;
}

}  // namespace

std::shared_ptr<const Calibration> make_calibration(const Model& model, const DataOptions& o,
                                                    double keep, std::vector<std::int32_t>& rest,
                                                    Pool& pool, const Log& log) {
  check_flags(o);
  auto data = std::make_shared<Calibration>();
  const i64 length = length_for(model, o.length);
  std::string from;
  if (!o.statistics.empty()) {
    data->statistics = std::make_shared<StatisticsFile>(o.statistics, model.spec);
    data->source = "statistics of " + data->statistics->source();
    return data;
  }
  if (!o.ids.empty()) {
    for (Sequence& s : read_ids(o.ids))
      for (std::size_t at = 0; at < s.ids.size() && count(data->sequences) < o.tokens;
           at += static_cast<std::size_t>(length))
        data->sequences.emplace_back(
            s.ids.begin() + static_cast<std::ptrdiff_t>(at),
            s.ids.begin() + static_cast<std::ptrdiff_t>(
                                std::min(s.ids.size(), at + static_cast<std::size_t>(length))));
    from = std::filesystem::path(o.ids).filename().string();
  } else if (!o.text.empty()) {
    std::vector<std::int32_t> ids = ids_of_text(model, o);
    const auto kept = static_cast<std::size_t>(static_cast<double>(ids.size()) * keep);
    rest.assign(ids.end() - static_cast<std::ptrdiff_t>(kept), ids.end());
    ids.resize(ids.size() - kept);
    data->sequences = cut_sequences(ids, o.tokens, length);
    from = std::filesystem::path(o.text).filename().string();
  } else {
    data->sequences = write_sequences(model, o.tokens, length, o.seed, pool, log);
    from = fmt::format("written by the model with seed {}", o.seed);
  }
  check_ids(data->sequences, model.spec.vocab, o.ids.empty() ? o.text : o.ids);
  data->source = fmt::format("{}, {} tokens in {} sequences", from, count(data->sequences),
                             data->sequences.size());
  return data;
}

std::string identity_of(const Model& model, const Log& log) {
  Progress progress(log, "read the model", static_cast<double>(model.weights.size()), "tensors");
  std::uint64_t hash = 0;
  for (const auto& [name, weight] : model.weights) {
    stop_if_interrupted();
    const Tensor t = weight.load();
    hash = fingerprint(std::as_bytes(std::span(name)), hash);
    for (const Blob* plane :
         {&t.codes, &t.scales, &t.zeros, &t.mins, &t.super_scales, &t.super_mins, &t.mask})
      hash = fingerprint(plane->bytes, hash);
    progress.add(1, name);
  }
  return fmt::format("input {:016x}", hash);
}

std::string identity_of(const Calibration& data) {
  std::uint64_t hash = 0;
  for (const auto& s : data.sequences) hash = fingerprint(std::as_bytes(std::span(s)), hash);
  return fmt::format("data {}, {:016x}", data.source, hash);
}

void command_calibrate(const CalibrateCommand& o, const CommonOptions& common, const Output& out) {
  const Model model = load_model(o.model, {common.tokenizer});
  Pool pool(common.threads);
  Context context{pool, out.log};
  context.seed = o.data.seed;
  context.ram_bytes = static_cast<i64>(o.data.ram * 1e6);
  std::vector<std::int32_t> rest;
  const auto data = make_calibration(model, o.data, 0, rest, pool, out.log);
  i64 gram_floats = 0, inputs = 0;
  for (const InputSlot& input : input_slots(model.spec)) {
    gram_floats += input.size * input.size;
    inputs++;
  }
  const i64 tokens = count(data->sequences);
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
