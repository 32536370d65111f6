// pare run: generate text; pare tokenize: text to ids and back.
#include <algorithm>

#include "app/commands.h"
#include "engine/generate.h"
#include "probe/encoding.h"
#include "text/tokenizer.h"

namespace pare {
namespace {

Json ids_json(const std::vector<std::int32_t>& ids) {
  Json::Array array;
  for (std::int32_t id : ids) array.emplace_back(static_cast<i64>(id));
  return Json(std::move(array));
}

std::vector<std::vector<std::int32_t>> read_prompts(const RunOptions& o,
                                                    const Tokenizer* tokenizer) {
  std::vector<std::vector<std::int32_t>> prompts;
  if (!o.ids.empty()) {
    for (Sequence& s : read_ids(o.ids)) prompts.push_back(std::move(s.ids));
    return prompts;
  }
  if (tokenizer == nullptr)
    fail_input("RN-001", "the model has no tokenizer, so a text prompt cannot be read",
               {{"model", o.model}}, "give --tokenizer FILE, or token ids with --ids FILE");
  const std::string text = o.prompt == "-" ? read_text_argument("-") : o.prompt;
  prompts.push_back(tokenizer->encode(text));
  if (prompts[0].empty()) {
    // An empty prompt needs something to start from.
    if (tokenizer->bos() >= 0)
      prompts[0].push_back(tokenizer->bos());
    else if (tokenizer->eos() >= 0)
      prompts[0].push_back(tokenizer->eos());
    else
      fail_input("RN-002", "the prompt is empty and the tokenizer has no begin token",
                 {{"model", o.model}}, "give a prompt");
  }
  return prompts;
}

}  // namespace

void command_run(const RunOptions& o, const CommonOptions& common, const Output& out) {
  SampleOptions sampling = o.sampling;
  if (o.greedy) sampling.temperature = 0;
  check(sampling);
  const Model model = load_model(o.model, {common.tokenizer});
  std::optional<Tokenizer> tokenizer;
  if (!model.tokenizer.empty()) tokenizer = load_tokenizer(model.tokenizer);
  const auto prompts = read_prompts(o, tokenizer ? &*tokenizer : nullptr);
  Pool pool(common.threads);
  EngineOptions engine_options;
  engine_options.reference = o.reference;
  engine_options.kv = parse_kv(o.kv);
  Engine engine(model, pool, engine_options);

  GenerateOptions generate_options;
  generate_options.tokens = o.tokens;
  generate_options.sampling = sampling;
  generate_options.seed = o.seed;
  if (o.stop_at_end) generate_options.stop = end_tokens(model);
  const bool stream = !out.json && prompts.size() == 1 && tokenizer.has_value();
  std::optional<StreamDecoder> decoder;
  if (stream) {
    decoder.emplace(*tokenizer);
    for (std::int32_t id : prompts[0]) out.text(decoder->push(id));
  }
  const auto on_token = [&](std::size_t, std::int32_t id) {
    if (stream) out.text(decoder->push(id));
  };
  const auto generated = generate(engine, prompts, generate_options, on_token);
  if (stream) {
    out.text(decoder->finish() + "\n");
    return;
  }
  Json::Array sequences;
  for (std::size_t i = 0; i < generated.size(); i++) {
    Json entry =
        Json::object({{"prompt_ids", ids_json(prompts[i])}, {"ids", ids_json(generated[i])}});
    if (tokenizer) {
      std::vector<std::int32_t> whole = prompts[i];
      whole.insert(whole.end(), generated[i].begin(), generated[i].end());
      const std::string before = tokenizer->decode(prompts[i], true);
      const std::string all = tokenizer->decode(whole, true);
      entry.set("text", all.starts_with(before) ? all.substr(before.size())
                                                : tokenizer->decode(generated[i], true));
    } else {
      entry.set("text", Json());
    }
    sequences.push_back(std::move(entry));
  }
  if (!out.json) {
    std::string lines;
    for (const Json& s : sequences)
      lines += (tokenizer ? s.at("text").as_string() : s.at("ids").dump()) + "\n";
    return out.text(lines);
  }
  Json result = sequences[0];
  result.set("seed", static_cast<i64>(o.seed));
  if (sequences.size() > 1) result.set("sequences", Json(sequences));
  out.result("run", result);
}

namespace {

void tokenize_speed(const Tokenizer& tokenizer, const std::string& text, bool special,
                    const Output& out) {
  const EncodingSpeed speed = measure_encoding(tokenizer, text, special);
  const double bytes = static_cast<double>(text.size());
  if (out.json)
    return out.result("tokenize", Json::object({{"tokens", Json(speed.tokens)},
                                                {"bytes", Json(text.size())},
                                                {"repeats", Json(speed.repeats)},
                                                {"first_seconds", Json(speed.first)},
                                                {"seconds", Json(speed.median)},
                                                {"bytes_per_second", Json(bytes / speed.median)}}));
  out.text(fmt::format("{}: {} in {} tokens, {} (median of {}; the first time {})\n",
                       tokenizer.kind(), human_bytes(bytes), speed.tokens,
                       human_rate(bytes / speed.median, "B"), speed.repeats,
                       human_rate(bytes / speed.first, "B")));
}

}  // namespace

void command_tokenize(const TokenizeOptions& o, const CommonOptions&, const Output& out) {
  const std::filesystem::path path(o.model);
  const Tokenizer tokenizer = load_tokenizer(find_tokenizer(o.model));
  if (o.file.empty() != o.text.has_value())
    fail(Exit::usage, "CL-008", "give either a text or --file",
         {{"found", o.text ? "both" : "neither"}}, "an empty text is \"\"");
  const std::string text = o.text ? *o.text : read_text_argument(o.file);
  if (o.decode) {
    std::vector<std::int32_t> ids;
    std::string decoded;
    const Json list = parse_json(text, "the list of ids");
    for (const Json& id : list.as_array()) {
      const i64 value = id.as_int();
      if (value < 0 || value >= static_cast<i64>(tokenizer.vocab_size()))
        fail_input("CL-005", "a token id is out of range",
                   {{"found", std::to_string(value)},
                    {"need", fmt::format("0 to {}", tokenizer.vocab_size() - 1)}});
      ids.push_back(static_cast<std::int32_t>(value));
    }
    decoded = tokenizer.decode(ids, !o.special);
    if (!out.json) return out.text(decoded + "\n");
    return out.result("tokenize", Json::object({{"ids", ids_json(ids)}, {"text", Json(decoded)}}));
  }
  if (o.speed) return tokenize_speed(tokenizer, text, o.special, out);
  const std::vector<std::int32_t> ids = tokenizer.encode(text, o.special);
  Json::Array pieces;
  if (o.pieces)
    for (std::int32_t id : ids) pieces.emplace_back(tokenizer.token(id));
  if (!out.json) {
    std::string lines = ids_json(ids).dump() + "\n";
    if (o.pieces) lines += Json(pieces).dump() + "\n";
    return out.text(lines);
  }
  Json result = Json::object(
      {{"tokens", Json(ids.size())}, {"bytes", Json(text.size())}, {"ids", ids_json(ids)}});
  if (o.pieces) result.set("pieces", Json(pieces));
  out.result("tokenize", result);
}

}  // namespace pare
